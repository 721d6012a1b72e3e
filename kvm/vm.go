package kvm

// VM is one virtual machine.
type VM struct {
	h       handle
	runSize int // bytes of kvm_run that a vCPU maps
}

// Close drops this reference to the machine. Its memory slots and eventfds are let go by the
// kernel once all its vCPUs are closed too; only then may guest memory be unmapped.
func (v *VM) Close() error { return v.h.close("close vm") }

// CheckExtension is like [System.CheckExtension], for what may differ from machine to machine.
func (v *VM) CheckExtension(c Cap) (int, error) {
	return v.h.value(reqCheckExtension, uintptr(c))
}

// SetTSSAddr gives the kernel three pages of guest-physical space below 4 GiB, outside every
// memory slot and device, where Intel hosts keep a task state segment for real mode.
func (v *VM) SetTSSAddr(addr uintptr) error {
	_, err := v.h.value(reqSetTSSAddr, addr)
	return err
}

// SetIdentityMapAddr is like [VM.SetTSSAddr] for the one page of an identity map (0 means
// the kernel's default, 0xfffbc000). It must precede the first vCPU.
func (v *VM) SetIdentityMapAddr(addr uint64) error {
	return set(&v.h, reqSetIdentityMapAddr, &addr)
}

// SetBootCPUID chooses the vCPU that starts by itself (0 by default). It must precede the
// first vCPU.
func (v *VM) SetBootCPUID(id int) error {
	_, err := v.h.value(reqSetBootCPUID, uintptr(id))
	return err
}

// enableCap is struct kvm_enable_cap.
type enableCap struct {
	Cap   uint32
	Flags uint32
	Args  [4]uint64
	_     [64]byte
}

// EnableCap turns on a capability of the machine; the arguments are the capability's own,
// for example the number of IOAPIC routes for [CapSplitIRQChip] or the X2APIC* flags for
// [CapX2APICAPI].
func (v *VM) EnableCap(c Cap, args ...uint64) error {
	return enable(&v.h, c, args)
}

func enable(h *handle, c Cap, args []uint64) error {
	e := enableCap{Cap: uint32(c)}
	copy(e.Args[:], args)
	return set(h, reqEnableCap, &e)
}

// Arguments of EnableCap.
const (
	// X2APICUse32BitIDs and X2APICDisableBroadcastQuirk go with [CapX2APICAPI].
	X2APICUse32BitIDs           = 1 << 0
	X2APICDisableBroadcastQuirk = 1 << 1
	// DirtyLogManualProtect and DirtyLogInitiallySet go with [CapManualDirtyLogProtect2]:
	// pages are protected again by ClearDirtyLog rather than by GetDirtyLog, and start as dirty.
	DirtyLogManualProtect = 1 << 0
	DirtyLogInitiallySet  = 1 << 1
	// DisableExitsMWait and its kin go with [CapX86DisableExits].
	DisableExitsMWait  = 1 << 0
	DisableExitsHLT    = 1 << 1
	DisableExitsPause  = 1 << 2
	DisableExitsCState = 1 << 3
)

// ClockData is struct kvm_clock_data: the guest's kvmclock and what it was read against.
type ClockData struct {
	// Clock is the guest's time in nanoseconds since its start.
	Clock uint64
	// Flags are Clock* bits: which fields below are filled in, or to be heeded.
	Flags uint32
	_     uint32
	// Realtime is the host's CLOCK_REALTIME in nanoseconds at the same instant.
	Realtime uint64
	// HostTSC is the host's time stamp counter at the same instant.
	HostTSC uint64
	_       [4]uint32
}

// Flags of ClockData. ClockTSCStable is only ever returned. With ClockRealtime,
// [VM.SetClock] advances Clock by the real time that has passed since it was read.
const (
	ClockTSCStable = 1 << 1
	ClockRealtime  = 1 << 2
	ClockHostTSC   = 1 << 3
)

// Clock reads kvmclock. Flags say which of the other fields this host could fill in.
func (v *VM) Clock() (ClockData, error) { return get[ClockData](&v.h, reqGetClock) }

// SetClock sets kvmclock. The kernel accepts only the flag ClockRealtime, and that only if
// [CapAdjustClock] reports it; older kernels accept no flags.
func (v *VM) SetClock(c ClockData) error { return set(&v.h, reqSetClock, &c) }

// SetTSCKHz sets the frequency that vCPUs made from now on start with ([CapVMTSCControl]).
func (v *VM) SetTSCKHz(khz int) error {
	_, err := v.h.value(reqSetTSCKHz, uintptr(khz))
	return err
}

// TSCKHz returns the frequency that new vCPUs start with ([CapVMTSCControl]).
func (v *VM) TSCKHz() (int, error) { return v.h.value(reqGetTSCKHz, 0) }
