package diskimage

import (
	"fmt"
	"os"

	"github.com/hutchvm/hutch/virtio/blk"
)

// Create makes an empty image of size bytes at path, which must not exist: raw (a
// sparse file) or qcow2 (version 3, clusters of 64 KiB). A size that is not a
// multiple of 512 is rounded up.
func Create(path string, f Format, size int64) error {
	if err := create(path, f, size); err != nil {
		return &OpError{Op: "create", Path: path, Err: err}
	}
	return nil
}

// maxCreate is the most that Create makes.
const maxCreate = 64 << 40

func create(path string, f Format, size int64) error {
	if size <= 0 || size > maxCreate {
		return fmt.Errorf("size %d: want 1 to %d", size, int64(maxCreate))
	}
	size = (size + blk.SectorSize - 1) / blk.SectorSize * blk.SectorSize
	if f != Raw && f != QCOW2 {
		return fmt.Errorf("%w: cannot create %q", ErrFormat, f)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if f == Raw {
		err = file.Truncate(size)
	} else {
		err = writeEmptyQCOW2(file, size)
	}
	if e := file.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = os.Remove(path)
	}
	return err
}

// writeEmptyQCOW2 lays out header, refcount table, a refcount block and the L1
// table, one after the other.
func writeEmptyQCOW2(f *os.File, size int64) error {
	const bits, cluster = 16, 1 << 16
	perL1 := int64(cluster) * cluster / 8
	l1 := (size + perL1 - 1) / perL1
	clusters := 3 + (l1*8+cluster-1)/cluster
	b := make([]byte, 3*cluster)
	be.PutUint32(b[0:], qMagic)
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], bits)
	be.PutUint64(b[24:], uint64(size))
	be.PutUint32(b[36:], uint32(l1))
	be.PutUint64(b[40:], 3*cluster)
	be.PutUint64(b[qAtReftable:], cluster)
	be.PutUint32(b[56:], 1)
	be.PutUint32(b[96:], 4)
	be.PutUint32(b[100:], qHeaderV3)
	be.PutUint64(b[cluster:], 2*cluster)
	for c := range clusters {
		putCount(b[2*cluster:], c, 4, 1)
	}
	if err := f.Truncate(clusters * cluster); err != nil {
		return err
	}
	_, err := f.WriteAt(b, 0)
	return err
}
