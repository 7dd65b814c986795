package pagestore

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// apply makes one record visible; a running volume and a replay of its log
// both go through here, so that they cannot differ. ref is a page's place.
//
// A record that names a file which is gone says nothing: it was written
// through a descriptor of an unlinked file. A record that contradicts the
// names before it is an error, and a bug of ours.
func (ix *index) apply(r *layer.Record, ref pageRef) error {
	switch r.Kind {
	case layer.KindPage, layer.KindZero, layer.KindSize, layer.KindSetAttr, layer.KindCopy, layer.KindMove:
		n := ix.inodes.get(r.Ino)
		if n == nil {
			return nil
		}
		if r.Kind == layer.KindCopy && ix.inodes.get(r.From) == nil {
			return fmt.Errorf("copy from inode %d, which is gone", r.From)
		}
		if err := ix.prepare(n, r); err != nil {
			return &tableError{err}
		}
		if r.Kind == layer.KindMove {
			return applyMove(ix, n, r, ref)
		}
		ix.applyData(n, r, ref)
		return nil
	case layer.KindMark:
		ix.marks = thin(append(ix.marks, tarn.Mark{Seq: tarn.Seq(r.MarkSeq), LSN: tarn.LSN(r.MarkLSN), Time: unixTime(uint64(r.Time))}))
		return nil
	}
	ix.tree.Lock()
	defer ix.tree.Unlock()
	switch r.Kind {
	case layer.KindCreate:
		return ix.applyCreate(r)
	case layer.KindLink:
		n := ix.inodes.get(r.Ino)
		if n == nil {
			return fmt.Errorf("link inode %d, which is gone", r.Ino)
		}
		n.nlink.Add(1)
		return ix.addName(r.Parent, r.Name, n, r.Time)
	case layer.KindUnlink, layer.KindRmdir:
		n, err := ix.removeName(r.Parent, r.Name, r.Time)
		if err != nil {
			return err
		}
		ix.unlinked(n)
		return nil
	case layer.KindRename:
		return ix.applyRename(r)
	}
	return fmt.Errorf("apply a record of kind %d", r.Kind)
}

// tableError says that a page table could not be read, as against a record
// that does not fit.
type tableError struct{ error }

func (e *tableError) Unwrap() error { return e.error }

// prepare brings into memory the page tables that a record will change. The
// caller holds n.write or is alone.
func (ix *index) prepare(n *node, r *layer.Record) error {
	switch r.Kind {
	case layer.KindPage:
		return ix.ready(n, uint64(r.Page), uint64(r.Page)+1, loadWhole)
	case layer.KindMove:
		return ix.ready(n, uint64(r.Page), uint64(r.Page)+uint64(r.Count), loadWhole)
	case layer.KindZero:
		return ix.ready(n, uint64(r.Page), uint64(r.Page)+uint64(r.Count), skipWhole)
	case layer.KindCopy:
		if err := ix.ready(ix.inodes.get(r.From), uint64(r.FromPage), uint64(r.FromPage)+uint64(r.Count), loadWhole); err != nil {
			return err
		}
		return ix.ready(n, uint64(r.Page), uint64(r.Page)+uint64(r.Count), loadWhole)
	case layer.KindSetAttr:
		if r.Set.Has&layer.SetSize != 0 && r.Set.Size < n.size.Load() {
			first := pagesIn(r.Set.Size)
			return ix.ready(n, first, (first/chunkPages+1)*chunkPages, skipWhole)
		}
	}
	return nil
}

// pagesIn is how many pages a file of so many bytes has.
func pagesIn(size uint64) uint64 { return (size + layer.PageSize - 1) / layer.PageSize }

// applyData changes one file's pages, size or attributes, after prepare. The
// caller holds n.write or is alone.
func (ix *index) applyData(n *node, r *layer.Record, ref pageRef) {
	switch r.Kind {
	case layer.KindPage:
		ix.applyPage(n, r.Page, r.Used, r.Time, ref)
	case layer.KindZero:
		n.clearPages(ix.owner, uint64(r.Page), uint64(r.Page)+uint64(r.Count))
		ix.dead.Add(int64(r.Count) * layer.PageSize)
		n.grow(uint64(r.Page+r.Count-1)*layer.PageSize + uint64(r.Used))
		n.mtime.Store(r.Time)
	case layer.KindCopy:
		from := ix.inodes.get(r.From)
		for i := range r.Count {
			if n.setPage(ix.owner, r.Page+i, from.inMemory(r.FromPage+i)) != 0 {
				ix.dead.Add(layer.PageSize)
			}
		}
		n.grow(uint64(r.Page+r.Count-1)*layer.PageSize + uint64(r.Used))
		n.mtime.Store(r.Time)
	case layer.KindSize:
		n.grow(r.Size)
		n.mtime.Store(r.Time)
	case layer.KindSetAttr:
		s := &r.Set
		if s.Has&layer.SetMode != 0 {
			n.mode.Store(n.mode.Load()&unix.S_IFMT | s.Mode&^unix.S_IFMT)
		}
		if s.Has&layer.SetUID != 0 {
			n.uid.Store(s.UID)
		}
		if s.Has&layer.SetGID != 0 {
			n.gid.Store(s.GID)
		}
		if s.Has&layer.SetSize != 0 {
			old := n.size.Load()
			n.size.Store(s.Size)
			if s.Size < old {
				n.clearPages(ix.owner, pagesIn(s.Size), maxPages)
				ix.dead.Add(int64(old - s.Size))
			}
		}
		if s.Has&layer.SetMtime != 0 {
			n.mtime.Store(r.Time)
		}
	}
}

