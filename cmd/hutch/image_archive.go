package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hutchvm/hutch/sandbox"
)

func newLoad() *cobra.Command {
	var home, name string
	var quiet, asJSON bool
	c := &cobra.Command{
		Use:   "load [flags] PATH|-",
		Short: "Take images from an archive or an OCI layout",
		Long: "Load takes the images of an OCI layout, a directory or a tar, or of a tar that \"docker save\" wrote, compressed\n" +
			"or not; \"-\" is standard input. Names come from the archive. The digests are printed to standard output.",
		Example: "  docker save app | hutch load -\n  hutch load --name app:dev ./layout",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return interruptible(c.Context(), func(ctx context.Context) error {
				show := newPullDisplay(ctx, c.ErrOrStderr(), quiet)
				defer show.close()
				o := sandbox.LoadImageOptions{Ref: name, Progress: show.event}
				var imgs []*sandbox.Image
				var err error
				if args[0] == "-" {
					imgs, err = sandbox.LoadImagesFrom(ctx, c.InOrStdin(), o, sandbox.WithHome(home))
				} else {
					imgs, err = sandbox.LoadImages(ctx, args[0], o, sandbox.WithHome(home))
				}
				if err != nil {
					return err
				}
				return printPulled(c.OutOrStdout(), imgs, asJSON)
			})
		},
	}
	c.Flags().StringVar(&name, "name", "", "name for the image, if the archive holds just one")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "no progress")
	c.Flags().BoolVar(&asJSON, "json", false, "print the images as JSON")
	addHome(c, &home)
	return c
}

func newSave() *cobra.Command {
	var home, output string
	c := &cobra.Command{
		Use:               "save [flags] IMAGE",
		Short:             "Write an image to an archive",
		Long:              "Save writes an image as a tar of an OCI layout, which \"docker load\" understands as well, to standard output or a file.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeImages(&home),
		RunE: func(c *cobra.Command, args []string) error {
			return interruptible(c.Context(), func(ctx context.Context) error {
				if output != "" && output != "-" {
					return sandbox.SaveImage(ctx, args[0], output, sandbox.WithHome(home))
				}
				var w io.Writer = c.OutOrStdout()
				if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
					return errors.New("not writing an archive to a terminal: give --output FILE")
				}
				return sandbox.SaveImageTo(ctx, args[0], w, sandbox.WithHome(home))
			})
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "file to write, replaced when all went well (default: standard output)")
	addHome(c, &home)
	return c
}
