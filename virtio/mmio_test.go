package virtio_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hutchvm/hutch/virtio"
	"github.com/hutchvm/hutch/virtio/guestmem"
	"github.com/hutchvm/hutch/virtio/virtiotest"
)

const offered = 1<<3 | 1<<50 | virtio.FeatureIndirectDesc | virtio.FeatureEventIdx | virtio.FeatureVersion1

func TestIdentity(t *testing.T) {
	d := virtiotest.Attach(t, &echo{})
	for off, want := range map[uint64]uint32{
		virtio.RegMagicValue: 0x74726976,
		virtio.RegVersion:    2,
		virtio.RegDeviceID:   42,
		virtio.RegStatus:     0,
		// No shared memory: a length of -1 and no address (4.2.2).
		virtio.RegSHMLenLow:   ^uint32(0),
		virtio.RegSHMLenHigh:  ^uint32(0),
		virtio.RegSHMBaseLow:  ^uint32(0),
		virtio.RegSHMBaseHigh: ^uint32(0),
		// VIRTIO_F_RING_RESET is not offered.
		virtio.RegQueueReset: 0,
		// Write-only or no registers.
		virtio.RegQueueNotify: 0,
		virtio.RegQueueSel:    0,
		0x0f0:                 0,
	} {
		if got := d.Read32(off); got != want {
			t.Errorf("register %#x is %#x, want %#x", off, got, want)
		}
	}
	if got := d.Offered(); got != offered {
		t.Errorf("features %#x, want %#x", got, uint64(offered))
	}
	d.Write32(virtio.RegDeviceFeaturesSel, 2)
	if got := d.Read32(virtio.RegDeviceFeatures); got != 0 {
		t.Errorf("features of page 2: %#x", got)
	}
	for sel, want := range []uint32{16, 256, 0, 0} {
		d.Write32(virtio.RegQueueSel, uint32(sel))
		if got := d.Read32(virtio.RegQueueSizeMax); got != want {
			t.Errorf("queue %d: maximum %d, want %d", sel, got, want)
		}
	}
	d.Write32(virtio.RegQueueSel, ^uint32(0))
	if got := d.Read32(virtio.RegQueueSizeMax) | d.Read32(virtio.RegQueueReady); got != 0 {
		t.Errorf("queue -1 exists: %#x", got)
	}
}

// TestAccessWidth: registers are accessed as aligned 32-bit words only (4.2.2.2).
func TestAccessWidth(t *testing.T) {
	d := virtiotest.Attach(t, &echo{})
	for off := uint64(0); off < 0x100; off++ {
		for _, n := range []int{0, 1, 2, 3, 4, 8, 16} {
			if n == 4 && off%4 == 0 {
				continue
			}
			p := make([]byte, n)
			for i := range p {
				p[i] = 0xff
			}
			d.T.Write(off, p)
			d.T.Read(off, p)
			if diff := cmp.Diff(make([]byte, n), p); diff != "" {
				t.Errorf("%d bytes at %#x (-want +got)\n%s", n, off, diff)
			}
		}
	}
	if st := d.Status(); st != 0 {
		t.Errorf("status %#x after writes of wrong width", st)
	}
}

