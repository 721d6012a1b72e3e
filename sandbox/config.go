package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hutchvm/hutch/boot"
	"github.com/hutchvm/hutch/rootfs/patch"
	"github.com/hutchvm/hutch/vmm"
)

const (
	defaultCPUs   = 1
	defaultMemory = 512 << 20
	defaultShell  = "/bin/sh"
	// defaultUpperSize is that of the writable disk, which is sparse.
	defaultUpperSize = 4 << 30
	// minUpperSize is enough for a file system with a journal and some files.
	minUpperSize = 16 << 20
	maxUpperSize = 16 << 40

	maxNameLen     = 128
	maxHostnameLen = 64 // HOST_NAME_MAX of Linux
	hostnameCut    = 55

	mib = 1 << 20
)

// config is what the options say, with defaults filled in by resolve. It is
// saved in the sandbox's record, from which Start boots it again: a field that
// must not be saved, or means something to one process only, is marked "-".
type config struct {
	Name        string              `json:"-"` // the record's
	Image       string              `json:"image,omitempty"`
	FSType      string              `json:"fs_type,omitempty"`
	PullPolicy  PullPolicy          `json:"pull_policy,omitempty"`
	Entrypoint  *[]string           `json:"entrypoint,omitempty"`
	Cmd         *[]string           `json:"cmd,omitempty"`
	Scripts     variables           `json:"scripts,omitempty"`
	CPUs        int                 `json:"cpus"`
	Memory      uint64              `json:"memory_bytes"`
	UpperSize   uint64              `json:"upper_bytes,omitempty"`
	Env         variables           `json:"env,omitempty"`
	Workdir     string              `json:"workdir,omitempty"`
	User        string              `json:"user,omitempty"`
	Hostname    string              `json:"hostname"`
	Shell       string              `json:"shell"`
	Security    Security            `json:"security,omitempty"`
	Rlimits     map[Resource]Rlimit `json:"rlimits,omitempty"`
	Labels      map[string]string   `json:"labels,omitempty"`
	Mounts      map[string]Mount    `json:"mounts,omitempty"`
	MaxDuration time.Duration       `json:"max_duration_ns,omitempty"`
	Ephemeral   bool                `json:"ephemeral,omitempty"`
	Logger      *slog.Logger        `json:"-"`
	Home        string              `json:"-"` // where the record is
	Kernel      string              `json:"kernel,omitempty"`
	Initramfs   string              `json:"initramfs,omitempty"`
	KVMDevice   string              `json:"kvm_device,omitempty"`
	NoTemplate  bool                `json:"no_template,omitempty"`
	Network     networkConfig       `json:"network,omitzero"`

	RegistryInsecure bool            `json:"registry_insecure,omitempty"`
	RegistryCACerts  [][]byte        `json:"registry_ca_certs,omitempty"`
	RegistryUser     string          `json:"-"` // a secret, with the password
	RegistryPassword string          `json:"-"`
	RegistryAuth     bool            `json:"-"`
	Patches          []patch.Patch   `json:"-"` // their layer is in the record
	Progress         func(PullEvent) `json:"-"`

	Replace        bool          `json:"-"`
	ReplaceTimeout time.Duration `json:"-"`
}

// resolve applies opts to the defaults and checks the result, without side effects.
func resolve(name string, opts []Option) (*config, error) {
	c := &config{
		Name: name, CPUs: defaultCPUs, Memory: defaultMemory, Shell: defaultShell,
		Hostname: hostnameFor(name), ReplaceTimeout: stopTimeout,
	}
	return c, c.apply(opts)
}

// apply applies opts to c and checks the result.
func (c *config) apply(opts []Option) error {
	for _, o := range opts {
		if o != nil {
			o(c)
		}
	}
	c.Memory = (c.Memory + mib - 1) &^ (mib - 1)
	for _, check := range []func() error{c.checkName, c.checkSize, c.checkGuest, c.checkLimits, c.checkPaths, c.checkImage, c.checkMounts, c.checkNetwork} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *config) checkName() error {
	if err := checkName(c.Name); err != nil {
		return err
	}
	if !validHostname(c.Hostname) {
		return invalid("WithHostname", "%q: want 1 to %d letters, digits, dots and hyphens", c.Hostname, maxHostnameLen)
	}
	return nil
}

