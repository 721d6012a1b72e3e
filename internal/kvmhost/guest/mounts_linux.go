package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/internal/kvmhost/wire"
)

// newRoot is where the outer root is mounted before it becomes the root.
const newRoot = "/root"

// mount is unix.Mount with an error that says what.
func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", fstype, target, err)
	}
	return nil
}

// mountEarly makes what the init itself needs.
func mountEarly() error {
	return errors.Join(
		mount("devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, ""),
		mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""),
		mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""),
	)
}

// ninep mounts a directory of the outer machine. 512000 bytes is the largest
// message that the virtio transport takes.
func ninep(tag, target string, flags uintptr) error {
	return mount(tag, target, "9p", flags, "trans=virtio,version=9p2000.L,msize=512000,cache=loose,access=client")
}

// preparedRun is the tmpfs that becomes /run, and store the one that takes the
// changes of the overlays.
const (
	preparedRun = "/run"
	store       = RuntimeDir + "/upper"
)

// mountPrepared makes the file systems that do not depend on the outer root.
func mountPrepared() error {
	for _, dir := range []string{"/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/net"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	os.Remove("/dev/ptmx") // devpts has its own
	for link, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2", "/dev/ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(target, link); err != nil {
			return err
		}
	}
	err := errors.Join(
		mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=620,gid=5,ptmxmode=666"),
		mount("tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"),
		mount("mqueue", "/dev/mqueue", "mqueue", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""),
		mount("cgroup2", "/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "nsdelegate"),
		mount("tmpfs", preparedRun, "tmpfs", 0, "mode=755"),
	)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(store, 0o755); err != nil {
		return err
	}
	if err := mount("tmpfs", store, "tmpfs", 0, "mode=755,size=70%"); err != nil {
		return err
	}
	program, err := os.ReadFile(InitPath)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(RuntimeDir, modprobeName), program, 0o755)
}

// enterRoot mounts the outer root and makes it the root of every process, the
// kernel's own threads included: they share this process's view.
func enterRoot() error {
	if err := ninep(wire.RootTag, newRoot, unix.MS_RDONLY); err != nil {
		return err
	}
	for _, dir := range []string{"/dev", "/proc", "/sys", preparedRun} {
		if err := mount(dir, newRoot+dir, "", unix.MS_MOVE, ""); err != nil {
			return err
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

// mountRest mounts what the command's order asks for.
func mountRest(c *wire.Command) error {
	if err := mountOverlays(c.Overlay); err != nil {
		return err
	}
	if c.Scratch != "" {
		if err := os.MkdirAll(c.Scratch, 0o755); err != nil {
			return err
		}
		if err := mount("/dev/vda", c.Scratch, "ext4", 0, "user_xattr,acl"); err != nil {
			return err
		}
		if err := errors.Join(os.Chown(c.Scratch, c.UID, c.GID), os.Chmod(c.Scratch, 0o700)); err != nil {
			return err
		}
	}
	for i, dir := range c.Shares {
		if err := ninep(wire.ShareTag(i), dir, 0); err != nil {
			return err
		}
	}
	return nil
}

// overlayEscape protects the characters that separate overlayfs options.
var overlayEscape = strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`)

// mountOverlays lets directories of the read-only root be written to; what is
// written lives in memory.
func mountOverlays(dirs []string) error {
	for i, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil || !info.IsDir() {
			continue // the outer machine has no such directory either
		}
		upper := filepath.Join(store, fmt.Sprintf("%d", i))
		work := upper + ".work"
		if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
			return err
		}
		// The top directory shows the owner and mode of its upper layer.
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return err
		}
		if err := errors.Join(unix.Chown(upper, int(st.Uid), int(st.Gid)), unix.Chmod(upper, st.Mode&0o7777)); err != nil {
			return err
		}
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", overlayEscape.Replace(dir), upper, work)
		if err := mount("overlay", dir, "overlay", 0, options); err != nil {
			return err
		}
	}
	return nil
}
