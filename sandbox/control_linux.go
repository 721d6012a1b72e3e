package sandbox

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

const controlName = "control"

// throughDir calls f with a path of the control socket of the record in dir that
// is short, however long that of dir is: a socket's has 107 bytes at most.
func throughDir(dir string, f func(path string) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return f("/proc/self/fd/" + strconv.Itoa(int(d.Fd())) + "/" + controlName)
}

// listenControl makes the socket, in place of one that a killed process left.
func listenControl(dir string) (l net.Listener, err error) {
	os.Remove(filepath.Join(dir, controlName))
	err = throughDir(dir, func(path string) error {
		u, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err == nil {
			u.SetUnlinkOnClose(false) // the path means something else by then
			l = u
		}
		return err
	})
	return l, err
}

func dialControl(ctx context.Context, dir string) (conn net.Conn, err error) {
	err = throughDir(dir, func(path string) error {
		var d net.Dialer
		conn, err = d.DialContext(ctx, "unix", path)
		return err
	})
	return conn, err
}
