package mode

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Change gives the new permission bits of a file that has the given ones.
type Change func(old uint32, isDir bool) uint32

// Umask is the mask of this process. It is not safe beside other goroutines
// that make files.
func Umask() uint32 {
	mask := unix.Umask(0o22)
	unix.Umask(mask)
	return uint32(mask)
}

// Parse understands octal modes and symbolic ones, such as u+x,go-w. Clauses that
// do not say whose permissions they change leave out what umask holds.
func Parse(spec string, umask uint32) (Change, error) {
	if n, err := strconv.ParseUint(spec, 8, 32); err == nil && n <= 0o7777 {
		return func(old uint32, isDir bool) uint32 {
			if isDir && len(spec) < 5 {
				return uint32(n) | old&0o6000 // as others do: only more digits clear these
			}
			return uint32(n)
		}, nil
	}
	var steps []step
	for clause := range strings.SplitSeq(spec, ",") {
		more, err := parseClause(clause)
		if err != nil {
			return nil, fmt.Errorf("bad mode %q", spec)
		}
		steps = append(steps, more...)
	}
	return func(old uint32, isDir bool) uint32 {
		for _, s := range steps {
			old = s.apply(old, isDir, umask)
		}
		return old
	}, nil
}

// step is one operator with its permissions.
type step struct {
	who   uint32 // the bits of those meant; 0: everybody, masked
	op    byte
	perms string
}

func parseClause(text string) ([]step, error) {
	var who uint32
	i := 0
	for ; i < len(text) && strings.IndexByte("ugoa", text[i]) >= 0; i++ {
		who |= map[byte]uint32{'u': 0o4700, 'g': 0o2070, 'o': 0o1007, 'a': 0o7777}[text[i]]
	}
	var steps []step
	for i < len(text) {
		s := step{who: who, op: text[i]}
		if strings.IndexByte("+-=", s.op) < 0 {
			return nil, strconv.ErrSyntax
		}
		from := i + 1
		for i = from; i < len(text) && strings.IndexByte("+-=", text[i]) < 0; i++ {
			if strings.IndexByte("rwxXstugo", text[i]) < 0 {
				return nil, strconv.ErrSyntax
			}
		}
		s.perms = text[from:i]
		steps = append(steps, s)
	}
	if steps == nil {
		return nil, strconv.ErrSyntax
	}
	return steps, nil
}

func (s step) apply(old uint32, isDir bool, umask uint32) uint32 {
	var bits uint32
	for _, c := range s.perms {
		switch c {
		case 'r':
			bits |= 0o444
		case 'w':
			bits |= 0o222
		case 'x':
			bits |= 0o111
		case 'X':
			if isDir || old&0o111 != 0 {
				bits |= 0o111
			}
		case 's':
			bits |= 0o6000
		case 't':
			bits |= 0o1000
		case 'u':
			bits |= old >> 6 & 7 * 0o111
		case 'g':
			bits |= old >> 3 & 7 * 0o111
		case 'o':
			bits |= old & 7 * 0o111
		}
	}
	scope := s.who
	if scope == 0 {
		scope = 0o7777
		bits &^= umask
	}
	// The sticky bit is nobody's: "+t" and "u+t" mean the same to most.
	bits &= scope | bits&0o1000
	switch s.op {
	case '+':
		return old | bits
	case '-':
		return old &^ bits
	}
	if isDir {
		scope &^= 0o6000 &^ bits
	}
	return old&^scope | bits
}
