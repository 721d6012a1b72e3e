package main

import (
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool/tooltest"
)

func TestFlag(t *testing.T) {
	var s unix.Termios
	for _, step := range []string{"sane", "38400", "cs8"} {
		if ok, err := flag(&s, step); !ok || err != nil {
			t.Fatalf("%s: %v, %v", step, ok, err)
		}
	}
	usual := save(&s)
	for _, c := range []struct {
		name string
		good func() bool
	}{
		{"-echo", func() bool { return s.Lflag&unix.ECHO == 0 }},
		{"echo", func() bool { return s.Lflag&unix.ECHO != 0 }},
		{"raw", func() bool {
			return s.Lflag&(unix.ICANON|unix.ISIG) == 0 && s.Oflag&unix.OPOST == 0 && s.Cc[unix.VMIN] == 1
		}},
		{"-raw", func() bool { return s.Lflag&unix.ICANON != 0 && s.Oflag&unix.OPOST != 0 }},
		{"cbreak", func() bool { return s.Lflag&unix.ICANON == 0 && s.Lflag&unix.ISIG != 0 }},
		{"cs7", func() bool { return s.Cflag&unix.CSIZE == unix.CS7 }},
		{"9600", func() bool { return rateOf(&s) == 9600 }},
		{usual, func() bool { return save(&s) == usual && rateOf(&s) == 38400 }},
	} {
		if ok, err := flag(&s, c.name); c.name != usual && !ok || err != nil || !c.good() {
			t.Errorf("%s: %v, %v", c.name, ok, err)
		}
	}
	for _, name := range []string{"rows", "nonsense", "-nonsense"} {
		if ok, _ := flag(&s, name); ok {
			t.Errorf("%s is a flag", name)
		}
	}
	if _, err := flag(&s, "1:2:3"); err == nil {
		t.Error("bad saved state accepted")
	}
	if err := character(&s, "intr", "^X"); err != nil || s.Cc[unix.VINTR] != 0x18 {
		t.Errorf("intr: %v", err)
	}
	if err := character(&s, "nonsense", "1"); err == nil {
		t.Error("nonsense 1 accepted")
	}
}

// TestStty uses a pseudo-terminal.
func TestStty(t *testing.T) {
	m, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(m)
	if err := unix.IoctlSetPointerInt(m, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(m, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	dev := "-F /dev/pts/" + strconv.Itoa(n)
	tooltest.Run(t, run, []tooltest.Case{
		{Args: dev + " rows 40 cols 100"},
		{Args: dev + " size", Want: "40 100\n"},
		{Args: dev + " -echo 9600 intr ^X"},
		{Args: dev + " speed", Want: "9600\n"},
		{Args: dev + " nonsense", Status: 1, Says: "unknown"},
		{Args: dev + " rows", Status: 1, Says: "value"},
		{Args: "-F /dev/null size", Status: 1, Says: "ioctl"},
	})
	out, _, _ := tooltest.One(run, "", strings.Fields(dev+" -a")...)
	for _, want := range []string{"rows 40; columns 100", " -echo ", "intr = ^X"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
