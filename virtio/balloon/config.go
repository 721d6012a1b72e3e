package balloon

import "encoding/binary"

// Layout of the configuration space (5.5.4). The fields behind actual belong to
// features that are not offered.
const (
	offNumPages = 0
	offActual   = 4
	configSize  = 8
)

// ReadConfig reads num_pages and actual.
func (d *Device) ReadConfig(off uint64, p []byte) {
	var b [configSize]byte
	binary.LittleEndian.PutUint32(b[offNumPages:], d.target.Load())
	binary.LittleEndian.PutUint32(b[offActual:], d.actual.Load())
	if off < configSize {
		copy(p, b[off:])
	}
}

// WriteConfig takes actual, as a whole; nothing else can be written.
func (d *Device) WriteConfig(off uint64, p []byte) {
	if off == offActual && len(p) == 4 {
		d.actual.Store(binary.LittleEndian.Uint32(p))
	}
}
