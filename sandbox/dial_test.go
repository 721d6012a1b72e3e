package sandbox

import (
	"context"
	"slices"
	"testing"
)

func TestDialTargets(t *testing.T) {
	for _, c := range []struct {
		network, address string
		want             []string
	}{
		{"tcp", "127.0.0.1:8000", []string{"127.0.0.1:8000"}},
		{"tcp", "[::1]:80", []string{"[::1]:80"}},
		{"tcp", "localhost:http", []string{"127.0.0.1:80", "[::1]:80"}},
		{"tcp4", ":80", []string{"127.0.0.1:80"}},
		{"tcp6", "LOCALHOST.:80", []string{"[::1]:80"}},
		{"tcp", "[::ffff:10.0.0.1]:80", []string{"10.0.0.1:80"}},
		{"unix", "/run/x.sock", []string{"/run/x.sock"}},
		{"unix", "@abstract", []string{"@abstract"}},
		{"unix", "relative", nil},
		{"udp", "127.0.0.1:1", nil},
		{"tcp", "example.com:80", nil},
		{"tcp", "127.0.0.1", nil},
		{"tcp6", "127.0.0.1:80", nil},
		{"tcp", "127.0.0.1:99999", nil},
	} {
		got, err := dialTargets(context.Background(), c.network, c.address)
		if !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("%s %s: %v, %v; want %v", c.network, c.address, got, err, c.want)
		}
	}
}
