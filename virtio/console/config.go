package console

import "encoding/binary"

// ReadConfig reads cols and rows (5.3.4); the other fields belong to features
// that are not offered.
func (d *Device) ReadConfig(off uint64, p []byte) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], d.size.Load())
	if off < uint64(len(b)) {
		copy(p, b[off:])
	}
}

// WriteConfig ignores the write: only an emergency console could be written to.
func (d *Device) WriteConfig(uint64, []byte) {}
