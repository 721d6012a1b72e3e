package kvm

import (
	"errors"
	"fmt"
	"syscall"
)

// CPUIDSignificantIndex is a flag of CPUIDEntry: Index counts.
const CPUIDSignificantIndex = 1 << 0

// CPUIDEntry is struct kvm_cpuid_entry2: the answer to CPUID with EAX = Function and, if
// CPUIDSignificantIndex is set, ECX = Index.
type CPUIDEntry struct {
	Function uint32
	Index    uint32
	Flags    uint32
	EAX      uint32
	EBX      uint32
	ECX      uint32
	EDX      uint32
	_        [3]uint32
}

const (
	// cpuidWords is the size of struct kvm_cpuid_entry2 in 64-bit words.
	cpuidWords = 5
	// cpuidFirst is the first guess at a table's length, cpuidMost the last; the kernel's own
	// limit KVM_MAX_CPUID_ENTRIES is 256.
	cpuidFirst = 128
	cpuidMost  = 4096
)

// SupportedCPUID returns what this host's KVM can offer to a guest.
func (s *System) SupportedCPUID() ([]CPUIDEntry, error) {
	return getCPUID(&s.h, reqGetSupportedCPUID)
}

// CPUID returns the table that the guest sees.
func (c *VCPU) CPUID() ([]CPUIDEntry, error) { return getCPUID(&c.h, reqGetCPUID2) }

// SetCPUID sets the table that the guest sees. It must precede the first Run.
func (c *VCPU) SetCPUID(entries []CPUIDEntry) error {
	if len(entries) > cpuidMost {
		return newOpError(reqSetCPUID2.String(), fmt.Errorf("%d entries: %w", len(entries), syscall.E2BIG))
	}
	buf := make([]uint64, 1+cpuidWords*len(entries))
	buf[0] = uint64(len(entries))
	for i, e := range entries {
		w := buf[1+cpuidWords*i:]
		w[0] = uint64(e.Function) | uint64(e.Index)<<32
		w[1] = uint64(e.Flags) | uint64(e.EAX)<<32
		w[2] = uint64(e.EBX) | uint64(e.ECX)<<32
		w[3] = uint64(e.EDX)
	}
	return set(&c.h, reqSetCPUID2, &buf[0])
}

func getCPUID(h *handle, req request) ([]CPUIDEntry, error) {
	for n := cpuidFirst; ; n *= 2 {
		buf := make([]uint64, 1+cpuidWords*n)
		buf[0] = uint64(n)
		err := set(h, req, &buf[0])
		if errors.Is(err, syscall.E2BIG) && n < cpuidMost {
			continue
		}
		if err != nil {
			return nil, err
		}
		entries := make([]CPUIDEntry, min(int(uint32(buf[0])), n))
		for i := range entries {
			w := buf[1+cpuidWords*i:]
			entries[i] = CPUIDEntry{
				Function: uint32(w[0]), Index: uint32(w[0] >> 32),
				Flags: uint32(w[1]), EAX: uint32(w[1] >> 32),
				EBX: uint32(w[2]), ECX: uint32(w[2] >> 32),
				EDX: uint32(w[3]),
			}
		}
		return entries, nil
	}
}
