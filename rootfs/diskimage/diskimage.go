// Package diskimage opens disk images as backends of virtio block devices: raw,
// qcow2 (versions 2 and 3) and vmdk (monolithicSparse and flat).
//
// A guest writes what is in an image, and images come from strangers. So the
// format is what the caller or the file's name says and is never guessed from
// content; other files (backing files, extents) are opened only where the caller
// allows it and only beside the image; and no number in an image is believed:
// offsets are checked against the file, and no memory is allocated by them
// beyond fixed limits.
//
// An image that can be written is locked for one user, in the way QEMU does it,
// so that QEMU's tools respect it too. Several may read an image that nobody
// writes.
package diskimage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hutchvm/hutch/virtio/blk"
)

// Format is the format of a disk image.
type Format string

// The formats.
const (
	Raw   Format = "raw"
	QCOW2 Format = "qcow2"
	VMDK  Format = "vmdk"
)

// Errors of this package. They come wrapped in an *OpError.
var (
	// ErrFormat: the format is unknown, or the file is not of the format that
	// was named.
	ErrFormat = errors.New("wrong or unknown format")
	// ErrLocked: somebody else has the image open, and one of the two writes.
	ErrLocked = errors.New("image is in use")
	// ErrUnsupported: a feature of the format that is not implemented.
	ErrUnsupported = errors.New("unsupported feature")
	// ErrCorrupt: the image contradicts itself.
	ErrCorrupt = errors.New("corrupt image")
	// ErrDirty: the image was not closed properly by a program that leaves its
	// metadata for later; qemu-img check -r all repairs it.
	ErrDirty = errors.New("image was not closed properly: run qemu-img check -r all")
	// ErrBacking: the image needs a backing file, which was not allowed, or
	// which is outside its directory.
	ErrBacking = errors.New("backing file not allowed")
	// ErrClosed: the image was closed.
	ErrClosed = errors.New("image is closed")
)

// OpError is the error type of this package.
type OpError struct {
	Op   string // "open", "create", "close"
	Path string
	Err  error
}

// Error says what was done to which file.
func (e *OpError) Error() string { return fmt.Sprintf("diskimage: %s %s: %v", e.Op, e.Path, e.Err) }

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// FormatOf returns the format that a file's name says: .raw and .img, .qcow2,
// .vmdk, in any case of letters.
func FormatOf(path string) (Format, error) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".raw", ".img":
		return Raw, nil
	case ".qcow2":
		return QCOW2, nil
	case ".vmdk":
		return VMDK, nil
	}
	return "", &OpError{Op: "open", Path: path, Err: fmt.Errorf("%w: name it .raw, .img, .qcow2 or .vmdk, or give the format", ErrFormat)}
}

// Options of Open. The zero value opens for writing.
type Options struct {
	// ReadOnly opens without the right to write.
	ReadOnly bool
	// AllowBacking opens the backing files of a qcow2 image, read-only. They
	// must be in the image's directory or below it, be eight at most, and have
	// a format that is named in the image or by extension.
	AllowBacking bool
}

// driver is what a format implements. All methods but close are called from
// several goroutines; reads and writes are within size, which is whole sectors.
type driver interface {
	blk.Backend
	close() error
}

// Image is an open disk image. It is a blk.Backend; all methods may be called
// concurrently.
type Image struct {
	path     string
	format   Format
	readOnly bool
	d        driver
	nowait   blk.Nowaiter // nil when the format has none

	once     sync.Once
	closeErr error
}

var (
	_ blk.Backend  = (*Image)(nil)
	_ blk.Nowaiter = (*Image)(nil)
)

// Open opens the image at path, whose format is f.
func Open(path string, f Format, o Options) (*Image, error) {
	img, err := open(path, f, o, maxChain)
	if err != nil {
		return nil, &OpError{Op: "open", Path: path, Err: err}
	}
	return img, nil
}

// maxChain is how many images may be behind each other.
const maxChain = 8

func open(path string, f Format, o Options, chain int) (*Image, error) {
	flags := os.O_RDWR
	if o.ReadOnly {
		flags = os.O_RDONLY
	}
	file, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	return openFile(file, path, f, o, chain)
}

// openFile takes file over.
func openFile(file *os.File, path string, f Format, o Options, chain int) (img *Image, err error) {
	defer func() {
		if err != nil {
			_ = file.Close()
		}
	}()
	if fi, err := file.Stat(); err != nil {
		return nil, err
	} else if mode := fi.Mode(); !mode.IsRegular() && (f != Raw || mode&(os.ModeDevice|os.ModeCharDevice) != os.ModeDevice) {
		return nil, fmt.Errorf("not a regular file")
	}
	if err := lock(file, o.ReadOnly); err != nil {
		return nil, err
	}
	img = &Image{path: path, format: f, readOnly: o.ReadOnly}
	switch f {
	case Raw:
		img.d, err = newRaw(file)
		img.nowait, _ = img.d.(blk.Nowaiter)
	case QCOW2:
		img.d, err = openQCOW2(file, o.ReadOnly, backingOpener(path, o.AllowBacking, chain))
	case VMDK:
		img.d, err = openVMDK(file, path, o.ReadOnly)
	default:
		err = fmt.Errorf("%w: %q", ErrFormat, f)
	}
	if err != nil {
		return nil, err
	}
	return img, nil
}

