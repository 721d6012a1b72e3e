package share

import (
	"strconv"
	"strings"
)

// Attributes on the host's files, after "user." or "trusted.".
const (
	attrSpace = "hutch."
	attrStat  = attrSpace + "stat" // owner, mode and kind as the guest set them
	attrGuest = attrSpace + "x."   // before the whole name of a guest's attribute
)

// File types and bits of a mode (S_IFMT and so on of Linux).
const (
	modeType = 0o170000
	modePerm = 0o7777

	typeFIFO = 0o010000
	typeChar = 0o020000
	typeDir  = 0o040000
	typeBlk  = 0o060000
	typeReg  = 0o100000
	typeLink = 0o120000
	typeSock = 0o140000
)

// owner is the content of attrStat: uid, gid, mode with the kind in octal, and a
// device number, in text with spaces between.
type owner struct {
	uid, gid, mode, rdev uint32
}

func (o owner) String() string {
	b := make([]byte, 0, 48)
	b = strconv.AppendUint(b, uint64(o.uid), 10)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(o.gid), 10)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(o.mode), 8)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(o.rdev), 10)
	return string(b)
}

// maxOwner is more than the longest attrStat.
const maxOwner = 64

// parseOwner reads attrStat of a file of that kind on the host. What does not fit
// the file is refused: somebody else wrote it.
func parseOwner(text string, kind uint32) (o owner, ok bool) {
	var v [4]uint32
	for i, base := range []int{10, 10, 8, 10} {
		field, rest, more := strings.Cut(text, " ")
		if more != (i < 3) {
			return owner{}, false
		}
		n, err := strconv.ParseUint(field, base, 32)
		if err != nil {
			return owner{}, false
		}
		v[i], text = uint32(n), rest
	}
	o = owner{v[0], v[1], v[2], v[3]}
	if o.mode&^(modeType|modePerm) != 0 {
		return owner{}, false
	}
	switch o.mode & modeType {
	case kind:
	case typeChar, typeBlk, typeFIFO, typeSock:
		if kind != typeReg {
			return owner{}, false
		}
	default:
		return owner{}, false
	}
	return o, true
}
