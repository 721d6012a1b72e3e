package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hutchvm/hutch/sandbox"
)

// registryFlags say how to get at a registry.
type registryFlags struct {
	policy        string
	username      string
	passwordStdin bool
	insecure      bool
	caCerts       []string
}

func (f *registryFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.policy, "policy", "always", "when to ask the registry: always, missing or never")
	fl.StringVarP(&f.username, "username", "u", "", "user name for the registry (default: Docker's configuration and credential helpers)")
	fl.BoolVar(&f.passwordStdin, "password-stdin", false, "read the password for --username from standard input")
	fl.BoolVar(&f.insecure, "insecure", false, "allow plain HTTP, and TLS whose certificate is not verified")
	fl.StringArrayVar(&f.caCerts, "ca-cert", nil, "file of certificates in PEM that are trusted for the registry as well")
	_ = c.RegisterFlagCompletionFunc("policy", cobra.FixedCompletions([]string{"always", "missing", "never"}, cobra.ShellCompDirectiveNoFileComp))
}

func (f *registryFlags) options(stdin io.Reader) ([]sandbox.Option, error) {
	policy, ok := map[string]sandbox.PullPolicy{
		"always": sandbox.PullAlways, "missing": sandbox.PullIfMissing, "never": sandbox.PullNever,
	}[f.policy]
	if !ok {
		return nil, fmt.Errorf("--policy %s: want always, missing or never", f.policy)
	}
	opts := []sandbox.Option{sandbox.WithPullPolicy(policy)}
	if (f.username != "") != f.passwordStdin {
		return nil, errors.New("--username and --password-stdin belong together")
	}
	if f.passwordStdin {
		password, err := bufio.NewReader(io.LimitReader(stdin, 64<<10)).ReadString('\n')
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("--password-stdin: %w", err)
		}
		opts = append(opts, sandbox.WithRegistryAuth(f.username, strings.TrimRight(password, "\r\n")))
	}
	if f.insecure {
		opts = append(opts, sandbox.WithRegistryInsecure())
	}
	for _, name := range f.caCerts {
		pem, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("--ca-cert: %w", err)
		}
		opts = append(opts, sandbox.WithRegistryCACerts(pem))
	}
	return opts, nil
}

func newPull() *cobra.Command {
	var f registryFlags
	var home string
	var quiet, asJSON bool
	c := &cobra.Command{
		Use:   "pull [flags] IMAGE...",
		Short: "Fetch images from a registry and make them ready",
		Long: "Pull fetches what is not here of each IMAGE and converts it into a root file system for sandboxes.\n" +
			"An interrupted pull goes on where it ended when it is repeated. The digest is printed to standard output,\n" +
			"progress to standard error.",
		Example: "  hutch pull debian:12\n  hutch pull --policy missing registry.example.com/team/app@sha256:…",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			opts, err := f.options(c.InOrStdin())
			if err != nil {
				return err
			}
			opts = append(opts, sandbox.WithHome(home))
			return interruptible(c.Context(), func(ctx context.Context) error {
				show := newPullDisplay(ctx, c.ErrOrStderr(), quiet)
				defer show.close()
				var all []*sandbox.Image
				for _, ref := range args {
					img, err := sandbox.PullImage(ctx, ref, show.event, opts...)
					if err != nil {
						return err
					}
					all = append(all, img)
				}
				return printPulled(c.OutOrStdout(), all, asJSON)
			})
		},
	}
	f.add(c)
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress")
	c.Flags().BoolVar(&asJSON, "json", false, "print the images as JSON")
	addHome(c, &home)
	return c
}

func printPulled(w io.Writer, imgs []*sandbox.Image, asJSON bool) error {
	if asJSON {
		return printJSON(w, imgs)
	}
	for _, img := range imgs {
		if _, err := fmt.Fprintln(w, img.Digest); err != nil {
			return err
		}
	}
	return nil
}

// interruptible runs f with a context that a signal ends. What f then returns
// does not matter: the exit code is the signal's.
func interruptible(ctx context.Context, f func(ctx context.Context) error) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	ctx, done := onSignal(ctx, signals)
	err := f(ctx)
	if s := done(); s != 0 {
		return exitCode(exitSignal + int(s))
	}
	return err
}

func addHome(c *cobra.Command, home *string) {
	c.Flags().StringVar(home, "home", "", "directory for caches and records (default $HUTCH_HOME)")
}
