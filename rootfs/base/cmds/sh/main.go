// Command sh is the shell of the base image: mvdan.cc/sh's interpreter with
// what a /bin/sh needs around it. That is the command line of POSIX sh, line
// editing, background jobs with real process IDs, kill, wait, signal traps,
// exec that replaces the process, umask and ulimit.
//
// What it does not do: job control (fg, bg, control-Z), background jobs
// of subshells that outlive the shell.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

func main() {
	os.Exit(run(os.Args))
}

// invocation is a parsed command line.
type invocation struct {
	command     string
	hasCommand  bool
	login       bool
	interactive bool
	options     []string // for set
	arg0        string
	file        string // script; empty: commands come from standard input
	params      []string
}

func parseArgs(args []string) (*invocation, error) {
	inv := &invocation{arg0: args[0], login: strings.HasPrefix(args[0], "-")}
	args = args[1:]
	fromStdin := false
options:
	for len(args) > 0 && len(args[0]) > 1 && (args[0][0] == '-' || args[0][0] == '+') {
		arg := args[0]
		args = args[1:]
		switch arg {
		case "--", "-":
			break options
		case "--login":
			inv.login = true
			continue
		}
		for _, c := range arg[1:] {
			switch c {
			case 'c':
				inv.hasCommand = true
			case 's':
				fromStdin = true
			case 'l':
				inv.login = true
			case 'i':
				inv.interactive = true
			case 'a', 'e', 'f', 'n', 'u', 'x':
				inv.options = append(inv.options, string(arg[0])+string(c))
			case 'm', 'b', 'h', 'v', 'C':
				// About job control or of little use in scripts: accepted, without effect.
			case 'o':
				if len(args) == 0 {
					return nil, errors.New("-o needs an argument")
				}
				inv.options = append(inv.options, string(arg[0])+"o", args[0])
				args = args[1:]
			default:
				return nil, fmt.Errorf("illegal option %c%c", arg[0], c)
			}
		}
	}
	if len(args) > 0 && args[0] == "-" {
		args = args[1:]
	}
	switch {
	case inv.hasCommand:
		if len(args) == 0 {
			return nil, errors.New("-c needs an argument")
		}
		inv.command, args = args[0], args[1:]
		if len(args) > 0 {
			inv.arg0, args = args[0], args[1:]
		}
	case len(args) > 0 && !fromStdin:
		inv.file, args = args[0], args[1:]
		inv.arg0 = inv.file
	}
	inv.params = args
	return inv, nil
}

// run is the whole program; its result is the exit status.
func run(args []string) int {
	inv, err := parseArgs(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "sh: %v\n", err)
		return 2
	}
	tty := !inv.hasCommand && inv.file == "" && term.IsTerminal(0) && term.IsTerminal(2)
	s, err := newShell(inv, tty || inv.interactive)
	if err != nil {
		fmt.Fprintf(os.Stderr, "sh: %v\n", err)
		return 2
	}
	if inv.login {
		s.source("/etc/profile")
		s.source(filepath.Join(os.Getenv("HOME"), ".profile"))
	}
	switch {
	case inv.hasCommand:
		return s.script(inv.command, inv.arg0, true)
	case inv.file != "":
		text, err := readScript(inv.file)
		if err != nil {
			fmt.Fprintf(os.Stderr, "sh: %v\n", err)
			if errors.Is(err, os.ErrNotExist) {
				return 127
			}
			return 126
		}
		return s.script(text, inv.arg0, false)
	case tty:
		return s.loop(newEditor(s))
	}
	return s.loop(byteLines{os.Stdin})
}

// readScript finds a script as POSIX wants: in the current folder, else on PATH.
func readScript(file string) (string, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) && !strings.Contains(file, "/") {
		for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
			if b, err := os.ReadFile(filepath.Join(dir, file)); err == nil {
				return string(b), nil
			}
		}
	}
	return string(b), err
}

// shell is one running shell with its interpreter.
type shell struct {
	runner      *interp.Runner
	interactive bool
	jobs        jobs
	traps       traps
	names       functions
}

func newShell(inv *invocation, interactive bool) (*shell, error) {
	s := &shell{interactive: interactive}
	s.jobs.init()
	s.traps.init()
	params := append(inv.options, "--")
	r, err := interp.New(
		interp.StdIO(os.Stdin, os.Stdout, os.Stderr),
		interp.Interactive(true), // a POSIX shell always expands aliases
		interp.Params(append(params, inv.params...)...),
		interp.CallHandler(s.call),
		interp.ExecHandlers(func(interp.ExecHandlerFunc) interp.ExecHandlerFunc { return s.exec }),
	)
	s.runner = r
	return s, err
}

// source runs a start-up file, if there is one.
func (s *shell) source(path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		return
	}
	f, err := s.parse(string(text), path)
	if err != nil {
		fmt.Fprintf(os.Stderr, "sh: %v\n", err)
		return
	}
	for _, st := range f.Stmts {
		s.runStmt(st)
	}
}

func (s *shell) parse(text, name string) (*syntax.File, error) {
	return syntax.NewParser().Parse(strings.NewReader(text), name)
}

// script runs a whole text. tail says that nothing follows it in this process.
func (s *shell) script(text, name string, tail bool) int {
	f, err := s.parse(text, name)
	if err != nil {
		fmt.Fprintf(os.Stderr, "sh: %v\n", err)
		return 2
	}
	s.rewrite(f, name)
	if tail {
		rewriteTail(f)
	}
	status := s.status(s.runner.Run(context.Background(), f))
	if text := s.traps.take(); text != "" {
		status = s.runTraps(text, status)
	}
	return status
}

// runStmt runs one statement of a text that is read bit by bit.
func (s *shell) runStmt(st *syntax.Stmt) (status int, exited bool) {
	err := s.runner.Run(context.Background(), st)
	return s.status(err), s.runner.Exited()
}

// runTraps runs the commands of signals that arrived after the last command.
func (s *shell) runTraps(text string, status int) int {
	f, err := s.parse(text, "trap")
	if err != nil {
		fmt.Fprintf(os.Stderr, "sh: trap: %v\n", err)
		return status
	}
	for _, st := range f.Stmts {
		if got, exited := s.runStmt(st); exited {
			return got
		}
	}
	return status
}

// status turns an error of the interpreter into an exit status.
func (s *shell) status(err error) int {
	if err == nil {
		return 0
	}
	var code interp.ExitStatus
	if errors.As(err, &code) {
		return int(code)
	}
	fmt.Fprintf(os.Stderr, "sh: %v\n", err)
	return 1
}
