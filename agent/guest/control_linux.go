package guest

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/proto"
)

var (
	errNotInit     = errors.New("the agent runs as process 1 of a guest only")
	errSecondSetup = errors.New("already set up")
)

// lastWords is how long the machine waits, going down, for the host to have
// read the answer.
const lastWords = 500 * time.Millisecond

// lostGrace is what commands have to end in when the host is gone.
const lostGrace = 2 * time.Second

// control is the agent's side of the control connection.
type control struct {
	conn   *os.File
	root   *root   // nil until set up
	server *Server // nil until set up
}

func (c *control) send(m proto.Message) error {
	frame, err := proto.AppendFrame(nil, m)
	if err == nil {
		_, err = c.conn.Write(frame)
	}
	return err
}

func (c *control) hello(h *proto.Hello) error {
	frame, err := proto.AppendFrame(proto.AppendHandshake(nil), h)
	if err == nil {
		_, err = c.conn.Write(frame)
	}
	return err
}

// serve answers the host. It returns only when the machine could not be taken
// down.
func (c *control) serve() error {
	r := proto.NewReader(c.conn)
	err := r.Handshake()
	for err == nil {
		var t proto.Type
		var payload []byte
		if t, payload, err = r.Next(); err == nil {
			err = c.take(r, t, payload)
		}
	}
	var broken *proto.Error
	if errors.As(err, &broken) {
		c.conn.SetWriteDeadline(time.Now().Add(faultPatience))
		c.send(&proto.Fault{Message: err.Error()})
	}
	// Nobody can use this machine any more. What it has written is kept.
	c.goDown(lostGrace)
	return c.powerOff()
}

func (c *control) take(r *proto.Reader, t proto.Type, payload []byte) error {
	switch t {
	case proto.TypePing:
		m := new(proto.Ping)
		if err := proto.Unmarshal(payload, m); err != nil {
			return err
		}
		return c.send(&proto.Pong{ID: m.ID})
	case proto.TypeSetup:
		done := proto.SetupDone{Received: now()}
		m := new(proto.Setup)
		if err := proto.Unmarshal(payload, m); err != nil {
			return err
		}
		if failed := c.setup(m, &done); failed != nil {
			return c.send(failed)
		}
		done.Done = now()
		return c.send(&done)
	case proto.TypeShutdown:
		m := new(proto.Shutdown)
		if err := proto.Unmarshal(payload, m); err != nil {
			return err
		}
		killed := c.goDown(time.Duration(min(m.Grace, uint64(time.Hour))))
		if err := c.send(&proto.ShutdownDone{Killed: killed}); err != nil {
			return err
		}
		c.conn.SetReadDeadline(time.Now().Add(lastWords))
		r.Next() // the host closes the connection when it has read the answer
		return c.powerOff()
	}
	return &proto.Error{Op: "control", Err: proto.ErrUnexpected}
}

// setup makes this guest what the host says and opens it for commands.
func (c *control) setup(m *proto.Setup, done *proto.SetupDone) *proto.SetupError {
	if c.root != nil {
		return setupError(proto.SetupInvalid, "", errSecondSetup)
	}
	if err := reseed(m.Entropy); err != nil {
		return setupError(proto.SetupOther, "Entropy", err)
	}
	setClock(m.Time)
	if err := lookAtDisks(m.Disks); err != nil {
		return setupError(proto.SetupRoot, "Disks", err)
	}
	if m.Hostname != "" {
		if err := unix.Sethostname([]byte(m.Hostname)); err != nil {
			return setupError(proto.SetupHostname, "Hostname", err)
		}
	}
	root, failed := newRoot(&m.Root)
	if failed != nil {
		return failed
	}
	c.root = root
	done.Rooted = now()
	if failed := root.mountAll(m.Mounts); failed != nil {
		return failed
	}
	if m.Hostname != "" {
		if err := nameHost(m.Hostname); err != nil {
			return setupError(proto.SetupHostname, "Hostname", err)
		}
	}
	if m.Network.MAC != "" {
		if failed := setUpNetwork(&m.Network); failed != nil {
			return failed
		}
	}
	if _, err := mergeRlimits(m.Rlimits, nil); err != nil {
		return setupError(proto.SetupRlimit, "Rlimits", err)
	}
	d := Defaults{Env: m.Env, Workdir: m.Workdir, User: m.User, Rlimits: m.Rlimits, Restricted: m.Restricted}
	if len(m.Scripts) > 0 {
		if err := writeScripts(scriptsDir, m.Scripts); err != nil {
			return setupError(proto.SetupScript, "Scripts", err)
		}
		d.PathFirst = scriptsDir
	}
	s := NewServer(d)
	c.server = s
	if _, err := s.accounts.resolve(m.User); err != nil {
		return setupError(proto.SetupUser, "User", withName(m.User, err))
	}
	if m.MakeWorkdir {
		os.MkdirAll(m.Workdir, 0o755) // what is wrong with it is told by the check
	}
	if m.Workdir != "" {
		if err := checkWorkdir(m.Workdir); err != nil {
			return setupError(proto.SetupWorkdir, "Workdir", withName(m.Workdir, err))
		}
	}
	l, err := listenVsock(proto.PortExec)
	if err != nil {
		return setupError(proto.SetupOther, "", err)
	}
	go s.serve(l)
	return nil
}

func setupError(kind proto.SetupErrorKind, field string, err error) *proto.SetupError {
	var failed *proto.StartError
	if errors.As(err, &failed) {
		return &proto.SetupError{Kind: kind, Field: field, Message: failed.Message}
	}
	return &proto.SetupError{Kind: kind, Field: field, Message: err.Error()}
}

// namedError says which value an error is about.
type namedError struct {
	name string
	err  error
}

func (e *namedError) Error() string { return e.name + ": " + e.err.Error() }
func (e *namedError) Unwrap() error { return e.err }

func withName(name string, err error) error { return &namedError{name, err} }

func checkWorkdir(dir string) error {
	if dir[0] != '/' {
		return errRelative
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	return nil
}

// clockSlack is how far the guest's clock may be from the host's message about
// it. The kernel has it from the machine already, and the message takes time.
const clockSlack = 500 * time.Millisecond

// setClock sets the guest's clock when it is far from the host's, which is the
// case in a guest that was restored.
func setClock(host int64) {
	if host == 0 {
		return
	}
	off := time.Duration(host - time.Now().UnixNano())
	if off.Abs() > clockSlack {
		ts := unix.NsecToTimespec(host)
		unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
	}
}
