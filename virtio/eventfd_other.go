//go:build !linux

package virtio

import "os"

// eventfd does not exist here.
type eventfd struct {
	f  *os.File
	fd int
}

func newEventfd() (eventfd, error) { return eventfd{fd: -1}, ErrUnsupported }
