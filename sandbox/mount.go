package sandbox

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hutchvm/hutch/agent/proto"
	"github.com/hutchvm/hutch/rootfs/share"
	"github.com/hutchvm/hutch/rootfs/volume"
	"github.com/hutchvm/hutch/virtio/fs"
)

// MountKind says what a [Mount] mounts.
type MountKind string

// The kinds of mounts.
const (
	KindBind  MountKind = "bind"  // a directory or file of the host
	KindNamed MountKind = "named" // a named volume
	KindTmpfs MountKind = "tmpfs" // the guest's memory
	KindDisk  MountKind = "disk"  // a file system in a disk image
)

// Mount is something to mount in a guest, see [WithMounts]. It is made by
// [MountBind], [MountNamed], [MountTmpfs] or [MountDisk]; further fields may be
// set afterwards.
type Mount struct {
	Kind MountKind `json:"kind"`
	// Source is a path on the host, or the name of a volume.
	Source string `json:"source,omitempty"`
	// Size is that of a tmpfs in bytes; 0 is half of the guest's memory.
	Size uint64 `json:"size_bytes,omitempty"`
	// Format is that of a disk image: "raw", "qcow2" or "vmdk". It is never guessed
	// from the content; empty means by the file's extension.
	Format string `json:"format,omitempty"`
	// FSType is the file system on a disk, such as "ext4"; empty means those
	// that the guest's kernel knows are tried.
	FSType string `json:"fstype,omitempty"`

	// ReadOnly refuses every change, on the host's side too.
	ReadOnly bool `json:"read_only,omitempty"`
	NoExec   bool `json:"no_exec,omitempty"` // nothing can be executed
	NoSuid   bool `json:"no_suid,omitempty"` // set-user-ID bits do nothing
	NoDev    bool `json:"no_dev,omitempty"`  // device nodes cannot be opened

	// Mirror makes a bind or volume apply owner and mode that the guest sets to
	// the host's files. Otherwise they are kept in an extended attribute
	// beside each file, and on the host all belong to this process's user.
	Mirror bool `json:"mirror,omitempty"`
	// Quota bounds what a bind may hold, in bytes; beyond it the guest gets
	// ENOSPC. 0 is no bound. A volume has a quota of its own.
	Quota uint64 `json:"quota_bytes,omitempty"`
}

// MountFlag is a property that mounts of every kind can have.
type MountFlag int

// The flags of mounts; each sets the field of [Mount] of that name.
const (
	MountReadOnly MountFlag = iota
	MountNoExec
	MountNoSuid
	MountNoDev
)

func (m Mount) with(flags []MountFlag) Mount {
	for _, f := range flags {
		switch f {
		case MountReadOnly:
			m.ReadOnly = true
		case MountNoExec:
			m.NoExec = true
		case MountNoSuid:
			m.NoSuid = true
		case MountNoDev:
			m.NoDev = true
		}
	}
	return m
}

// MountBind mounts a directory or a single file of the host. The guest reaches
// nothing outside of it, whatever its kernel sends. A relative path is taken
// from the directory in which the process is when the sandbox is created.
func MountBind(hostPath string, flags ...MountFlag) Mount {
	return Mount{Kind: KindBind, Source: hostPath}.with(flags)
}

// MountNamed mounts a volume that [CreateVolume] made. Several sandboxes may use
// it at once.
func MountNamed(volume string, flags ...MountFlag) Mount {
	return Mount{Kind: KindNamed, Source: volume}.with(flags)
}

// MountTmpfs mounts memory of the guest, up to size bytes; 0 is half of it.
func MountTmpfs(size uint64, flags ...MountFlag) Mount {
	return Mount{Kind: KindTmpfs, Size: size}.with(flags)
}

// MountDisk mounts the file system fstype in a disk image of the given format;
// see [Mount] for what an empty one means.
func MountDisk(path, format, fstype string, flags ...MountFlag) Mount {
	return Mount{Kind: KindDisk, Source: path, Format: format, FSType: fstype}.with(flags)
}

// WithMounts mounts things into the guest: guest path → [Mount]. A guest path is
// absolute, not "/", without "..", and given once; a missing mount point is made.
// Mounts within others work. Unless something is mounted there, /tmp is a tmpfs of
// a quarter of the memory, 512 MiB at most.
func WithMounts(mounts map[string]Mount) Option {
	return func(c *config) { c.Mounts = merged(c.Mounts, mounts) }
}

const (
	maxMounts     = 64
	maxMountDisks = 8 // each is a device, of which a machine has few

	// shareTag is how the agent finds the virtio-fs device.
	shareTag = "hutch"
	// diskSerial is followed by a number.
	diskSerial = "hutch-disk"
)

// targets are the guest paths of the mounts, cleaned, parents first.
func (c *config) targets() []string {
	return slices.Sorted(maps.Keys(c.Mounts))
}

