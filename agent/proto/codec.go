package proto

// codec writes or reads the fields of one message. Each message names its
// fields once, in ascending order of tag, and the same list serves both ways.
type codec struct {
	decode bool
	out    []byte // grows while encoding
	in     string // rest of the input while decoding; strings share its memory
	err    error
}

func (c *codec) fail(err error) {
	if c.err == nil {
		c.err = err
		c.in = ""
	}
}

// field reports whether the field is there: while encoding, if present says
// so; while decoding, if the input goes on with its tag.
func (c *codec) field(tag byte, present bool) bool {
	if !c.decode {
		if present {
			c.out = append(c.out, tag)
		}
		return present
	}
	if len(c.in) == 0 || c.in[0] != tag {
		return false
	}
	c.in = c.in[1:]
	return true
}

func (c *codec) word(v *uint64, size int) {
	if !c.decode {
		for i := range size {
			c.out = append(c.out, byte(*v>>(8*i)))
		}
		return
	}
	if len(c.in) < size {
		c.fail(ErrMalformed)
		return
	}
	*v = 0
	for i := range size {
		*v |= uint64(c.in[i]) << (8 * i)
	}
	c.in = c.in[size:]
}

// count handles the length of what follows, which is at most limit and, as
// every counted thing takes at least unit bytes, bounded by the input's rest.
func (c *codec) count(n, limit, unit int) int {
	v := uint64(n)
	if n > limit {
		c.fail(ErrTooLarge)
		return 0
	}
	c.word(&v, 4)
	if !c.decode || c.err != nil {
		return n
	}
	switch {
	case v > uint64(limit):
		c.fail(ErrTooLarge)
	case v > uint64(len(c.in)/unit):
		c.fail(ErrMalformed)
	default:
		return int(v)
	}
	return 0
}

func (c *codec) text(s *string) {
	n := c.count(len(*s), MaxMessage, 1)
	if !c.decode {
		c.out = append(c.out, *s...)
		return
	}
	if c.err == nil {
		*s, c.in = c.in[:n], c.in[n:]
	}
}

func (c *codec) str(tag byte, s *string) {
	if c.field(tag, *s != "") {
		c.text(s)
	}
}

// flag is a field without a value: it is set by being there.
func (c *codec) flag(tag byte, v *bool) {
	if c.field(tag, *v) {
		*v = true
	}
}

// number is any whole number. On the wire it takes eight bytes.
func number[T ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~int64](c *codec, tag byte, v *T) {
	if !c.field(tag, *v != 0) {
		return
	}
	w := uint64(*v)
	c.word(&w, 8)
	if c.decode && c.err == nil {
		*v = T(w)
		if uint64(*v) != w {
			c.fail(ErrMalformed)
		}
	}
}

func (c *codec) strs(tag byte, v *[]string) {
	if !c.field(tag, len(*v) > 0) {
		return
	}
	n := c.count(len(*v), maxStrings, 4)
	if c.decode && n > 0 {
		*v = make([]string, n)
	}
	for i := 0; i < n && c.err == nil; i++ {
		c.text(&(*v)[i])
	}
}

// group is a structure inside a message, with a length in front.
func (c *codec) group(fields func(*codec)) {
	if !c.decode {
		at := len(c.out)
		c.out = append(c.out, 0, 0, 0, 0)
		fields(c)
		putUint32(c.out[at:], uint32(len(c.out)-at-4))
		return
	}
	n := c.count(0, MaxMessage, 1)
	if c.err != nil {
		return
	}
	in := codec{decode: true, in: c.in[:n]}
	fields(&in)
	c.in = c.in[n:]
	if err := in.end(); err != nil {
		c.fail(err)
	}
}

// one is a structure that is left out when it is zero.
func one[T comparable](c *codec, tag byte, v *T, fields func(*T, *codec)) {
	var zero T
	if c.field(tag, *v != zero) {
		c.group(func(c *codec) { fields(v, c) })
	}
}

// many is a list of structures.
func many[T any](c *codec, tag byte, v *[]T, fields func(*T, *codec)) {
	if !c.field(tag, len(*v) > 0) {
		return
	}
	n := c.count(len(*v), maxItems, 4)
	if c.decode && n > 0 {
		*v = make([]T, n)
	}
	for i := 0; i < n && c.err == nil; i++ {
		c.group(func(c *codec) { fields(&(*v)[i], c) })
	}
}

func (c *codec) end() error {
	if c.err == nil && len(c.in) > 0 {
		c.err = ErrMalformed // a field that we do not know, or out of order
	}
	return c.err
}

func putUint32(b []byte, v uint32) {
	_ = b[3]
	b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
}

func getUint32(b []byte) uint32 {
	_ = b[3]
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}
