package prep

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/internal/kvmhost/kmod"
)

// layout changes whenever the content of a preparation changes its meaning.
const layout = "v1"

// scratchSize is the size of the scratch disk. Its file is sparse.
const scratchSize = 16 << 30

// Prepare returns a ready preparation and makes it first if there is none. Any
// number of processes may call it at once; one works and the others wait.
func Prepare(c Config) (Host, error) {
	if c.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return Host{}, &Error{"cache directory", err}
		}
		c.Cache = filepath.Join(dir, "hutch-kvmhost")
	}
	base := filepath.Join(c.Cache, layout)
	if err := os.MkdirAll(base, 0o755); err != nil {
		return Host{}, &Error{"cache directory", err}
	}

	h, err := newest(base)
	if err == nil && !c.Refresh {
		if h.QEMU, err = c.quickQEMU(); err == nil {
			return h, nil
		}
	}

	unlock, err := Lock(filepath.Join(base, "lock"), func() {
		c.logf("waiting for another process that prepares the emulated host")
	})
	if err != nil {
		return Host{}, &Error{"lock", err}
	}
	defer unlock()
	qemu, err := c.findQEMU()
	if err != nil {
		return Host{}, &Error{"qemu", err}
	}
	// Another process may have finished while this one waited.
	h, err = newest(base)
	if err != nil || c.Refresh {
		if h, err = c.build(base); err != nil {
			return Host{}, &Error{"kernel", err}
		}
	}
	h.QEMU = qemu
	return h, nil
}

// quickQEMU is findQEMU for the common case, which needs no lock.
func (c Config) quickQEMU() (QEMU, error) {
	path, err := exec.LookPath(qemuProgram)
	if err != nil {
		return QEMU{}, err
	}
	return describeQEMU(path)
}

// Lock takes a lock file and calls wait first if another process has it. The
// file stays behind on purpose: removing it would let two processes hold locks
// on two files of the same name.
func Lock(name string, wait func()) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) && wait != nil {
		wait()
	}
	for err != nil {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, err
		}
	}
	return func() { f.Close() }, nil
}

const kernelDir = "kernel-"

// newest finds the most recently made preparation. A directory of that name is
// complete, because it got its name last.
func newest(base string) (Host, error) {
	entries, err := os.ReadDir(base)
	if err != nil {
		return Host{}, err
	}
	var best string
	var when time.Time
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !e.IsDir() || !strings.HasPrefix(e.Name(), kernelDir) {
			continue
		}
		if best == "" || info.ModTime().After(when) {
			best, when = e.Name(), info.ModTime()
		}
	}
	if best == "" {
		return Host{}, os.ErrNotExist
	}
	return at(base, best), nil
}

func at(base, name string) Host {
	dir := filepath.Join(base, name)
	return Host{
		Kernel:  filepath.Join(dir, "vmlinux"),
		Modules: filepath.Join(dir, "modules"),
		Scratch: filepath.Join(dir, "scratch.img"),
		Release: strings.TrimPrefix(name, kernelDir),
		States:  filepath.Join(base, "states"),
	}
}

// build makes a preparation in a temporary directory and renames it.
func (c Config) build(base string) (Host, error) {
	pkg, err := c.kernelPackage()
	if err != nil {
		return Host{}, err
	}
	// Whoever left one behind was killed: this process has the lock.
	stale, _ := filepath.Glob(filepath.Join(base, "tmp-*"))
	for _, dir := range stale {
		os.RemoveAll(dir)
	}
	tmp, err := os.MkdirTemp(base, "tmp-")
	if err != nil {
		return Host{}, err
	}
	defer os.RemoveAll(tmp)

	deb, err := c.downloadPackage(tmp, pkg)
	if err != nil {
		return Host{}, err
	}
	// The file's name carries the package's version: linux-image-…_6.1.192-2_amd64.deb.
	name := kernelDir + strings.TrimSuffix(filepath.Base(deb), ".deb")
	if _, err := os.Stat(filepath.Join(base, name)); err == nil {
		now := time.Now()
		return at(base, name), os.Chtimes(filepath.Join(base, name), now, now)
	}
	c.logf("unpacking %s", pkg)
	work := filepath.Join(tmp, "work")
	h := at(tmp, "work")
	if err := os.MkdirAll(h.Modules, 0o755); err != nil {
		return Host{}, err
	}
	if err := unpackPackage(deb, work); err != nil {
		return Host{}, err
	}
	if err := expandModules(h.Modules); err != nil {
		return Host{}, err
	}
	if err := indexModules(h.Modules); err != nil {
		return Host{}, err
	}
	if err := makeScratch(h.Scratch); err != nil {
		return Host{}, err
	}
	if err := os.Rename(work, filepath.Join(base, name)); err != nil {
		return Host{}, err
	}
	return at(base, name), nil
}

