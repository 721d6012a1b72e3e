package boot

import (
	"encoding/binary"
	"io"

	"github.com/hutchvm/hutch/virtio/guestmem"
)

// Fields of the setup header, as offsets into the bzImage file.
const (
	setupStart      = 0x1f1 // setup_sects
	setupSyssize    = 0x1f4
	setupMagicOff   = 0x202
	setupVersion    = 0x206
	setupLoadflags  = 0x211
	setupXLoadflags = 0x236
	setupPrefAddr   = 0x258
	setupInitSize   = 0x260
	setupEnd        = 0x290 // past the last field of protocol 2.15

	setupMagic      = 0x53726448 // "HdrS"
	setupMinVersion = 0x020c     // 2.12 brought xloadflags, and with it the 64-bit entry
	xlfKernel64     = 1 << 0
	loadedHigh      = 1 << 0

	entry64Offset = 0x200 // of the 64-bit entry point in the protected-mode part
)

func loadBzImage(mem *guestmem.Memory, r io.ReaderAt, size int64) (Kernel, error) {
	h := make([]byte, setupEnd)
	if size < int64(len(h)) {
		return Kernel{}, because(ErrTruncated, "%d bytes", size)
	}
	if _, err := r.ReadAt(h, 0); err != nil {
		return Kernel{}, err
	}
	le := binary.LittleEndian
	if v := le.Uint16(h[setupVersion:]); v < setupMinVersion {
		return Kernel{}, because(ErrNotKernel, "boot protocol %d.%02d has no 64-bit entry", v>>8, v&0xff)
	}
	if h[setupLoadflags]&loadedHigh == 0 || le.Uint16(h[setupXLoadflags:])&xlfKernel64 == 0 {
		return Kernel{}, because(ErrNotKernel, "no 64-bit entry")
	}
	sects := int64(h[setupStart])
	if sects == 0 {
		sects = 4 // as boot.rst demands for ancient kernels
	}
	off := (sects + 1) * 512
	length := uint64(le.Uint32(h[setupSyssize:])) * 16
	if off >= size || length == 0 || uint64(size-off) < length {
		return Kernel{}, because(ErrTruncated, "%d bytes at offset %#x", length, off)
	}
	start, span := le.Uint64(h[setupPrefAddr:]), uint64(le.Uint32(h[setupInitSize:]))
	span = max(span, length)
	if start%pageSize != 0 || start > maxKernelSpan || length <= entry64Offset {
		return Kernel{}, because(ErrBadKernel, "preferred address %#x, %d bytes", start, length)
	}
	if err := checkPlacement(mem, start, start+span); err != nil {
		return Kernel{}, err
	}
	if err := readInto(mem, start, length, r, off); err != nil {
		return Kernel{}, err
	}
	return Kernel{Entry: start + entry64Offset, Start: start, End: start + span, setup: h[setupStart:]}, nil
}
