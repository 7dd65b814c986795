package pagestore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tarndb/tarn/internal/layer"
)

// rebuilder makes damaged page tables anew.
type rebuilder struct{ *shelf }

// rebuild makes a damaged page table anew: from an older map of its timeline, or
// from where that began, and the log up to the map that it stands in. The log
// between the newest map and the one before is always kept. What comes out must
// be what was written, by the table's checksum, and takes the place of the damage.
// Any error means that this cannot be done.
func (s rebuilder) rebuild(ix *index, m *segment, r layer.TableRef, ino layer.Ino, i uint32, refs *[chunkPages]uint64) error {
	s.mu.Lock()
	var man *manifest
	t := s.timelines[m.id.Timeline]
	if t != nil {
		man = t.man
	}
	s.mu.Unlock()
	if man == nil {
		return fmt.Errorf("timeline %s does not exist", m.id.Timeline)
	}
	maps := man.maps()
	k := slices.IndexFunc(maps, func(l layerFile) bool { return l.Number == m.id.Number })
	if k < 0 {
		return fmt.Errorf("map %d of timeline %s is not listed", m.id.Number, t.id)
	}
	var all error
	for b := k - 1; b >= -1; b-- {
		base := layerFile{}
		if b >= 0 {
			base = maps[b]
		}
		if man.Rewound != 0 && base.Last < man.Rewound && maps[k].Last >= man.Rewound {
			return errors.Join(all, fmt.Errorf("the timeline was rewound at seq %d", man.Rewound))
		}
		found, err := s.tableFrom(t, man, base, maps[k], ino, i)
		if err != nil {
			all = errors.Join(all, err)
			continue
		}
		if err = found.translate(ix, refs); err == nil {
			err = s.putTable(m, r, ino, i, refs)
		}
		if err == nil {
			s.slog.Warn("page table rebuilt", "timeline", t.id, "path", m.path, "seq", maps[k].Last)
			return nil
		}
		all = errors.Join(all, err)
	}
	return all
}

// foundTable is a page table as another index has it.
type foundTable struct {
	refs  [chunkPages]pageRef
	files [chunkPages]layer.FileID
}

// tableFrom reads the log from a map on, 0 = from the beginning of the timeline,
// up to another, and gives a table as it is there.
func (s rebuilder) tableFrom(t *timeline, man *manifest, base, to layerFile, ino layer.Ino, i uint32) (*foundTable, error) {
	ctx, cancel := context.WithTimeout(context.Background(), remoteTimeout)
	defer cancel()
	segments, err := s.ownSegments(t)
	if err != nil {
		return nil, err
	}
	var ix *index
	from := position{}
	switch {
	case base.Number != 0:
		var h layer.MapHeader
		if ix, h, err = s.readMapOnce(t.id, base.Number, keepOrphans); err == nil {
			from = position{h.Segment, h.Block}
		}
	case t.parent.Timeline != "":
		ix, err = s.indexAt(ctx, t.parent)
	default:
		ix = newIndex(s.cache)
	}
	if err != nil {
		return nil, err
	}
	defer ix.release()
	ix.keep = keepOrphans
	r := replay{store: s.shelf, of: t, man: man, ix: ix, segments: segments, from: from, upTo: to.Last, floor: to.Last, clean: true}
	if ix.seq < to.Last {
		if err := r.run(ctx); err != nil {
			return nil, err
		}
	}
	n := ix.inodes.get(ino)
	if n == nil {
		return nil, fmt.Errorf("no inode %d at seq %d", ino, to.Last)
	}
	f := &foundTable{}
	for j := range f.refs {
		if f.refs[j], err = ix.page(n, i*chunkPages+uint32(j)); err != nil {
			return nil, err
		}
		if seg := ix.segment(f.refs[j].place()); seg != nil {
			f.files[j] = seg.id
		}
	}
	return f, nil
}

// translate gives a table with the slots that an index has for its files.
func (f *foundTable) translate(ix *index, refs *[chunkPages]uint64) error {
	segs := *ix.segs.Load()
	for j, ref := range f.refs {
		refs[j] = 0
		if ref == 0 {
			continue
		}
		slot := slices.IndexFunc(segs, func(o *segment) bool { return o != nil && o.id == f.files[j] })
		if slot < 0 {
			return fmt.Errorf("%s of timeline %s: %w", fileName(f.files[j].Kind, f.files[j].Number), f.files[j].Timeline, errNoFile)
		}
		refs[j] = uint64(makeRef(makePlace(slot, ref.place().block()), ref.crc()))
	}
	return nil
}

// putTable compares a table with the damaged one and writes it in its place. One
// of which the checksum is not what stands there is no other than the damaged one
// only if that differs in nothing else.
func (s rebuilder) putTable(m *segment, r layer.TableRef, ino layer.Ino, i uint32, refs *[chunkPages]uint64) error {
	good := layer.EncodeTable(ino, i, refs)
	f, err := m.open()
	if err != nil {
		return err
	}
	bad := make([]byte, r.Bytes())
	if n, err := f.ReadAt(bad, r.Offset()); n < len(bad) {
		return fmt.Errorf("read %s at byte %d: %w", m.path, r.Offset(), err)
	}
	if !layer.SameTable(bad, good) {
		return fmt.Errorf("%s at byte %d: what the log says is another table", m.path, r.Offset())
	}
	if onlyInBucket(f) {
		return nil
	}
	if _, err := f.WriteAt(good, r.Offset()); err != nil {
		s.slog.Warn("write page table", "path", m.path, "err", err) // it is good in memory
	}
	return nil
}
