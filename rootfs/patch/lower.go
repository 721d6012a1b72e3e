package patch

import (
	"errors"
	"io"
	"os"
)

// Image returns the file system of an EROFS image of size bytes, which must not
// change while it is in use.
func Image(r io.ReaderAt, size int64) (Lower, error) {
	return nil, errors.ErrUnsupported
}

// Directory returns the file system below a directory of the host. The caller
// keeps root, and closes it when Build is done.
func Directory(root *os.Root) Lower {
	return nil
}
