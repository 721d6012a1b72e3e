package virtio_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/virtiotest"
)

func TestMigrate(t *testing.T) {
	for _, opt := range []virtiotest.Options{{}, {NoEventIdx: true}, {Unused: []int{0}}} {
		d := virtiotest.New(t, &echo{}, opt)
		q := d.Queues[1]
		for i := range 20 {
			q.Do([][]byte{[]byte("before")}, 16)
			d.T.Pause()
			q.Add([][]byte{[]byte("across")}, []int{16})
			q.Kick() // goes to a device that will not live to see it
			d.Migrate(&echo{})
			if u := q.MustUsed(); string(u.Data) != "across" {
				t.Fatalf("migration %d: %q", i, u.Data)
			}
		}
		d.CheckHealthy()
	}
}

// TestMigrateStages saves in every state of the driver's life.
func TestMigrateStages(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setup func(d *virtiotest.Driver)
	}{
		{"power-on", func(d *virtiotest.Driver) {}},
		{"acknowledged", func(d *virtiotest.Driver) { d.Write32(virtio.RegStatus, 1) }},
		{"driver", func(d *virtiotest.Driver) {
			d.Write32(virtio.RegStatus, 1)
			d.Write32(virtio.RegStatus, 3)
			d.Write32(virtio.RegDriverFeaturesSel, 1)
			d.Write32(virtio.RegDriverFeatures, 1)
		}},
		{"features", func(d *virtiotest.Driver) { d.Negotiate(offered) }},
		{"queues", func(d *virtiotest.Driver) { d.Negotiate(offered); d.SetupQueues() }},
		{"live", func(d *virtiotest.Driver) { d.Start() }},
		{"failed", func(d *virtiotest.Driver) { d.Start(); d.Write32(virtio.RegStatus, 143) }},
		{"needs reset", func(d *virtiotest.Driver) {
			d.Start()
			d.Queues[0].PokeAvailIndex(99)
			d.Queues[0].ForceKick()
			d.WaitNeedsReset()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := virtiotest.Attach(t, &echo{})
			tt.setup(d)
			d.T.Pause()
			before, err := d.T.Save()
			if err != nil {
				t.Fatal(err)
			}
			d.Migrate(&echo{})
			d.T.Pause()
			after, err := d.T.Save()
			if err != nil {
				t.Fatal(err)
			}
			// The handler acknowledges interrupts in its own time.
			before.InterruptStatus, after.InterruptStatus = 0, 0
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("(-before +after)\n%s", diff)
			}
			d.T.Resume()
			d.Restart()
			d.Queues[0].Do([][]byte{{1}}, 1)
		})
	}
}

// TestRestoreInterrupt: an interrupt that was raised and not taken before a
// snapshot is raised again.
func TestRestoreInterrupt(t *testing.T) {
	d := virtiotest.New(t, &echo{})
	d.T.Pause()
	st, err := d.T.Save()
	if err != nil {
		t.Fatal(err)
	}
	st.InterruptStatus = 2
	d2 := virtiotest.Attach(t, &echo{}, virtiotest.Options{Mem: d.Mem})
	d2.T.Pause()
	if err := d2.T.Restore(st); err != nil {
		t.Fatal(err)
	}
	d2.T.Resume()
	d2.WaitConfig(0)
}

