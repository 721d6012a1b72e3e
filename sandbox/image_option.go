package sandbox

import (
	"path/filepath"
	"slices"

	"github.com/hutchvm/hutch/rootfs/oci"
)

// WithImage sets what the root file system is made of. The default is the
// embedded base image. A name that begins with "/", "./" or "../" is a path on
// the host:
//
//   - a disk image (.raw, .img, .qcow2, .vmdk) is used in place: what the guest writes
//     goes into it, and no other sandbox can use it meanwhile;
//   - an OCI layout, or a tar file of "docker save" or of an OCI layout, is
//     loaded as an image;
//   - any other directory is the root as it is, over virtio-fs. What the guest
//     writes goes to the writable disk, not to the directory.
//
// Any other name is a reference to an OCI image, such as "debian:12" or
// "registry.example.com/team/app@sha256:…". It is pulled as WithPullPolicy says,
// and kept. What it is made of stays the same for the sandbox's whole life,
// whatever the name means later.
//
// The image's environment, user, working directory and labels hold where the
// options say nothing else.
func WithImage(ref string) Option {
	return func(c *config) {
		if isPath(ref) {
			if abs, err := filepath.Abs(ref); err == nil {
				ref = abs
			}
		}
		c.Image = ref
	}
}

// WithFSType says which file system is on a disk image, such as "ext4". Without
// it those that the kernel knows are tried, on the disk and on its partitions.
func WithFSType(fstype string) Option { return func(c *config) { c.FSType = fstype } }

// PullPolicy says when a registry is asked for an image.
type PullPolicy int

// The pull policies.
const (
	// PullIfMissing uses the image that is here, without any network, if there is one.
	PullIfMissing = PullPolicy(oci.PullIfMissing)
	// PullAlways asks what the name stands for now; only what is not here is transferred.
	PullAlways = PullPolicy(oci.PullAlways)
	// PullNever fails with ErrImageNotFound when the image is not here.
	PullNever = PullPolicy(oci.PullNever)
)

// WithPullPolicy says when the registry is asked; the default is PullIfMissing.
func WithPullPolicy(p PullPolicy) Option { return func(c *config) { c.PullPolicy = p } }

// WithRegistryAuth sets the credentials for the registry; both are needed. The
// default are those of Docker's configuration and its credential helpers. They
// are not saved: a Start that has to pull needs them again.
func WithRegistryAuth(username, password string) Option {
	return func(c *config) { c.RegistryUser, c.RegistryPassword, c.RegistryAuth = username, password, true }
}

// WithRegistryInsecure allows plain HTTP, and TLS whose certificate is not verified.
func WithRegistryInsecure() Option { return func(c *config) { c.RegistryInsecure = true } }

// WithRegistryCACerts adds certificates, in PEM, that are trusted for the
// registry besides the system's.
func WithRegistryCACerts(pem ...[]byte) Option {
	return func(c *config) { c.RegistryCACerts = append(slices.Clone(c.RegistryCACerts), pem...) }
}

// WithEntrypoint replaces the image's ENTRYPOINT, and drops its CMD unless
// [WithCmd] gives one; see [Sandbox.DefaultCommand]. Without words there is no
// entrypoint.
func WithEntrypoint(argv ...string) Option {
	return func(c *config) { c.Entrypoint = &argv }
}

// WithCmd replaces the image's CMD; see [Sandbox.DefaultCommand].
func WithCmd(argv ...string) Option {
	return func(c *config) { c.Cmd = &argv }
}

// WithScripts adds executables, by name, that every command finds first on its
// PATH. They live in the guest's memory and begin with "#!" and an interpreter.
func WithScripts(scripts map[string]string) Option {
	return func(c *config) { c.Scripts = merged(c.Scripts, scripts) }
}

// maxScripts bounds all scripts together, in bytes: they are part of one message.
const maxScripts = 4 << 20

// fsTypes are the file systems of disk images that the guest's kernel has.
var fsTypes = []string{"", "ext4", "ext3", "ext2", "erofs", "squashfs", "vfat"}

func (c *config) checkImage() error {
	if len(c.Image) > 4096 || !plainText(c.Image) {
		return invalid("WithImage", "the name is too long, or no UTF-8 text without NUL bytes")
	}
	if !slices.Contains(fsTypes, c.FSType) {
		return invalid("WithFSType", "%q, the guest's kernel has %q", c.FSType, fsTypes[1:])
	}
	if c.PullPolicy < PullIfMissing || c.PullPolicy > PullNever {
		return invalid("WithPullPolicy", "%d is none", c.PullPolicy)
	}
	if c.RegistryAuth && (c.RegistryUser == "" || c.RegistryPassword == "") {
		return invalid("WithRegistryAuth", "user name and password are both needed")
	}
	for option, argv := range map[string]*[]string{"WithEntrypoint": c.Entrypoint, "WithCmd": c.Cmd} {
		if argv != nil && slices.ContainsFunc(*argv, func(s string) bool { return !plainText(s) }) {
			return invalid(option, "a word is no UTF-8 text without NUL bytes")
		}
	}
	if c.Entrypoint != nil && len(*c.Entrypoint) > 0 && (*c.Entrypoint)[0] == "" {
		return invalid("WithEntrypoint", "the first word is empty")
	}
	size := 0
	for name, text := range c.Scripts {
		if name == "" || name == "." || name == ".." || len(name) > 255 || filepath.Base(name) != name || !plainText(name) {
			return invalid("WithScripts", "%q is no file name", name)
		}
		size += len(name) + len(text)
	}
	if size > maxScripts {
		return invalid("WithScripts", "%d bytes, at most %d", size, maxScripts)
	}
	return nil
}
