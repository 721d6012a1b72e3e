// Command printf formats text. The shell has it built in; this is for others.
package main

import (
	"fmt"
	"os"

	"mvdan.cc/sh/v3/expand"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: printf format [argument...]")
		os.Exit(2)
	}
	format, args := os.Args[1], os.Args[2:]
	for {
		text, used, err := expand.Format(nil, format, args)
		if err != nil {
			fmt.Fprintf(os.Stderr, "printf: %v\n", err)
			os.Exit(1)
		}
		fmt.Print(text)
		// As long as there are arguments and the format takes some, it is used again.
		if used <= 0 || used >= len(args) {
			return
		}
		args = args[used:]
	}
}