// checkMounts checks all that can be checked without opening anything for use,
// and makes paths absolute.
func (c *config) checkMounts() error {
	if len(c.Mounts) > maxMounts {
		return invalid("WithMounts", "%d mounts, at most %d", len(c.Mounts), maxMounts)
	}
	clean := make(map[string]Mount, len(c.Mounts))
	disks := 0
	for _, target := range c.targets() {
		m := c.Mounts[target]
		bad := func(format string, args ...any) error {
			return invalid("WithMounts", "%s: %s", target, fmt.Sprintf(format, args...))
		}
		if !path.IsAbs(target) || !plainText(target) {
			return bad("the guest path is not absolute")
		}
		if slices.Contains(strings.Split(target, "/"), "..") {
			return bad("the guest path holds \"..\"")
		}
		at := path.Clean(target)
		if at == "/" {
			return bad("the root cannot be mounted over")
		}
		if _, twice := clean[at]; twice {
			return bad("something else is mounted there already")
		}
		if err := c.checkMount(&m); err != nil {
			return bad("%s", err)
		}
		if m.Kind == KindDisk {
			disks++
		}
		clean[at] = m
	}
	if disks > maxMountDisks {
		return invalid("WithMounts", "%d disks, at most %d", disks, maxMountDisks)
	}
	if len(clean) > 0 {
		c.Mounts = clean
	}
	return nil
}

func (c *config) checkMount(m *Mount) error {
	shared := m.Kind == KindBind || m.Kind == KindNamed
	switch {
	case m.Kind != KindTmpfs && m.Size != 0:
		return errors.New("only a tmpfs has a size")
	case m.Kind != KindDisk && (m.Format != "" || m.FSType != ""):
		return errors.New("only a disk has a format and a file system type")
	case !shared && m.Mirror:
		return errors.New("only a bind or a volume can mirror owners")
	case m.Kind != KindBind && m.Quota != 0:
		return errors.New("only a bind can be given a quota here")
	case m.Quota > 1<<62:
		return fmt.Errorf("a quota of %d bytes", m.Quota)
	}
	switch m.Kind {
	case KindTmpfs:
		if m.Source != "" {
			return errors.New("a tmpfs has no source")
		}
		return nil
	case KindNamed:
		return volume.CheckName(m.Source)
	case KindBind:
		return m.checkPath(func(mode os.FileMode) bool { return mode.IsDir() || mode.IsRegular() }, "neither a directory nor a regular file")
	case KindDisk:
		if err := checkDisk(m); err != nil {
			return err
		}
		return m.checkPath(func(mode os.FileMode) bool { return mode.IsRegular() || mode&os.ModeDevice != 0 }, "neither a regular file nor a block device")
	}
	return fmt.Errorf("unknown kind %q", m.Kind)
}

// checkPath looks whether the source is there and of a kind that can be used.
func (m *Mount) checkPath(ok func(os.FileMode) bool, problem string) error {
	if m.Source == "" || !plainText(m.Source) {
		return fmt.Errorf("host path %q is empty, or no UTF-8 text without NUL bytes", m.Source)
	}
	abs, err := filepath.Abs(m.Source)
	if err != nil {
		return err
	}
	st, err := os.Stat(abs)
	if err != nil {
		return err
	}
	if !ok(st.Mode()) {
		return fmt.Errorf("%s is %s", abs, problem)
	}
	m.Source = abs
	return nil
}

// addMounts opens what is mounted and adds its devices.
func (d *devices) addMounts(c *config) error {
	disks := 0
	for i, target := range c.targets() {
		m := c.Mounts[target]
		pm := proto.Mount{
			Target: target, Size: m.Size,
			ReadOnly: m.ReadOnly, NoExec: m.NoExec, NoSuid: m.NoSuid, NoDev: m.NoDev,
		}
		var err error
		switch m.Kind {
		case KindTmpfs:
			pm.Kind = proto.MountTmpfs
		case KindBind:
			pm.Kind = proto.MountShare
			pm.Source, err = d.share(c, strconv.Itoa(i), share.Options{
				Path: m.Source, ReadOnly: m.ReadOnly, Mirror: m.Mirror, Quota: int64(m.Quota),
			})
		case KindNamed:
			pm.Kind = proto.MountShare
			pm.Source, err = d.shareVolume(c, strconv.Itoa(i), m)
		case KindDisk:
			pm.Kind = proto.MountDisk
			pm.Source, err = d.mountDisk(c, diskSerial+strconv.Itoa(disks), m)
			disks++
		}
		if err != nil {
			return fmt.Errorf("WithMounts: %s: %w", target, err)
		}
		d.mounts = append(d.mounts, pm)
	}
	return nil
}

// share exports a directory or file under a name of its own, and returns how the
// agent mounts it. All shares of a machine are on one device, which comes with the
// first.
func (d *devices) share(c *config, name string, o share.Options) (proto.Disk, error) {
	if d.files == nil {
		files, err := share.New(share.Config{OnPanic: func(v any) {
			c.Logger.Error("shared files", "sandbox", c.Name, "panic", v)
		}})
		if err != nil {
			return proto.Disk{}, err
		}
		d.files = files
		d.onClose(files.Close)
		dev, err := fs.New(fs.Config{Tag: shareTag, Handler: files})
		if err != nil {
			return proto.Disk{}, err
		}
		d.add("shared files", dev)
	}
	if err := d.files.Add(name, o); err != nil {
		return proto.Disk{}, err
	}
	return proto.Disk{Device: shareTag, FSType: "virtiofs", Dir: "/" + name}, nil
}

// shareVolume shares a named volume, which cannot be removed meanwhile.
func (d *devices) shareVolume(c *config, name string, m Mount) (proto.Disk, error) {
	use, err := c.volumes().Use(m.Source)
	if err != nil {
		return proto.Disk{}, volumeErr(err)
	}
	d.onClose(use.Close)
	return d.share(c, name, share.Options{Path: use.Path, ReadOnly: m.ReadOnly, Mirror: m.Mirror, Quota: use.Quota})
}
