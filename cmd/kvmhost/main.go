// Command kvmhost runs one command on a machine with KVM: directly where this
// machine's KVM can run Linux guests, else inside an emulated machine that
// shows this machine's files. It suits go test -exec.
//
//	kvmhost [flags] -- command [arguments]
//	go test -exec 'kvmhost --' ./...
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/hutchvm/hutch/internal/kvmhost"
	"github.com/hutchvm/hutch/internal/kvmprobe"
)

func main() {
	kvmhost.Guest()
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	c := kvmhost.Config{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Log: prefixed{os.Stderr}, Signals: true}
	flags := flag.NewFlagSet("kvmhost", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "usage: kvmhost [flags] -- command [arguments]\n\n%s=%s or %s forces the choice.\n\n",
			kvmhost.EnvMode, kvmhost.Direct, kvmhost.Emulated)
		flags.PrintDefaults()
	}
	quiet := flags.Bool("q", false, "do not say which kind of host was chosen")
	verbose := flags.Bool("v", false, "show the emulated host's console and how long its stages took")
	noInput := flags.Bool("n", false, "give the command no input and leave this program's alone")
	flags.BoolVar(&c.TTY, "t", false, "give the command a terminal")
	flags.DurationVar(&c.Timeout, "timeout", kvmhost.DefaultTimeout, "time limit for an emulated host; -1s means none")
	flags.DurationVar(&c.HangAfter, "hang", kvmhost.DefaultHangAfter, "silence after which an emulated host counts as stopped")
	flags.IntVar(&c.Memory, "m", kvmhost.DefaultMemory, "memory of an emulated host in MiB")
	flags.IntVar(&c.CPUs, "smp", kvmhost.DefaultCPUs, "CPUs of an emulated host")
	flags.BoolVar(&c.Spread, "spread", false, "let the command use all CPUs of an emulated host, which is faster and less reliable")
	flags.BoolVar(&c.Boot, "boot", false, "boot the emulated host even if a saved state of a booted one could be used")
	flags.StringVar(&c.Cache, "cache", "", "directory for what is prepared once (default $"+kvmhost.EnvCache+" or hutch-kvmhost in the user's cache directory)")
	flags.Func("out", "keep the command's changes in this `directory`; may be repeated", func(s string) error {
		c.Share = append(c.Share, s)
		return nil
	})
	flags.Func("modules", "load these kernel modules first, `a,b,…`; most load by themselves", func(s string) error {
		c.Modules = append(c.Modules, strings.Split(s, ",")...)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return kvmhost.CodeHost
	}
	c.Args = flags.Args()
	if len(c.Args) == 0 {
		flags.Usage()
		return kvmhost.CodeHost
	}
	if *noInput {
		c.Stdin = nil
	}
	if *verbose {
		c.Console = os.Stderr
	}

	mode, why, err := kvmhost.Choose(os.Getenv(kvmhost.EnvMode), kvmprobe.Probe)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return kvmhost.CodeHost
	}
	if !*quiet {
		fmt.Fprintf(os.Stderr, "kvmhost: %s (%s)\n", mode, why)
	}
	var result kvmhost.Result
	if mode == kvmhost.Direct {
		err = kvmhost.Exec(c.Args)
	} else {
		result, err = kvmhost.Run(context.Background(), c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if *verbose && mode == kvmhost.Emulated {
		fmt.Fprintf(os.Stderr, "kvmhost: %+v\n", result.Phases)
	}
	return kvmhost.ExitCode(result, err)
}

// prefixed marks this program's own lines.
type prefixed struct{ io.Writer }

func (p prefixed) Write(text []byte) (int, error) {
	_, err := p.Writer.Write(append([]byte("kvmhost: "), text...))
	return len(text), err
}
