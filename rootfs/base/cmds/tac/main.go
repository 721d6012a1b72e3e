// Command tac prints the lines of files in reverse order.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	files, status := os.Args[1:], 0
	if len(files) == 0 {
		files = []string{"-"}
	}
	out := bufio.NewWriter(os.Stdout)
	for _, name := range files {
		f, err := os.Stdin, error(nil)
		if name != "-" {
			f, err = os.Open(name)
		}
		var b []byte
		if err == nil {
			b, err = io.ReadAll(f)
			f.Close()
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "tac: %v\n", err)
			status = 1
			continue
		}
		lines := strings.SplitAfter(string(b), "\n")
		for i := len(lines) - 1; i >= 0; i-- {
			out.WriteString(lines[i])
		}
	}
	out.Flush()
	os.Exit(status)
}
