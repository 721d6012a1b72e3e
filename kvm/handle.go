package kvm

import (
	"sync"
	"unsafe"
)

// handle is a file descriptor that cannot be used after it was closed: an ioctl on a
// number that the process has reused meanwhile would reach a stranger's file.
type handle struct {
	mu sync.RWMutex // held for reading by ioctls, for writing by close
	fd int          // -1 once closed
}

// close closes the descriptor after the ioctls under way have returned.
func (h *handle) close(op string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd < 0 {
		return nil
	}
	fd := h.fd
	h.fd = -1
	return newOpError(op, sysClose(fd))
}

// value issues an ioctl that takes a number.
func (h *handle) value(req request, arg uintptr) (int, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.fd < 0 {
		return 0, newOpError(req.String(), ErrClosed)
	}
	r, errno := sysIoctlVal(h.fd, uintptr(req), arg)
	if errno != 0 {
		return 0, newOpError(req.String(), errno)
	}
	return int(r), nil
}

// pointer issues an ioctl that reads or writes what p points to: the whole of *p, or the
// rest of the slice whose first element p is.
func pointer[T any](h *handle, req request, p *T) (int, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.fd < 0 {
		return 0, newOpError(req.String(), ErrClosed)
	}
	// SAFETY: callers pass a structure or slice of at least the size that req implies, as
	// checked against the kernel's headers by the layout test; it is only lent for the call.
	r, errno := sysIoctlPtr(h.fd, uintptr(req), unsafe.Pointer(p))
	if errno != 0 {
		return 0, newOpError(req.String(), errno)
	}
	return int(r), nil
}

// get is pointer for the many ioctls that fill a structure.
func get[T any](h *handle, req request) (T, error) {
	var v T
	_, err := pointer(h, req, &v)
	return v, err
}

// set is pointer for the many ioctls that read a structure.
func set[T any](h *handle, req request, v *T) error {
	_, err := pointer(h, req, v)
	return err
}
