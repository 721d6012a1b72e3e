package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hutchvm/hutch/agent/proto"
	"github.com/hutchvm/hutch/rootfs/base"
	"github.com/hutchvm/hutch/rootfs/diskimage"
	"github.com/hutchvm/hutch/rootfs/oci"
	"github.com/hutchvm/hutch/rootfs/patch"
	"github.com/hutchvm/hutch/rootfs/share"
	"github.com/hutchvm/hutch/virtio/blk"
	virtiofs "github.com/hutchvm/hutch/virtio/fs"
)

// rootKind is what a root file system is made of.
type rootKind int

const (
	rootBase    rootKind = iota // the embedded image
	rootImage                   // an OCI image of a registry
	rootArchive                 // an OCI image in a file or directory of the host
	rootDir                     // a directory of the host
	rootDisk                    // a disk image of the host
)

// isPath tells whether an image is named by a path rather than a reference.
func isPath(ref string) bool {
	return strings.HasPrefix(ref, "/") || ref == "." || ref == ".." || strings.HasPrefix(ref, "./") || strings.HasPrefix(ref, "../")
}

// rootKind looks what the image is; of a path that needs a look at the file.
func (c *config) rootKind() (rootKind, error) {
	switch {
	case c.Image == "":
		return rootBase, nil
	case !isPath(c.Image):
		return rootImage, nil
	}
	if _, err := diskimage.FormatOf(c.Image); err == nil {
		return rootDisk, nil // by its name: the content is the guest's
	}
	st, err := os.Stat(c.Image)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%w: WithImage: %w", ErrImageNotFound, err)
	}
	if err != nil {
		return 0, fmt.Errorf("%w: WithImage: %w", ErrInvalidConfig, err)
	}
	if st.Mode().IsRegular() {
		return rootArchive, nil
	}
	if !st.IsDir() {
		return 0, invalid("WithImage", "%s is neither a directory nor a file", c.Image)
	}
	if _, err := os.Stat(filepath.Join(c.Image, "oci-layout")); err == nil {
		return rootArchive, nil
	}
	return rootDir, nil
}

// root is what a sandbox's root file system is made of. It is opened once,
// before the devices, and closed after them.
type root struct {
	kind    rootKind
	pin     rootPin
	image   oci.Config // what the image says; empty for what is no image
	file    *os.File   // the EROFS image, if it is one
	share   *share.Server
	disk    *diskimage.Image
	patches *os.File // the layer above, if there is one
	closers []func() error
}

func (r *root) close() error {
	var errs []error
	for _, f := range slices.Backward(r.closers) {
		errs = append(errs, f())
	}
	r.closers = nil
	return errors.Join(errs...)
}

// openRoot gets what the root is made of: exactly what pin says, if it says
// something, and what c says otherwise. dir is the sandbox's record.
func openRoot(ctx context.Context, c *config, pin rootPin, dir string) (_ *root, err error) {
	r := &root{pin: pin}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.kind, err = c.rootKind(); err != nil {
		return nil, err
	}
	if err := c.fits(r.kind); err != nil {
		return nil, err
	}
	switch r.kind {
	case rootBase:
		err = r.openBase(c.cacheDir())
	case rootImage, rootArchive:
		err = r.openImage(ctx, c)
	case rootDir:
		err = r.openDir(c.Image)
	case rootDisk:
		err = r.openDisk(c.Image)
	}
	if err == nil {
		err = r.openPatches(ctx, c, dir)
	}
	if errors.Is(err, oci.ErrInvalidReference) || errors.Is(err, oci.ErrInvalidOptions) {
		err = fmt.Errorf("%w: WithImage: %w", ErrInvalidConfig, err)
	}
	return r, err
}

// fits tells whether the options make sense with such a root.
func (c *config) fits(kind rootKind) error {
	if kind == rootDisk {
		switch {
		case len(c.Patches) > 0:
			return invalid("WithPatches", "a disk image is written to itself, there is no layer for patches: make them in the guest")
		case c.UpperSize > 0:
			return invalid("WithOCIUpperSize", "a disk image is written to itself")
		}
	} else if c.FSType != "" {
		return invalid("WithFSType", "the root is no disk image")
	}
	return nil
}

func (r *root) openBase(cache string) error {
	open := func() (*base.Image, error) { return base.Open(cache) }
	if r.pin.Base != "" {
		open = func() (*base.Image, error) { return base.OpenDigest(cache, r.pin.Base, r.pin.BaseSize) }
	}
	img, err := open()
	if errors.Is(err, base.ErrMissing) {
		return fmt.Errorf("%w: %w", ErrImageNotFound, err)
	}
	if err != nil {
		return err
	}
	r.closers = append(r.closers, img.Close)
	r.file, r.pin.Base, r.pin.BaseSize = img.File, img.Digest, img.Size
	return nil
}

// openDir shares a directory, which the guest cannot change.
func (r *root) openDir(path string) error {
	s, err := share.New(share.Config{})
	if err != nil {
		return err
	}
	r.closers = append(r.closers, s.Close)
	if err := s.Add(rootExport, share.Options{Path: path, ReadOnly: true}); err != nil {
		return fmt.Errorf("%w: WithImage: %w", ErrInvalidConfig, err)
	}
	r.share = s
	return nil
}

// openDisk opens a disk image, which nobody else may use meanwhile.
func (r *root) openDisk(path string) error {
	format, err := diskimage.FormatOf(path)
	if err == nil {
		r.disk, err = diskimage.Open(path, format, diskimage.Options{})
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: WithImage: %w", ErrImageNotFound, err)
	case err != nil:
		return fmt.Errorf("%w: WithImage: %w", ErrInvalidConfig, err)
	}
	r.closers = append(r.closers, r.disk.Close)
	return nil
}

