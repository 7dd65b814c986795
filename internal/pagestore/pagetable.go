package pagestore

import (
	"sync/atomic"

	"github.com/tarndb/tarn/internal/layer"
)

// owner is the right to write page tables, chunks and directories in place:
// only what carries an index's present owner is its alone. A fork gives both
// sides new owners, so both copy before they write.
type owner struct{ _ byte }

// chunkPages is how many pages a chunk knows; it is a page table of a map in
// memory.
const chunkPages = layer.TablePages

// chunk is the part of a page table that is copied on write.
type chunk struct {
	owner *owner
	hot   atomic.Bool               // looked at since the last sweep
	refs  [chunkPages]atomic.Uint64 // pageRef
}

// slot is 64 pages of a file. What it is follows from its two words, of which
// a reader loads chunk first:
//
//	chunk  where
//	nil    0          holes
//	nil    ref        in a map; loaded on demand
//	set    ref        in a map, and in memory: may be dropped again
//	set    dirtyBit…  in memory only
//
// Slots change under node.write, but for dropping and loading what is in a
// map, which changes nothing that is visible.
type slot struct {
	chunk atomic.Pointer[chunk]
	where atomic.Uint64 // layer.TableRef, or with dirtyBit
}

const dirtyBit = 1 << 63

// pageTable is copied as a whole when its owner is not the index's, or when it
// must grow; otherwise its slots change in place.
type pageTable struct {
	owner *owner
	slots []slot
}

func (t *pageTable) copy(o *owner, size int) *pageTable {
	c := &pageTable{owner: o, slots: make([]slot, size)}
	if t != nil {
		for i := range t.slots {
			// Nobody changes t any more, but that a clean chunk may come or go.
			c.slots[i].chunk.Store(t.slots[i].chunk.Load())
			c.slots[i].where.Store(t.slots[i].where.Load())
		}
	}
	return c
}

// own gives the page table that o may change and that has so many slots. The
// caller holds n.write or is alone.
func (n *node) own(o *owner, need int) *pageTable {
	t := n.pages.Load()
	switch {
	case t == nil:
		t = t.copy(o, need)
	case need > len(t.slots):
		t = t.copy(o, max(need, len(t.slots)+len(t.slots)/4))
	case t.owner != o:
		t = t.copy(o, len(t.slots))
	default:
		return t
	}
	n.pages.Store(t)
	return t
}

// setPage makes r the newest version of a page and returns the one before. The
// page's table is in memory, see index.ready. The caller holds n.write or is
// alone.
func (n *node) setPage(o *owner, page uint32, r pageRef) pageRef {
	i := int(page / chunkPages)
	t := n.pages.Load()
	if r == 0 && (t == nil || i >= len(t.slots) || t.slots[i].where.Load() == 0) {
		return 0
	}
	if t == nil || i >= len(t.slots) || t.owner != o {
		t = n.own(o, i+1)
	}
	s := &t.slots[i]
	c := s.chunk.Load()
	if c == nil || c.owner != o {
		was := c
		c = &chunk{owner: o}
		switch {
		case was != nil:
			for j := range c.refs {
				c.refs[j].Store(was.refs[j].Load())
			}
		case s.where.Load() != 0:
			panic("pagestore: a page table that is not in memory is changed")
		}
		old := pageRef(c.refs[page%chunkPages].Load())
		c.refs[page%chunkPages].Store(uint64(r))
		s.chunk.Store(c)
		s.where.Store(s.where.Load() | dirtyBit)
		return old
	}
	if w := s.where.Load(); w&dirtyBit == 0 {
		s.where.Store(w | dirtyBit)
	}
	return pageRef(c.refs[page%chunkPages].Swap(uint64(r)))
}