// TestRestoreHostile: a snapshot is not trusted (CVE-2013-4150 and many more).
func TestRestoreHostile(t *testing.T) {
	src := virtiotest.New(t, &echo{})
	src.T.Pause()
	good, err := src.T.Save()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(s *virtio.State){
		"version":               func(s *virtio.State) { s.Version++ },
		"another device":        func(s *virtio.State) { s.DeviceID = 2 },
		"other features":        func(s *virtio.State) { s.Offered ^= 1 << 5 },
		"not offered":           func(s *virtio.State) { s.DriverFeatures |= 1 << 7 },
		"no VERSION_1":          func(s *virtio.State) { s.DriverFeatures &^= virtio.FeatureVersion1 },
		"odd status":            func(s *virtio.State) { s.Status = 4 },
		"undefined status":      func(s *virtio.State) { s.Status |= 1 << 8 },
		"interrupt status":      func(s *virtio.State) { s.InterruptStatus = 4 },
		"no queues":             func(s *virtio.State) { s.Queues = nil },
		"too many queues":       func(s *virtio.State) { s.Queues = append(s.Queues, s.Queues[0]) },
		"ready too early":       func(s *virtio.State) { s.Status = 3 },
		"features too early":    func(s *virtio.State) { s.Status = 1; s.Queues = make([]virtio.QueueState, 2) },
		"size 0":                func(s *virtio.State) { s.Queues[0].Size = 0 },
		"size 3":                func(s *virtio.State) { s.Queues[0].Size = 3 },
		"size over the maximum": func(s *virtio.State) { s.Queues[0].Size = 32 },
		"rings outside":         func(s *virtio.State) { s.Queues[1].Desc = 1 << 50 },
		"rings wrap":            func(s *virtio.State) { s.Queues[1].Device = ^uint64(0) - 3 },
		"ring indices":          func(s *virtio.State) { s.Queues[1].Ring.NextAvail = 9 },
		"ring heads":            func(s *virtio.State) { s.Queues[1].Ring.NextAvail = 1; s.Queues[1].Ring.InFlight = []uint16{256} },
	} {
		t.Run(name, func(t *testing.T) {
			s := good
			s.Queues = append([]virtio.QueueState(nil), good.Queues...)
			change(&s)
			dev := &echo{}
			d := virtiotest.Attach(t, dev, virtiotest.Options{Mem: src.Mem})
			if err := d.T.Restore(s); !errors.Is(err, virtio.ErrNotPaused) {
				t.Errorf("restore while running: %v", err)
			}
			d.T.Pause()
			if err := d.T.Restore(s); !errors.Is(err, virtio.ErrState) {
				t.Errorf("%v, want %v", err, virtio.ErrState)
			}
			d.T.Resume()
			if d.Status() != 0 || dev.session() != nil {
				t.Errorf("status %#x after a refused restore", d.Status())
			}
		})
	}
	// The state as it is works, but only for a new transport.
	d := virtiotest.Attach(t, &echo{}, virtiotest.Options{Mem: src.Mem})
	if _, err := d.T.Save(); !errors.Is(err, virtio.ErrNotPaused) {
		t.Errorf("save while running: %v", err)
	}
	d.T.Pause()
	if err := d.T.Restore(good); err != nil {
		t.Fatal(err)
	}
	if err := d.T.Restore(good); !errors.Is(err, virtio.ErrState) {
		t.Errorf("restored twice: %v", err)
	}
	// A device that refuses to be activated.
	d = virtiotest.Attach(t, &echo{activate: errTest}, virtiotest.Options{Mem: src.Mem})
	d.T.Pause()
	if err := d.T.Restore(good); !errors.Is(err, errTest) {
		t.Errorf("%v", err)
	}
}

func FuzzRestore(f *testing.F) {
	f.Add([]byte(`{"Version":1,"DeviceID":42,"Offered":1125904739926024,"Status":15,"DriverFeatures":4294967296,` +
		`"Queues":[{"Size":16,"Ready":true,"Desc":1048576,"Driver":1052672,"Device":1056768},{}]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s virtio.State
		if json.Unmarshal(data, &s) != nil {
			return
		}
		d := virtiotest.Attach(t, &echo{})
		d.T.Pause()
		if err := d.T.Restore(s); err == nil {
			again, err := d.T.Save()
			if err != nil {
				t.Fatal(err)
			}
			if again.Status != s.Status || again.DriverFeatures != s.DriverFeatures {
				t.Errorf("restored %+v, saved %+v", s, again)
			}
		}
		d.T.Resume()
		d.Reset()
		d.CheckNoPanic()
		if err := d.T.Close(); err != nil {
			t.Error(err)
		}
	})
}

// FuzzMMIO is a hostile guest against the transport alone.
func FuzzMMIO(f *testing.F) {
	f.Add([]byte{5, 0, 3, 'a', 'b', 'c', 9, 0, 11, 0, 0, 0, 0, 6, 1, 0, 0, 9, 9, 9, 9, 1, 0, 7, 1})
	f.Add([]byte{0, 0x1c, 0, 0, 0, 0, 12, 8, 0, 0xff, 0xff, 10, 1, 2, 3, 4, 13, 0})
	f.Fuzz(func(t *testing.T, data []byte) { virtiotest.Fuzz(t, &echo{}, data) })
}
