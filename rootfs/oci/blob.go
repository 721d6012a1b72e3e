package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	copyChunk = 256 << 10
	// progressWorth is how much of a blob must arrive for an attempt to count as
	// progress, so that a registry cannot keep us busy a byte at a time.
	progressWorth = 1 << 20
)

// errDamaged marks content that is wrong although the source may be right: it was
// put together from pieces, or kept on disk. It is gone then, and one
// more try from the start is worth it.
var errDamaged = errors.New("kept content was damaged")

// blob is one blob on its way into the store. It can be read while it grows.
type blob struct {
	desc   v1.Descriptor
	file   *os.File         // for reading; set with the first byte available
	report func(done int64) // progress of the transfer
	resume bool             // whether content of an earlier process was taken over

	mu      sync.Mutex
	have    int64         // bytes in file
	done    bool          // complete and verified
	changed chan struct{} // closed and replaced when one of the above changes
}

func newBlob(d v1.Descriptor, report func(int64)) *blob {
	if report == nil {
		report = func(int64) {}
	}
	return &blob{desc: d, report: report, changed: make(chan struct{})}
}

func (b *blob) close() {
	if b.file != nil {
		b.file.Close()
	}
}

// update lets readers see more.
func (b *blob) update(have int64, done bool) {
	b.mu.Lock()
	b.have, b.done = have, done
	close(b.changed)
	b.changed = make(chan struct{})
	b.mu.Unlock()
	b.report(have)
}

// fetch brings the blob into the store, or finds it there. Only one fetch of a
// digest goes on at a time in all processes; others wait for it.
func (s *Store) fetch(ctx context.Context, src source, b *blob) error {
	path := s.blobPath(b.desc.Digest.String())
	complete := func() bool {
		st, err := os.Stat(path)
		return err == nil && st.Mode().IsRegular() && st.Size() == b.desc.Size
	}
	f, done, err := lockPart(ctx, path, complete)
	if err != nil {
		return err
	}
	if done {
		if b.file, err = os.Open(path); err != nil {
			return err
		}
		b.resume = true // nobody verified it just now
		b.update(b.desc.Size, true)
		return nil
	}
	defer f.Close()
	// Readers have a descriptor of their own, which stays when this one goes with the lock.
	if b.file, err = os.Open(f.Name()); err != nil {
		return err
	}
	h := sha256.New()
	have, err := takeOver(ctx, f, h, b.desc.Size)
	if err != nil {
		return err
	}
	b.resume = have > 0
	b.update(have, false)
	if err := s.transfer(ctx, src, b, f, h); err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			os.Remove(f.Name()) // others need the space more
		}
		return err // what has arrived stays for the next try
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != b.desc.Digest.Hex {
		os.Remove(f.Name())
		err := fail(ErrDigest, "%s has the digest sha256:%s", b.desc.Digest, sum)
		if b.resume {
			err = fmt.Errorf("%w: %w", errDamaged, err)
		}
		return err
	}
	if err := f.Chmod(0o444); err != nil {
		return err
	}
	// Not synced: a layer is verified again whenever it is read, and can be
	// fetched again.
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	b.update(b.desc.Size, true)
	return nil
}

// takeOver hashes what an earlier fetch left in f and gives its length.
func takeOver(ctx context.Context, f *os.File, h hash.Hash, size int64) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	have := st.Size()
	if have > size {
		have = 0
	}
	if err := f.Truncate(have); err != nil {
		return 0, err
	}
	buf := make([]byte, copyChunk)
	for off := int64(0); off < have; {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		n, err := f.ReadAt(buf[:min(int64(len(buf)), have-off)], off)
		h.Write(buf[:n])
		off += int64(n)
		if err != nil && off < have {
			return 0, err
		}
	}
	return have, nil
}

// transfer fetches the rest of the blob, going on where a connection broke.
func (s *Store) transfer(ctx context.Context, src source, b *blob, f *os.File, h hash.Hash) error {
	for attempt := 0; b.have < b.desc.Size; attempt++ {
		before := b.have
		err := b.receive(ctx, src, f, h)
		var t *transient
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !errors.As(err, &t) {
			return err
		}
		if b.have-before >= progressWorth {
			attempt = 0
		}
		if attempt+1 >= maxAttempts {
			return fmt.Errorf("%w (%d attempts)", t.err, maxAttempts)
		}
		if err := sleep(ctx, max(s.backoff(attempt), t.after)); err != nil {
			return err
		}
	}
	return nil
}

// receive does one request. Content that comes again, because the source cannot
// continue in the middle, is skipped; if it differs the digest will tell.
func (b *blob) receive(ctx context.Context, src source, f *os.File, h hash.Hash) error {
	body, start, err := src.blob(ctx, b.desc, b.have)
	if err != nil {
		return err
	}
	defer body.Close()
	have := b.have
	if _, err := io.CopyN(io.Discard, body, have-start); err != nil {
		return broken(ctx, err)
	}
	buf := make([]byte, copyChunk)
	for have < b.desc.Size {
		n, err := body.Read(buf[:min(int64(len(buf)), b.desc.Size-have)])
		if n > 0 {
			if _, err := f.WriteAt(buf[:n], have); err != nil {
				return err
			}
			h.Write(buf[:n])
			have += int64(n)
			b.update(have, false)
		}
		if err != nil && have < b.desc.Size {
			return broken(ctx, err)
		}
	}
	return nil
}

// broken is the error of a body that ended early.
func broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return networkError(err)
}

// reader reads the blob from its start, waiting for what has not arrived yet.
// It ends after the last byte, once the blob is verified.
func (b *blob) reader(ctx context.Context, consumed func(n int64)) io.Reader {
	return &blobReader{blob: b, ctx: ctx, consumed: consumed}
}

type blobReader struct {
	blob     *blob
	ctx      context.Context
	off      int64
	consumed func(n int64)
}

func (r *blobReader) Read(p []byte) (int, error) {
	b := r.blob
	for {
		if r.ctx.Err() != nil {
			return 0, context.Cause(r.ctx)
		}
		b.mu.Lock()
		have, done, changed := b.have, b.done, b.changed
		b.mu.Unlock()
		if have > r.off {
			n, err := b.file.ReadAt(p[:min(int64(len(p)), have-r.off)], r.off)
			r.off += int64(n)
			if n > 0 {
				r.consumed(int64(n))
				return n, nil
			}
			if err == io.EOF {
				err = fail(errDamaged, "%s was cut short", b.desc.Digest)
			}
			return 0, err
		}
		if done {
			return 0, io.EOF
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
		}
	}
}
