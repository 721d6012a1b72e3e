//go:build !linux || !amd64

package kvmtest

import "errors"

func probe() error { return errors.New("not linux/amd64") }
