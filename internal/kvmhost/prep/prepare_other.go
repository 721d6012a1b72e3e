//go:build !linux

package prep

import "errors"

// Prepare needs Linux.
func Prepare(Config) (Host, error) {
	return Host{}, &Error{"prepare", errors.ErrUnsupported}
}