// checkName tells whether a sandbox can have that name: it becomes a directory.
func checkName(name string) error {
	if name == "" || len(name) > maxNameLen {
		return invalid("name", "%d bytes, want 1 to %d", len(name), maxNameLen)
	}
	for i, r := range []byte(name) {
		if !isAlnum(r) && (i == 0 || !strings.ContainsRune("._-", rune(r))) {
			return invalid("name", "%q: want letters, digits, '.', '_' and '-', the first a letter or digit", name)
		}
	}
	return nil
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func validHostname(h string) bool {
	if h == "" || len(h) > maxHostnameLen || !isAlnum(h[0]) {
		return false
	}
	for _, r := range []byte(h) {
		if !isAlnum(r) && !strings.ContainsRune("._-", rune(r)) {
			return false
		}
	}
	return true
}

// hostnameFor makes a host name of a sandbox's name.
func hostnameFor(name string) string {
	if len(name) <= maxHostnameLen {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:hostnameCut] + "-" + hex.EncodeToString(sum[:4])
}

func (c *config) checkSize() error {
	if c.CPUs < 1 || c.CPUs > boot.MaxCPUs {
		return invalid("WithCPUs", "%d, want 1 to %d", c.CPUs, boot.MaxCPUs)
	}
	if c.Memory < vmm.MinMemory {
		return invalid("WithMemory", "%d bytes, at least %d are needed", c.Memory, uint64(vmm.MinMemory))
	}
	if host := hostMemory(); host > 0 && c.Memory > host {
		return invalid("WithMemory", "%d bytes, this host has %d", c.Memory, host)
	}
	if c.UpperSize != 0 && (c.UpperSize < minUpperSize || c.UpperSize > maxUpperSize) {
		return invalid("WithOCIUpperSize", "%d bytes, want %d to %d", c.UpperSize, uint64(minUpperSize), uint64(maxUpperSize))
	}
	if c.ReplaceTimeout < 0 {
		return invalid("WithReplaceTimeout", "%v is negative", c.ReplaceTimeout)
	}
	if c.MaxDuration < 0 {
		return invalid("WithMaxDuration", "%v is negative", c.MaxDuration)
	}
	return nil
}

func (c *config) checkGuest() error {
	if c.Security != SecurityDefault && c.Security != SecurityRestricted {
		return invalid("WithSecurity", "%q is none", string(c.Security))
	}
	if err := checkEnv("WithEnv", c.Env); err != nil {
		return err
	}
	if c.Workdir != "" && (!path.IsAbs(c.Workdir) || !plainText(c.Workdir)) {
		return invalid("WithWorkdir", "%q is not an absolute path", c.Workdir)
	}
	if !path.IsAbs(c.Shell) || !plainText(c.Shell) {
		return invalid("WithShell", "%q is not an absolute path", c.Shell)
	}
	if err := checkUser("WithUser", c.User); err != nil {
		return err
	}
	for k, v := range c.Labels {
		if k == "" || !plainText(k+v) {
			return invalid("WithLabels", "label %q is empty, or it or its value is no UTF-8 text without NUL bytes", k)
		}
		if reservedLabel(k) {
			return invalid("WithLabels", "label %q: names that begin with %q are reserved", k, reservedLabels)
		}
	}
	return nil
}

var reservedLabels = []string{"sandbox.", "hutch.", "service."}

func reservedLabel(name string) bool {
	return slices.ContainsFunc(reservedLabels, func(p string) bool { return strings.HasPrefix(name, p) })
}

// plainText tells whether s can be saved as it is and be part of a path.
func plainText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// checkEnv never prints a value: it may be a secret.
func checkEnv(option string, env map[string]string) error {
	for k, v := range env {
		switch {
		case k == "" || strings.Contains(k, "=") || !plainText(k):
			return invalid(option, "variable name %q is empty, holds '=', or is no UTF-8 text without NUL bytes", k)
		case strings.HasPrefix(k, "HUTCH_"):
			return invalid(option, "%s: names that begin with HUTCH_ are reserved", k)
		case strings.IndexByte(v, 0) >= 0:
			return invalid(option, "the value of %s holds a NUL byte", k)
		}
	}
	return nil
}

func checkUser(option, spec string) error {
	if strings.ContainsAny(spec, "\x00\n/ ") || strings.Count(spec, ":") > 1 || strings.HasPrefix(spec, ":") || strings.HasSuffix(spec, ":") {
		return invalid(option, "%q: want name, uid, name:group or uid:gid", spec)
	}
	return nil
}

func (c *config) checkLimits() error { return checkRlimits("WithRlimits", c.Rlimits) }

func (c *config) checkPaths() error {
	if c.Home == "" {
		home, err := defaultHome()
		if err != nil {
			return invalid("WithHome", "%v", err)
		}
		c.Home = home
	}
	abs, err := filepath.Abs(c.Home)
	if err != nil {
		return invalid("WithHome", "%v", err)
	}
	c.Home = abs
	return nil
}

// defaultHome is where caches and records live unless the caller says otherwise.
func defaultHome() (string, error) {
	if dir := os.Getenv("HUTCH_HOME"); dir != "" {
		return dir, nil
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "hutch"), nil
	}
	dir, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, ".local", "share", "hutch"), nil
}
