//go:build !unix

package sandbox

import (
	"io"
	"os"
)

// Platforms without Unix' file locks and terminals compile; nothing runs there.

type record struct{ dir string }

func recordsOf(home string) string         { return home }
func claim(string, *info) (*record, error) { return nil, ErrUnsupported }
func openRecord(string) (*record, error)   { return nil, ErrUnsupported }
func readInfo(string) (*info, error)       { return nil, ErrUnsupported }
func held(string) bool                     { return false }
func (r *record) write(*info) error        { return ErrUnsupported }
func (r *record) close() error             { return nil }
func (r *record) remove() error            { return nil }
func sweep(string) error                   { return ErrUnsupported }

type terminalInput struct{ io.Reader }

func newTerminalInput(*os.File) (*terminalInput, error) { return nil, ErrUnsupported }
func (t *terminalInput) stop()                          {}
func watchSize(func()) (stop func())                    { return func() {} }
func writable(string) error                             { return ErrUnsupported }
