package layer

import (
	"context"
	"errors"
	"os"
)

// Convert applies the layers, bottom first, and writes the resulting file system
// to out, an empty file open for reading and writing, as an EROFS image. The same
// layers give the same bytes, however they are compressed. When Convert fails or
// ctx ends, out is left in any state; the caller removes it. Convert does not
// sync and does not close out.
func Convert(ctx context.Context, layers []Layer, out *os.File, opts Options) (Stats, error) {
	return Stats{}, errors.ErrUnsupported
}
