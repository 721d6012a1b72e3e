package patch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/hutchvm/hutch/rootfs/erofs"
)

// Build makes the layer of the patches, applied in order to lower, and writes it to
// out, an empty file open for reading and writing. All patches are validated before
// the first is applied. What they make has the time of the call. Build does not close
// out; when it fails, out is left in any state. The error is an *Error that names the
// patch.
func Build(ctx context.Context, lower Lower, patches []Patch, out *os.File) error {
	if err := Validate(patches); err != nil {
		return err
	}
	w := erofs.NewWriter(out, erofs.WriterOptions{})
	defer w.Close()
	b := &builder{
		view: view{
			w: w, lower: lower,
			merged:    map[erofs.Ino]bool{erofs.Root: true},
			whiteouts: map[erofs.Ino]bool{},
			files:     map[erofs.Ino]file{},
		},
		ctx: ctx, now: time.Now(),
	}
	b.root = &dir{path: ".", ino: erofs.Root, lower: true}
	b.root.parent = b.root
	top, err := lower.Lstat(".")
	if err == nil && !top.isDir() {
		err = ErrNotDir
	}
	if err == nil {
		err = w.SetAttr(erofs.Root, top.attr())
	}
	if err != nil {
		return &Error{Index: -1, Err: fmt.Errorf("root of the image: %w", err)}
	}
	for i := range patches {
		p := &patches[i]
		err := ctx.Err()
		if err == nil {
			err = b.apply(p)
		}
		if err != nil {
			return &Error{i, p.Kind, p.Path, err}
		}
	}
	if _, err := w.Finish(); err != nil {
		return &Error{Index: -1, Err: err}
	}
	return nil
}

type builder struct {
	view
	ctx  context.Context // of Build, which the builder does not outlive
	now  time.Time
	root *dir
}

// maxAppend bounds the size of a file of the image that is copied to be appended to:
// an image may claim any.
const maxAppend = 4 << 30

func (b *builder) apply(p *Patch) error {
	name := path.Clean(p.Path)
	if p.Kind == Remove {
		at, err := b.resolve(b.root, name, false, false)
		if err != nil || at == nil || at.absent() {
			if errors.Is(err, ErrNotDir) {
				return nil // nothing can be there
			}
			return err
		}
		return b.view.remove(at)
	}
	follow := p.Kind == Append || p.Kind == Mkdir || p.Kind == CopyDir && p.Replace
	at, err := b.resolve(b.root, name, follow, p.Kind != Append)
	if err != nil {
		return err
	}
	switch p.Kind {
	case Append:
		if at == nil {
			return fs.ErrNotExist
		}
		return b.append(at, p.Data)
	case Mkdir:
		if at.isDir() {
			return nil
		}
		if err := free(at, p.Replace); err != nil {
			return err
		}
		_, err := b.mkdir(at, b.attr(erofs.ModeDir, p, 0o755))
		return err
	case CopyDir:
		return b.copyDir(at, p)
	}
	if err := free(at, p.Replace); err != nil {
		return err
	}
	switch p.Kind {
	case File:
		data := p.Data
		return b.file(at, b.attr(erofs.ModeRegular, p, 0o644), int64(len(data)), func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		})
	case CopyFile:
		// The source may be a link to anywhere: it is the caller's choice.
		return b.copyFile(at, p, p.Mode, func() (*os.File, error) {
			return os.OpenFile(p.Source, os.O_RDONLY|nonblock, 0)
		})
	}
	attr := b.attr(erofs.ModeSymlink, p, 0)
	attr.Mode = erofs.ModeSymlink | 0o777
	ino, err := b.w.Symlink(attr, p.Target)
	if err != nil {
		return err
	}
	return b.put(at, ino)
}

// free tells whether something new may have the place.
func free(at *place, replace bool) error {
	switch {
	case at.absent():
		return nil
	case !replace:
		return fs.ErrExist
	case at.isDir():
		return ErrIsDir
	}
	return nil
}

func (b *builder) attr(kind uint16, p *Patch, byDefault fs.FileMode) erofs.Attr {
	mode := p.Mode
	if mode == 0 {
		mode = byDefault
	}
	return erofs.Attr{
		Mode: kind | modeOf(mode)&erofs.ModePerm, UID: p.UID, GID: p.GID,
		Seconds: b.now.Unix(), Nanos: uint32(b.now.Nanosecond()),
	}
}

// file makes a regular file.
func (b *builder) file(at *place, attr erofs.Attr, size int64, open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	ino, err := b.w.File(attr, size, &reader{b.ctx, r})
	if err != nil {
		return err
	}
	b.files[ino] = file{attr, size, open}
	return b.put(at, ino)
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// append makes a longer copy of a file.
func (b *builder) append(at *place, data []byte) error {
	var f file
	switch {
	case at.absent():
		return fs.ErrNotExist
	case at.isDir():
		return ErrIsDir
	case at.kind() != erofs.ModeRegular:
		return ErrNotFile
	case at.ino != 0:
		f = b.files[at.ino]
	case at.below.Size > maxAppend:
		return fmt.Errorf("%w: appending to a file of %d bytes", ErrInvalid, at.below.Size)
	default:
		name := at.path()
		f = file{at.below.attr(), at.below.Size, func() (io.ReadCloser, error) { return b.lower.Open(name) }}
	}
	f.attr.Seconds, f.attr.Nanos = b.now.Unix(), uint32(b.now.Nanosecond())
	size := f.size
	return b.file(at, f.attr, size+int64(len(data)), func() (io.ReadCloser, error) {
		r, err := f.open()
		if err != nil {
			return nil, err
		}
		return &longer{io.MultiReader(&exactly{r, size}, bytes.NewReader(data)), r}, nil
	})
}

// longer is a file with something behind it.
type longer struct {
	io.Reader
	io.Closer
}

// exactly reads n bytes, and is not content with less.
type exactly struct {
	r io.Reader
	n int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.n)])
	if e.n -= int64(n); err == io.EOF && e.n > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
