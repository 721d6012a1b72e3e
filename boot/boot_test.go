package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hutchvm/hutch/kvm"
	"github.com/hutchvm/hutch/virtio/guestmem"
)

// ram is guest memory of n MiB.
func ram(t testing.TB, n uint64) *guestmem.Memory {
	t.Helper()
	mem, err := guestmem.Allocate(RAM(n << 20)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	return mem
}

type program struct {
	paddr, memsz uint64
	data         []byte
}

// elf64 makes an executable of the given segments.
func elf64(entry uint64, programs ...program) []byte {
	le := binary.LittleEndian
	b := make([]byte, elfHeaderSize+len(programs)*elfPhdrSize)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], elfTypeExec)
	le.PutUint16(b[18:], elfMachineAMD64)
	le.PutUint64(b[24:], entry)
	le.PutUint64(b[32:], elfHeaderSize)
	le.PutUint16(b[54:], elfPhdrSize)
	le.PutUint16(b[56:], uint16(len(programs)))
	for i, p := range programs {
		h := b[elfHeaderSize+i*elfPhdrSize:]
		le.PutUint32(h, elfPTLoad)
		le.PutUint64(h[8:], uint64(len(b)))
		le.PutUint64(h[24:], p.paddr)
		le.PutUint64(h[32:], uint64(len(p.data)))
		le.PutUint64(h[40:], p.memsz)
		b = append(b, p.data...)
	}
	return b
}

func put[T uint16 | uint32 | uint64](b []byte, off int, v T) []byte {
	b = bytes.Clone(b)
	switch v := any(v).(type) {
	case uint16:
		binary.LittleEndian.PutUint16(b[off:], v)
	case uint32:
		binary.LittleEndian.PutUint32(b[off:], v)
	case uint64:
		binary.LittleEndian.PutUint64(b[off:], v)
	}
	return b
}

// bzImage makes one whose protected-mode part is the given bytes.
func bzImage(code []byte) []byte {
	le := binary.LittleEndian
	b := make([]byte, 2*512)
	b[setupStart] = 1
	le.PutUint32(b[setupSyssize:], uint32(len(code)/16))
	le.PutUint32(b[setupMagicOff:], setupMagic)
	le.PutUint16(b[setupVersion:], 0x20f)
	b[setupLoadflags] = loadedHigh
	le.PutUint16(b[setupXLoadflags:], xlfKernel64)
	le.PutUint64(b[setupPrefAddr:], 0x1000000)
	le.PutUint32(b[setupInitSize:], 1<<20)
	return append(b, code...)
}

