//go:build !linux

package sandbox

import (
	"io/fs"
	"os"
	"time"
)

func tryLock(string) (*os.File, error)      { return nil, ErrUnsupported }
func ours(fs.FileInfo) bool                 { return false }
func lastUse(info fs.FileInfo) time.Time    { return info.ModTime() }
func lastChange(info fs.FileInfo) time.Time { return info.ModTime() }
