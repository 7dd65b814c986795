package pagestore

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// readMap makes an index of a map: its files, names and where its page tables
// stand. Files without a name were of who had them open then, and are left
// out.
func (s *shelf) readMap(id tarn.TimelineID, number uint32, orphans orphanRule) (ix *index, h layer.MapHeader, err error) {
	err = s.mended(func() error {
		ix, h, err = s.readMapOnce(id, number, orphans)
		return err
	})
	return ix, h, err
}

func (s *shelf) readMapOnce(id tarn.TimelineID, number uint32, orphans orphanRule) (*index, layer.MapHeader, error) {
	m := newSegment(s.files, s.manifests.dir, layer.FileID{Timeline: id, Kind: layer.FileMap, Number: number})
	m.retain()
	defer m.release() // the index keeps its own hold
	f, err := m.open()
	if err != nil {
		return nil, layer.MapHeader{}, fmt.Errorf("read map: %w", err)
	}
	size, err := f.Size()
	if err != nil {
		return nil, layer.MapHeader{}, fmt.Errorf("read map: %w", err)
	}
	r, err := layer.OpenMap(f, m.path, size, id, number)
	if err != nil {
		return nil, layer.MapHeader{}, fmt.Errorf("read map: %w", err)
	}
	l := mapLoad{ix: newIndex(s.cache), store: s, self: m}
	l.ix.keep = orphans
	for err == nil && r.Next() {
		if e := l.entry(r.Entry()); e != nil {
			err = &layer.CorruptError{File: m.path, Offset: r.Offset(), Expected: "a map that fits together", Found: e.Error()}
		}
	}
	if err == nil {
		err = r.Err()
	}
	if err == nil {
		if e := l.check(); e != nil {
			err = &layer.CorruptError{File: m.path, Expected: "a map that fits together", Found: e.Error()}
		}
	}
	if err != nil {
		l.ix.release()
		return nil, layer.MapHeader{}, fmt.Errorf("read map: %w", err)
	}
	h := r.Header()
	l.ix.seq, l.ix.next = h.Seq, h.NextIno
	return l.ix, h, nil
}

// mapLoad builds an index entry by entry.
type mapLoad struct {
	ix    *index
	store *shelf
	self  *segment
	node  *node // of the entries that follow; nil when it is left out
}

func (l *mapLoad) entry(e *layer.MapEntry) error {
	switch e.Kind {
	case layer.EntryFile:
		return l.file(e)
	case layer.EntryInode:
		return l.inode(&e.Inode)
	case layer.EntryMark:
		l.ix.marks = append(l.ix.marks, tarn.Mark{Seq: e.MarkSeq, LSN: e.MarkLSN, Time: unixTime(uint64(e.MarkTime))})
		return nil
	}
	n := l.node
	if n == nil {
		return nil
	}
	if e.Kind == layer.EntryName {
		d := n.dir
		if d == nil {
			return fmt.Errorf("the name %q in inode %d, which is no directory", e.Name.Name, n.ino)
		}
		if last := len(d.order) - 1; last >= 0 && d.order[last].cookie >= e.Name.Cookie || e.Name.Cookie > d.next {
			return fmt.Errorf("the cookie %d of %q in directory %d out of order", e.Name.Cookie, e.Name.Name, n.ino)
		}
		if _, ok := d.names[e.Name.Name]; ok {
			return fmt.Errorf("%q in directory %d twice", e.Name.Name, n.ino)
		}
		d.names[e.Name.Name] = dirEntry{e.Name.Ino, e.Name.Cookie}
		d.order = append(d.order, dirName{e.Name.Cookie, e.Name.Name})
		return nil
	}
	need := int(e.First) + len(e.Tables)
	t := n.pages.Load()
	if t == nil || need > len(t.slots) {
		size := int((pagesIn(n.size.Load()) + chunkPages - 1) / chunkPages)
		t = t.copy(l.ix.owner, max(need, min(size, need+layer.MaxTableRun)))
		n.pages.Store(t)
	}
	for i, r := range e.Tables {
		t.slots[int(e.First)+i].where.Store(uint64(r))
	}
	return nil
}

func (l *mapLoad) file(e *layer.MapEntry) error {
	list, most := &l.ix.segs, maxSegments
	f := l.self
	if e.File.Kind == layer.FileMap {
		list, most = &l.ix.maps, layer.MaxMaps
	}
	if e.File != l.self.id {
		f = newSegment(l.store.files, l.store.manifests.dir, e.File)
	}
	if e.Slot >= most || e.Slot < len(*list.Load()) && (*list.Load())[e.Slot] != nil {
		return fmt.Errorf("slot %d of kind %d twice, or too high", e.Slot, e.File.Kind)
	}
	placeIn(list, e.Slot, f)
	return nil
}

// placeIn is setIn while nobody reads yet: it changes the list in place.
func placeIn(list *atomic.Pointer[[]*segment], slot int, s *segment) {
	l := *list.Load()
	if slot >= len(l) {
		l = append(l, make([]*segment, slot+1-len(l))...)
	}
	l[slot] = s
	s.retain()
	list.Store(&l)
}

func (l *mapLoad) inode(i *layer.MapInode) error {
	l.node = nil
	if i.Ino == 0 || l.ix.inodes.get(i.Ino) != nil || uint64(i.Ino) > maxInodes {
		return fmt.Errorf("inode %d, twice or out of range", i.Ino)
	}
	if i.Nlink == 0 && l.ix.keep == dropOrphans {
		return nil
	}
	n := &node{ino: i.Ino, target: i.Target}
	n.mode.Store(i.Mode)
	n.uid.Store(i.UID)
	n.gid.Store(i.GID)
	n.nlink.Store(i.Nlink)
	n.size.Store(i.Size)
	n.mtime.Store(i.Mtime)
	if i.Mode&unix.S_IFMT == unix.S_IFDIR {
		n.dir = &directory{owner: l.ix.owner, names: map[string]dirEntry{}, next: i.Cookie}
		n.parent = i.Parent
	}
	l.ix.inodes.put(n)
	l.node = n
	return nil
}

// maxInodes bounds what the table of inodes can be made to allocate.
const maxInodes = 1 << 40

// check checks that names lead to inodes and tables to maps.
func (l *mapLoad) check() error {
	if n := l.ix.inodes.get(layer.RootIno); n == nil || n.dir == nil {
		return fmt.Errorf("no root directory")
	}
	maps := *l.ix.maps.Load()
	for n := range l.ix.inodes.all() {
		if n.dir != nil {
			for name, e := range n.dir.names {
				if l.ix.inodes.get(e.ino) == nil {
					return fmt.Errorf("%q in directory %d is inode %d, which there is not", name, n.ino, e.ino)
				}
			}
		}
		t := n.pages.Load()
		if t == nil {
			continue
		}
		for i := range t.slots {
			if w := layer.TableRef(t.slots[i].where.Load()); w != 0 && (w.Slot() >= len(maps) || maps[w.Slot()] == nil) {
				return fmt.Errorf("page table %d of inode %d in map slot %d, which there is not", i, n.ino, w.Slot())
			}
		}
	}
	return nil
}
