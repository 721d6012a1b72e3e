package main

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/hutchvm/hutch/sandbox"
)

// byteSize is a flag such as 256M: bytes with an optional binary unit.
type byteSize uint64

func (b *byteSize) String() string {
	for _, u := range []struct {
		shift uint
		name  string
	}{{30, "G"}, {20, "M"}, {10, "K"}} {
		if n := uint64(*b); n != 0 && n%(1<<u.shift) == 0 {
			return strconv.FormatUint(n>>u.shift, 10) + u.name
		}
	}
	return strconv.FormatUint(uint64(*b), 10)
}

// Type names the flag's value in the help.
func (b *byteSize) Type() string { return "SIZE" }

// Set parses a number with an optional K, M, G or T, also as KiB or KB, all
// powers of 1024.
func (b *byteSize) Set(s string) error {
	digits := strings.TrimRight(s, "KMGTkmgtiIbB")
	shift, ok := map[string]uint{
		"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "kb": 10, "mb": 20, "gb": 30, "tb": 40,
		"kib": 10, "mib": 20, "gib": 30, "tib": 40,
	}[strings.ToLower(s[len(digits):])]
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || !ok || n > math.MaxUint64>>shift {
		return fmt.Errorf("%q is not a size such as 512M or 2G", s)
	}
	*b = byteSize(n << shift)
	return nil
}

// parsePairs parses KEY=VALUE flags.
func parsePairs(flag string, list []string) (map[string]string, error) {
	m := make(map[string]string, len(list))
	for _, kv := range list {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("--%s %s: want KEY=VALUE", flag, kv)
		}
		m[k] = v
	}
	return m, nil
}

// parseEnv reads the files and then the flags, which win. A KEY alone takes
// hutch's own value, if it has one. Values are never printed: they may be secret.
func parseEnv(list, files []string) (map[string]string, error) {
	m := map[string]string{}
	add := func(where, kv string) error {
		k, v, ok := strings.Cut(kv, "=")
		if k == "" {
			return fmt.Errorf("%s: want KEY=VALUE or KEY", where)
		}
		if !ok {
			if v, ok = os.LookupEnv(k); !ok {
				return nil
			}
		}
		m[k] = v
		return nil
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("--env-file: %w", err)
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for n := 1; lines.Scan() && err == nil; n++ {
			if line := strings.TrimSpace(lines.Text()); line != "" && line[0] != '#' {
				err = add(fmt.Sprintf("--env-file %s, line %d", name, n), line)
			}
		}
		f.Close()
		if err == nil {
			err = lines.Err()
		}
		if err != nil {
			return nil, err
		}
	}
	for _, kv := range list {
		if err := add("--env", kv); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// parseUlimits parses NAME=SOFT[:HARD], where a limit is a number or "unlimited".
func parseUlimits(list []string) (map[sandbox.Resource]sandbox.Rlimit, error) {
	m := make(map[sandbox.Resource]sandbox.Rlimit, len(list))
	for _, s := range list {
		name, value, ok := strings.Cut(s, "=")
		soft, hard, two := strings.Cut(value, ":")
		if !two {
			hard = soft
		}
		var l sandbox.Rlimit
		err := parseLimit(soft, &l.Soft)
		if err == nil {
			err = parseLimit(hard, &l.Hard)
		}
		if !ok || name == "" || err != nil {
			return nil, fmt.Errorf("--ulimit %s: want NAME=SOFT or NAME=SOFT:HARD", s)
		}
		m[sandbox.Resource(name)] = l
	}
	return m, nil
}

func parseLimit(s string, v *uint64) (err error) {
	if s == "unlimited" || s == "-1" {
		*v = sandbox.RlimitInfinity
		return nil
	}
	*v, err = strconv.ParseUint(s, 10, 64)
	return err
}

// randomName names a sandbox that nobody named.
func randomName() string {
	var b [6]byte
	rand.Read(b[:]) // never fails
	return "hutch-" + hex.EncodeToString(b[:])
}
