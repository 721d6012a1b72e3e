package kvmhost

import (
	"strings"
	"sync"
)

// consoleLimit bounds what is kept of a console. A kernel's last words, with
// the stacks of all CPUs, fit.
const consoleLimit = 32 << 10

// ring keeps the last bytes written to it. It is safe for concurrent use.
type ring struct {
	mu   sync.Mutex
	data []byte
}

func (r *ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data = append(r.data, p[max(0, len(p)-consoleLimit):]...)
	if len(r.data) > 2*consoleLimit { // rarely, so that a byte is moved twice at most
		r.data = append(r.data[:0], r.data[len(r.data)-consoleLimit:]...)
	}
	return len(p), nil
}

// tail is the end of the text, without carriage returns and other control
// characters that would play tricks on the terminal that shows it.
func (r *ring) tail() string {
	r.mu.Lock()
	data := string(r.data[max(0, len(r.data)-consoleLimit):])
	r.mu.Unlock()
	clean := strings.Map(func(c rune) rune {
		if c == '\n' || c == '\t' || c >= ' ' && c != 0x7f {
			return c
		}
		return -1
	}, data)
	return strings.TrimSpace(clean)
}
