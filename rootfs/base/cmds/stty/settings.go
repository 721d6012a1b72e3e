package main

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// setting is a flag of a terminal: bits of one of the four words.
type setting struct {
	name  string
	group byte // c, i, o or l
	mask  uint32
	value uint32 // of the bits when it is set
}

var flags = []setting{
	{"parenb", 'c', unix.PARENB, unix.PARENB}, {"parodd", 'c', unix.PARODD, unix.PARODD},
	{"cs5", 'c', unix.CSIZE, unix.CS5}, {"cs6", 'c', unix.CSIZE, unix.CS6}, {"cs7", 'c', unix.CSIZE, unix.CS7}, {"cs8", 'c', unix.CSIZE, unix.CS8},
	{"hupcl", 'c', unix.HUPCL, unix.HUPCL}, {"cstopb", 'c', unix.CSTOPB, unix.CSTOPB}, {"cread", 'c', unix.CREAD, unix.CREAD},
	{"clocal", 'c', unix.CLOCAL, unix.CLOCAL}, {"crtscts", 'c', unix.CRTSCTS, unix.CRTSCTS},
	{"ignbrk", 'i', unix.IGNBRK, unix.IGNBRK}, {"brkint", 'i', unix.BRKINT, unix.BRKINT}, {"ignpar", 'i', unix.IGNPAR, unix.IGNPAR},
	{"parmrk", 'i', unix.PARMRK, unix.PARMRK}, {"inpck", 'i', unix.INPCK, unix.INPCK}, {"istrip", 'i', unix.ISTRIP, unix.ISTRIP},
	{"inlcr", 'i', unix.INLCR, unix.INLCR}, {"igncr", 'i', unix.IGNCR, unix.IGNCR}, {"icrnl", 'i', unix.ICRNL, unix.ICRNL},
	{"ixon", 'i', unix.IXON, unix.IXON}, {"ixoff", 'i', unix.IXOFF, unix.IXOFF}, {"iuclc", 'i', unix.IUCLC, unix.IUCLC},
	{"ixany", 'i', unix.IXANY, unix.IXANY}, {"imaxbel", 'i', unix.IMAXBEL, unix.IMAXBEL}, {"iutf8", 'i', unix.IUTF8, unix.IUTF8},
	{"opost", 'o', unix.OPOST, unix.OPOST}, {"olcuc", 'o', unix.OLCUC, unix.OLCUC}, {"ocrnl", 'o', unix.OCRNL, unix.OCRNL},
	{"onlcr", 'o', unix.ONLCR, unix.ONLCR}, {"onocr", 'o', unix.ONOCR, unix.ONOCR}, {"onlret", 'o', unix.ONLRET, unix.ONLRET},
	{"ofill", 'o', unix.OFILL, unix.OFILL}, {"ofdel", 'o', unix.OFDEL, unix.OFDEL},
	{"isig", 'l', unix.ISIG, unix.ISIG}, {"icanon", 'l', unix.ICANON, unix.ICANON}, {"iexten", 'l', unix.IEXTEN, unix.IEXTEN},
	{"echo", 'l', unix.ECHO, unix.ECHO}, {"echoe", 'l', unix.ECHOE, unix.ECHOE}, {"echok", 'l', unix.ECHOK, unix.ECHOK},
	{"echonl", 'l', unix.ECHONL, unix.ECHONL}, {"noflsh", 'l', unix.NOFLSH, unix.NOFLSH}, {"xcase", 'l', unix.XCASE, unix.XCASE},
	{"tostop", 'l', unix.TOSTOP, unix.TOSTOP}, {"echoprt", 'l', unix.ECHOPRT, unix.ECHOPRT}, {"echoctl", 'l', unix.ECHOCTL, unix.ECHOCTL},
	{"echoke", 'l', unix.ECHOKE, unix.ECHOKE}, {"flusho", 'l', unix.FLUSHO, unix.FLUSHO}, {"extproc", 'l', unix.EXTPROC, unix.EXTPROC},
}

// characters are the control characters, with what is usual.
var characters = []struct {
	name  string
	index int
	usual byte
}{
	{"intr", unix.VINTR, 3}, {"quit", unix.VQUIT, 0x1c}, {"erase", unix.VERASE, 0x7f}, {"kill", unix.VKILL, 0x15}, {"eof", unix.VEOF, 4},
	{"eol", unix.VEOL, 0}, {"eol2", unix.VEOL2, 0}, {"swtch", unix.VSWTC, 0}, {"start", unix.VSTART, 0x11}, {"stop", unix.VSTOP, 0x13},
	{"susp", unix.VSUSP, 0x1a}, {"rprnt", unix.VREPRINT, 0x12}, {"werase", unix.VWERASE, 0x17}, {"lnext", unix.VLNEXT, 0x16}, {"discard", unix.VDISCARD, 0xf},
}

var rates = []struct{ bits, rate uint32 }{
	{unix.B0, 0}, {unix.B50, 50}, {unix.B300, 300}, {unix.B600, 600}, {unix.B1200, 1200}, {unix.B2400, 2400}, {unix.B4800, 4800}, {unix.B9600, 9600},
	{unix.B19200, 19200}, {unix.B38400, 38400}, {unix.B57600, 57600}, {unix.B115200, 115200}, {unix.B230400, 230400}, {unix.B460800, 460800},
	{unix.B921600, 921600},
}

