package sandbox

import (
	"context"
	"fmt"
	"io"

	"github.com/hutchvm/hutch/rootfs/oci"
)

// Images are kept below the home directory, converted and ready to be the root
// of any number of sandboxes; [WithImage] pulls and loads them by itself. The
// functions of this file are for those who want to look after them. Of the
// options that they take only [WithHome] counts, and for PullImage also
// [WithPullPolicy], [WithRegistryAuth], [WithRegistryInsecure] and
// [WithRegistryCACerts].

// Image is an image that is here. Its fields are not to be changed.
type Image = oci.Image

// ImageLayer is one layer of an Image.
type ImageLayer = oci.Layer

// ImageConfig says how an Image is to be run.
type ImageConfig = oci.Config

// RemovedImages tells what RemoveImage and PruneImages did.
type RemovedImages = oci.Removed

// ErrImageInUse means that an image cannot be removed because a sandbox, running
// or stopped, is made of it.
var ErrImageInUse = oci.ErrInUse

// ErrInvalidReference means that a name is no image reference, such as
// "debian:12" or "registry.example.com/team/app@sha256:…".
var ErrInvalidReference = oci.ErrInvalidReference

// imageStore opens the images of the home directory that opts say.
func imageStore(ctx context.Context, opts []Option) (*oci.Store, *config, error) {
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	c := &config{}
	for _, o := range opts {
		if o != nil {
			o(c)
		}
	}
	for _, check := range []func() error{c.checkPaths, c.checkImage} {
		if err := check(); err != nil {
			return nil, nil, err
		}
	}
	s, err := oci.Open(c.Home)
	return s, c, err
}

// PullImage makes sure that the image is here, as WithPullPolicy says, and
// returns it. The reference may have a tag or a digest. progress, if not nil,
// is called with each event from one goroutine at a time, and must not take long.
//
// The error matches ErrInvalidReference, ErrImageNotFound or ErrImagePull, and
// says what to do about it where something can be done.
func PullImage(ctx context.Context, ref string, progress func(PullEvent), opts ...Option) (*Image, error) {
	s, c, err := imageStore(ctx, opts)
	if err != nil {
		return nil, err
	}
	return s.Pull(ctx, ref, c.pullOptions(progress))
}

// Images lists the images that are here: one for each reference, and one for
// each image that has none. They are sorted by reference.
func Images(ctx context.Context, opts ...Option) ([]*Image, error) {
	s, _, err := imageStore(ctx, opts)
	if err != nil {
		return nil, err
	}
	return s.List()
}

// InspectImage finds an image by its reference, its digest, or the first 12 or more
// digits of its digest. It does not look into registries; the error is
// ErrImageNotFound when the image is not here.
func InspectImage(ctx context.Context, ref string, opts ...Option) (*Image, error) {
	s, _, err := imageStore(ctx, opts)
	if err != nil {
		return nil, err
	}
	return s.Get(ref)
}

// RemoveImage removes a reference, and with the last one of an image the image
// itself. The error is ErrImageInUse when a sandbox is made of it; force removes
// it all the same, and with all references. Running sandboxes go on; a stopped
// one pulls its image again when it is started.
func RemoveImage(ctx context.Context, ref string, force bool, opts ...Option) (RemovedImages, error) {
	s, c, err := imageStore(ctx, opts)
	if err != nil {
		return RemovedImages{}, err
	}
	return s.Remove(ref, oci.RemoveOptions{Force: force, InUse: imagesInUse(ctx, c.Home)})
}

// PruneImages removes the images that have no reference any more, or with all
// those that no sandbox is made of, and whatever interrupted pulls left. It
// waits for pulls that are going on.
func PruneImages(ctx context.Context, all bool, opts ...Option) (RemovedImages, error) {
	s, c, err := imageStore(ctx, opts)
	if err != nil {
		return RemovedImages{}, err
	}
	return s.Prune(ctx, oci.PruneOptions{All: all, InUse: imagesInUse(ctx, c.Home)})
}

// imagesInUse looks up which sandbox is made of an image. Records that cannot
// be read do not count: such a sandbox cannot be started either.
func imagesInUse(ctx context.Context, home string) func(digest string) string {
	all, _ := List(ctx, WithHome(home))
	users := map[string]string{}
	for _, h := range all {
		if d := h.info.Root.Image; d != "" {
			users[d] = fmt.Sprintf("sandbox %s (%s)", h.Name(), h.Status())
		}
	}
	return func(digest string) string { return users[digest] }
}

// LoadImageOptions are the options of LoadImages.
type LoadImageOptions struct {
	// Ref names the image, whatever the archive says. The archive must then
	// hold exactly one.
	Ref string
	// Progress is as in PullImage.
	Progress func(PullEvent)
}

// LoadImages takes the images of an archive: an OCI layout, as a directory or a tar, or
// a tar of "docker save", compressed or not.
func LoadImages(ctx context.Context, path string, o LoadImageOptions, opts ...Option) ([]*Image, error) {
	s, _, err := imageStore(ctx, opts)
	if err != nil {
		return nil, err
	}
	return s.Load(ctx, path, oci.LoadOptions(o))
}

// LoadImagesFrom is LoadImages of a tar that r delivers.
func LoadImagesFrom(ctx context.Context, r io.Reader, o LoadImageOptions, opts ...Option) ([]*Image, error) {
	s, _, err := imageStore(ctx, opts)
	if err != nil {
		return nil, err
	}
	return s.LoadFrom(ctx, r, oci.LoadOptions(o))
}

// SaveImage writes an image to a file: a tar of an OCI layout, which "docker
// load" understands as well. The file is replaced when all went well.
func SaveImage(ctx context.Context, ref, path string, opts ...Option) error {
	s, _, err := imageStore(ctx, opts)
	if err != nil {
		return err
	}
	return s.Save(ctx, ref, path)
}

// SaveImageTo is SaveImage to a stream.
func SaveImageTo(ctx context.Context, ref string, w io.Writer, opts ...Option) error {
	s, _, err := imageStore(ctx, opts)
	if err != nil {
		return err
	}
	return s.SaveTo(ctx, ref, w)
}
