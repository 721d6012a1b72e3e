package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/initramfs"
	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/kernel"
	"github.com/hutchvm/hutch/sandbox"
)

// This test binary is also what measures in the guests, where shareEnv says; in the
// peer's machine it is the init, and has that from the kernel's command line.
const (
	shareEnv    = "HUTCHBENCH_SHARE"
	shareTag    = "peer"
	shareRounds = 3
	shareMarker = "share-result"

	peerTimeout = 5 * time.Minute

	shareFiles = 20000
	shareBytes = 64 << 20
)

// measureShare walks the tree once and reads a file several times, with cold caches
// each time, and prints nanoseconds.
func measureShare(w io.Writer, dir string) {
	cold()
	begin := time.Now()
	files := 0
	err := filepath.WalkDir(filepath.Join(dir, "tree"), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			_, err = d.Info() // as find does with most tests
			files++
		}
		return err
	})
	walk := time.Since(begin)
	for range shareRounds {
		cold()
		begin = time.Now()
		n, err2 := readAll(filepath.Join(dir, "big"))
		read := time.Since(begin)
		fmt.Fprintln(w, shareMarker, files, walk.Nanoseconds(), n, read.Nanoseconds(), errors.Join(err, err2))
	}
}

func cold() {
	unix.Sync()
	os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}

func readAll(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	var total int64
	for {
		n, err := f.Read(buf)
		total += int64(n)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// peerInit is process 1 of the peer's machine.
func peerInit(dir string) {
	for _, m := range []struct{ source, target, fs string }{
		{"devtmpfs", "/dev", "devtmpfs"}, {"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {shareTag, dir, "virtiofs"},
	} {
		os.Mkdir(m.target, 0o755)
		if err := unix.Mount(m.source, m.target, m.fs, 0, ""); err != nil && m.fs == "virtiofs" {
			fmt.Println("mount:", err)
		}
	}
	out, err := os.OpenFile("/dev/hvc0", os.O_RDWR, 0)
	if err == nil {
		measureShare(out, dir)
	}
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// shareResult is the walk, and the median of the reads.
type shareResult struct{ walk, read time.Duration }

func parseShare(b *testing.B, text string) shareResult {
	b.Helper()
	var walk, read []time.Duration
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, shareMarker)
		if !ok {
			continue
		}
		var files, n, w, r int64
		var problem string
		if _, err := fmt.Sscan(rest, &files, &w, &n, &r, &problem); err != nil || problem != "<nil>" || files != shareFiles || n != shareBytes {
			b.Fatalf("%q: %v", line, err)
		}
		walk, read = append(walk, time.Duration(w)), append(read, time.Duration(r))
	}
	if len(walk) != shareRounds {
		b.Fatalf("no results:\n%s", text)
	}
	return shareResult{median(walk), median(read)}
}

// BenchmarkShareVersusVirtiofsd walks a tree of 20,000 files and reads a file of 64
// MiB on a directory of the host: in a sandbox, and in QEMU's microvm machine with
// virtiofsd and the same kernel and program. bench/virtiofsd.sh gets the peer.
func BenchmarkShareVersusVirtiofsd(b *testing.B) {
	kvmtest.RequireLinux(b)
	peer := virtiofsd(b)
	dir := b.TempDir()
	makeTree(b, dir)
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "bench"), program, 0o755)
	}
	if err != nil {
		b.Fatal(err)
	}
	home := warmHome(b)
	qemu := peerMachine(b, program, peer, dir)
	for b.Loop() {
		ours := measureOurs(b, home, dir)
		theirs := parseShare(b, qemu())
		b.ReportMetric(ms(ours.walk), "walk-ms")
		b.ReportMetric(ms(theirs.walk), "virtiofsd-walk-ms")
		b.ReportMetric(float64(theirs.walk)/float64(ours.walk), "walk-speed/virtiofsd")
		b.ReportMetric(shareBytes/1e6/ours.read.Seconds(), "read-MB/s")
		b.ReportMetric(shareBytes/1e6/theirs.read.Seconds(), "virtiofsd-read-MB/s")
		b.ReportMetric(float64(theirs.read)/float64(ours.read), "read-speed/virtiofsd")
	}
}

