// Package virtio is the MMIO transport of Virtio 1.2 (4.2) and the interface
// between it and the devices, which live in one folder each.
//
// The transport owns what all devices have in common: the register window, the
// status machine, the queues, one goroutine for each queue, interrupts, and
// pause, reset, save and restore. A device only says what it is and serves its
// queues. Nothing here knows of a hypervisor: queues are kicked through eventfds
// (ioeventfd), interrupts are raised through an eventfd (irqfd), and register
// accesses arrive as calls.
package virtio

import (
	"errors"
	"fmt"
)

// Device IDs (5).
const (
	IDNet     = 1
	IDBlock   = 2
	IDConsole = 3
	IDEntropy = 4
	IDBalloon = 5
	IDVsock   = 19
	IDFS      = 26
)

// Feature bits that belong to the transport and the queues (6). The transport
// offers the first three on behalf of every device.
const (
	FeatureIndirectDesc uint64 = 1 << 28 // VIRTIO_F_INDIRECT_DESC
	FeatureEventIdx     uint64 = 1 << 29 // VIRTIO_F_EVENT_IDX
	FeatureVersion1     uint64 = 1 << 32 // VIRTIO_F_VERSION_1

	// transportFeatures are offered by the transport; deviceFeatureMask is what a
	// device may offer itself (2.2: bits 0 to 23 and 50 to 127).
	transportFeatures        = FeatureIndirectDesc | FeatureEventIdx | FeatureVersion1
	deviceFeatureMask uint64 = 1<<24 - 1 | ^uint64(1<<50-1)
)

// Bits of the device status field (2.1).
const (
	StatusAcknowledge = 1
	StatusDriver      = 2
	StatusDriverOK    = 4
	StatusFeaturesOK  = 8
	StatusNeedsReset  = 64
	StatusFailed      = 128
)

// Device is a virtio device behind a transport.
//
// ID, Features and QueueSizes are constants of a device. ReadConfig and
// WriteConfig run on vCPU goroutines, at any time and concurrently with
// HandleQueue; they must not block. Activate, HandleQueue and Reset belong to
// one session at a time: from DRIVER_OK to the next reset.
//
// Each device also has a State type of plain, versioned data and methods
// Save() State and Restore(State) error. They are called while the transport is
// paused; Restore comes before the transport's own Restore, which activates the
// device. A device that also has a method Close() error is closed by the
// transport's Close, after the last Reset. One that touches guest memory on
// goroutines of its own also has a method Quiesce(), which ends that for a
// pause; the next HandleQueue resumes it.
type Device interface {
	// ID is the virtio device ID.
	ID() uint32
	// Features are the device-specific feature bits that are offered.
	Features() uint64
	// QueueSizes is the maximum size of each queue, powers of two.
	QueueSizes() []uint16
	// ReadConfig fills p from the configuration space at offset off. p comes
	// zeroed and has 1, 2, 4 or 8 bytes; what lies past the end stays zero.
	ReadConfig(off uint64, p []byte)
	// WriteConfig is a write of the driver to the configuration space. What
	// cannot be written is ignored.
	WriteConfig(off uint64, p []byte)
	// Activate begins a session. It runs on a vCPU goroutine and must not
	// block; queues are not served before it returned. An error makes the
	// device need a reset.
	Activate(s *Session) error
	// HandleQueue serves queue q until it is empty. It runs on the goroutine of
	// that queue after a kick or a Wake, once after activation and once after
	// a resume; never concurrently for one q, and only for queues that the
	// driver set up. It may do bounded host I/O but must not wait for another
	// party, since a pause or a reset waits for it. When it ends early because
	// something is missing, a Wake brings it back. An error is for what the
	// guest did wrong beyond repair: it makes the device need a reset.
	HandleQueue(q int) error
	// Reset ends the session. No HandleQueue is running and none will start.
	// The device drops all that belongs to the session and ends its
	// goroutines that use it. The session's memory may be gone afterwards.
	// It is called after a failed Activate as well.
	Reset()
}

// KickHandler is a Device whose queues are better served at once by the vCPU that
// kicks than by a goroutine that has to be woken: where a request usually takes less
// time than that. A hypervisor then registers no eventfd for QueueNotify, see
// MMIO.Direct.
type KickHandler interface {
	// HandleKick is HandleQueue on a vCPU's goroutine: never concurrently with it
	// for one q. It must return soon and leave what takes longer to others.
	HandleKick(q int) error
}

// Errors of this package. They come wrapped in an *Error.
var (
	// ErrConfig says that a transport cannot be made of what was given.
	ErrConfig = errors.New("invalid configuration")
	// ErrClosed says that the transport was closed.
	ErrClosed = errors.New("closed")
	// ErrNotPaused says that the operation needs a paused transport.
	ErrNotPaused = errors.New("device is not paused")
	// ErrState says that a saved state is inconsistent or of another device.
	ErrState = errors.New("invalid saved state")
	// ErrPanic says that a device panicked; it is a bug in the device.
	ErrPanic = errors.New("device panicked")
	// ErrUnsupported says that the host has no eventfd.
	ErrUnsupported = errors.New("not supported on this platform")
)

// Error is the error type of this package.
type Error struct {
	Op     string // "new", "activate", "queue 1", "restore", ...
	Device string // name of the device
	Err    error
}

// Error names the device and what it was doing.
func (e *Error) Error() string { return fmt.Sprintf("virtio: %s: %s: %v", e.Device, e.Op, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
