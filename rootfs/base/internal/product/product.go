// Package product says what the base image consists of and what it is made
// from. The build program and the tests share it.
package product

import (
	"crypto/sha256"
	"io/fs"
	"strings"

	"github.com/hutchvm/hutch/internal/artifact/build"
)

// Folder of package base below the module's root.
const Folder = "rootfs/base"

// Names of the executables, in /bin of the image.
const (
	Box    = "hutchbox"     // the shell and everything small
	NetBox = "hutchbox-net" // programs that need TLS and HTTP
)

// Entry is a file of the image other than executables and their links.
type Entry struct {
	Path     string // absolute
	Mode     fs.FileMode
	UID, GID int
	Link     string // target of a symbolic link
}

func dir(path string) Entry { return Entry{Path: path, Mode: fs.ModeDir | 0o755} }

func link(path, target string) Entry {
	return Entry{Path: path, Mode: fs.ModeSymlink | 0o777, Link: target}
}

// Layout lists the folders and links, parents first. Files come from the folder
// tree and are root's, with mode 0644.
var Layout = []Entry{
	dir("/"),
	dir("/bin"),
	dir("/dev"),
	dir("/etc"),
	dir("/etc/profile.d"),
	dir("/home"),
	{Path: "/home/user", Mode: fs.ModeDir | 0o755, UID: 1000, GID: 1000},
	dir("/lib"),
	dir("/mnt"),
	dir("/opt"),
	{Path: "/proc", Mode: fs.ModeDir | 0o555},
	{Path: "/root", Mode: fs.ModeDir | 0o700},
	dir("/run"),
	link("/sbin", "bin"),
	dir("/srv"),
	{Path: "/sys", Mode: fs.ModeDir | 0o555},
	{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	dir("/usr"),
	link("/usr/bin", "../bin"),
	dir("/usr/lib"),
	dir("/usr/local"),
	dir("/usr/local/bin"),
	dir("/usr/local/lib"),
	dir("/usr/local/sbin"),
	link("/usr/sbin", "../bin"),
	dir("/usr/share"),
	dir("/var"),
	dir("/var/cache"),
	dir("/var/lib"),
	dir("/var/log"),
	link("/var/run", "../run"),
	{Path: "/var/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	link("/etc/mtab", "../proc/self/mounts"),
}

// Modes of files that are not 0644.
var Modes = map[string]fs.FileMode{"/etc/shadow": 0o600}

// Aliases are further names of programs, with arguments that they imply.
var Aliases = map[string][]string{
	"[":        {"test"},
	"egrep":    {"grep", "-E"},
	"fgrep":    {"grep", "-F"},
	"halt":     {"reboot", "--halt"},
	"less":     {"more"},
	"nc":       {"netcat"},
	"poweroff": {"reboot", "-p"},
}

// Inputs hashes what determines the image, except for the versions of the Go
// toolchain and of mkfs.erofs. The modules are pinned by go.sum.
func Inputs(root string) ([sha256.Size]byte, error) {
	var in build.Inputs
	in.Add("flags", strings.Join(build.Flags, "\x00"))
	in.Add("platform", strings.Join(build.Platform, "\x00"))
	for _, folder := range []string{"cmds", "tree", "internal"} {
		files, err := build.Tree(root, Folder+"/"+folder, func(name string) bool { return !strings.HasSuffix(name, "_test.go") })
		if err != nil {
			return [sha256.Size]byte{}, err
		}
		if err := in.AddFiles(root, files); err != nil {
			return [sha256.Size]byte{}, err
		}
	}
	return in.Digest(), nil
}
