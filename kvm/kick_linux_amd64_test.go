package kvm

import (
	"errors"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hutchvm/hutch/kvm/internal/asm"
)

// runner runs a vCPU on a goroutine of its own and reports interruptions by number: it
// answers on seen whenever a Run was interrupted after want went up.
type runner struct {
	want  atomic.Int64
	stop  atomic.Bool
	seen  chan time.Time // when the Run returned that an answer is about
	ended chan error
	exits int        // other exits; read after ended
	exit  func(Exit) // if not nil, is shown other exits
}

func startRunner(cpu *VCPU, exit func(Exit)) *runner {
	r := &runner{seen: make(chan time.Time, 1), ended: make(chan error, 1), exit: exit}
	go func() { r.ended <- r.loop(cpu) }()
	return r
}

func (r *runner) loop(cpu *VCPU) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	answered := int64(0)
	for {
		e, err := cpu.Run()
		if err != nil {
			return err
		}
		now := time.Now()
		if e.Reason != ExitIntr {
			r.exits++
			if r.exit != nil {
				r.exit(e)
			}
			continue
		}
		if r.stop.Load() {
			return nil
		}
		if w := r.want.Load(); w > answered {
			answered = w
			r.seen <- now
		}
	}
}

// kickAndWait kicks, waits for the interruption that it must cause, and returns how long it
// took until Run had returned.
func (r *runner) kickAndWait(tb testing.TB, cpu *VCPU, timeout <-chan time.Time) time.Duration {
	w := r.want.Add(1)
	start := time.Now()
	if err := cpu.Kick(); err != nil {
		tb.Fatal(err)
	}
	select {
	case t := <-r.seen:
		return t.Sub(start)
	case err := <-r.ended:
		tb.Fatalf("vcpu ended: %v", err)
	case <-timeout:
		tb.Fatalf("kick %d is lost", w)
	}
	return 0
}

func (r *runner) end(tb testing.TB, cpu *VCPU) {
	r.stop.Store(true)
	if err := cpu.Kick(); err != nil {
		tb.Fatal(err)
	}
	if err := <-r.ended; err != nil {
		tb.Fatal(err)
	}
}

// TestKick interrupts guests many times. Without garbage collection the runtime sends next to
// no signals of its own, which would hide a kick that got lost.
func TestKick(t *testing.T) {
	// An emulated host takes milliseconds for each; there, stop early.
	const enough, kickTime = 1000, 10 * time.Second
	tests := []struct {
		name  string
		kicks int
		code  *asm.Asm
	}{
		{"guest that computes", 10_000, asm.New(asm.Real).Label("l").Jmp("l")},
		// Here kicks meet the vCPU before, inside and after KVM_RUN.
		{"guest that exits", 5_000, asm.New(asm.Real).Label("l").Out(0x10, asm.AL).Jmp("l")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			defer debug.SetGCPercent(debug.SetGCPercent(-1))
			g := newGuest(t, false)
			g.real(tt.code)
			r := startRunner(g.cpu, nil)
			defer r.end(t, g.cpu)
			timer := time.NewTimer(guestDeadline)
			defer timer.Stop()
			start, done := time.Now(), 0
			for done < tt.kicks && (done < enough || time.Since(start) < kickTime) {
				r.kickAndWait(t, g.cpu, timer.C)
				done++
			}
			t.Logf("%d kicks in %v", done, time.Since(start))
		})
	}
}

// TestKickHalted wakes a vCPU that waits for an interrupt inside the kernel.
func TestKickHalted(t *testing.T) {
	g := newGuest(t, true)
	g.real(asm.New(asm.Real).Label("l").Hlt().Jmp("l"))
	r := startRunner(g.cpu, nil)
	timer := time.NewTimer(guestDeadline)
	defer timer.Stop()
	for range 500 {
		r.kickAndWait(t, g.cpu, timer.C)
	}
	r.end(t, g.cpu)
	if r.exits != 0 {
		t.Errorf("%d exits of a guest that only halts", r.exits)
	}
}

// TestSecondProcessor has a vCPU wait for its start-up message, which Run reports like a kick.
func TestSecondProcessor(t *testing.T) {
	const (
		apAddr     = 0x2000 // start-up vector 2
		icrLow     = lapicAddr + 0x300
		icrHigh    = lapicAddr + 0x310
		initIPI    = 0x0000_4500
		startupIPI = 0x0000_4600 | apAddr>>12
	)
	g := newGuest(t, true)
	ap, err := g.vm.CreateVCPU(1)
	g.check(err)
	copy(g.mem[apAddr:], asm.New(asm.Real).Mov(asm.AL, 0x77).Out(0x12, asm.AL).Label("l").Hlt().Jmp("l").Bytes())
	a := asm.New(asm.Long).Out(0x10, asm.AL)
	for _, w := range [][2]uint64{{icrHigh, 1 << 24}, {icrLow, initIPI}, {icrLow, startupIPI}} {
		a.Mov(asm.RBX, w[0]).Mov(asm.EAX, w[1]).Store(asm.At(asm.RBX), asm.EAX)
	}
	g.long(a.Out(0x11, asm.AL).Hlt())
	g.enableLAPIC()

	out := make(chan uint64, 1)
	r := startRunner(ap, func(e Exit) {
		io, err := e.IO()
		if err != nil {
			t.Errorf("second processor: exit %v", e.Reason)
		}
		out <- uint64(io.Port)<<8 | number(io.Data)
	})
	timer := time.NewTimer(guestDeadline)
	defer timer.Stop()
	g.wantOut(0x10)
	for range 20 { // while it waits to be started
		r.kickAndWait(t, ap, timer.C)
	}
	g.wantOut(0x11)
	select {
	case got := <-out:
		if got != 0x12_77 {
			t.Errorf("second processor writes %#x (port, value), want 0x1277", got)
		}
	case <-timer.C:
		t.Error("second processor does not start")
	}
	r.end(t, ap)
	g.check(ap.Close())
}

