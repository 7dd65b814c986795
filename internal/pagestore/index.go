package pagestore

import (
	"slices"
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
// segment is a slot of index.segs; block is never 0, where a segment has its
// header.
type pageRef uint64

// place is the low half of a pageRef: segment and block.
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

// node is one inode. Everything but write, dir and parent is read without a
// lock.
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
	cache  *tableCache

	// The files of the line that pages and tables stand in, ancestors' too. A
	// file keeps its slot; that of one that is gone is given to another. The
	// tables of a map are read with the slots of the map, or with ones that
	// went on from those.
	segs  atomic.Pointer[[]*segment]
	maps  atomic.Pointer[[]*segment]
	files sync.Mutex // order of changes of segs and maps; never held across I/O

	// behind is how many bytes of log an index has that no map holds; dead is
	// about how many bytes nobody sees at its seq who saw them before; loose is
	// about how many bytes of pages were written elsewhere than behind the page
	// before them in their file.
	behind atomic.Int64
	dead   atomic.Int64
	loose  atomic.Int64

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

// newIndex makes an empty index; release ends it.
func newIndex(cache *tableCache) *index {
	ix := &index{owner: new(owner), next: layer.RootIno, cache: cache}
	ix.segs.Store(&[]*segment{})
	ix.maps.Store(&[]*segment{})
	cache.add(ix)
	return ix
}

// clone copies the index as it stands, for another timeline: without files
// that have no name, and without marks. The caller keeps every writer away;
// readers may go on. It costs a node per file.
func (ix *index) clone() *index { return ix.copy(dropOrphans) }

// snapshot copies the index as it stands, all of it.
func (ix *index) snapshot() *index {
	c := ix.copy(keepOrphans)
	c.marks = slices.Clone(ix.marks)
	return c
}

// copy makes an index that shares page tables and directories with ix; both
// copy them before they write.
func (ix *index) copy(orphans orphanRule) *index {
	c := newIndex(ix.cache)
	c.next, c.seq = ix.next, ix.seq
	c.behind.Store(ix.behind.Load())
	for _, s := range []struct{ from, to *atomic.Pointer[[]*segment] }{{&ix.segs, &c.segs}, {&ix.maps, &c.maps}} {
		list := slices.Clone(*s.from.Load())
		s.to.Store(&list)
		for _, f := range list {
			if f != nil {
				f.retain()
			}
		}
	}
	ix.owner = new(owner)
	ix.tree.RLock()
	defer ix.tree.RUnlock()
	for n := range ix.inodes.all() {
		if n.nlink.Load() == 0 && orphans == dropOrphans {
			continue
		}
		m := &node{ino: n.ino, target: n.target, dir: n.dir, parent: n.parent}
		m.mode.Store(n.mode.Load())
		m.uid.Store(n.uid.Load())
		m.gid.Store(n.gid.Load())
		m.nlink.Store(n.nlink.Load())
		m.size.Store(n.size.Load())
		m.mtime.Store(n.mtime.Load())
		m.pages.Store(n.pages.Load())
		c.inodes.put(m)
	}
	return c
}

// release lets go of the files; the index must not be used afterwards.
func (ix *index) release() {
	ix.cache.remove(ix)
	for _, list := range []*[]*segment{ix.segs.Load(), ix.maps.Load()} {
		for _, s := range *list {
			if s != nil {
				s.release()
			}
		}
	}
}

// addSegment gives a file of pages a slot, the one it has or a free one, and
// returns it.
func (ix *index) addSegment(s *segment) int { return ix.addTo(&ix.segs, s) }

// addMap is addSegment for maps.
func (ix *index) addMap(s *segment) int { return ix.addTo(&ix.maps, s) }

func (ix *index) addTo(list *atomic.Pointer[[]*segment], s *segment) int {
	ix.files.Lock()
	defer ix.files.Unlock()
	old := *list.Load()
	free := len(old)
	for i, o := range old {
		if o != nil && o.id == s.id {
			return i
		}
		if o == nil && i < free {
			free = i
		}
	}
	setIn(list, free, s)
	return free
}

// setMap puts a map, or nil, into a slot.
func (ix *index) setMap(slot int, s *segment) {
	ix.files.Lock()
	defer ix.files.Unlock()
	setIn(&ix.maps, slot, s)
}

// forget gives up the slots of files that are gone.
func (ix *index) forget(gone map[layer.FileID]bool) {
	ix.files.Lock()
	defer ix.files.Unlock()
	for _, list := range []*atomic.Pointer[[]*segment]{&ix.segs, &ix.maps} {
		for slot, f := range *list.Load() {
			if f != nil && gone[f.id] {
				setIn(list, slot, nil)
			}
		}
	}
}

// setIn puts a file, or nil, into a slot. The caller holds files.
func setIn(list *atomic.Pointer[[]*segment], slot int, s *segment) {
	old := *list.Load()
	next := make([]*segment, max(len(old), slot+1))
	copy(next, old)
	if was := next[slot]; was != nil {
		defer was.release()
	}
	next[slot] = s
	if s != nil {
		s.retain()
	}
	list.Store(&next)
}

// segment gives the file that a page stands in; nil when there is none.
func (ix *index) segment(p place) *segment {
	segs := *ix.segs.Load()
	if p.segment() >= len(segs) {
		return nil
	}
	return segs[p.segment()]
}

// dropNameless forgets every file that has no name, but for those held.
func (ix *index) dropNameless(held ...layer.Ino) {
	keep := make(map[layer.Ino]bool, len(held))
	for _, ino := range held {
		keep[ino] = true
	}
	for n := range ix.inodes.all() {
		if n.nlink.Load() == 0 && !keep[n.ino] {
			ix.inodes.remove(n.ino)
		}
	}
}
