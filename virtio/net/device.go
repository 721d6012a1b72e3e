// Package net is a virtio network card (Virtio 1.2, 5.1).
//
// It moves whole Ethernet frames between the guest's rings and a Backend, up to
// 64 KiB at once when the driver took the segmentation offloads. A frame from the
// guest is shown to the backend where it lies in guest memory; one for the guest
// is copied once, from wherever its pieces are into the guest's buffers. No frame
// allocates, and the device has no goroutines of its own.
package net

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/virtq"
)

// Feature bits (5.1.3).
const (
	featureCsum      uint64 = 1 << 0
	featureGuestCsum uint64 = 1 << 1
	featureMTU       uint64 = 1 << 3
	featureMAC       uint64 = 1 << 5
	featureGuestTSO4 uint64 = 1 << 7
	featureGuestTSO6 uint64 = 1 << 8
	featureHostTSO4  uint64 = 1 << 11
	featureHostTSO6  uint64 = 1 << 12
	featureHostECN   uint64 = 1 << 13
	featureMrgRxbuf  uint64 = 1 << 15
	featureStatus    uint64 = 1 << 16
	featureCtrlVQ    uint64 = 1 << 17
	featureMQ        uint64 = 1 << 22

	offloads = featureCsum | featureGuestCsum | featureGuestTSO4 | featureGuestTSO6 |
		featureHostTSO4 | featureHostTSO6 | featureHostECN
)

// Frame is an Ethernet frame that the guest sends.
type Frame struct {
	Header Header
	// Data is the frame in guest memory, whose bytes the guest may change at any
	// time. It is valid until Transmit returns.
	Data virtq.Buffers
	Len  int // bytes in Data; at least 14 and at most MaxFrame
}

// Backend is the network behind a card. Its methods run on the goroutine of a
// queue: never concurrently for one pair. They must not wait for another party,
// since a pause or a reset of the machine waits for them.
type Backend interface {
	// Transmit takes a frame of the guest. When it reports false the frame stays
	// in the ring and will be shown again after Device.WakeTransmit: that holds
	// the guest back without losing anything.
	Transmit(pair int, f *Frame) bool
	// TransmitDone says that there are no more frames for now.
	TransmitDone(pair int)
	// ReceiveReady says that the guest gave new receive buffers after Receive
	// found too few, or that it began to give any.
	ReceiveReady(pair int)
}

// Errors of Receive. The frame was dropped, or is to be tried again.
var (
	// ErrNoBuffers says that the guest has too few receive buffers at this
	// moment. ReceiveReady is called when there are more.
	ErrNoBuffers = errors.New("net: no receive buffers")
	// ErrTooLarge says that the frame can never be received: it is over MaxFrame,
	// or over the one buffer that the guest gives for each.
	ErrTooLarge = errors.New("net: frame too large")
	// ErrOffload says that the guest does not know the frame's offloads.
	ErrOffload = errors.New("net: offload not negotiated")
	// ErrDown says that the guest has no driver, or not for this queue.
	ErrDown = errors.New("net: card is not in use")
)

// Offloads are what the guest takes from frames that it receives.
type Offloads struct {
	Checksum bool // NeedsChecksum may be set
	TSO4     bool // and GSOTCPv4
	TSO6     bool // and GSOTCPv6
}

// Device is the virtio device. Receive, Flush, WakeTransmit, SetLink, Offloads
// and Stats may be called at any time from any goroutine.
type Device struct {
	cfg    Config
	linkUp atomic.Bool
	sess   atomic.Pointer[virtio.Session]
	active atomic.Int32 // queue pairs that the driver uses
	mu     sync.Mutex   // SetLink, Activate, Reset

	rx   []rxQueue
	tx   []txQueue
	ctrl virtq.Chain

	restored *State

	stats struct {
		txFrames, txBytes, txDrops             atomic.Uint64
		rxFrames, rxBytes, rxDrops, rxNoBuffer atomic.Uint64
	}
}

var _ virtio.Device = (*Device)(nil)

// New returns a device for virtio.NewMMIO.
func New(cfg Config) (*Device, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	d := &Device{cfg: cfg, rx: make([]rxQueue, cfg.Pairs), tx: make([]txQueue, cfg.Pairs)}
	d.linkUp.Store(!cfg.LinkDown)
	return d, nil
}

// ID returns 1, the network card.
func (d *Device) ID() uint32 { return virtio.IDNet }

// Features are the offered bits.
func (d *Device) Features() uint64 {
	f := featureMAC | featureMTU | featureStatus | featureMrgRxbuf
	if !d.cfg.NoOffloads {
		f |= offloads
	}
	if d.cfg.Pairs > 1 {
		f |= featureCtrlVQ | featureMQ
	}
	return f
}

