//go:build !unix

package oci

import (
	"io/fs"
	"os"
)

func tryFlock(*os.File, bool) (bool, error) { return false, ErrUnsupported }

func freeSpace(string) (int64, error) { return 0, ErrUnsupported }

func allocated(st fs.FileInfo) int64 { return st.Size() }
