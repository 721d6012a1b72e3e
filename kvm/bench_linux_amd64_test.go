package kvm

import (
	"testing"
	"time"

	"github.com/hutchvm/hutch/kvm/internal/asm"
)

// BenchmarkPortExit measures a guest's port write: out of the guest, decoded, and in again.
func BenchmarkPortExit(b *testing.B) {
	g := newGuest(b, false)
	g.real(asm.New(asm.Real).Label("l").Out(0x10, asm.AL).Jmp("l"))
	b.ReportAllocs()
	for b.Loop() {
		e, err := g.cpu.Run()
		if err != nil {
			b.Fatal(err)
		}
		if e.Reason == ExitIntr {
			continue
		}
		if _, err := e.IO(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMMIOExit is the same for a 4-byte write to memory that no slot backs.
func BenchmarkMMIOExit(b *testing.B) {
	g := newGuest(b, false)
	g.long(asm.New(asm.Long).Mov(asm.RBX, mmioAddr).Label("l").Store(asm.At(asm.RBX), asm.EAX).Jmp("l"))
	b.ReportAllocs()
	for b.Loop() {
		e, err := g.cpu.Run()
		if err != nil {
			b.Fatal(err)
		}
		if e.Reason == ExitIntr {
			continue
		}
		if _, err := e.MMIO(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIOEventFD measures the write that does not come out: 64 notifications, one exit.
func BenchmarkIOEventFD(b *testing.B) {
	const writes = 64
	g := newGuest(b, false)
	a := asm.New(asm.Long).Mov(asm.RBX, mmioAddr).Label("l")
	for range writes {
		a.Store(asm.At(asm.RBX), asm.EAX)
	}
	g.long(a.Out(0x10, asm.AL).Jmp("l"))
	g.check(g.vm.IOEventFD(IOEventFD{Addr: mmioAddr, Len: 4, FD: int32(eventfd(b))}))
	for b.Loop() {
		g.wantOut(0x10)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/writes, "ns/notify")
}

// BenchmarkKick measures a round of kicking and waiting for the answer, and as ns/kick the
// part of it up to the return of Run.
func BenchmarkKick(b *testing.B) {
	g := newGuest(b, false)
	g.real(asm.New(asm.Real).Label("l").Jmp("l"))
	r := startRunner(g.cpu, nil)
	timer := time.NewTimer(guestDeadline)
	defer timer.Stop()
	b.ReportAllocs()
	var total time.Duration
	for b.Loop() {
		total += r.kickAndWait(b, g.cpu, timer.C)
	}
	b.ReportMetric(float64(total.Nanoseconds())/float64(b.N), "ns/kick")
	r.end(b, g.cpu)
}

// BenchmarkKickMerged measures a kick that finds an earlier one still unseen.
func BenchmarkKickMerged(b *testing.B) {
	g := newGuest(b, false)
	b.ReportAllocs()
	for b.Loop() {
		if err := g.cpu.Kick(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreate measures making and closing a machine with one vCPU.
func BenchmarkCreate(b *testing.B) {
	g := newGuest(b, false)
	for b.Loop() {
		vm, err := g.sys.CreateVM()
		g.check(err)
		cpu, err := vm.CreateVCPU(0)
		g.check(err)
		g.check(cpu.Close())
		g.check(vm.Close())
	}
}
