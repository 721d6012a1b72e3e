package kvmhost

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"time"
)

// An emulator that translates code while another of its CPUs patches it can keep
// a stale translation. The guest then executes for ever what is no longer in its
// memory: the breakpoint that a kernel puts in a place that it is patching is
// the usual case, and with it all CPUs stand still. See also the guest's
// holdVirtualization, which removes the most frequent cause.
//
// The cure is to drop all translations. QEMU has no command for that, but it
// does so after each single step that a debugger asks for.

const (
	// firstHeal is the silence, in seconds, after which translations are dropped for
	// the first time; it doubles from then on. A healthy host speaks every second, so
	// this is a sign of a stall or of a very busy machine, for which a
	// cure costs half a second.
	firstHeal = 8
	// firstHealBoot is the same while a host boots, when it says nothing.
	firstHealBoot = 20
	// stepTimeout bounds the waiting for one answer of QEMU's.
	stepTimeout = 5 * time.Second
)

// healer drops translations. It is used by one goroutine at a time.
type healer struct {
	qmp *monitor // nil until first used
	gdb *debugger
}

// heal makes QEMU forget its translations.
func (e *emulator) heal() error {
	h := &e.healer
	qmp, err := e.qmp(stepTimeout)
	if err != nil {
		return err
	}
	if h.gdb == nil {
		line := map[string]any{"command-line": "gdbserver chardev:debugger"}
		if err := qmp.call("human-monitor-command", line, nil); err != nil {
			return err
		}
		h.gdb = &debugger{channel: e.debugger, in: bufio.NewReader(e.debugger)}
	} else if err := h.gdb.interrupt(); err != nil { // the first contact has stopped the machine already
		return err
	}
	// A CPU that sleeps does not make its step, since interrupts are held off
	// during one; then another CPU is tried.
	err = errors.New("no CPU makes a step")
	for cpu := 1; cpu <= e.cpus && err != nil; cpu++ {
		if err = h.gdb.step(cpu); err != nil {
			if ierr := h.gdb.interrupt(); ierr != nil {
				return ierr
			}
		}
	}
	if cerr := h.gdb.send("c"); cerr != nil {
		return cerr
	}
	return err
}

// qmp gives the monitor, to be used within a time limit.
func (e *emulator) qmp(limit time.Duration) (*monitor, error) {
	if err := e.monitor.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	if e.healer.qmp == nil {
		qmp, err := newMonitor(e.monitor)
		if err != nil {
			return nil, err
		}
		e.healer.qmp = qmp
	}
	return e.healer.qmp, nil
}

// debugger speaks the GDB remote protocol: packets "$text#sum", each
// acknowledged by "+".
type debugger struct {
	channel *os.File
	in      *bufio.Reader
}

// send sends one packet. The acknowledgement is skipped by whoever reads next.
func (d *debugger) send(text string) error {
	var sum byte
	for i := range len(text) {
		sum += text[i]
	}
	_, err := fmt.Fprintf(d.channel, "$%s#%02x", text, sum)
	return err
}

// receive waits for the next packet and acknowledges it.
func (d *debugger) receive(limit time.Duration) (string, error) {
	d.channel.SetReadDeadline(time.Now().Add(limit))
	if _, err := d.in.ReadString('$'); err != nil {
		return "", fmt.Errorf("debugger: %w", err)
	}
	text, err := d.in.ReadString('#')
	if err != nil {
		return "", fmt.Errorf("debugger: %w", err)
	}
	if _, err := d.in.Discard(2); err != nil {
		return "", fmt.Errorf("debugger: %w", err)
	}
	_, err = d.channel.WriteString("+")
	return text[:len(text)-1], err
}

// interrupt stops the machine and waits for the word that it has.
func (d *debugger) interrupt() error {
	if _, err := d.channel.WriteString("\x03"); err != nil {
		return err
	}
	_, err := d.receive(stepTimeout)
	return err
}

// step lets one CPU, counted from 1, execute one instruction.
func (d *debugger) step(cpu int) error {
	if err := d.send(fmt.Sprintf("Hc%x", cpu)); err != nil {
		return err
	}
	if _, err := d.receive(stepTimeout); err != nil {
		return err
	}
	if err := d.send("s"); err != nil {
		return err
	}
	_, err := d.receive(time.Second)
	return err
}
