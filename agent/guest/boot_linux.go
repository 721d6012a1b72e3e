package guest

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/proto"
)

// Descriptor limits of the guest's processes. The kernel's own for process 1,
// 1024 and 4096, are too few for servers and build tools.
const (
	softFiles = 65536
	hardFiles = 1 << 20
)

// apiMount is a file system of the kernel's.
type apiMount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// apiMounts are made before the agent says hello. Those under / move into the
// new root with everything below them.
var apiMounts = []apiMount{
	{"proc", "/proc", "proc", quiet, ""},
	{"sysfs", "/sys", "sysfs", quiet, ""},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
	{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"},
	{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
}

// optionalMounts may be missing from the kernel.
var optionalMounts = []apiMount{
	{"mqueue", "/dev/mqueue", "mqueue", quiet, ""},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", quiet, "nsdelegate"},
}

// devLinks are expected in /dev, and not made by the kernel.
var devLinks = [][2]string{
	{"/proc/self/fd", "/dev/fd"},
	{"/proc/self/fd/0", "/dev/stdin"},
	{"/proc/self/fd/1", "/dev/stdout"},
	{"/proc/self/fd/2", "/dev/stderr"},
}

// now is the guest's CLOCK_MONOTONIC in nanoseconds. It starts with the kernel.
func now() uint64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return uint64(ts.Nano())
}

func (m apiMount) mount() error {
	if err := os.Mkdir(m.target, 0o755); err != nil && !os.IsExist(err) {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
		return &os.PathError{Op: "mount", Path: m.target, Err: err}
	}
	return nil
}

// mountAPI mounts what the agent and every command need from the kernel.
func mountAPI() error {
	unix.Umask(0) // modes are as written
	for _, m := range apiMounts {
		if err := m.mount(); err != nil {
			return err
		}
	}
	for _, m := range optionalMounts {
		m.mount()
	}
	unix.Umask(0o022)
	for _, l := range devLinks {
		os.Symlink(l[0], l[1])
	}
	return nil
}

// shieldSignals takes the signals that would end a Go program, which as process
// 1 must not end. Children start with the default handling of each.
func shieldSignals() {
	var all []os.Signal
	for n := syscall.Signal(1); n < 32; n++ {
		switch n {
		case unix.SIGKILL, unix.SIGSTOP, unix.SIGCHLD, unix.SIGURG, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGCONT:
		default:
			all = append(all, n)
		}
	}
	signal.Notify(make(chan os.Signal, 1), all...) // never read: what does not fit is dropped
}

// loopbackUp brings up lo, which nobody else does.
func loopbackUp() {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return // a kernel without a network
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

// Main is the agent's program. As process 1 it returns only when it cannot go
// on, with what to print; the kernel then panics, which the host sees. Started
// by itself as a limiter it returns when the command could not be executed.
func Main(args []string, build string) error {
	if len(args) > 0 && args[0] == limiterName {
		runLimiter(args)
		return nil
	}
	if os.Getpid() != 1 {
		return errNotInit
	}
	tell(proto.BootMark)
	stamps := proto.BootStamps{Init: now()}
	shieldSignals()
	// By package syscall, which otherwise gives children the kernel's again.
	syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: softFiles, Max: hardFiles})
	if err := mountAPI(); err != nil {
		return err
	}
	relaxMonitor()
	loopbackUp()
	stamps.Mounted = now()
	tell(proto.ReadyMark)
	conn, err := dialHost(proto.PortControl)
	if err != nil {
		return err
	}
	stamps.Connected = now()
	c := &control{conn: conn}
	if err := c.hello(&proto.Hello{Build: build, Boot: stamps}); err != nil {
		return err
	}
	return c.serve()
}
