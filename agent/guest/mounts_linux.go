package guest

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/proto"
)

const (
	// tmpLimit bounds the tmpfs on /tmp, which is a quarter of the memory.
	tmpLimit = 512 << 20

	// sharesDir is followed by a number: there virtio-fs devices are mounted
	// while their exports are bound to where they belong.
	sharesDir = "/run/.hutch-shares-"

	// shareReadahead is how much of a file on a share is read in advance, in
	// KiB: a request of the largest size. The kernel's default is an eighth.
	shareReadahead = 1024
)

var (
	errMountKind   = errors.New("unknown kind of mount")
	errMountTarget = errors.New("not an absolute path below /")
	errTargetIsDir = errors.New("a file cannot be mounted on a directory")
)

// mountAll makes the further mounts and /tmp.
func (r *root) mountAll(mounts []proto.Mount) *proto.SetupError {
	tmp := false
	shares := shares{}
	defer shares.hide()
	for i := range mounts {
		m := &mounts[i]
		if err := r.mountOne(m, shares); err != nil {
			return setupError(proto.SetupMount, "Mounts["+strconv.Itoa(i)+"]", withName(m.Target, err))
		}
		tmp = tmp || filepath.Clean(m.Target) == "/tmp"
	}
	if tmp {
		return nil
	}
	var info unix.Sysinfo_t
	size := uint64(tmpLimit)
	if unix.Sysinfo(&info) == nil {
		size = min(size, uint64(info.Totalram)*uint64(info.Unit)/4)
	}
	err := os.MkdirAll("/tmp", 0o1777)
	if err == nil {
		err = mountTmpfs("/tmp", unix.MS_NOSUID|unix.MS_NODEV, size, "1777")
	}
	if err != nil {
		return setupError(proto.SetupMount, "Mounts", err)
	}
	return nil
}

func (r *root) mountOne(m *proto.Mount, shares shares) error {
	if !filepath.IsAbs(m.Target) || filepath.Clean(m.Target) == "/" {
		return errMountTarget
	}
	var flags uintptr
	for _, f := range []struct {
		on   bool
		flag uintptr
	}{{m.ReadOnly, unix.MS_RDONLY}, {m.NoExec, unix.MS_NOEXEC}, {m.NoSuid, unix.MS_NOSUID}, {m.NoDev, unix.MS_NODEV}} {
		if f.on {
			flags |= f.flag
		}
	}
	switch m.Kind {
	case proto.MountTmpfs:
		mode := "0755"
		if filepath.Clean(m.Target) == "/tmp" {
			mode = "1777"
		}
		if err := os.MkdirAll(m.Target, 0o755); err != nil {
			return err
		}
		return mountTmpfs(m.Target, flags, m.Size, mode)
	case proto.MountShare:
		if err := shares.bind(&m.Source, m.Target, flags); err != nil {
			return err
		}
	case proto.MountDisk:
		if err := os.MkdirAll(m.Target, 0o755); err != nil {
			return err
		}
		if err := mountAnyDisk(&m.Source, m.Target, flags); err != nil {
			return err
		}
	default:
		return errMountKind
	}
	r.mounts = append(r.mounts, m.Target)
	return nil
}

// mountTmpfs mounts memory; a size of 0 is half of all of it.
func mountTmpfs(target string, flags uintptr, size uint64, mode string) error {
	data := "mode=" + mode
	if size > 0 {
		data += ",size=" + strconv.FormatUint(size, 10)
	}
	if err := unix.Mount("tmpfs", target, "tmpfs", flags, data); err != nil {
		return &os.PathError{Op: "mount tmpfs", Path: target, Err: err}
	}
	return nil
}

// mountAnyDisk mounts a disk, trying what the kernel knows if it does not say
// what is on it.
func mountAnyDisk(d *proto.Disk, target string, flags uintptr) error {
	if d.FSType != "" {
		return mountDisk(d, target, flags)
	}
	for _, fs := range diskTypes {
		try := *d
		try.FSType = fs
		if err := mountDisk(&try, target, flags); err == nil || errors.Is(err, errNoDisk) {
			return err
		}
	}
	return errNoFileSystem
}

// shares are the virtio-fs devices that are mounted, by tag, and where.
type shares map[string]string

// dir mounts a device, once.
func (s shares) dir(tag string) (string, error) {
	if dir := s[tag]; dir != "" {
		return dir, nil
	}
	dir := sharesDir + strconv.Itoa(len(s))
	if err := makeDirs(dir); err != nil {
		return "", err
	}
	if err := mountShare(tag, dir); err != nil {
		os.Remove(dir)
		return "", err
	}
	s[tag] = dir
	return dir, nil
}

// hide takes the devices' own roots away. What was bound stays.
func (s shares) hide() {
	for _, dir := range s {
		unix.Unmount(dir, unix.MNT_DETACH)
		os.Remove(dir)
	}
}

// mountShare mounts a virtio-fs device.
func mountShare(tag, target string) error {
	if err := unix.Mount(tag, target, "virtiofs", unix.MS_NOATIME, ""); err != nil {
		return &os.PathError{Op: "mount virtiofs", Path: tag, Err: err}
	}
	var st unix.Stat_t
	if unix.Stat(target, &st) == nil {
		// Without it large files are read in small pieces; that works as well.
		device := strconv.Itoa(int(unix.Major(st.Dev))) + ":" + strconv.Itoa(int(unix.Minor(st.Dev)))
		os.WriteFile("/sys/class/bdi/"+device+"/read_ahead_kb", []byte(strconv.Itoa(shareReadahead)), 0)
	}
	return nil
}

// bind mounts one export of a device.
func (s shares) bind(d *proto.Disk, target string, flags uintptr) error {
	dir, err := s.dir(d.Device)
	if err != nil {
		return err
	}
	source := dir + d.Dir
	st, err := os.Stat(source)
	if err != nil {
		return err
	}
	if err := makeTarget(target, st.IsDir()); err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "bind", Path: target, Err: err}
	}
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_NOATIME|flags, ""); err != nil {
		return &os.PathError{Op: "remount", Path: target, Err: err}
	}
	return nil
}

// makeTarget makes a mount point, a directory or a file.
func makeTarget(target string, isDir bool) error {
	if isDir {
		return os.MkdirAll(target, 0o755)
	}
	st, err := os.Stat(target)
	switch {
	case err == nil && st.IsDir():
		return errTargetIsDir
	case err == nil:
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}
