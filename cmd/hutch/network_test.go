package main

import (
	"net/netip"
	"testing"

	"github.com/hutchvm/hutch/sandbox"
)

func TestParsePort(t *testing.T) {
	for s, want := range map[string]sandbox.PortBinding{
		"8080:80":           {Host: 8080, Guest: 80},
		"80":                {Guest: 80},
		"0:80":              {Guest: 80},
		"5353:53/udp":       {Host: 5353, Guest: 53, UDP: true},
		"80/tcp":            {Guest: 80},
		"127.0.0.1:0:80":    {Address: netip.MustParseAddr("127.0.0.1"), Guest: 80},
		"0.0.0.0:81:80":     {Address: netip.MustParseAddr("0.0.0.0"), Host: 81, Guest: 80},
		"127.0.0.1::80":     {Address: netip.MustParseAddr("127.0.0.1"), Guest: 80},
		"[::1]:8080:80/udp": {Address: netip.IPv6Loopback(), Host: 8080, Guest: 80, UDP: true},
	} {
		if got, err := parsePort(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", ":", "x", "0", "80:0", "80:", ":80:80:80", "localhost:80:80", "70000:80", "80:70000", "80/sctp", "[::1:80:80"} {
		if got, err := parsePort(s); err == nil {
			t.Errorf("%q is %+v", s, got)
		}
	}
}

func TestParseRates(t *testing.T) {
	for s, want := range map[string][2]int64{
		"10MB/s": {10e6, 10e6}, "512KiB/s": {512 << 10, 512 << 10}, "100Mbit/s": {12.5e6, 12.5e6}, "up=1MB/s,down=1.5GB/s": {1e6, 1.5e9}, "down=1kb/s": {0, 1000}, "8bit/s": {1, 1},
	} {
		up, down, err := parseRates(s)
		if err != nil || up.BytesPerSecond != want[0] || down.BytesPerSecond != want[1] {
			t.Errorf("%s: %v, %v, %v", s, up, down, err)
		}
	}
	for _, s := range []string{"", "10", "MB/s", "10MB", "-1MB/s", "0MB/s", "1e30GB/s", "NaNMB/s", "left=1MB/s", "up=", "up=1MB/s,10MB/s"} {
		if up, down, err := parseRates(s); err == nil {
			t.Errorf("%q is %v, %v", s, up, down)
		}
	}
}

func TestNetworkOptions(t *testing.T) {
	for _, f := range []networkFlags{
		{preset: "all"}, {preset: "public", rules: []string{"allow@.com"}}, {preset: "public", ports: []string{"x"}}, {preset: "public", rate: "fast"},
	} {
		if _, err := f.options(); err == nil {
			t.Errorf("%+v is fine", f)
		}
	}
	f := networkFlags{preset: "none", dns: []string{"10.0.0.53"}}
	if opts, err := f.options(); err != nil || len(opts) != 3 {
		t.Errorf("%d options, %v", len(opts), err)
	}
}
