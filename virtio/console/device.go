// Package console is a virtio console with one port (Virtio 1.2, 5.3).
//
// Two goroutines of the device, besides those of its queues, connect it to the
// host: one reads In, one writes Out. Between them and the guest are buffers of
// fixed size. When Out is slow the guest waits; when the guest does not read, In
// is not read any more. Nothing is dropped and nothing grows.
package console

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/virtq"
)

// FeatureSize says that cols and rows of the configuration space are valid
// (VIRTIO_CONSOLE_F_SIZE, 5.3.3).
const FeatureSize uint64 = 1 << 0

const (
	rxQueue = 0 // receiveq(port0): to the guest
	txQueue = 1 // transmitq(port0): from the guest

	queueSize = 64

	inSize  = 16 << 10 // read from In and not yet taken by the guest
	outSize = 64 << 10 // given by the guest and not yet written to Out; there are two
	inChunk = 4 << 10  // one read of In

	// closeFlush is how long Close lets a slow Out take what the guest already
	// said: its last words are often why one looks at a console.
	closeFlush = time.Second
)

// Config describes the device. The zero value is a console without input whose
// output is dropped.
type Config struct {
	// In is what the guest reads, or nil. It is first read when a driver is
	// there. A device has no way to interrupt an arbitrary reader: one that has
	// SetReadDeadline (os.File of a pipe or terminal, net.Conn) is interrupted by
	// Close; of any other, the goroutine that reads it lives until that Read
	// returns, so its owner should close it.
	In io.Reader
	// Out gets what the guest writes, or nil. After an error of it the output is
	// dropped. The same holds for it as for In, with SetWriteDeadline.
	Out io.Writer
	// Cols and Rows are the size of the terminal; both 0 means unknown.
	Cols, Rows uint16
}

// Device is a virtio console.
type Device struct {
	in   io.Reader
	out  io.Writer
	size atomic.Uint32 // cols in the low half, rows in the high half

	rx, tx virtq.Chain // each used by its queue's goroutine

	mu      sync.Mutex
	changed sync.Cond // of mu: any of what follows changed
	session *virtio.Session
	closed  bool
	started bool // the goroutines were started

	inBuf  []byte // at most inSize
	outBuf []byte // at most outSize
	inErr  error  // why reading ended
	outErr error  // why writing ended
	idle   bool   // nothing is being written to Out

	// The chain that did not fit into outBuf: its head, or -1, and how much of
	// it was taken. It is in tx.
	txHead int
	txOff  uint64

	readerDone, writerDone chan struct{}
}

var _ virtio.Device = (*Device)(nil)

// New makes a device.
func New(cfg Config) *Device {
	d := &Device{
		in:         cfg.In,
		out:        cfg.Out,
		idle:       true,
		txHead:     -1,
		readerDone: make(chan struct{}),
		writerDone: make(chan struct{}),
	}
	d.changed.L = &d.mu
	d.size.Store(uint32(cfg.Rows)<<16 | uint32(cfg.Cols))
	return d
}

// ID returns the device ID of consoles.
func (d *Device) ID() uint32 { return virtio.IDConsole }

// Features returns the offered feature bits.
func (d *Device) Features() uint64 { return FeatureSize }

// QueueSizes returns the sizes of receiveq and transmitq.
func (d *Device) QueueSizes() []uint16 { return []uint16{queueSize, queueSize} }

// Resize changes the size of the terminal and tells the guest.
func (d *Device) Resize(cols, rows uint16) {
	d.size.Store(uint32(rows)<<16 | uint32(cols))
	d.mu.Lock()
	s := d.session
	d.mu.Unlock()
	if s != nil {
		s.ConfigChanged()
	}
}

// Err is what ended reading In (io.EOF is not an error) or writing Out.
func (d *Device) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	in := d.inErr
	if errors.Is(in, io.EOF) {
		in = nil
	}
	return errors.Join(in, d.outErr)
}

// Activate begins a session, and with the first one the copying.
func (d *Device) Activate(s *virtio.Session) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.resume(s); err != nil {
		return err
	}
	d.session = s
	if !d.started && !d.closed {
		d.started = true
		d.run(d.in != nil, d.copyIn, d.readerDone)
		d.run(d.out != nil, d.copyOut, d.writerDone)
	}
	return nil
}

// run starts a goroutine of the device.
func (d *Device) run(wanted bool, f func(), done chan struct{}) {
	if !wanted {
		close(done)
		return
	}
	go func() {
		defer close(done)
		f()
	}()
}

// Reset ends the session. Output that was taken from the guest still goes to Out,
// and input that it did not take waits for the next driver.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.session = nil
	d.txHead, d.txOff = -1, 0
}

// HandleQueue serves a queue. It never waits for In or Out.
func (d *Device) HandleQueue(q int) error {
	d.mu.Lock()
	s := d.session
	d.mu.Unlock()
	if q == rxQueue {
		return d.receive(s)
	}
	return d.transmit(s)
}

// Close ends the goroutines of the device. What the guest wrote is flushed, but
// only for a second; see Config about readers and writers that block. It is
// idempotent. The transport's Close calls it.
func (d *Device) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	started := d.started
	d.changed.Broadcast()
	d.mu.Unlock()
	if !started {
		return nil
	}
	if r, ok := d.in.(interface{ SetReadDeadline(time.Time) error }); ok && r.SetReadDeadline(time.Unix(1, 0)) == nil {
		<-d.readerDone
		_ = r.SetReadDeadline(time.Time{}) // In is not ours to leave unusable
	}
	t := time.NewTimer(closeFlush)
	defer t.Stop()
	select {
	case <-d.writerDone:
		return nil
	case <-t.C:
	}
	if w, ok := d.out.(interface{ SetWriteDeadline(time.Time) error }); ok && w.SetWriteDeadline(time.Unix(1, 0)) == nil {
		<-d.writerDone
		_ = w.SetWriteDeadline(time.Time{})
	}
	return nil
}
