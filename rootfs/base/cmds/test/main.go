// Command test evaluates an expression. The shell has it built in; this is for
// others, such as find and xargs. Under the name [ it wants a closing bracket.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

func main() {
	// The start-up code has renamed [ already: the bracket tells.
	args := append([]string{"test"}, os.Args[1:]...)
	if n := len(args); n > 1 && args[n-1] == "]" {
		args[0] = "["
	}
	var quoted []string
	for _, a := range args {
		q, err := syntax.Quote(a, syntax.LangBash)
		if err != nil {
			fail(err)
		}
		quoted = append(quoted, q)
	}
	if args[0] == "[" {
		quoted[0] = "["
	}
	f, err := syntax.NewParser().Parse(strings.NewReader(strings.Join(quoted, " ")), "test")
	if err != nil {
		fail(err)
	}
	r, err := interp.New(interp.StdIO(os.Stdin, os.Stdout, os.Stderr))
	if err != nil {
		fail(err)
	}
	var code interp.ExitStatus
	switch err := r.Run(context.Background(), f); {
	case err == nil:
	case errors.As(err, &code):
		os.Exit(int(code))
	default:
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintf(os.Stderr, "test: %v\n", err)
	os.Exit(2)
}
