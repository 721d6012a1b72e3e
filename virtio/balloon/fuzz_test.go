package balloon

import (
	"testing"

	"github.com/hutchvm/hutch/virtio/virtiotest"
)

// FuzzDevice is a hostile guest: registers, rings and memory.
func FuzzDevice(f *testing.F) {
	f.Add([]byte{5, 0, 8, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 5, 2, 10, 0, 0, 4, 0, 9, 9, 9, 9, 9, 9, 9, 9, 13, 0})
	f.Add([]byte{6, 3, 0, 0, 0, 0, 1, 0, 0xff, 0xff, 3, 0, 8, 2, 9, 9, 11, 2, 0, 0, 0, 12})
	f.Fuzz(func(t *testing.T, data []byte) {
		virtiotest.Fuzz(t, New(Config{}), data)
	})
}
