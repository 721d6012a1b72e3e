//go:build !linux

package kernel

import "io/fs"

// trustedOwner cannot tell here; machines run on Linux only.
func trustedOwner(fs.FileInfo) bool { return true }
