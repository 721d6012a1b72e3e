package diskimage

import (
	"container/list"
	"errors"
	"sync"
)

// l2Table is an L2 table in memory, in the format's byte order. It is changed
// with qcow2.mu held for writing.
type l2Table struct {
	b     []byte
	at    int64 // in the file
	dirty bool
	elem  *list.Element
}

func (t *l2Table) get(i int) uint64    { return be.Uint64(t.b[8*i:]) }
func (t *l2Table) set(i int, e uint64) { be.PutUint64(t.b[8*i:], e); t.dirty = true }

// l2Cache holds the tables that were used last, by their place in the file.
// Tables that were changed stay until a flush has written them.
type l2Cache struct {
	mu     sync.Mutex
	tables map[int64]*l2Table
	used   list.List // of *l2Table, the last one first
	room   int       // tables
}

// l2Memory is about the memory for L2 tables; with clusters of 64 KiB it maps 64 GiB.
const l2Memory = 8 << 20

func (c *l2Cache) init(cluster int64) {
	c.tables = map[int64]*l2Table{}
	c.room = int(max(l2Memory/cluster, 8))
}

// get returns the table at that place, read by read if it is not there.
func (c *l2Cache) get(at int64, read func([]byte) error, size int64) (*l2Table, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.tables[at]; t != nil {
		c.used.MoveToFront(t.elem)
		return t, nil
	}
	t := &l2Table{b: make([]byte, size), at: at}
	if err := read(t.b); err != nil {
		return nil, err
	}
	c.insert(t)
	return t, nil
}

func (c *l2Cache) add(t *l2Table) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.insert(t)
}

func (c *l2Cache) insert(t *l2Table) {
	c.tables[t.at] = t
	t.elem = c.used.PushFront(t)
	for e := c.used.Back(); e != nil && len(c.tables) > c.room; {
		old := e.Value.(*l2Table)
		e = e.Prev()
		if !old.dirty && old != t {
			c.drop(old)
		}
	}
}

// drop forgets a table.
func (c *l2Cache) drop(t *l2Table) {
	delete(c.tables, t.at)
	c.used.Remove(t.elem)
}

// remove forgets the table at that place.
func (c *l2Cache) remove(at int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.tables[at]; t != nil {
		c.drop(t)
	}
}

// dirty returns the tables that must be written, and whether they are so many
// that it should be soon.
func (c *l2Cache) dirty() (all []*l2Table, full bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.tables {
		if t.dirty {
			all = append(all, t)
		}
	}
	return all, len(all) > c.room/2
}

// l2 returns the table for an entry of the L1 table, nil if there is none.
func (q *qcow2) l2(i int) (*l2Table, error) {
	at := q.l1[i] & entryOffset
	if at == 0 {
		return nil, nil
	}
	if err := q.checkTable("L2 table", at); err != nil {
		return nil, err
	}
	return q.l2s.get(int64(at), func(b []byte) error {
		_, err := q.f.ReadAt(b, int64(at))
		return err
	}, q.h.cluster())
}

// l2ForWrite returns the table, which only this disk uses: made if there is none,
// copied if a snapshot has it too.
func (q *qcow2) l2ForWrite(i int) (*l2Table, error) {
	old, err := q.l2(i)
	if err != nil || old != nil && q.l1[i]&entryCopied != 0 {
		return old, err
	}
	c, _, err := q.refs.alloc(1)
	if err != nil {
		return nil, err
	}
	t := &l2Table{b: make([]byte, q.h.cluster()), at: c << q.h.clusterBits}
	if old != nil {
		copy(t.b, old.b)
	}
	// Written at once, so that a full host shows now and not in a flush.
	if err := q.writeMeta(t.b, t.at); err != nil {
		return nil, errors.Join(err, q.refs.unalloc(c, 1))
	}
	t.dirty = true // until the flush that writes the L1 entry
	q.meta[c] = true
	q.l2s.add(t)
	if old != nil {
		q.pending = append(q.pending, old.at>>q.h.clusterBits)
		delete(q.meta, old.at>>q.h.clusterBits)
		q.l2s.remove(old.at)
	}
	q.l1[i] = uint64(t.at) | entryCopied
	q.l1Dirty[i] = true
	return t, nil
}
