package prep

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

const (
	qemuProgram = "qemu-system-x86_64"
	qemuPackage = "qemu-system-x86"
	// goodQEMU is the first version without the hangs that 7.2 showed with two
	// emulated CPUs under load.
	goodQEMU = 10
)

// run executes a program of the package tools and returns its output; on
// failure the error ends with the last line that the program printed.
func run(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(errOut.String()), "\n")
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, lines[len(lines)-1])
	}
	return out.String(), nil
}

// findQEMU returns the installed emulator, installing it first when that is
// possible.
func (c Config) findQEMU() (QEMU, error) {
	path, err := exec.LookPath(qemuProgram)
	if err != nil {
		if err := c.installQEMU(); err != nil {
			return QEMU{}, err
		}
		if path, err = exec.LookPath(qemuProgram); err != nil {
			return QEMU{}, ErrNoQEMU
		}
	}
	return describeQEMU(path)
}

// describeQEMU looks at an installed emulator.
func describeQEMU(path string) (QEMU, error) {
	major, err := qemuMajor(path)
	if err != nil {
		return QEMU{}, err
	}
	// Packages put the firmware beside the program's bin directory.
	_, err = os.Stat(filepath.Join(filepath.Dir(path), "../share/qemu/qboot.rom"))
	return QEMU{Path: path, Major: major, QuickFirmware: err == nil}, nil
}

var versionLine = regexp.MustCompile(`version (\d+)\.`)

func qemuMajor(path string) (int, error) {
	out, err := run("", path, "--version")
	if err != nil {
		return 0, err
	}
	m := versionLine.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("%s: no version in %q", path, out)
	}
	return strconv.Atoi(m[1])
}

// canInstall says whether packages can be installed here, else why not.
func canInstall() error {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errors.New("this system has no apt-get")
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can")
	}
	return nil
}

func (c Config) installQEMU() error {
	if err := canInstall(); err != nil {
		return fmt.Errorf("%w: install the package %s, version %d or newer (it is not done for you: %v)", ErrNoQEMU, qemuPackage, goodQEMU, err)
	}
	c.logf("installing %s", qemuPackage)
	if candidate(qemuPackage, "") == 0 {
		if _, err := run("", "apt-get", "update"); err != nil {
			return err
		}
	}
	args := []string{"install", "-y", "--no-install-recommends"}
	if candidate(qemuPackage, "") < goodQEMU {
		if suite, err := c.addBackports(); err != nil {
			c.logf("no backports suite: %v", err)
		} else if candidate(qemuPackage, suite) >= goodQEMU {
			args = append(args, "-t", suite)
		}
	}
	if _, err := run("", "apt-get", append(args, qemuPackage)...); err != nil {
		// The lists may be older than the archive.
		if _, uerr := run("", "apt-get", "update"); uerr != nil {
			return err
		}
		if _, err := run("", "apt-get", append(args, qemuPackage)...); err != nil {
			return fmt.Errorf("%w: %w", ErrNoQEMU, err)
		}
	}
	return nil
}

// candidate is the first number of the version that apt would install, with
// the named suite preferred if it is not empty; 0 if it knows none.
func candidate(pkg, suite string) int {
	args := []string{"policy"}
	if suite != "" {
		args = []string{"-t", suite, "policy"}
	}
	out, err := run("", "apt-cache", append(args, pkg)...)
	if err != nil {
		return 0
	}
	return candidateMajor(out)
}

var candidateLine = regexp.MustCompile(`(?m)^\s*Candidate:\s*(?:\d+:)?(\d+)`)

func candidateMajor(policy string) int {
	m := candidateLine.FindStringSubmatch(policy)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// addBackports adds the backports suite of this Debian release, taken from the
// same server as the release itself, and returns its name. Its packages have
// a low priority, so nothing else on the machine changes by it.
func (c Config) addBackports() (suite string, err error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	id, codename := osRelease(string(release))
	if id != "debian" || codename == "" {
		return "", fmt.Errorf("only Debian has one, this is %q", id)
	}
	suite = codename + "-backports"
	files, _ := filepath.Glob("/etc/apt/sources.list.d/*.sources")
	more, _ := filepath.Glob("/etc/apt/sources.list.d/*.list")
	for _, name := range append(append(files, "/etc/apt/sources.list"), more...) {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		derive, target := backportsStanza, "hutch-kvmhost-backports.sources"
		if filepath.Ext(name) != ".sources" {
			derive, target = backportsLine, "hutch-kvmhost-backports.list"
		}
		if have, entry := derive(string(text), codename); have {
			_, err := run("", "apt-get", "update")
			return suite, err
		} else if entry != "" {
			path := filepath.Join("/etc/apt/sources.list.d", target)
			c.logf("adding %s to the package sources (%s)", suite, path)
			if err := os.WriteFile(path, []byte(entry), 0o644); err != nil {
				return "", err
			}
			if _, err := run("", "apt-get", "update"); err != nil {
				os.Remove(path) // a mirror without the suite must not break apt
				return "", err
			}
			return suite, nil
		}
	}
	return "", errors.New("no package source of this release found")
}

func osRelease(text string) (id, codename string) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "ID":
			id = value
		case "VERSION_CODENAME":
			codename = value
		}
	}
	return id, codename
}

