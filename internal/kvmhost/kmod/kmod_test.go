package kmod

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// module makes the smallest ELF file with a .modinfo section.
func module(t *testing.T, info ...string) []byte {
	t.Helper()
	const names = "\x00.modinfo\x00.shstrtab\x00"
	body := strings.Join(info, "\x00") + "\x00"
	head := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2,
	}
	head.Shoff = uint64(64 + len(body) + len(names))
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: uint64(len(body))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + len(body)), Size: uint64(len(names))},
	}
	var b bytes.Buffer
	for _, part := range []any{head, []byte(body), []byte(names), sections} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func testIndex(t *testing.T) *Index {
	t.Helper()
	tree := fstest.MapFS{
		"fs/ext4/ext4.ko":          {Data: module(t, "license=GPL", "alias=fs-ext4", "alias=ext3", "depends=mbcache,jbd2", "softdep=pre: crc32c")},
		"fs/mbcache.ko":            {Data: module(t, "depends=")},
		"fs/jbd2/jbd2.ko":          {Data: module(t, "depends=crc16")},
		"lib/crc16.ko":             {Data: module(t, "depends=")},
		"crypto/crc32c_generic.ko": {Data: module(t, "alias=crc32c", "alias=crypto-crc32c", "depends=")},
		"arch/kvm/kvm-amd.ko":      {Data: module(t, "depends=kvm,built-in", "alias=cpu:type:x86*feature:*00C2*")},
		"arch/kvm/kvm.ko":          {Data: module(t, "alias=devname:kvm", "alias=char-major-10-232")},
		"net/a-one.ko":             {Data: module(t, "alias=net-pf-*-proto-1", "softdep=pre: b_two post: c")},
		"net/b-two.ko":             {Data: module(t, "alias=net-pf-40-proto-*", "depends=a-one")},
		"notes.txt":                {Data: []byte("no module")},
	}
	x, err := Scan(tree)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestResolve(t *testing.T) {
	built := testIndex(t)
	var text bytes.Buffer
	if err := built.Write(&text); err != nil {
		t.Fatal(err)
	}
	read, err := Parse(text.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for want, order := range map[string]string{
		"ext4":              "crc32c_generic mbcache crc16 jbd2 ext4",
		"fs-ext4":           "crc32c_generic mbcache crc16 jbd2 ext4",
		"kvm_amd":           "kvm kvm_amd",
		"kvm-amd":           "kvm kvm_amd",
		"char-major-10-232": "kvm",
		"net-pf-40-proto-1": "b_two a_one", // two modules, and each names the other
		"net-pf-41-proto-1": "b_two a_one",
	} {
		for name, x := range map[string]*Index{"scanned": built, "read": read} {
			modules, err := x.Resolve(want)
			if err != nil {
				t.Errorf("%s: %s: %v", name, want, err)
				continue
			}
			var names []string
			for _, m := range modules {
				names = append(names, m.Name)
			}
			if diff := cmp.Diff(order, strings.Join(names, " ")); diff != "" {
				t.Errorf("%s: %s (-want +got):\n%s", name, want, diff)
			}
		}
	}
	for _, name := range []string{"", "nothing", "cpu:type:x86,feature:00C2"} {
		if _, err := read.Resolve(name); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v, want ErrNotFound", name, err)
		}
	}
}

func TestScanErrors(t *testing.T) {
	for name, data := range map[string][]byte{"garbage": []byte("garbage"), "empty": {}} {
		if _, err := Scan(fstest.MapFS{"x.ko": {Data: data}}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("ext4 fs/ext4.ko fs-ext4 jbd2 crc32c\njbd2 fs/jbd2.ko - - -\n"))
	f.Add([]byte("a a.ko [ a a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		x, err := Parse(text)
		if err != nil {
			return
		}
		for _, m := range x.All() {
			if _, err := x.Resolve(m.Name); err != nil {
				t.Errorf("%s: %v", m.Name, err)
			}
		}
	})
}
