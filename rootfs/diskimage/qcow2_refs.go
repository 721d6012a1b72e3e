package diskimage

import (
	"errors"
	"fmt"
)

// refcounts are the reference counts of all clusters of the file. qcow2.mu is
// held for writing.
type refcounts struct {
	q      *qcow2
	table  []uint64 // where the blocks are
	at     int64    // of the table in the file
	blocks map[int64]*refBlock
	hint   int64 // no cluster before it is free

	dirtyTable map[int64]bool // entries that are to be written
}

// refBlock is a block of refcounts in memory.
type refBlock struct {
	b     []byte
	at    int64
	dirty bool
}

// refMemory is about the memory for refcount blocks.
const refMemory = 4 << 20

func (r *refcounts) open(q *qcow2) error {
	r.q, r.at = q, q.h.refAt
	r.blocks, r.dirtyTable = map[int64]*refBlock{}, map[int64]bool{}
	b := make([]byte, q.h.refClusters*q.h.cluster())
	if _, err := q.f.ReadAt(b, r.at); err != nil {
		return err
	}
	r.table = make([]uint64, len(b)/8)
	for i := range r.table {
		r.table[i] = be.Uint64(b[8*i:])
	}
	return nil
}

// perBlock is log2 of the clusters that a block counts.
func (r *refcounts) perBlock() uint { return r.q.h.clusterBits + 3 - r.q.h.refOrder }

// block returns a block, nil if there is none: then all its counts are 0.
func (r *refcounts) block(i int64) (*refBlock, error) {
	if b := r.blocks[i]; b != nil {
		return b, nil
	}
	if i >= int64(len(r.table)) || r.table[i]&entryOffset == 0 {
		return nil, nil
	}
	at := r.table[i] & entryOffset
	if err := r.q.checkTable("refcount block", at); err != nil {
		return nil, err
	}
	b := &refBlock{b: make([]byte, r.q.h.cluster()), at: int64(at)}
	if _, err := r.q.f.ReadAt(b.b, b.at); err != nil {
		return nil, err
	}
	r.keep(i, b)
	return b, nil
}

// keep puts a block into the cache, and others that are on disk out of it.
func (r *refcounts) keep(i int64, b *refBlock) {
	for k, old := range r.blocks {
		if int64(len(r.blocks))*r.q.h.cluster() < max(refMemory, 8*r.q.h.cluster()) {
			break
		}
		if !old.dirty {
			delete(r.blocks, k)
		}
	}
	r.blocks[i] = b
}

// full reports whether so many blocks wait for a flush that it should be soon.
func (r *refcounts) full() bool {
	return int64(len(r.blocks))*r.q.h.cluster() > 2*max(refMemory, 8*r.q.h.cluster())
}

func (r *refcounts) get(cluster int64) (uint64, error) {
	b, err := r.block(cluster >> r.perBlock())
	if b == nil {
		return 0, err
	}
	return getCount(b.b, cluster&(1<<r.perBlock()-1), r.q.h.refOrder), nil
}

// set stores a count, which is at most as large as it was, or 1.
func (r *refcounts) set(cluster int64, n uint64) error {
	i := cluster >> r.perBlock()
	b, err := r.block(i)
	if err != nil {
		return err
	}
	if b == nil {
		return fmt.Errorf("%w: no refcount block %d", ErrCorrupt, i)
	}
	putCount(b.b, cluster&(1<<r.perBlock()-1), r.q.h.refOrder, n)
	b.dirty = true
	return nil
}

// getCount reads a count of 2^order bits; those below a byte begin at the low bits.
func getCount(b []byte, i int64, order uint) uint64 {
	switch order {
	case 6:
		return be.Uint64(b[8*i:])
	case 5:
		return uint64(be.Uint32(b[4*i:]))
	case 4:
		return uint64(be.Uint16(b[2*i:]))
	}
	bit := i << order
	return uint64(b[bit/8]>>(bit%8)) & (1<<(1<<order) - 1)
}

func putCount(b []byte, i int64, order uint, n uint64) {
	switch order {
	case 6:
		be.PutUint64(b[8*i:], n)
	case 5:
		be.PutUint32(b[4*i:], uint32(n))
	case 4:
		be.PutUint16(b[2*i:], uint16(n))
	default:
		bit := i << order
		mask := byte(1<<(1<<order)-1) << (bit % 8)
		b[bit/8] = b[bit/8]&^mask | byte(n)<<(bit%8)&mask
	}
}

// alloc takes up to n free clusters that are next to each other.
func (r *refcounts) alloc(n int64) (first int64, got int64, err error) {
	first = r.hint
	for ; ; first++ {
		c, err := r.get(first)
		if err != nil {
			return 0, 0, err
		}
		if c == 0 {
			break
		}
	}
	r.hint = first
	for ; got < n; got++ {
		c := first + got
		if got > 0 {
			if count, err := r.get(c); err != nil || count != 0 {
				break
			}
		}
		if r.q.meta[c] {
			if got > 0 {
				break
			}
			return 0, 0, fmt.Errorf("%w: metadata at %#x has no references", ErrCorrupt, c<<r.q.h.clusterBits)
		}
		made, err := r.ensure(c)
		if err != nil {
			if got > 0 {
				break
			}
			return 0, 0, err
		}
		if made {
			// The cluster became the block that counts it.
			if got > 0 {
				break
			}
			return r.alloc(n)
		}
		if err := r.set(c, 1); err != nil {
			return 0, 0, err
		}
	}
	r.hint = first + got
	return first, got, r.q.reach(r.hint << r.q.h.clusterBits)
}