// backingOpener returns how an image opens its backing file.
func backingOpener(path string, allowed bool, chain int) func(name string, f Format) (*Image, error) {
	return func(name string, f Format) (*Image, error) {
		if !allowed {
			return nil, fmt.Errorf("%w: image needs %q", ErrBacking, name)
		}
		if chain <= 1 {
			return nil, fmt.Errorf("%w: over %d images in a chain", ErrBacking, maxChain)
		}
		dir, err := filepath.Abs(filepath.Dir(path))
		if err != nil {
			return nil, err
		}
		rel := name
		if filepath.IsAbs(name) {
			if rel, err = filepath.Rel(dir, name); err != nil {
				return nil, err
			}
		}
		if !filepath.IsLocal(rel) {
			return nil, fmt.Errorf("%w: %q is outside the image's directory", ErrBacking, name)
		}
		full := filepath.Join(dir, rel)
		if f == "" {
			if f, err = FormatOf(full); err != nil {
				return nil, fmt.Errorf("%w: the image does not say the format of %q", ErrBacking, name)
			}
		}
		// A symbolic link that leads out is refused as well.
		file, err := os.OpenInRoot(dir, rel)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBacking, err)
		}
		img, err := openFile(file, full, f, Options{ReadOnly: true, AllowBacking: true}, chain-1)
		if err != nil {
			return nil, &OpError{Op: "open", Path: full, Err: err}
		}
		return img, nil
	}
}

// Format is what the image was opened as.
func (m *Image) Format() Format { return m.format }

// ReadOnly reports whether it was opened for reading only.
func (m *Image) ReadOnly() bool { return m.readOnly }

// SerialWrites reports whether writes exclude each other.
func (m *Image) SerialWrites() bool { return true }

// Size is the size of the disk in bytes, whole sectors.
func (m *Image) Size() int64 { return m.d.Size() }

// ReadAtv fills bufs from byte off.
func (m *Image) ReadAtv(bufs [][]byte, off int64) error { return m.d.ReadAtv(bufs, off) }

// WriteAtv writes bufs at byte off.
func (m *Image) WriteAtv(bufs [][]byte, off int64) error {
	if m.readOnly {
		return blk.ErrReadOnly
	}
	return m.d.WriteAtv(bufs, off)
}

// Flush makes all writes that returned durable.
func (m *Image) Flush() error {
	if m.readOnly {
		return nil
	}
	return m.d.Flush()
}

// Discard gives space back to the host where the format can.
func (m *Image) Discard(off, n int64) error {
	if m.readOnly {
		return blk.ErrReadOnly
	}
	return m.d.Discard(off, n)
}

// WriteZeroes makes n bytes at off zero.
func (m *Image) WriteZeroes(off, n int64, unmap bool) error {
	if m.readOnly {
		return blk.ErrReadOnly
	}
	return m.d.WriteZeroes(off, n, unmap)
}

// ReadNowait reads what needs no waiting; only raw images can tell.
func (m *Image) ReadNowait(bufs [][]byte, off int64) (int, error) {
	if m.nowait == nil {
		return 0, blk.ErrNoNowait
	}
	return m.nowait.ReadNowait(bufs, off)
}

// WriteNowait writes what needs no waiting; only raw images can tell.
func (m *Image) WriteNowait(bufs [][]byte, off int64) (int, error) {
	if m.nowait == nil || m.readOnly {
		return 0, blk.ErrNoNowait
	}
	return m.nowait.WriteNowait(bufs, off)
}

// Close flushes and closes the image and those behind it. No other method may be
// running or be called afterwards. It is idempotent.
func (m *Image) Close() error {
	m.once.Do(func() {
		err := m.Flush()
		if err := errors.Join(err, m.d.close()); err != nil {
			m.closeErr = &OpError{Op: "close", Path: m.path, Err: err}
		}
		m.d = closed{}
		m.nowait = nil
	})
	return m.closeErr
}

// closed is what is behind a closed image.
type closed struct{}

func (closed) ReadAtv([][]byte, int64) error        { return ErrClosed }
func (closed) WriteAtv([][]byte, int64) error       { return ErrClosed }
func (closed) Flush() error                         { return ErrClosed }
func (closed) Discard(int64, int64) error           { return ErrClosed }
func (closed) WriteZeroes(int64, int64, bool) error { return ErrClosed }
func (closed) Size() int64                          { return 0 }
func (closed) close() error                         { return nil }

// rawDriver is a raw image: virtio/blk's file.
type rawDriver struct {
	*blk.File
	f *os.File
}

func newRaw(f *os.File) (driver, error) {
	b, err := blk.NewFile(f)
	if err != nil {
		return nil, err
	}
	return rawDriver{b, f}, nil
}

func (r rawDriver) close() error { return r.f.Close() }
