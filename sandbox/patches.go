package sandbox

import (
	"io/fs"

	"github.com/hutchvm/hutch/rootfs/patch"
)

// Patch is one edit of the root file system before the first boot; see
// [WithPatches]. It is made by PatchText and its kin, and its methods return a
// changed copy.
type Patch struct{ p patch.Patch }

// WithPatches edits the root file system, in the order given, before the
// sandbox boots for the first time. The image is not touched: the edits are a
// layer of their own between the image and the writable disk. Parents that are
// missing are made. A path that is there already is an error unless
// [Patch.Replace] says otherwise. Disk images cannot be patched.
func WithPatches(patches ...Patch) Option {
	return func(c *config) {
		for _, p := range patches {
			c.Patches = append(c.Patches, p.p)
		}
	}
}

// PatchText writes a file with the given text, with mode 0644.
func PatchText(path, text string) Patch { return PatchFile(path, []byte(text)) }

// PatchFile writes a file with the given content, with mode 0644.
func PatchFile(path string, content []byte) Patch {
	return Patch{patch.Patch{Kind: patch.File, Path: path, Data: content}}
}

// PatchAppend adds text to the end of a file, which must be there.
func PatchAppend(path, text string) Patch {
	return Patch{patch.Patch{Kind: patch.Append, Path: path, Data: []byte(text)}}
}

// PatchCopyFile copies a file of the host, with its mode.
func PatchCopyFile(hostPath, path string) Patch {
	return Patch{patch.Patch{Kind: patch.CopyFile, Path: path, Source: hostPath}}
}

// PatchCopyDir copies a directory of the host with all that is below it.
func PatchCopyDir(hostPath, path string) Patch {
	return Patch{patch.Patch{Kind: patch.CopyDir, Path: path, Source: hostPath}}
}

// PatchSymlink makes path a symbolic link to target.
func PatchSymlink(target, path string) Patch {
	return Patch{patch.Patch{Kind: patch.Symlink, Path: path, Target: target}}
}

// PatchMkdir makes a directory and its parents. One that is there is no error.
func PatchMkdir(path string) Patch { return Patch{patch.Patch{Kind: patch.Mkdir, Path: path}} }

// PatchRemove removes a file, or a directory with all that is below it. One
// that is not there is no error.
func PatchRemove(path string) Patch { return Patch{patch.Patch{Kind: patch.Remove, Path: path}} }

// Mode sets the permissions of what the patch makes; setuid, setgid and sticky
// bits are those of io/fs.
func (p Patch) Mode(m fs.FileMode) Patch {
	p.p.Mode = m
	return p
}

// Owner sets who owns what the patch makes. The default is root.
func (p Patch) Owner(uid, gid uint32) Patch {
	p.p.UID, p.p.GID = uid, gid
	return p
}

// Replace lets the patch take the place of what is at its path.
func (p Patch) Replace() Patch {
	p.p.Replace = true
	return p
}
