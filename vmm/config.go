package vmm

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/hutchvm/hutch/boot"
	"github.com/hutchvm/hutch/virtio"
)

// Limits of a machine.
const (
	// MinMemory is the least guest memory, in bytes, in which the embedded
	// kernel and agent come up.
	MinMemory = 64 << 20
	// MaxDevices is how many virtio devices, the console included, a machine
	// can have: each takes one I/O APIC input of its own, see irqFirst.
	MaxDevices = irqLast - irqFirst + 1
)

// Config describes a machine. New checks it and copies it; kernel and initramfs
// stay the caller's and may be closed once New has returned.
type Config struct {
	// CPUs is the number of virtual CPUs, 1 to boot.MaxCPUs.
	CPUs int
	// Memory is the guest's memory in bytes, a multiple of 1 MiB. Host pages
	// are taken as the guest touches them.
	Memory uint64
	// Kernel is what to boot.
	Kernel KernelSource
	// Snapshot, in place of Kernel, Initrd and CmdLine, is what to go on from. CPUs
	// and Memory must be those of the snapshot; the devices must be of the same
	// Shape. Start lets the guest run on from where it was; its clock has to be set
	// by what runs in it.
	Snapshot *Snapshot
	// Hot are parts of the snapshot's memory, by the guest address of each aligned
	// 2 MiB, that are copied when the machine is made and not mapped page by page
	// as the guest touches them: those to which it writes almost at once, see
	// [Machine.Hot]. Any other address is ignored.
	Hot []uint64
	// HoldWhenReady keeps the CPU that writes ReadyMark from going on until the
	// machine is paused or Release is called.
	HoldWhenReady bool
	// Initrd is the initramfs, or nil, of InitrdSize bytes. It is copied.
	Initrd     io.ReaderAt
	InitrdSize int64
	// CmdLine is the kernel's command line; what announces the devices is
	// appended to it.
	CmdLine string
	// Devices are attached in order: the first becomes the guest's first
	// virtio device, and so on. New takes ownership of them, also when it fails.
	Devices []Device
	// Console is the machine's virtio console, hvc0 in the guest.
	Console Console
	// KVMPath is the KVM device, /dev/kvm if empty.
	KVMPath string
	// Logger gets the machine's own log; nil is silence.
	Logger *slog.Logger
}

// KernelSource is a kernel in one of two forms; exactly one must be given.
type KernelSource struct {
	// Flat is a kernel already laid out as it lies in memory.
	Flat *boot.Flat
	// Reader holds an ELF vmlinux or a bzImage of Size bytes, which is copied.
	Reader io.ReaderAt
	Size   int64
}

// Device is a virtio device and the name it has in logs and errors.
type Device struct {
	Name   string
	Device virtio.Device
}

// Console says where the guest's console goes.
type Console struct {
	// Out receives what the guest prints; nil discards it. A slow Out slows
	// the guest's console, nothing else.
	Out io.Writer
	// Serial also receives what the guest writes to the first serial port,
	// which works before any driver is up (earlyprintk=ttyS0); nil discards it.
	Serial io.Writer
}

// A ConfigError names the field of Config that cannot be used, and why.
type ConfigError struct {
	Field  string
	Reason string
}

func (e *ConfigError) Error() string { return "vmm: config: " + e.Field + ": " + e.Reason }

// Is makes every ConfigError match ErrConfig.
func (e *ConfigError) Is(target error) bool { return target == ErrConfig }

func (c *Config) validate() error {
	bad := func(field, format string, args ...any) error {
		return &ConfigError{Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case c.CPUs < 1 || c.CPUs > boot.MaxCPUs:
		return bad("CPUs", "%d, must be 1 to %d", c.CPUs, boot.MaxCPUs)
	case c.Memory < MinMemory:
		return bad("Memory", "%d bytes, at least %d are needed", c.Memory, uint64(MinMemory))
	case c.Memory%(1<<20) != 0:
		return bad("Memory", "%d bytes is not a multiple of 1 MiB", c.Memory)
	case c.Memory > maxMemory:
		return bad("Memory", "%d bytes, at most %d", c.Memory, uint64(maxMemory))
	case c.Snapshot != nil && (c.Kernel.Flat != nil || c.Kernel.Reader != nil || c.Initrd != nil || c.CmdLine != ""):
		return bad("Snapshot", "a snapshot has its own kernel, initramfs and command line")
	case c.Snapshot != nil && (c.CPUs != c.Snapshot.CPUs() || c.Memory != c.Snapshot.Memory()):
		return bad("Snapshot", "it has %d CPUs and %d bytes of memory", c.Snapshot.CPUs(), c.Snapshot.Memory())
	case len(c.Hot) > MaxHot:
		return bad("Hot", "%d parts of memory, at most %d", len(c.Hot), MaxHot)
	case c.Snapshot == nil && (c.Kernel.Flat == nil) == (c.Kernel.Reader == nil):
		return bad("Kernel", "give either Flat or Reader")
	case c.InitrdSize < 0 || (c.Initrd == nil) != (c.InitrdSize == 0):
		return bad("Initrd", "file and size must be given together")
	case len(c.Devices)+1 > MaxDevices:
		return bad("Devices", "%d, at most %d", len(c.Devices), MaxDevices-1)
	}
	for i, d := range c.Devices {
		if d.Device == nil {
			return bad("Devices", "number %d is nil", i)
		}
	}
	return nil
}