func TestLoadELF(t *testing.T) {
	mem := ram(t, 32)
	k, err := Load(mem, bytes.NewReader(elf64(0x1000010,
		program{0x1000000, 0x2000, []byte("text")}, program{0x1800000, 0x100, []byte("data")})), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if k.Entry != 0x1000010 || k.Start != 0x1000000 || k.End != 0x1800100 {
		t.Errorf("kernel is %+v", k)
	}
	for gpa, want := range map[uint64]string{0x1000000: "text\x00", 0x1800000: "data\x00"} {
		if got, err := mem.Slice(gpa, 5); err != nil || string(got) != want {
			t.Errorf("at %#x: %q, %v", gpa, got, err)
		}
	}
}

func TestLoadBzImage(t *testing.T) {
	mem := ram(t, 32)
	code := bytes.Repeat([]byte{0x90}, 1024)
	k, err := Load(mem, bytes.NewReader(bzImage(code)), int64(len(bzImage(code))))
	if err != nil {
		t.Fatal(err)
	}
	if k.Entry != 0x1000200 || k.Start != 0x1000000 || k.End != 0x1100000 || k.setup == nil {
		t.Errorf("kernel is %+v", k)
	}
}

func TestLoadErrors(t *testing.T) {
	good := elf64(0x1000000, program{0x1000000, 0x1000, []byte("text")})
	bz := bzImage(make([]byte, 1024))
	const phdr = elfHeaderSize
	for name, tt := range map[string]struct {
		file []byte
		want error
	}{
		"empty":                {nil, ErrTruncated},
		"text":                 {bytes.Repeat([]byte("x"), 1000), ErrNotKernel},
		"32-bit":               {put(good, 4, uint16(0x0101)), ErrNotKernel},
		"other machine":        {put(good, 18, uint16(183)), ErrNotKernel},
		"shared object":        {put(good, 16, uint16(3)), ErrNotKernel},
		"header only":          {good[:elfHeaderSize], ErrTruncated},
		"no program headers":   {put(good, 56, uint16(0)), ErrBadKernel},
		"many program headers": {put(good, 56, uint16(0xffff)), ErrBadKernel},
		"odd header size":      {put(good, 54, uint16(1)), ErrBadKernel},
		"headers far away":     {put(good, 32, ^uint64(0)), ErrTruncated},
		"segment cut":          {good[:len(good)-1], ErrTruncated},
		"segment offset wraps": {put(good, phdr+8, ^uint64(0)), ErrTruncated},
		"larger in the file":   {put(good, phdr+32, uint64(0x2000)), ErrBadKernel},
		"huge in memory":       {put(good, phdr+40, uint64(1)<<63), ErrBadKernel},
		"address wraps":        {put(good, phdr+24, ^uint64(0)-5), ErrBadKernel},
		"below 1 MiB":          {elf64(0x1000, program{0x1000, 0x1000, []byte("text")}), ErrBadKernel},
		"beyond memory":        {elf64(0x4000000, program{0x4000000, 0x1000, []byte("text")}), ErrTooSmall},
		"entry outside":        {put(good, 24, uint64(0x2000000)), ErrBadKernel},
		"overlap": {elf64(0x1000000, program{0x1000000, 0x1000, []byte("text")},
			program{0x1000800, 0x1000, []byte("data")}), ErrBadKernel},
		"no segment":            {put(good, phdr, uint32(2)), ErrBadKernel},
		"old bzImage":           {put(bz, setupVersion, uint16(0x20b)), ErrNotKernel},
		"bzImage without entry": {put(bz, setupXLoadflags, uint16(0)), ErrNotKernel},
		"bzImage cut":           {bz[:len(bz)-1], ErrTruncated},
		"bzImage header cut":    {bz[:0x220], ErrTruncated},
		"bzImage far up":        {put(bz, setupPrefAddr, uint64(1)<<40), ErrBadKernel},
		"bzImage init size":     {put(bz, setupInitSize, ^uint32(0)), ErrBadKernel},
	} {
		_, err := Load(ram(t, 32), bytes.NewReader(tt.file), int64(len(tt.file)))
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: error is %v, want %v", name, err, tt.want)
		}
		var oe *OpError
		if err != nil && (!errors.As(err, &oe) || !strings.HasPrefix(err.Error(), "boot: ")) {
			t.Errorf("%s: error %v is no *OpError", name, err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(elf64(0x1000000, program{0x1000000, 0x1000, []byte("text")}))
	f.Add(bzImage(make([]byte, 1024)))
	f.Fuzz(func(t *testing.T, file []byte) {
		mem := ram(t, 32)
		k, err := Load(mem, bytes.NewReader(file), int64(len(file)))
		if err != nil {
			return
		}
		if k.Entry < k.Start || k.Entry >= k.End || k.Start < highRAMStart || !mem.Contains(k.Start, k.End-k.Start) {
			t.Errorf("accepted a kernel that lies at %+v", k)
		}
	})
}

func TestFlatAndInitrd(t *testing.T) {
	mem := ram(t, 32)
	content := bytes.Repeat([]byte("kernel!!"), 2048)
	path := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	flat := Flat{File: file, Base: 0x1000000, Size: uint64(len(content)), Span: 1 << 20, Entry: 0x1000000,
		Segments: []FlatSegment{{Size: 4096, Shared: true}, {Offset: 4096, Size: 4096}, {Offset: 12288, Size: 4096}}}
	k, err := LoadFlat(mem, flat)
	if err != nil {
		t.Fatal(err)
	}
	rd, err := LoadInitrd(mem, k, file, uint64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	if rd.GPA%pageSize != 0 || rd.GPA < k.End || rd.GPA+rd.Size > 32<<20 {
		t.Errorf("initramfs lies at %+v", rd)
	}
	loaded := bytes.Clone(content)
	clear(loaded[8192:12288]) // in no segment
	for gpa, want := range map[uint64][]byte{flat.Base: loaded, rd.GPA: content} {
		got, err := mem.Slice(gpa, uint64(len(content)))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("what is at %#x is not the file, %v", gpa, err)
		}
		got[0] = 'X'
	}
	if now, _ := os.ReadFile(path); !bytes.Equal(now, content) {
		t.Error("a write of the guest reached the file")
	}
	for name, spoil := range map[string]func(*Flat){
		"misaligned":     func(f *Flat) { f.Base++ },
		"empty":          func(f *Flat) { f.Size = 0 },
		"span too small": func(f *Flat) { f.Span = 1 },
		"entry outside":  func(f *Flat) { f.Entry = 0 },
		"too large":      func(f *Flat) { f.Span = 1 << 30 },
		"huge":           func(f *Flat) { f.Span = 1 << 60 },
		"segment beyond": func(f *Flat) { f.Segments = []FlatSegment{{Offset: 8192, Size: 1 << 63}} },
	} {
		bad := flat
		spoil(&bad)
		if _, err := LoadFlat(mem, bad); !errors.Is(err, ErrBadKernel) && !errors.Is(err, ErrTooSmall) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	if _, err := LoadInitrd(mem, k, file, uint64(len(content))+1); !errors.Is(err, ErrTruncated) {
		t.Errorf("truncated initramfs: error is %v", err)
	}
	for _, size := range []uint64{17 << 20, 1 << 40, ^uint64(0)} {
		if _, err := LoadInitrd(mem, k, file, size); !errors.Is(err, ErrTooSmall) {
			t.Errorf("initramfs of %d bytes: error is %v", size, err)
		}
	}
}

type e820 struct {
	Start, Size uint64
	Kind        uint32
}

func e820Of(t *testing.T, mem *guestmem.Memory) []e820 {
	t.Helper()
	zp, err := mem.Slice(zeroPageAddr, pageSize)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	var all []e820
	for i := range int(zp[bpE820Entries]) {
		e := zp[bpE820Table+i*e820EntrySize:]
		all = append(all, e820{le.Uint64(e), le.Uint64(e[8:]), le.Uint32(e[16:])})
	}
	return all
}

func TestZeroPage(t *testing.T) {
	mem := ram(t, 5<<10)
	k := Kernel{Entry: 0x1000000, Start: 0x1000000, End: 0x2000000}
	if err := Write(mem, Params{Kernel: k, CmdLine: "quiet", CPUs: 2, Initrd: Initrd{GPA: 0x30000000, Size: 123}}); err != nil {
		t.Fatal(err)
	}
	want := []e820{
		{0, lowMemoryEnd, e820RAM},
		{lowMemoryEnd, biosAreaEnd - lowMemoryEnd, e820Reserved},
		{highRAMStart, HoleStart - highRAMStart, e820RAM},
		{HoleEnd, 2 << 30, e820RAM},
	}
	if d := cmp.Diff(want, e820Of(t, mem)); d != "" {
		t.Errorf("memory map (-want +got):\n%s", d)
	}
	zp, _ := mem.Slice(zeroPageAddr, pageSize)
	le := binary.LittleEndian
	for name, f := range map[string][2]uint32{
		"magic":    {le.Uint32(zp[bpHeader:]), setupMagic},
		"cmdline":  {le.Uint32(zp[bpCmdLinePtr:]), cmdlineAddr},
		"initrd":   {le.Uint32(zp[bpRamdiskImage:]), 0x30000000},
		"its size": {le.Uint32(zp[bpRamdiskSize:]), 123},
	} {
		if f[0] != f[1] {
			t.Errorf("%s is %#x, want %#x", name, f[0], f[1])
		}
	}
	if got, _ := mem.Slice(cmdlineAddr, 6); string(got) != "quiet\x00" {
		t.Errorf("command line is %q", got)
	}
}

func TestCommandLineLimits(t *testing.T) {
	mem := ram(t, 32)
	for cmdline, want := range map[string]error{
		strings.Repeat("x", MaxCommandLine):   nil,
		strings.Repeat("x", MaxCommandLine+1): ErrCommandLine,
		"a\x00b":                              ErrCommandLine,
	} {
		if err := Write(mem, Params{CmdLine: cmdline, CPUs: 1}); !errors.Is(err, want) {
			t.Errorf("%d bytes: error is %v, want %v", len(cmdline), err, want)
		}
	}
	for _, p := range []Params{{CPUs: 0}, {CPUs: MaxCPUs + 1}, {CPUs: 1, IRQs: []uint32{0}}, {CPUs: 1, IRQs: []uint32{IRQPins}}} {
		if err := Write(mem, p); !errors.Is(err, ErrTopology) {
			t.Errorf("%+v: error is %v", p, err)
		}
	}
}

func TestMPTable(t *testing.T) {
	for _, cpus := range []int{1, 7, MaxCPUs} {
		mem := ram(t, 32)
		if err := Write(mem, Params{CPUs: cpus, IRQs: []uint32{5, 23}}); err != nil {
			t.Fatal(err)
		}
		f, _ := mem.Slice(mpTableAddr, mpFloatingSize)
		if string(f[:4]) != "_MP_" || checksum(f) != 0 {
			t.Fatalf("floating pointer is % x", f)
		}
		at := uint64(binary.LittleEndian.Uint32(f[4:]))
		head, _ := mem.Slice(at, mpHeaderSize)
		size := binary.LittleEndian.Uint16(head[4:])
		table, err := mem.Slice(at, uint64(size))
		if err != nil || string(table[:4]) != "PCMP" || checksum(table) != 0 {
			t.Fatalf("table is % x, %v", head, err)
		}
		counts := map[byte]int{}
		for e := table[mpHeaderSize:]; len(e) > 0; {
			n := mpOtherEntrySize
			if e[0] == mpEntryCPU {
				if want := counts[mpEntryCPU]; int(e[1]) != want {
					t.Errorf("processor %d has APIC id %d", want, e[1])
				}
				n = mpCPUEntrySize
			}
			counts[e[0]]++
			e = e[n:]
		}
		want := map[byte]int{mpEntryCPU: cpus, mpEntryBus: 1, mpEntryIOAPIC: 1, mpEntryIRQ: 3, mpEntryLocalIRQ: 2}
		if d := cmp.Diff(want, counts); d != "" {
			t.Errorf("entries for %d CPUs (-want +got):\n%s", cpus, d)
		}
		if n := int(binary.LittleEndian.Uint16(table[34:])); n != cpus+1+1+3+2 {
			t.Errorf("the table says it has %d entries", n)
		}
	}
}

// TestPageTables walks the tables as the processor does.
func TestPageTables(t *testing.T) {
	mem := ram(t, 32)
	if err := Write(mem, Params{CPUs: 1}); err != nil {
		t.Fatal(err)
	}
	regs, sregs := EntryState(Kernel{Entry: 0x1000000}, kvm.SRegs{})
	for _, addr := range []uint64{0, 0x1000000, 1<<30 + 12345, 4<<30 - 1} {
		table := sregs.CR3
		for _, shift := range []uint{39, 30, 21} {
			entry, err := mem.LoadUint64(table + addr>>shift&511*8)
			if err != nil || entry&pagePresent == 0 {
				t.Fatalf("%#x is not mapped: %#x, %v", addr, entry, err)
			}
			table = entry &^ 0xfff
		}
		if got := table | addr&(hugePageSize-1); got != addr {
			t.Errorf("%#x is mapped to %#x", addr, got)
		}
	}
	if regs.RIP != 0x1000000 || regs.RSI != zeroPageAddr || sregs.CS.L != 1 || sregs.EFER&eferLMA == 0 {
		t.Errorf("registers are %+v, %+v", regs, sregs.CS)
	}
}
