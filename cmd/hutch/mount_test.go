package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hutchvm/hutch/sandbox"
)

func TestParseMounts(t *testing.T) {
	bind := func(m sandbox.Mount) *sandbox.Mount { return &m }
	for _, tt := range []struct {
		kind, in, target string
		want             *sandbox.Mount // nil: an error
	}{
		{"volume", "./dir:/data:ro", "/data", bind(sandbox.MountBind("./dir", sandbox.MountReadOnly))},
		{"volume", "/abs:/data", "/data", bind(sandbox.MountBind("/abs"))},
		{"volume", "..:/data:noexec,nosuid,nodev,rw", "/data", bind(sandbox.MountBind("..", sandbox.MountNoExec, sandbox.MountNoSuid, sandbox.MountNoDev))},
		{"volume", "./d:/data:mirror,quota=1G", "/data", &sandbox.Mount{Kind: sandbox.KindBind, Source: "./d", Mirror: true, Quota: 1 << 30}},
		{"volume", "vol:/cache", "/cache", bind(sandbox.MountNamed("vol"))},
		{"volume", "vol:/cache:quota=1G", "", nil},
		{"volume", "vol", "", nil},
		{"volume", ":/x", "", nil},
		{"volume", "vol:", "", nil},
		{"volume", "vol:/x:strange", "", nil},
		{"tmpfs", "/x:64m", "/x", bind(sandbox.MountTmpfs(64 << 20))},
		{"tmpfs", "/x:size=64m,noexec", "/x", bind(sandbox.MountTmpfs(64<<20, sandbox.MountNoExec))},
		{"tmpfs", "/x", "/x", bind(sandbox.MountTmpfs(0))},
		{"tmpfs", "/x:a=b", "", nil},
		{"disk", "./d.qcow2:/mnt:ext4", "/mnt", bind(sandbox.MountDisk("./d.qcow2", "", "ext4"))},
		{"disk", "d:/mnt:format=raw,ro,ext4", "/mnt", bind(sandbox.MountDisk("d", "raw", "ext4", sandbox.MountReadOnly))},
		{"disk", "d:/mnt", "/mnt", bind(sandbox.MountDisk("d", "", ""))},
		{"disk", "d:/mnt:ext4,xfs", "", nil},
		{"disk", "d", "", nil},
	} {
		parse := map[string]func(string) (string, sandbox.Mount, error){"volume": parseVolume, "tmpfs": parseTmpfs, "disk": parseDisk}[tt.kind]
		target, m, err := parse(tt.in)
		if tt.want == nil {
			if err == nil {
				t.Errorf("--%s %s: no error", tt.kind, tt.in)
			}
			continue
		}
		if diff := cmp.Diff(*tt.want, m); diff != "" || err != nil || target != tt.target {
			t.Errorf("--%s %s: %s, %v (-want +got):\n%s", tt.kind, tt.in, target, err, diff)
		}
	}
}
