package virtio

import (
	"encoding/binary"
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/hutchvm/hutch/virtio/guestmem"
	"github.com/hutchvm/hutch/virtio/virtq"
)

// WindowSize is the size of a device's register window, in bytes.
const WindowSize = 0x1000

// Register offsets (4.2.2).
const (
	RegMagicValue        = 0x000
	RegVersion           = 0x004
	RegDeviceID          = 0x008
	RegVendorID          = 0x00c
	RegDeviceFeatures    = 0x010
	RegDeviceFeaturesSel = 0x014
	RegDriverFeatures    = 0x020
	RegDriverFeaturesSel = 0x024
	RegQueueSel          = 0x030
	RegQueueSizeMax      = 0x034
	RegQueueSize         = 0x038
	RegQueueReady        = 0x044
	RegQueueNotify       = 0x050
	RegInterruptStatus   = 0x060
	RegInterruptACK      = 0x064
	RegStatus            = 0x070
	RegQueueDescLow      = 0x080
	RegQueueDescHigh     = 0x084
	RegQueueDriverLow    = 0x090
	RegQueueDriverHigh   = 0x094
	RegQueueDeviceLow    = 0x0a0
	RegQueueDeviceHigh   = 0x0a4
	RegSHMSel            = 0x0ac
	RegSHMLenLow         = 0x0b0
	RegSHMLenHigh        = 0x0b4
	RegSHMBaseLow        = 0x0b8
	RegSHMBaseHigh       = 0x0bc
	RegQueueReset        = 0x0c0
	RegConfigGeneration  = 0x0fc
	RegConfig            = 0x100
)

const (
	magicValue  = 0x74726976 // "virt"
	mmioVersion = 2
	vendorID    = 0x48435448 // "HTCH"; the field has no registry

	intUsedBuffer   = 1 // bits of InterruptStatus
	intConfigChange = 2

	maxQueues = 64 // of one device; a bound for saved states, far above any of ours
)

// MMIOOptions are what a transport needs besides its device.
type MMIOOptions struct {
	// Mem is the guest's memory. It must outlive the transport.
	Mem *guestmem.Memory
	// Logger gets a line for the first failure of the device and then for every
	// power of two, so that a guest cannot fill a log. Nil is silent.
	Logger *slog.Logger
	// Name says which device this is in logs and errors, e.g. "blk0".
	Name string
	// OnFailure, if set, is told of each failure that made the device need a
	// reset, at most once a session. It runs on the goroutine that found it, and
	// must neither block nor call the transport. A guest decides how often.
	OnFailure func(error)
}

// queueRegs is what the driver wrote about one queue.
type queueRegs struct {
	size                 uint16
	ready                bool
	desc, driver, device uint64
}

// MMIO is the register window of one device, and its life. Read and Write may be
// called concurrently by several vCPUs.
type MMIO struct {
	dev      Device
	opt      MMIOOptions
	features uint64   // offered
	maxSizes []uint16 // QueueSizes of the device
	workers  []*worker
	irq      eventfd
	ack      eventfd // see AckFD; nobody reads it

	// Read and changed without mu.
	intStatus  atomic.Uint32
	needsReset atomic.Bool
	generation atomic.Uint32
	failures   atomic.Uint64

	configMu sync.RWMutex // see Session.UpdateConfig

	mu          sync.Mutex // guards what follows; held while a reset waits
	status      uint32     // without DEVICE_NEEDS_RESET, which is needsReset
	devFeatSel  uint32
	drvFeatSel  uint32
	drvFeatures uint64
	queueSel    uint32
	queues      []queueRegs
	session     *Session
	paused      bool
	closed      bool
}

// NewMMIO makes the transport of a device.
func NewMMIO(dev Device, opt MMIOOptions) (*MMIO, error) {
	bad := func(err error) (*MMIO, error) {
		return nil, &Error{Op: "new", Device: opt.Name, Err: err}
	}
	sizes := dev.QueueSizes()
	if opt.Mem == nil || len(sizes) > maxQueues || dev.Features()&^deviceFeatureMask != 0 {
		return bad(ErrConfig)
	}
	for _, n := range sizes {
		if n == 0 || n > virtq.MaxSize || bits.OnesCount16(n) != 1 {
			return bad(ErrConfig)
		}
	}
	m := &MMIO{
		dev:      dev,
		opt:      opt,
		features: dev.Features() | transportFeatures,
		maxSizes: append([]uint16(nil), sizes...),
		queues:   make([]queueRegs, len(sizes)),
	}
	var err error
	if m.irq, err = newEventfd(); err != nil {
		return bad(err)
	}
	if m.ack, err = newEventfd(); err != nil {
		_ = m.irq.f.Close()
		return bad(err)
	}
	for i := range sizes {
		w, err := newWorker(m, i)
		if err != nil {
			m.closeFDs()
			return bad(err)
		}
		m.workers = append(m.workers, w)
	}
	return m, nil
}

