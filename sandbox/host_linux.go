package sandbox

import "golang.org/x/sys/unix"

// hostMemory is the host's memory in bytes, 0 if it cannot be told.
func hostMemory() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return uint64(info.Totalram) * uint64(info.Unit)
}
