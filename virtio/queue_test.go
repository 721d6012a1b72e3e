package virtio_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/hutchvm/hutch/virtio/virtiotest"
)

func TestEcho(t *testing.T) {
	for _, tt := range []virtiotest.Options{
		{},
		{NoEventIdx: true},
		{NoIndirect: true},
		{NoEventIdx: true, NoIndirect: true},
		{QueueSize: 2},
	} {
		t.Run(fmt.Sprintf("event_idx=%t,indirect=%t,size=%d", !tt.NoEventIdx, !tt.NoIndirect, tt.QueueSize), func(t *testing.T) {
			d := virtiotest.New(t, &echo{}, tt)
			for i := range 300 { // the index wraps round the ring many times
				for _, q := range d.Queues {
					want := fmt.Appendf(nil, "request %d of queue %d", i, q.Index)
					u := q.Do([][]byte{want}, 64)
					if !bytes.Equal(u.Data, want) {
						t.Fatalf("got %q, want %q", u.Data, want)
					}
				}
			}
			d.CheckHealthy()
		})
	}
}
