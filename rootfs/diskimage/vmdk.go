package diskimage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"github.com/hutchvm/hutch/virtio/blk"
)

// vmdk is an image of one or several extents.
type vmdk struct {
	f       *os.File
	extents []vmdkExtent
	size    int64
	ids     *contentID // nil when read-only
}

// vmdkExtent is a part of the disk: a backend and where it is. A nil backend is
// zeroes.
type vmdkExtent struct {
	start, size int64
	b           driver
}

// maxDescriptor bounds the text that describes an image.
const maxDescriptor = 64 << 10

func openVMDK(f *os.File, path string, ro bool) (driver, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var start [512]byte
	n, err := f.ReadAt(start[:], 0)
	if n < 4 {
		return nil, fmt.Errorf("%w: no vmdk header", ErrFormat)
	}
	if le.Uint32(start[:]) == vmdkMagic {
		return openSparse(f, start, fi.Size(), ro)
	}
	if n < len(start) && fi.Size() > int64(n) {
		return nil, err
	}
	return openFlat(f, path, fi.Size(), ro)
}

// openSparse opens an image with the descriptor in it.
func openSparse(f *os.File, header [512]byte, size int64, ro bool) (driver, error) {
	h, err := parseSparse(header, size)
	if err != nil {
		return nil, err
	}
	text := make([]byte, h.descLen)
	if _, err := f.ReadAt(text, h.descAt); err != nil {
		return nil, err
	}
	d, err := parseDescriptor(text)
	if err != nil {
		return nil, err
	}
	if d.createType != "monolithicSparse" {
		return nil, fmt.Errorf("%w: vmdk of type %q", ErrUnsupported, d.createType)
	}
	s, err := newSparse(f, h, size, ro)
	if err != nil {
		return nil, err
	}
	v := &vmdk{f: f, size: h.capacity, extents: []vmdkExtent{{0, h.capacity, s}}}
	if !ro {
		v.ids = &contentID{f: f, at: h.descAt + d.cidAt, n: d.cidLen}
	}
	return v, nil
}

// openFlat opens a descriptor, and the extents that it names beside it.
func openFlat(f *os.File, path string, size int64, ro bool) (_ driver, err error) {
	if size > maxDescriptor {
		return nil, fmt.Errorf("%w: neither a sparse vmdk nor a descriptor", ErrFormat)
	}
	text := make([]byte, size)
	if _, err := f.ReadAt(text, 0); err != nil {
		return nil, err
	}
	d, err := parseDescriptor(text)
	if err != nil {
		return nil, err
	}
	if d.createType != "monolithicFlat" && d.createType != "twoGbMaxExtentFlat" {
		return nil, fmt.Errorf("%w: vmdk of type %q", ErrUnsupported, d.createType)
	}
	v := &vmdk{f: f}
	defer func() {
		if err != nil {
			_ = v.closeExtents()
		}
	}()
	for _, e := range d.extents {
		x := vmdkExtent{start: v.size, size: e.size}
		if e.name != "" {
			if x.b, err = openExtent(filepath.Dir(path), e, ro); err != nil {
				return nil, fmt.Errorf("extent %q: %w", e.name, err)
			}
		}
		v.extents = append(v.extents, x)
		if v.size += e.size; v.size > 1<<62 {
			return nil, fmt.Errorf("%w: too large", ErrCorrupt)
		}
	}
	if !ro {
		v.ids = &contentID{f: f, at: d.cidAt, n: d.cidLen}
	}
	return v, nil
}

// flatExtent is part of a file.
type flatExtent struct {
	*blk.File
	f    *os.File
	base int64
}

