package vmm

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hutchvm/hutch/boot"
	"github.com/hutchvm/hutch/kvm"
	"github.com/hutchvm/hutch/virtio/guestmem"
)

const testMemory = boot.HoleStart + 64<<20 // some of it above 4 GiB

// fakeMachine has memory only.
func fakeMachine(t testing.TB, size uint64) *Machine {
	t.Helper()
	mem, err := memoryOptions.Allocate(boot.RAM(size)...)
	if err != nil {
		t.Skip(err) // no Linux
	}
	t.Cleanup(func() { mem.Close() })
	return &Machine{mem: mem}
}

func fakeState(size uint64) *machineState {
	return &machineState{Memory: size, VCPUs: make([]vcpuState, 1), Devices: make([]deviceState, 1)}
}

// written is the snapshot of m in a file.
func written(t testing.TB, m *Machine, s *machineState) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "snapshot"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := m.write(f, s); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestSnapshotOfMemory(t *testing.T) {
	m := fakeMachine(t, testMemory)
	places := []uint64{0, 4096, 1 << 20, 1<<20 + pieceGap/2, 512<<20 + 4096, boot.HoleStart - 4096, boot.HoleEnd, boot.HoleEnd + 64<<20 - 4096}
	for _, gpa := range places {
		if _, err := m.mem.WriteAt(binary.LittleEndian.AppendUint64(nil, gpa+1), int64(gpa)+8); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.mem.WriteAt(make([]byte, 1<<20), 100<<20); err != nil { // touched and zero
		t.Fatal(err)
	}
	f := written(t, m, fakeState(testMemory))
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() > 1<<20 {
		t.Errorf("the file has %d bytes for %d pages", st.Size(), len(places))
	}
	s, err := OpenSnapshot(f)
	if err != nil {
		t.Fatal(err)
	}
	if s.Memory() != testMemory || s.CPUs() != 1 || len(s.pieces) != 6 {
		t.Errorf("%d bytes, %d CPUs, pieces %v", s.Memory(), s.CPUs(), s.pieces)
	}
	// Machines do not see each other's writes, be what they write to mapped or copied.
	for _, hot := range [][]uint64{nil, nil, {0, 512 << 20, boot.HoleEnd, 12345, 1 << 60}} {
		again := fakeMachine(t, testMemory)
		if err := again.mapSnapshot(s, hot); err != nil {
			t.Fatal(err)
		}
		for _, gpa := range places {
			var b [4096]byte
			if _, err := again.mem.ReadAt(b[:], int64(gpa)); err != nil {
				t.Fatal(err)
			}
			want := make([]byte, 4096)
			binary.LittleEndian.PutUint64(want[8:], gpa+1)
			if !bytes.Equal(b[:], want) {
				t.Errorf("page %#x is another", gpa)
			}
			if _, err := again.mem.WriteAt(make([]byte, 4096), int64(gpa)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestHot(t *testing.T) {
	const size = 128 << 20
	m := fakeMachine(t, size)
	for _, gpa := range []uint64{0, hotSize, 3*hotSize - guestPage, 8 * hotSize} {
		if _, err := m.mem.WriteAt([]byte{1}, int64(gpa)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := OpenSnapshot(written(t, m, fakeState(size)))
	if err != nil {
		t.Fatal(err)
	}
	again := fakeMachine(t, size)
	if err := again.mapSnapshot(s, nil); err != nil {
		t.Fatal(err)
	}
	var page [1]byte
	again.mem.ReadAt(page[:], 8*hotSize) // reading does not count
	for _, w := range []struct{ gpa, size uint64 }{{hotSize, hotSize / 2}, {2 * hotSize, hotSize/2 - guestPage}, {4 * hotSize, hotSize}} {
		if _, err := again.mem.WriteAt(bytes.Repeat([]byte{2}, int(w.size)), int64(w.gpa)); err != nil {
			t.Fatal(err)
		}
	}
	hot, err := again.Hot()
	if err != nil || !slices.Equal(hot, []uint64{hotSize}) {
		t.Errorf("hot: %#x, %v", hot, err)
	}
}

// sealed gives a body a header that fits.
func sealed(body []byte, stateLen, pieces int) []byte {
	head := binary.LittleEndian.AppendUint32([]byte(snapshotMagic), SnapshotVersion)
	head = binary.LittleEndian.AppendUint32(head, uint32(stateLen))
	head = binary.LittleEndian.AppendUint32(head, uint32(pieces))
	head = append(head, make([]byte, digestOffset-len(head))...)
	sum := snapshotDigest(head, body)
	return append(append(head, sum[:]...), body...)
}

// forged is the head of a snapshot with that state and those pieces.
func forged(t testing.TB, s *machineState, pieces ...guestmem.Range) []byte {
	t.Helper()
	body, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	n := len(body)
	for _, p := range pieces {
		body = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(body, p.GPA), p.Size)
	}
	b := sealed(body, n, len(pieces))
	return append(b, make([]byte, dataStart(len(body))-int64(len(b)))...)
}

func TestHostileSnapshots(t *testing.T) {
	const size = 128 << 20
	page := func(gpa uint64) guestmem.Range { return guestmem.Range{GPA: gpa, Size: guestPage} }
	good := append(forged(t, fakeState(size), page(0), page(8<<20)), make([]byte, 2*guestPage)...)
	if _, err := parseSnapshot(bytes.NewReader(good), int64(len(good))); err != nil {
		t.Fatal(err)
	}
	state := func(spoil func(*machineState)) []byte {
		s := fakeState(size)
		spoil(s)
		return forged(t, s)
	}
	edit := func(off int, v byte) []byte {
		b := bytes.Clone(good)
		b[off] ^= v
		return b
	}
	with := func(pages int, pieces ...guestmem.Range) []byte {
		return append(forged(t, fakeState(size), pieces...), make([]byte, pages*guestPage)...)
	}
	for name, b := range map[string][]byte{
		"empty":             nil,
		"half a header":     good[:40],
		"half a state":      good[:snapshotHeader+20],
		"no memory":         good[:len(good)-2*guestPage],
		"a page short":      good[:len(good)-guestPage],
		"too long":          append(bytes.Clone(good), 0),
		"magic":             edit(0, 1),
		"version":           edit(8, 2),
		"state length":      edit(15, 0xff),
		"number of pieces":  edit(19, 0xff),
		"one more piece":    edit(16, 1),
		"digest":            edit(digestOffset, 1),
		"state":             edit(snapshotHeader+3, 1),
		"no JSON":           sealed([]byte("{"), 1, 0),
		"another JSON":      sealed([]byte("[1]"), 3, 0),
		"little memory":     state(func(s *machineState) { s.Memory = 1 << 20 }),
		"much memory":       state(func(s *machineState) { s.Memory = 1 << 62 }),
		"odd memory":        state(func(s *machineState) { s.Memory++ }),
		"no CPU":            state(func(s *machineState) { s.VCPUs = nil }),
		"many CPUs":         state(func(s *machineState) { s.VCPUs = make([]vcpuState, boot.MaxCPUs+1) }),
		"no device":         state(func(s *machineState) { s.Devices = nil }),
		"many devices":      state(func(s *machineState) { s.Devices = make([]deviceState, MaxDevices+1) }),
		"many registers":    state(func(s *machineState) { s.VCPUs[0].MSRs = make([]kvm.MSREntry, maxMSRs+1) }),
		"piece outside":     with(1, page(size)),
		"piece far outside": with(1, page(1<<63)),
		"piece wraps":       with(1, guestmem.Range{GPA: guestPage, Size: ^uint64(guestPage - 1)}),
		"piece of nothing":  with(0, guestmem.Range{GPA: guestPage}),
		"odd piece":         with(1, guestmem.Range{GPA: 1, Size: guestPage}),
		"odd size":          with(1, guestmem.Range{GPA: 0, Size: guestPage + 1}),
		"pieces overlap":    with(3, guestmem.Range{GPA: 0, Size: 2 * guestPage}, page(guestPage)),
		"pieces descend":    with(2, page(2*guestPage), page(0)),
		"all of it, a page": with(1, guestmem.Range{GPA: 0, Size: size}),
	} {
		if _, err := parseSnapshot(bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrSnapshot) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestUnpackChecksLengths(t *testing.T) {
	for _, n := range []int{0, 1, 4096} {
		if err := put(make(raw, n), "registers", func(struct{ A, B uint64 }) error { return nil }); !errors.Is(err, ErrSnapshot) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func FuzzSnapshot(f *testing.F) {
	f.Add([]byte("{}"), uint16(2), uint16(0))
	page := guestmem.Range{GPA: 0, Size: guestPage}
	good := forged(f, fakeState(128<<20), page)
	n := int(binary.LittleEndian.Uint32(good[12:]))
	f.Add(good[snapshotHeader:snapshotHeader+n+pieceSize], uint16(n), uint16(1))
	f.Fuzz(func(t *testing.T, body []byte, stateLen, pieces uint16) {
		b := sealed(body, int(stateLen), int(pieces))
		b = append(b, make([]byte, max(0, dataStart(len(body))-int64(len(b))))...)
		for _, pages := range []int{0, 1} {
			data := append(bytes.Clone(b), make([]byte, pages*guestPage)...)
			s, err := parseSnapshot(bytes.NewReader(data), int64(len(data)))
			if err != nil {
				if !errors.Is(err, ErrSnapshot) {
					t.Fatal(err)
				}
				continue
			}
			for _, p := range s.pieces {
				if !insideOne(boot.RAM(s.Memory()), p.Range) {
					t.Fatalf("piece %+v", p)
				}
			}
		}
	})
}
