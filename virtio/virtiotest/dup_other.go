//go:build !linux

package virtiotest

import (
	"os"

	"github.com/hutchvm/hutch/virtio"
)

func dup(int) (*os.File, error) { return nil, virtio.ErrUnsupported }

func ring(int) {}
