package erofs

import (
	"errors"
	"io"
	"os"
)

const (
	spoolMemory = 8 << 20 // bytes kept in memory before there is a file
	spoolBuffer = 256 << 10
)

// spool holds small pieces until the metadata is written: the last bytes of files,
// targets, chunk tables, attributes. Beyond spoolMemory it is a file, so memory
// stays bounded. Pieces are read back about in the order in which they came.
type spool struct {
	dir  string
	file *os.File
	size int64  // all bytes
	buf  []byte // the newest of them, from size-len(buf) on
	win  []byte // a part of the file, read
	off  int64  // where win begins
}

// add appends a piece and returns where it is.
func (s *spool) add(p []byte) (int64, error) {
	at := s.size
	limit := spoolBuffer
	if s.file == nil {
		limit = spoolMemory
	}
	if len(s.buf)+len(p) > limit {
		if err := s.flush(); err != nil {
			return 0, err
		}
	}
	s.buf = append(s.buf, p...)
	s.size += int64(len(p))
	return at, nil
}

func (s *spool) flush() error {
	if s.file == nil {
		f, err := os.CreateTemp(s.dir, "hutch-spool-*")
		if err != nil {
			return err
		}
		s.file = f
		os.Remove(f.Name()) // where that does not work, close does it
	}
	if _, err := s.file.WriteAt(s.buf, s.size-int64(len(s.buf))); err != nil {
		return err
	}
	if cap(s.buf) > 2*spoolBuffer {
		s.buf = make([]byte, 0, spoolBuffer)
	}
	s.buf = s.buf[:0]
	return nil
}

// get returns a piece, valid until the next call.
func (s *spool) get(at int64, n int) ([]byte, error) {
	if begin := s.size - int64(len(s.buf)); at >= begin {
		return s.buf[at-begin:][:n], nil
	} else if at+int64(n) > begin {
		if err := s.flush(); err != nil {
			return nil, err
		}
	}
	if at < s.off || at+int64(n) > s.off+int64(len(s.win)) {
		if want := max(n, spoolBuffer); cap(s.win) < want {
			s.win = make([]byte, want)
		}
		s.win = s.win[:cap(s.win)]
		m, err := s.file.ReadAt(s.win, at)
		if m < n {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		s.win, s.off = s.win[:m], at
	}
	return s.win[at-s.off:][:n], nil
}

func (s *spool) close() {
	if s.file != nil {
		s.file.Close()
		os.Remove(s.file.Name())
		s.file = nil
	}
}
