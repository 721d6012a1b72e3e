package oci

import (
	"archive/tar"
	"bufio"
	"context"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// archive gives the files of an OCI layout or of what docker save wrote.
type archive interface {
	// open opens a regular file for reading at any offset. The error matches
	// fs.ErrNotExist when there is none of that name.
	open(name string) (file, error)
	Close() error
}

// file is one file of an archive.
type file interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// openArchive opens a directory or a tar, compressed or not.
func (s *Store) openArchive(ctx context.Context, name string) (archive, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		root, err := os.OpenRoot(name)
		if err != nil {
			return nil, err
		}
		return dirArchive{root}, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if st.Mode().IsRegular() {
		var magic [4]byte
		if _, err := f.ReadAt(magic[:], 0); err == nil && !isCompressed(magic[:]) {
			return indexTar(ctx, f)
		}
	}
	defer f.Close()
	return s.spool(ctx, f)
}

// spool copies a stream to an unnamed file, uncompressed, so that it can be read in
// any order.
func (s *Store) spool(ctx context.Context, r io.Reader) (archive, error) {
	dec, closer, err := decompress(bufio.NewReaderSize(r, copyChunk))
	if err != nil {
		return nil, fail(ErrInvalidImage, "decompressing: %w", err)
	}
	defer closer()
	f, err := os.CreateTemp(s.dir, tempPrefix+"*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	n, err := io.Copy(f, io.LimitReader(&ctxReader{ctx, dec}, MaxImage+1))
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case err == nil && n > MaxImage:
		err = fail(ErrLimit, "an archive of more than %d bytes", int64(MaxImage))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return indexTar(ctx, f)
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

func isCompressed(magic []byte) bool { return isGzip(magic) || isZstd(magic) }

// dirArchive is a directory that cannot be left, not even by symbolic links.
type dirArchive struct{ root *os.Root }

func (d dirArchive) Close() error { return d.root.Close() }

func (d dirArchive) open(name string) (file, error) {
	// Looked at first: opening a FIFO would wait for a writer.
	st, err := d.root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fail(ErrInvalidImage, "%s is not a regular file", clean(name))
	}
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	return osFile{f, st.Size()}, nil
}

type osFile struct {
	*os.File
	size int64
}

func (f osFile) Size() int64 { return f.size }

// maxTarEntries bounds the index of a tar: an archive of images has a few for
// each layer.
const maxTarEntries = 100_000

// tarArchive knows where each file of a tar is.
type tarArchive struct {
	f       *os.File
	entries map[string]tarEntry
}

type tarEntry struct {
	offset, size int64
	link         string // another entry's name
}

// indexTar reads the headers of a tar, skipping the contents. It owns f.
func indexTar(ctx context.Context, f *os.File) (_ archive, err error) {
	a := &tarArchive{f: f, entries: map[string]tarEntry{}}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	r := tar.NewReader(f)
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		h, err := r.Next()
		if err == io.EOF {
			return a, nil
		}
		if err != nil {
			return nil, fail(ErrInvalidImage, "not a tar archive: %s", clean(err.Error()))
		}
		if len(a.entries) == maxTarEntries {
			return nil, fail(ErrLimit, "an archive of more than %d files", maxTarEntries)
		}
		name := path.Clean("/" + h.Name)[1:]
		// The reader takes whole blocks from the file, so it stands at the content.
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		switch h.Typeflag {
		case tar.TypeReg:
			if h.PAXRecords["GNU.sparse.major"] != "" || h.PAXRecords["GNU.sparse.map"] != "" {
				return nil, fail(ErrInvalidImage, "%s is a sparse entry", clean(name))
			}
			a.entries[name] = tarEntry{offset: at, size: h.Size}
		case tar.TypeLink: // names are relative to the archive
			a.entries[name] = tarEntry{link: path.Clean("/" + h.Linkname)[1:]}
		case tar.TypeSymlink: // old archives of Docker link equal layers
			a.entries[name] = tarEntry{link: path.Join("/", path.Dir(name), h.Linkname)[1:]}
		}
	}
}

func (a *tarArchive) Close() error { return a.f.Close() }

func (a *tarArchive) open(name string) (file, error) {
	for range 8 { // links to links
		e, ok := a.entries[path.Clean("/" + name)[1:]]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: clean(name), Err: fs.ErrNotExist}
		}
		if e.link == "" {
			return tarFile{io.NewSectionReader(a.f, e.offset, e.size)}, nil
		}
		name = e.link
	}
	return nil, fail(ErrInvalidImage, "%s: links that lead in a circle", clean(name))
}

type tarFile struct{ *io.SectionReader }

func (tarFile) Close() error { return nil }

// readAll reads a small file of an archive.
func readAll(a archive, name string, limit int64) ([]byte, error) {
	f, err := a.open(strings.TrimPrefix(name, "./"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if f.Size() > limit {
		return nil, fail(ErrLimit, "%s has %d bytes, more than %d", clean(name), f.Size(), limit)
	}
	return io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
}
