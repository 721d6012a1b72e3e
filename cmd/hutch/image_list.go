package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hutchvm/hutch/sandbox"
)

func newImages() *cobra.Command { return newImageList("images") }

func newImage() *cobra.Command {
	c := &cobra.Command{
		Use:   "image",
		Short: "List, inspect and remove images",
		Long:  "Images are what sandboxes are made of. They come here by \"hutch pull\", \"hutch load\", or by being used,\nand stay until they are removed.",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	ls := newImageList("ls")
	ls.Aliases = []string{"list"}
	c.AddCommand(ls, newImageInspect(), newImageRemove(), newImagePrune())
	return c
}

func newImageList(name string) *cobra.Command {
	var home string
	var quiet, asJSON, digests bool
	c := &cobra.Command{
		Use:   name,
		Short: "List the images that are here",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := sandbox.Images(c.Context(), sandbox.WithHome(home))
			if err != nil {
				return err
			}
			w := c.OutOrStdout()
			if asJSON {
				return printJSON(w, all)
			}
			if quiet {
				for _, i := range all {
					if _, err := fmt.Fprintln(w, i.Digest); err != nil {
						return err
					}
				}
				return nil
			}
			return printImages(w, all, digests)
		},
	}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "print digests only")
	c.Flags().BoolVar(&digests, "digests", false, "print whole digests")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	addHome(c, &home)
	return c
}

func printImages(w io.Writer, all []*sandbox.Image, digests bool) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	fmt.Fprintln(t, "IMAGE\tDIGEST\tCREATED\tLAYERS\tROOT")
	for _, i := range all {
		name, digest, created := i.Ref, shortDigest(i.Digest), "-"
		if name == "" {
			name = "-"
		}
		if digests {
			digest = i.Digest
		}
		if !i.Created.IsZero() {
			created = i.Created.Format(time.DateOnly)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", name, digest, created, humanSize(i.Size), humanSize(i.RootSize))
	}
	return t.Flush()
}

func newImageInspect() *cobra.Command {
	var home string
	c := &cobra.Command{
		Use:               "inspect IMAGE...",
		Short:             "Print all that is known of images, as JSON",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeImages(&home),
		RunE: func(c *cobra.Command, args []string) error {
			var all []*sandbox.Image
			for _, ref := range args {
				img, err := sandbox.InspectImage(c.Context(), ref, sandbox.WithHome(home))
				if err != nil {
					return err
				}
				all = append(all, img)
			}
			return printJSON(c.OutOrStdout(), all)
		},
	}
	c.Flags().Bool("json", true, "print JSON, which is the only format")
	addHome(c, &home)
	return c
}

func newImageRemove() *cobra.Command {
	var home string
	var force, asJSON bool
	c := &cobra.Command{
		Use:     "rm [flags] IMAGE...",
		Aliases: []string{"remove"},
		Short:   "Remove images",
		Long: "Rm removes a name, and with the last name of an image the image itself, unless a sandbox is made of it.\n" +
			"IMAGE can also be a digest or its first 12 or more digits.",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeImages(&home),
		RunE: func(c *cobra.Command, args []string) error {
			var all sandbox.RemovedImages
			for _, ref := range args {
				r, err := sandbox.RemoveImage(c.Context(), ref, force, sandbox.WithHome(home))
				all = sandbox.RemovedImages{Refs: append(all.Refs, r.Refs...), Images: append(all.Images, r.Images...), Bytes: all.Bytes + r.Bytes}
				if err != nil {
					return err
				}
			}
			return printRemoved(c.OutOrStdout(), all, asJSON)
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "also when a sandbox is made of it, and with all its names")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	addHome(c, &home)
	return c
}

func newImagePrune() *cobra.Command {
	var home string
	var all, asJSON bool
	c := &cobra.Command{
		Use:   "prune",
		Short: "Remove images without a name, and what interrupted pulls left",
		Long:  "Prune removes images that have lost their names and all files that belong to no image; with --all every\nimage that no sandbox is made of. It waits for pulls that are going on.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := sandbox.PruneImages(c.Context(), all, sandbox.WithHome(home))
			if err != nil {
				return err
			}
			return printRemoved(c.OutOrStdout(), r, asJSON)
		},
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "also images that have a name")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	addHome(c, &home)
	return c
}

func printRemoved(w io.Writer, r sandbox.RemovedImages, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
	}
	for _, ref := range r.Refs {
		fmt.Fprintln(w, "removed name", ref)
	}
	for _, d := range r.Images {
		fmt.Fprintln(w, "removed", d)
	}
	_, err := fmt.Fprintln(w, "freed", humanSize(r.Bytes))
	return err
}

// completeImages offers the names of the images that are here.
func completeImages(home *string) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		all, err := sandbox.Images(c.Context(), sandbox.WithHome(*home))
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []cobra.Completion
		for _, i := range all {
			if i.Ref != "" {
				names = append(names, i.Ref)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
