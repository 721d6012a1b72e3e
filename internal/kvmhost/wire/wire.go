// Package wire is what the two ends of an emulated KVM host say to each other.
//
// They share four byte channels. Three carry the command's input, output and
// error output as they are, each with its own back-pressure. The fourth, the
// control channel, carries the frames of this package: one type byte, the
// payload's length as 32 bits little-endian, and the payload as a gob stream of
// its own, which keeps strings that are no UTF-8: Linux promises no encoding
// for arguments and environment. Ends of streams and totals travel on the
// control channel, so that the data channels need no escaping and a blocked
// one never delays a heartbeat.
package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
)

// Names of the virtio-serial ports inside the guest.
const (
	PortControl = "kvmhost.control"
	PortStdin   = "kvmhost.stdin"
	PortStdout  = "kvmhost.stdout"
	PortStderr  = "kvmhost.stderr"
)

// RootTag is the mount tag of the outer root file system; the writable shares
// are named by [ShareTag].
const RootTag = "root"

// ShareTag is the mount tag of writable share i.
func ShareTag(i int) string { return fmt.Sprintf("share%d", i) }

// Type is the first byte of a frame.
type Type byte

// Frames of the control channel, with the direction and the payload's type.
const (
	Hello     Type = 'h' // guest → host: the init runs; no payload
	Start     Type = 's' // host → guest: Command
	Started   Type = 'r' // guest → host: the command runs; Timing
	Heartbeat Type = 'b' // guest → host, every second; no payload
	Signal    Type = 'k' // host → guest: SignalNumber
	Resize    Type = 'w' // host → guest: Window
	StdinEOF  Type = 'e' // host → guest: Total
	Exit      Type = 'x' // guest → host: Status; the last frame
)

// Command is everything that the guest needs to run one command.
type Command struct {
	Path  string   // resolved on the outer side
	Args  []string // argv, the name included
	Env   []string
	Dir   string
	UID   int
	GID   int
	Extra []int // supplementary groups

	Stdin, Stdout, Stderr Stream
	Window                Window // for terminals

	Spread   bool // run on all CPUs and not on one
	Umask    int
	NoFile   [2]uint64 // soft and hard limit of open files
	Hostname string
	Clock    int64    // wall clock in Unix nanoseconds
	Seed     []byte   // for the random generator
	Overlay  []string // directories that become writable, their changes lost at the end
	Shares   []string // directories whose changes come out; share i has ShareTag(i)
	Scratch  string   // where the scratch disk is mounted
	Modules  string   // directory of the module tree, as seen from the outer root
	Load     []string // modules to load before the command starts
}

// Stream is how one of the command's standard streams is connected.
type Stream string

// The ways of connection.
const (
	Null     Stream = "null"
	Pipe     Stream = "pipe"
	Terminal Stream = "terminal"
	AsStdout Stream = "stdout" // stderr only: one pipe for both keeps their order
)

// Window is a terminal's size in characters.
type Window struct{ Rows, Cols uint16 }

// SignalNumber is a signal for the command, by its Linux number.
type SignalNumber struct {
	Number int
	Group  bool // the whole process group, as a terminal does it
}

// Total is the number of bytes that a stream had when it ended.
type Total struct{ Bytes int64 }

// Timing says when the guest reached its stages, in nanoseconds of its uptime:
// its init ran, waited for its order, got it, had all file systems, had started
// the command.
type Timing struct{ Init, Ready, Ordered, Mounted, Running int64 }

// Status is how the command ended.
type Status struct {
	Code   int    // exit code, or 128 + the number of the signal that killed it
	Error  string // why the command could not be started, else empty
	Stdout int64  // bytes sent on each channel
	Stderr int64
}

// MaxPayload bounds a frame's payload. Linux itself bounds arguments and
// environment together to a quarter of the stack limit, at most 6 MiB.
const MaxPayload = 8 << 20

const headerSize = 5

// ErrFrame is returned for a frame that no peer of ours sends.
var ErrFrame = errors.New("wire: malformed frame")

// Write sends one frame with a single call of w.Write. A nil payload is empty.
// It is safe for concurrent use only if w is.
func Write(w io.Writer, t Type, payload any) error {
	var frame bytes.Buffer
	frame.Write([]byte{byte(t), 0, 0, 0, 0})
	if payload != nil {
		if err := gob.NewEncoder(&frame).Encode(payload); err != nil {
			return fmt.Errorf("wire: encode %c: %w", t, err)
		}
	}
	body := frame.Len() - headerSize
	if body > MaxPayload {
		return fmt.Errorf("wire: frame %c of %d bytes is over the limit of %d", t, body, MaxPayload)
	}
	binary.LittleEndian.PutUint32(frame.Bytes()[1:], uint32(body))
	_, err := w.Write(frame.Bytes())
	return err
}

// Frame is one received frame.
type Frame struct {
	Type Type
	Body []byte
}

// Read receives one frame. At a clean end of the channel it returns io.EOF.
func Read(r io.Reader) (Frame, error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Frame{}, err
	}
	n := binary.LittleEndian.Uint32(head[1:])
	if n > MaxPayload {
		return Frame{}, fmt.Errorf("%w: type %#x with %d bytes", ErrFrame, head[0], n)
	}
	// Grows with what arrives, so a lying length costs nothing.
	body, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return Frame{}, err
	}
	if len(body) != int(n) {
		return Frame{}, io.ErrUnexpectedEOF
	}
	return Frame{Type: Type(head[0]), Body: body}, nil
}

// Decode fills v, a pointer to the payload's type, from the frame.
func (f Frame) Decode(v any) error {
	if err := gob.NewDecoder(bytes.NewReader(f.Body)).Decode(v); err != nil {
		return fmt.Errorf("%w: type %#x: %v", ErrFrame, byte(f.Type), err)
	}
	return nil
}
