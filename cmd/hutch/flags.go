package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hutchvm/hutch/sandbox"
)

// sandboxFlags say what a sandbox is to be.
type sandboxFlags struct {
	workdir, user, hostname, shell string
	cpus                           int
	memory, upper                  byteSize
	env, envFiles, labels, ulimits []string
	entrypoint                     string
	scripts, copies                []string
	maxDuration                    time.Duration
	security                       string
	fsType                         string
	registry                       pullFlags
	quiet                          bool
	kernel, initramfs, kvm, home   string
	noTemplate                     bool
	mount                          mountFlags
	network                        networkFlags
}

func (f *sandboxFlags) add(c *cobra.Command) {
	f.memory = 512 << 20
	fl := c.Flags()
	fl.IntVarP(&f.cpus, "cpus", "c", 1, "virtual CPUs, 1 to 64")
	fl.VarP(&f.memory, "memory", "m", "memory, such as 256M or 2G; host memory is used as the guest touches it")
	fl.Var(&f.upper, "upper-size", "size of the writable disk, which takes room as it is used (default 4G)")
	fl.StringArrayVarP(&f.env, "env", "e", nil, "environment variable KEY=VALUE, or KEY to pass on hutch's own")
	fl.StringArrayVar(&f.envFiles, "env-file", nil, "file with one KEY=VALUE a line")
	fl.StringVarP(&f.workdir, "workdir", "w", "", "working directory in the guest (default: the image's)")
	fl.StringVarP(&f.user, "user", "u", "", "user: name, uid, name:group or uid:gid (default: the image's)")
	fl.StringVar(&f.hostname, "hostname", "", "host name (default: the sandbox's name)")
	fl.StringVar(&f.shell, "shell", "/bin/sh", "shell to run when there is no other command")
	fl.StringVar(&f.entrypoint, "entrypoint", "", "program to run in place of the image's entrypoint; \"\" for none")
	fl.StringArrayVar(&f.scripts, "script", nil, "NAME=FILE: a script of the host that is first on the guest's PATH as NAME")
	fl.StringArrayVar(&f.copies, "copy", nil, "HOST:GUEST: a file or directory of the host to be copied into the root before it boots")
	fl.StringVar(&f.security, "security", "", "\"restricted\": commands cannot gain privileges, and root has no CAP_SYS_ADMIN")
	fl.StringArrayVar(&f.ulimits, "ulimit", nil, "resource limit NAME=SOFT[:HARD], such as nofile=1024:4096")
	fl.StringArrayVarP(&f.labels, "label", "l", nil, "label KEY=VALUE")
	fl.DurationVar(&f.maxDuration, "max-duration", 0, "stop the sandbox after this time")
	fl.StringVar(&f.fsType, "fs-type", "", "file system of a disk image (default: what the kernel recognizes)")
	f.mount.add(c)
	f.network.add(c)
	f.registry.add(c)
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "do not show how the pull of an image goes")
	fl.StringVar(&f.kernel, "kernel", "", "boot this vmlinux or bzImage instead of the embedded kernel")
	fl.StringVar(&f.initramfs, "initramfs", "", "boot this initramfs instead of the embedded one")
	fl.BoolVar(&f.noTemplate, "no-template", false, "boot the kernel instead of starting from the snapshot of a booted guest")
	fl.StringVar(&f.kvm, "kvm", "", "KVM device (default /dev/kvm)")
	addHome(c, &f.home)
}

