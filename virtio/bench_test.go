package virtio_test

import (
	"testing"

	"github.com/hutchvm/hutch/virtio/virtiotest"
)

// BenchmarkRoundTrip is a request of 64 bytes: kick through an eventfd, the queue's
// goroutine, an interrupt through an eventfd, and the mock driver's own cost.
func BenchmarkRoundTrip(b *testing.B) {
	d := virtiotest.New(b, &echo{})
	q := d.Queues[0]
	req := [][]byte{make([]byte, 64)}
	for b.Loop() {
		q.Do(req, 64)
	}
}
