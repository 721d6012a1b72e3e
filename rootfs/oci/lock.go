package oci

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"
)

// Locks are flocks: they belong to an open file, so they work between
// goroutines as between processes, and a killed process holds none.

const (
	lockPoll    = 5 * time.Millisecond // first wait for a lock
	lockPollMax = 100 * time.Millisecond
)

// flock waits for a lock on f. There is no wait in the kernel, because that
// cannot be cancelled.
func flock(ctx context.Context, f *os.File, exclusive bool) error {
	for wait := lockPoll; ; wait = min(2*wait, lockPollMax) {
		ok, err := tryFlock(f, exclusive)
		if ok || err != nil {
			return err
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// sleep waits for d or for the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lockPart opens the file at path+".part", which it makes when it is missing,
// and locks it exclusively. Its content is whatever an earlier owner left. done
// is true, and there is no file, when complete says that path itself is there:
// then somebody else has done the work.
func lockPart(ctx context.Context, path string, complete func() bool) (f *os.File, done bool, err error) {
	part := path + partSuffix
	for !complete() {
		f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, false, err
		}
		if err := flock(ctx, f, true); err != nil {
			f.Close()
			return nil, false, err
		}
		// While we waited its owner may have renamed or removed it.
		if isAt(f, part) {
			if complete() { // finished before we made the file anew
				err = os.Remove(part)
				return nil, true, errors.Join(err, f.Close())
			}
			return f, false, nil
		}
		f.Close()
	}
	return nil, true, nil
}

// isAt tells whether path still names the file that is open as f.
func isAt(f *os.File, path string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	theirs, err := os.Stat(path)
	return err == nil && os.SameFile(mine, theirs)
}

// removePart removes a .part file that nobody works on. It gives the space that this freed.
func removePart(path string, olderThan time.Duration) (int64, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	ok, err := tryFlock(f, true)
	if !ok || err != nil || !isAt(f, path) {
		return 0, err
	}
	st, err := f.Stat()
	if err != nil || time.Since(st.ModTime()) < olderThan {
		return 0, err
	}
	return allocated(st), os.Remove(path)
}

// store-wide lock: shared while something is added, exclusive while garbage is
// removed, so that what a pull has just found or made does not vanish under it.

func (s *Store) lockShared(ctx context.Context) (*os.File, error) {
	f, err := os.OpenFile(s.path(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(ctx, f, false); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// tryLockExclusive gives nil when something is being added right now.
func (s *Store) tryLockExclusive() (*os.File, error) {
	f, err := os.OpenFile(s.path(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	ok, err := tryFlock(f, true)
	if !ok || err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
