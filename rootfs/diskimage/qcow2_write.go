package diskimage

import "errors"

// maxAlloc is how many bytes of clusters are taken at a time.
const maxAlloc = 1 << 20

// writeMeta writes to the file.
func (q *qcow2) writeMeta(b []byte, at int64) error {
	_, err := q.f.WriteAt(b, at)
	return err
}

// reach makes the file at least so long.
func (q *qcow2) reach(end int64) error {
	if end <= q.end {
		return nil
	}
	if err := q.f.Truncate(end); err != nil {
		return err
	}
	q.end = end
	return nil
}

// WriteAtv writes in place what can be, and takes new clusters for the rest.
func (q *qcow2) WriteAtv(bufs [][]byte, off int64) error {
	v, n := newVec(bufs)
	for n > 0 {
		done, err := q.writeInPlace(v, off, n)
		if err == nil && done == 0 {
			done, err = q.writeNew(v, off, n)
		}
		if err != nil {
			return err
		}
		off, n = off+done, n-done
	}
	return nil
}

// writeInPlace writes the first bytes if they are in clusters that only this
// disk has, and says how many that were.
func (q *qcow2) writeInPlace(v *vec, off, n int64) (int64, error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	r, err := q.lookup(off, n)
	if err != nil || r.kind != data || !r.own {
		return 0, err
	}
	r.n = min(r.n, max((q.end-r.at)&^511, 0))
	if r.n == 0 {
		return 0, nil // the last cluster of a file that ends within it
	}
	return r.n, q.file.WriteAtv(v.take(r.n), r.at)
}

// writeNew writes the first bytes to clusters that are new for them.
func (q *qcow2) writeNew(v *vec, off, n int64) (int64, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.makeRoom(); err != nil {
		return 0, err
	}
	return q.allocate(off, n, v.take)
}

// makeRoom flushes when too much waits for that.
func (q *qcow2) makeRoom() error {
	_, full := q.l2s.dirty()
	if full || q.refs.full() || len(q.pending) > maxPending {
		return q.flushLocked()
	}
	return nil
}

