package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hutchvm/hutch/initramfs"
	"github.com/hutchvm/hutch/internal/kvmtest"
	"github.com/hutchvm/hutch/kernel"
	"github.com/hutchvm/hutch/virtio/blk"
	"github.com/hutchvm/hutch/vmm"
)

// diskSize is small enough for the host's page cache.
const diskSize = 128 << 20

const blkCmdLine = "panic=-1 quiet loglevel=1 8250.nr_uarts=0 tsc=reliable no_timer_check random.trust_cpu=on cryptomgr.notests swiotlb=noforce"

// blkSlice is how long the two machines run in turn.
const blkSlice = 100 * time.Millisecond

// BenchmarkBlkVersusQEMU compares the same guest doing the same work on a raw image
// behind Hutch's and behind QEMU's virtio-blk (aio=threads, cache=writeback). The
// guest is this test binary, static since CGO_ENABLED=0, see TestMain: it reads and writes with
// O_DIRECT, one request at a time.
//
// Each machine is a process, and the two run in turn for a short time each, so
// that other work on this computer, which can halve its speed from one second to
// the next, slows both alike.
func BenchmarkBlkVersusQEMU(b *testing.B) {
	kvmtest.RequireLinux(b)
	dir := b.TempDir()
	files := blkFiles(b, dir)
	sums := map[string][2]time.Duration{}
	for b.Loop() {
		sides := [2]*side{newSide(b, dir, "hutch", files), newSide(b, dir, "qemu", files)}
		for running := 2; running > 0; {
			running = 0
			for _, s := range sides {
				if s.turn(b) {
					running++
				}
			}
		}
		for k, j := range blkJobs {
			sum := sums[j.name]
			for i, s := range sides {
				sum[i] += s.took[k]
			}
			sums[j.name] = sum
		}
	}
	for _, j := range blkJobs {
		amount := float64(j.count*b.N) * j.unit
		ours, theirs := amount/sums[j.name][0].Seconds(), amount/sums[j.name][1].Seconds()
		b.ReportMetric(ours, j.name)
		b.ReportMetric(theirs, "qemu-"+j.name)
		b.ReportMetric(ours/theirs, j.name+"/qemu")
	}
}

// blkFiles writes kernel and initramfs.
func blkFiles(b *testing.B, dir string) [2]string {
	b.Helper()
	files := [2]string{filepath.Join(dir, "vmlinux"), filepath.Join(dir, "initrd")}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		b.Fatal(err)
	}
	vmlinux, err := kernel.ELF()
	var cpio bytes.Buffer
	if err == nil {
		err = initramfs.Build(&cpio, self)
	}
	if err = errors.Join(err, os.WriteFile(files[0], vmlinux, 0o600), os.WriteFile(files[1], cpio.Bytes(), 0o600)); err != nil {
		b.Fatal(err)
	}
	return files
}

// side is one of the two machines.
type side struct {
	cmd     *exec.Cmd
	out     bytes.Buffer
	disk    *os.File
	ended   chan error
	done    bool
	job     int // what the guest is at, -1 before the first
	took    []time.Duration
	running bool
}

func newSide(b *testing.B, dir, name string, files [2]string) *side {
	b.Helper()
	s := &side{job: -1, took: make([]time.Duration, len(blkJobs)), ended: make(chan error, 1), running: true}
	path := filepath.Join(dir, name+".raw")
	var err error
	if s.disk, err = os.Create(path); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.disk.Close() })
	if _, err := io.CopyN(s.disk, zeros{}, diskSize); err != nil {
		b.Fatal(err)
	}
	if name == "hutch" {
		s.cmd = exec.Command("/proc/self/exe")
		s.cmd.Env = append(os.Environ(), "BLK_BENCH_HOST="+path, "BLK_BENCH_KERNEL="+files[0], "BLK_BENCH_INITRD="+files[1])
	} else {
		qemu, err := exec.LookPath("qemu-system-x86_64")
		if err != nil {
			b.Fatalf("%v: the peer of this benchmark is Debian's package qemu-system-x86", err)
		}
		s.cmd = exec.Command(qemu, "-machine", "microvm,accel=kvm,pit=off,pic=off,rtc=off,isa-serial=off,acpi=off",
			"-cpu", "host", "-smp", "1", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
			"-drive", "id=disk,if=none,format=raw,aio=threads,cache=writeback,file="+path, "-device", "virtio-blk-device,drive=disk",
			"-kernel", files[0], "-initrd", files[1], "-append", "reboot=t "+blkCmdLine)
	}
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	go func() { s.ended <- s.cmd.Wait() }()
	s.signal(syscall.SIGSTOP)
	b.Cleanup(func() { _ = s.cmd.Process.Kill() })
	return s
}

func (s *side) signal(sig syscall.Signal) { _ = s.cmd.Process.Signal(sig) }

// turn lets the machine run for a while, and reports whether there is more to do.
func (s *side) turn(b *testing.B) bool {
	b.Helper()
	if s.done {
		return false
	}
	s.signal(syscall.SIGCONT)
	defer s.signal(syscall.SIGSTOP)
	begin := time.Now()
	for time.Since(begin) < blkSlice {
		select {
		case err := <-s.ended:
			if s.done = true; err != nil || s.job != len(blkJobs) {
				b.Fatalf("%v ended in job %d: %v\n%s", s.cmd.Path, s.job, err, s.out.Bytes())
			}
			return false
		case <-time.After(5 * time.Millisecond):
		}
		var mark [1]byte
		if _, err := s.disk.ReadAt(mark[:], diskSize-markSize); err != nil {
			b.Fatal(err)
		}
		if now := int(mark[0]) - 1; now > s.job {
			s.charge(time.Since(begin))
			begin, s.job = time.Now(), now
		}
	}
	s.charge(time.Since(begin))
	return true
}

// charge adds to what the current job took.
func (s *side) charge(d time.Duration) {
	if s.job >= 0 && s.job < len(s.took) {
		s.took[s.job] += d
	}
}

// blkHost is the process that runs Hutch's machine.
func blkHost(path string) error {
	open := func(path string, flags int) (*os.File, int64, error) {
		f, err := os.OpenFile(path, flags, 0)
		if err != nil {
			return nil, 0, err
		}
		fi, err := f.Stat()
		return f, fi.Size(), err
	}
	vmlinux, kernelSize, err1 := open(os.Getenv("BLK_BENCH_KERNEL"), os.O_RDONLY)
	initrd, initrdSize, err2 := open(os.Getenv("BLK_BENCH_INITRD"), os.O_RDONLY)
	image, _, err3 := open(path, os.O_RDWR)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	file, err := blk.NewFile(image)
	if err != nil {
		return err
	}
	disk, err := blk.New(blk.Config{Backend: file})
	if err != nil {
		return err
	}
	machine, err := vmm.New(vmm.Config{
		CPUs: 1, Memory: memory,
		Kernel: vmm.KernelSource{Reader: vmlinux, Size: kernelSize},
		Initrd: initrd, InitrdSize: initrdSize,
		CmdLine: "reboot=k console=hvc0 " + blkCmdLine,
		Devices: []vmm.Device{{Name: "disk", Device: disk}},
		Console: vmm.Console{Out: os.Stdout},
	})
	if err != nil {
		return err
	}
	if err := machine.Start(context.Background()); err != nil {
		return err
	}
	<-machine.Done()
	fmt.Printf("%+v\n", disk.Stats())
	if exit := machine.Exit(); exit.Reason != vmm.GuestReboot {
		return fmt.Errorf("the machine ended: %v", exit)
	}
	return machine.Close()
}
