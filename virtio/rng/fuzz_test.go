package rng

import (
	"testing"

	"github.com/hutchvm/hutch/virtio/virtiotest"
)

// FuzzDevice is a hostile guest: registers, rings and memory.
func FuzzDevice(f *testing.F) {
	f.Add([]byte{5, 0, 0, 0x40, 0, 13, 0, 5, 0, 3, 1, 0, 'a', 'b', 'c'})
	f.Add([]byte{6, 0, 0, 0, 0, 0, 1, 0, 0xff, 0xff, 3, 0, 8, 0, 9, 9, 11, 0, 0, 0, 0, 12})
	f.Fuzz(func(t *testing.T, data []byte) {
		virtiotest.Fuzz(t, newDevice(t, Config{Source: &counter{}}), data)
	})
}
