package sandbox

import (
	"strings"
	"sync"
)

// consoleLog keeps the end of what the guest's kernel printed. It is an
// io.Writer that never blocks and never grows.
type consoleLog struct {
	mu   sync.Mutex
	ring [16 << 10]byte
	n    uint64 // bytes written so far
}

func (c *consoleLog) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(p)
	if skip := n - len(c.ring); skip > 0 {
		p = p[skip:]
		c.n += uint64(skip)
	}
	for len(p) > 0 {
		k := copy(c.ring[c.n%uint64(len(c.ring)):], p)
		p = p[k:]
		c.n += uint64(k)
	}
	return n, nil
}

// String is the kept text, from the first whole line on when the beginning was lost.
func (c *consoleLog) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := uint64(len(c.ring))
	if c.n <= size {
		return strings.ToValidUTF8(string(c.ring[:c.n]), "?")
	}
	at := c.n % size
	text := string(c.ring[at:]) + string(c.ring[:at])
	if _, rest, ok := strings.Cut(text, "\n"); ok {
		text = rest
	}
	return strings.ToValidUTF8(text, "?")
}
