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
	seen  chan int64
	ended chan error
	exits int // other exits; read after ended
}

func startRunner(cpu *VCPU) *runner {
	r := &runner{seen: make(chan int64, 1), ended: make(chan error, 1)}
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
		if e.Reason != ExitIntr {
			r.exits++
			continue
		}
		if r.stop.Load() {
			return nil
		}
		if w := r.want.Load(); w > answered {
			answered = w
			r.seen <- w
		}
	}
}

// kickAndWait kicks and waits for the interruption that it must cause.
func (r *runner) kickAndWait(tb testing.TB, cpu *VCPU, timeout <-chan time.Time) {
	w := r.want.Add(1)
	if err := cpu.Kick(); err != nil {
		tb.Fatal(err)
	}
	select {
	case <-r.seen:
	case err := <-r.ended:
		tb.Fatalf("vcpu ended: %v", err)
	case <-timeout:
		tb.Fatalf("kick %d is lost", w)
	}
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
			r := startRunner(g.cpu)
			defer r.end(t, g.cpu)
			timer := time.NewTimer(guestDeadline)
			defer timer.Stop()
			for range tt.kicks {
				r.kickAndWait(t, g.cpu, timer.C)
			}
		})
	}
}

// TestKickHalted wakes a vCPU that waits for an interrupt inside the kernel.
func TestKickHalted(t *testing.T) {
	g := newGuest(t, true)
	g.real(asm.New(asm.Real).Label("l").Hlt().Jmp("l"))
	r := startRunner(g.cpu)
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
	r := startRunner(g.cpu)
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
