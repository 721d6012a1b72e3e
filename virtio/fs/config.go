package fs

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/hutchvm/hutch/virtio/virtq"
)

// Defaults and limits.
const (
	MaxTag           = 36 // bytes (5.11.4)
	DefaultQueues    = 1
	MaxQueues        = 16
	DefaultQueueSize = 1024
	DefaultWorkers   = 8

	// minQueueSize leaves room for a request of a few pages and its headers.
	minQueueSize = 16

	configSize  = MaxTag + 4
	queuesField = MaxTag
)

// Config is what a device is made of.
type Config struct {
	// Tag is the name by which the guest mounts the device, 1 to 36 bytes.
	Tag string
	// Handler answers the requests.
	Handler Handler
	// Queues is the number of request queues (default 1: Linux before 6.11 uses
	// no more).
	Queues int
	// QueueSize is the largest size of each (default 1024). Linux makes no
	// request of more pages than the queue has entries, less four.
	QueueSize uint16
	// Workers bounds the requests that are served at once beside the ones on the
	// queues' own goroutines (default 8).
	Workers int
}

func (c Config) withDefaults() (Config, error) {
	if c.Handler == nil {
		return c, fmt.Errorf("fs: config: Handler is missing")
	}
	if c.Tag == "" || len(c.Tag) > MaxTag || strings.IndexByte(c.Tag, 0) >= 0 {
		return c, fmt.Errorf("fs: config: Tag %q: want 1 to %d bytes without NUL", c.Tag, MaxTag)
	}
	if c.Queues == 0 {
		c.Queues = DefaultQueues
	}
	if c.Queues < 0 || c.Queues > MaxQueues {
		return c, fmt.Errorf("fs: config: Queues %d: want 1 to %d", c.Queues, MaxQueues)
	}
	if c.QueueSize == 0 {
		c.QueueSize = DefaultQueueSize
	}
	if c.QueueSize < minQueueSize || c.QueueSize&(c.QueueSize-1) != 0 || c.QueueSize > virtq.MaxSize {
		return c, fmt.Errorf("fs: config: QueueSize %d: want a power of two from %d to %d", c.QueueSize, minQueueSize, virtq.MaxSize)
	}
	if c.Workers == 0 {
		c.Workers = DefaultWorkers
	}
	if c.Workers < 0 || c.Workers > 1024 {
		return c, fmt.Errorf("fs: config: Workers %d: want 1 to 1024", c.Workers)
	}
	return c, nil
}

// ReadConfig reads struct virtio_fs_config (5.11.4): the tag, padded with zeroes
// and not terminated, and the number of request queues.
func (d *Device) ReadConfig(off uint64, p []byte) {
	var b [configSize]byte
	copy(b[:MaxTag], d.cfg.Tag)
	binary.LittleEndian.PutUint32(b[queuesField:], uint32(d.cfg.Queues))
	clear(p)
	if off < configSize {
		copy(p, b[off:])
	}
}

// WriteConfig does nothing: all fields are read-only.
func (d *Device) WriteConfig(off uint64, p []byte) {}
