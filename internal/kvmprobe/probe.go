// Package kvmprobe tells whether this machine's /dev/kvm can run Linux guests.
//
// A /dev/kvm that opens is not enough: some hosts, rented build machines among
// them, offer a KVM made in software, without any hardware virtualization
// below it. It runs a few hundred instructions of a test guest and then fails
// in the middle of a kernel's start. The probe recognises it by the CPU flags.
//
// The probe opens and closes /dev/kvm and reads /proc/cpuinfo; it starts
// nothing, changes nothing and may be called from any goroutine.
package kvmprobe

import (
	"errors"
	"fmt"
	"strings"
)

// Reason says why a KVM is not usable; its text is stable and short.
type Reason string

// The reasons, in the order in which the probe looks for them.
const (
	OK              Reason = ""
	Platform        Reason = "platform not supported"
	NoDevice        Reason = "no /dev/kvm"
	NoDeviceInBox   Reason = "no /dev/kvm in this container"
	NoPermission    Reason = "no permission for /dev/kvm"
	DeviceBroken    Reason = "/dev/kvm does not open"
	WrongAPIVersion Reason = "wrong KVM API version"
	SoftwareKVM     Reason = "software KVM: the CPU has no hardware virtualization"
)

// Result is what a probe found.
type Result struct {
	// Usable is true when Linux guests can be expected to run.
	Usable bool
	// Reason is OK exactly when Usable is true.
	Reason Reason
	// Advice is one sentence on what the user can do; empty when Usable.
	Advice string
	// Vendor is the CPU's vendor_id, such as "GenuineIntel"; empty if unknown.
	Vendor string
	// Flag is the CPU's virtualization flag, "vmx" or "svm"; empty if it has none.
	Flag string
	// Device is true when /dev/kvm opened and answered with the expected API
	// version. It is true for a software KVM too, which can run small guests.
	Device bool
	// Err is the system's own error behind Reason, if there was one.
	Err error
}

// ErrUnusable is matched by every error that [Result.Error] returns.
var ErrUnusable = errors.New("KVM is not usable for Linux guests")

// Error returns nil for a usable KVM, else an error that carries the reason
// and the advice and matches [ErrUnusable] and the system's error.
func (r Result) Error() error {
	if r.Usable {
		return nil
	}
	return &unusableError{r}
}

// String is one line for people.
func (r Result) String() string {
	if r.Usable {
		return fmt.Sprintf("usable (%s, %s)", r.Vendor, r.Flag)
	}
	return fmt.Sprintf("not usable: %s; %s", r.Reason, r.Advice)
}

type unusableError struct{ r Result }

func (e *unusableError) Error() string {
	return fmt.Sprintf("kvmprobe: %s: %s", e.r.Reason, e.r.Advice)
}

func (e *unusableError) Unwrap() []error {
	if e.r.Err != nil {
		return []error{ErrUnusable, e.r.Err}
	}
	return []error{ErrUnusable}
}

// cpu is what the probe needs of /proc/cpuinfo.
type cpu struct {
	vendor string
	flag   string // "vmx", "svm" or ""
	guest  bool   // the CPU says that it runs under a hypervisor
}

// parseCPUInfo reads the first processor's block; all of them agree on these fields.
func parseCPUInfo(text string) cpu {
	var c cpu
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			if strings.TrimSpace(line) == "" && c.vendor != "" {
				break
			}
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "vendor_id":
			c.vendor = value
		case "flags":
			for f := range strings.FieldsSeq(value) {
				switch f {
				case "vmx", "svm":
					c.flag = f
				case "hypervisor":
					c.guest = true
				}
			}
		}
	}
	return c
}

// moduleAdvice names what makes /dev/kvm appear on this CPU.
func (c cpu) moduleAdvice() string {
	switch {
	case c.flag == "vmx":
		return "load the module kvm_intel"
	case c.flag == "svm":
		return "load the module kvm_amd"
	case c.guest:
		return "this is a virtual machine without nested virtualization: enable that for it, or use a machine that has it"
	default:
		return "enable virtualization (VT-x or AMD-V) in the firmware's settings"
	}
}