// keep lists the parts of a kernel's module tree that a host for virtual
// machines, networks and file systems can use; all else is hardware.
var keep = []string{
	"arch/x86/crypto/", "arch/x86/kvm/", "block/", "crypto/", "drivers/block/", "drivers/cdrom/", "drivers/char/",
	"drivers/crypto/ccp/", "drivers/dax/", "drivers/md/", "drivers/net/bonding/", "drivers/net/ipvlan/", "drivers/net/ppp/",
	"drivers/net/team/", "drivers/net/vxlan/", "drivers/net/wireguard/", "drivers/nvdimm/", "drivers/ptp/", "drivers/tty/",
	"drivers/vhost/", "drivers/virtio/", "fs/", "lib/", "mm/", "net/", "security/", "virt/",
}

// wanted says whether to keep a module, by its path below "kernel/".
func wanted(p string) bool {
	if path.Dir(p) == "drivers/net" { // tun, veth, dummy and such, but no cards
		return true
	}
	return slices.ContainsFunc(keep, func(prefix string) bool { return strings.HasPrefix(p, prefix) })
}

// unpackPackage puts the kernel and the wanted modules of a package into dir.
func unpackPackage(deb, dir string) error {
	cmd := exec.Command("dpkg-deb", "--fsys-tarfile", deb)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w: dpkg-deb: %w", ErrNoTool, err)
	}
	err = unpackTar(pipe, dir)
	if err != nil {
		pipe.Close() // ends the program
	}
	if werr := cmd.Wait(); werr != nil {
		return errors.Join(err, fmt.Errorf("dpkg-deb: %w", werr))
	}
	return err
}

func unpackTar(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	foundKernel := false
	for t := tar.NewReader(r); ; {
		head, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(head.Name, "./")
		if head.Typeflag != tar.TypeReg {
			continue
		}
		switch {
		case strings.HasPrefix(name, "boot/vmlinuz-"):
			image, err := readLimited(t)
			if err != nil {
				return err
			}
			kernel, err := unpackKernel(image)
			if err != nil {
				return err
			}
			if err := root.WriteFile("vmlinux", kernel, 0o644); err != nil {
				return err
			}
			foundKernel = true
		default:
			// lib/modules/RELEASE/kernel/PATH, with usr/ before it in newer releases
			_, rest, ok := strings.Cut("/"+name, "/lib/modules/")
			if !ok {
				continue
			}
			_, p, ok := strings.Cut(rest, "/kernel/")
			if !ok || !wanted(p) {
				continue
			}
			if err := root.MkdirAll(path.Dir("modules/"+p), 0o755); err != nil {
				return err
			}
			f, err := root.Create("modules/" + p)
			if err != nil {
				return err
			}
			_, err = io.Copy(f, t)
			if cerr := f.Close(); err == nil {
				err = cerr
			}
			if err != nil {
				return err
			}
		}
	}
	if !foundKernel {
		return fmt.Errorf("%w: no vmlinuz in the package", ErrNoKernel)
	}
	return nil
}

// expandModules decompresses modules where the distribution compresses them.
func expandModules(dir string) error {
	var packed []string
	err := filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(p, ".ko.xz") {
			packed = append(packed, p)
		}
		return err
	})
	if err != nil {
		return err
	}
	for part := range slices.Chunk(packed, 200) { // keeps the argument list short
		if _, err := run("", "xz", append([]string{"--decompress", "--"}, part...)...); err != nil {
			return err
		}
	}
	return nil
}

func indexModules(dir string) error {
	index, err := kmod.Scan(os.DirFS(dir))
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, kmod.IndexName))
	if err != nil {
		return err
	}
	err = index.Write(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// makeScratch formats the template of the scratch disk.
func makeScratch(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	err = f.Truncate(scratchSize)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	mkfs := "mkfs.ext4"
	if _, err := exec.LookPath(mkfs); err != nil {
		mkfs = "/sbin/mkfs.ext4" // often not on the PATH of an ordinary user
	}
	// Lazy initialisation is the point of a sparse file, and a journal has no
	// use on a disk that is thrown away.
	_, err = run("", mkfs, "-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard", name)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: mkfs.ext4: install the package e2fsprogs", ErrNoTool)
	}
	return err
}
