package diskimage

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/hutchvm/hutch/virtio/blk"
)

// Bits of L1 and L2 entries.
const (
	entryOffset     = 0x00fffffffffffe00
	entryCopied     = 1 << 63 // exactly one reference: may be written in place
	entryCompressed = 1 << 62
	entryZero       = 1 << 0 // version 3
)

// qcow2 is an image of that format.
//
// What counts on disk is written in an order that leaves, after a crash at any
// point, an image in which nothing is lost but what was not flushed, and in
// which at worst clusters are counted that nobody uses: refcounts and data
// first, then what points to them, and what is no longer pointed to is freed
// after that. In between changes are in memory; Flush writes them.
type qcow2 struct {
	h       *qHeader
	f       *os.File
	file    *blk.File // the same, for data
	ro      bool
	backing *Image

	// mu is held for reading while data is read or written in place, so that no
	// cluster is given to another use meanwhile; for writing while the
	// mapping changes.
	mu  sync.RWMutex
	l1  []uint64
	l2s l2Cache
	end int64 // of the file; it only grows

	unpacked unpacked // the cluster that was decompressed last

	// What follows is of images that can be written.
	refs    refcounts
	meta    map[int64]bool // clusters that hold metadata
	l1Dirty map[int]bool
	pending []int64 // clusters to free when nothing on disk points to them
}

// maxPending bounds the list of clusters to free.
const maxPending = 4096

func openQCOW2(f *os.File, ro bool, backing func(string, Format) (*Image, error)) (driver, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	h, err := readHeader(f, fi.Size())
	if err != nil {
		return nil, err
	}
	if !ro && h.incompat&qDirty != 0 {
		return nil, ErrDirty
	}
	if !ro && h.incompat&qCorrupt != 0 {
		return nil, fmt.Errorf("%w: it is marked so; it can be opened read-only, or repaired by qemu-img check -r all", ErrCorrupt)
	}
	q := &qcow2{h: h, f: f, ro: ro, end: fi.Size()}
	if q.file, err = blk.NewFile(f); err != nil {
		return nil, err
	}
	q.l2s.init(h.cluster())
	b := make([]byte, h.l1Len*8)
	if _, err := f.ReadAt(b, h.l1At); err != nil && len(b) > 0 {
		return nil, err
	}
	q.l1 = make([]uint64, h.l1Len)
	for i := range q.l1 {
		q.l1[i] = be.Uint64(b[8*i:])
	}
	if !ro {
		if err := q.prepareWrites(); err != nil {
			return nil, err
		}
	}
	if h.backing != "" {
		if q.backing, err = backing(h.backing, h.backingFmt); err != nil {
			return nil, err
		}
	}
	return q, nil
}

// prepareWrites reads what only a writer needs.
func (q *qcow2) prepareWrites() error {
	q.meta, q.l1Dirty = map[int64]bool{}, map[int]bool{}
	if err := q.refs.open(q); err != nil {
		return err
	}
	if err := q.findMetadata(); err != nil {
		return err
	}
	if q.h.autoclear != 0 {
		// What those bits speak of, such as dirty bitmaps, will not be kept up.
		if _, err := q.f.WriteAt(make([]byte, 8), qAtAutoclear); err != nil {
			return err
		}
		return q.f.Sync()
	}
	return nil
}

