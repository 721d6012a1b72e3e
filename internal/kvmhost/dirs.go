package kvmhost

import (
	"path/filepath"
	"slices"
	"strings"
)

// testFlagFiles are the flags of a Go test binary that name a file to write,
// testFlagDirs those that name a directory. Go's own test command reads them
// back after the run.
var (
	testFlagFiles = []string{
		"testlogfile", "coverprofile", "cpuprofile", "memprofile", "blockprofile", "mutexprofile", "trace",
	}
	testFlagDirs = []string{"outputdir", "gocoverdir", "fuzzcachedir", "artifactsdir"}
)

// testOutputs finds the directories that a Go test binary's flags and
// environment ask to write to.
func testOutputs(args, env []string, dir string) []string {
	var dirs []string
	for _, e := range env { // binaries built for coverage follow this one
		if value, ok := strings.CutPrefix(e, "GOCOVERDIR="); ok && value != "" {
			dirs = append(dirs, absolute(dir, value))
		}
	}
	outputDir := dir
	for _, arg := range args {
		if value, ok := strings.CutPrefix(arg, "-test.outputdir="); ok && value != "" {
			outputDir = absolute(dir, value)
		}
	}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		name, isTest := strings.CutPrefix(name, "-test.")
		if !ok || !isTest || value == "" {
			continue
		}
		switch {
		case name == "testlogfile": // the only one that does not follow outputdir
			dirs = append(dirs, filepath.Dir(absolute(dir, value)))
		case slices.Contains(testFlagFiles, name):
			dirs = append(dirs, filepath.Dir(absolute(outputDir, value)))
		case slices.Contains(testFlagDirs, name):
			dirs = append(dirs, absolute(dir, value))
		}
	}
	return dirs
}

func absolute(dir, name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(dir, name)
}

// outermost sorts directories and drops those that are inside another one.
func outermost(dirs []string) []string {
	dirs = slices.Clone(dirs)
	slices.Sort(dirs)
	var keep []string
	for _, d := range slices.Compact(dirs) {
		if !slices.ContainsFunc(keep, func(k string) bool { return isInside(d, k) }) {
			keep = append(keep, d)
		}
	}
	return keep
}

// isInside says whether clean absolute path d is dir or below it.
func isInside(d, dir string) bool {
	return d == dir || strings.HasPrefix(d, strings.TrimSuffix(dir, "/")+"/")
}

// overlays are the directories that become writable without anything coming
// out. The root itself never does.
func overlays(getenv func(string) string) []string {
	dirs := []string{"/tmp", "/var/tmp"}
	for _, name := range []string{"HOME", "TMPDIR"} {
		if d := getenv(name); filepath.IsAbs(d) && filepath.Clean(d) != "/" {
			dirs = append(dirs, filepath.Clean(d))
		}
	}
	return outermost(dirs)
}