// allocate writes the first bytes, at least one, up to n, to clusters of their
// own; take gives as many as it asks for.
func (q *qcow2) allocate(off, n int64, take func(int64) [][]byte) (int64, error) {
	size, bits := q.h.cluster(), q.h.clusterBits
	index := off >> bits
	if r, err := q.lookup(off, n); err != nil {
		return 0, err
	} else if r.kind == data && r.own { // since somebody was faster, or the file ends within it
		if err := q.reach((r.at + r.n + size - 1) &^ (size - 1)); err != nil {
			return 0, err
		}
		return r.n, q.file.WriteAtv(take(r.n), r.at)
	}
	table, err := q.l2ForWrite(int(index >> q.h.l2Bits()))
	if err != nil {
		return 0, err
	}
	first := int(index & (1<<q.h.l2Bits() - 1))
	count, err := q.countNew(table, first, off, n)
	if err != nil {
		return 0, err
	}
	fresh := (q.end + size - 1) >> bits // clusters from here on read as zero
	c, got, err := q.refs.alloc(count)
	if err != nil {
		return 0, err
	}
	in := off & (size - 1)
	n = min(n, got*size-in)
	if err := q.fill(c, got, off, n, c >= fresh, take); err != nil {
		return 0, errors.Join(err, q.refs.unalloc(c, got))
	}
	for i := range int(got) {
		old := table.get(first + i)
		table.set(first+i, uint64(c+int64(i))<<bits|entryCopied)
		if err := q.drop(old); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// countNew is how many clusters of a table, from the first, are touched by a write
// and need a place.
func (q *qcow2) countNew(table *l2Table, first int, off, n int64) (int64, error) {
	size := q.h.cluster()
	count := (off&(size-1) + n + size - 1) / size
	count = min(count, 1<<q.h.l2Bits()-int64(first), max(maxAlloc/size, 1))
	for i := range count {
		e := table.get(first + int(i))
		k, err := q.kindOf(e)
		switch {
		case err != nil && i == 0:
			return 0, err
		case err != nil, k == data && e&entryCopied != 0 && i > 0:
			return i, nil
		}
	}
	return count, nil
}

// fill writes n bytes of the disk from off to got new clusters from c, and around
// them what was there before.
func (q *qcow2) fill(c, got, off, n int64, isZero bool, take func(int64) [][]byte) error {
	size, bits := q.h.cluster(), q.h.clusterBits
	in := off & (size - 1)
	tail := got*size - in - n
	read := func(from, n int64) ([]byte, error) {
		if n == 0 {
			return nil, nil
		}
		b := make([]byte, n)
		return b, q.readOld(b, from)
	}
	head, err := read(off-in, in)
	if err != nil {
		return err
	}
	rest, err := read(off+n, tail)
	if err != nil {
		return err
	}
	at := c << bits
	if isZero && allZero(head) && allZero(rest) {
		return q.file.WriteAtv(take(n), at+in)
	}
	list := append([][]byte{head}, take(n)...)
	return q.file.WriteAtv(append(list, rest), at)
}

func allZero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

// readOld reads the disk's content, also behind its end, where it is zero.
func (q *qcow2) readOld(b []byte, off int64) error {
	for len(b) > 0 {
		if off >= q.Size() {
			clear(b)
			return nil
		}
		r, err := q.lookup(off, min(int64(len(b)), q.Size()-off))
		if err != nil {
			return err
		}
		if err := q.readRun(r, [][]byte{b[:r.n]}, off); err != nil {
			return err
		}
		b, off = b[r.n:], off+r.n
	}
	return nil
}

// drop frees what an L2 entry pointed to, after the next flush.
func (q *qcow2) drop(e uint64) error {
	k, err := q.kindOf(e)
	if err != nil {
		return err
	}
	switch {
	case k == compressed:
		at, n, err := q.compressedAt(e)
		if err != nil {
			return err
		}
		q.unpacked.forget()
		for c := at >> q.h.clusterBits; c <= (at+n-1)>>q.h.clusterBits; c++ {
			q.pending = append(q.pending, c)
		}
	case e&entryOffset != 0:
		q.pending = append(q.pending, int64(e&entryOffset)>>q.h.clusterBits)
	}
	return nil
}

// Discard frees whole clusters; they read as zero then.
func (q *qcow2) Discard(off, n int64) error {
	if q.h.version < 3 && q.backing != nil {
		return nil // what is behind would come to light
	}
	size := q.h.cluster()
	end := off + n
	if end < q.Size() {
		end &^= size - 1
	}
	off = (off + size - 1) &^ (size - 1)
	return q.eachCluster(off, end, q.freeCluster)
}

// eachCluster calls f for the clusters that begin in a range of the disk, with
// the mapping locked, and lets others have a turn now and then.
func (q *qcow2) eachCluster(off, end int64, f func(l1, inL2 int) error) error {
	size, bits := q.h.cluster(), q.h.l2Bits()
	for off < end {
		q.mu.Lock()
		err := q.makeRoom()
		for i := 0; err == nil && off < end && i < 1024; i++ {
			index := off >> q.h.clusterBits
			l1 := index >> bits
			if q.l1[l1]&entryOffset == 0 && q.backing == nil {
				off = (l1 + 1) << bits << q.h.clusterBits // nothing at all is there
				continue
			}
			err = f(int(l1), int(index&(1<<bits-1)))
			off += size
		}
		q.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// freeCluster makes a cluster zero that takes no room.
func (q *qcow2) freeCluster(l1, i int) error {
	zero := uint64(0)
	if q.backing != nil {
		zero = entryZero
	}
	return q.replace(l1, i, func(e uint64) uint64 {
		if e == entryZero {
			return e
		}
		return zero
	})
}

// replace sets an L2 entry to what f makes of it, and drops what was there.
func (q *qcow2) replace(l1, i int, f func(uint64) uint64) error {
	table, err := q.l2(l1)
	if err != nil {
		return err
	}
	old := uint64(0)
	if table != nil {
		old = table.get(i)
	}
	k, err := q.kindOf(old)
	if err != nil {
		return err
	}
	e := f(old)
	if e == old {
		return nil
	}
	if table, err = q.l2ForWrite(l1); err != nil {
		return err
	}
	table.set(i, e)
	if k == compressed || old&entryOffset != 0 && e&entryOffset == 0 {
		return q.drop(old)
	}
	return nil
}

// WriteZeroes changes the mapping for whole clusters and writes the rest.
func (q *qcow2) WriteZeroes(off, n int64, unmap bool) error {
	size := q.h.cluster()
	if q.h.version < 3 && q.backing != nil {
		return q.writeZeroBuffers(off, n)
	}
	end := off + n
	first, last := min((off+size-1)&^(size-1), end), end&^(size-1)
	if end == q.Size() {
		last = end
	}
	if last <= first {
		return q.writeZeroBuffers(off, n)
	}
	if err := q.writeZeroBuffers(off, first-off); err != nil {
		return err
	}
	f := q.freeCluster
	if !unmap && q.h.version >= 3 {
		f = q.zeroCluster
	}
	if err := q.eachCluster(first, last, f); err != nil {
		return err
	}
	return q.writeZeroBuffers(last, end-last)
}

// zeroCluster makes a cluster zero and keeps its place.
func (q *qcow2) zeroCluster(l1, i int) error {
	return q.replace(l1, i, func(e uint64) uint64 {
		switch {
		case e&entryCompressed != 0 || e&entryOffset == 0:
			return entryZero
		case e&entryCopied == 0:
			return entryZero // of a snapshot as well
		}
		return e | entryZero
	})
}

func (q *qcow2) writeZeroBuffers(off, n int64) error {
	zero := make([]byte, min(n, maxAlloc))
	for n > 0 {
		k := min(n, int64(len(zero)))
		if err := q.WriteAtv([][]byte{zero[:k]}, off); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// Flush writes what is in memory, in order, and waits for the disk.
func (q *qcow2) Flush() error {
	// The bulk of the data goes without holding up others.
	if err := q.file.Flush(); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.flushLocked()
}

func (q *qcow2) flushLocked() error {
	tables, _ := q.l2s.dirty()
	if len(tables) == 0 && len(q.l1Dirty) == 0 && len(q.pending) == 0 && len(q.refs.dirtyTable) == 0 {
		return q.refs.writeBlocks()
	}
	if err := q.refs.writeBlocks(); err != nil {
		return err
	}
	if err := q.file.Flush(); err != nil {
		return err
	}
	if len(q.refs.dirtyTable) > 0 {
		if err := errors.Join(q.refs.writeTable(), q.file.Flush()); err != nil {
			return err
		}
	}
	for _, t := range tables {
		if err := q.writeMeta(t.b, t.at); err != nil {
			return err
		}
	}
	if len(q.l1Dirty) > 0 {
		if err := q.file.Flush(); err != nil {
			return err
		}
		for i := range q.l1Dirty {
			var b [8]byte
			be.PutUint64(b[:], q.l1[i])
			if err := q.writeMeta(b[:], q.h.l1At+8*int64(i)); err != nil {
				return err
			}
		}
	}
	if err := q.file.Flush(); err != nil {
		return err
	}
	for _, t := range tables {
		t.dirty = false
	}
	clear(q.l1Dirty)
	return q.freePending()
}

// freePending frees what nothing on disk points to any more. A crash before its
// refcounts are on disk only leaves them too high.
func (q *qcow2) freePending() error {
	for len(q.pending) > 0 {
		c := q.pending[len(q.pending)-1]
		q.pending = q.pending[:len(q.pending)-1]
		if err := q.refs.release(c); err != nil {
			return err
		}
	}
	return q.refs.writeBlocks()
}
