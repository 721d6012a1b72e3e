// Command hutch runs commands in Linux microVMs.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "unknown"

// Exit codes of hutch itself, as of docker run; other codes are the command's.
const (
	exitFailure       = 125
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128 // plus the signal's number
)

// exitCode ends the program with a code and without a message.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func main() {
	root := newRoot()
	err := root.ExecuteContext(context.Background())
	var code exitCode
	switch {
	case err == nil:
	case errors.As(err, &code):
		os.Exit(int(code))
	default:
		fmt.Fprintln(os.Stderr, "hutch:", err)
		os.Exit(codeOf(err))
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "hutch",
		Short:         "Run commands in Linux microVMs",
		Long:          "Hutch runs commands in Linux microVMs: real virtual machines with a kernel of their own.\nIt needs Linux on x86-64 and a usable /dev/kvm; \"hutch doctor\" tells whether this machine has one.",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w\nSee '%s --help'", err, c.CommandPath())
	})
	root.AddCommand(newRun(), newCreate(), newStart(), newExec(), newStop(), newRemove(), newList(), newInspect(), newVolume(), newPull(), newImages(), newImage(), newLoad(), newSave(), newDoctor(), newVersion())
	return root
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(c *cobra.Command, _ []string) { fmt.Fprintln(c.OutOrStdout(), version) },
	}
}
