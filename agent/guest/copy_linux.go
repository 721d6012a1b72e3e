package guest

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hutchvm/hutch/agent/proto"
)

// What a guest has to do anew that is a copy of another.

// ioctls of linux/random.h and linux/fs.h that x/sys has no names for.
const (
	addToEntropyCount = 0x40045201 // RNDADDTOENTCNT, _IOW('R', 1, int)
	reseedCRNG        = 0x5207     // RNDRESEEDCRNG, _IO('R', 7)
)

// reseed mixes the host's randomness into the kernel's, counts it as such, and
// makes the generator start anew from it.
func reseed(entropy string) error {
	if entropy == "" {
		return nil
	}
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(entropy); err != nil {
		return err
	}
	fd := int(f.Fd())
	if err := unix.IoctlSetPointerInt(fd, addToEntropyCount, 8*len(entropy)); err != nil {
		return os.NewSyscallError("RNDADDTOENTCNT", err)
	}
	return os.NewSyscallError("RNDRESEEDCRNG", unix.IoctlSetInt(fd, reseedCRNG, 0))
}

// sizePatience bounds the wait for a disk to have the size that the host says.
const sizePatience = 10 * time.Second

var errSize = errors.New("the disk has another size than the host says")

// lookAtDisks makes the kernel forget what it knows of the disks of the original:
// the size, which it corrects by itself a moment after the copy woke, and the
// partitions.
func lookAtDisks(disks []proto.DiskSize) error {
	for i, d := range disks {
		name := "vd" + string(rune('a'+i))
		if err := awaitSize("/sys/block/"+name+"/size", d.Sectors); err != nil {
			return withName(name, err)
		}
		f, err := os.Open("/dev/" + name)
		if err != nil {
			return err
		}
		unix.IoctlSetInt(int(f.Fd()), unix.BLKRRPART, 0) // a disk need not have any
		f.Close()
	}
	return nil
}

func awaitSize(file string, sectors uint64) error {
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(b)) == strconv.FormatUint(sectors, 10) {
			return nil
		}
		if time.Since(start) > sizePatience {
			return errSize
		}
	}
}
