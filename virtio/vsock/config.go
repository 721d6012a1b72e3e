package vsock

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// HostCID is the host's well-known context ID.
const HostCID = 2

// Defaults and limits of Config.
const (
	DefaultMaxConns     = 1024
	DefaultBacklog      = 128
	DefaultRecvBuffer   = 256 << 10
	DefaultMaxBuffered  = 64 << 20
	DefaultCloseTimeout = 10 * time.Second

	minRecvBuffer = 16 << 10 // what a connection gets when MaxBuffered is used up
)

// Config describes a device. The zero value of every field but GuestCID works.
type Config struct {
	// GuestCID is the guest's context ID, 3 or more.
	GuestCID uint64
	// MaxConns bounds the connections that exist at once, in both directions
	// together, those included that the guest ended and the host has not closed.
	MaxConns int
	// Backlog bounds, for each listener, the connections nobody accepted yet.
	Backlog int
	// RecvBuffer is the credit that a connection gives to the guest, in bytes.
	RecvBuffer int
	// MaxBuffered bounds the sum of the credit given, in bytes. Once it is spent a
	// new connection gets 16 KiB, so that the guest can make the host hold
	// at most MaxBuffered + MaxConns × 16 KiB.
	MaxBuffered int
	// CloseTimeout is how long a closed connection waits in the background for
	// the guest's answer before it is reset.
	CloseTimeout time.Duration
	// QueueSize is the largest size of the transmit and the event ring (default 256).
	QueueSize uint16
	// RXQueueSize is the largest size of the receive ring (default 32). The
	// guest's driver keeps it full of buffers, of 32 KiB each in the embedded kernel.
	RXQueueSize uint16
}

func (c Config) withDefaults() (Config, error) {
	if c.GuestCID < 3 || c.GuestCID >= math.MaxUint32 {
		return c, fmt.Errorf("vsock: config: GuestCID %d: want 3 to 2^32-2", c.GuestCID)
	}
	for _, f := range []struct {
		name string
		v    *int
		def  int
		max  int
	}{
		{"MaxConns", &c.MaxConns, DefaultMaxConns, 1 << 20},
		{"Backlog", &c.Backlog, DefaultBacklog, 1 << 20},
		{"RecvBuffer", &c.RecvBuffer, DefaultRecvBuffer, 1 << 30},
		{"MaxBuffered", &c.MaxBuffered, DefaultMaxBuffered, math.MaxInt32},
	} {
		if *f.v == 0 {
			*f.v = f.def
		}
		if *f.v < 0 || *f.v > f.max {
			return c, fmt.Errorf("vsock: config: %s %d: want 1 to %d", f.name, *f.v, f.max)
		}
	}
	if c.CloseTimeout < 0 {
		return c, fmt.Errorf("vsock: config: CloseTimeout %v: negative", c.CloseTimeout)
	}
	if c.CloseTimeout == 0 {
		c.CloseTimeout = DefaultCloseTimeout
	}
	for _, f := range []struct {
		name string
		v    *uint16
		def  uint16
	}{{"QueueSize", &c.QueueSize, 256}, {"RXQueueSize", &c.RXQueueSize, 32}} {
		if *f.v == 0 {
			*f.v = f.def
		}
		if *f.v&(*f.v-1) != 0 || *f.v > 1<<15 {
			return c, fmt.Errorf("vsock: config: %s %d: want a power of two up to 32768", f.name, *f.v)
		}
	}
	return c, nil
}

// ReadConfig reads struct virtio_vsock_config: the guest's CID, 64 bits.
func (d *Device) ReadConfig(off uint64, p []byte) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], d.cfg.GuestCID)
	clear(p)
	if off < uint64(len(b)) {
		copy(p, b[off:])
	}
}

// WriteConfig does nothing: the whole configuration space is read-only.
func (d *Device) WriteConfig(uint64, []byte) {}
