package guestmem

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

const mib = 1 << 20

func allocate(t *testing.T, o Options, ranges ...Range) *Memory {
	t.Helper()
	m, err := o.Allocate(ranges...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// backings runs a test for each kind of memory.
func backings(t *testing.T, f func(t *testing.T, o Options)) {
	for name, o := range map[string]Options{
		"memfd":          {},
		"memfd huge":     {HugePages: true},
		"anonymous":      {Backing: Anonymous},
		"anonymous huge": {Backing: Anonymous, HugePages: true},
	} {
		t.Run(name, func(t *testing.T) { f(t, o) })
	}
}

func TestAllocate(t *testing.T) {
	backings(t, func(t *testing.T, o Options) {
		m := allocate(t, o, Range{4 << 30, 6 * mib}, Range{0, 4 * mib})
		regions := m.Regions()
		if len(regions) != 2 || regions[0].GPA != 0 || regions[1].GPA != 4<<30 || m.Size() != 10*mib {
			t.Fatalf("regions %+v", regions)
		}
		if regions[0].FileOffset != 0 || regions[1].FileOffset != 4*mib {
			t.Errorf("file offsets %+v", regions)
		}
		for _, r := range regions {
			if (uint64(r.HostAddr)-r.GPA)%hugePage != 0 {
				t.Errorf("region at %#x is mapped at %#x: no huge page fits both", r.GPA, r.HostAddr)
			}
		}
		if (m.FD() >= 0) != (o.Backing == Memfd) {
			t.Errorf("descriptor %d", m.FD())
		}
		// Both regions hold what is written, and nothing crosses the hole.
		for _, gpa := range []int64{0, 4*mib - 5, 4 << 30, 4<<30 + 6*mib - 5} {
			want := []byte("hello")
			if _, err := m.WriteAt(want, gpa); err != nil {
				t.Error(err)
			}
			got := make([]byte, 5)
			if _, err := m.ReadAt(got, gpa); err != nil || !bytes.Equal(got, want) {
				t.Errorf("read %q at %#x: %v", got, gpa, err)
			}
		}
		if _, err := m.Slice(4*mib-1, 2); !errors.Is(err, ErrOutOfRange) {
			t.Errorf("slice over the end of a region: %v", err)
		}
	})
}

// TestAdjacentRegions: a slice never spans regions, even without a hole between.
func TestAdjacentRegions(t *testing.T) {
	m := allocate(t, Options{}, Range{0, mib}, Range{mib, mib})
	if _, err := m.Slice(mib-1, 2); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("%v", err)
	}
}

// TestHugeAndLazy allocates more than a machine has: memory is taken when touched.
func TestHugeAndLazy(t *testing.T) {
	backings(t, func(t *testing.T, o Options) {
		m := allocate(t, o, Range{0, 3 << 30}, Range{4 << 30, 64 << 30})
		if err := m.StoreUint64(67<<30, 42); err != nil {
			t.Fatal(err)
		}
		n, err := m.Resident()
		if err != nil || n == 0 || n > hugePage {
			t.Errorf("%d bytes resident after one store: %v", n, err)
		}
	})
}

func TestSealed(t *testing.T) {
	m := allocate(t, Options{}, Range{0, mib})
	for _, size := range []int64{0, 4096, 2 * mib} {
		if err := unix.Ftruncate(m.FD(), size); !errors.Is(err, unix.EPERM) {
			t.Errorf("truncate to %d: %v, want EPERM", size, err)
		}
	}
	if _, err := unix.FcntlInt(uintptr(m.FD()), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); !errors.Is(err, unix.EPERM) {
		t.Errorf("add a seal: %v, want EPERM", err)
	}
	flags, err := unix.FcntlInt(uintptr(m.FD()), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor is inherited: %#x, %v", flags, err)
	}
}

func TestDiscard(t *testing.T) {
	backings(t, func(t *testing.T, o Options) {
		page := uint64(os.Getpagesize())
		m := allocate(t, o, Range{4 << 30, 8 * mib}, Range{0, 8 * mib})
		for _, r := range m.Regions() {
			b, err := m.Slice(r.GPA, r.Size)
			if err != nil {
				t.Fatal(err)
			}
			for i := range b {
				b[i] = 1
			}
		}
		before, err := m.Resident()
		if err != nil || before != 16*mib {
			t.Errorf("%d bytes resident, %v", before, err)
		}
		// Parts of pages at both ends stay.
		if err := m.Discard(4<<30+2*mib-1, 4*mib+2); err != nil {
			t.Fatal(err)
		}
		after, err := m.Resident()
		if err != nil || after != 12*mib {
			t.Errorf("%d bytes resident after discarding 4 MiB, %v", after, err)
		}
		for _, tt := range []struct {
			gpa  uint64
			want byte
		}{
			{4<<30 + 2*mib - 1, 1}, {4<<30 + 2*mib, 0}, {4<<30 + 6*mib - 1, 0}, {4<<30 + 6*mib, 1}, {2 * mib, 1},
		} {
			if b, err := m.Slice(tt.gpa, 1); err != nil || b[0] != tt.want {
				t.Errorf("byte at %#x is %d, want %d (%v)", tt.gpa, b[0], tt.want, err)
			}
		}
		for _, r := range []Range{{8*mib - page, 2 * page}, {3 << 30, page}, {^uint64(0), 2}} {
			if err := m.Discard(r.GPA, r.Size); !errors.Is(err, ErrOutOfRange) {
				t.Errorf("discard %+v: %v", r, err)
			}
		}
		if err := m.Discard(1, page-1); err != nil {
			t.Errorf("discard of less than a page: %v", err)
		}
	})
}

func TestMapFile(t *testing.T) {
	backings(t, func(t *testing.T, o Options) {
		page := uint64(os.Getpagesize())
		name := filepath.Join(t.TempDir(), "image")
		content := bytes.Repeat([]byte("kernel!!"), int(page)/8*2)
		content = append(content, "tail"...) // the last page is not full
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name) // copy-on-write needs no write permission
		if err != nil {
			t.Fatal(err)
		}
		m := allocate(t, o, Range{0, 4 * mib})
		all, err := m.Slice(0, 4*mib)
		if err != nil {
			t.Fatal(err)
		}
		for i := range all {
			all[i] = 7
		}
		if err := m.MapFile(mib, f, 0, 3*page); err != nil {
			t.Fatal(err)
		}
		if err := m.MapFile(2*mib, f, int64(page), page); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(all[mib:mib+len(content)], content) || all[mib+len(content)] != 0 {
			t.Error("the file's content is not there")
		}
		if !bytes.Equal(all[2*mib:2*mib+page], content[page:2*page]) {
			t.Error("the second piece is not there")
		}
		if all[mib-1] != 7 || all[mib+3*page] != 7 {
			t.Error("the neighbours changed")
		}
		all[mib] = 'K'
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, content) {
			t.Errorf("the guest wrote to the file (%v)", err)
		}
		if n, err := m.Resident(); err != nil || o.Backing == Anonymous && n < page {
			t.Errorf("%d bytes resident, %v: the page that was written to does not count", n, err)
		}
		// Discard drops the guest's own versions of the file's pages.
		if err := m.Discard(0, 4*mib); err != nil {
			t.Fatal(err)
		}
		if all[mib] != content[0] || all[mib+1] != content[1] || all[2*mib] != content[page] {
			t.Error("Discard took mapped pages")
		}
		for _, at := range []uint64{0, mib - 1, mib + 3*page, 2*mib - 1, 2*mib + page, 4*mib - 1} {
			if all[at] != 0 {
				t.Errorf("byte at %#x was not discarded", at)
			}
		}
		if n, err := m.Resident(); err != nil || n > 8*page && !o.HugePages {
			t.Errorf("%d bytes resident, %v", n, err)
		}
	})
}

