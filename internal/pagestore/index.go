package pagestore

import (
	"sync"
	"sync/atomic"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// pageRef says where the newest version of a page stands: checksum in the high
// half, place in the low half. 0 is a hole.
//
//	63            32 31          15 14       0
//	┌───────────────┬──────────────┬──────────┐
//	│ CRC32C        │ segment      │ block    │
//	└───────────────┴──────────────┴──────────┘
//
// segment counts in index.segs; block is never 0, where a segment has its
// header.
type pageRef uint64

// place is the low half of a pageRef: segment and block. Places of one index
// grow with seq.
type place uint32

const (
	blockBits   = 15 // 128 MiB of 4 KiB
	maxSegments = 1 << (32 - blockBits)
)

func makePlace(segment int, block uint32) place { return place(segment)<<blockBits + place(block) }
func makeRef(p place, crc uint32) pageRef       { return pageRef(crc)<<32 | pageRef(p) }
func (r pageRef) place() place                  { return place(r) }
func (r pageRef) crc() uint32                   { return uint32(r >> 32) }
func (p place) segment() int                    { return int(p >> blockBits) }
func (p place) block() uint32                   { return uint32(p) & (1<<blockBits - 1) }

// owner is the right to write chunks and directories in place: only what
// carries an index's present owner is its alone. A fork gives both sides new
// owners, so both copy before they write.
type owner struct{ _ byte }

const chunkPages = 256

// chunk is the part of a page table that is copied on write.
type chunk struct {
	owner *owner
	refs  [chunkPages]atomic.Uint64 // pageRef
}

// pageTable is replaced when it must grow; its slots change in place.
type pageTable []atomic.Pointer[chunk]

// node is one inode. Everything but write and dir is read without a lock.
type node struct {
	ino    layer.Ino
	target string // of a symbolic link

	mode  atomic.Uint32
	uid   atomic.Uint32
	gid   atomic.Uint32
	nlink atomic.Uint32
	size  atomic.Uint64 // bytes
	mtime atomic.Int64  // nanoseconds since 1970

	write sync.Mutex // order of changes of this file's pages, size and attributes
	pages atomic.Pointer[pageTable]

	dir    *directory // of a directory; guarded by index.tree
	parent layer.Ino  // of a directory; guarded by index.tree
}

func (n *node) attr() layer.Attr {
	return layer.Attr{Ino: n.ino, Mode: n.mode.Load(), UID: n.uid.Load(), GID: n.gid.Load(),
		Nlink: n.nlink.Load(), Size: n.size.Load(), Mtime: n.mtime.Load()}
}

// page gives the newest version of a page.
func (n *node) page(page uint32) pageRef {
	t := n.pages.Load()
	if t == nil || int(page/chunkPages) >= len(*t) {
		return 0
	}
	c := (*t)[page/chunkPages].Load()
	if c == nil {
		return 0
	}
	return pageRef(c.refs[page%chunkPages].Load())
}

// setPage makes r the newest version of a page. The caller holds n.write or is
// alone.
func (n *node) setPage(o *owner, page uint32, r pageRef) {
	i := int(page / chunkPages)
	t := n.pages.Load()
	if t == nil || i >= len(*t) {
		if r == 0 {
			return
		}
		t = n.growTable(i + 1)
	}
	slot := &(*t)[i]
	c := slot.Load()
	switch {
	case c == nil && r == 0:
		return
	case c == nil:
		c = &chunk{owner: o}
		c.refs[page%chunkPages].Store(uint64(r))
		slot.Store(c)
		return
	case c.owner != o:
		own := &chunk{owner: o}
		for j := range c.refs {
			own.refs[j].Store(c.refs[j].Load())
		}
		own.refs[page%chunkPages].Store(uint64(r))
		slot.Store(own)
		return
	}
	c.refs[page%chunkPages].Store(uint64(r))
}

func (n *node) growTable(need int) *pageTable {
	old := n.pages.Load()
	size := need
	if old != nil {
		size = max(need, len(*old)+len(*old)/4)
	}
	t := make(pageTable, size)
	if old != nil {
		for i := range *old {
			t[i].Store((*old)[i].Load())
		}
	}
	n.pages.Store(&t)
	return &t
}

// cutPages drops every page from first on.
func (n *node) cutPages(o *owner, first uint64) {
	t := n.pages.Load()
	if t == nil {
		return
	}
	for i := int(min(first/chunkPages, uint64(len(*t)))); i < len(*t); i++ {
		c := (*t)[i].Load()
		if c == nil {
			continue
		}
		base := uint64(i) * chunkPages
		if base >= first {
			(*t)[i].Store(nil)
			continue
		}
		for j := first - base; j < chunkPages; j++ {
			if pageRef(c.refs[j].Load()) != 0 {
				n.setPage(o, uint32(base+j), 0)
			}
		}
	}
	if first == 0 {
		n.pages.Store(nil)
	}
}

// grow makes the file at least size bytes long.
func (n *node) grow(size uint64) {
	if size > n.size.Load() {
		n.size.Store(size)
	}
}

// index is everything visible at one point of a timeline.
type index struct {
	owner  *owner
	inodes inodeTable
	next   layer.Ino // the next new inode
	seq    tarn.Seq  // records applied; while a volume is open its log knows better
	marks  []tarn.Mark
	segs   atomic.Pointer[[]*segment] // the line's segments, ancestors' first

	// keep says what becomes of a file without a name: a live index keeps it
	// until Forget, a replay drops it.
	keep orphanRule

	// tree guards the contents of directories. Never held across I/O.
	tree sync.RWMutex
}

type orphanRule uint8

const (
	dropOrphans orphanRule = iota
	keepOrphans
)

func newIndex() *index {
	ix := &index{owner: new(owner), next: layer.RootIno}
	ix.segs.Store(&[]*segment{})
	return ix
}

// clone copies the index as it stands. The two share chunks and directories
// and copy them before they write. Files without a name and marks are left out,
// since the copy is for another timeline. The
// caller keeps every writer away; readers may go on. It costs a node per file
// and a pointer per chunk.
func (ix *index) clone() *index {
	c := &index{owner: new(owner), next: ix.next, seq: ix.seq}
	segs := *ix.segs.Load()
	segs = segs[:len(segs):len(segs)]
	c.segs.Store(&segs)
	for _, s := range segs {
		s.retain()
	}
	ix.owner = new(owner)
	ix.tree.RLock()
	defer ix.tree.RUnlock()
	for n := range ix.inodes.all() {
		if n.nlink.Load() == 0 {
			continue
		}
		m := &node{ino: n.ino, target: n.target, dir: n.dir, parent: n.parent}
		m.mode.Store(n.mode.Load())
		m.uid.Store(n.uid.Load())
		m.gid.Store(n.gid.Load())
		m.nlink.Store(n.nlink.Load())
		m.size.Store(n.size.Load())
		m.mtime.Store(n.mtime.Load())
		if t := n.pages.Load(); t != nil {
			own := make(pageTable, len(*t))
			for i := range *t {
				own[i].Store((*t)[i].Load())
			}
			m.pages.Store(&own)
		}
		c.inodes.put(m)
	}
	return c
}

// release lets go of the segments; the index must not be used afterwards.
func (ix *index) release() {
	for _, s := range *ix.segs.Load() {
		s.release()
	}
}

// addSegment puts a segment at the end of the line and returns its number there.
func (ix *index) addSegment(s *segment) int {
	old := *ix.segs.Load()
	segs := append(old[:len(old):len(old)], s)
	s.retain()
	ix.segs.Store(&segs)
	return len(old)
}

// dropNameless forgets every file that has no name.
func (ix *index) dropNameless() {
	for n := range ix.inodes.all() {
		if n.nlink.Load() == 0 {
			ix.inodes.remove(n.ino)
		}
	}
}
