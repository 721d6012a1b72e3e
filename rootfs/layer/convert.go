package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/hutchvm/hutch/rootfs/erofs"
)

// withDefaults fills in what is zero, and refuses what is negative.
func (l Limits) withDefaults() (Limits, error) {
	set := func(v *int64, byDefault int64) bool {
		if *v == 0 {
			*v = byDefault
		}
		return *v > 0
	}
	entries, pathBytes, depth, xattrs := int64(l.Entries), int64(l.PathBytes), int64(l.PathDepth), int64(l.XattrBytes)
	ok := set(&entries, 500_000) && set(&l.TotalBytes, 64<<30) && set(&l.FileBytes, 64<<30) &&
		set(&pathBytes, 4096) && set(&depth, 1024) && set(&xattrs, erofs.MaxXattrBytes)
	if !ok {
		return l, errors.New("Limits: negative value")
	}
	xattrs = min(xattrs, erofs.MaxXattrBytes)
	l.Entries, l.PathBytes, l.PathDepth, l.XattrBytes = int(entries), int(pathBytes), int(depth), int(xattrs)
	return l, nil
}

// Convert applies the layers, bottom first, and writes the resulting file system
// to out, an empty file open for reading and writing, as an EROFS image. The same
// layers give the same bytes, however they are compressed. When Convert fails or
// ctx ends, out is left in any state; the caller removes it. Convert does not
// sync and does not close out.
//
// It takes about 150 bytes of memory for each entry and some megabytes beside.
func Convert(ctx context.Context, layers []Layer, out *os.File, opts Options) (Stats, error) {
	limits, err := opts.Limits.withDefaults()
	if err != nil {
		return Stats{}, &Error{Layer: -1, Err: err}
	}
	if len(layers) > math.MaxUint16-1 {
		return Stats{}, &Error{Layer: -1, Err: fmt.Errorf("%d layers: %w", len(layers), ErrLimit)}
	}
	w := erofs.NewWriter(out, erofs.WriterOptions{Scratch: opts.Scratch})
	defer w.Close()
	a := &applier{w: w, limits: limits}
	meter := newMeter(layers, opts.Progress)
	for i := range layers {
		l := &layers[i]
		if err := a.layer(ctx, i, l, meter.add); err != nil {
			return Stats{}, &Error{Layer: i, Name: l.Name, Entry: a.entry, Err: err}
		}
	}
	r, err := w.Finish()
	if err != nil {
		return Stats{}, &Error{Layer: -1, Err: err}
	}
	a.stats.Inodes, a.stats.ImageBytes, a.stats.HoleBytes = r.Inodes, r.Size, r.Holes
	meter.end()
	return a.stats, nil
}

// layer applies one layer. When it fails, a.entry is the entry at fault.
func (a *applier) layer(ctx context.Context, i int, l *Layer, read func(n int)) error {
	a.entry = ""
	s, err := openStream(ctx, l, a.limits.TotalBytes-a.stats.TarBytes, read)
	if err != nil {
		return err
	}
	defer s.close()
	a.mark = uint16(i + 1)
	a.w.SetMark(a.mark)
	r := &content{Reader: tar.NewReader(s)}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := r.Next()
		if err == io.EOF {
			break
		} else if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // which is our own concern
			return badTar(s, err)
		}
		a.entry = h.Name
		if a.stats.Entries++; a.stats.Entries > a.limits.Entries {
			return fmt.Errorf("more than %d entries: %w", a.limits.Entries, ErrLimit)
		}
		if err := a.apply(h, r); err != nil {
			if r.err != nil {
				return badTar(s, r.err)
			}
			return err
		}
	}
	a.entry = ""
	if err := s.finish(l.DiffID); err != nil {
		return err
	}
	a.stats.TarBytes += s.n
	return a.w.Discard()
}

// badTar tells a layer that is no tar stream from one that could not be read.
func badTar(s *stream, err error) error {
	if s.broken != nil {
		return s.broken
	}
	return fmt.Errorf("%w: %w", ErrFormat, err)
}

// meter adds up what is read of all layers.
type meter struct {
	progress        func(done, total int64)
	done, total, at int64
}

const meterStep = 256 << 10

func newMeter(layers []Layer, progress func(done, total int64)) *meter {
	m := &meter{progress: progress}
	for _, l := range layers {
		if l.Size <= 0 {
			m.total = 0
			break
		}
		m.total += l.Size
	}
	return m
}

// add is called by the goroutine of one layer's stream at a time.
func (m *meter) add(n int) {
	m.done += int64(n)
	if m.progress != nil && m.done-m.at >= meterStep {
		m.at = m.done
		m.progress(m.done, m.total)
	}
}

// end reports the last bytes.
func (m *meter) end() {
	if m.progress != nil && m.done != m.at {
		m.progress(m.done, m.total)
	}
}
