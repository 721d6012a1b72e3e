package guest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/internal/kvmhost/kmod"
	"github.com/hutchvm/hutch/internal/kvmhost/wire"
)

// machine is the first process's state.
type machine struct {
	ports  ports
	timing wire.Timing

	mu sync.Mutex // guards writes to the control port
}

func (m *machine) send(t wire.Type, payload any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return wire.Write(m.ports.control, t, payload)
}

// run brings the machine up, runs the command and reports its end. It returns
// only an error that keeps the machine from doing that.
//
// Everything before the first frame is the same for every command: the outer
// side may freeze the machine there and go on from that state many times.
func (m *machine) run() error {
	m.timing.Init = uptime()
	if err := prepare(); err != nil {
		return err
	}
	var err error
	if m.ports, err = openPorts(); err != nil {
		return err
	}
	m.timing.Ready = uptime()
	if err := m.send(wire.Hello, nil); err != nil {
		return err
	}

	in := bufio.NewReader(m.ports.control)
	frame, err := wire.Read(in)
	if err != nil {
		return fmt.Errorf("first frame: %w", err)
	}
	if frame.Type != wire.Start {
		return fmt.Errorf("first frame has type %#x", byte(frame.Type))
	}
	m.timing.Ordered = uptime()
	// The outer side takes this as the proof that the machine works.
	if err := m.send(wire.Heartbeat, nil); err != nil {
		return err
	}
	go m.heartbeats()
	var c wire.Command
	if err := frame.Decode(&c); err != nil {
		return err
	}
	if err := renew(&c); err != nil {
		return err
	}
	if err := holdVirtualization(); err != nil {
		return err
	}
	if err := enterRoot(); err != nil {
		return err
	}
	if err := mountRest(&c); err != nil {
		return err
	}
	if err := settle(&c); err != nil {
		return err
	}
	m.timing.Mounted = uptime()

	status := m.execute(&c, in)
	for _, dir := range c.Shares {
		flush(dir)
	}
	return m.finish(status)
}

// prepare does what needs neither the outer root nor an order.
func prepare() error {
	if err := mountEarly(); err != nil {
		return err
	}
	if err := loadList(BootList); err != nil {
		return err
	}
	if err := mountPrepared(); err != nil {
		return err
	}
	index, err := readIndex(BootIndex)
	if err != nil {
		return err
	}
	makeDeviceNodes(index)
	if err := os.Chmod("/dev/kvm", 0o666); err != nil {
		return err
	}
	return loopbackUp()
}

// renew replaces what a machine that was frozen shares with its copies: the time
// and the state of the random generator.
func renew(c *wire.Command) error {
	now := unix.NsecToTimespec(c.Clock)
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &now); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(c.Seed); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	const reseedCRNG = 0x5207 // RNDRESEEDCRNG, _IO('R', 7) of linux/random.h
	if err := unix.IoctlSetInt(int(f.Fd()), reseedCRNG, 0); err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	return nil
}

// finish sends the last frame and waits to be ended.
func (m *machine) finish(status wire.Status) error {
	if err := m.send(wire.Exit, status); err != nil {
		return err
	}
	// The outer side kills the emulator as soon as it has all output; that
	// takes as long as its own reader of that output takes.
	select {}
}

func (m *machine) heartbeats() {
	for range time.Tick(time.Second) {
		if m.send(wire.Heartbeat, nil) != nil {
			return
		}
	}
}

// settle does the small things that an ordinary start of a system does.
func settle(c *wire.Command) error {
	if err := os.Symlink(c.Modules, filepath.Join(RuntimeDir, treeLink)); err != nil {
		return err
	}
	loader := filepath.Join(RuntimeDir, modprobeName)
	if err := os.WriteFile("/proc/sys/kernel/modprobe", []byte(loader), 0o644); err != nil {
		return err
	}
	if len(c.Load) > 0 {
		index, err := readIndex(filepath.Join(c.Modules, kmod.IndexName))
		if err != nil {
			return err
		}
		for _, name := range c.Load {
			if err := loadModules(index, c.Modules, name); err != nil {
				return err
			}
		}
	}
	return unix.Sethostname([]byte(c.Hostname))
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return nil
}

// flush carries what was written in a share to the outer machine.
func flush(dir string) {
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	for {
		if err := unix.Syncfs(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
