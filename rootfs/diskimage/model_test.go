package diskimage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// qemu runs a program of Debian's package qemu-utils and returns its output.
func qemu(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := tryQemu(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func tryQemu(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("HUTCH_REQUIRE_KVM") == "1" {
			t.Fatalf("%v: install Debian's package qemu-utils", err)
		}
		t.Skipf("%v: needs Debian's package qemu-utils", err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	return string(out), err
}

// model is an image and what must be in it.
type model struct {
	t    testing.TB
	path string
	f    Format
	o    Options
	img  *Image
	want []byte
	rng  *rand.Rand
}

func newModel(t testing.TB, path string, f Format, want []byte) *model {
	m := &model{t: t, path: path, f: f, want: want, rng: rand.New(rand.NewPCG(1, uint64(len(want))))}
	return m
}

func (m *model) open() {
	m.t.Helper()
	img, err := Open(m.path, m.f, m.o)
	if err != nil {
		m.t.Fatal(err)
	}
	m.img = img
	if img.Size() != int64(len(m.want)) {
		m.t.Fatalf("size %d, want %d", img.Size(), len(m.want))
	}
}

func (m *model) close() {
	m.t.Helper()
	if err := m.img.Close(); err != nil {
		m.t.Fatal(err)
	}
}

// span is a random range of whole sectors.
func (m *model) span(most int) (off, n int) {
	sectors := len(m.want) / 512
	at := m.rng.IntN(sectors)
	n = 1 + m.rng.IntN(most/512)
	if m.rng.IntN(4) == 0 { // meets cluster borders more often
		at &^= 127
		n = (n + 127) &^ 127
	}
	return at * 512, min(n, sectors-at) * 512
}

// cut makes a list of buffers of b.
func (m *model) cut(b []byte) [][]byte {
	var list [][]byte
	for len(b) > 0 {
		n := min(len(b), (1+m.rng.IntN(40))*512)
		list = append(list, b[:n])
		b = b[n:]
	}
	return list
}

// step does one random operation.
func (m *model) step() {
	m.t.Helper()
	off, n := m.span(600 << 10)
	if m.rng.IntN(2) == 0 {
		n = min(n, (1+m.rng.IntN(16))*512)
	}
	var err error
	op := ""
	switch k := m.rng.IntN(20); {
	case k < 8:
		op = "write"
		b := make([]byte, n)
		for i := 0; i < n; i += 512 {
			b[i] = byte(m.rng.Uint32())
			b[i+511] = byte(off >> 9)
		}
		err = m.img.WriteAtv(m.cut(b), int64(off))
		copy(m.want[off:], b)
	case k < 14:
		op = "read"
		m.check(off, n)
	case k < 16:
		op = "zero"
		err = m.img.WriteZeroes(int64(off), int64(n), m.rng.IntN(2) == 0)
		clear(m.want[off : off+n])
	case k < 18:
		op = "discard"
		if err = m.img.Discard(int64(off), int64(n)); err != nil {
			break
		}
		// Each sector is what it was or zero.
		b := make([]byte, n)
		if err = m.img.ReadAtv([][]byte{b}, int64(off)); err != nil {
			break
		}
		for i := 0; i < n; i += 512 {
			s := b[i : i+512]
			if !bytes.Equal(s, m.want[off+i:off+i+512]) && !allZero(s) {
				m.t.Fatalf("discard left something at %#x", off+i)
			}
		}
		copy(m.want[off:], b)
	default:
		op = "flush"
		err = m.img.Flush()
	}
	if err != nil {
		m.t.Fatalf("%s %#x+%#x: %v", op, off, n, err)
	}
}

func (m *model) check(off, n int) {
	m.t.Helper()
	b := make([]byte, n)
	for i := range b {
		b[i] = 0xa5
	}
	if err := m.img.ReadAtv(m.cut(b), int64(off)); err != nil {
		m.t.Fatalf("read %#x+%#x: %v", off, n, err)
	}
	if !bytes.Equal(b, m.want[off:off+n]) {
		i := 0
		for b[i] == m.want[off+i] {
			i++
		}
		m.t.Fatalf("read %#x+%#x: differs at %#x: %#x, want %#x", off, n, off+i, b[i], m.want[off+i])
	}
}

// verify lets qemu-img check the closed image and compare it.
func (m *model) verify() {
	m.t.Helper()
	if m.f == QCOW2 {
		qemu(m.t, "qemu-img", "check", "-f", "qcow2", m.path)
	}
	raw := m.path + ".want"
	if err := os.WriteFile(raw, m.want, 0o600); err != nil {
		m.t.Fatal(err)
	}
	qemu(m.t, "qemu-img", "compare", "-f", string(m.f), "-F", "raw", m.path, raw)
}

// exercise opens and closes the image several times with random operations.
func (m *model) exercise(rounds, steps int) {
	m.t.Helper()
	for range rounds {
		m.open()
		for range steps {
			m.step()
		}
		m.check(0, len(m.want))
		m.close()
		m.verify()
	}
}

const testSize = 6<<20 + 7*512

// source is a raw file with some data and some holes.
func source(t testing.TB, dir string, size int) (string, []byte) {
	t.Helper()
	want := make([]byte, size)
	rng := rand.New(rand.NewPCG(3, 4))
	for off := 0; off < size; off += 50000 {
		if rng.IntN(3) > 0 {
			for i := off; i < min(off+30000, size); i++ {
				want[i] = byte(rng.Uint32()) & 0x1f // compressible
			}
		}
	}
	path := filepath.Join(dir, "source.raw")
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, want
}

func TestQCOW2(t *testing.T) {
	for _, options := range []string{
		"compat=1.1", "compat=0.10", "cluster_size=512", "cluster_size=4k", "cluster_size=2M", "refcount_bits=1", "refcount_bits=2", "refcount_bits=8",
		"refcount_bits=32,cluster_size=1k", "refcount_bits=64", "lazy_refcounts=on", "preallocation=metadata", "preallocation=falloc", "cluster_size=512,compat=0.10",
	} {
		t.Run(options, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.qcow2")
			qemu(t, "qemu-img", "create", "-f", "qcow2", "-o", options, path, fmt.Sprint(testSize))
			newModel(t, path, QCOW2, make([]byte, testSize)).exercise(2, 150)
		})
	}
}

func TestQCOW2Compressed(t *testing.T) {
	for _, options := range []string{"compression_type=zlib", "compression_type=zstd", "compression_type=zlib,cluster_size=4k", "compression_type=zstd,cluster_size=2M", "compat=0.10"} {
		t.Run(options, func(t *testing.T) {
			dir := t.TempDir()
			raw, want := source(t, dir, testSize)
			path := filepath.Join(dir, "disk.qcow2")
			qemu(t, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, path)
			newModel(t, path, QCOW2, want).exercise(2, 120)
		})
	}
}

func TestQCOW2Snapshots(t *testing.T) {
	for _, options := range []string{"compat=1.1", "compat=0.10,cluster_size=4k"} {
		t.Run(options, func(t *testing.T) {
			dir := t.TempDir()
			raw, want := source(t, dir, testSize)
			path := filepath.Join(dir, "disk.qcow2")
			qemu(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", options, raw, path)
			m := newModel(t, path, QCOW2, want)
			m.exercise(1, 60)
			first := bytes.Clone(m.want)
			qemu(t, "qemu-img", "snapshot", "-c", "first", path)
			m.exercise(2, 60)
			second := bytes.Clone(m.want)
			qemu(t, "qemu-img", "snapshot", "-c", "second", path)
			m.exercise(2, 60)
			qemu(t, "qemu-img", "snapshot", "-a", "first", path)
			m.want = first
			m.verify()
			m.exercise(1, 60)
			qemu(t, "qemu-img", "snapshot", "-a", "second", path)
			m.want = second
			m.verify()
			qemu(t, "qemu-img", "snapshot", "-d", "first", path)
			qemu(t, "qemu-img", "snapshot", "-d", "second", path)
			m.exercise(1, 60)
		})
	}
}

func TestQCOW2Backing(t *testing.T) {
	for _, options := range []string{"compat=1.1", "compat=0.10", "cluster_size=4k"} {
		t.Run(options, func(t *testing.T) {
			dir := t.TempDir()
			raw, base := source(t, dir, testSize-1<<20)
			mid, path := filepath.Join(dir, "mid.qcow2"), filepath.Join(dir, "top.qcow2")
			qemu(t, "qemu-img", "create", "-f", "qcow2", "-b", raw, "-F", "raw", mid, fmt.Sprint(testSize-1<<19))
			qemu(t, "qemu-img", "create", "-f", "qcow2", "-o", options, "-b", "mid.qcow2", "-F", "qcow2", path, fmt.Sprint(testSize))
			if _, err := Open(path, QCOW2, Options{}); !errors.Is(err, ErrBacking) {
				t.Fatalf("without AllowBacking: %v", err)
			}
			m := newModel(t, path, QCOW2, append(base, make([]byte, 1<<20)...))
			m.o.AllowBacking = true
			m.exercise(3, 100)
			if got, err := os.ReadFile(raw); err != nil || !bytes.Equal(got, base) {
				t.Error("the backing file was changed")
			}
		})
	}
}

func TestQCOW2CreatedHere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	if err := Create(path, QCOW2, testSize-100); err != nil {
		t.Fatal(err)
	}
	qemu(t, "qemu-img", "check", path)
	newModel(t, path, QCOW2, make([]byte, testSize)).exercise(3, 150)
	big := filepath.Join(t.TempDir(), "big.qcow2")
	if err := Create(big, QCOW2, maxCreate); err != nil {
		t.Fatal(err)
	}
	qemu(t, "qemu-img", "check", big)
}

// The refcount table of small clusters has to grow.
func TestQCOW2RefcountTableGrows(t *testing.T) {
	for _, options := range []string{"cluster_size=512,refcount_bits=64", "cluster_size=512,refcount_bits=16"} {
		t.Run(options, func(t *testing.T) {
			const size = 12 << 20
			path := filepath.Join(t.TempDir(), "disk.qcow2")
			qemu(t, "qemu-img", "create", "-f", "qcow2", "-o", options, path, fmt.Sprint(size))
			m := newModel(t, path, QCOW2, make([]byte, size))
			m.open()
			before := m.img.d.(*qcow2).refs.at
			for off := 0; off < size; off += 64 << 10 {
				b := bytes.Repeat([]byte{byte(off >> 16), 1}, 32<<10)
				if err := m.img.WriteAtv([][]byte{b}, int64(off)); err != nil {
					t.Fatal(err)
				}
				copy(m.want[off:], b)
			}
			if m.img.d.(*qcow2).refs.at == before && strings.Contains(options, "64") {
				t.Error("the table did not move")
			}
			m.close()
			m.verify()
			m.exercise(1, 50)
		})
	}
}

func TestVMDK(t *testing.T) {
	for _, options := range []string{"subformat=monolithicSparse", "subformat=monolithicSparse,zeroed_grain=on", "subformat=monolithicFlat", "subformat=twoGbMaxExtentFlat", "subformat=monolithicSparse,compat6=on"} {
		t.Run(options, func(t *testing.T) {
			dir := t.TempDir()
			raw, want := source(t, dir, 6<<20)
			path := filepath.Join(dir, "disk.vmdk")
			qemu(t, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", options, raw, path)
			m := newModel(t, path, VMDK, want)
			m.exercise(3, 150)
			if strings.Contains(options, "Sparse") {
				qemu(t, "qemu-img", "check", "-f", "vmdk", path)
			}
		})
	}
}

func TestRaw(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := Create(path, Raw, testSize); err != nil {
		t.Fatal(err)
	}
	newModel(t, path, Raw, make([]byte, testSize)).exercise(2, 150)
}

// What a killed process leaves: the file as it is between two operations. qemu-img
// may find leaks, but nothing that is wrong, and what was flushed is there.
func TestQCOW2Killed(t *testing.T) {
	for _, options := range []string{"cluster_size=4k", "cluster_size=512,refcount_bits=64"} {
		t.Run(options, func(t *testing.T) {
			dir := t.TempDir()
			raw, want := source(t, dir, 2<<20)
			path := filepath.Join(dir, "disk.qcow2")
			qemu(t, "qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, path)
			qemu(t, "qemu-img", "snapshot", "-c", "s", path)
			m := newModel(t, path, QCOW2, want)
			m.open()
			defer m.close()
			for i := range 40 {
				for range m.rng.IntN(20) {
					m.step()
				}
				flushed := i%2 == 0
				if flushed {
					if err := m.img.Flush(); err != nil {
						t.Fatal(err)
					}
				}
				left := filepath.Join(dir, "left.qcow2")
				copyFile(t, path, left)
				out, err := tryQemu(t, "qemu-img", "check", left)
				var exit *exec.ExitError
				if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) {
					t.Fatalf("%v\n%s", err, out)
				}
				if flushed {
					c := newModel(t, left, QCOW2, m.want)
					c.open()
					c.check(0, len(c.want))
					c.close()
				}
			}
		})
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	a, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := io.Copy(b, a); err != nil {
		t.Fatal(err)
	}
}