// Device is the device behind the transport.
func (m *MMIO) Device() Device { return m.dev }

// NotifyFDs returns an eventfd for each queue. Adding to it is the same as
// writing the queue's index to QueueNotify: a hypervisor registers it for that
// register with the index as data match. The descriptors belong to the transport
// and are closed by Close.
func (m *MMIO) NotifyFDs() []int {
	fds := make([]int, len(m.workers))
	for i, w := range m.workers {
		fds[i] = w.efd.fd
	}
	return fds
}

// Direct reports whether writes to QueueNotify should come as calls of Write, on the
// vCPU's own goroutine, and not through NotifyFDs: the device is a KickHandler.
func (m *MMIO) Direct() bool {
	_, ok := m.dev.(KickHandler)
	return ok
}

// InterruptFD returns the eventfd that is added to for every interrupt. It
// belongs to the transport and is closed by Close.
func (m *MMIO) InterruptFD() int { return m.irq.fd }

// AckUsed is the value that a driver writes to InterruptACK after an interrupt for
// used buffers alone, which is nearly every one.
const AckUsed = intUsedBuffer

// AckFD returns an eventfd that a hypervisor may register for InterruptACK with
// AckUsed as data match, so that this write, one for each interrupt, need not
// leave the kernel: reading InterruptStatus has acknowledged it already. It
// belongs to the transport and is closed by Close.
func (m *MMIO) AckFD() int { return m.ack.fd }

// interrupt raises an interrupt. The reason is visible before the interrupt is.
func (m *MMIO) interrupt(reason uint32) {
	m.intStatus.Or(reason)
	m.irq.add()
}

// Read is a load of len(p) bytes by the guest at offset off of the window. What
// is not a register, or not accessed as 4.2.2.2 demands, reads as zero.
func (m *MMIO) Read(off uint64, p []byte) {
	clear(p)
	if off >= RegConfig {
		if m.configAccess(off, p) {
			m.configMu.RLock()
			m.dev.ReadConfig(off-RegConfig, p)
			m.configMu.RUnlock()
		}
		return
	}
	if off%4 == 0 && len(p) == 4 {
		binary.LittleEndian.PutUint32(p, m.readReg(off))
	}
}

// Write is a store of the guest at offset off of the window. What is not a
// writable register in its present state is ignored.
func (m *MMIO) Write(off uint64, p []byte) {
	if off >= RegConfig {
		if m.configAccess(off, p) && m.configWritable() {
			m.dev.WriteConfig(off-RegConfig, p)
		}
		return
	}
	if off%4 == 0 && len(p) == 4 {
		m.writeReg(off, binary.LittleEndian.Uint32(p))
	}
}

// configAccess reports whether an access to the configuration space has a sane
// width and lies in the window.
func (m *MMIO) configAccess(off uint64, p []byte) bool {
	switch len(p) {
	case 1, 2, 4, 8:
		return off <= WindowSize-uint64(len(p))
	}
	return false
}

func (m *MMIO) configWritable() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status&StatusDriver != 0 && !m.closed
}

func (m *MMIO) readReg(off uint64) uint32 {
	switch off {
	case RegMagicValue:
		return magicValue
	case RegVersion:
		return mmioVersion
	case RegDeviceID:
		return m.dev.ID()
	case RegVendorID:
		return vendorID
	case RegInterruptStatus:
		// Reading takes the bit for used buffers, see AckFD. A driver reads it once
		// for each interrupt, and then looks at all its queues; what is
		// used after that raises the next interrupt.
		return m.intStatus.And(^uint32(intUsedBuffer))
	case RegConfigGeneration:
		m.configMu.RLock()
		defer m.configMu.RUnlock()
		return m.generation.Load()
	case RegSHMLenLow, RegSHMLenHigh, RegSHMBaseLow, RegSHMBaseHigh:
		return ^uint32(0) // no such region (4.2.2)
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0
	}
	switch off {
	case RegDeviceFeatures:
		switch m.devFeatSel {
		case 0:
			return uint32(m.features)
		case 1:
			return uint32(m.features >> 32)
		}
	case RegQueueSizeMax:
		if m.queueSel < uint32(len(m.maxSizes)) {
			return uint32(m.maxSizes[m.queueSel])
		}
	case RegQueueReady:
		if m.queueSel < uint32(len(m.queues)) && m.queues[m.queueSel].ready {
			return 1
		}
	case RegStatus:
		return m.statusWord()
	}
	return 0
}