// TestKickBeforeRun shows that a kick is kept for the next Run, that kicks are merged, and
// that the guest does not advance in a Run that was kicked before.
func TestKickBeforeRun(t *testing.T) {
	g := newGuest(t, false)
	g.real(asm.New(asm.Real).Label("l").Inc(asm.AX).Out(0x10, asm.AX).Jmp("l"))
	for round := range uint64(100) {
		for range 3 {
			g.check(g.cpu.Kick())
		}
		e, err := g.cpu.Run()
		g.check(err)
		if e.Reason != ExitIntr {
			t.Fatalf("exit %v after a kick, want intr", e.Reason)
		}
		if _, err := e.IO(); !errors.Is(err, ErrExit) {
			t.Fatalf("an interruption has a port access: %v", err)
		}
		if got := g.wantOut(0x10); got != round+1 {
			t.Fatalf("guest counts %d, want %d", got, round+1)
		}
	}
}

// TestKickFromMany kicks from several goroutines while the vCPU comes to its end and beyond.
func TestKickFromMany(t *testing.T) {
	g := newGuest(t, false)
	g.real(asm.New(asm.Real).Label("l").Out(0x10, asm.AL).Jmp("l"))
	r := startRunner(g.cpu, nil)
	var kickers sync.WaitGroup
	var stop atomic.Bool
	for range 4 {
		kickers.Go(func() {
			for !stop.Load() {
				if err := g.cpu.Kick(); err != nil {
					t.Error(err)
					return
				}
				runtime.Gosched()
			}
		})
	}
	timer := time.NewTimer(guestDeadline)
	defer timer.Stop()
	for range 200 {
		r.kickAndWait(t, g.cpu, timer.C)
	}
	r.end(t, g.cpu)
	g.check(g.cpu.Close())
	stop.Store(true)
	kickers.Wait()
	g.check(g.cpu.Kick())
}

// TestRunning shows what a vCPU refuses while a goroutine is inside Run, and that it forgets
// that goroutine's thread afterwards.
func TestRunning(t *testing.T) {
	g := newGuest(t, false)
	g.real(asm.New(asm.Real).Out(0x10, asm.AL).Hlt())
	g.wantOut(0x10)
	if g.cpu.tid != 0 {
		t.Fatal("a thread is remembered after Run")
	}
	// A guest that really runs may be interrupted at any moment, so only act as if.
	g.cpu.tid = sysGettid()
	if _, err := g.cpu.Run(); !errors.Is(err, ErrRunning) {
		t.Errorf("Run: %v, want ErrRunning", err)
	}
	if err := g.cpu.Close(); !errors.Is(err, ErrRunning) {
		t.Errorf("Close: %v, want ErrRunning", err)
	}
	g.cpu.tid = 0
	g.want(ExitHLT)
}

// TestRunPathAllocates runs the path of an exit and of a kick, which must not allocate.
func TestRunPathAllocates(t *testing.T) {
	g := newGuest(t, false)
	g.long(asm.New(asm.Long).Mov(asm.RBX, mmioAddr).
		Label("l").Out(0x10, asm.EAX).Load(asm.EAX, asm.At(asm.RBX)).Jmp("l"))
	n := testing.AllocsPerRun(500, func() {
		io, err := g.next().IO()
		if err != nil || number(io.Data) != 0 {
			t.Fatalf("%+v, %v", io, err)
		}
		m, err := g.next().MMIO()
		if err != nil || m.Write {
			t.Fatalf("%+v, %v", m, err)
		}
		clear(m.Data)
		g.finish()
	})
	if n != 0 {
		t.Errorf("%v allocations for two exits and a kick", n)
	}
}

// TestSignalMask shows that a blocked signal does not interrupt the guest, and that
// immediate_exit still does.
func TestSignalMask(t *testing.T) {
	g := newGuest(t, false)
	g.real(asm.New(asm.Real).Label("l").Out(0x10, asm.AL).Jmp("l"))
	g.check(g.cpu.SetSignalMask(1 << (uint(kickSignal) - 1)))
	g.wantOut(0x10)
	g.check(sysKick(sysGettid())) // taken before KVM_RUN blocks it, or left for later
	g.wantOut(0x10)
	g.finish()
	g.check(g.cpu.ClearSignalMask())
	g.wantOut(0x10)
}
