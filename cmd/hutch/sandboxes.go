package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hutchvm/hutch/sandbox"
)

func newCreate() *cobra.Command {
	var f sandboxFlags
	var replace bool
	c := &cobra.Command{
		Use:   "create [flags] NAME [IMAGE]",
		Short: "Make a sandbox that is kept, to be started later",
		Long: "Create makes a sandbox of IMAGE with a writable disk of its own. It boots once, to see that all is well, and is\n" +
			"stopped. \"hutch start\" runs commands in it; what they write stays until \"hutch rm\".\n" + imageHelp + "\n\n" +
			"All flags are saved with it in a file that only you can read, the environment included.",
		Example:           "  hutch create build debian:12 -m 2G\n  hutch start build -- apt-get update",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeImages(&f.home),
		RunE: func(c *cobra.Command, args []string) error {
			image := ""
			if len(args) > 1 {
				image = args[1]
			}
			opts, err := f.options(c, image)
			if err != nil {
				return err
			}
			if replace {
				opts = append(opts, sandbox.WithReplace())
			}
			err = inForeground(c, f.quiet, func(ctx context.Context) *sandbox.PullSession {
				return sandbox.CreateWithProgress(ctx, args[0], opts...)
			}, func(ctx context.Context, sb *sandbox.Sandbox, _ <-chan os.Signal) error { return sb.Stop(ctx) })
			if err == nil {
				_, err = fmt.Fprintln(c.OutOrStdout(), args[0])
			}
			return err
		},
	}
	f.add(c)
	c.Flags().BoolVar(&replace, "replace", false, "stop and remove a sandbox of that name first")
	return c
}