// unalloc takes clusters back that nothing points to yet.
func (r *refcounts) unalloc(first, n int64) error {
	r.hint = min(r.hint, first)
	var errs []error
	for c := first; c < first+n; c++ {
		errs = append(errs, r.set(c, 0))
	}
	return errors.Join(errs...)
}

// ensure makes the block that counts cluster c, in that cluster, if there is none.
func (r *refcounts) ensure(c int64) (made bool, err error) {
	i := c >> r.perBlock()
	if i < int64(len(r.table)) && r.table[i]&entryOffset != 0 {
		return false, nil
	}
	if i >= int64(len(r.table)) {
		return true, r.grow(i)
	}
	if err := r.newBlock(i, c); err != nil {
		return false, err
	}
	return true, r.set(c, 1)
}

// newBlock puts block i into the free cluster c. Who counts that comes after.
func (r *refcounts) newBlock(i, c int64) error {
	size := r.q.h.cluster()
	b := &refBlock{b: make([]byte, size), at: c << r.q.h.clusterBits, dirty: true}
	if err := r.q.reach(b.at + size); err != nil {
		return err
	}
	if err := r.q.writeMeta(b.b, b.at); err != nil {
		return err
	}
	r.keep(i, b)
	r.table[i] = uint64(b.at)
	r.dirtyTable[i] = true
	r.q.meta[c] = true
	return nil
}

// grow makes the table large enough for block i, at a new place at the end of the
// file, and frees the old one.
func (r *refcounts) grow(i int64) error {
	size, bits := r.q.h.cluster(), r.q.h.clusterBits
	perCluster := size / 8
	clusters := (i + 1 + i/2 + perCluster) / perCluster
	if clusters*perCluster > maxRefs {
		if clusters = maxRefs / perCluster; i >= maxRefs {
			return fmt.Errorf("%w: file of over %d refcount blocks", ErrUnsupported, maxRefs)
		}
	}
	// All that was so far goes to disk first: the header will point to it.
	if err := r.q.flushLocked(); err != nil {
		return err
	}
	old, oldAt := r.table, r.at
	r.table = append(append([]uint64(nil), old...), make([]uint64, clusters*perCluster-int64(len(old)))...)
	undo := func(err error) error {
		for k := range r.blocks {
			if k >= int64(len(old)) {
				delete(r.q.meta, r.blocks[k].at>>bits)
				delete(r.blocks, k)
			}
		}
		r.table, r.at = old, oldAt
		clear(r.dirtyTable)
		return err
	}
	// The block of the first cluster behind all others, then the table.
	first := max(int64(len(old))<<r.perBlock(), (r.q.end+size-1)>>bits)
	next := first
	for c := first; c < next+clusters; c++ {
		if k := c >> r.perBlock(); k >= int64(len(r.table)) {
			return undo(fmt.Errorf("%w: refcount table cannot grow", ErrUnsupported))
		} else if r.table[k] == 0 {
			if err := r.newBlock(k, next); err != nil {
				return undo(err)
			}
			next++
		}
	}
	for c := first; c < next+clusters; c++ {
		if err := r.set(c, 1); err != nil {
			return undo(err)
		}
	}
	at := next << bits
	if err := r.q.reach(at + clusters*size); err != nil {
		return undo(err)
	}
	b := make([]byte, clusters*size)
	for k, e := range r.table {
		be.PutUint64(b[8*k:], e)
	}
	if err := r.writeBlocks(); err != nil {
		return undo(err)
	}
	if err := errors.Join(r.q.writeMeta(b, at), r.q.f.Sync()); err != nil {
		return undo(err)
	}
	var field [12]byte
	be.PutUint64(field[:], uint64(at))
	be.PutUint32(field[8:], uint32(clusters))
	if err := errors.Join(r.q.writeMeta(field[:], qAtReftable), r.q.f.Sync()); err != nil {
		return undo(err)
	}
	r.at = at
	clear(r.dirtyTable)
	for c := range clusters {
		r.q.meta[next+c] = true
	}
	for c := oldAt >> bits; c < oldAt>>bits+int64(len(old))*8>>bits; c++ {
		delete(r.q.meta, c)
		if err := r.release(c); err != nil {
			return err
		}
	}
	return nil
}

// release drops one reference.
func (r *refcounts) release(c int64) error {
	n, err := r.get(c)
	if err != nil {
		return err
	}
	if n == 0 || r.q.meta[c] {
		return fmt.Errorf("%w: refcount of the cluster at %#x", ErrCorrupt, c<<r.q.h.clusterBits)
	}
	if err := r.set(c, n-1); err != nil {
		return err
	}
	if n == 1 {
		r.hint = min(r.hint, c)
		return r.q.file.Discard(c<<r.q.h.clusterBits, min(r.q.h.cluster(), r.q.end-c<<r.q.h.clusterBits))
	}
	return nil
}

// writeBlocks writes the blocks that were changed.
func (r *refcounts) writeBlocks() error {
	for _, b := range r.blocks {
		if !b.dirty {
			continue
		}
		if err := r.q.writeMeta(b.b, b.at); err != nil {
			return err
		}
		b.dirty = false
	}
	return nil
}

// writeTable writes the entries of the table that were changed.
func (r *refcounts) writeTable() error {
	for i := range r.dirtyTable {
		var b [8]byte
		be.PutUint64(b[:], r.table[i])
		if err := r.q.writeMeta(b[:], r.at+8*i); err != nil {
			return err
		}
		delete(r.dirtyTable, i)
	}
	return nil
}
