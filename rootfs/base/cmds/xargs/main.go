// Command xargs builds command lines from its input and runs them.
//
//	xargs [-0] [-d byte] [-n count | -L lines | -I text] [-P jobs] [-a file] [-r] [-t] [command [argument...]]
//
// Its status is 123 when a command failed, 124 when one ended with 255, 125 when
// one was killed, 126 or 127 when it cannot be run or is not there.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/hutchvm/hutch/rootfs/base/cmds/internal/tool"
)

// maxBytes of a command line, well below what Linux allows (2 MiB by default,
// with the environment).
const maxBytes = 128 << 10

type builder struct {
	e                       *tool.Env
	command                 []string
	count, lines, bytes     int
	replace                 string
	jobs                    chan struct{} // a token for each that may run
	trace, noEmpty, stopped bool
	input                   io.Reader // of the commands

	mu     sync.Mutex
	status int
	active sync.WaitGroup
}

func main() { tool.Main("xargs", run) }

func run(e *tool.Env, args []string) {
	options, command, ok := e.Parse(&tool.Syntax{
		Letters: "0d:n:L:I:P:a:rts:xE:", Strict: true,
		Long:  "null=0 delimiter=d max-args=n max-lines=L replace=I max-procs=P arg-file=a no-run-if-empty=r verbose=t max-chars=s exit=x",
		Usage: "[-0] [-d byte] [-n count | -L lines | -I text] [-P jobs] [-r] [-t] [command [argument...]]",
	}, args)
	if !ok {
		e.Status = 1
		return
	}
	if len(command) == 0 {
		command = []string{"echo"}
	}
	x := &builder{e: e, command: command, bytes: maxBytes}
	r := &reader{delimiter: -1}
	jobs, file := 1, ""
	for _, o := range options {
		var err error
		switch o.Letter {
		case '0':
			r.delimiter = 0
		case 'd':
			var c string
			if c, err = strconv.Unquote(`"` + o.Value + `"`); err == nil && len(c) == 1 {
				r.delimiter = int(c[0])
			} else {
				err = fmt.Errorf("-d takes one byte, not %q", o.Value)
			}
		case 'n':
			x.count, err = positive(o)
		case 'L':
			x.lines, err = positive(o)
		case 's':
			x.bytes, err = positive(o)
			x.bytes = min(x.bytes, maxBytes)
		case 'I':
			x.replace = o.Value
		case 'P':
			if jobs, err = strconv.Atoi(o.Value); err == nil && jobs < 1 {
				jobs = 1 << 10 // as many as possible
			}
		case 'E':
			r.end = o.Value
		case 'a':
			file = o.Value
		case 'r':
			x.noEmpty = true
		case 't':
			x.trace = true
		}
		if err != nil {
			e.Fail(err)
			return
		}
	}
	in := e.In
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			e.Fail(err)
			return
		}
		defer f.Close()
		in, x.input = f, e.In
	}
	r.in = bufio.NewReader(in)
	r.whole = x.replace != "" && r.delimiter < 0
	x.jobs = make(chan struct{}, jobs)
	err := x.all(r)
	x.active.Wait()
	if err != nil {
		e.Fail(err)
	}
	e.Status = max(e.Status, x.status)
}

func positive(o tool.Option) (int, error) {
	n, err := strconv.Atoi(o.Value)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("-%c takes a positive number, not %q", o.Letter, o.Value)
	}
	return n, nil
}

// all reads the items and runs the commands.
func (x *builder) all(r *reader) error {
	base := 0
	for _, a := range x.command {
		base += len(a) + 1
	}
	var items []string
	size, lines, ran := base, 0, false
	flush := func() {
		x.start(append(append([]string{}, x.command...), items...))
		items, size, lines, ran = nil, base, 0, true
	}
	for !x.isStopped() {
		item, endOfLine, err := r.next()
		if err == io.EOF {
			if len(items) > 0 || !ran && !x.noEmpty && x.replace == "" {
				flush()
			}
			return nil
		}
		if err != nil {
			return err
		}
		if x.replace != "" {
			args := make([]string, len(x.command))
			for i, a := range x.command {
				args[i] = strings.ReplaceAll(a, x.replace, item)
			}
			x.start(args)
			continue
		}
		if size+len(item)+1 > x.bytes {
			if len(items) == 0 {
				return errors.New("argument too long")
			}
			flush()
		}
		items = append(items, item)
		size += len(item) + 1
		if endOfLine {
			lines++
		}
		if len(items) == x.count || x.lines > 0 && lines == x.lines {
			flush()
		}
	}
	return nil
}

func (x *builder) isStopped() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.stopped
}

// start runs a command as soon as there is a token for it. With one token it
// also waits for the end, so that a failure stops what follows.
func (x *builder) start(args []string) {
	if x.trace {
		fmt.Fprintln(x.e.Err, strings.Join(args, " "))
	}
	x.jobs <- struct{}{}
	one := func() {
		defer func() { <-x.jobs }()
		status, err := x.e.Run(args, x.input)
		x.mu.Lock()
		defer x.mu.Unlock()
		switch {
		case err != nil:
			x.stopped = true
			fmt.Fprintf(x.e.Err, "xargs: %v\n", err)
		case status == 255:
			x.stopped = true
			fmt.Fprintf(x.e.Err, "xargs: %s: exited with status 255; aborting\n", args[0])
			status = 124
		case status > 128:
			x.stopped = true
			fmt.Fprintf(x.e.Err, "xargs: %s: terminated by signal %d\n", args[0], status-128)
			status = 125
		case status != 0:
			status = 123
		}
		x.status = max(x.status, status)
	}
	if cap(x.jobs) == 1 {
		one()
		return
	}
	x.active.Go(one)
}