func newStart() *cobra.Command {
	var cf commandFlags
	var home string
	var quiet bool
	var cpus int
	var memory, upper byteSize
	var env []string
	c := &cobra.Command{
		Use:   "start [flags] NAME [-- COMMAND [ARG...]]",
		Short: "Start a sandbox, run a command in it, and stop it",
		Long: "Start boots a sandbox that \"hutch create\" made, runs COMMAND in it with hutch's standard streams, or the default\n" +
			"command if there is none (see \"hutch run\"), and stops it. What was written to its disk stays. It lives as long\n" +
			"as this command; \"hutch stop\" ends it from elsewhere. Flags that say what the sandbox is are saved.",
		Args: func(c *cobra.Command, args []string) error {
			if before, _ := splitAtDash(c, args); len(before) != 1 {
				return fmt.Errorf("want one NAME, and \"--\" before the command\nSee '%s --help'", c.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: completeSandboxes(&home, sandbox.StatusStopped, sandbox.StatusCrashed),
		RunE: func(c *cobra.Command, args []string) error {
			opts := []sandbox.Option{sandbox.WithHome(home)}
			vars, err := parseEnv(env, nil)
			if err != nil {
				return err
			}
			opts = append(opts, sandbox.WithEnv(vars))
			for name, o := range map[string]sandbox.Option{
				"cpus": sandbox.WithCPUs(cpus), "memory": sandbox.WithMemory(uint64(memory)), "upper-size": sandbox.WithOCIUpperSize(uint64(upper)),
			} {
				if c.Flags().Changed(name) {
					opts = append(opts, o)
				}
			}
			_, command := splitAtDash(c, args)
			return inForeground(c, quiet, func(ctx context.Context) *sandbox.PullSession {
				return sandbox.StartWithProgress(ctx, args[0], opts...)
			}, func(ctx context.Context, sb *sandbox.Sandbox, signals <-chan os.Signal) error {
				tellPorts(c, quiet, sb)
				return cf.measured(ctx, sb, sb.DefaultCommand(command...), signals, c.ErrOrStderr())
			})
		},
	}
	cf.add(c)
	fl := c.Flags()
	fl.IntVarP(&cpus, "cpus", "c", 1, "virtual CPUs (default: as before)")
	fl.VarP(&memory, "memory", "m", "memory (default: as before)")
	fl.Var(&upper, "upper-size", "let the writable disk grow to this size")
	fl.StringArrayVarP(&env, "env", "e", nil, "further environment variable KEY=VALUE, or KEY to pass on hutch's own")
	fl.BoolVarP(&quiet, "quiet", "q", false, "do not show how the pull of an image goes")
	addHome(c, &home)
	return c
}

func newStop() *cobra.Command {
	var home string
	var kill bool
	c := &cobra.Command{
		Use:   "stop [flags] NAME...",
		Short: "Stop sandboxes, whichever process they run in",
		Long: "Stop has the processes of sandboxes end, their data written and their machines turned off; a guest that does not\n" +
			"do so within 10 seconds is killed. The process that a sandbox runs in is asked to do it.",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeSandboxes(&home, sandbox.StatusRunning, sandbox.StatusPaused, sandbox.StatusDraining),
		RunE: func(c *cobra.Command, args []string) error {
			return eachSandbox(c, args, home, func(ctx context.Context, h *sandbox.Handle) error {
				if kill {
					return h.Kill(ctx)
				}
				return h.Stop(ctx)
			})
		},
	}
	c.Flags().BoolVar(&kill, "kill", false, "at once, as pulling the plug would")
	addHome(c, &home)
	return c
}

func newRemove() *cobra.Command {
	var home string
	var force bool
	c := &cobra.Command{
		Use:               "rm [flags] NAME...",
		Aliases:           []string{"remove"},
		Short:             "Delete sandboxes that do not run, with what they have written",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeSandboxes(&home),
		RunE: func(c *cobra.Command, args []string) error {
			return interruptible(c.Context(), func(ctx context.Context) error {
				var errs []error
				for _, name := range args {
					if h, err := sandbox.Get(ctx, name, sandbox.WithHome(home)); err == nil && force {
						if err := h.Kill(ctx); err != nil {
							errs = append(errs, err)
							continue
						}
					}
					// Also one whose record cannot be read.
					if err := sandbox.Remove(ctx, name, sandbox.WithHome(home)); err != nil && !(force && errors.Is(err, sandbox.ErrNotFound)) {
						errs = append(errs, err)
					}
				}
				return errors.Join(errs...)
			})
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "kill those that run first; one that is not there is no error")
	addHome(c, &home)
	return c
}

// eachSandbox does something to several sandboxes, and goes on after an error.
func eachSandbox(c *cobra.Command, names []string, home string, do func(context.Context, *sandbox.Handle) error) error {
	return interruptible(c.Context(), func(ctx context.Context) error {
		var errs []error
		for _, name := range names {
			h, err := sandbox.Get(ctx, name, sandbox.WithHome(home))
			if err == nil {
				err = do(ctx, h)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// described is a sandbox as JSON.
type described struct {
	Name        string                `json:"name"`
	Status      sandbox.Status        `json:"status"`
	Reason      string                `json:"reason,omitempty"`
	PID         int                   `json:"pid,omitempty"`
	Ports       []sandbox.PortBinding `json:"ports,omitempty"`
	ImageDigest string                `json:"image_digest,omitempty"`
	Labels      map[string]string     `json:"labels,omitempty"`
	Created     time.Time             `json:"created"`
	Started     time.Time             `json:"started,omitzero"`
	Ended       time.Time             `json:"ended,omitzero"`
	Config      sandbox.Config        `json:"config"`
}

func describe(h *sandbox.Handle) described {
	return described{
		Name: h.Name(), Status: h.Status(), Reason: h.Reason(), PID: h.PID(), Ports: h.Ports(), ImageDigest: h.ImageDigest(), Labels: h.Labels(),
		Created: h.CreatedAt(), Started: h.StartedAt(), Ended: h.EndedAt(), Config: h.Config(),
	}
}

func newList() *cobra.Command {
	var home string
	var quiet, asJSON bool
	var labels []string
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list", "ps"},
		Short:   "List sandboxes, running or not",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			want, err := parsePairs("label", labels)
			if err != nil {
				return err
			}
			// Those that can be read are printed in any case.
			all, bad := sandbox.ListWith(c.Context(), want, sandbox.WithHome(home))
			w := c.OutOrStdout()
			switch {
			case asJSON:
				list := make([]described, 0, len(all))
				for _, h := range all {
					list = append(list, describe(h))
				}
				err = printJSON(w, list)
			case quiet:
				for _, h := range all {
					fmt.Fprintln(w, h.Name())
				}
			default:
				err = printSandboxes(w, all)
			}
			return errors.Join(err, bad)
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names only")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, with environments")
	c.Flags().StringArrayVarP(&labels, "label", "l", nil, "only those with label KEY=VALUE; several must all be there")
	addHome(c, &home)
	return c
}

func printSandboxes(w io.Writer, all []*sandbox.Handle) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	fmt.Fprintln(t, "NAME\tSTATUS\tIMAGE\tCPUS\tMEMORY\tCREATED")
	for _, h := range all {
		c := h.Config()
		image := c.Image
		if image == "" {
			image = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\n", h.Name(), h.Status(), image, c.CPUs, humanSize(int64(c.Memory)), h.CreatedAt().Local().Format(time.DateTime))
	}
	return t.Flush()
}

func newInspect() *cobra.Command {
	var home string
	c := &cobra.Command{
		Use:               "inspect NAME...",
		Short:             "Print all that is known of sandboxes, as JSON",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeSandboxes(&home),
		RunE: func(c *cobra.Command, args []string) error {
			var all []described
			err := eachSandbox(c, args, home, func(_ context.Context, h *sandbox.Handle) error {
				all = append(all, describe(h))
				return nil
			})
			if len(all) > 0 {
				err = errors.Join(printJSON(c.OutOrStdout(), all), err)
			}
			return err
		},
	}
	c.Flags().Bool("json", true, "print JSON, which is the only format")
	addHome(c, &home)
	return c
}

// completeSandboxes offers the names of sandboxes with one of the statuses, or
// of all.
func completeSandboxes(home *string, statuses ...sandbox.Status) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		all, _ := sandbox.List(c.Context(), sandbox.WithHome(*home)) // what cannot be read cannot be offered
		var names []cobra.Completion
		for _, h := range all {
			fits := len(statuses) == 0
			for _, s := range statuses {
				fits = fits || h.Status() == s
			}
			if fits {
				names = append(names, h.Name())
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
