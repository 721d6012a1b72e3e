package guest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// stayOnOne binds the calling thread to the last of its CPUs and returns what
// undoes that. The last one, because that is where the interrupts of the serial
// ports and of the outer root file system arrive on a machine of two: what they
// wake needs no interrupt from one CPU to the other.
func stayOnOne() (restore func(), err error) {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil, fmt.Errorf("CPU of the command: %w", err)
	}
	for cpu := range len(all) * 64 {
		if all.IsSet(cpu) {
			one.Zero()
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return nil, fmt.Errorf("CPU of the command: %w", err)
	}
	return func() { unix.SchedSetaffinity(0, &all) }, nil
}