// applyMove gives pages their places in an image, of which ref is the first;
// what they show stays the same. After prepare; the caller holds n.write or is
// alone.
func applyMove(ix *index, n *node, r *layer.Record, ref pageRef) error {
	for i := range r.Count {
		old := n.inMemory(r.Page + i)
		if old == 0 {
			return fmt.Errorf("move page %d of inode %d, which is a hole", r.Page+i, n.ino)
		}
		n.setPage(ix.owner, r.Page+i, makeRef(ref.place()+place(i*layer.PageBlocks), old.crc()))
	}
	ix.dead.Add(int64(r.Count) * layer.PageSize)
	return nil
}

// applyPage makes ref the newest version of a page of n.
func (ix *index) applyPage(n *node, page, used uint32, at int64, ref pageRef) {
	if n.setPage(ix.owner, page, ref) != 0 {
		ix.dead.Add(layer.PageSize)
	}
	if page > 0 && n.inMemory(page-1).place()+layer.PageBlocks != ref.place() {
		ix.loose.Add(layer.PageSize)
	}
	n.grow(uint64(page)*layer.PageSize + uint64(used))
	n.mtime.Store(at)
}

func (ix *index) applyCreate(r *layer.Record) error {
	n := &node{ino: r.Ino, target: r.File.Target}
	n.mode.Store(r.File.Mode)
	n.uid.Store(r.File.UID)
	n.gid.Store(r.File.GID)
	n.mtime.Store(r.Time)
	n.size.Store(uint64(len(r.File.Target)))
	n.nlink.Store(1)
	if r.File.Mode&unix.S_IFMT == unix.S_IFDIR {
		n.nlink.Store(2)
		n.dir = &directory{owner: ix.owner, names: map[string]dirEntry{}}
		n.parent = r.Parent
	}
	if r.Parent != 0 { // the root has no name
		if err := ix.addName(r.Parent, r.Name, n, r.Time); err != nil {
			return err
		}
	}
	ix.inodes.put(n)
	ix.next = max(ix.next, r.Ino+1)
	return nil
}

func (ix *index) applyRename(r *layer.Record) error {
	if p := ix.inodes.get(r.NewParent); p != nil && p.dir != nil {
		if _, ok := p.dir.names[r.NewName]; ok {
			replaced, err := ix.removeName(r.NewParent, r.NewName, r.Time)
			if err != nil {
				return err
			}
			ix.unlinked(replaced)
		}
	}
	n, err := ix.removeName(r.Parent, r.Name, r.Time)
	if err != nil {
		return err
	}
	return ix.addName(r.NewParent, r.NewName, n, r.Time)
}

// addName and removeName keep the parent's link count and mtime; the child's
// count is the caller's.
func (ix *index) addName(parent layer.Ino, name string, n *node, at int64) error {
	p := ix.inodes.get(parent)
	if p == nil || p.dir == nil {
		return fmt.Errorf("add %q to inode %d, which is no directory", name, parent)
	}
	if _, ok := p.dir.names[name]; ok {
		return fmt.Errorf("add %q to directory %d twice", name, parent)
	}
	p.dir = p.dir.own(ix.owner)
	p.dir.add(name, n.ino)
	p.mtime.Store(at)
	if n.dir != nil {
		n.parent = parent
		p.nlink.Add(1)
	}
	return nil
}

func (ix *index) removeName(parent layer.Ino, name string, at int64) (*node, error) {
	p := ix.inodes.get(parent)
	if p == nil || p.dir == nil {
		return nil, fmt.Errorf("remove %q from inode %d, which is no directory", name, parent)
	}
	n := ix.inodes.get(p.dir.names[name].ino)
	if n == nil {
		return nil, fmt.Errorf("remove %q from directory %d, which does not hold it", name, parent)
	}
	p.dir = p.dir.own(ix.owner)
	p.dir.remove(name)
	p.mtime.Store(at)
	if n.dir != nil {
		p.nlink.Add(^uint32(0))
	}
	return n, nil
}

// unlinked takes one name off a file, and the file away with the last.
func (ix *index) unlinked(n *node) {
	if n.dir != nil {
		n.nlink.Store(0)
	} else if n.nlink.Add(^uint32(0)) != 0 {
		return
	}
	if n.nlink.Load() == 0 && n.dir == nil {
		ix.dead.Add(int64(n.size.Load()))
	}
	if n.nlink.Load() == 0 && ix.keep == dropOrphans {
		ix.inodes.remove(n.ino)
	}
}
