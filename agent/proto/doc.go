// Package proto is the language that the host and the guest agent speak: the
// frames, the messages in them, and the version handshake in front of them.
//
// There are two kinds of connection. The control connection is made once by
// the guest (vsock port [PortControl] of the host): the agent says [Hello],
// then answers [Setup], [Ping] and [Shutdown]. An operation connection is made
// by the host (vsock port [PortExec] of the guest), one for each operation:
// its first message names the operation, [Exec] or [Dial]. Behind Dial's answer
// the host's direction is no longer framed.
//
// Every connection begins with a handshake of [HandshakeSize] bytes in each
// direction. The side that connected sends its own together with its first
// frame, so it costs no round trip. After that there are only frames:
//
//	u32 length of the payload, little endian
//	u8  type
//	    payload
//
// The payload of a data frame ([TypeStdout], [TypeStderr], [TypeStdin]) is the
// data itself, at most [MaxData] bytes. Any other payload is one message, at
// most [MaxMessage] bytes: a list of fields in ascending order, each a tag byte
// and a value, with fields that have their zero value left out. A field that
// the reader does not know is an error, never ignored, because ignoring it
// could mean running a command without a restriction that was asked for.
//
// Both sides distrust each other. Every length is checked against what has
// really arrived before anything is allocated for it.
package proto

// Ports of the two listeners.
const (
	// PortControl is the vsock port on the host that the agent connects to.
	PortControl = 1024
	// PortExec is the vsock port in the guest where operations are taken.
	PortExec = 1025
)

// The machine's control port, an I/O port to which the agent writes one byte.
const (
	ControlIOPort = 0x3f0
	// BootMark says that process 1 runs. Port and value are Firecracker's boot
	// timer, so its figures compare.
	BootMark = 123
	// PowerOffMark turns the machine off at once.
	PowerOffMark = 124
	// ReadyMark says that the agent is about to connect to the host, and that
	// nothing in the guest depends on what it will be. A machine may be copied
	// at this moment.
	ReadyMark = 125
)

// Version is what this build speaks. Two versions do not understand each other.
const Version = 1

// Bounds of the protocol.
const (
	// FrameHeaderSize is the size of a frame's length and type.
	FrameHeaderSize = 5
	// MaxData bounds the payload of a data frame. With all headers, those of the
	// guest's socket buffer included, it fits in 64 KiB: a byte more and the
	// guest's kernel takes twice the memory for each packet.
	MaxData = 60 << 10
	// MaxMessage bounds the payload of any other frame. It leaves room for the
	// largest argument list and environment that Linux takes (6 MiB, three
	// quarters of the largest stack limit that it counts).
	MaxMessage = 8 << 20
	// StdinWindow is how many bytes of stdin the host may have sent that the
	// guest has not granted back by [StdinCredit].
	StdinWindow = 256 << 10
	// HandshakeSize is the size of the handshake.
	HandshakeSize = 8

	maxStrings = 1 << 20 // items of a list of strings
	maxItems   = 4096    // items of a list of structures
)
