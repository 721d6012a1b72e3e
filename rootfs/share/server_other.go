//go:build !linux

package share

// Server answers the FUSE requests of one guest. Only Linux has what it needs.
type Server struct{}

// New returns ErrUnsupported.
func New(cfg Config) (*Server, error) {
	if _, err := cfg.withDefaults(); err != nil {
		return nil, err
	}
	return nil, ErrUnsupported
}

// Add returns an error.
func (s *Server) Add(name string, o Options) error {
	if err := o.validate(name); err != nil {
		return err
	}
	return &OpError{Op: "export", Name: name, Err: ErrUnsupported}
}

// Serve does nothing.
func (s *Server) Serve(in, out [][]byte) int { return 0 }

// Reset does nothing.
func (s *Server) Reset() {}

// Close does nothing.
func (s *Server) Close() error { return nil }

// Usage is what an export holds, as its quota counts it.
type Usage struct {
	Used  int64 // bytes
	Quota int64 // bytes; 0 is no bound, and Used is not known then
}

// Usage knows no export.
func (s *Server) Usage(name string) (Usage, bool) { return Usage{}, false }
