package vmm

import (
	"crypto/sha256"
	"fmt"
	"math/bits"
	"slices"

	"github.com/hutchvm/hutch/kvm"
)

// CPUID leaves that depend on the virtual CPU, or that the guest must not see.
const (
	leafFeatures    = 0x1
	leafCache       = 0x4
	leafPerfMon     = 0xa
	leafTopology    = 0xb
	leafTopologyV2  = 0x1f
	leafExtFeatures = 0x80000001
	leafSizes       = 0x80000008
	leafAMDCache    = 0x8000001d
	leafAMDTopology = 0x8000001e

	ecxVMX         = 1 << 5 // of leafFeatures
	ecxTSCDeadline = 1 << 24
	ecxHypervisor  = 1 << 31
	edxHTT         = 1 << 28
	ecxSVM         = 1 << 2 // of leafExtFeatures
	ecxTopoExt     = 1 << 22

	levelSMT  = 1 // in ECX[15:8] of leafTopology
	levelCore = 2
)

// guestCPUID turns what KVM supports into what virtual CPU id of n sees: its
// own APIC id, one socket of n cores, no nested virtualization and no
// performance counters (both are attack surface that sandboxes do not need).
func guestCPUID(supported []kvm.CPUIDEntry, id, n int) []kvm.CPUIDEntry {
	apicID, cores := uint32(id), uint32(n)
	coreBits := uint32(bits.Len32(cores - 1))
	out := make([]kvm.CPUIDEntry, 0, len(supported)+4)
	for _, e := range supported {
		switch e.Function {
		case leafTopology, leafTopologyV2:
			continue // rebuilt below
		case leafFeatures:
			e.EBX = e.EBX&0x0000ffff | apicID<<24 | cores<<16
			e.ECX = e.ECX&^ecxVMX | ecxTSCDeadline | ecxHypervisor
			e.EDX &^= edxHTT
			if n > 1 {
				e.EDX |= edxHTT
			}
		case leafCache, leafAMDCache:
			// EAX[25:14]: how many APIC ids share the cache, less one. The
			// last level is shared by all, the others belong to one core.
			sharers := uint32(0)
			if level := e.EAX >> 5 & 7; level >= 3 {
				sharers = 1<<coreBits - 1
			}
			e.EAX = e.EAX&^(0xfff<<14) | sharers<<14
			if e.Function == leafCache && e.EAX&0x1f != 0 {
				e.EAX = e.EAX&^(0x3f<<26) | (1<<coreBits-1)<<26
			}
		case leafPerfMon:
			e.EAX, e.EBX, e.ECX, e.EDX = 0, 0, 0, 0
		case leafExtFeatures:
			e.ECX &^= ecxSVM | ecxTopoExt
		case leafSizes:
			e.ECX = e.ECX&^0xf0ff | coreBits<<12 | (cores - 1)
		case leafAMDTopology:
			e.EAX, e.EBX, e.ECX = apicID, apicID, 0
		}
		out = append(out, e)
	}
	if hasLeaf(supported, leafTopology) {
		out = append(out,
			kvm.CPUIDEntry{Function: leafTopology, Index: 0, Flags: kvm.CPUIDSignificantIndex, EAX: 0, EBX: 1, ECX: 0 | levelSMT<<8, EDX: apicID},
			kvm.CPUIDEntry{Function: leafTopology, Index: 1, Flags: kvm.CPUIDSignificantIndex, EAX: coreBits, EBX: cores, ECX: 1 | levelCore<<8, EDX: apicID},
			kvm.CPUIDEntry{Function: leafTopology, Index: 2, Flags: kvm.CPUIDSignificantIndex, ECX: 2, EDX: apicID},
		)
	}
	return out
}

// cpuidDigest identifies what a guest sees of its CPU.
func cpuidDigest(entries []kvm.CPUIDEntry) raw {
	h := sha256.New()
	for _, e := range entries {
		fmt.Fprintln(h, e)
	}
	return h.Sum(nil)
}

func hasLeaf(entries []kvm.CPUIDEntry, leaf uint32) bool {
	return slices.ContainsFunc(entries, func(e kvm.CPUIDEntry) bool { return e.Function == leaf })
}
