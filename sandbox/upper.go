package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hutchvm/hutch/agent/proto"
	"github.com/hutchvm/hutch/rootfs/ext4"
	"github.com/hutchvm/hutch/virtio/blk"
)

const (
	upperName = "upper.img"
	// upperSerial is how the agent finds the writable disk.
	upperSerial = "hutch-upper"
)

// upperSize is the size of the writable disk, 0 if the writable layer is in
// memory.
func (c *config) upperSize() uint64 {
	switch {
	case c.UpperSize > 0:
		return c.UpperSize
	case c.Ephemeral && c.Image == "":
		return 0
	}
	return defaultUpperSize
}

// addUpper adds the writable disk above the image: an ext4 file system in a
// sparse file. That of an ephemeral sandbox has no name once it is open.
func (d *devices) addUpper(c *config) error {
	size := c.upperSize()
	if size == 0 || d.root.Direct {
		return nil
	}
	f, err := openUpper(filepath.Join(d.dir, upperName), int64(size), c.Ephemeral)
	if err != nil {
		return fmt.Errorf("writable disk: %w", err)
	}
	d.onClose(f.Close)
	file, err := blk.NewFile(f)
	if err != nil {
		return err
	}
	d.root.Upper = proto.Disk{Serial: upperSerial, FSType: "ext4"}
	return d.addDisk("writable disk", blk.Config{Backend: file, Serial: upperSerial, OnError: c.diskError("writable disk")})
}

// diskError logs what went wrong with a file behind a disk, such as a full disk
// of the host. The guest sees an I/O error and stops writing, so its file system
// stays consistent.
func (c *config) diskError(disk string) func(error) {
	return func(err error) { c.Logger.Error(disk, "sandbox", c.Name, "error", err) }
}

// openUpper opens the writable disk, and makes it or lets it grow to size as needed.
func openUpper(path string, size int64, ephemeral bool) (_ *os.File, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return makeUpper(path, size, ephemeral)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() < size {
		err = ext4.Grow(f, size)
	}
	return f, err
}

// makeUpper makes the disk. It has its name only when it is whole.
func makeUpper(path string, size int64, ephemeral bool) (_ *os.File, err error) {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if ephemeral {
		// It goes with its last descriptor, however this process ends.
		if err := os.Remove(tmp); err != nil {
			return nil, err
		}
		return f, ext4.Make(f, size, ext4.Options{})
	}
	if err := ext4.Make(f, size, ext4.Options{}); err != nil {
		return nil, err
	}
	return f, os.Rename(tmp, path)
}
