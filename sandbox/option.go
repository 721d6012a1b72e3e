package sandbox

import (
	"log/slog"
	"maps"
	"time"
)

// Option sets one property of a sandbox to be created. Options are checked
// together, before anything is done; a later option overrides an earlier one
// of the same kind.
type Option func(*config)

// WithCPUs sets the number of virtual CPUs, 1 to 64. The default is 1.
func WithCPUs(n int) Option { return func(c *config) { c.CPUs = n } }

// WithMemory sets the guest's memory in bytes; it is rounded up to a whole MiB.
// It is a ceiling: host memory is used as the guest touches it. The default is
// 512 MiB, the least is 64 MiB.
func WithMemory(bytes uint64) Option { return func(c *config) { c.Memory = bytes } }

// WithEnv adds environment variables for every command of the sandbox; those
// of one command go before them. Names that begin with HUTCH_ are reserved.
func WithEnv(env map[string]string) Option {
	return func(c *config) { c.Env = merged(c.Env, env) }
}

// WithWorkdir sets the directory in which commands start. It must exist in the
// guest, otherwise Create fails. The default is /.
func WithWorkdir(dir string) Option { return func(c *config) { c.Workdir = dir } }

// WithUser sets the user that commands run as: "name", "uid", "name:group" or
// "uid:gid", looked up in the guest's /etc/passwd and /etc/group. Supplementary
// groups come from there as well, and HOME unless the environment has one. The
// default is root.
func WithUser(spec string) Option { return func(c *config) { c.User = spec } }

// WithHostname sets the guest's host name, up to 64 bytes. The default is the
// sandbox's name; one longer than 64 bytes is cut to 55 and given a hyphen and
// the first 8 hexadecimal digits of its SHA-256.
func WithHostname(name string) Option { return func(c *config) { c.Hostname = name } }

// WithShell sets the interpreter of Shell, ShellStream and AttachShell: a path
// in the guest. The default is /bin/sh.
func WithShell(path string) Option { return func(c *config) { c.Shell = path } }

// WithRlimits sets resource limits that every process of the sandbox inherits.
func WithRlimits(limits map[Resource]Rlimit) Option {
	return func(c *config) { c.Rlimits = merged(c.Rlimits, limits) }
}

// WithLabels attaches labels to the sandbox. Names that begin with "sandbox.",
// "hutch." or "service." are reserved.
func WithLabels(labels map[string]string) Option {
	return func(c *config) { c.Labels = merged(c.Labels, labels) }
}

// WithMaxDuration stops the sandbox that long after Create returned; the guest
// gets 2 s to sync. 0, the default, is no limit.
func WithMaxDuration(d time.Duration) Option { return func(c *config) { c.MaxDuration = d } }

// WithOCIUpperSize sets the size in bytes of the writable disk above the image.
// The file behind it is sparse: it takes what the guest has written. The
// default is 4 GiB. A larger size at a later [Start] makes the disk grow; it
// cannot shrink.
//
// An ephemeral sandbox of the embedded base image has no such disk unless this
// option gives it one: what it writes is in its memory, half of it at most,
// which makes it start a tenth faster.
func WithOCIUpperSize(bytes uint64) Option {
	return func(c *config) { c.UpperSize = roundUp(bytes) }
}

// roundUp rounds up to a whole MiB. What would overflow stays, for the check.
func roundUp(bytes uint64) uint64 { return max(bytes, (bytes+mib-1)&^(mib-1)) }

// WithReplace makes Create stop and remove a sandbox of the same name first,
// whichever process it runs in. Stopping it takes up to 10 s, see [Sandbox.Stop].
func WithReplace() Option { return func(c *config) { c.Replace = true } }

// WithReplaceTimeout is WithReplace with another time than 10 s after which the
// old sandbox is killed; 0 kills it at once.
func WithReplaceTimeout(d time.Duration) Option {
	return func(c *config) { c.Replace, c.ReplaceTimeout = true, d }
}

// Security says what commands may do to the guest that they run in. The host is
// kept apart by the virtual machine, not by this.
type Security string

// The security profiles.
const (
	// SecurityDefault: root in the guest has full power over it.
	SecurityDefault Security = ""
	// SecurityRestricted: commands cannot gain privileges (no_new_privs), also
	// root has no CAP_SYS_ADMIN, and the sandbox's own mounts are nosuid and
	// nodev. Each command takes a little longer to start.
	SecurityRestricted Security = "restricted"
)

// WithSecurity sets the security profile; the default is SecurityDefault.
func WithSecurity(s Security) Option { return func(c *config) { c.Security = s } }

// WithEphemeral makes the sandbox leave nothing behind, neither record nor
// disk, however it ends; what a killed process left is swept by the next one.
func WithEphemeral() Option { return func(c *config) { c.Ephemeral = true } }

// WithLogger receives the log of the sandbox's machine. The default is silence.
// Values that could be secret (environments, command lines) are never logged.
func WithLogger(l *slog.Logger) Option { return func(c *config) { c.Logger = l } }

// WithHome sets the directory for caches and records. The default is
// $HUTCH_HOME, then $XDG_DATA_HOME/hutch, then ~/.local/share/hutch.
func WithHome(dir string) Option { return func(c *config) { c.Home = dir } }

// WithKernel boots another kernel than the embedded one: the path of an ELF
// vmlinux or a bzImage. It needs what SPECIFICATION.md lists as built in.
func WithKernel(path string) Option { return func(c *config) { c.Kernel = path } }

// WithInitramfs boots another initramfs than the embedded one: the path of a
// cpio archive that holds the agent as /init.
func WithInitramfs(path string) Option { return func(c *config) { c.Initramfs = path } }

// WithoutTemplate boots the guest's kernel instead of starting from the snapshot
// of a guest that has booted. Such snapshots are made by the first sandbox of
// each shape (memory, CPUs, devices), and kept in the cache directory under home.
func WithoutTemplate() Option { return func(c *config) { c.NoTemplate = true } }

// WithKVMDevice uses another KVM device than /dev/kvm.
func WithKVMDevice(path string) Option { return func(c *config) { c.KVMDevice = path } }

func merged[K comparable, V any](into, from map[K]V) map[K]V {
	if into == nil {
		into = make(map[K]V, len(from))
	}
	maps.Copy(into, from)
	return into
}