// findMetadata notes all clusters that hold metadata, and fails when one has two
// uses.
func (q *qcow2) findMetadata() error {
	add := func(what string, at, n int64) error {
		for c := at >> q.h.clusterBits; c < (at+n+q.h.cluster()-1)>>q.h.clusterBits; c++ {
			if q.meta[c] {
				return fmt.Errorf("%w: %s overlaps other metadata at %#x", ErrCorrupt, what, c<<q.h.clusterBits)
			}
			q.meta[c] = true
		}
		return nil
	}
	errs := []error{
		add("header", 0, q.h.cluster()),
		add("L1 table", q.h.l1At, int64(q.h.l1Len)*8),
		add("refcount table", q.h.refAt, q.h.refClusters*q.h.cluster()),
	}
	if q.h.snapshots > 0 {
		if q.h.snapAt < q.h.cluster() || q.h.snapAt >= q.end {
			return fmt.Errorf("%w: snapshots at %#x", ErrCorrupt, q.h.snapAt)
		}
		errs = append(errs, add("snapshot table", q.h.snapAt, 1))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, e := range q.refs.table {
		if e == 0 {
			continue
		}
		if err := q.checkTable("refcount block", e&entryOffset); err != nil {
			return err
		}
		if err := add("refcount block", int64(e&entryOffset), 1); err != nil {
			return err
		}
	}
	for _, e := range q.l1 {
		if e&entryOffset == 0 {
			continue
		}
		if err := q.checkTable("L2 table", e&entryOffset); err != nil {
			return err
		}
		if err := add("L2 table", int64(e&entryOffset), 1); err != nil {
			return err
		}
	}
	return nil
}

// checkTable checks where a table of one cluster is.
func (q *qcow2) checkTable(what string, at uint64) error {
	n := q.h.cluster()
	if int64(at)&(n-1) != 0 || int64(at) < n || int64(at) > q.end-n {
		return fmt.Errorf("%w: %s at %#x in a file of %d bytes", ErrCorrupt, what, at, q.end)
	}
	return nil
}

// Size is the size of the disk in whole sectors.
func (q *qcow2) Size() int64 {
	return (q.h.size + blk.SectorSize - 1) / blk.SectorSize * blk.SectorSize
}

// close closes the files; Flush came before.
func (q *qcow2) close() error {
	q.unpacked.close()
	err := q.f.Close()
	if q.backing != nil {
		err = errors.Join(err, q.backing.Close())
	}
	return err
}

// kind says where the content of a cluster is.
type kind int

const (
	unallocated kind = iota // in the backing file, or zero
	zeroes
	compressed
	data
)

// kindOf interprets and checks an L2 entry.
func (q *qcow2) kindOf(e uint64) (kind, error) {
	switch {
	case e&entryCompressed != 0:
		return compressed, nil
	case e&entryZero != 0:
		if q.h.version < 3 {
			return 0, fmt.Errorf("%w: L2 entry %#x", ErrCorrupt, e)
		}
		return zeroes, q.checkData(e)
	case e&entryOffset == 0:
		return unallocated, nil
	}
	return data, q.checkData(e)
}

// checkData checks the place of a cluster of data.
func (q *qcow2) checkData(e uint64) error {
	at := int64(e & entryOffset)
	if at == 0 {
		return nil // of a zero cluster
	}
	if at&(q.h.cluster()-1) != 0 || at < q.h.cluster() || at >= q.end || q.meta[at>>q.h.clusterBits] {
		return fmt.Errorf("%w: data at %#x in a file of %d bytes", ErrCorrupt, at, q.end)
	}
	return nil
}

// run describes n bytes of the disk from some offset that are in one place.
type run struct {
	kind  kind
	entry uint64 // of the first cluster
	at    int64  // in the file, for data
	n     int64
	own   bool // all of it may be written in place
}

// lookup finds where the disk's bytes from off are, as many as are together, up
// to n. The caller holds mu.
func (q *qcow2) lookup(off, n int64) (run, error) {
	size := q.h.cluster()
	in := off & (size - 1)
	index := off >> q.h.clusterBits
	inL2 := int(index & (1<<q.h.l2Bits() - 1))
	l1 := index >> q.h.l2Bits()
	n = min(n, size<<q.h.l2Bits()-int64(inL2)*size-in) // within this table
	table, err := q.l2(int(l1))
	if err != nil {
		return run{}, err
	}
	if table == nil {
		return run{kind: unallocated, n: n}, nil
	}
	first := table.get(inL2)
	r := run{entry: first, n: min(n, size-in)}
	if r.kind, err = q.kindOf(first); err != nil {
		return r, err
	}
	if r.kind == data {
		r.at = int64(first&entryOffset) + in
		r.own = first&entryCopied != 0 && q.l1[l1]&entryCopied != 0
	}
	for i := 1; r.n < n && r.kind != compressed; i++ {
		e := table.get(inL2 + i)
		if k, err := q.kindOf(e); err != nil || k != r.kind {
			break // an error shows when it is its turn
		}
		if r.kind == data && (int64(e&entryOffset) != int64(first&entryOffset)+int64(i)*size || (e^first)&entryCopied != 0) {
			break
		}
		r.n = min(n, r.n+size)
	}
	return r, nil
}

// ReadAtv reads.
func (q *qcow2) ReadAtv(bufs [][]byte, off int64) error {
	v, n := newVec(bufs)
	q.mu.RLock()
	defer q.mu.RUnlock()
	for n > 0 {
		r, err := q.lookup(off, n)
		if err != nil {
			return err
		}
		if err := q.readRun(r, v.take(r.n), off); err != nil {
			return err
		}
		off, n = off+r.n, n-r.n
	}
	return nil
}

func (q *qcow2) readRun(r run, bufs [][]byte, off int64) error {
	switch r.kind {
	case data:
		return q.readFile(bufs, r.at, r.n)
	case compressed:
		return q.readCompressed(bufs, r.entry, off&(q.h.cluster()-1))
	case unallocated:
		return q.readBacking(bufs, off, r.n)
	}
	zero(bufs)
	return nil
}

// readFile reads n bytes of data; what is behind the end of the file is zero.
func (q *qcow2) readFile(bufs [][]byte, at, n int64) error {
	if have := q.end - at; n > have {
		v, _ := newVec(bufs)
		if have = max(have, 0) &^ (blk.SectorSize - 1); have > 0 {
			if err := q.file.ReadAtv(append([][]byte(nil), v.take(have)...), at); err != nil {
				return err
			}
		}
		zero(v.take(n - have))
		return nil
	}
	return q.file.ReadAtv(bufs, at)
}

// readBacking reads what this image does not have.
func (q *qcow2) readBacking(bufs [][]byte, off, n int64) error {
	have := int64(0)
	if q.backing != nil {
		have = min(n, max(q.backing.Size()-off, 0))
	}
	v, _ := newVec(bufs)
	if have > 0 {
		if err := q.backing.ReadAtv(append([][]byte(nil), v.take(have)...), off); err != nil {
			return err
		}
	}
	zero(v.take(n - have))
	return nil
}
