package kvm

import "strconv"

// request is an ioctl number: direction, argument size, KVM's letter 0xae and a sequence
// number, as linux/kvm.h computes them for x86-64.
type request uintptr

const (
	reqGetAPIVersion          request = 0xae00
	reqCreateVM               request = 0xae01
	reqCheckExtension         request = 0xae03
	reqGetVCPUMmapSize        request = 0xae04
	reqGetSupportedCPUID      request = 0xc008ae05
	reqGetMSRIndexList        request = 0xc004ae02
	reqGetMSRFeatureIndexList request = 0xc004ae0a
	reqCreateVCPU             request = 0xae41
	reqGetDirtyLog            request = 0x4010ae42
	reqClearDirtyLog          request = 0xc018aec0
	reqSetUserMemoryRegion    request = 0x4020ae46
	reqSetTSSAddr             request = 0xae47
	reqSetIdentityMapAddr     request = 0x4008ae48
	reqCreateIRQChip          request = 0xae60
	reqIRQLine                request = 0x4008ae61
	reqGetIRQChip             request = 0xc208ae62
	reqSetIRQChip             request = 0x8208ae63
	reqCreatePIT2             request = 0x4040ae77
	reqGetPIT2                request = 0x8070ae9f
	reqSetPIT2                request = 0x4070aea0
	reqSetGSIRouting          request = 0x4008ae6a
	reqIRQFD                  request = 0x4020ae76
	reqIOEventFD              request = 0x4040ae79
	reqSignalMSI              request = 0x4020aea5
	reqSetBootCPUID           request = 0xae78
	reqEnableCap              request = 0x4068aea3
	reqGetClock               request = 0x8030ae7c
	reqSetClock               request = 0x4030ae7b
	reqRun                    request = 0xae80
	reqGetRegs                request = 0x8090ae81
	reqSetRegs                request = 0x4090ae82
	reqGetSRegs               request = 0x8138ae83
	reqSetSRegs               request = 0x4138ae84
	reqGetSRegs2              request = 0x8140aecc
	reqSetSRegs2              request = 0x4140aecd
	reqTranslate              request = 0xc018ae85
	reqInterrupt              request = 0x4004ae86
	reqGetMSRs                request = 0xc008ae88
	reqSetMSRs                request = 0x4008ae89
	reqSetSignalMask          request = 0x4004ae8b
	reqGetFPU                 request = 0x81a0ae8c
	reqSetFPU                 request = 0x41a0ae8d
	reqGetLAPIC               request = 0x8400ae8e
	reqSetLAPIC               request = 0x4400ae8f
	reqSetCPUID2              request = 0x4008ae90
	reqGetCPUID2              request = 0xc008ae91
	reqGetMPState             request = 0x8004ae98
	reqSetMPState             request = 0x4004ae99
	reqNMI                    request = 0xae9a
	reqSetGuestDebug          request = 0x4048ae9b
	reqGetVCPUEvents          request = 0x8040ae9f
	reqSetVCPUEvents          request = 0x4040aea0
	reqGetDebugRegs           request = 0x8080aea1
	reqSetDebugRegs           request = 0x4080aea2
	reqGetXSave               request = 0x9000aea4
	reqSetXSave               request = 0x5000aea5
	reqGetXSave2              request = 0x9000aecf
	reqGetXCRs                request = 0x8188aea6
	reqSetXCRs                request = 0x4188aea7
	reqSetTSCKHz              request = 0xaea2
	reqGetTSCKHz              request = 0xaea3
	reqKVMClockCtrl           request = 0xaead
	reqReinjectControl        request = 0xae71
)

// String returns the kernel's name, for error texts.
func (r request) String() string {
	if s, ok := requestName(r); ok {
		return s
	}
	return "ioctl 0x" + strconv.FormatUint(uint64(r), 16)
}

