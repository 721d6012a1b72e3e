package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hutchvm/hutch/boot"
	"github.com/hutchvm/hutch/initramfs"
	"github.com/hutchvm/hutch/kernel"
	"github.com/hutchvm/hutch/vmm"
)

// cacheDir holds what is unpacked from this program, for all processes.
func (c *config) cacheDir() string { return filepath.Join(c.Home, "cache") }

// sources are the files that a machine is built of.
type sources struct {
	files     []*os.File
	kernel    vmm.KernelSource
	initramfs *os.File
	size      int64
}

// close closes what the machine, once built, does not need any more.
func (s *sources) close() {
	for _, f := range s.files {
		f.Close()
	}
}

// openSources opens kernel and initramfs: the embedded ones from
// the cache under home, or those that the options name.
func openSources(c *config) (_ *sources, err error) {
	cache := c.cacheDir()
	src := &sources{}
	defer func() {
		if err != nil {
			src.close()
		}
	}()
	if c.Kernel != "" {
		f, size, err := openRegular("WithKernel", c.Kernel)
		if err != nil {
			return nil, err
		}
		src.files = append(src.files, f)
		src.kernel = vmm.KernelSource{Reader: f, Size: size}
	} else {
		img, err := kernel.Open(cache)
		if err != nil {
			return nil, err
		}
		src.files = append(src.files, img.File)
		src.kernel = vmm.KernelSource{Flat: flat(img)}
	}
	if c.Initramfs != "" {
		f, size, err := openRegular("WithInitramfs", c.Initramfs)
		if err != nil {
			return nil, err
		}
		src.files = append(src.files, f)
		if err := initramfs.Check(f, size); err != nil {
			return nil, fmt.Errorf("%w: WithInitramfs: %s: %w", ErrInvalidConfig, c.Initramfs, err)
		}
		src.initramfs, src.size = f, size
	} else {
		a, err := initramfs.Open(cache)
		if err != nil {
			return nil, err
		}
		src.files = append(src.files, a.File)
		src.initramfs, src.size = a.File, a.Size
	}
	return src, nil
}

// flat says where the embedded kernel's parts belong.
func flat(img *kernel.Image) *boot.Flat {
	f := &boot.Flat{File: img.File, Base: img.Base, Size: uint64(img.Size), Span: img.MemSize, Entry: img.Entry}
	for _, s := range img.Parts {
		f.Segments = append(f.Segments, boot.FlatSegment{Offset: uint64(s.Offset), Size: uint64(s.Size), Shared: s.Shared})
	}
	return f
}

// openRegular opens a file that an option names.
func openRegular(option, path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %s: %w", ErrInvalidConfig, option, err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New(path + " is not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("%w: %s: %w", ErrInvalidConfig, option, err)
	}
	return f, st.Size(), nil
}
