package initramfs

import (
	"bytes"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// File is an additional regular file of an archive.
type File struct {
	Name string      // slash-separated, relative to the root
	Mode fs.FileMode // permission bits
	Data []byte
}

// folders are what the agent mounts on before it has a root file system. It
// makes the rest itself.
var folders = []string{"dev", "proc", "run", "sys"}

// Build writes an uncompressed newc archive with the agent (an executable for
// the guest) as /init, and the extra files, in their order, with their parent
// folders. The same arguments give the same bytes. It fails when a name is
// taken or not a clean relative path, and when w does.
func Build(w io.Writer, agent []byte, extra ...File) error {
	if err := writeArchive(w, agent, extra); err != nil {
		return &Error{"build", err}
	}
	return nil
}

func writeArchive(w io.Writer, agent []byte, extra []File) error {
	// The kernel opens /dev/console for the first process before that can
	// mount anything; /dev/null lets it silence a file descriptor.
	//
	// Folders come before what is in them: the kernel makes no parents.
	var records []cpio.Record
	for _, name := range folders {
		records = append(records, directory(name, 0o755))
	}
	records = append(records, cpio.CharDev("dev/console", 0o600, 5, 1), cpio.CharDev("dev/null", 0o666, 1, 3))
	made := append([]string{"init", "dev/console", "dev/null"}, folders...)
	for _, f := range extra {
		if !fs.ValidPath(f.Name) || f.Name == "." || strings.ContainsRune(f.Name, 0) {
			return &fs.PathError{Op: "add", Path: f.Name, Err: fs.ErrInvalid}
		}
		if slices.Contains(made, f.Name) {
			return &fs.PathError{Op: "add", Path: f.Name, Err: fs.ErrExist}
		}
		for _, dir := range parents(f.Name) {
			if !slices.Contains(made, dir) {
				made = append(made, dir)
				records = append(records, directory(dir, 0o755))
			}
		}
		made = append(made, f.Name)
		records = append(records, regular(f.Name, f.Mode, f.Data))
	}
	// Last, so that all else is there whatever becomes of the biggest part.
	records = append(records, regular("init", 0o755, agent))
	// Inode numbers, times and owners all become constants.
	cpio.MakeAllReproducible(records)
	out := cpio.Newc.Writer(w)
	for i := range records {
		records[i].Ino = uint64(i + 1)
		if err := out.WriteRecord(records[i]); err != nil {
			return err
		}
	}
	return cpio.WriteTrailer(out)
}

func directory(name string, perm fs.FileMode) cpio.Record {
	return cpio.Directory(name, uint64(perm.Perm()))
}

func regular(name string, mode fs.FileMode, data []byte) cpio.Record {
	return cpio.Record{
		ReaderAt: bytes.NewReader(data),
		Info: cpio.Info{
			Name: name, Mode: cpio.S_IFREG | uint64(mode.Perm()), FileSize: uint64(len(data)), NLink: 1,
		},
	}
}

// parents lists the folders above name, outermost first.
func parents(name string) []string {
	var dirs []string
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		dirs = append(dirs, dir)
	}
	slices.Reverse(dirs)
	return dirs
}
