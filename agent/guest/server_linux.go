package guest

import (
	"errors"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/proto"
)

// Conn is a connection to the host: a net.Conn or a non-blocking *os.File.
type Conn interface {
	io.ReadWriteCloser
	SetWriteDeadline(time.Time) error
}

// Defaults are what commands have unless their request says otherwise.
type Defaults struct {
	Env     []string
	Workdir string
	User    string
	Rlimits []proto.Rlimit
	// PathFirst, if not empty, is a directory in front of every PATH.
	PathFirst string
	// Restricted takes from commands what proto.Setup says.
	Restricted bool
}

// Server runs operations for the host. It is the only part of its process that
// may start or wait for other processes.
type Server struct {
	defaults Defaults
	accounts accounts
	grace    time.Duration // see drainGrace
	reaper   *reaper
	reaping  chan struct{}  // closed: the reaper stops
	commands sync.WaitGroup // running
	work     sync.WaitGroup // goroutines other than Handle's

	mu       sync.Mutex
	stopping bool
	running  map[*execution]struct{}
	outputs  map[*output]struct{} // open, possibly beyond their execution
	dials    map[*relay]struct{}
}

// NewServer returns a Server, which reaps the children of this process from
// now on.
func NewServer(defaults Defaults) *Server {
	s := &Server{
		defaults: defaults,
		accounts: accounts{passwd: "/etc/passwd", group: "/etc/group"},
		grace:    drainGrace,
		reaper:   newReaper(),
		reaping:  make(chan struct{}),
		running:  make(map[*execution]struct{}),
		outputs:  make(map[*output]struct{}),
		dials:    make(map[*relay]struct{}),
	}
	s.work.Go(func() { s.reaper.run(s.reaping) })
	return s
}

// faultPatience is how long a host that broke the protocol has to read why.
const faultPatience = time.Second

var errStopping = errors.New("the guest is shutting down")

// Handle serves one connection and closes it. It returns when the operation is
// over.
func (s *Server) Handle(conn Conn) {
	defer conn.Close()
	r := proto.NewReader(conn)
	if r.Handshake() != nil {
		conn.SetWriteDeadline(time.Now().Add(faultPatience))
		conn.Write(proto.AppendHandshake(nil)) // it tells the host what we speak
		return
	}
	t, payload, err := r.Next()
	if err == nil {
		switch t {
		case proto.TypeExec:
			req := new(proto.Exec)
			if err = proto.Unmarshal(payload, req); err == nil {
				s.exec(conn, r, req)
				return
			}
		case proto.TypeDial:
			req := new(proto.Dial)
			if err = proto.Unmarshal(payload, req); err == nil {
				s.dial(conn, req)
				return
			}
		default:
			err = &proto.Error{Op: "operation", Err: proto.ErrUnexpected}
		}
	}
	conn.SetWriteDeadline(time.Now().Add(faultPatience))
	frame, _ := proto.AppendFrame(proto.AppendHandshake(nil), &proto.Fault{Message: err.Error()})
	conn.Write(frame)
}

// begin enters an execution, unless the server is stopping.
func (s *Server) begin(e *execution) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return errStopping
	}
	s.running[e] = struct{}{}
	s.commands.Add(1)
	return nil
}

func (s *Server) finish(e *execution) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, e)
	s.commands.Done()
}

// stop refuses new commands and hangs the terminals of the running ones up.
func (s *Server) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
	for e := range s.running {
		if e.tty {
			s.reaper.kill(e.kid, unix.SIGHUP)
		}
	}
}

// carry runs an output, which may outlive its command.
func (s *Server) carry(o *output) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outputs[o] = struct{}{}
	s.work.Go(func() {
		o.run()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.outputs, o)
	})
}

// Close kills the commands that still run, closes what their background
// processes hold open and the dialed connections, and waits for all of it and
// for the reaper.
func (s *Server) Close() {
	s.mu.Lock()
	s.stopping = true
	for e := range s.running {
		s.reaper.kill(e.kid, unix.SIGKILL)
		e.conn.SetWriteDeadline(time.Now().Add(faultPatience))
	}
	for o := range s.outputs {
		o.file.Close()
	}
	for d := range s.dials {
		d.close()
	}
	s.mu.Unlock()
	s.commands.Wait()
	close(s.reaping)
	s.work.Wait()
}
