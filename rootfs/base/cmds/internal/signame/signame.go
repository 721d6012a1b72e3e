// Package signame knows signals by name.
package signame

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// last is the highest signal of Linux.
const last = 64

// Parse understands 15, TERM and SIGTERM; 0 is no signal.
func Parse(s string) (unix.Signal, bool) {
	if n, err := strconv.Atoi(s); err == nil {
		return unix.Signal(n), n >= 0 && n <= last
	}
	s = strings.ToUpper(s)
	if !strings.HasPrefix(s, "SIG") {
		s = "SIG" + s
	}
	sig := unix.SignalNum(s)
	return sig, sig != 0
}

// Of is the name without SIG, or the number of a signal that has none.
func Of(sig unix.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	return strconv.Itoa(int(sig))
}

// List prints all names, or turns names into numbers and the other way round. An
// exit status of a killed command stands for its signal.
func List(w io.Writer, which []string) error {
	if len(which) == 0 {
		for n := unix.Signal(1); n < 32; n++ {
			fmt.Fprintf(w, "%2d %s\n", n, Of(n))
		}
		return nil
	}
	for _, s := range which {
		if n, err := strconv.Atoi(s); err == nil && n > 0 && n&^128 <= last {
			fmt.Fprintln(w, Of(unix.Signal(n&^128)))
		} else if sig, ok := Parse(s); ok && sig != 0 {
			fmt.Fprintln(w, int(sig))
		} else {
			return fmt.Errorf("%s: unknown signal", s)
		}
	}
	return nil
}