func measureOurs(b *testing.B, home, dir string) shareResult {
	b.Helper()
	sb, err := sandbox.Create(context.Background(), fmt.Sprintf("share-%d", serial.Add(1)), sandbox.WithEphemeral(), sandbox.WithHome(home),
		sandbox.WithMemory(memory), sandbox.WithMounts(map[string]sandbox.Mount{"/share": sandbox.MountBind(dir)}))
	if err != nil {
		b.Fatal(err)
	}
	defer sb.Close()
	out, err := sb.Exec(context.Background(), "/share/bench", nil, sandbox.WithExecEnv(map[string]string{shareEnv: "/share"}))
	if err != nil {
		b.Fatal(err)
	}
	return parseShare(b, out.Stdout())
}

func makeTree(b *testing.B, dir string) {
	b.Helper()
	const perDir = 100
	for i := range shareFiles / perDir {
		sub := filepath.Join(dir, "tree", fmt.Sprint(i))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			b.Fatal(err)
		}
		for j := range perDir {
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprint("file", j)), nil, 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "big"), bytes.Repeat([]byte("0123456789abcdef"), shareBytes/16), 0o644); err != nil {
		b.Fatal(err)
	}
}

// virtiofsd finds the peer.
func virtiofsd(b *testing.B) string {
	b.Helper()
	cache, _ := os.UserCacheDir()
	for _, path := range []string{
		os.Getenv("HUTCHBENCH_VIRTIOFSD"), cache + "/hutch-bench/virtiofsd/usr/lib/qemu/virtiofsd",
		"/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd",
	} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	b.Fatal("no virtiofsd: bench/virtiofsd.sh gets it")
	return ""
}

// peerMachine runs the program as init of QEMU's machine, once for each call, and
// returns what it printed.
func peerMachine(b *testing.B, program []byte, daemon, dir string) func() string {
	b.Helper()
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		b.Fatalf("%v: the peer of this benchmark is Debian's package qemu-system-x86", err)
	}
	tmp := b.TempDir()
	vmlinux, err := kernel.ELF()
	var cpio bytes.Buffer
	if err == nil {
		err = initramfs.Build(&cpio, program)
	}
	kernelFile, initrd, socket := filepath.Join(tmp, "vmlinux"), filepath.Join(tmp, "initrd"), filepath.Join(tmp, "socket")
	if err = errors.Join(err, os.WriteFile(kernelFile, vmlinux, 0o600), os.WriteFile(initrd, cpio.Bytes(), 0o600)); err != nil {
		b.Fatal(err)
	}
	return func() string {
		server := exec.Command(daemon, "--socket-path="+socket, "-o", "source="+dir, "-o", "sandbox=chroot", "-o", "cache=auto")
		if err := server.Start(); err != nil {
			b.Fatal(err)
		}
		defer func() {
			server.Process.Kill()
			server.Wait()
			os.Remove(socket)
		}()
		for range 1000 {
			if _, err := os.Stat(socket); err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		ctx, cancel := context.WithTimeout(context.Background(), peerTimeout)
		defer cancel()
		out, err := exec.CommandContext(ctx, path, "-global", "virtio-mmio.force-legacy=false", "-machine", "microvm,accel=kvm,pit=off,pic=off,rtc=off,isa-serial=off,acpi=off,memory-backend=mem",
			"-object", "memory-backend-memfd,id=mem,size=256M,share=on",
			"-cpu", "host", "-smp", "1", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
			"-chardev", "stdio,id=out", "-device", "virtio-serial-device", "-device", "virtconsole,chardev=out",
			"-chardev", "socket,id=fs,path="+socket, "-device", "vhost-user-fs-device,queue-size=1024,chardev=fs,tag="+shareTag,
			"-kernel", kernelFile, "-initrd", initrd,
			"-append", "reboot=t panic=-1 quiet loglevel=1 console=hvc0 8250.nr_uarts=0 tsc=reliable no_timer_check random.trust_cpu=on cryptomgr.notests swiotlb=noforce "+shareEnv+"=/mnt").CombinedOutput()
		if err != nil {
			b.Fatalf("QEMU: %v\n%s", err, out)
		}
		return strings.ReplaceAll(string(out), "\r", "")
	}
}
