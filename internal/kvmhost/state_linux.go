package kvmhost

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hutchvm/hutch/internal/kvmhost/prep"
	"github.com/hutchvm/hutch/internal/kvmhost/wire"
)

// A machine that has booted and waits for its first order is the same for every
// command. Its state is saved once and later machines start from there, which
// leaves out the firmware, the kernel's start and the loading of modules.

const (
	// statesQEMU is the first major version that reads a state file quickly and
	// straight into memory.
	statesQEMU = 10
	// statesKept bounds how many states are kept, at roughly 250 MB each, and
	// stateAge for how long an unused one is.
	statesKept = 4
	stateAge   = 48 * time.Hour
	// failureAge is how long a failure to make a state is remembered.
	failureAge = time.Hour
)

// stateArguments make QEMU write a memory page at its own place in the file.
var stateArguments = []string{"-global", "migration.mapped-ram=on"}

// key names the state of machines of this shape on this boot of this machine:
// the guest's idea of its clock's speed comes from the CPU below.
func (m *shape) key() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	qemu, err := os.Stat(m.host.QEMU.Path)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%d %d %s\n", boot, qemu.Size(), qemu.ModTime().UnixNano(), m.host.Release)
	fmt.Fprintf(sum, "%q %d\n", m.arguments(), m.shares)
	sum.Write(m.initrd)
	return hex.EncodeToString(sum.Sum(nil)[:12]), nil
}

// frozen returns the state file for this shape of machine and makes it if it is not
// there. The empty name means that machines of this shape have to boot.
func (m *shape) frozen(ctx context.Context, c *Config, empty string) (string, error) {
	if c.Boot || m.host.QEMU.Major < statesQEMU {
		return "", nil
	}
	key, err := m.key()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(m.host.States, 0o755); err != nil {
		return "", err
	}
	name := filepath.Join(m.host.States, key)
	if ready(name) {
		return name, nil
	}
	unlock, err := prep.Lock(filepath.Join(m.host.States, "lock"), nil)
	if err != nil {
		return "", err
	}
	defer unlock()
	if ready(name) {
		return name, nil
	}
	failure := name + failureSuffix
	if info, err := os.Stat(failure); err == nil && time.Since(info.ModTime()) < failureAge {
		return "", nil
	}
	prune(m.host.States)
	if err := m.freeze(ctx, c, name, empty); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		fmt.Fprintf(c.Log, "no saved state, every run boots: %v\n", err)
		return "", os.WriteFile(failure, []byte(err.Error()+"\n"), 0o644)
	}
	return name, nil
}

const failureSuffix = ".failed"

// ready says whether a state is there, and marks it as used.
func ready(name string) bool {
	now := time.Now()
	return os.Chtimes(name, now, now) == nil
}

// prune removes the states that were not used for the longest time. One that
// an emulator is just reading stays whole for it.
func prune(dir string) {
	entries, _ := os.ReadDir(dir)
	var states []os.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && e.Name() != "lock" {
			states = append(states, info)
		}
	}
	slices.SortFunc(states, func(a, b os.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for i, s := range states {
		if i >= statesKept-1 || time.Since(s.ModTime()) > stateAge || strings.HasSuffix(s.Name(), ".tmp") {
			os.Remove(filepath.Join(dir, s.Name()))
		}
	}
}

// freeze boots a machine up to the point where it waits for its order and
// saves its state.
func (m *shape) freeze(ctx context.Context, c *Config, name, empty string) error {
	e, err := m.launch(append(stateArguments, m.shareArguments(nil, empty)...)...)
	if err != nil {
		return err
	}
	defer e.stop()
	var console ring
	go io.Copy(io.MultiWriter(&console, &e.errText), e.console)

	err = e.freezeAtHello(ctx, c, name+".tmp")
	if err != nil {
		os.Remove(name + ".tmp")
		if text := e.errText.tail(); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return err
	}
	return os.Rename(name+".tmp", name)
}

// saveLimit bounds the writing of a state, which takes a few tenths of a second
// on an idle machine.
const saveLimit = 2 * time.Minute

func (e *emulator) freezeAtHello(ctx context.Context, c *Config, file string) error {
	hello := make(chan error, 1)
	go func() { // ends with the emulator at the latest
		frame, err := wire.Read(bufio.NewReader(e.control))
		if err == nil && frame.Type != wire.Hello {
			err = errors.New("the guest began with another frame than its greeting")
		}
		hello <- err
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, bootPatience*c.HangAfter, ErrStopped)
	defer cancel()
	heal := time.NewTicker(firstHealBoot * time.Second)
	defer heal.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-heal.C:
			e.heal() // that it is of no use is seen by the time limit
		case err := <-hello:
			if err != nil {
				return err
			}
			qmp, err := e.qmp(saveLimit)
			if err != nil {
				return err
			}
			// The guest goes on from its greeting to its wait in the meantime; if
			// not, its copies do that, which makes no difference.
			return qmp.save(file)
		}
	}
}
