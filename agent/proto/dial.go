package proto

// Dial connects to a socket in the guest. It is the first message of its
// connection. Dialed answers it, and then the connection carries the stream:
// the host's bytes as they are, up to the end of what it sends, and the guest's
// in frames of data (TypeDialData) and DialEnd as the last one. The host says
// nothing before it has the answer.
type Dial struct {
	Network string // "tcp" or "unix"
	Address string // "ip:port", or an absolute path or "@" and an abstract name
	// Timeout is how long the attempt may take in nanoseconds; 0 is 30 s.
	Timeout uint64
}

// Type implements Message.
func (*Dial) Type() Type { return TypeDial }

func (m *Dial) fields(c *codec) {
	c.str(1, &m.Network)
	c.str(2, &m.Address)
	number(c, 3, &m.Timeout)
}

// Dialed says that the connection stands.
type Dialed struct {
	Local  string // the agent's end: "ip:port", or "" of a unix socket
	Remote string // where it leads to
}

// Type implements Message.
func (*Dialed) Type() Type { return TypeDialed }

func (m *Dialed) fields(c *codec) {
	c.str(1, &m.Local)
	c.str(2, &m.Remote)
}

// DialError says that there is no connection. It is the last message.
type DialError struct {
	Errno   uint32 // Linux's number of the error, or 0
	Message string
}

// Type implements Message.
func (*DialError) Type() Type { return TypeDialError }

func (m *DialError) fields(c *codec) {
	number(c, 1, &m.Errno)
	c.str(2, &m.Message)
}

func (m *DialError) Error() string { return "dial: " + m.Message }

// DialEnd says that the guest's side sends no more, and why: 0 is the end of
// the stream, otherwise reading failed, as with ECONNRESET.
type DialEnd struct{ Errno uint32 }

// Type implements Message.
func (*DialEnd) Type() Type { return TypeDialEnd }

func (m *DialEnd) fields(c *codec) { number(c, 1, &m.Errno) }