func TestMapFileRefuses(t *testing.T) {
	page := uint64(os.Getpagesize())
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, make([]byte, page+1), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := allocate(t, Options{}, Range{0, mib})
	for _, tt := range []struct {
		name string
		gpa  uint64
		off  int64
		n    uint64
		want error
	}{
		{"odd address", 1, 0, page, ErrMisaligned},
		{"odd offset", 0, 1, page, ErrMisaligned},
		{"odd length", 0, 0, 1, ErrMisaligned},
		{"negative offset", 0, -int64(page), page, ErrMisaligned},
		{"file too short", 0, 0, 3 * page, ErrOutOfRange},
		{"behind the file", 0, int64(2 * page), page, ErrOutOfRange},
		{"outside memory", mib, 0, page, ErrOutOfRange},
		{"over the end", mib - page, 0, 2 * page, ErrOutOfRange},
	} {
		if err := m.MapFile(tt.gpa, f, tt.off, tt.n); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if err := m.MapFile(0, f, 0, 0); err != nil {
		t.Errorf("nothing: %v", err)
	}
	if err := fromBytes(t, 0, 1<<16).MapFile(0, f, 0, page); !errors.Is(err, ErrUnsupported) {
		t.Errorf("over Go memory: %v", err)
	}
}

func TestClose(t *testing.T) {
	m, err := Allocate(Range{0, mib})
	if err != nil {
		t.Fatal(err)
	}
	fd := m.FD()
	for range 2 {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("descriptor is still open: %v", err)
	}
	if _, err := m.Slice(0, 1); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("slice after close: %v", err)
	}
	if err := m.Discard(0, 4096); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("discard after close: %v", err)
	}
}

func TestUnknownBacking(t *testing.T) {
	if _, err := (Options{Backing: 9}).Allocate(Range{0, mib}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("%v", err)
	}
}
