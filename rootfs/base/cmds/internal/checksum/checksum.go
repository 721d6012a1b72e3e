// Package checksum is the body of sha1sum, sha256sum and sha512sum.
package checksum

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
)

// Main prints or, with -c, compares digests of files. It returns the exit status.
func Main(args []string, newHash func() hash.Hash) int {
	name, args := args[0], args[1:]
	check := false
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		switch args[0] {
		case "-c", "--check":
			check = true
		case "-b", "-t", "--":
			// Without meaning here.
		default:
			fmt.Fprintf(os.Stderr, "usage: %s [-c] [file...]\n", name)
			return 2
		}
		args = args[1:]
	}
	if len(args) == 0 {
		args = []string{"-"}
	}
	status := 0
	for _, file := range args {
		if check {
			if !compare(name, file, newHash) {
				status = 1
			}
			continue
		}
		sum, err := digest(file, newHash)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			status = 1
			continue
		}
		fmt.Printf("%s  %s\n", sum, file)
	}
	return status
}

func open(file string) (io.ReadCloser, error) {
	if file == "-" {
		return io.NopCloser(os.Stdin), nil
	}
	return os.Open(file)
}

func digest(file string, newHash func() hash.Hash) (string, error) {
	f, err := open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := newHash()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func compare(name, list string, newHash func() hash.Hash) bool {
	f, err := open(list)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return false
	}
	defer f.Close()
	good := true
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		want, file, ok := strings.Cut(lines.Text(), " ")
		if strings.HasPrefix(lines.Text(), "#") || lines.Text() == "" {
			continue
		}
		// The second column begins with a space, or with * for binary.
		if len(file) > 0 && (file[0] == ' ' || file[0] == '*') {
			file = file[1:]
		}
		if !ok || file == "" {
			fmt.Fprintf(os.Stderr, "%s: %s: malformed line\n", name, list)
			good = false
			continue
		}
		got, err := digest(file, newHash)
		switch {
		case err != nil:
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			fmt.Printf("%s: FAILED open or read\n", file)
			good = false
		case !strings.EqualFold(got, want):
			fmt.Printf("%s: FAILED\n", file)
			good = false
		default:
			fmt.Printf("%s: OK\n", file)
		}
	}
	return good && lines.Err() == nil
}
