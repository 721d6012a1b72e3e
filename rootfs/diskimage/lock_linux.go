package diskimage

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Lock bytes of QEMU: a shared lock on have+p says that a program uses
// permission p, one on deny+p that it does not share it with others.
const (
	lockHave = 100
	lockDeny = 200

	permRead   = 0
	permWrite  = 1
	permResize = 3
)

// lock says for as long as f is open that its image is being read or written, and
// fails with ErrLocked when somebody else's use does not go with that. The locks
// belong to the open file: two opens in one process exclude each other as well.
func lock(f *os.File, readOnly bool) error {
	have := []int64{permRead, permWrite, permResize}
	if readOnly {
		have = have[:1]
	}
	deny := []int64{permWrite, permResize}
	set := func(base int64, perms []int64) error {
		for _, p := range perms {
			l := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart, Start: base + p, Len: 1}
			if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l); err != nil {
				return lockError(err)
			}
		}
		return nil
	}
	if err := set(lockHave, have); err != nil {
		return err
	}
	if err := set(lockDeny, deny); err != nil {
		return err
	}
	// Having said so, look what others said: of two at once at most one succeeds.
	for base, perms := range map[int64][]int64{lockDeny: have, lockHave: deny} {
		for _, p := range perms {
			l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: base + p, Len: 1}
			if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
				return lockError(err)
			}
			if l.Type != unix.F_UNLCK {
				if readOnly {
					return fmt.Errorf("%w: another sandbox or program writes it", ErrLocked)
				}
				return fmt.Errorf("%w: another sandbox or program has it open; use a copy, or open both read-only", ErrLocked)
			}
		}
	}
	return nil
}

func lockError(err error) error {
	if err == unix.EAGAIN || err == unix.EACCES {
		return fmt.Errorf("%w: %w", ErrLocked, err)
	}
	return os.NewSyscallError("fcntl: lock", err)
}
