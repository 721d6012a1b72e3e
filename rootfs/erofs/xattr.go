package erofs

import (
	"crypto/sha256"
	"slices"
	"strings"
)

// xattrSet is the attributes of a file, kept once for all files that have the same.
type xattrSet struct {
	at     int64 // where in the spool
	length uint32
	refs   uint32
	size   uint32 // bytes behind the inode; known once the shared ones are
}

const (
	// An image may have any number of attributes. So many are remembered, to be
	// kept once: of sets, of single attributes, and of bytes of shared ones.
	maxSets   = 1 << 16
	maxCounts = 1 << 16
	maxArea   = 8 << 20

	maxShared = 255 // of one file: the count is a byte
)

// xattrSets is all sets of a Writer. Set 0 is the empty one.
type xattrSets struct {
	sets   []xattrSet
	byHash map[[sha256.Size]byte]uint32
	shared map[[sha256.Size]byte]uint32 // place of each attribute that several files have
	area   []byte                       // the shared attributes
	buf    []byte
}

// encode checks attributes and writes them down, sorted by name.
func encodeXattrs(buf []byte, xattrs []Xattr) ([]byte, error) {
	xattrs = slices.Clone(xattrs)
	slices.SortFunc(xattrs, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	total := 0
	for i, x := range xattrs {
		index, rest := splitXattr(x.Name)
		switch {
		case index == 0, i > 0 && xattrs[i-1].Name == x.Name, strings.IndexByte(x.Name, 0) >= 0:
			return nil, ErrInvalid
		case rest == "" && !isACL(index):
			return nil, ErrInvalid
		case len(x.Name) > MaxXattrName, len(x.Value) > MaxXattrValue:
			return nil, ErrRange
		}
		if total += len(x.Name) + len(x.Value); total > MaxXattrBytes {
			return nil, ErrRange
		}
		// As on disk, where an entry is padded to four bytes.
		buf = append(buf, byte(len(rest)), index)
		buf = le.AppendUint16(buf, uint16(len(x.Value)))
		buf = append(buf, rest...)
		buf = append(buf, x.Value...)
		buf = append(buf, zeros[:-len(buf)&3]...)
	}
	return buf, nil
}

func isACL(index uint8) bool { return index == 2 || index == 3 }

// splitXattr takes the namespace from a name; index is 0 when the format has none
// for it.
func splitXattr(name string) (index uint8, rest string) {
	for _, p := range xattrPrefixes {
		if isACL(p.index) {
			if name == p.name {
				return p.index, ""
			}
		} else if rest, ok := strings.CutPrefix(name, p.name); ok {
			return p.index, rest
		}
	}
	return 0, ""
}

// XattrSupported tells whether the format can hold an attribute of that name.
func XattrSupported(name string) bool {
	index, rest := splitXattr(name)
	return index != 0 && (rest != "" || isACL(index)) && len(name) <= MaxXattrName && strings.IndexByte(name, 0) < 0
}

// xattrEntries walks encoded attributes: f gets each with its padding.
func xattrEntries(p []byte, f func(entry []byte)) {
	for len(p) >= xattrEntrySize {
		n := int(align(xattrEntrySize+int64(p[0])+int64(le.Uint16(p[2:])), 4))
		f(p[:n])
		p = p[n:]
	}
}

// intern returns the number of a set, and room in bytes that it may take behind an
// inode.
func (x *xattrSets) intern(xattrs []Xattr, s *spool) (set uint32, err error) {
	if len(xattrs) == 0 {
		return 0, nil
	}
	if x.buf, err = encodeXattrs(x.buf[:0], xattrs); err != nil {
		return 0, err
	}
	h := sha256.Sum256(x.buf)
	if i, ok := x.byHash[h]; ok {
		return i, nil
	}
	at, err := s.add(x.buf)
	if err != nil {
		return 0, err
	}
	if x.byHash == nil {
		x.byHash = map[[sha256.Size]byte]uint32{}
		x.sets = append(x.sets, xattrSet{})
	}
	set = uint32(len(x.sets))
	x.sets = append(x.sets, xattrSet{at: at, length: uint32(len(x.buf))})
	if len(x.byHash) < maxSets {
		x.byHash[h] = set
	}
	return set, nil
}

// room is the most that a set takes behind an inode.
func (x *xattrSets) room(set uint32) int {
	if set == 0 {
		return 0
	}
	return xattrHeaderSize + int(x.sets[set].length)
}

func (x *xattrSets) ref(set uint32) {
	if set != 0 {
		x.sets[set].refs++
	}
}

func (x *xattrSets) unref(set uint32) {
	if set != 0 {
		x.sets[set].refs--
	}
}

// share decides which attributes go to the shared area: those that more than one
// file has.
func (x *xattrSets) share(s *spool) error {
	count := map[[sha256.Size]byte]uint32{}
	err := x.walk(s, func(set *xattrSet, p []byte) {
		xattrEntries(p, func(e []byte) {
			h := sha256.Sum256(e)
			if _, ok := count[h]; ok || len(count) < maxCounts {
				count[h] += set.refs
			}
		})
	})
	if err != nil {
		return err
	}
	x.shared = map[[sha256.Size]byte]uint32{}
	return x.walk(s, func(set *xattrSet, p []byte) {
		xattrEntries(p, func(e []byte) {
			h := sha256.Sum256(e)
			if _, ok := x.shared[h]; !ok && count[h] > 1 && len(x.area)+len(e) <= maxArea {
				x.shared[h] = uint32(len(x.area) / 4)
				x.area = append(x.area, e...)
			}
		})
		set.size = xattrHeaderSize
		x.split(p, func(uint32) { set.size += 4 }, func(e []byte) { set.size += uint32(len(e)) })
	})
}

// walk visits the sets that files have.
func (x *xattrSets) walk(s *spool, f func(set *xattrSet, p []byte)) error {
	for i := range x.sets {
		set := &x.sets[i]
		if set.refs == 0 {
			continue
		}
		p, err := s.get(set.at, int(set.length))
		if err != nil {
			return err
		}
		f(set, p)
	}
	return nil
}

// split tells which attributes of a set are referred to and which are kept behind the
// inode.
func (x *xattrSets) split(p []byte, shared func(id uint32), own func(entry []byte)) {
	n := 0
	xattrEntries(p, func(e []byte) {
		if id, ok := x.shared[sha256.Sum256(e)]; ok && n < maxShared {
			n++
			shared(id)
		} else {
			own(e)
		}
	})
}

// body appends what stands behind an inode with that set.
func (x *xattrSets) body(buf []byte, set uint32, s *spool) ([]byte, error) {
	if set == 0 {
		return buf, nil
	}
	p, err := s.get(x.sets[set].at, int(x.sets[set].length))
	if err != nil {
		return nil, err
	}
	header := len(buf)
	buf = append(buf, zeros[:xattrHeaderSize]...)
	x.split(p, func(id uint32) {
		buf[header+4]++
		buf = le.AppendUint32(buf, id)
	}, func([]byte) {})
	x.split(p, func(uint32) {}, func(e []byte) { buf = append(buf, e...) })
	return buf, nil
}
