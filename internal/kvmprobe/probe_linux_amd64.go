package kvmprobe

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// kvmGetAPIVersion is KVM_GET_API_VERSION, _IO(0xAE, 0x00) of linux/kvm.h.
	kvmGetAPIVersion = 0xAE00
	// apiVersion has been 12 since Linux 2.6.22; the kernel's KVM documentation
	// tells applications to refuse any other.
	apiVersion = 12
)

// Probe looks at this machine's KVM.
func Probe() Result {
	return probe("/dev/kvm", "/proc/cpuinfo", inContainer())
}

func probe(device, cpuinfo string, boxed bool) Result {
	c := parseCPUInfo(firstProcessor(cpuinfo)) // without it the flags are unknown: treated as absent
	r := Result{Vendor: c.vendor, Flag: c.flag}

	version, err := queryVersion(device)
	r.Err = err
	switch {
	case errors.Is(err, fs.ErrNotExist) && boxed:
		r.Reason = NoDeviceInBox
		r.Advice = "give the container the device, for instance with --device /dev/kvm"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		r.Reason, r.Advice = NoDevice, c.moduleAdvice()
	case errors.Is(err, fs.ErrPermission) && boxed:
		r.Reason = NoPermission
		r.Advice = "let the container use the device (--device /dev/kvm) and its user open it"
	case errors.Is(err, fs.ErrPermission):
		r.Reason, r.Advice = NoPermission, "add the user to the group kvm and log in again"
	case err != nil:
		r.Reason, r.Advice = DeviceBroken, "look at the kernel's log for kvm"
	case version != apiVersion:
		r.Reason = WrongAPIVersion
		r.Advice = fmt.Sprintf("the device answers %d where every Linux since 2.6.22 answers %d; use an ordinary kernel", version, apiVersion)
	case c.flag == "":
		r.Device = true
		r.Reason, r.Advice = SoftwareKVM, c.moduleAdvice()
	default:
		r.Device, r.Usable = true, true
	}
	return r
}

// firstProcessor reads the beginning of cpuinfo, which holds the first
// processor's block whole. The kernel makes the text as it is read, and for a
// machine with hundreds of processors all of it takes milliseconds.
func firstProcessor(cpuinfo string) string {
	f, err := os.Open(cpuinfo)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, 8<<10))
	return string(text)
}

func queryVersion(device string) (int, error) {
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	v, err := unix.IoctlRetInt(int(f.Fd()), kvmGetAPIVersion)
	if err != nil {
		return 0, &fs.PathError{Op: "KVM_GET_API_VERSION", Path: device, Err: err}
	}
	return v, nil
}

// inContainer recognises the marks that the common container engines leave.
// It only chooses between two wordings of advice, so a miss is harmless.
func inContainer() bool {
	for _, mark := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(mark); err == nil {
			return true
		}
	}
	return false
}