func TestConfigSpace(t *testing.T) {
	dev := &echo{}
	d := virtiotest.Attach(t, dev)
	d.SetConfig(0, 8, 0x1122334455667788)
	if got := d.Config(0, 8); got != 0 {
		t.Errorf("written without a driver: %#x", got)
	}
	d.Negotiate(offered)
	d.SetConfig(0, 8, 0x1122334455667788)
	for _, tt := range []struct {
		off  uint64
		n    int
		want uint64
	}{
		{0, 8, 0x1122334455667788}, {0, 4, 0x55667788}, {4, 4, 0x11223344}, {1, 1, 0x77}, {3, 2, 0x4455}, {6, 4, 0x1122},
		{8, 8, 0}, {0xeff, 1, 0}, {0xef8, 8, 0}, {0xef9, 8, 0}, {0xf00, 1, 0},
	} {
		if got := d.Config(tt.off, tt.n); got != tt.want {
			t.Errorf("%d bytes at %#x: %#x, want %#x", tt.n, tt.off, got, tt.want)
		}
	}
	for _, n := range []int{0, 3, 5, 16} {
		p := make([]byte, n)
		d.T.Read(virtio.RegConfig, p)
		if diff := cmp.Diff(make([]byte, n), p); diff != "" {
			t.Errorf("%d bytes (-want +got)\n%s", n, diff)
		}
	}
	// Past the window, up to where the offset wraps.
	var p [8]byte
	d.T.Read(^uint64(0)-3, p[:])
	d.T.Write(^uint64(0)-3, p[:])
	if got := d.Config(0, 8); got != 0x1122334455667788 {
		t.Errorf("changed to %#x", got)
	}
}

// TestStatus walks the status machine of 3.1.1 in right and wrong ways.
func TestStatus(t *testing.T) {
	const need = virtio.FeatureVersion1
	for _, tt := range []struct {
		name     string
		features uint64
		writes   []uint32
		want     []uint32
	}{
		{"as it should be", need, []uint32{1, 3, 11, 15}, []uint32{1, 3, 11, 15}},
		{"driver first", need, []uint32{2, 3}, []uint32{0, 0}},
		{"two steps at once", need, []uint32{3, 1, 11, 3, 15}, []uint32{0, 1, 1, 3, 3}},
		{"everything at once", need, []uint32{15}, []uint32{0}},
		{"OK before features", need, []uint32{1, 3, 7}, []uint32{1, 3, 3}},
		{"bits are never cleared", need, []uint32{1, 3, 1, 2, 11, 3, 9, 15, 11, 7}, []uint32{1, 3, 3, 3, 11, 11, 11, 15, 15, 15}},
		{"a bit that is not defined", need, []uint32{1, 17, 3, 19, 0xffffff03, 0x83}, []uint32{1, 1, 3, 3, 3, 131}},
		{"needs-reset is the device's", need, []uint32{64, 65, 1, 67}, []uint32{0, 0, 1, 1}},
		{"reset", need, []uint32{1, 3, 0, 1, 0, 0}, []uint32{1, 3, 0, 1, 0, 0}},
		{"reset when live", need, []uint32{1, 3, 11, 15, 0, 3, 1}, []uint32{1, 3, 11, 15, 0, 0, 1}},
		{"failed", need, []uint32{1, 129, 3, 0}, []uint32{1, 129, 129, 0}},
		{"failed when live", need, []uint32{1, 3, 11, 15, 143, 15, 0}, []uint32{1, 3, 11, 15, 143, 143, 0}},
		{"no VERSION_1", 1 << 3, []uint32{1, 3, 11, 15}, []uint32{1, 3, 3, 3}},
		{"not offered", need | 1<<4, []uint32{1, 3, 11}, []uint32{1, 3, 3}},
		{"not offered, high", need | 1<<51, []uint32{1, 3, 11}, []uint32{1, 3, 3}},
		{"transport bit not offered", need | 1<<40, []uint32{1, 3, 11}, []uint32{1, 3, 3}},
		{"nothing", 0, []uint32{1, 3, 11}, []uint32{1, 3, 3}},
		{"all", offered, []uint32{1, 3, 11}, []uint32{1, 3, 11}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := virtiotest.Attach(t, &echo{})
			var got []uint32
			for _, v := range tt.writes {
				d.Write32(virtio.RegStatus, v)
				got = append(got, d.Status())
				if d.Status() == 3 {
					d.Write32(virtio.RegDriverFeaturesSel, 1)
					d.Write32(virtio.RegDriverFeatures, uint32(tt.features>>32))
					d.Write32(virtio.RegDriverFeaturesSel, 2) // no such page
					d.Write32(virtio.RegDriverFeatures, ^uint32(0))
					d.Write32(virtio.RegDriverFeaturesSel, 0)
					d.Write32(virtio.RegDriverFeatures, uint32(tt.features))
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("status after writes of %v (-want +got)\n%s", tt.writes, diff)
			}
		})
	}
}

