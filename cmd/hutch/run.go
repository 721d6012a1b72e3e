package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hutchvm/hutch/sandbox"
)

const imageHelp = `IMAGE is a reference such as debian:12, or a path, which begins with "/", "./" or "../": an OCI layout or an archive
of images, a directory that is a root file system, or a disk image (.raw, .img, .qcow2, .vmdk). Without IMAGE it is
the base image that is part of hutch.`

func newRun() *cobra.Command {
	var f sandboxFlags
	var cf commandFlags
	var name string
	c := &cobra.Command{
		Use:   "run [flags] [IMAGE] [-- COMMAND [ARG...]]",
		Short: "Boot a sandbox, run a command in it, and remove it",
		Long: "Run boots a sandbox of IMAGE, runs COMMAND in it with hutch's standard streams, and removes the sandbox.\n" + imageHelp + "\n\n" +
			"What follows \"--\" is the command. As with Docker it takes the place of the image's CMD, and the image's\n" +
			"ENTRYPOINT, if it has one, goes before it; --entrypoint \"\" leaves that out. Without a command it is the image's\n" +
			"own, or a shell. The exit code is the command's, or 125 when hutch itself failed, 126 when the command is not\n" +
			"executable, 127 when it was not found, 128+N when signal N ended it.",
		Example:           "  hutch run -- uname -a\n  hutch run -t debian:12\n  hutch run ./rootfs -m 1G -e NAME=you -- sh -c 'echo $NAME'",
		ValidArgsFunction: completeImages(&f.home),
		RunE: func(c *cobra.Command, args []string) error {
			image, command, err := imageAndCommand(c, args)
			if err != nil {
				return err
			}
			opts, err := f.options(c, image)
			if err != nil {
				return err
			}
			if name == "" {
				name = randomName()
			}
			opts = append(opts, sandbox.WithEphemeral())
			return inForeground(c, f.quiet, func(ctx context.Context) *sandbox.PullSession {
				return sandbox.CreateWithProgress(ctx, name, opts...)
			}, func(ctx context.Context, sb *sandbox.Sandbox, signals <-chan os.Signal) error {
				tellPorts(c, f.quiet, sb)
				return cf.measured(ctx, sb, sb.DefaultCommand(command...), signals, c.ErrOrStderr())
			})
		},
	}
	c.Flags().StringVarP(&name, "name", "n", "", "name of the sandbox (default: a random one)")
	f.add(c)
	cf.add(c)
	return c
}

// inForeground brings a sandbox up, does something with it and closes it.
func inForeground(c *cobra.Command, quiet bool, begin func(context.Context) *sandbox.PullSession, do func(context.Context, *sandbox.Sandbox, <-chan os.Signal) error) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	sb, err := bringUp(c.Context(), c.ErrOrStderr(), quiet, signals, begin)
	if err != nil {
		return err
	}
	err = do(c.Context(), sb, signals)
	if closed := sb.Close(); err == nil {
		err = closed
	}
	return err
}

// tellPorts says which ports lead into the sandbox.
func tellPorts(c *cobra.Command, quiet bool, sb *sandbox.Sandbox) {
	if quiet {
		return
	}
	for _, b := range sb.Ports() {
		fmt.Fprintln(c.ErrOrStderr(), "hutch: published", b)
	}
}

// imageAndCommand tells the image, before "--", from the command after it.
func imageAndCommand(c *cobra.Command, args []string) (image string, command []string, err error) {
	before, command := splitAtDash(c, args)
	if len(before) > 1 {
		return "", nil, fmt.Errorf("%s: more than an image: put \"--\" before the command\nSee '%s --help'", strings.Join(before, " "), c.CommandPath())
	}
	if len(before) == 1 {
		image = before[0]
	}
	return image, command, nil
}

// splitAtDash separates what is before "--" from what is after it.
func splitAtDash(c *cobra.Command, args []string) (before, after []string) {
	if n := c.ArgsLenAtDash(); n >= 0 {
		return args[:n], args[n:]
	}
	return args, nil
}