// clearPages makes holes of the pages from first up to but not including end.
// Tables that are in the range in part are in memory. The caller holds n.write
// or is alone.
func (n *node) clearPages(o *owner, first, end uint64) {
	t := n.pages.Load()
	if t == nil {
		return
	}
	if first == 0 && end >= uint64(len(t.slots))*chunkPages {
		n.pages.Store(nil)
		return
	}
	end = min(end, uint64(len(t.slots))*chunkPages)
	for first < end {
		i := first / chunkPages
		next := min((i+1)*chunkPages, end)
		switch {
		case t.slots[i].where.Load() == 0:
		case next-first == chunkPages:
			t = n.own(o, len(t.slots))
			t.slots[i].where.Store(0)
			t.slots[i].chunk.Store(nil)
		default:
			for p := first; p < next; p++ {
				n.setPage(o, uint32(p), 0)
			}
			t = n.pages.Load()
		}
		first = next
	}
}

// page gives the newest version of a page. It takes no lock when the page's
// table is in memory.
func (ix *index) page(n *node, page uint32) (pageRef, error) {
	i := int(page / chunkPages)
	for {
		t := n.pages.Load()
		if t == nil || i >= len(t.slots) {
			return 0, nil
		}
		s := &t.slots[i]
		if c := s.chunk.Load(); c != nil {
			if !c.hot.Load() {
				c.hot.Store(true)
			}
			return pageRef(c.refs[page%chunkPages].Load()), nil
		}
		w := s.where.Load()
		if w == 0 {
			return 0, nil
		}
		if w&dirtyBit != 0 {
			continue // it came into memory meanwhile
		}
		c, err := ix.load(n, uint32(i), layer.TableRef(w))
		if err != nil {
			if n.pages.Load() != t || s.where.Load() != w {
				continue // it moved to another map, and the one it was in may be gone
			}
			return 0, err
		}
		// Keep it, unless a writer is at the file just now.
		if n.write.TryLock() {
			if n.pages.Load() == t && s.where.Load() == w && s.chunk.Load() == nil {
				s.chunk.Store(c)
				ix.cache.loaded.Add(1)
			}
			n.write.Unlock()
			ix.cache.trim()
		}
		return pageRef(c.refs[page%chunkPages].Load()), nil
	}
}

// inMemory gives the newest version of a page whose table is in memory.
func (n *node) inMemory(page uint32) pageRef {
	t := n.pages.Load()
	if t == nil || int(page/chunkPages) >= len(t.slots) {
		return 0
	}
	c := t.slots[page/chunkPages].chunk.Load()
	if c == nil {
		return 0
	}
	return pageRef(c.refs[page%chunkPages].Load())
}

// ready brings the tables of the pages from first up to but not including end
// into memory, so that any of those pages can be changed; tables that lie in
// the range as a whole only when whole says so. The caller holds n.write, and
// changes the pages before it lets go, or is alone.
func (ix *index) ready(n *node, first, end uint64, whole wholeTables) error {
	t := n.pages.Load()
	if t == nil {
		return nil
	}
	end = min(end, uint64(len(t.slots))*chunkPages)
	for first < end {
		i := first / chunkPages
		next := min((i+1)*chunkPages, end)
		s := &t.slots[i]
		if w := s.where.Load(); w != 0 && (next-first < chunkPages || whole == loadWhole) {
			if t.owner != ix.owner {
				// What others share, they may drop from memory.
				t = n.own(ix.owner, len(t.slots))
				s = &t.slots[i]
			}
			if s.chunk.Load() == nil {
				c, err := ix.load(n, uint32(i), layer.TableRef(w))
				if err != nil {
					return err
				}
				s.chunk.Store(c)
				ix.cache.loaded.Add(1)
			}
		}
		first = next
	}
	return nil
}

// wholeTables says what becomes of tables that lie in a range as a whole.
type wholeTables uint8

const (
	loadWhole wholeTables = iota
	skipWhole             // they will be dropped unread
)

// load reads a page table from its map.
func (ix *index) load(n *node, i uint32, r layer.TableRef) (*chunk, error) {
	var refs [chunkPages]uint64
	if err := ix.readTable(n.ino, i, r, &refs); err != nil {
		return nil, err
	}
	c := &chunk{}
	for j, ref := range refs {
		c.refs[j].Store(ref)
	}
	return c, nil
}