// TestFeaturesFrozen: features written before DRIVER or after FEATURES_OK do not
// count.
func TestFeaturesFrozen(t *testing.T) {
	dev := &echo{}
	d := virtiotest.Attach(t, dev)
	d.Write32(virtio.RegDriverFeaturesSel, 0)
	d.Write32(virtio.RegDriverFeatures, 1<<7) // too early, and not offered
	if !d.Negotiate(virtio.FeatureVersion1 | 1<<3) {
		t.Fatal("features were refused")
	}
	d.Write32(virtio.RegDriverFeaturesSel, 0)
	d.Write32(virtio.RegDriverFeatures, 1<<7)
	d.SetupQueues()
	d.DriverOK()
	d.Write32(virtio.RegDriverFeatures, 1<<7)
	d.T.Pause()
	if got := dev.session().Features; got != virtio.FeatureVersion1|1<<3 {
		t.Errorf("features %#x", got)
	}
}

// TestQueueRegisters: when queue registers can be written, and what is refused.
func TestQueueRegisters(t *testing.T) {
	d := virtiotest.Attach(t, &echo{})
	ready := func(q *virtiotest.Queue) uint32 {
		q.Configure()
		return d.Read32(virtio.RegQueueReady)
	}
	// Before FEATURES_OK nothing is taken.
	at := d.Alloc(0x10000)
	queue := func(index int, size uint16) *virtiotest.Queue {
		return &virtiotest.Queue{D: d, Index: index, Size: size, DescAddr: at, AvailAddr: at + 0x8000, UsedAddr: at + 0xa000}
	}
	if ready(queue(0, 16)) != 0 {
		t.Error("queue is ready before FEATURES_OK")
	}
	if !d.Negotiate(offered) {
		t.Fatal("features were refused")
	}
	// Sizes that are 0 or not a power of two: CVE-2017-17381.
	for _, size := range []uint16{0, 3, 15, 17, 32, 0x8000} {
		if ready(queue(0, size)) != 0 {
			t.Errorf("queue of size %d is ready, the maximum is 16", size)
		}
	}
	// A size that is valid only when it is cut to 16 bits.
	d.Write32(virtio.RegQueueSize, 0x10010)
	d.Write32(virtio.RegQueueReady, 1)
	if d.Read32(virtio.RegQueueReady) != 0 {
		t.Error("queue of size 0x10010 is ready")
	}
	for name, q := range map[string]*virtiotest.Queue{
		"rings at 0":           {D: d, Size: 16},
		"rings outside":        {D: d, Size: 16, DescAddr: 1 << 40, AvailAddr: 1 << 41, UsedAddr: 1 << 42},
		"device registers":     {D: d, Size: 16, DescAddr: 0xd0000000, AvailAddr: 0xd0001000, UsedAddr: 0xd0002000}, // CVE-2024-3446
		"odd":                  {D: d, Size: 16, DescAddr: at + 1, AvailAddr: at + 0x8001, UsedAddr: at + 0xa001},
		"end of address space": {D: d, Size: 16, DescAddr: at, AvailAddr: at + 0x8000, UsedAddr: ^uint64(0) - 3},
		"does not exist":       {D: d, Index: 2, Size: 16, DescAddr: at, AvailAddr: at + 0x8000, UsedAddr: at + 0xa000},
	} {
		if ready(q) != 0 {
			t.Errorf("%s: queue is ready", name)
		}
	}
	if ready(queue(0, 16)) != 1 {
		t.Fatal("a good queue is not ready")
	}
	// While it is ready its registers are frozen.
	d.Write32(virtio.RegQueueSize, 3)
	d.Write32(virtio.RegQueueDescHigh, 1)
	d.Write32(virtio.RegQueueReady, 2) // neither 0 nor 1
	if d.DriverOK() != 15 || d.Read32(virtio.RegQueueReady) != 1 {
		t.Errorf("a ready queue was changed: status %#x, %v", d.Status(), d.Failures())
	}
	d.CheckHealthy()
}

