package proto

import (
	"io"
)

// Type says what a frame's payload is.
type Type uint8

// Frames of the control connection.
const (
	TypeHello        Type = 1 // guest → host: Hello
	TypeSetup        Type = 2 // host → guest: Setup
	TypeSetupDone    Type = 3 // guest → host: SetupDone
	TypeSetupError   Type = 4 // guest → host: SetupError
	TypePing         Type = 5 // host → guest: Ping
	TypePong         Type = 6 // guest → host: Pong
	TypeShutdown     Type = 7 // host → guest: Shutdown
	TypeShutdownDone Type = 8 // guest → host: ShutdownDone
)

// Frames of an operation's connection.
const (
	TypeExec        Type = 16 // host → guest: Exec
	TypeStarted     Type = 17 // guest → host: Started
	TypeStartError  Type = 18 // guest → host: StartError; the last frame
	TypeStdout      Type = 19 // guest → host: data
	TypeStderr      Type = 20 // guest → host: data
	TypeExited      Type = 21 // guest → host: Exited; the last frame
	TypeStdin       Type = 22 // host → guest: data
	TypeStdinClose  Type = 23 // host → guest: empty
	TypeStdinCredit Type = 24 // guest → host: StdinCredit
	TypeStdinError  Type = 25 // guest → host: StdinError
	TypeSignal      Type = 26 // host → guest: Signal
	TypeResize      Type = 27 // host → guest: Resize
)

// Frames of a Dial's connection.
const (
	TypeDial      Type = 48 // host → guest: Dial
	TypeDialed    Type = 49 // guest → host: Dialed
	TypeDialError Type = 50 // guest → host: DialError; the last frame
	TypeDialData  Type = 51 // guest → host: data
	TypeDialEnd   Type = 52 // guest → host: DialEnd; the last frame
)

// TypeFault is sent by either side before it closes a connection on which the
// other broke the protocol.
const TypeFault Type = 31

// limit is the bound of a frame's payload. Only the messages that carry lists
// may be large.
func (t Type) limit() int {
	switch t {
	case TypeExec, TypeSetup:
		return MaxMessage
	case TypeStdinClose:
		return 0
	default:
		return MaxData
	}
}

// Message is one of the structures of this package.
type Message interface {
	// Type is the frame type that carries the message.
	Type() Type
	fields(c *codec)
}

// AppendFrame appends a whole frame that carries m. It fails with
// [ErrTooLarge] when m does not fit.
func AppendFrame(b []byte, m Message) ([]byte, error) {
	at := len(b)
	c := codec{out: append(b, 0, 0, 0, 0, byte(m.Type()))}
	m.fields(&c)
	n := len(c.out) - at - FrameHeaderSize
	if c.err == nil && n > m.Type().limit() {
		c.err = ErrTooLarge
	}
	if c.err != nil {
		return b, &Error{Op: "encode", Err: c.err}
	}
	putUint32(c.out[at:], uint32(n))
	return c.out, nil
}

// PutHeader writes the header of a frame whose n bytes of payload follow it in
// b. A sender of data reads it to b[FrameHeaderSize:] and writes all at once.
func PutHeader(b []byte, t Type, n int) {
	putUint32(b, uint32(n))
	b[4] = byte(t)
}

// Unmarshal reads the payload of a frame into m, which should be zero.
func Unmarshal(payload []byte, m Message) error {
	c := codec{decode: true, in: string(payload)}
	m.fields(&c)
	if err := c.end(); err != nil {
		return &Error{Op: "decode", Err: err}
	}
	return nil
}

// AppendHandshake appends the bytes that begin every connection.
func AppendHandshake(b []byte) []byte {
	return append(b, 'H', 'u', 't', 'c', 'h', 0, byte(Version&0xff), byte(Version>>8))
}

// Reader cuts a connection into frames. It is not safe for concurrent use.
type Reader struct {
	r      io.Reader
	buf    []byte
	lo, hi int
	filled bool // the last read left no room
}

// A Reader's buffer grows from the one to the other when the peer sends much,
// and beyond for a large message only.
const (
	smallBuffer = 4 << 10
	largeBuffer = 64 << 10 // the largest data frame
)

// NewReader returns a Reader of r. It reads ahead.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// fill makes at least n bytes available at lo, growing the buffer only as
// bytes arrive: a large length alone allocates nothing.
func (r *Reader) fill(n int) error {
	for r.hi-r.lo < n {
		if r.lo == r.hi {
			r.lo, r.hi = 0, 0
			switch {
			case r.buf == nil:
				r.buf = make([]byte, smallBuffer)
			case r.filled && len(r.buf) < largeBuffer:
				r.buf = make([]byte, min(4*len(r.buf), largeBuffer))
			case len(r.buf) > largeBuffer && n <= largeBuffer:
				r.buf = make([]byte, largeBuffer) // a large message is over
			}
		}
		if r.lo > 0 && r.lo+n > len(r.buf) {
			r.hi = copy(r.buf, r.buf[r.lo:r.hi])
			r.lo = 0
		}
		if r.hi == len(r.buf) {
			size := 2 * len(r.buf)
			if n <= largeBuffer {
				size = min(size, largeBuffer)
			}
			grown := make([]byte, size)
			copy(grown, r.buf[:r.hi])
			r.buf = grown
		}
		k, err := r.r.Read(r.buf[r.hi:])
		r.hi += k
		r.filled = r.hi == len(r.buf)
		if err != nil && r.hi-r.lo < n {
			if err == io.EOF && r.hi > r.lo {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// Handshake reads and checks the peer's handshake.
func (r *Reader) Handshake() error {
	if err := r.fill(HandshakeSize); err != nil {
		return err
	}
	got := string(r.buf[r.lo : r.lo+HandshakeSize])
	r.lo += HandshakeSize
	if got != string(AppendHandshake(nil)) {
		return &Error{Op: "handshake", Err: ErrVersion}
	}
	return nil
}

// Next returns the next frame. The payload is valid until the next call. The
// end of the connection between two frames is [io.EOF].
func (r *Reader) Next() (Type, []byte, error) {
	if err := r.fill(FrameHeaderSize); err != nil {
		return 0, nil, err
	}
	h := r.buf[r.lo : r.lo+FrameHeaderSize]
	n, t := getUint32(h), Type(h[4])
	if n > uint32(t.limit()) {
		return 0, nil, &Error{Op: "frame", Err: ErrTooLarge}
	}
	size := FrameHeaderSize + int(n)
	if err := r.fill(size); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	payload := r.buf[r.lo+FrameHeaderSize : r.lo+size : r.lo+size]
	r.lo += size
	return t, payload, nil
}

// Detach leaves the last payload that Next returned to the caller for good:
// the reader goes on in a new buffer.
func (r *Reader) Detach() {
	rest := r.buf[r.lo:r.hi]
	r.buf = make([]byte, max(smallBuffer, len(rest)))
	r.lo, r.hi = 0, copy(r.buf, rest)
}
