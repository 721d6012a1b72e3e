package kvm

// Cap numbers a capability that [System.CheckExtension] and [VM.CheckExtension] ask for
// and EnableCap turns on. The value is KVM_CAP_* of linux/kvm.h; capabilities of other
// architectures and of features that this project does not use are left out.
type Cap uint32

const (
	CapIRQChip                Cap = 0
	CapUserMemory             Cap = 3
	CapSetTSSAddr             Cap = 4
	CapExtCPUID               Cap = 7
	CapNRVCPUs                Cap = 9
	CapNRMemSlots             Cap = 10
	CapPIT                    Cap = 11
	CapMPState                Cap = 14
	CapSyncMMU                Cap = 16
	CapUserNMI                Cap = 22
	CapSetGuestDebug          Cap = 23
	CapReinjectControl        Cap = 24
	CapIRQRouting             Cap = 25
	CapIRQInjectStatus        Cap = 26
	CapMCE                    Cap = 31
	CapIRQFD                  Cap = 32
	CapPIT2                   Cap = 33
	CapSetBootCPUID           Cap = 34
	CapPITState2              Cap = 35
	CapIOEventFD              Cap = 36
	CapSetIdentityMapAddr     Cap = 37
	CapAdjustClock            Cap = 39
	CapInternalErrorData      Cap = 40
	CapVCPUEvents             Cap = 41
	CapDebugRegs              Cap = 50
	CapEnableCap              Cap = 54
	CapXSave                  Cap = 55
	CapXCRs                   Cap = 56
	CapTSCControl             Cap = 60
	CapGetTSCKHz              Cap = 61
	CapMaxVCPUs               Cap = 66
	CapTSCDeadlineTimer       Cap = 72
	CapSyncRegs               Cap = 74
	CapKVMClockCtrl           Cap = 76
	CapSignalMSI              Cap = 77
	CapReadOnlyMem            Cap = 81
	CapIRQFDResample          Cap = 82
	CapEnableCapVM            Cap = 98
	CapIOEventFDNoLength      Cap = 100
	CapCheckExtensionVM       Cap = 105
	CapDisableQuirks          Cap = 116
	CapX86SMM                 Cap = 117
	CapGuestDebugHWBPs        Cap = 119
	CapSplitIRQChip           Cap = 121
	CapIOEventFDAnyLength     Cap = 122
	CapVCPUAttributes         Cap = 127
	CapMaxVCPUID              Cap = 128
	CapX2APICAPI              Cap = 129
	CapImmediateExit          Cap = 136
	CapX86DisableExits        Cap = 143
	CapGetMSRFeatures         Cap = 153
	CapNestedState            Cap = 157
	CapExceptionPayload       Cap = 164
	CapManualDirtyLogProtect2 Cap = 168
	CapHaltPoll               Cap = 182
	CapSmallerMaxPhyAddr      Cap = 185
	CapX86UserSpaceMSR        Cap = 188
	CapX86MSRFilter           Cap = 189
	CapDirtyLogRing           Cap = 192
	CapPTPKVM                 Cap = 198
	CapSRegs2                 Cap = 200
	CapExitHypercall          Cap = 201
	CapBinaryStatsFD          Cap = 203
	CapExitOnEmulationFailure Cap = 204
	CapXSave2                 Cap = 208
	CapDisableQuirks2         Cap = 213
	CapVMTSCControl           Cap = 214
	CapSystemEventData        Cap = 215
	CapX86TripleFaultEvent    Cap = 218
	CapX86NotifyVMExit        Cap = 219
)
