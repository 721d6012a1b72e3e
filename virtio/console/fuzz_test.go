package console

import (
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/hutchvm/hutch/virtio/virtiotest"
)

// FuzzDevice is a hostile guest: registers, rings and memory.
func FuzzDevice(f *testing.F) {
	f.Add([]byte{5, 1, 3, 0, 0, 'a', 'b', 'c', 5, 0, 0, 0x40, 0, 13, 0})
	f.Add([]byte{6, 1, 0, 0, 0, 0, 1, 0, 0xff, 0xff, 1, 0, 8, 0, 9, 9, 11, 0, 0, 0, 0, 12})
	f.Fuzz(func(t *testing.T, data []byte) {
		virtiotest.Fuzz(t, New(Config{In: strings.NewReader(strings.Repeat("input", 10000)), Out: io.Discard}), data)
	})
}

// FuzzRestore is a hostile snapshot over an idle transport.
func FuzzRestore(f *testing.F) {
	f.Add([]byte(`{"Version":1,"TxHead":-1,"Input":"aGVsbG8="}`))
	f.Add([]byte(`{"Version":1,"TxHead":5,"TxOffset":18446744073709551615}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var st State
		if json.Unmarshal(data, &st) != nil {
			return
		}
		dev := New(Config{})
		old := New(Config{})
		d := virtiotest.New(t, old)
		d.T.Pause()
		if dev.Restore(st) != nil {
			return
		}
		ts, err := d.T.Save()
		if err != nil {
			t.Fatal(err)
		}
		d2 := virtiotest.Attach(t, dev, virtiotest.Options{Mem: d.Mem})
		d2.T.Pause()
		if err := d2.T.Restore(ts); err != nil && st.TxHead < 0 {
			t.Errorf("%+v: %v", st, err)
		}
		d2.T.Resume()
		d2.CheckNoPanic()
	})
}
