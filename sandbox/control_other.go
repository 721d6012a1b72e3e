//go:build !linux

package sandbox

import (
	"context"
	"net"
)

func listenControl(string) (net.Listener, error)            { return nil, ErrUnsupported }
func dialControl(context.Context, string) (net.Conn, error) { return nil, ErrUnsupported }
