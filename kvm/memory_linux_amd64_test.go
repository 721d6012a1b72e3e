package kvm

import (
	"errors"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hutchvm/hutch/kvm/internal/asm"
)

// writer is a guest that writes pages 9 and 11, reports, and starts again.
func (g *guest) writer() {
	g.real(asm.New(asm.Real).Label("again").Inc(asm.AL).
		Store(asm.Abs(0x9000), asm.AL).Store(asm.Abs(0xb004), asm.AL).
		Out(0x10, asm.AL).Jmp("again"))
}

// dirty returns the numbers of the dirty pages from dataAddr on. Of the code page the kernel
// may say so without a write, having mapped it writable when the guest first fetched from it.
func (g *guest) dirty() []int {
	g.tb.Helper()
	bitmap := make([]uint64, DirtyBitmapWords(guestMemory))
	g.check(g.vm.GetDirtyLog(0, guestMemory, bitmap))
	pages := []int{}
	for i := dataAddr / PageSize; i < len(bitmap)*64; i++ {
		if bitmap[i/64]>>(i%64)&1 != 0 {
			pages = append(pages, i)
		}
	}
	return pages
}

func (g *guest) wantDirty(when string, want ...int) {
	g.tb.Helper()
	if want == nil {
		want = []int{}
	}
	if diff := cmp.Diff(want, g.dirty()); diff != "" {
		g.tb.Errorf("dirty pages %s (-want +got):\n%s", when, diff)
	}
}

func TestDirtyLog(t *testing.T) {
	g := newGuest(t, false)
	g.writer()
	g.wantOut(0x10)
	g.check(g.vm.SetMemoryRegion(g.region(MemLogDirtyPages)))
	g.wantDirty("at first")
	for range 2 {
		g.wantOut(0x10)
		g.wantDirty("after a round", 9, 11)
		g.wantDirty("once read")
	}
	g.check(g.vm.SetMemoryRegion(g.region(0)))
	bitmap := make([]uint64, DirtyBitmapWords(guestMemory))
	if err := g.vm.GetDirtyLog(0, guestMemory, bitmap); err == nil {
		t.Error("a slot that is not logged has a log")
	}
}

func TestClearDirtyLog(t *testing.T) {
	g := newGuest(t, false)
	n, err := g.vm.CheckExtension(CapManualDirtyLogProtect2)
	if err != nil || n&DirtyLogManualProtect == 0 {
		t.Logf("no manual protection here: %d, %v", n, err)
		return
	}
	g.check(g.vm.EnableCap(CapManualDirtyLogProtect2, DirtyLogManualProtect))
	g.check(g.vm.SetMemoryRegion(g.region(MemLogDirtyPages)))
	g.writer()
	g.wantOut(0x10)
	g.wantDirty("after a round", 9, 11)
	g.wantDirty("read again", 9, 11)
	g.check(g.vm.ClearDirtyLog(0, 0, 64, []uint64{1 << 9}))
	g.wantDirty("with page 9 cleared", 11)
	g.wantOut(0x10)
	g.wantDirty("after another round", 9, 11)
}

func TestDirtyBitmapTooShort(t *testing.T) {
	g := newGuest(t, false)
	short := make([]uint64, DirtyBitmapWords(guestMemory)-1)
	for name, err := range map[string]error{
		"get":       g.vm.GetDirtyLog(0, guestMemory, short),
		"get, none": g.vm.GetDirtyLog(0, 0, nil),
		"clear":     g.vm.ClearDirtyLog(0, 0, guestMemory/PageSize, short),
	} {
		if !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: error %v, want EINVAL", name, err)
		}
	}
}

func TestDirtyBitmapWords(t *testing.T) {
	for size, want := range map[uint64]int{0: 0, PageSize: 1, 64 * PageSize: 1, 65 * PageSize: 2, 1 << 40: 1 << 22} {
		if got := DirtyBitmapWords(size); got != want {
			t.Errorf("DirtyBitmapWords(%d) = %d, want %d", size, got, want)
		}
	}
}