// TestQueueUnready: QueueReady 0 takes the queue back, as long as nothing runs.
func TestQueueUnready(t *testing.T) {
	dev := &echo{}
	d := virtiotest.Attach(t, dev)
	d.Negotiate(offered)
	d.SetupQueues()
	d.Write32(virtio.RegQueueSel, 1)
	d.Write32(virtio.RegQueueReady, 0)
	if d.Read32(virtio.RegQueueReady) != 0 {
		t.Error("QueueReady 0 was ignored")
	}
	d.DriverOK()
	if s := dev.session(); s.Queue(0) == nil || s.Queue(1) != nil || s.Queue(2) != nil || s.Queue(-1) != nil {
		t.Errorf("queues %v", s.Queues)
	}
	// Kicks of a queue that exists but is not set up are ignored.
	d.Write32(virtio.RegQueueNotify, 1)
	dev.session().Wake(1)
	dev.session().Notify(1)
	d.Queues[0].Do([][]byte{{1}}, 1)
	d.CheckHealthy()
}

// TestFrozenAfterActivation is Firecracker's CVE-2026-5747: the driver changed the
// size of a queue while the device used it.
func TestFrozenAfterActivation(t *testing.T) {
	d := virtiotest.New(t, &echo{})
	for i := range d.Queues {
		d.Write32(virtio.RegQueueSel, uint32(i))
		for off := uint64(virtio.RegQueueSize); off <= virtio.RegQueueReset; off += 4 {
			if off == virtio.RegQueueNotify || off == virtio.RegStatus || off == virtio.RegInterruptACK {
				continue
			}
			for _, v := range []uint32{0, 1, 7, 0x8000, ^uint32(0)} {
				d.Write32(off, v)
			}
		}
		d.Write32(virtio.RegQueueSel, uint32(i))
		if d.Read32(virtio.RegQueueReady) != 1 {
			t.Errorf("queue %d is not ready any more", i)
		}
		for range 40 {
			if u := d.Queues[i].Do([][]byte{[]byte("still here")}, 16); string(u.Data) != "still here" {
				t.Errorf("queue %d: %q", i, u.Data)
			}
		}
	}
	d.CheckHealthy()
}

// TestNotify is CVE-2011-2512: QueueNotify with the number of a queue that is not
// there; and the register works without ioeventfds.
func TestNotify(t *testing.T) {
	d := virtiotest.New(t, &echo{})
	for _, v := range []uint32{2, 3, 63, 64, 1 << 16, 1 << 31, ^uint32(0)} {
		d.Write32(virtio.RegQueueNotify, v)
	}
	for i, q := range d.Queues {
		q.Add([][]byte{[]byte("x")}, []int{1})
		d.Write32(virtio.RegQueueNotify, uint32(i))
		if u := q.MustUsed(); string(u.Data) != "x" {
			t.Errorf("queue %d: %q", i, u.Data)
		}
	}
	d.CheckHealthy()
}