func openExtent(dir string, e extentLine, ro bool) (driver, error) {
	if filepath.Base(e.name) != e.name || !filepath.IsLocal(e.name) {
		return nil, fmt.Errorf("%w: it is outside the image's directory", ErrUnsupported)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	flags := os.O_RDWR
	if ro {
		flags = os.O_RDONLY
	}
	f, err := root.OpenFile(e.name, flags, 0)
	if err != nil {
		return nil, err
	}
	x, err := newFlatExtent(f, e, ro)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return x, nil
}

func newFlatExtent(f *os.File, e extentLine, ro bool) (driver, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("not a regular file")
	}
	if e.offset > fi.Size() || e.size > fi.Size()-e.offset {
		return nil, fmt.Errorf("%w: %d bytes at %d of a file of %d", ErrCorrupt, e.size, e.offset, fi.Size())
	}
	if err := lock(f, ro); err != nil {
		return nil, err
	}
	b, err := blk.NewFile(f)
	if err != nil {
		return nil, err
	}
	return flatExtent{b, f, e.offset}, nil
}

func (x flatExtent) ReadAtv(bufs [][]byte, off int64) error { return x.File.ReadAtv(bufs, x.base+off) }

func (x flatExtent) WriteAtv(bufs [][]byte, off int64) error {
	return x.File.WriteAtv(bufs, x.base+off)
}

func (x flatExtent) Discard(off, n int64) error { return x.File.Discard(x.base+off, n) }

func (x flatExtent) WriteZeroes(off, n int64, unmap bool) error {
	return x.File.WriteZeroes(x.base+off, n, unmap)
}

func (x flatExtent) close() error { return x.f.Close() }

// Size is the sum of the extents.
func (v *vmdk) Size() int64 { return v.size }

// each calls f for the part of each extent that a range of the disk touches, with
// the offset in the extent.
func (v *vmdk) each(off, n int64, f func(b driver, off, n int64) error) error {
	i := sort.Search(len(v.extents), func(i int) bool { return v.extents[i].start+v.extents[i].size > off })
	for ; n > 0; i++ {
		e := v.extents[i]
		k := min(n, e.start+e.size-off)
		if err := f(e.b, off-e.start, k); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// ReadAtv reads from the extents.
func (v *vmdk) ReadAtv(bufs [][]byte, off int64) error {
	list, n := newVec(bufs)
	return v.each(off, n, func(b driver, off, n int64) error {
		if b == nil {
			zero(list.take(n))
			return nil
		}
		return b.ReadAtv(list.take(n), off)
	})
}

// WriteAtv writes to the extents.
func (v *vmdk) WriteAtv(bufs [][]byte, off int64) error {
	if err := v.ids.change(); err != nil {
		return err
	}
	list, n := newVec(bufs)
	return v.each(off, n, func(b driver, off, n int64) error {
		if b == nil {
			return fmt.Errorf("%w: writing an extent of zeroes", ErrUnsupported)
		}
		return b.WriteAtv(list.take(n), off)
	})
}

// Discard gives space back.
func (v *vmdk) Discard(off, n int64) error {
	if err := v.ids.change(); err != nil {
		return err
	}
	return v.each(off, n, func(b driver, off, n int64) error {
		if b == nil {
			return nil
		}
		return b.Discard(off, n)
	})
}

// WriteZeroes makes a range zero.
func (v *vmdk) WriteZeroes(off, n int64, unmap bool) error {
	if err := v.ids.change(); err != nil {
		return err
	}
	return v.each(off, n, func(b driver, off, n int64) error {
		if b == nil {
			return nil
		}
		return b.WriteZeroes(off, n, unmap)
	})
}

// Flush flushes all extents.
func (v *vmdk) Flush() error {
	var errs []error
	for _, e := range v.extents {
		if e.b != nil {
			errs = append(errs, e.b.Flush())
		}
	}
	return errors.Join(errs...)
}

func (v *vmdk) closeExtents() error {
	var errs []error
	for _, e := range v.extents {
		if e.b != nil {
			errs = append(errs, e.b.close())
		}
	}
	return errors.Join(errs...)
}

func (v *vmdk) close() error { return errors.Join(v.closeExtents(), v.f.Close()) }
