package sandbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/hutchvm/hutch/rootfs/volume"
)

// Volume is a named volume: a directory that outlives sandboxes and can be mounted
// into several of them, see [MountNamed]. Its methods may be called from any
// goroutine.
type Volume struct {
	info  volume.Info
	store *volume.Store
}

// VolumeOptions are what a new volume is given. The zero value works.
type VolumeOptions struct {
	Quota  uint64            // bytes that it may hold; 0 is no limit
	Labels map[string]string // for the user's own purposes
}

// VolumeUsage is what a volume holds.
type VolumeUsage struct {
	Bytes uint64 // on the host's disk
	Files uint64 // of any kind, directories included
}

// volumes is where the named volumes are.
func (c *config) volumes() *volume.Store { return volume.NewStore(filepath.Join(c.Home, "volumes")) }

// volumeErr puts this package's errors in the place of package volume's.
func volumeErr(err error) error {
	for theirs, ours := range map[error]error{
		volume.ErrNotFound: ErrVolumeNotFound, volume.ErrExists: ErrVolumeExists,
		volume.ErrInUse: ErrVolumeInUse, volume.ErrInvalid: ErrInvalidConfig,
	} {
		if errors.Is(err, theirs) {
			return fmt.Errorf("%w: %w", ours, err)
		}
	}
	return err
}

// volumeStore is the store that options name; only WithHome matters.
func volumeStore(ctx context.Context, opts []Option) (*volume.Store, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	c := &config{}
	for _, o := range opts {
		if o != nil {
			o(c)
		}
	}
	if err := c.checkPaths(); err != nil {
		return nil, err
	}
	return c.volumes(), nil
}

// CreateVolume makes a named volume. The name is 1 to 128 letters, digits, '.', '_'
// and '-', the first a letter or digit. The error is [ErrVolumeExists] if there
// is one of that name. Of the options only [WithHome] matters.
func CreateVolume(ctx context.Context, name string, o VolumeOptions, opts ...Option) (*Volume, error) {
	store, err := volumeStore(ctx, opts)
	if err != nil {
		return nil, err
	}
	if o.Quota > 1<<62 {
		return nil, invalid("VolumeOptions.Quota", "%d bytes", o.Quota)
	}
	info, err := store.Create(name, volume.Options{Quota: int64(o.Quota), Labels: o.Labels})
	if err != nil {
		return nil, volumeErr(err)
	}
	return &Volume{*info, store}, nil
}

// GetVolume returns a volume. The error is [ErrVolumeNotFound] if there is none of
// that name. Of the options only [WithHome] matters.
func GetVolume(ctx context.Context, name string, opts ...Option) (*Volume, error) {
	store, err := volumeStore(ctx, opts)
	if err != nil {
		return nil, err
	}
	info, err := store.Get(name)
	if err != nil {
		return nil, volumeErr(err)
	}
	return &Volume{*info, store}, nil
}

// ListVolumes returns all volumes by name. One that cannot be read is left out and
// told of in the error. Of the options only [WithHome] matters.
func ListVolumes(ctx context.Context, opts ...Option) ([]*Volume, error) {
	store, err := volumeStore(ctx, opts)
	if err != nil {
		return nil, err
	}
	infos, err := store.List()
	list := make([]*Volume, 0, len(infos))
	for _, info := range infos {
		list = append(list, &Volume{*info, store})
	}
	return list, err
}

// RemoveVolume deletes a volume with all its files. The error is [ErrVolumeInUse]
// while a sandbox has it mounted. Of the options only [WithHome] matters.
func RemoveVolume(ctx context.Context, name string, opts ...Option) error {
	store, err := volumeStore(ctx, opts)
	if err != nil {
		return err
	}
	return volumeErr(store.Remove(name))
}

// Name is the volume's name.
func (v *Volume) Name() string { return v.info.Name }

// Created is when it was made.
func (v *Volume) Created() time.Time { return v.info.Created }

// Quota is how many bytes it may hold; 0 is no limit.
func (v *Volume) Quota() uint64 { return uint64(v.info.Quota) }

// Labels are the volume's labels; the map is the caller's own.
func (v *Volume) Labels() map[string]string { return maps.Clone(v.info.Labels) }

// Path is the directory of its files on the host. Guests may have put symbolic
// links there: use [Volume.Open] to read what cannot be trusted.
func (v *Volume) Path() string { return v.info.Path }

// Usage walks the volume and adds up what it holds.
func (v *Volume) Usage(ctx context.Context) (VolumeUsage, error) {
	if ctx.Err() != nil {
		return VolumeUsage{}, context.Cause(ctx)
	}
	use, err := v.store.Use(v.info.Name)
	if err != nil {
		return VolumeUsage{}, volumeErr(err)
	}
	defer use.Close()
	u, err := use.Usage()
	return VolumeUsage{Bytes: uint64(u.Bytes), Files: uint64(u.Files)}, err
}

// Open gives the volume's files to the host, by names that cannot lead out of the
// volume, not through links of a guest either. The caller closes it. It does not
// keep the volume from being removed.
func (v *Volume) Open() (*os.Root, error) {
	use, err := v.store.Use(v.info.Name)
	if err != nil {
		return nil, volumeErr(err)
	}
	defer use.Close()
	return use.Root()
}
