package virtq

// State is what a queue must remember besides its Config and the guest's memory.
type State struct {
	NextAvail uint16
	NextUsed  uint16
	Signalled uint16   // used index at the last notification decision
	Unsaid    uint32   // pushes since then
	InFlight  []uint16 // heads that a device holds, ascending
}

// State returns the queue's state. No device may be working on the queue.
func (q *Queue) State() State {
	s := State{NextAvail: q.nextAvail, NextUsed: q.nextUsed, Signalled: q.signalled, Unsaid: q.unsaid}
	for head := range q.cfg.Size {
		if q.isFlying(head) {
			s.InFlight = append(s.InFlight, head)
		}
	}
	return s
}

// Restore gives a new queue a saved state. The state is not trusted: what cannot
// be is refused with ErrState and leaves the queue as it was.
func (q *Queue) Restore(s State) error {
	if len(s.InFlight) > int(q.cfg.Size) ||
		s.NextAvail-s.NextUsed != uint16(len(s.InFlight)) ||
		s.Unsaid > 1<<16 ||
		s.Unsaid < 1<<16 && s.NextUsed-s.Signalled != uint16(s.Unsaid) {
		return &Error{"restore", ErrState}
	}
	for i, head := range s.InFlight {
		if head >= q.cfg.Size || i > 0 && s.InFlight[i-1] >= head {
			return &Error{"restore", ErrState}
		}
	}
	clear(q.inFlight)
	q.flying = 0
	for _, head := range s.InFlight {
		q.setFlying(head, true)
	}
	q.nextAvail, q.nextUsed = s.NextAvail, s.NextUsed
	q.signalled, q.unsaid = s.Signalled, s.Unsaid
	// The flags in guest memory may suppress kicks; a device enables them when
	// it has drained the queue, which only writes when it knows of that.
	q.noNotify = !q.cfg.EventIdx && q.used.Load16(ringFlags)&usedNoNotify != 0
	return nil
}