// backportsStanza derives a source of the backports suite from a deb822 file.
// have is true when the file names that suite already.
func backportsStanza(text, codename string) (have bool, entry string) {
	for stanza := range strings.SplitSeq(strings.ReplaceAll(text, "\r\n", "\n"), "\n\n") {
		fields := map[string]string{}
		var order []string
		last := ""
		for line := range strings.Lines(stanza) {
			line = strings.TrimRight(line, "\n")
			switch {
			case strings.HasPrefix(line, "#"), line == "":
			case line[0] == ' ' || line[0] == '\t': // continuation, such as an inline key
				if last != "" {
					fields[last] += "\n" + line
				}
			default:
				key, value, ok := strings.Cut(line, ":")
				if ok {
					last = strings.ToLower(key)
					fields[last] = strings.TrimSpace(value)
					order = append(order, key)
				}
			}
		}
		if strings.EqualFold(fields["enabled"], "no") {
			continue
		}
		for suite := range strings.FieldsSeq(fields["suites"]) {
			if suite == codename+"-backports" {
				return true, ""
			}
			if suite != codename || entry != "" {
				continue
			}
			var b strings.Builder
			for _, key := range order {
				value := fields[strings.ToLower(key)]
				switch strings.ToLower(key) {
				case "suites":
					value = codename + "-backports"
				case "types":
					value = "deb"
				}
				if !strings.HasPrefix(value, "\n") { // else all of it is in continuation lines
					value = " " + value
				}
				fmt.Fprintf(&b, "%s:%s\n", key, value)
			}
			entry = b.String()
		}
	}
	return false, entry
}

// backportsLine is backportsStanza for the one-line format.
func backportsLine(text, codename string) (have bool, entry string) {
	s := bufio.NewScanner(strings.NewReader(text))
	for s.Scan() {
		line, _, _ := strings.Cut(s.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[0] != "deb" {
			continue
		}
		i := 1
		if strings.HasPrefix(fields[1], "[") { // options, which may contain blanks
			for i < len(fields) && !strings.HasSuffix(fields[i], "]") {
				i++
			}
			i++
		}
		if i+1 >= len(fields) {
			continue
		}
		switch fields[i+1] {
		case codename + "-backports":
			return true, ""
		case codename:
			if entry == "" {
				fields[i+1] = codename + "-backports"
				entry = strings.Join(fields, " ") + "\n"
			}
		}
	}
	return false, entry
}

// kernelPackage asks apt which package the newest kernel is in.
func (c Config) kernelPackage() (string, error) {
	const meta = "linux-image-amd64"
	name, err := kernelOf(meta)
	if err != nil && os.Geteuid() == 0 {
		c.logf("updating the package lists")
		if _, uerr := run("", "apt-get", "update"); uerr != nil {
			return "", uerr
		}
		name, err = kernelOf(meta)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %v; are apt's package lists there (apt-get update)?", ErrNoKernel, err)
	}
	return name, nil
}

func kernelOf(meta string) (string, error) {
	out, err := run("", "apt-cache", "show", "--no-all-versions", meta)
	if err != nil {
		return "", err
	}
	return kernelDependency(out)
}

var kernelName = regexp.MustCompile(`^linux-image-[0-9][0-9A-Za-z.+~-]*-amd64$`)

func kernelDependency(show string) (string, error) {
	for line := range strings.Lines(show) {
		deps, ok := strings.CutPrefix(line, "Depends:")
		if !ok {
			continue
		}
		for dep := range strings.SplitSeq(deps, ",") {
			f := strings.Fields(dep)
			if len(f) > 0 && kernelName.MatchString(f[0]) && !strings.Contains(f[0], "-cloud-") {
				return f[0], nil
			}
		}
	}
	return "", errors.New("the kernel meta package names no kernel")
}

// downloadPackage puts one package file into dir and returns its path.
func (c Config) downloadPackage(dir, pkg string) (string, error) {
	c.logf("downloading %s", pkg)
	// As root apt would drop to a user that cannot write into dir.
	args := []string{"download", "-o", "APT::Sandbox::User=" + sandboxUser(), pkg}
	_, err := run(dir, "apt-get", args...)
	if err != nil && os.Geteuid() == 0 {
		if _, uerr := run("", "apt-get", "update"); uerr != nil {
			return "", fmt.Errorf("%w: %w; %w", ErrNoKernel, err, uerr)
		}
		_, err = run(dir, "apt-get", args...)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoKernel, err)
	}
	found, _ := filepath.Glob(filepath.Join(dir, pkg+"_*.deb"))
	if len(found) != 1 {
		return "", fmt.Errorf("%w: apt-get left %d files for %s", ErrNoKernel, len(found), pkg)
	}
	return found[0], nil
}

func sandboxUser() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	return ""
}
