package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// editor reads lines from the terminal, with editing, history and completion of
// file and command names.
type editor struct {
	s     *shell
	term  *term.Terminal
	keys  *keys
	state *unix.Termios // as found
}

// keys is the terminal's raw input. Control-C becomes "end of line, kill line,
// enter", since the editor takes it for the end of input.
type keys struct {
	buf         []byte
	interrupted bool
}

func (k *keys) Read(p []byte) (int, error) {
	if len(k.buf) == 0 {
		var raw [256]byte
		n, err := os.Stdin.Read(raw[:])
		if err != nil {
			return 0, err
		}
		for _, b := range raw[:n] {
			if b == 3 {
				k.interrupted = true
				k.buf = append(k.buf, 5, 21, '\r')
				continue
			}
			k.buf = append(k.buf, b)
		}
	}
	// Never past a line: the rest may be meant for the command on it.
	n := len(k.buf)
	if i := slices.Index(k.buf, '\r'); i >= 0 {
		n = i + 1
	}
	n = copy(p, k.buf[:n])
	k.buf = k.buf[n:]
	return n, nil
}

func newEditor(s *shell) *editor {
	e := &editor{s: s, keys: &keys{}}
	e.state, _ = unix.IoctlGetTermios(0, unix.TCGETS)
	if e.state != nil {
		// Without job control nobody could wake what control-Z stops.
		quiet := *e.state
		quiet.Cc[unix.VSUSP] = 0
		unix.IoctlSetTermios(0, unix.TCSETSW, &quiet)
	}
	e.term = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{e.keys, os.Stderr}, "")
	e.term.AutoCompleteCallback = e.complete
	// Caught, not ignored, so that commands start with the default action.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT)
	go func() {
		for range signals {
		}
	}()
	return e
}

func (e *editor) restore() {
	if e.state != nil {
		unix.IoctlSetTermios(0, unix.TCSETSW, e.state)
	}
}

func (e *editor) line(more bool) (string, bool, error) {
	if w, h, err := term.GetSize(0); err == nil && w > 0 {
		e.term.SetSize(w, h)
	}
	prompt := "> "
	if !more {
		prompt = e.prompt()
	}
	old, err := term.MakeRaw(0)
	if err != nil {
		return "", false, err
	}
	defer term.Restore(0, old)
	e.term.SetPrompt(prompt)
	text, err := e.term.ReadLine()
	if e.keys.interrupted {
		e.keys.interrupted = false
		return "", true, nil
	}
	if errors.Is(err, term.ErrPasteIndicator) {
		err = nil
	}
	if errors.Is(err, io.EOF) {
		fmt.Fprint(os.Stderr, "\r\n")
	}
	return text, false, err
}

// prompt is PS1, of which \u \h \w \W and \$ are understood.
func (e *editor) prompt() string {
	dir := e.s.runner.Dir
	home := os.Getenv("HOME")
	if rest, ok := strings.CutPrefix(dir, home); ok && len(home) > 1 && (rest == "" || rest[0] == '/') {
		dir = "~" + rest
	}
	sign, user := "$", os.Getenv("USER")
	if os.Geteuid() == 0 {
		sign = "#"
		if user == "" {
			user = "root"
		}
	}
	ps1 := os.Getenv("PS1")
	if v, ok := e.s.runner.Vars["PS1"]; ok {
		ps1 = v.String()
	}
	if ps1 == "" {
		return dir + " " + sign + " "
	}
	host, _ := os.Hostname()
	return strings.NewReplacer(`\u`, user, `\h`, host, `\w`, dir, `\W`, filepath.Base(dir), `\$`, sign, `\n`, "\n").Replace(ps1)
}

// complete extends the word before the cursor as far as it is unambiguous.
func (e *editor) complete(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' {
		return "", 0, false
	}
	start := strings.LastIndexAny(line[:pos], " \t;|&<>()") + 1
	word := line[start:pos]
	var found []string
	if strings.TrimSpace(line[:start]) == "" && !strings.Contains(word, "/") {
		for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
			found = append(found, entries(dir, word, "")...)
		}
	} else {
		dir, base := filepath.Split(word)
		at := dir
		if !filepath.IsAbs(at) {
			at = filepath.Join(e.s.runner.Dir, at)
		}
		found = entries(at, base, dir)
	}
	if len(found) == 0 {
		return line, pos, true
	}
	slices.Sort(found)
	found = slices.Compact(found)
	common := found[0]
	for _, f := range found {
		for !strings.HasPrefix(f, common) {
			common = common[:len(common)-1]
		}
	}
	if len(found) == 1 && !strings.HasSuffix(common, "/") {
		common += " "
	}
	return line[:start] + common + line[pos:], start + len(common), true
}

// entries lists what in a folder begins with base.
func entries(dir, base, prefix string) []string {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, d := range list {
		if !strings.HasPrefix(d.Name(), base) || (base == "" && strings.HasPrefix(d.Name(), ".")) {
			continue
		}
		name := prefix + d.Name()
		if d.IsDir() {
			name += "/"
		}
		names = append(names, name)
	}
	return names
}