func (m *MMIO) statusWord() uint32 {
	s := m.status
	if m.needsReset.Load() {
		s |= StatusNeedsReset
	}
	return s
}

func (m *MMIO) writeReg(off uint64, v uint32) {
	switch off {
	case RegQueueNotify:
		// Without VIRTIO_F_NOTIFICATION_DATA the value is the index. One that
		// is not a queue's is ignored (CVE-2011-2512), and so is a kick of a
		// queue that nobody serves.
		if v < uint32(len(m.workers)) {
			m.workers[v].kickHere()
		}
		return
	case RegInterruptACK:
		m.intStatus.And(^v)
		return
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	switch off {
	case RegDeviceFeaturesSel:
		m.devFeatSel = v
	case RegDriverFeaturesSel:
		m.drvFeatSel = v
	case RegDriverFeatures:
		m.writeDriverFeatures(v)
	case RegQueueSel:
		m.queueSel = v
	case RegStatus:
		m.writeStatus(v)
	default:
		m.writeQueueReg(off, v)
	}
}

// writeDriverFeatures takes features only while they are being negotiated.
func (m *MMIO) writeDriverFeatures(v uint32) {
	if m.status != StatusAcknowledge|StatusDriver {
		return
	}
	switch m.drvFeatSel {
	case 0:
		m.drvFeatures = m.drvFeatures&^0xffffffff | uint64(v)
	case 1:
		m.drvFeatures = m.drvFeatures&0xffffffff | uint64(v)<<32
	}
}

// writeQueueReg changes a queue's registers between FEATURES_OK and DRIVER_OK.
// Afterwards they are frozen: the rings that were checked are the rings that
// are used (CVE-2026-5747).
func (m *MMIO) writeQueueReg(off uint64, v uint32) {
	const setup = StatusAcknowledge | StatusDriver | StatusFeaturesOK
	if m.status != setup || m.queueSel >= uint32(len(m.queues)) {
		return
	}
	q := &m.queues[m.queueSel]
	if off == RegQueueReady {
		switch v {
		case 0:
			q.ready = false
		case 1:
			// A geometry that cannot be leaves QueueReady at 0, which the driver
			// can see.
			_, err := m.openQueue(int(m.queueSel), q)
			q.ready = err == nil
		}
		return
	}
	if q.ready {
		return
	}
	switch off {
	case RegQueueSize:
		if v > virtq.MaxSize {
			v = 0 // no valid size, so that QueueReady refuses it
		}
		q.size = uint16(v)
	case RegQueueDescLow:
		setLow(&q.desc, v)
	case RegQueueDescHigh:
		setHigh(&q.desc, v)
	case RegQueueDriverLow:
		setLow(&q.driver, v)
	case RegQueueDriverHigh:
		setHigh(&q.driver, v)
	case RegQueueDeviceLow:
		setLow(&q.device, v)
	case RegQueueDeviceHigh:
		setHigh(&q.device, v)
	}
}

func setLow(p *uint64, v uint32)  { *p = *p&^0xffffffff | uint64(v) }
func setHigh(p *uint64, v uint32) { *p = *p&0xffffffff | uint64(v)<<32 }

// openQueue makes the queue that the registers describe.
func (m *MMIO) openQueue(i int, q *queueRegs) (*virtq.Queue, error) {
	return virtq.New(m.opt.Mem, virtq.Config{
		Size:     q.size,
		MaxSize:  m.maxSizes[i],
		Desc:     q.desc,
		Driver:   q.driver,
		Device:   q.device,
		EventIdx: m.drvFeatures&FeatureEventIdx != 0,
		Indirect: m.drvFeatures&FeatureIndirectDesc != 0,
	})
}