// TestNotifyStorm: a guest that kicks and pokes as fast as it can costs the host
// neither memory nor log lines.
func TestNotifyStorm(t *testing.T) {
	d := virtiotest.New(t, &echo{})
	d.T.Pause() // the workers would be counted too
	p := binary.LittleEndian.AppendUint32(nil, 0)
	if n := testing.AllocsPerRun(1000, func() {
		d.T.Write(virtio.RegQueueNotify, p)
		d.T.Write(virtio.RegQueueSel, p)
		d.T.Write(virtio.RegInterruptACK, p)
		d.T.Read(virtio.RegInterruptStatus, p)
		d.T.Read(virtio.RegQueueReady, p)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	d.T.Resume()
	for range 10000 {
		d.Queues[0].ForceKick()
	}
	d.Queues[0].Do([][]byte{{1}}, 1)
	d.CheckHealthy()
}

func TestInterruptStatus(t *testing.T) {
	dev := &echo{}
	mem, err := guestmem.FromBytes(0, make([]byte, 4096))
	if err != nil {
		t.Fatal(err)
	}
	// Without the mock driver's interrupt handler, which acknowledges.
	m, err := virtio.NewMMIO(dev, virtio.MMIOOptions{Mem: mem})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	d := &virtiotest.Driver{TB: t, T: m}
	d.Negotiate(virtio.FeatureVersion1)
	d.DriverOK()
	gen := d.Read32(virtio.RegConfigGeneration)
	dev.session().ConfigChanged()
	if got := d.Read32(virtio.RegInterruptStatus); got != 2 {
		t.Errorf("interrupt status %#x, want 2", got)
	}
	if got := d.Read32(virtio.RegConfigGeneration); got == gen {
		t.Error("the generation did not change")
	}
	d.Write32(virtio.RegInterruptACK, 1) // not the one that is set
	if got := d.Read32(virtio.RegInterruptStatus); got != 2 {
		t.Errorf("interrupt status %#x, want 2", got)
	}
	d.Write32(virtio.RegInterruptACK, 0xffffffff)
	if got := d.Read32(virtio.RegInterruptStatus); got != 0 {
		t.Errorf("interrupt status %#x, want 0", got)
	}
	dev.session().ConfigChanged()
	d.Write32(virtio.RegStatus, 0)
	if got := d.Read32(virtio.RegInterruptStatus); got != 0 {
		t.Errorf("interrupt status %#x after reset, want 0", got)
	}
}

// TestConfigGeneration: a driver that reads a field in two parts and compares
// generations never gets half of a change.
func TestConfigGeneration(t *testing.T) {
	dev := &echo{}
	d := virtiotest.New(t, dev)
	s := dev.session()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 2000 {
			s.UpdateConfig(func() {
				dev.mu.Lock()
				defer dev.mu.Unlock()
				for b := range dev.config {
					dev.config[b] = byte(i)
				}
			})
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		for {
			gen := d.Read32(virtio.RegConfigGeneration)
			lo, hi := d.Config(0, 4), d.Config(4, 4)
			if gen == d.Read32(virtio.RegConfigGeneration) {
				if lo != hi {
					t.Fatalf("halves %#x and %#x of one generation", lo, hi)
				}
				break
			}
		}
	}
}

func TestNewMMIORefuses(t *testing.T) {
	mem, err := guestmem.FromBytes(0, make([]byte, 4096))
	if err != nil {
		t.Fatal(err)
	}
	for i, dev := range []virtio.Device{
		&shaped{features: 1 << 28},
		&shaped{features: 1 << 32},
		&shaped{features: 1 << 24},
		&shaped{sizes: []uint16{0}},
		&shaped{sizes: []uint16{16, 3}},
		&shaped{sizes: []uint16{1<<15 + 1}},
		&shaped{sizes: make([]uint16, 65)},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			m, err := virtio.NewMMIO(dev, virtio.MMIOOptions{Mem: mem, Name: "odd"})
			var e *virtio.Error
			if m != nil || !errors.Is(err, virtio.ErrConfig) || !errors.As(err, &e) || e.Device != "odd" {
				t.Errorf("%v", err)
			}
		})
	}
	if _, err := virtio.NewMMIO(&echo{}, virtio.MMIOOptions{}); !errors.Is(err, virtio.ErrConfig) {
		t.Errorf("without memory: %v", err)
	}
}

// shaped is a device with odd properties.
type shaped struct {
	echo
	features uint64
	sizes    []uint16
}

func (s *shaped) Features() uint64     { return s.features }
func (s *shaped) QueueSizes() []uint16 { return s.sizes }
