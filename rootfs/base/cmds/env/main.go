// Command env prints the environment, or runs a command in a changed one.
//
//	env [-i] [-0] [-u name]... [name=value]... [command [argument]...]
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

func main() {
	args, end := os.Args[1:], "\n"
options:
	for len(args) > 0 {
		switch arg := args[0]; {
		case arg == "-i" || arg == "-" || arg == "--ignore-environment":
			os.Clearenv()
		case arg == "-0" || arg == "--null":
			end = "\x00"
		case arg == "-u" && len(args) > 1:
			args = args[1:]
			os.Unsetenv(args[0])
		case arg == "-S" && len(args) > 1: // for first lines of scripts
			args = append([]string{""}, append(strings.Fields(args[1]), args[2:]...)...)
		case arg == "--":
			args = args[1:]
			break options
		case strings.HasPrefix(arg, "-"):
			fmt.Fprintln(os.Stderr, "usage: env [-i0] [-u name]... [name=value]... [command [argument]...]")
			os.Exit(125)
		default:
			break options
		}
		args = args[1:]
	}
	for len(args) > 0 && strings.Contains(args[0], "=") {
		name, value, _ := strings.Cut(args[0], "=")
		if err := os.Setenv(name, value); err != nil {
			fmt.Fprintf(os.Stderr, "env: %s: %v\n", args[0], err)
			os.Exit(125)
		}
		args = args[1:]
	}
	if len(args) == 0 {
		for _, kv := range os.Environ() {
			fmt.Print(kv, end)
		}
		return
	}
	path, err := exec.LookPath(args[0])
	if _, ok := os.LookupEnv("PATH"); !ok && err != nil && !strings.Contains(args[0], "/") {
		path, err = exec.LookPath("/bin/" + args[0]) // the default
	}
	if err == nil {
		err = syscall.Exec(path, args, os.Environ())
	}
	fmt.Fprintf(os.Stderr, "env: %s: %v\n", args[0], err)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		os.Exit(127)
	}
	os.Exit(126)
}
