package share

import (
	"errors"
	"io"
	"log"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Server answers the FUSE requests of one guest. Its methods may be called from
// any goroutine.
type Server struct {
	cfg Config

	// gate is held for writing while a session begins or ends.
	gate    sync.RWMutex
	proto   *fuse.ProtocolServer
	started bool // INIT was answered

	tree *tree
}

// New returns a server without exports. Close it after the device.
func New(cfg Config) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, tree: newTree(cfg)}
	s.proto = s.newProto()
	return s, nil
}

// newProto makes the protocol layer of one session.
func (s *Server) newProto() *fuse.ProtocolServer {
	caps := uint64(fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_ASYNC_DIO)
	if s.cfg.WritebackCache {
		caps |= fuse.CAP_WRITEBACK_CACHE
	}
	return fuse.NewProtocolServer(s.tree, &fuse.MountOptions{
		MaxWrite:          MaxRequestBytes,
		MaxBackground:     64,
		ExtraCapabilities: caps,
		Logger:            log.New(io.Discard, "", 0), // a guest's mistakes are its own
		PanicHandler: func(v any) fuse.Status {
			if s.cfg.OnPanic != nil {
				s.cfg.OnPanic(v)
			}
			return fuse.EIO
		},
	})
}

// Add adds an export under a name of one component, and checks it. A guest that
// has the server mounted sees it at once.
func (s *Server) Add(name string, o Options) error {
	if err := o.validate(name); err != nil {
		return err
	}
	e, err := openExport(name, o)
	if err == nil {
		err = s.tree.add(e)
	}
	if err != nil {
		if e != nil {
			e.close()
		}
		if errors.Is(err, unix.ENOSYS) {
			err = ErrUnsupported
		}
		return &OpError{Op: "export", Name: name, Err: err}
	}
	return nil
}

// Reset ends the guest's session: all it looked up and opened is forgotten, the
// exports stay. It must not run together with Serve.
func (s *Server) Reset() {
	s.gate.Lock()
	defer s.gate.Unlock()
	s.endSession()
}

func (s *Server) endSession() {
	s.tree.reset()
	s.started = false
	s.proto = s.newProto()
}

// Close ends the session and closes all files. No Serve may run or follow.
func (s *Server) Close() error {
	s.gate.Lock()
	defer s.gate.Unlock()
	s.endSession()
	return s.tree.close()
}

// Usage is what an export holds, as its quota counts it.
type Usage struct {
	Used  int64 // bytes
	Quota int64 // bytes; 0 is no bound, and Used is not known then
}

// Usage returns what the export of that name holds.
func (s *Server) Usage(name string) (Usage, bool) {
	s.tree.mu.Lock()
	e := s.tree.exports[name]
	s.tree.mu.Unlock()
	if e == nil {
		return Usage{}, false
	}
	return Usage{Used: e.quota.usage(), Quota: e.opt.Quota}, true
}
