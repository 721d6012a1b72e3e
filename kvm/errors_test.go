package kvm

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
)

func TestOpenErrorHints(t *testing.T) {
	tests := []struct {
		errno    syscall.Errno
		sentinel error
		hint     string
	}{
		{syscall.ENOENT, ErrNoDevice, "kvm_intel"},
		{syscall.ENODEV, ErrNoDevice, "firmware"},
		{syscall.ENXIO, ErrNoDevice, "kvm_amd"},
		{syscall.EACCES, ErrPermission, "group kvm"},
		{syscall.EPERM, ErrPermission, "group kvm"},
		{syscall.EMFILE, syscall.EMFILE, "open /dev/kvm"},
	}
	for _, tt := range tests {
		err := openError("/dev/kvm", tt.errno)
		if !errors.Is(err, tt.sentinel) || !errors.Is(err, tt.errno) {
			t.Errorf("%v: %v is not %v", tt.errno, err, tt.sentinel)
		}
		if !strings.Contains(err.Error(), tt.hint) {
			t.Errorf("%q says nothing of %q", err, tt.hint)
		}
	}
}

func TestErrorTexts(t *testing.T) {
	tests := map[string]error{
		"kvm: KVM_CREATE_VM: already closed": newOpError(reqCreateVM.String(), ErrClosed),
		"kvm: KVM_SET_MSRS: msr 0x10 refused (entry 3 of 5)": newOpError(reqSetMSRs.String(),
			&MSRError{Index: 0x10, Handled: 2, Total: 5}),
		"ioctl 0xae99": errors.New(request(0xae99).String()),
	}
	for want, err := range tests {
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
	if newOpError("x", nil) != nil {
		t.Error("an error of nothing")
	}
	if got := fmt.Sprint(ExitHLT, ExitReason(99)); got != "hlt exit reason 99" {
		t.Errorf("%q", got)
	}
}

func TestCompatible(t *testing.T) {
	tests := []struct {
		version, immediateExit int
		want                   error
	}{{12, 1, nil}, {11, 1, ErrVersion}, {13, 1, ErrVersion}, {12, 0, ErrCapability}}
	for _, tt := range tests {
		if err := compatible(tt.version, tt.immediateExit); !errors.Is(err, tt.want) {
			t.Errorf("version %d, immediate exit %d: %v, want %v", tt.version, tt.immediateExit, err, tt.want)
		}
	}
}
