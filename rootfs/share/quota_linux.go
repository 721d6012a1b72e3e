package share

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// quota counts what an export holds. The zero value has no limit and counts
// nothing.
type quota struct {
	limit int64

	mu   sync.Mutex
	used int64
}

func (q *quota) usage() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.used
}

// room is how many bytes there may still be.
func (q *quota) room() int64 { return max(0, q.limit-q.usage()) }

// add counts a change; what is there can never be less than nothing.
func (q *quota) add(n int64) {
	if q.limit == 0 || n == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used = max(0, q.used+n)
}

// inode counts a new file, if it may be.
func (q *quota) inode() error {
	if q.limit == 0 {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.used+InodeCost > q.limit {
		return unix.ENOSPC
	}
	q.used += InodeCost
	return nil
}

// limitStatfs makes the numbers of a file system those of the quota.
func (q *quota) limitStatfs(out *fuse.StatfsOut) {
	if q.limit == 0 || out.Frsize == 0 {
		return
	}
	block := int64(out.Frsize)
	out.Blocks = uint64(q.limit / block)
	free := uint64(q.room() / block)
	out.Bfree, out.Bavail = min(out.Bfree, free), min(out.Bavail, free)
}

// cost is what a file counts for.
func cost(st *unix.Stat_t) int64 { return st.Blocks*512 + InodeCost }

// grow runs a change of a file that may take up to n bytes more, of which it
// may use as many as there is room for, and counts what it really took. change
// is given that number; one for which all n bytes must be there sees to it.
func (n *node) grow(fd int, want int64, change func(room int64) error) error {
	q := &n.ex.quota
	if q.limit == 0 {
		return change(want)
	}
	n.growth.Lock()
	defer n.growth.Unlock()
	var before, after unix.Stat_t
	if err := unix.Fstat(fd, &before); err != nil {
		return err
	}
	err := change(min(want, q.room()))
	if e := unix.Fstat(fd, &after); e == nil {
		q.add((after.Blocks - before.Blocks) * 512)
	}
	return err
}

// hasData tells whether a range of a file is on disk already, so that writing to
// it takes no more.
func hasData(fd int, off, n int64) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || off < 0 || n < 0 || off > st.Size-n {
		return false
	}
	hole, err := unix.Seek(fd, off, unix.SEEK_HOLE)
	return err == nil && hole >= off+n
}

// measure adds up what is below a directory, or a file's own cost. Files with
// several names count once.
func measure(fd int) (int64, error) {
	seen := map[[2]uint64]bool{}
	var total int64
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return cost(&st), nil
	}
	buf := make([]byte, 64<<10)
	pending := []string{"."}
	for len(pending) > 0 {
		path := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		dir, err := openBeneath(fd, path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err == unix.ENOENT || err == unix.ENOTDIR {
			continue // gone meanwhile
		}
		if err != nil {
			return 0, err
		}
		err = eachEntry(dir, buf, func(name string, _ uint8) {
			if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
				return
			}
			if id := [2]uint64{uint64(st.Dev), st.Ino}; st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
				if seen[id] {
					return
				}
				seen[id] = true
			}
			total += cost(&st)
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				pending = append(pending, path+"/"+name)
			}
		})
		unix.Close(dir)
		if err != nil {
			return 0, err
		}
	}
	return total, nil
}

// left counts what became free when a name was removed, unless the guest has the
// file open: then it is counted when that ends.
func (t *tree) left(e *export, st *unix.Stat_t) {
	if e.quota.limit == 0 || st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return
	}
	t.mu.Lock()
	n := t.known(e, st)
	open := n != nil && len(n.open) > 0
	t.mu.Unlock()
	if !open {
		e.quota.add(-cost(st))
	}
}

// settle is called with mu held when the last handle of a node ends: if its names
// are gone, so is the file, and what it took is free.
func (n *node) settle(fd int) {
	var st unix.Stat_t
	if n.ex.quota.limit > 0 && len(n.open) == 0 && unix.Fstat(fd, &st) == nil && st.Nlink == 0 {
		n.ex.quota.add(-cost(&st))
	}
}
