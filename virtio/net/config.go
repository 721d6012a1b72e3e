package net

import (
	"encoding/binary"
	"fmt"

	"github.com/hutchvm/hutch/virtio/virtq"
)

// Defaults and limits of Config.
const (
	// DefaultQueueSize holds some twenty frames of 64 KiB in receive buffers of a
	// usual size, so that a guest that was not scheduled for a moment loses none.
	DefaultQueueSize = 1024
	DefaultMTU       = 1500
	// MinMTU is what IPv6 demands of a link.
	MinMTU = 1280
	MaxMTU = 65535
	// MaxPairs bounds Config.Pairs.
	MaxPairs = 16

	ethHeader  = 14
	vlanHeader = 4
	// MaxFrame is the largest frame either way, offloads included: an IP packet
	// of 65,535 bytes with an Ethernet and a VLAN header.
	MaxFrame = ethHeader + vlanHeader + 65535

	configSize = 17
	statusUp   = 1 // VIRTIO_NET_S_LINK_UP
)

// Config describes a network card.
type Config struct {
	// Backend is the network behind the card.
	Backend Backend
	// MAC is the card's address: unicast, and not all zero.
	MAC [6]byte
	// MTU is the largest packet without an Ethernet header that the guest should
	// send (default 1500). Segments that are offloaded may be larger.
	MTU int
	// Pairs is the number of receive and transmit queue pairs (default 1).
	// With more than one there is a control queue as well.
	Pairs int
	// QueueSize is the largest size of each queue (default 1024).
	QueueSize uint16
	// NoOffloads makes a card that offers neither checksums nor segmentation.
	NoOffloads bool
	// LinkDown makes the link begin as down; see SetLink.
	LinkDown bool
}

func (c Config) withDefaults() (Config, error) {
	if c.Backend == nil {
		return c, fmt.Errorf("net: config: Backend is missing")
	}
	if c.MAC == [6]byte{} || c.MAC[0]&1 != 0 {
		return c, fmt.Errorf("net: config: MAC %x: want a unicast address", c.MAC)
	}
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.MTU < MinMTU || c.MTU > MaxMTU {
		return c, fmt.Errorf("net: config: MTU %d: want %d to %d", c.MTU, MinMTU, MaxMTU)
	}
	if c.Pairs == 0 {
		c.Pairs = 1
	}
	if c.Pairs < 0 || c.Pairs > MaxPairs {
		return c, fmt.Errorf("net: config: Pairs %d: want 1 to %d", c.Pairs, MaxPairs)
	}
	if c.QueueSize == 0 {
		c.QueueSize = DefaultQueueSize
	}
	if c.QueueSize < 16 || c.QueueSize&(c.QueueSize-1) != 0 || c.QueueSize > virtq.MaxSize {
		return c, fmt.Errorf("net: config: QueueSize %d: want a power of two from 16 to %d", c.QueueSize, virtq.MaxSize)
	}
	return c, nil
}

// ReadConfig reads struct virtio_net_config (5.1.4).
func (d *Device) ReadConfig(off uint64, p []byte) {
	var b [configSize]byte
	le := binary.LittleEndian
	copy(b[:], d.cfg.MAC[:])
	if d.linkUp.Load() {
		le.PutUint16(b[6:], statusUp)
	}
	le.PutUint16(b[8:], uint16(d.cfg.Pairs))
	le.PutUint16(b[10:], uint16(d.cfg.MTU))
	le.PutUint32(b[12:], ^uint32(0)) // speed: unknown
	b[16] = 0xff                     // duplex: unknown
	clear(p)
	if off < configSize {
		copy(p, b[off:])
	}
}

// WriteConfig ignores everything: nothing can be written.
func (d *Device) WriteConfig(uint64, []byte) {}
