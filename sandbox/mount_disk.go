package sandbox

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hutchvm/hutch/agent/proto"
	"github.com/hutchvm/hutch/rootfs/diskimage"
	"github.com/hutchvm/hutch/virtio/blk"
)

// checkDisk fills in the format and checks the names.
func checkDisk(m *Mount) error {
	if strings.Trim(m.FSType, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" || len(m.FSType) > 32 {
		return fmt.Errorf("file system type %q", m.FSType)
	}
	if m.Format == "" {
		f, err := diskimage.FormatOf(m.Source)
		if err != nil {
			return errors.New("the format is neither given nor told by the extension: want raw, qcow2 or vmdk")
		}
		m.Format = string(f)
	}
	switch diskimage.Format(m.Format) {
	case diskimage.Raw, diskimage.QCOW2, diskimage.VMDK:
		return nil
	}
	return fmt.Errorf("format %q: want raw, qcow2 or vmdk", m.Format)
}

// mountDisk adds the disk of a mount. An image that is written to is locked.
func (d *devices) mountDisk(c *config, serial string, m Mount) (proto.Disk, error) {
	img, err := diskimage.Open(m.Source, diskimage.Format(m.Format), diskimage.Options{ReadOnly: m.ReadOnly})
	if err != nil {
		return proto.Disk{}, err
	}
	d.onClose(img.Close)
	err = d.addDisk(serial, blk.Config{Backend: img, ReadOnly: m.ReadOnly, Serial: serial, OnError: func(err error) {
		c.Logger.Error("mounted disk", "sandbox", c.Name, "path", m.Source, "error", err)
	}})
	return proto.Disk{Serial: serial, FSType: m.FSType}, err
}