// openImage finds, loads or pulls an OCI image.
func (r *root) openImage(ctx context.Context, c *config) error {
	store, err := oci.Open(c.Home)
	if err != nil {
		return err
	}
	img, err := r.findImage(ctx, c, store)
	if err != nil {
		return err
	}
	lease, err := img.Acquire()
	if err != nil {
		return err
	}
	r.closers = append(r.closers, lease.Close)
	r.file, r.image, r.pin.Image = lease.File, img.Config, img.Digest
	return nil
}

func (r *root) findImage(ctx context.Context, c *config, store *oci.Store) (*oci.Image, error) {
	progress := c.Progress
	if progress == nil {
		progress = func(PullEvent) {}
	}
	if want := r.pin.Image; want != "" {
		// The very image that the sandbox was made of, whatever has happened to its name.
		img, err := store.Get(want)
		if err == nil || !errors.Is(err, oci.ErrImageNotFound) {
			return img, err
		}
		if r.kind == rootImage {
			return store.Pull(ctx, pinned(c.Image, want), c.pullOptions(progress))
		}
	}
	if r.kind == rootImage {
		return store.Pull(ctx, c.Image, c.pullOptions(progress))
	}
	images, err := store.Load(ctx, c.Image, oci.LoadOptions{Progress: progress})
	if err != nil {
		return nil, err
	}
	if r.pin.Image != "" {
		i := slices.IndexFunc(images, func(i *oci.Image) bool { return i.Digest == r.pin.Image })
		if i < 0 {
			return nil, fmt.Errorf("%w: %s, which the sandbox was made of, is not in %s any more", ErrImageNotFound, r.pin.Image, c.Image)
		}
		return images[i], nil
	}
	if len(images) != 1 {
		return nil, invalid("WithImage", "%s holds %d images; load it and name one of them", c.Image, len(images))
	}
	return images[0], nil
}

// pinned puts a digest in the place of a reference's tag or digest.
func pinned(ref, digest string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		ref = ref[:i]
	}
	if strings.HasPrefix(digest, ref+":") {
		return digest // it was a digest alone
	}
	return ref + "@" + digest
}

func (c *config) pullOptions(progress func(PullEvent)) oci.PullOptions {
	return oci.PullOptions{
		Policy: oci.PullPolicy(c.PullPolicy), Username: c.RegistryUser, Password: c.RegistryPassword,
		Insecure: c.RegistryInsecure, CACerts: c.RegistryCACerts, Progress: progress,
	}
}

const patchesName = "patches.erofs"

// openPatches opens the layer of the patches, which is made when the sandbox is.
func (r *root) openPatches(ctx context.Context, c *config, dir string) error {
	path := filepath.Join(dir, patchesName)
	if r.pin.Patched {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("layer of the patches: %w", err)
		}
		r.patches = f
		r.closers = append(r.closers, f.Close)
		return nil
	}
	if len(c.Patches) == 0 {
		return nil
	}
	lower, err := r.lower(c)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	r.closers = append(r.closers, f.Close)
	if err := patch.Build(ctx, lower, c.Patches, f); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w: WithPatches: %w", ErrInvalidConfig, err)
	}
	r.patches, r.pin.Patched = f, true
	return nil
}

// lower is the file system below the patches.
func (r *root) lower(c *config) (patch.Lower, error) {
	if r.kind == rootDir {
		dir, err := os.OpenRoot(c.Image)
		if err != nil {
			return nil, err
		}
		r.closers = append(r.closers, dir.Close)
		return patch.Directory(dir), nil
	}
	st, err := r.file.Stat()
	if err != nil {
		return nil, err
	}
	return patch.Image(r.file, st.Size())
}

const (
	// baseSerial and patchSerial are how the agent finds the read-only disks of the root.
	baseSerial  = "hutch-base"
	patchSerial = "hutch-patches"
	// rootTag is the same for a share, in which rootExport is the root.
	rootTag    = "hutch-root"
	rootExport = "root"
)

// addRoot adds the disks and shares of the root file system.
func (d *devices) addRoot(c *config) error {
	switch {
	case d.source.disk != nil:
		d.root = proto.Root{Base: proto.Disk{Serial: baseSerial, FSType: c.FSType}, Direct: true}
		return d.addDisk("root disk", blk.Config{Backend: d.source.disk, Serial: baseSerial, OnError: c.diskError("root disk")})
	case d.source.share != nil:
		dev, err := virtiofs.New(virtiofs.Config{Tag: rootTag, Handler: d.source.share})
		if err != nil {
			return err
		}
		d.root.Base = proto.Disk{Device: rootTag, FSType: "virtiofs", Dir: "/" + rootExport}
		d.add("root share", dev)
	default:
		d.root.Base = proto.Disk{Serial: baseSerial, FSType: "erofs"}
		if err := d.addImage("base disk", d.source.file, baseSerial); err != nil {
			return err
		}
	}
	if d.source.patches != nil {
		d.root.Layers = append(d.root.Layers, proto.Disk{Serial: patchSerial, FSType: "erofs"})
		return d.addImage("patches disk", d.source.patches, patchSerial)
	}
	return nil
}

// addImage adds a read-only disk.
func (d *devices) addImage(name string, f *os.File, serial string) error {
	disk, err := blk.NewFile(f)
	if err != nil {
		return err
	}
	return d.addDisk(name, blk.Config{Backend: disk, ReadOnly: true, Serial: serial})
}
