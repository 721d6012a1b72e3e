package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hutchvm/hutch/sandbox"
)

func newVolume() *cobra.Command {
	var home string
	c := &cobra.Command{
		Use:   "volume",
		Short: "Make, list and remove named volumes",
		Long:  "A named volume is a directory that outlives sandboxes; mount it with \"hutch run -v NAME:PATH\".\nIts files are on the host, where \"hutch volume inspect\" says.",
	}
	c.PersistentFlags().StringVar(&home, "home", "", "directory for caches and records (default $HUTCH_HOME)")
	c.AddCommand(newVolumeCreate(&home), newVolumeList(&home), newVolumeInspect(&home), newVolumeRemove(&home))
	return c
}

func newVolumeCreate(home *string) *cobra.Command {
	var quota byteSize
	var labels []string
	var asJSON bool
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a volume",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			pairs, err := parsePairs("label", labels)
			if err != nil {
				return err
			}
			v, err := sandbox.CreateVolume(c.Context(), args[0], sandbox.VolumeOptions{Quota: uint64(quota), Labels: pairs}, sandbox.WithHome(*home))
			if err != nil {
				return err
			}
			if asJSON {
				return printVolumes(c.Context(), c.OutOrStdout(), false, v)
			}
			fmt.Fprintln(c.OutOrStdout(), v.Name())
			return nil
		},
	}
	c.Flags().Var(&quota, "quota", "how much the volume may hold, such as 512M (default: no limit)")
	c.Flags().StringArrayVarP(&labels, "label", "l", nil, "label KEY=VALUE")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newVolumeList(home *string) *cobra.Command {
	var asJSON, quiet bool
	c := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List volumes",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, broken := sandbox.ListVolumes(c.Context(), sandbox.WithHome(*home))
			w := c.OutOrStdout()
			switch {
			case asJSON:
				if err := printVolumes(c.Context(), w, false, list...); err != nil {
					return err
				}
			case quiet:
				for _, v := range list {
					fmt.Fprintln(w, v.Name())
				}
			default:
				t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				fmt.Fprintln(t, "NAME\tQUOTA\tCREATED")
				for _, v := range list {
					quota := "none"
					if v.Quota() > 0 {
						q := byteSize(v.Quota())
						quota = q.String()
					}
					fmt.Fprintf(t, "%s\t%s\t%s\n", v.Name(), quota, v.Created().Local().Format(time.DateTime))
				}
				t.Flush()
			}
			return broken
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names only")
	return c
}

func newVolumeInspect(home *string) *cobra.Command {
	return &cobra.Command{
		Use:               "inspect NAME...",
		Short:             "Print all that is known of volumes, and what they hold, as JSON",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeVolumes(home),
		RunE: func(c *cobra.Command, args []string) error {
			var list []*sandbox.Volume
			for _, name := range args {
				v, err := sandbox.GetVolume(c.Context(), name, sandbox.WithHome(*home))
				if err != nil {
					return err
				}
				list = append(list, v)
			}
			return printVolumes(c.Context(), c.OutOrStdout(), true, list...)
		},
	}
}

func newVolumeRemove(home *string) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:               "rm NAME...",
		Aliases:           []string{"remove"},
		Short:             "Remove volumes with all their files",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeVolumes(home),
		RunE: func(c *cobra.Command, args []string) error {
			var errs []error
			for _, name := range args {
				err := sandbox.RemoveVolume(c.Context(), name, sandbox.WithHome(*home))
				switch {
				case err == nil:
					fmt.Fprintln(c.OutOrStdout(), name)
				case !force || !errors.Is(err, sandbox.ErrVolumeNotFound):
					errs = append(errs, err)
				}
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "do not complain of volumes that are not there")
	return c
}

// completeVolumes completes names of volumes in a shell.
func completeVolumes(home *string) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		list, _ := sandbox.ListVolumes(c.Context(), sandbox.WithHome(*home))
		var names []cobra.Completion
		for _, v := range list {
			names = append(names, v.Name())
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// volumeJSON is a volume as JSON; sizes are in bytes.
type volumeJSON struct {
	Name    string            `json:"name"`
	Path    string            `json:"path"`
	Created time.Time         `json:"created"`
	Quota   uint64            `json:"quota_bytes,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Bytes   *uint64           `json:"used_bytes,omitempty"`
	Files   *uint64           `json:"files,omitempty"`
}

// printVolumes prints volumes as JSON, with what they hold if usage is set.
func printVolumes(ctx context.Context, w io.Writer, usage bool, list ...*sandbox.Volume) error {
	out := make([]volumeJSON, 0, len(list))
	for _, v := range list {
		j := volumeJSON{Name: v.Name(), Path: v.Path(), Created: v.Created(), Quota: v.Quota(), Labels: v.Labels()}
		if usage {
			u, err := v.Usage(ctx)
			if err != nil {
				return err
			}
			j.Bytes, j.Files = &u.Bytes, &u.Files
		}
		out = append(out, j)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(out)
}
