package kvm

import (
	"fmt"
	"syscall"
)

// PageSize is the unit of memory slots and dirty bitmaps on x86, in bytes.
const PageSize = 4096

// Flags of a MemoryRegion.
const (
	// MemLogDirtyPages makes the kernel record which pages the guest writes.
	MemLogDirtyPages = 1 << 0
	// MemReadOnly turns guest writes into MMIO exits ([CapReadOnlyMem]).
	MemReadOnly = 1 << 1
)

// MemoryRegion is struct kvm_userspace_memory_region: one slot of guest memory.
type MemoryRegion struct {
	// Slot numbers the region within the machine, 0 up to CapNRMemSlots-1.
	Slot uint32
	// Flags are Mem* bits.
	Flags uint32
	// GuestPhys is the guest-physical address, a multiple of PageSize.
	GuestPhys uint64
	// Size is in bytes, a multiple of PageSize; 0 deletes the slot.
	Size uint64
	// HostAddr is the address of a mapping made with mmap, a multiple of PageSize. The caller
	// owns it and keeps it mapped until the slot is deleted or the machine is gone. It must
	// never be Go heap memory, which the collector may free under the guest.
	HostAddr uintptr
}

// SetMemoryRegion creates, moves, reflags or deletes a slot.
func (v *VM) SetMemoryRegion(r MemoryRegion) error {
	return set(&v.h, reqSetUserMemoryRegion, &r)
}

// dirtyLog is struct kvm_dirty_log.
type dirtyLog struct {
	Slot   uint32
	_      uint32
	Bitmap *uint64
}

// clearDirtyLog is struct kvm_clear_dirty_log.
type clearDirtyLog struct {
	Slot      uint32
	NumPages  uint32
	FirstPage uint64
	Bitmap    *uint64
}

// DirtyBitmapWords returns the length in words of a dirty bitmap for size bytes of memory.
func DirtyBitmapWords(size uint64) int {
	return int((size/PageSize + 63) / 64)
}

// GetDirtyLog fills bitmap with one bit per page of the slot, set for the pages written since
// the last call, and starts afresh unless DirtyLogManualProtect is on. The kernel writes as
// many words as the slot has: bitmap must hold DirtyBitmapWords of the slot's size.
func (v *VM) GetDirtyLog(slot uint32, size uint64, bitmap []uint64) error {
	if err := checkBitmap(reqGetDirtyLog, DirtyBitmapWords(size), bitmap); err != nil {
		return err
	}
	return set(&v.h, reqGetDirtyLog, &dirtyLog{Slot: slot, Bitmap: &bitmap[0]})
}

// ClearDirtyLog marks the pages whose bit is set as clean and write-protects them again. It
// needs DirtyLogManualProtect. Bit 0 of bitmap is page first of the slot; first is a multiple
// of 64, and so is pages unless the range ends with the slot.
func (v *VM) ClearDirtyLog(slot uint32, first uint64, pages uint32, bitmap []uint64) error {
	if err := checkBitmap(reqClearDirtyLog, int((uint64(pages)+63)/64), bitmap); err != nil {
		return err
	}
	return set(&v.h, reqClearDirtyLog, &clearDirtyLog{
		Slot: slot, NumPages: pages, FirstPage: first, Bitmap: &bitmap[0],
	})
}

func checkBitmap(req request, want int, bitmap []uint64) error {
	if want == 0 || len(bitmap) < want {
		return newOpError(req.String(), fmt.Errorf("bitmap of %d words for %d: %w", len(bitmap), want, syscall.EINVAL))
	}
	return nil
}
