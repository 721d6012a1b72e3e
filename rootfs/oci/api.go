package oci

import (
	"context"
	"time"
)

// Pull makes the image that ref stands for usable and returns it.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (*Image, error) {
	return nil, opError("pull", ref, ErrUnsupported)
}

// Load takes the images of an archive into the store.
func (s *Store) Load(ctx context.Context, path string, o LoadOptions) ([]*Image, error) {
	return nil, opError("load", path, ErrUnsupported)
}

// Save writes the image that ref stands for to path, as a tar of an OCI layout.
func (s *Store) Save(ctx context.Context, ref, path string) error {
	return opError("save", path, ErrUnsupported)
}

// Remove removes a reference, and the image when it was its last one.
func (s *Store) Remove(ref string, o RemoveOptions) (Removed, error) {
	return Removed{}, opError("remove", ref, ErrUnsupported)
}

// Prune removes what nobody needs.
func (s *Store) Prune(o PruneOptions) (Removed, error) {
	return Removed{}, opError("prune", "", ErrUnsupported)
}

func defaultBackoff(int) time.Duration { return time.Second }

var _ = []any{(*Store).lockShared, (*Store).tryLockExclusive, lockPart, removePart, freeSpace, writeJSON, (*Store).blobPath, MaxLayers}
