package guest

import (
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/proto"
)

// Where the parts of the new root are put together, in the initial root.
const (
	baseDir  = "/base"
	upperDir = "/upper"
	newDir   = "/new"
	// layersDir is followed by the number of a layer in between.
	layersDir = "/layer"
)

var errNoDisk = errors.New("no such disk")

// root is the guest's root after the switch.
type root struct {
	// upper is the writable layer's file system, whose path is gone; nil if the
	// root is no overlay.
	upper *os.File
	// mounts are the targets of the further mounts that are written to disks
	// or to the host, in the order in which they were made.
	mounts []string
}

// switchRoot makes newDir the root of this process and all its children.
func switchRoot() error {
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run"} {
		target := newDir + dir
		if err := makeDir(target); err != nil {
			return err
		}
		if err := unix.Mount(dir, target, "", unix.MS_MOVE, ""); err != nil {
			return &os.PathError{Op: "move", Path: dir, Err: err}
		}
	}
	// The initial root is memory that cannot be unmounted: what it holds, this
	// program's file above all, is freed once its names are gone.
	for _, name := range []string{"/init", "/dev", "/proc", "/sys", "/run"} {
		os.Remove(name)
	}
	if err := unix.Chdir(newDir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return &os.PathError{Op: "move", Path: "/", Err: err}
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// makeDir makes a mount point, in place of whatever else the image has there.
func makeDir(path string) error {
	st, err := os.Lstat(path)
	if err == nil && st.IsDir() {
		return nil
	}
	if err == nil {
		if err = os.Remove(path); err != nil {
			return err
		}
	}
	return os.Mkdir(path, 0o755)
}

// seal makes what is written to read-only, which ends its journal. All data is
// on the disk before, so it may fail.
func (r *root) seal() {
	for _, target := range slices.Backward(r.mounts) {
		if unix.Unmount(target, 0) != nil {
			unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}
	}
	unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
	if r.upper != nil {
		path := "/proc/self/fd/" + strconv.Itoa(int(r.upper.Fd()))
		unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	unix.Sync()
}

func mountDisk(d *proto.Disk, target string, flags uintptr) error {
	device := d.Device
	if d.Serial != "" {
		var err error
		if device, err = diskBySerial(d.Serial); err != nil {
			return withName("serial "+d.Serial, err)
		}
	}
	if err := unix.Mount(device, target, d.FSType, flags, ""); err != nil {
		return &os.PathError{Op: "mount " + d.FSType, Path: device, Err: err}
	}
	return nil
}

func diskBySerial(serial string) (string, error) {
	names, err := os.ReadDir("/sys/block")
	if err != nil {
		return "", err
	}
	for _, n := range names {
		got, err := os.ReadFile("/sys/block/" + n.Name() + "/serial")
		if err == nil && strings.TrimRight(string(got), "\n") == serial {
			return "/dev/" + n.Name(), nil
		}
	}
	return "", errNoDisk
}

// maxHosts bounds how much of the image's /etc/hosts is looked at and kept.
const maxHosts = 1 << 20

// nameHost writes the host's name into the root's files. What /etc/hosts says
// already is kept.
func nameHost(name string) error {
	if err := os.MkdirAll("/etc", 0o755); err != nil {
		return err
	}
	if err := replaceFile("/etc/hostname", name+"\n"); err != nil {
		return err
	}
	old := ""
	if f, err := os.Open("/etc/hosts"); err == nil {
		b, _ := io.ReadAll(io.LimitReader(f, maxHosts))
		f.Close()
		old = string(b)
	}
	if hosts := completeHosts(old, name); hosts != old {
		return replaceFile("/etc/hosts", hosts)
	}
	return nil
}

// completeHosts adds the lines that are missing from an /etc/hosts.
func completeHosts(hosts, name string) string {
	known := map[string]bool{}
	for line := range strings.SplitSeq(hosts, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if fields := strings.Fields(line); len(fields) > 1 {
			for _, n := range fields[1:] {
				known[n] = true
			}
		}
	}
	if hosts != "" && !strings.HasSuffix(hosts, "\n") {
		hosts += "\n"
	}
	if !known["localhost"] {
		hosts += "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	}
	if !known[name] {
		hosts += "127.0.1.1\t" + name + "\n"
	}
	return hosts
}

// replaceFile writes a file anew, also where the image has a symbolic link.
func replaceFile(path, content string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}
