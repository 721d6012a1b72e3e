package blk

import (
	"encoding/binary"
	"fmt"

	"github.com/hutchvm/hutch/virtio/virtq"
)

// Defaults and limits of Config.
const (
	DefaultQueueSize = 512 // room for 1 MiB in scattered pages
	DefaultWorkers   = 8
	MaxQueues        = 64

	serialLen = 20 // VIRTIO_BLK_ID_BYTES

	// What is offered to the driver.
	maxSegBytes  = 1 << 20 // size_max: longest piece of a request
	maxRangeSegs = 64      // ranges in one DISCARD or WRITE_ZEROES
	maxRangeLen  = 1 << 21 // sectors in each: 1 GiB
	discardAlign = 8       // sectors: a page of the host's file system
	physBlockExp = 3       // 4096-byte physical blocks
	// optimalIO, in bytes: Linux reads ahead twice as much. A guest's request
	// costs far more than the bytes that nobody asked for.
	optimalIO      = 512 << 10
	configSize     = 60
	configWCEField = 32
)

// Config describes a disk.
type Config struct {
	// Backend holds the bytes. The caller closes what is behind it, after the
	// transport was closed.
	Backend Backend
	// ReadOnly refuses all writes. It is implied by a backend that cannot be
	// written.
	ReadOnly bool
	// Serial is what the guest sees as /dev/disk/by-id and in sysfs, up to 20 bytes.
	Serial string
	// Queues is the number of request queues (default 1).
	Queues int
	// QueueSize is the largest size of each (default 512).
	QueueSize uint16
	// Workers bounds the requests that wait for the backend at once (default 8).
	// Writes to a File have one worker of their own: the kernel does them one
	// after the other anyway.
	Workers int
	// OnError is told of failed backend operations, an *OpError: the first one,
	// and then at most one a second. The guest sees an I/O error; an owner may
	// want to pause the machine when the host's disk is full. It is called
	// on the device's goroutines, must return soon and must not call the device.
	OnError func(error)
}

func (c Config) withDefaults() (Config, error) {
	if c.Backend == nil {
		return c, fmt.Errorf("blk: config: Backend is missing")
	}
	if len(c.Serial) > serialLen {
		return c, fmt.Errorf("blk: config: Serial %q: over %d bytes", c.Serial, serialLen)
	}
	if c.Queues == 0 {
		c.Queues = 1
	}
	if c.Queues < 0 || c.Queues > MaxQueues {
		return c, fmt.Errorf("blk: config: Queues %d: want 1 to %d", c.Queues, MaxQueues)
	}
	if c.QueueSize == 0 {
		c.QueueSize = DefaultQueueSize
	}
	if c.QueueSize < 4 || c.QueueSize&(c.QueueSize-1) != 0 || c.QueueSize > virtq.MaxSize {
		return c, fmt.Errorf("blk: config: QueueSize %d: want a power of two from 4 to %d", c.QueueSize, virtq.MaxSize)
	}
	if c.Workers == 0 {
		c.Workers = DefaultWorkers
	}
	if c.Workers < 0 || c.Workers > 1024 {
		return c, fmt.Errorf("blk: config: Workers %d: want 1 to 1024", c.Workers)
	}
	if ro, ok := c.Backend.(readOnlyer); ok && ro.ReadOnly() {
		c.ReadOnly = true
	}
	return c, nil
}

// segMax leaves room for the header's and the status byte's descriptors.
func (c *Config) segMax() uint32 { return uint32(c.QueueSize) - 2 }

// maxBytes is the largest data part that a driver that keeps to size_max and
// seg_max can make.
func (c *Config) maxBytes() uint64 { return uint64(c.segMax()) * maxSegBytes }

// ReadConfig reads struct virtio_blk_config (5.2.4).
func (d *Device) ReadConfig(off uint64, p []byte) {
	var b [configSize]byte
	le := binary.LittleEndian
	le.PutUint64(b[0:], d.capacity.Load())
	le.PutUint32(b[8:], maxSegBytes)
	le.PutUint32(b[12:], d.cfg.segMax())
	le.PutUint32(b[20:], SectorSize)
	b[24] = physBlockExp
	le.PutUint16(b[26:], 1<<physBlockExp) // min_io_size, in blocks
	le.PutUint32(b[28:], optimalIO/SectorSize)
	if d.writeback.Load() {
		b[configWCEField] = 1
	}
	le.PutUint16(b[34:], uint16(d.cfg.Queues))
	if !d.cfg.ReadOnly {
		le.PutUint32(b[36:], maxRangeLen)
		le.PutUint32(b[40:], maxRangeSegs)
		le.PutUint32(b[44:], discardAlign)
		le.PutUint32(b[48:], maxRangeLen)
		le.PutUint32(b[52:], maxRangeSegs)
		b[56] = 1 // write_zeroes_may_unmap
	}
	clear(p)
	if off < configSize {
		copy(p, b[off:])
	}
}

// WriteConfig lets the driver switch the write cache (VIRTIO_BLK_F_CONFIG_WCE).
// Everything else is read-only.
func (d *Device) WriteConfig(off uint64, p []byte) {
	if off == configWCEField && len(p) == 1 && p[0] <= 1 && !d.cfg.ReadOnly {
		d.writeback.Store(p[0] == 1)
	}
}
