//go:build !linux

package guest

import "errors"

// Main is the agent's program. It exists on Linux only.
func Main([]string, string) error { return errors.ErrUnsupported }
