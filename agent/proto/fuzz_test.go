package proto

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzReader reads frames and decodes those that are messages. What decodes
// must encode to something that decodes to the same.
func FuzzReader(f *testing.F) {
	f.Add([]byte{})
	for _, m := range messages {
		frame, _ := AppendFrame(nil, m)
		f.Add(frame)
	}
	frame, _ := AppendFrame(nil, &Exec{
		Argv: []string{"a", "", "c"}, Env: []string{"K=v"}, Cwd: "/", User: "u:g", TTY: true, Rows: 1, Stdin: true,
		Rlimits: []Rlimit{{Resource: 7, Soft: 1, Hard: RlimitInfinity}, {}},
	})
	f.Add(frame)
	frame, _ = AppendFrame(frame, &Setup{
		Hostname: "h", Root: Root{Base: Disk{Serial: "base", FSType: "erofs"}}, Time: -1,
		Mounts: []Mount{
			{Kind: MountTmpfs, Target: "/t"},
			{Kind: MountShare, Target: "/s", Source: Disk{Device: "tag", Dir: "0"}, ReadOnly: true},
			{Kind: MountDisk, Target: "/d", Source: Disk{Serial: "d0", FSType: "ext4"}, NoExec: true},
		},
		Scripts: []Script{{Name: "n", Content: "#!/bin/sh\n"}}, MakeWorkdir: true,
		Entropy: "x", Disks: []DiskSize{{Sectors: 1}, {}},
	})
	f.Add(frame)
	frame, _ = AppendFrame(nil, &Setup{
		Root: Root{Base: Disk{Device: "tag", FSType: "virtiofs"}, Layers: []Disk{{Serial: "l"}, {}}, Direct: true},
	})
	f.Add(frame)
	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewReader(bytes.NewReader(in))
		for {
			typ, payload, err := r.Next()
			if err != nil {
				return
			}
			for _, m := range messages {
				if m.Type() == typ {
					check(t, fresh(m), payload)
				}
			}
		}
	})
}

func check(t *testing.T, m Message, payload []byte) {
	if Unmarshal(payload, m) != nil {
		return
	}
	frame, err := AppendFrame(nil, m)
	if err != nil {
		t.Fatalf("%T: decoded, but does not encode: %v", m, err)
	}
	again := fresh(m)
	if err := Unmarshal(frame[FrameHeaderSize:], again); err != nil {
		t.Fatalf("%T: %v", m, err)
	}
	if diff := cmp.Diff(m, again); diff != "" {
		t.Fatalf("%T (-first +second):\n%s", m, diff)
	}
}
