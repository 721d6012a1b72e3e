package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// lineSource gives the lines of a text that is read while it runs.
type lineSource interface {
	// line returns the next line without its end. more says that a statement
	// is incomplete. io.EOF may come with a last line. again means that the
	// user gave the line up.
	line(more bool) (text string, again bool, err error)
	// restore leaves the terminal as it was found.
	restore()
}

// byteLines reads standard input one byte at a time, so that what follows a
// line is still there for the command on it.
type byteLines struct{ f *os.File }

func (b byteLines) line(bool) (string, bool, error) {
	var text []byte
	var one [1]byte
	for {
		n, err := b.f.Read(one[:])
		if n == 1 && one[0] == '\n' {
			return string(text), false, nil
		}
		if n == 1 {
			text = append(text, one[0])
		}
		if err != nil {
			return string(text), false, err
		}
	}
}

func (byteLines) restore() {}

// loop runs statements as soon as they are complete and returns the exit status.
func (s *shell) loop(src lineSource) int {
	defer src.restore()
	status := 0
	var text strings.Builder
	for eof := false; !eof; {
		line, again, err := src.line(text.Len() > 0)
		if again {
			text.Reset()
			status = 130
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			fmt.Fprintf(os.Stderr, "sh: %v\n", err)
		}
		eof = err != nil
		text.WriteString(line)
		if !eof {
			text.WriteByte('\n')
		}
		if continued(line) && !eof {
			continue
		}
		f, err := s.parse(text.String(), "")
		if err != nil {
			if syntax.IsIncomplete(err) && !eof {
				continue
			}
			fmt.Fprintf(os.Stderr, "sh: %v\n", err)
			text.Reset()
			status = 2
			if !s.interactive {
				return status
			}
			continue
		}
		text.Reset()
		s.rewrite(f, "sh")
		for _, st := range f.Stmts {
			var exited bool
			if status, exited = s.runStmt(st); exited {
				return status
			}
		}
		if s.interactive {
			s.jobs.report(os.Stderr)
		}
	}
	if text := s.traps.take(); text != "" {
		status = s.runTraps(text, status)
	}
	// A file without statements, only for the exit trap to run.
	if got := s.script(fmt.Sprintf("(exit %d)", status), "sh", false); got != 0 {
		status = got
	}
	return status
}

// continued tells whether a line ends in a backslash that joins it to the next.
func continued(line string) bool {
	n := len(line) - len(strings.TrimRight(line, `\`))
	return n%2 == 1
}