// QueueSizes is receive and transmit for each pair, then the control queue of a
// card with several pairs.
func (d *Device) QueueSizes() []uint16 {
	n := 2 * d.cfg.Pairs
	s := make([]uint16, n, n+1)
	for i := range s {
		s[i] = d.cfg.QueueSize
	}
	if d.cfg.Pairs > 1 {
		// Where a driver without MQ looks for it there is a receive queue, which
		// then plays that part.
		s = append(s, ctrlQueueSize)
	}
	return s
}

// Activate begins a session.
func (d *Device) Activate(s *virtio.Session) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sess.Load() != nil {
		return errors.New("net: activate: already active")
	}
	// 5.1.3.1: what the features need of each other.
	for _, dep := range [...]struct{ has, needs uint64 }{
		{featureGuestTSO4, featureGuestCsum},
		{featureGuestTSO6, featureGuestCsum},
		{featureHostTSO4, featureCsum},
		{featureHostTSO6, featureCsum},
		{featureMQ, featureCtrlVQ},
	} {
		if s.Has(dep.has) && !s.Has(dep.needs) {
			return fmt.Errorf("net: activate: feature %#x without %#x", dep.has, dep.needs)
		}
	}
	d.active.Store(1)
	if r := d.restored; r != nil && s.Has(featureMQ) {
		d.active.Store(int32(r.ActivePairs))
	}
	d.restored = nil
	for i := range d.rx {
		d.rx[i].begin(s, s.Queue(2*i))
		d.tx[i].q = s.Queue(2*i + 1)
	}
	if !s.Has(featureMQ) {
		for i := 1; i < len(d.rx); i++ {
			d.rx[i].end()
		}
	}
	d.sess.Store(s)
	return nil
}

// HandleQueue serves one queue.
func (d *Device) HandleQueue(q int) error {
	s := d.sess.Load()
	if s == nil || s.Queue(q) == nil {
		return nil
	}
	if ctrl := d.controlIndex(s); q == ctrl {
		return d.handleControl(s, q)
	} else if q > 1 && (ctrl < 0 || !s.Has(featureMQ)) {
		return nil // beyond what was negotiated
	}
	if q%2 == 1 {
		return d.handleTX(s, q/2)
	}
	return d.handleRX(q / 2)
}

// controlIndex is the control queue's index, or -1 (5.1.2).
func (d *Device) controlIndex(s *virtio.Session) int {
	switch {
	case !s.Has(featureCtrlVQ):
		return -1
	case s.Has(featureMQ):
		return 2 * d.cfg.Pairs
	}
	return 2
}

// Quiesce makes Receive leave guest memory alone until the next HandleQueue of
// that pair's receive queue.
func (d *Device) Quiesce() {
	for i := range d.rx {
		d.rx[i].pause()
	}
}

// Reset ends the session.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sess.Store(nil)
	for i := range d.rx {
		d.rx[i].end()
		d.tx[i].q = nil
	}
}

// SetLink plugs the cable in or pulls it, and tells the driver. While it is out
// no frames pass.
func (d *Device) SetLink(up bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.linkUp.Load() == up {
		return
	}
	if s := d.sess.Load(); s != nil {
		s.UpdateConfig(func() { d.linkUp.Store(up) })
		return
	}
	d.linkUp.Store(up)
}

// Offloads returns what the guest's driver negotiated; nothing without a driver.
func (d *Device) Offloads() Offloads {
	s := d.sess.Load()
	if s == nil {
		return Offloads{}
	}
	return Offloads{
		Checksum: s.Has(featureGuestCsum),
		TSO4:     s.Has(featureGuestTSO4),
		TSO6:     s.Has(featureGuestTSO6),
	}
}

// ActivePairs is how many queue pairs the driver uses; 0 without a driver.
func (d *Device) ActivePairs() int {
	if d.sess.Load() == nil {
		return 0
	}
	return int(d.active.Load())
}

// MAC is the card's address.
func (d *Device) MAC() [6]byte { return d.cfg.MAC }

// MTU is the card's MTU in bytes.
func (d *Device) MTU() int { return d.cfg.MTU }

// Stats are counters since the device was made, from the guest's point of view.
type Stats struct {
	TxFrames, TxBytes uint64 // sent by the guest; a large segment is one frame
	TxDrops           uint64 // refused: malformed, too long, offloads not negotiated
	RxFrames, RxBytes uint64 // received by the guest
	RxDrops           uint64 // could not be received by this guest at all
	RxNoBuffers       uint64 // Receive found too few buffers
}

// Stats returns the counters.
func (d *Device) Stats() Stats {
	s := &d.stats
	return Stats{
		TxFrames: s.txFrames.Load(), TxBytes: s.txBytes.Load(), TxDrops: s.txDrops.Load(),
		RxFrames: s.rxFrames.Load(), RxBytes: s.rxBytes.Load(), RxDrops: s.rxDrops.Load(),
		RxNoBuffers: s.rxNoBuffer.Load(),
	}
}
