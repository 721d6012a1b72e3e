package guest

import (
	"io"
	"os"
	"sync"
)

// feeder copies the input channel to the command and ends the command's input
// when as many bytes have passed as the outer side says there are.
type feeder struct {
	port     io.Reader
	to       *os.File // nil if the command has no input to feed
	terminal bool

	mu     sync.Mutex
	passed int64
	total  int64 // -1 while the outer stream goes on
	closed bool
}

func newFeeder(port io.Reader, to *os.File, terminal bool) *feeder {
	return &feeder{port: port, to: to, terminal: terminal, total: -1}
}

// run copies until the port ends, which it does only with the machine. When the
// command has closed its input it goes on reading, so that the outer side is
// not held up.
func (f *feeder) run() {
	buf := make([]byte, 32<<10)
	for {
		n, err := f.port.Read(buf)
		if n > 0 && f.to != nil {
			f.to.Write(buf[:n])
		}
		f.mu.Lock()
		f.passed += int64(n)
		f.mu.Unlock()
		f.check()
		if err != nil {
			return
		}
	}
}

// end says how long the stream is.
func (f *feeder) end(total int64) {
	f.mu.Lock()
	f.total = total
	f.mu.Unlock()
	f.check()
}

func (f *feeder) check() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.to == nil || f.total < 0 || f.passed < f.total {
		return
	}
	f.closed = true
	if f.terminal {
		f.to.Write([]byte{4}) // the terminal's end-of-file character, ^D
		return
	}
	f.to.Close()
}
