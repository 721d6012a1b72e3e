//go:build !linux

package kvmhost

import (
	"context"
	"errors"
)

// Run needs Linux.
func Run(context.Context, Config) (Result, error) {
	return Result{}, &Error{Op: "run", Err: errors.ErrUnsupported}
}

// Exec needs Linux.
func Exec([]string) error { return &Error{Op: "run", Err: errors.ErrUnsupported} }

// ExitCode is the code for a process that reports what Run returned.
func ExitCode(Result, error) int { return CodeHost }

// Guest does nothing: the inside is always Linux.
func Guest() {}
