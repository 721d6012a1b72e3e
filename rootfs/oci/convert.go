package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hutchvm/hutch/rootfs/layer"
)

// converterVersion changes when the same layers give another root file system.
const converterVersion = 1

// convertRoot makes the root file system of the layers, or finds it. Only one
// conversion of a key goes on at a time in all processes; others wait for it.
// When it returns without an error every layer is verified.
func (s *Store) convertRoot(ctx context.Context, key string, layers []*stream) (_ root, err error) {
	path := s.rootPath(key)
	var size int64
	complete := func() bool {
		st, err := os.Stat(path)
		if err != nil || !sealed(key, st) {
			return false
		}
		size = st.Size()
		return true
	}
	f, done, err := lockPart(ctx, path, complete)
	if err != nil {
		return root{}, err
	}
	if done {
		// The root was made of these very contents; whether the blobs are
		// sound matters to those who save the image, and they look.
		return root{Key: key, Size: size}, nil
	}
	defer f.Close()
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if err := f.Truncate(0); err != nil {
		return root{}, err
	}
	if err := s.unpack(ctx, layers, f); err != nil {
		return root{}, err
	}
	return s.publish(f, path, key)
}

// publish gives a complete root its name.
func (s *Store) publish(f *os.File, path, key string) (root, error) {
	st, err := f.Stat()
	if err != nil {
		return root{}, err
	}
	if err := f.Chmod(0o444); err != nil {
		return root{}, err
	}
	// Nothing reads the whole file again before it is used, so it must be on
	// the disk before it has a name; the seal goes on after the last write.
	if err := os.Chtimes(f.Name(), time.Time{}, seal(key)); err != nil {
		return root{}, err
	}
	if err := f.Sync(); err != nil {
		return root{}, err
	}
	return root{Key: key, Size: st.Size()}, os.Rename(f.Name(), path)
}

// unpack converts the layers into f. Each is verified against its diffID there.
// The layers come uncompressed, because media types are not to be relied on.
func (s *Store) unpack(ctx context.Context, layers []*stream, f *os.File) error {
	in := make([]layer.Layer, len(layers))
	for i, l := range layers {
		in[i] = layer.Layer{Open: l.open, Compression: layer.None, Name: l.blob.desc.Digest.String(), DiffID: l.diffID}
	}
	_, err := s.convert(ctx, in, f, layer.Options{Scratch: s.path(rootsDir), Limits: layer.Limits{TotalBytes: MaxImage}})
	var le *layer.Error
	switch {
	case err == nil || ctx.Err() != nil || !errors.As(err, &le) || le.Layer < 0:
		return err
	case errors.Is(err, layer.ErrLimit):
		return fmt.Errorf("%w: %w", ErrLimit, err)
	case errors.Is(err, layer.ErrDigest):
		err = fmt.Errorf("%w: %w", ErrDigest, err)
	default:
		err = fmt.Errorf("%w: %w", ErrInvalidImage, err)
	}
	if le.Layer < len(layers) && layers[le.Layer].blob.resume {
		err = fmt.Errorf("%w: %w", errDamaged, err)
	}
	return err
}
