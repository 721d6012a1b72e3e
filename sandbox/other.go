//go:build !unix

package sandbox

import (
	"io"
	"os"
)

// Platforms without Unix' file locks and terminals compile; nothing runs there.

type record struct{}

func claim(*config) (*record, error) { return nil, ErrUnsupported }
func (r *record) remove() error      { return nil }
func sweep(string) error             { return ErrUnsupported }

type terminalInput struct{ io.Reader }

func newTerminalInput(*os.File) (*terminalInput, error) { return nil, ErrUnsupported }
func (t *terminalInput) stop()                          {}
func watchSize(func()) (stop func())                    { return func() {} }
func writable(string) error                             { return ErrUnsupported }