// options turns the flags into options of the SDK, which checks them.
func (f *sandboxFlags) options(c *cobra.Command, image string) ([]sandbox.Option, error) {
	env, err := parseEnv(f.env, f.envFiles)
	if err != nil {
		return nil, err
	}
	labels, err := parsePairs("label", f.labels)
	if err != nil {
		return nil, err
	}
	limits, err := parseUlimits(f.ulimits)
	if err != nil {
		return nil, err
	}
	registry, err := f.registry.options()
	if err != nil {
		return nil, err
	}
	mounts, err := f.mount.mounts(c.Context(), f.home)
	if err != nil {
		return nil, err
	}
	network, err := f.network.options()
	if err != nil {
		return nil, err
	}
	root, err := f.root()
	if err != nil {
		return nil, err
	}
	opts := []sandbox.Option{
		sandbox.WithImage(image), sandbox.WithFSType(f.fsType), sandbox.WithCPUs(f.cpus), sandbox.WithMemory(uint64(f.memory)),
		sandbox.WithOCIUpperSize(uint64(f.upper)), sandbox.WithMounts(mounts), sandbox.WithEnv(env),
		sandbox.WithLabels(labels), sandbox.WithRlimits(limits), sandbox.WithMaxDuration(f.maxDuration),
		sandbox.WithWorkdir(f.workdir), sandbox.WithUser(f.user), sandbox.WithShell(f.shell), sandbox.WithHome(f.home), sandbox.WithSecurity(sandbox.Security(f.security)),
		sandbox.WithKernel(f.kernel), sandbox.WithInitramfs(f.initramfs), sandbox.WithKVMDevice(f.kvm),
	}
	if f.hostname != "" {
		opts = append(opts, sandbox.WithHostname(f.hostname))
	}
	if f.entrypoint != "" {
		opts = append(opts, sandbox.WithEntrypoint(f.entrypoint))
	} else if c.Flags().Changed("entrypoint") {
		opts = append(opts, sandbox.WithEntrypoint())
	}
	if f.noTemplate {
		opts = append(opts, sandbox.WithoutTemplate())
	}
	return slices.Concat(opts, registry, network, root), nil
}

// root is what is put into the root file system.
func (f *sandboxFlags) root() ([]sandbox.Option, error) {
	scripts, err := parsePairs("script", f.scripts)
	if err != nil {
		return nil, err
	}
	for name, file := range scripts {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("--script %s: %w", name, err)
		}
		scripts[name] = string(b)
	}
	var patches []sandbox.Patch
	for _, s := range f.copies {
		i := strings.LastIndexByte(s, ':')
		if i <= 0 || !strings.HasPrefix(s[i+1:], "/") {
			return nil, fmt.Errorf("--copy %s: want HOST:GUEST, the latter an absolute path", s)
		}
		from, to := s[:i], s[i+1:]
		abs, err := filepath.Abs(from)
		if err != nil {
			return nil, err
		}
		st, err := os.Stat(abs)
		switch {
		case err != nil:
			return nil, fmt.Errorf("--copy: %w", err)
		case st.IsDir():
			patches = append(patches, sandbox.PatchCopyDir(abs, to).Replace())
		default:
			patches = append(patches, sandbox.PatchCopyFile(abs, to).Replace())
		}
	}
	return []sandbox.Option{sandbox.WithScripts(scripts), sandbox.WithPatches(patches...)}, nil
}

// pullFlags are those of commands that pull only when they have to.
type pullFlags struct {
	policy, username, passwordFile string
	insecure                       bool
	caCerts                        []string
}

func (f *pullFlags) add(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.policy, "pull", "missing", "when to ask the registry: always, missing or never")
	fl.StringVar(&f.username, "registry-user", "", "user name for the registry (default: Docker's configuration and credential helpers)")
	fl.StringVar(&f.passwordFile, "registry-password-file", "", "file with the password for --registry-user")
	fl.BoolVar(&f.insecure, "registry-insecure", false, "allow plain HTTP, and TLS whose certificate is not verified")
	fl.StringArrayVar(&f.caCerts, "registry-ca-cert", nil, "file of certificates in PEM that are trusted for the registry as well")
	_ = c.RegisterFlagCompletionFunc("pull", cobra.FixedCompletions([]string{"always", "missing", "never"}, cobra.ShellCompDirectiveNoFileComp))
}

func (f *pullFlags) options() ([]sandbox.Option, error) {
	if (f.username != "") != (f.passwordFile != "") {
		return nil, fmt.Errorf("--registry-user and --registry-password-file belong together")
	}
	if !slices.Contains([]string{"always", "missing", "never"}, f.policy) {
		return nil, fmt.Errorf("--pull %s: want always, missing or never", f.policy)
	}
	r := registryFlags{policy: f.policy, username: f.username, passwordStdin: f.passwordFile != "", insecure: f.insecure, caCerts: f.caCerts}
	if f.passwordFile == "" {
		return r.options(strings.NewReader(""))
	}
	file, err := os.Open(f.passwordFile)
	if err != nil {
		return nil, fmt.Errorf("--registry-password-file: %w", err)
	}
	defer file.Close()
	return r.options(file)
}
