package vsock

// recvBuffer is a byte ring that grows from recvBufferStart up to the credit
// its connection advertised, so that an idle connection costs nothing.
type recvBuffer struct {
	b    []byte
	r, n int // read position, bytes held
}

const recvBufferStart = 8 << 10

// reserve returns up to two parts of free space that hold n bytes together;
// the caller fills them and calls commit. limit is the advertised credit, and
// n never exceeds what is left of it.
func (q *recvBuffer) reserve(n, limit int) (a, b []byte) {
	if q.n+n > len(q.b) {
		q.grow(q.n+n, limit)
	}
	w := q.r + q.n
	if w >= len(q.b) {
		w -= len(q.b)
	}
	if end := w + n; end <= len(q.b) {
		return q.b[w:end], nil
	}
	return q.b[w:], q.b[:w+n-len(q.b)]
}

func (q *recvBuffer) commit(n int) { q.n += n }

func (q *recvBuffer) grow(need, limit int) {
	size := max(2*len(q.b), recvBufferStart)
	for size < need {
		size *= 2
	}
	size = max(min(size, limit), need)
	b := make([]byte, size)
	q.n = q.peek(b[:min(size, q.n)])
	q.b, q.r = b, 0
}

func (q *recvBuffer) peek(p []byte) int {
	n := min(len(p), q.n)
	m := copy(p[:n], q.b[q.r:])
	copy(p[m:n], q.b)
	return n
}

func (q *recvBuffer) read(p []byte) int {
	n := q.peek(p)
	q.n -= n
	if q.r += n; q.r >= len(q.b) {
		q.r -= len(q.b)
	}
	if q.n == 0 {
		q.r = 0 // keep the copies contiguous
	}
	return n
}

func (q *recvBuffer) free() { *q = recvBuffer{} }
