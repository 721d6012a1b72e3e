package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/hutchvm/hutch/sandbox"
)

// pullDisplay shows how a pull goes: bars on a terminal, a few plain lines
// elsewhere.
type pullDisplay interface {
	event(e sandbox.PullEvent)
	// close ends the display; what is unfinished stays as it is.
	close()
}

// newPullDisplay shows nothing when quiet.
func newPullDisplay(ctx context.Context, w io.Writer, quiet bool) pullDisplay {
	if quiet {
		return nothing{}
	}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &bars{ctx: ctx, w: w}
	}
	return &lines{w: w}
}

type nothing struct{}

func (nothing) event(sandbox.PullEvent) {}
func (nothing) close()                  {}

// lines prints a line for each step that is done.
type lines struct {
	w      io.Writer
	layers int
	end    bool // of the conversion was printed
}

func (l *lines) event(e sandbox.PullEvent) {
	switch e.Kind {
	case sandbox.PullResolving:
		l.end = false
		fmt.Fprintf(l.w, "%s: resolving\n", e.Ref)
	case sandbox.PullResolved:
		l.layers = len(e.Layers)
		if e.Cached {
			fmt.Fprintf(l.w, "%s: %s is here already\n", e.Ref, e.Digest)
			return
		}
		fmt.Fprintf(l.w, "%s: %s, layers: %d, to fetch: %s\n", e.Ref, e.Digest, l.layers, humanSize(e.Total))
	case sandbox.PullLayerVerified:
		how := "fetched"
		if e.Cached {
			how = "here already"
		}
		fmt.Fprintf(l.w, "%s: layer %d of %d %s (%s)\n", e.Ref, e.Layer+1, l.layers, how, humanSize(e.Total))
	case sandbox.PullConvert:
		if e.Done == e.Total && !l.end {
			l.end = true
			fmt.Fprintf(l.w, "%s: converted\n", e.Ref)
		}
	case sandbox.PullComplete:
		fmt.Fprintf(l.w, "%s: complete\n", e.Ref)
	}
}

func (l *lines) close() {}

// bars draws a bar for each layer and one for the conversion.
type bars struct {
	ctx     context.Context
	w       io.Writer
	pool    *mpb.Progress
	layers  []*mpb.Bar
	convert *mpb.Bar
}

func (b *bars) event(e sandbox.PullEvent) {
	switch e.Kind {
	case sandbox.PullResolving:
		b.close() // that of an image before
	case sandbox.PullResolved:
		if e.Cached || b.pool != nil {
			return
		}
		fmt.Fprintf(b.w, "%s: %s\n", e.Ref, e.Digest)
		b.pool = mpb.NewWithContext(b.ctx, mpb.WithOutput(b.w), mpb.WithWidth(64))
		total := int64(0)
		for i, l := range e.Layers {
			b.layers = append(b.layers, b.bar(i, shortDigest(l.Digest), l.Size))
			total += l.Size
		}
		b.convert = b.bar(len(e.Layers), "converting", total)
	case sandbox.PullLayer:
		if e.Layer < len(b.layers) {
			b.layers[e.Layer].SetCurrent(e.Done)
		}
	case sandbox.PullConvert:
		if b.convert != nil {
			b.convert.SetCurrent(e.Done)
		}
	case sandbox.PullComplete:
		// Layers that occur twice are fetched once.
		for _, l := range append(b.layers, b.convert) {
			if l != nil {
				l.SetTotal(-1, true)
			}
		}
		b.close()
	}
}

func (b *bars) bar(priority int, name string, total int64) *mpb.Bar {
	return b.pool.New(max(total, 1), mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"),
		mpb.BarPriority(priority),
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR), decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace)),
		mpb.AppendDecorators(decor.Percentage(decor.WC{W: 5})))
}

func (b *bars) close() {
	if b.pool == nil {
		return
	}
	for _, l := range append(b.layers, b.convert) {
		l.Abort(false) // nothing happens to a complete one
	}
	b.pool.Wait()
	b.pool, b.layers, b.convert = nil, nil, nil
}

// shortDigest is what listings show, and what every command takes.
func shortDigest(d string) string {
	_, hex, _ := strings.Cut(d, ":")
	return hex[:min(12, len(hex))]
}

// humanSize is a number of bytes for people, in powers of 1024.
func humanSize(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1023.95 && i+1 < len(units) {
		f, i = f/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}