func word(t *unix.Termios, group byte) *uint32 {
	switch group {
	case 'c':
		return &t.Cflag
	case 'i':
		return &t.Iflag
	case 'o':
		return &t.Oflag
	}
	return &t.Lflag
}

func state(t *unix.Termios, f setting) string {
	if *word(t, f.group)&f.mask == f.value {
		return f.name
	}
	return "-" + f.name
}

// flag applies a setting without a value. ok is false for others.
func flag(t *unix.Termios, name string) (ok bool, err error) {
	plain, off := strings.CutPrefix(name, "-")
	for _, f := range flags {
		if f.name != plain {
			continue
		}
		w := word(t, f.group)
		if *w &^= f.mask; !off {
			*w |= f.value
		}
		return true, nil
	}
	switch name {
	case "sane":
		sane(t)
	case "raw", "-cooked":
		t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.IGNPAR | unix.PARMRK | unix.INPCK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL |
			unix.IXON | unix.IXOFF | unix.IUCLC | unix.IXANY | unix.IMAXBEL
		t.Oflag &^= unix.OPOST
		t.Lflag &^= unix.ISIG | unix.ICANON | unix.XCASE
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	case "-raw", "cooked":
		t.Iflag |= unix.BRKINT | unix.IGNPAR | unix.ICRNL | unix.IXON
		t.Oflag |= unix.OPOST
		t.Lflag |= unix.ISIG | unix.ICANON
		t.Cc[unix.VEOF], t.Cc[unix.VEOL] = 4, 0
	case "cbreak", "-icanon":
		t.Lflag &^= unix.ICANON
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	case "-cbreak":
		t.Lflag |= unix.ICANON
	case "nl":
		t.Iflag &^= unix.ICRNL
		t.Oflag &^= unix.ONLCR
	case "-nl":
		t.Iflag = t.Iflag&^(unix.INLCR|unix.IGNCR) | unix.ICRNL
		t.Oflag = t.Oflag&^(unix.OCRNL|unix.ONLRET) | unix.ONLCR
	case "ek":
		t.Cc[unix.VERASE], t.Cc[unix.VKILL] = 0x7f, 0x15
	default:
		if strings.Contains(name, ":") {
			return false, restore(t, name)
		}
		for _, r := range rates {
			if strconv.FormatUint(uint64(r.rate), 10) == name {
				t.Cflag = t.Cflag&^unix.CBAUD | r.bits
				t.Ispeed, t.Ospeed = r.rate, r.rate
				return true, nil
			}
		}
		return false, nil
	}
	return true, nil
}

func sane(t *unix.Termios) {
	t.Cflag |= unix.CREAD
	t.Iflag &^= unix.IGNBRK | unix.INLCR | unix.IGNCR | unix.IXOFF | unix.IUCLC | unix.IXANY
	t.Iflag |= unix.BRKINT | unix.ICRNL | unix.IMAXBEL | unix.IXON | unix.IUTF8
	t.Oflag &^= unix.OLCUC | unix.OCRNL | unix.ONOCR | unix.ONLRET | unix.OFILL | unix.OFDEL
	t.Oflag |= unix.OPOST | unix.ONLCR
	t.Lflag &^= unix.ECHONL | unix.NOFLSH | unix.XCASE | unix.TOSTOP | unix.ECHOPRT | unix.EXTPROC | unix.FLUSHO
	t.Lflag |= unix.ISIG | unix.ICANON | unix.IEXTEN | unix.ECHO | unix.ECHOE | unix.ECHOK | unix.ECHOCTL | unix.ECHOKE
	for _, c := range characters {
		t.Cc[c.index] = c.usual
	}
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
}

func rateOf(t *unix.Termios) uint32 {
	for _, r := range rates {
		if t.Cflag&unix.CBAUD == r.bits {
			return r.rate
		}
	}
	return t.Ospeed
}

// character applies a setting with a value.
func character(t *unix.Termios, name, value string) error {
	switch name {
	case "min", "time":
		n, err := strconv.ParseUint(value, 0, 8)
		if err != nil {
			return err
		}
		t.Cc[map[string]int{"min": unix.VMIN, "time": unix.VTIME}[name]] = byte(n)
		return nil
	case "ispeed", "ospeed":
		if ok, err := flag(t, value); !ok || err != nil {
			return fmt.Errorf("bad rate %q", value)
		}
		return nil
	}
	for _, c := range characters {
		if c.name != name {
			continue
		}
		b, err := controlCharacter(value)
		t.Cc[c.index] = b
		return err
	}
	return fmt.Errorf("unknown setting %s", name)
}

// controlCharacter reads ^C, ^-, undef, a number or one character.
func controlCharacter(text string) (byte, error) {
	switch {
	case text == "^-" || text == "undef" || text == "":
		return 0, nil
	case text == "^?":
		return 0x7f, nil
	case len(text) == 2 && text[0] == '^':
		return text[1] & 0x1f, nil
	case len(text) == 1:
		return text[0], nil
	}
	n, err := strconv.ParseUint(text, 0, 8)
	return byte(n), err
}

func caret(c byte) string {
	switch {
	case c == 0:
		return "<undef>"
	case c == 0x7f:
		return "^?"
	case c < ' ':
		return "^" + string(rune(c|0x40))
	}
	return string(rune(c))
}