func requestName(r request) (string, bool) {
	switch r {
	case reqGetAPIVersion:
		return "KVM_GET_API_VERSION", true
	case reqCreateVM:
		return "KVM_CREATE_VM", true
	case reqCheckExtension:
		return "KVM_CHECK_EXTENSION", true
	case reqGetVCPUMmapSize:
		return "KVM_GET_VCPU_MMAP_SIZE", true
	case reqGetSupportedCPUID:
		return "KVM_GET_SUPPORTED_CPUID", true
	case reqGetMSRIndexList:
		return "KVM_GET_MSR_INDEX_LIST", true
	case reqGetMSRFeatureIndexList:
		return "KVM_GET_MSR_FEATURE_INDEX_LIST", true
	case reqCreateVCPU:
		return "KVM_CREATE_VCPU", true
	case reqGetDirtyLog:
		return "KVM_GET_DIRTY_LOG", true
	case reqClearDirtyLog:
		return "KVM_CLEAR_DIRTY_LOG", true
	case reqSetUserMemoryRegion:
		return "KVM_SET_USER_MEMORY_REGION", true
	case reqSetTSSAddr:
		return "KVM_SET_TSS_ADDR", true
	case reqSetIdentityMapAddr:
		return "KVM_SET_IDENTITY_MAP_ADDR", true
	case reqCreateIRQChip:
		return "KVM_CREATE_IRQCHIP", true
	case reqIRQLine:
		return "KVM_IRQ_LINE", true
	case reqGetIRQChip:
		return "KVM_GET_IRQCHIP", true
	case reqSetIRQChip:
		return "KVM_SET_IRQCHIP", true
	case reqCreatePIT2:
		return "KVM_CREATE_PIT2", true
	case reqGetPIT2:
		return "KVM_GET_PIT2", true
	case reqSetPIT2:
		return "KVM_SET_PIT2", true
	case reqSetGSIRouting:
		return "KVM_SET_GSI_ROUTING", true
	case reqIRQFD:
		return "KVM_IRQFD", true
	case reqIOEventFD:
		return "KVM_IOEVENTFD", true
	case reqSignalMSI:
		return "KVM_SIGNAL_MSI", true
	case reqSetBootCPUID:
		return "KVM_SET_BOOT_CPU_ID", true
	case reqEnableCap:
		return "KVM_ENABLE_CAP", true
	case reqGetClock:
		return "KVM_GET_CLOCK", true
	case reqSetClock:
		return "KVM_SET_CLOCK", true
	case reqRun:
		return "KVM_RUN", true
	case reqGetRegs:
		return "KVM_GET_REGS", true
	case reqSetRegs:
		return "KVM_SET_REGS", true
	case reqGetSRegs:
		return "KVM_GET_SREGS", true
	case reqSetSRegs:
		return "KVM_SET_SREGS", true
	case reqGetSRegs2:
		return "KVM_GET_SREGS2", true
	case reqSetSRegs2:
		return "KVM_SET_SREGS2", true
	case reqTranslate:
		return "KVM_TRANSLATE", true
	case reqInterrupt:
		return "KVM_INTERRUPT", true
	case reqGetMSRs:
		return "KVM_GET_MSRS", true
	case reqSetMSRs:
		return "KVM_SET_MSRS", true
	case reqSetSignalMask:
		return "KVM_SET_SIGNAL_MASK", true
	case reqGetFPU:
		return "KVM_GET_FPU", true
	case reqSetFPU:
		return "KVM_SET_FPU", true
	case reqGetLAPIC:
		return "KVM_GET_LAPIC", true
	case reqSetLAPIC:
		return "KVM_SET_LAPIC", true
	case reqSetCPUID2:
		return "KVM_SET_CPUID2", true
	case reqGetCPUID2:
		return "KVM_GET_CPUID2", true
	case reqGetMPState:
		return "KVM_GET_MP_STATE", true
	case reqSetMPState:
		return "KVM_SET_MP_STATE", true
	case reqNMI:
		return "KVM_NMI", true
	case reqSetGuestDebug:
		return "KVM_SET_GUEST_DEBUG", true
	case reqGetVCPUEvents:
		return "KVM_GET_VCPU_EVENTS", true
	case reqSetVCPUEvents:
		return "KVM_SET_VCPU_EVENTS", true
	case reqGetDebugRegs:
		return "KVM_GET_DEBUGREGS", true
	case reqSetDebugRegs:
		return "KVM_SET_DEBUGREGS", true
	case reqGetXSave:
		return "KVM_GET_XSAVE", true
	case reqSetXSave:
		return "KVM_SET_XSAVE", true
	case reqGetXSave2:
		return "KVM_GET_XSAVE2", true
	case reqGetXCRs:
		return "KVM_GET_XCRS", true
	case reqSetXCRs:
		return "KVM_SET_XCRS", true
	case reqSetTSCKHz:
		return "KVM_SET_TSC_KHZ", true
	case reqGetTSCKHz:
		return "KVM_GET_TSC_KHZ", true
	case reqKVMClockCtrl:
		return "KVM_KVMCLOCK_CTRL", true
	case reqReinjectControl:
		return "KVM_REINJECT_CONTROL", true
	}
	return "", false
}
