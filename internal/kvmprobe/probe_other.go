//go:build !linux || !amd64

package kvmprobe

import (
	"errors"
	"runtime"
)

// Probe reports that guests need Linux on x86-64.
func Probe() Result {
	return Result{
		Reason: Platform,
		Advice: "use Linux on x86-64; this is " + runtime.GOOS + "/" + runtime.GOARCH,
		Err:    errors.ErrUnsupported,
	}
}
