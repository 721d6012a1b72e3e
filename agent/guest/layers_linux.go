package guest

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/proto"
)

var (
	errNoBase       = errors.New("no base disk")
	errNoFileSystem = errors.New("no file system that the kernel knows, neither on the disk nor on a partition of it")
	errNoRoot       = errors.New("no partition holds a root file system: none of /bin, /sbin, /usr, /etc is there")
)

// diskTypes are the file systems that are tried on a disk of an unknown one, in
// this order. Each recognizes its own by a magic number.
var diskTypes = []string{"ext4", "squashfs", "erofs", "vfat"}

// newRoot puts the root together and moves the agent into it.
func newRoot(m *proto.Root) (*root, *proto.SetupError) {
	if m.Base == (proto.Disk{}) {
		return nil, setupError(proto.SetupRoot, "Root.Base", errNoBase)
	}
	if err := makeDirs(newDir); err != nil {
		return nil, setupError(proto.SetupRoot, "Root", err)
	}
	r := &root{}
	var failed *proto.SetupError
	if m.Direct {
		failed = mountDirect(&m.Base)
	} else {
		failed = r.overlay(m)
	}
	if failed == nil {
		if err := switchRoot(); err != nil {
			failed = setupError(proto.SetupRoot, "Root", err)
		}
	}
	if failed != nil {
		r.close()
		return nil, failed
	}
	return r, nil
}

// mountDirect mounts a disk as the whole root.
func mountDirect(d *proto.Disk) *proto.SetupError {
	var err error
	if d.FSType != "" {
		err = mountDisk(d, newDir, unix.MS_NOATIME)
	} else {
		err = mountGuessed(d, newDir)
	}
	if err != nil {
		return setupError(proto.SetupRoot, "Root.Base", err)
	}
	return nil
}

// mountGuessed mounts a disk, or the first partition that looks like a root,
// without knowing its file system.
func mountGuessed(d *proto.Disk, target string) error {
	device := d.Device
	if d.Serial != "" {
		var err error
		if device, err = diskBySerial(d.Serial); err != nil {
			return withName("serial "+d.Serial, err)
		}
	}
	name := strings.TrimPrefix(device, "/dev/")
	candidates := []string{device}
	if entries, err := os.ReadDir("/sys/block/" + name); err == nil {
		for _, e := range entries {
			if rest, ok := strings.CutPrefix(e.Name(), name); ok && rest != "" {
				candidates = append(candidates, "/dev/"+e.Name())
			}
		}
	}
	slices.SortFunc(candidates, func(a, b string) int {
		if len(a) != len(b) { // vda2 before vda10
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	known := false
	for _, dev := range candidates {
		for _, fs := range diskTypes {
			if unix.Mount(dev, target, fs, unix.MS_NOATIME, "") != nil {
				continue
			}
			if known = true; len(candidates) == 1 || looksLikeRoot(target) {
				return nil
			}
			unix.Unmount(target, 0)
			break
		}
	}
	if known {
		return withName(device, errNoRoot)
	}
	return withName(device, errNoFileSystem)
}

func looksLikeRoot(dir string) bool {
	for _, name := range []string{"/bin", "/sbin", "/usr", "/etc"} {
		if _, err := os.Lstat(dir + name); err == nil {
			return true
		}
	}
	return false
}

// overlay mounts the layers, and all of them together.
func (r *root) overlay(m *proto.Root) *proto.SetupError {
	fail := func(field string, err error) *proto.SetupError { return setupError(proto.SetupRoot, field, err) }
	if err := makeDirs(baseDir, upperDir); err != nil {
		return fail("Root", err)
	}
	lower, err := mountLayer(&m.Base, baseDir)
	if err != nil {
		return fail("Root.Base", err)
	}
	for i := range m.Layers {
		field := "Root.Layers[" + strconv.Itoa(i) + "]"
		dir := layersDir + strconv.Itoa(i)
		if err := makeDirs(dir); err != nil {
			return fail(field, err)
		}
		if dir, err = mountLayer(&m.Layers[i], dir); err != nil {
			return fail(field, err)
		}
		lower = dir + ":" + lower // the topmost comes first
	}
	if m.Upper != (proto.Disk{}) {
		err = mountDisk(&m.Upper, upperDir, unix.MS_NOATIME)
	} else {
		err = mountTmpfs(upperDir, 0, m.UpperSize, "0755")
	}
	if err == nil {
		err = makeDirs(upperDir+"/upper", upperDir+"/work")
	}
	if err != nil {
		return fail("Root.Upper", err)
	}
	layers := "lowerdir=" + lower + ",upperdir=" + upperDir + "/upper,workdir=" + upperDir + "/work"
	if err := unix.Mount("overlay", newDir, "overlay", 0, layers); err != nil {
		return fail("Root", &os.PathError{Op: "mount", Path: "/", Err: err})
	}
	if r.upper, err = os.OpenFile(upperDir, unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return fail("Root.Upper", err)
	}
	return nil
}

// mountLayer mounts a read-only layer and tells which directory it is.
func mountLayer(d *proto.Disk, dir string) (string, error) {
	if d.FSType == "virtiofs" {
		return dir + d.Dir, mountShare(d.Device, dir)
	}
	return dir + d.Dir, mountDisk(d, dir, unix.MS_RDONLY)
}

func (r *root) close() {
	if r.upper != nil {
		r.upper.Close()
	}
}

func makeDirs(dirs ...string) error {
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
			return err
		}
	}
	return nil
}
