package diskimage

// vec is a list of buffers from which pieces are taken in order. The buffers are
// guest memory.
type vec struct {
	bufs [][]byte
	out  [][]byte
}

// take returns the next n bytes as a list that is valid until the next take.
func (v *vec) take(n int64) [][]byte {
	v.out = v.out[:0]
	for n > 0 && len(v.bufs) > 0 {
		b := v.bufs[0]
		if int64(len(b)) > n {
			v.out = append(v.out, b[:n])
			v.bufs[0] = b[n:]
			break
		}
		v.out = append(v.out, b)
		v.bufs = v.bufs[1:]
		n -= int64(len(b))
	}
	return v.out
}

// newVec does not change the caller's list.
func newVec(bufs [][]byte) (*vec, int64) {
	v := &vec{bufs: append([][]byte(nil), bufs...)}
	var n int64
	for _, b := range bufs {
		n += int64(len(b))
	}
	return v, n
}

func zero(bufs [][]byte) {
	for _, b := range bufs {
		clear(b)
	}
}

// scatter copies p into the buffers.
func scatter(bufs [][]byte, p []byte) {
	for _, b := range bufs {
		p = p[copy(b, p):]
	}
}
