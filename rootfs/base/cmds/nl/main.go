// Command nl numbers lines; empty ones only with -ba.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	args, all := os.Args[1:], false
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		switch strings.Join(args[:min(2, len(args))], "") {
		case "-ba":
			args = args[1:]
			all = true
		default:
			if args[0] != "-ba" {
				fmt.Fprintln(os.Stderr, "usage: nl [-ba] [file...]")
				os.Exit(2)
			}
			all = true
		}
		args = args[1:]
	}
	if len(args) == 0 {
		args = []string{"-"}
	}
	out := bufio.NewWriter(os.Stdout)
	n, status := 0, 0
	for _, name := range args {
		f := os.Stdin
		if name != "-" {
			var err error
			if f, err = os.Open(name); err != nil {
				fmt.Fprintf(os.Stderr, "nl: %v\n", err)
				status = 1
				continue
			}
		}
		in := bufio.NewReader(f)
		for {
			line, err := in.ReadString('\n')
			if line != "" {
				text := strings.TrimSuffix(line, "\n")
				if all || text != "" {
					n++
					fmt.Fprintf(out, "%6d\t%s\n", n, text)
				} else {
					fmt.Fprintf(out, "%7s%s\n", "", text)
				}
			}
			if err != nil {
				if err != io.EOF {
					fmt.Fprintf(os.Stderr, "nl: %v\n", err)
					status = 1
				}
				break
			}
		}
		f.Close()
	}
	out.Flush()
	os.Exit(status)
}
