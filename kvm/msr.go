package kvm

import (
	"errors"
	"syscall"
)

// MSREntry is a model-specific register and its value.
type MSREntry struct {
	Index uint32
	Value uint64
}

const (
	// msrBatch is how many registers one ioctl carries; the kernel refuses 256 or more.
	msrBatch = 128
	// msrListMost bounds the growth of the index lists, which hold a few hundred.
	msrListMost = 1 << 16
)

// MSRIndexList returns the registers that a vCPU's state consists of on this host. Some of
// them may still be refused for a guest whose CPUID lacks the feature.
func (s *System) MSRIndexList() ([]uint32, error) { return s.msrList(reqGetMSRIndexList) }

// MSRFeatureIndexList returns the registers that describe the host's features and that
// [System.FeatureMSRs] can read ([CapGetMSRFeatures]).
func (s *System) MSRFeatureIndexList() ([]uint32, error) {
	return s.msrList(reqGetMSRFeatureIndexList)
}

func (s *System) msrList(req request) ([]uint32, error) {
	for n := uint32(256); ; n *= 2 {
		buf := make([]uint32, 1+n)
		buf[0] = n
		err := set(&s.h, req, &buf[0])
		if errors.Is(err, syscall.E2BIG) && n < msrListMost {
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[1 : 1+min(buf[0], n)], nil
	}
}

// FeatureMSRs reads registers of [System.MSRFeatureIndexList]. A refusal is an [*MSRError].
func (s *System) FeatureMSRs(indices []uint32) ([]MSREntry, error) { return getMSRs(&s.h, indices) }

// MSRs reads registers. A refusal is an [*MSRError] and comes with the entries before it.
func (c *VCPU) MSRs(indices []uint32) ([]MSREntry, error) { return getMSRs(&c.h, indices) }

func getMSRs(h *handle, indices []uint32) ([]MSREntry, error) {
	entries := make([]MSREntry, len(indices))
	for i, x := range indices {
		entries[i].Index = x
	}
	n, err := msrBatches(h, reqGetMSRs, entries)
	return entries[:n], err
}

// SetMSRs writes registers in the given order. The kernel stops at the first one it refuses;
// that is an [*MSRError], and the ones before it stay written.
func (c *VCPU) SetMSRs(entries []MSREntry) error {
	_, err := msrBatches(&c.h, reqSetMSRs, entries)
	return err
}

// msrBatches runs req over entries, which it fills in for KVM_GET_MSRS, and returns how many
// were handled.
func msrBatches(h *handle, req request, entries []MSREntry) (int, error) {
	// struct kvm_msrs: a count and padding, then {index, reserved, data} each.
	var buf [1 + 2*msrBatch]uint64
	for done := 0; done < len(entries); {
		batch := entries[done:min(done+msrBatch, len(entries))]
		buf[0] = uint64(len(batch))
		for i, e := range batch {
			buf[1+2*i], buf[2+2*i] = uint64(e.Index), e.Value
		}
		n, err := pointer(h, req, &buf[0])
		if err != nil {
			return done, err
		}
		n = min(n, len(batch))
		if req == reqGetMSRs {
			for i := range batch[:n] {
				batch[i].Value = buf[2+2*i]
			}
		}
		done += n
		if n < len(batch) {
			return done, newOpError(req.String(), &MSRError{
				Index: entries[done].Index, Handled: done, Total: len(entries),
			})
		}
	}
	return len(entries), nil
}
