package bench

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hutchvm/hutch/initramfs"
	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/kernel"
)

// pairs is how often each side of a comparison runs, in turn.
const pairs = 10

// BenchmarkRunVersusQEMU compares "hutch run -- true", the whole process, with
// QEMU's microvm machine booting the same kernel to an init that does nothing
// but restart the machine, and with the part of hutch that is Create.
func BenchmarkRunVersusQEMU(b *testing.B) {
	kvmtest.RequireLinux(b)
	hutch, err := filepath.Abs("../bin/hutch")
	if err == nil {
		_, err = os.Stat(hutch)
	}
	if err != nil {
		b.Fatalf("%v: build it with make bin", err)
	}
	home := warmHome(b)
	qemu := qemuCommand(b)
	ours := func() *exec.Cmd {
		cmd := exec.Command(hutch, "run", "--memory", "256M", "--", "true")
		cmd.Env = append(os.Environ(), "HUTCH_HOME="+home)
		return cmd
	}
	timed(b, ours()) // both programs are in the page cache from here on
	timed(b, qemu())

	var hutchTook, qemuTook, createTook []time.Duration
	for b.Loop() {
		for range pairs {
			hutchTook = append(hutchTook, timed(b, ours()))
			qemuTook = append(qemuTook, timed(b, qemu()))
			sb := create(b, home)
			createTook = append(createTook, sb.Timings().Total)
			sb.Close()
		}
	}
	run, peer, ready := median(hutchTook), median(qemuTook), median(createTook)
	b.ReportMetric(ms(run), "hutch-run-ms")
	b.ReportMetric(ms(peer), "qemu-ms")
	b.ReportMetric(ms(ready), "create-ms")
	b.ReportMetric(float64(run)/float64(peer), "run/qemu")
	b.ReportMetric(float64(ready)/float64(peer), "create/qemu")
}

func timed(b *testing.B, cmd *exec.Cmd) time.Duration {
	b.Helper()
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return time.Since(begin)
}

// restart is a static x86-64 program: reboot(LINUX_REBOOT_CMD_RESTART).
var restart = []byte{
	0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	2, 0, 62, 0, 1, 0, 0, 0, 0x78, 0, 0x40, 0, 0, 0, 0, 0, // entry 0x400078
	64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0,
	1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // load all of it, readable and executable
	0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0,
	0x91, 0, 0, 0, 0, 0, 0, 0, 0x91, 0, 0, 0, 0, 0, 0, 0,
	0, 0x10, 0, 0, 0, 0, 0, 0,
	0xbf, 0xad, 0xde, 0xe1, 0xfe, // mov edi, 0xfee1dead
	0xbe, 0x69, 0x19, 0x12, 0x28, // mov esi, 672274793
	0xba, 0x67, 0x45, 0x23, 0x01, // mov edx, RESTART
	0xb8, 0xa9, 0, 0, 0, // mov eax, SYS_reboot
	0x0f, 0x05, // syscall
	0xf4, 0xf4, 0xf4,
}

// qemuCommand prepares the peer: the same kernel, as little machine as it has.
func qemuCommand(b *testing.B) func() *exec.Cmd {
	b.Helper()
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		b.Fatalf("%v: the peer of this benchmark is Debian's package qemu-system-x86", err)
	}
	dir := b.TempDir()
	vmlinux, err := kernel.ELF()
	var cpio bytes.Buffer
	if err == nil {
		err = initramfs.Build(&cpio, restart)
	}
	kernelFile, initrd := filepath.Join(dir, "vmlinux"), filepath.Join(dir, "initrd")
	if err = errors.Join(err, os.WriteFile(kernelFile, vmlinux, 0o600), os.WriteFile(initrd, cpio.Bytes(), 0o600)); err != nil {
		b.Fatal(err)
	}
	return func() *exec.Cmd {
		return exec.Command(path, "-machine", "microvm,accel=kvm,pit=off,pic=off,rtc=off,isa-serial=off,acpi=off",
			"-cpu", "host", "-smp", "1", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
			"-kernel", kernelFile, "-initrd", initrd,
			"-append", "reboot=t panic=-1 quiet loglevel=1 8250.nr_uarts=0 tsc=reliable no_timer_check random.trust_cpu=on cryptomgr.notests swiotlb=noforce")
	}
}
