package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hutchvm/hutch/sandbox"
)

func newExec() *cobra.Command {
	var f commandFlags
	var home, workdir, user string
	var env []string
	c := &cobra.Command{
		Use:   "exec [flags] NAME -- COMMAND [ARG...]",
		Short: "Run a command in a sandbox that runs in another process",
		Long: "Exec runs COMMAND, with hutch's standard streams, in a sandbox that a \"hutch run\" or \"hutch start\" elsewhere, or\n" +
			"another program, keeps running. The command ends with this process, or with the sandbox. An image's entrypoint\n" +
			"does not count. Exit codes are those of \"hutch run\".",
		Example: "  hutch run --name web ./site &\n  hutch exec -t web -- sh",
		Args: func(c *cobra.Command, args []string) error {
			if before, after := splitAtDash(c, args); len(before) != 1 || len(after) == 0 {
				return fmt.Errorf("want one NAME, and a command after \"--\"\nSee '%s --help'", c.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: completeSandboxes(&home, sandbox.StatusRunning),
		RunE: func(c *cobra.Command, args []string) error {
			vars, err := parseEnv(env, nil)
			if err != nil {
				return err
			}
			f.options = []sandbox.ExecOption{sandbox.WithExecCwd(workdir), sandbox.WithExecUser(user), sandbox.WithExecEnv(vars)}
			signals := make(chan os.Signal, 8)
			signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
			defer signal.Stop(signals)
			h, err := sandbox.Get(c.Context(), args[0], sandbox.WithHome(home))
			if err != nil {
				return err
			}
			sb, err := h.Connect(c.Context())
			if err != nil {
				return err
			}
			return errors.Join(f.command(c.Context(), sb, args[1:], signals), sb.Close())
		},
	}
	f.addExec(c)
	fl := c.Flags()
	fl.StringArrayVarP(&env, "env", "e", nil, "environment variable KEY=VALUE, or KEY to pass on hutch's own")
	fl.StringVarP(&workdir, "workdir", "w", "", "working directory (default: the sandbox's)")
	fl.StringVarP(&user, "user", "u", "", "user: name, uid, name:group or uid:gid (default: the sandbox's)")
	addHome(c, &home)
	return c
}
