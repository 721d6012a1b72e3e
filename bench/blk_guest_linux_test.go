package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain is also what runs in the machines of BenchmarkBlkVersusQEMU, as the
// guest's first process, and the process around Hutch's.
func TestMain(m *testing.M) {
	if dir := os.Getenv(shareEnv); dir != "" {
		if os.Getpid() == 1 {
			peerInit(dir)
		}
		measureShare(os.Stdout, dir)
		os.Exit(0)
	}
	if os.Getpid() == 1 {
		if err := blkGuest(); err != nil {
			fmt.Println(err)
		}
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	}
	if path := os.Getenv("BLK_BENCH_HOST"); path != "" {
		if err := blkHost(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// markSize is the last block of the disk, where the guest says what it is at.
const markSize = 4096

// blkDisk is the disk as the guest's work sees it.
type blkDisk struct {
	fd   int
	buf  []byte
	next int64
}

// blkJobs are what is measured, in order.
var blkJobs = []struct {
	name  string
	unit  float64 // amount of one step
	count int
	do    func(*blkDisk) error
}{
	{"randread-4k-iops", 1, 3000, func(d *blkDisk) error {
		_, err := unix.Pread(d.fd, d.buf[:4096], rand.Int64N((diskSize-markSize)/4096)*4096)
		return err
	}},
	{"read-1m-MiB/s", 1, 400, func(d *blkDisk) error {
		_, err := unix.Pread(d.fd, d.buf, d.chunk())
		return err
	}},
	{"write-1m-MiB/s", 1, 400, func(d *blkDisk) error {
		_, err := unix.Pwrite(d.fd, d.buf, d.chunk())
		return err
	}},
}

// chunk is the next MiB in order, round and round.
func (d *blkDisk) chunk() int64 {
	d.next++
	return d.next % (diskSize>>20 - 1) << 20
}

// blkGuest does the jobs on the first disk.
func blkGuest() error {
	_ = unix.Mount("devtmpfs", "/dev", "devtmpfs", 0, "") // the kernel may have done it
	fd, err := unix.Open("/dev/vda", unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the disk: %w", err)
	}
	buf, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	d := &blkDisk{fd: fd, buf: buf}
	mark := func(n int) error {
		d.buf[0] = byte(n)
		_, err := unix.Pwrite(fd, d.buf[:markSize], diskSize-markSize)
		return err
	}
	for k, j := range blkJobs {
		for i := range j.count + j.count/10 {
			if i == j.count/10 { // what came before warmed the host's translation
				if err := mark(k + 1); err != nil {
					return err
				}
			}
			if err := j.do(d); err != nil {
				return fmt.Errorf("%s: %w", j.name, err)
			}
		}
	}
	return mark(len(blkJobs) + 1)
}
