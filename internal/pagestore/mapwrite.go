package pagestore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/tarndb/tarn/internal/layer"
)

// mapping is a map that is being written: of an index that nobody changes,
// while the volume it was copied from goes on.
type mapping struct {
	store *shelf
	of    *timeline
	ix    *index
	at    position // of the log, behind the index's seq
	maps  []layerFile

	file   *segment
	slot   int
	words  map[layer.Ino][]layer.TableRef // where every table stands now
	used   []bool                         // by slot: maps that hold one of them
	header layer.MapHeader
	info   layerFile
}

// newMapping prepares to write a map of ix. The caller sees to it that the log
// up to ix.seq is on disk, and that nobody else writes a map of the timeline.
func (s *shelf) newMapping(t *timeline, ix *index, at position) *mapping {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &mapping{store: s, of: t, ix: ix, at: at, maps: t.man.maps(), words: map[layer.Ino][]layer.TableRef{}}
	number := t.nextMap
	for _, o := range m.maps {
		number = max(number, o.Number+1)
	}
	number = max(number, t.man.Counted.Map+1)
	t.nextMap = number + 1
	m.file = newSegment(s.files, s.manifests.dir, layer.FileID{Timeline: t.id, Kind: layer.FileMap, Number: number})
	return m
}

// extent says which tables a map holds.
type extent uint8

const (
	changedTables extent = iota // those that no other map has
	allTables
)

// extent decides what the map holds: everything again when what the maps since
// the last such one hold together is half as much. Then writing maps costs in
// proportion to what changes, and so do the maps on disk.
func (m *mapping) extent() extent {
	var all, since int64
	for n := range m.ix.inodes.all() {
		t := n.pages.Load()
		if t == nil {
			continue
		}
		for i := range t.slots {
			switch w := t.slots[i].where.Load(); {
			case w == 0:
			case w&dirtyBit != 0:
				all += chunkPages * 8
				since += chunkPages * 8
			default:
				all += layer.TableRef(w).Bytes()
			}
		}
	}
	if len(m.maps) == 0 && m.of.parent.Timeline == "" {
		return allTables
	}
	for _, o := range slices.Backward(m.maps) {
		if o.Generation == o.Number {
			break
		}
		since += o.Bytes
	}
	if since > all/2 {
		return allTables
	}
	return changedTables
}

// write writes the map's file and syncs it. It is in use when the manifest
// lists it; until then a crash leaves litter.
func (m *mapping) write(ctx context.Context) (err error) {
	f, err := m.store.files.Open(m.file.path, createNew)
	if err != nil {
		return fmt.Errorf("write map: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = fmt.Errorf("write map %s: %w", m.file.path, errors.Join(err, ignoreMissing(m.store.files.Remove(m.file.path))))
		}
	}()
	m.slot = m.ix.addMap(m.file)
	w, err := layer.NewMapWriter(&flowing{file: f}, m.of.id, m.file.id.Number, m.slot)
	if err != nil {
		return err
	}
	ext := m.extent()
	for n := range m.ix.inodes.all() {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := m.tables(w, n, ext); err != nil {
			return err
		}
	}
	if err := m.catalog(w); err != nil {
		return err
	}
	h := layer.MapHeader{Seq: m.ix.seq, Segment: m.at.segment, Block: m.at.block, NextIno: m.ix.next}
	if ext == allTables {
		h.Generation = m.file.id.Number
	} else if len(m.maps) > 0 {
		h.Generation = m.maps[len(m.maps)-1].Generation
	}
	var size int64
	if m.header, size, err = w.Finish(h); err != nil {
		return err
	}
	m.info = layerFile{Kind: layer.FileMap, Number: m.header.Number, First: m.ix.seq, Last: m.ix.seq, Bytes: size, Generation: h.Generation}
	if err := f.Sync(); err != nil {
		return err
	}
	return m.store.files.SyncDir(filepath.Dir(m.file.path))
}

// flowing tells the kernel to start writing what it gets, so that the sync at
// the end is short and does not hold up those of the log.
type flowing struct {
	file
	from int64
}

func (f *flowing) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.file.WriteAt(p, off)
	if end := off + int64(n); err == nil && end-f.from >= writebackBytes {
		err = f.file.StartWriteback(f.from, end-f.from)
		f.from = end
	}
	return n, err
}

// tables writes the tables of one file that belong into the map, and notes
// where all of them stand.
func (m *mapping) tables(w *layer.MapWriter, n *node, ext extent) error {
	t := n.pages.Load()
	if t == nil {
		return nil
	}
	words := make([]layer.TableRef, len(t.slots))
	used := 0
	for i := range t.slots {
		s := &t.slots[i]
		where, c := s.where.Load(), s.chunk.Load()
		if where == 0 {
			continue
		}
		words[i] = layer.TableRef(where)
		if where&dirtyBit != 0 || ext == allTables {
			var refs [chunkPages]uint64
			if c != nil {
				for j := range refs {
					refs[j] = c.refs[j].Load()
				}
			} else if err := m.ix.readTable(n.ino, uint32(i), layer.TableRef(where), &refs); err != nil {
				return err
			}
			r, err := w.Table(n.ino, uint32(i), &refs)
			if err != nil {
				return err
			}
			words[i] = r
		}
		if words[i] != 0 {
			used = i + 1
		}
	}
	m.words[n.ino] = words[:used]
	return nil
}

// catalog writes everything else.
func (m *mapping) catalog(w *layer.MapWriter) error {
	m.used = m.uses()
	for slot, f := range *m.ix.segs.Load() {
		if f != nil {
			if err := w.File(slot, f.id); err != nil {
				return err
			}
		}
	}
	for slot, f := range *m.ix.maps.Load() {
		if f != nil && m.used[slot] {
			if err := w.File(slot, f.id); err != nil {
				return err
			}
		}
	}
	m.ix.tree.RLock()
	defer m.ix.tree.RUnlock()
	for n := range m.ix.inodes.all() {
		i := layer.MapInode{Attr: n.attr(), Target: n.target, Parent: n.parent}
		if n.dir != nil {
			i.Cookie = n.dir.next
		}
		if err := w.Inode(&i); err != nil {
			return err
		}
		if n.dir != nil {
			for _, d := range n.dir.order {
				if err := w.Name(d.name, n.dir.names[d.name].ino, d.cookie); err != nil {
					return err
				}
			}
		}
		words := m.words[n.ino]
		for first := 0; first < len(words); first += layer.MaxTableRun {
			if err := w.Tables(uint32(first), words[first:min(first+layer.MaxTableRun, len(words))]); err != nil {
				return err
			}
		}
	}
	for _, k := range m.ix.marks {
		if err := w.Mark(k.Seq, k.LSN, int64(nanos(k.Time))); err != nil {
			return err
		}
	}
	return nil
}

// uses says which maps hold a table of this one; itself does.
func (m *mapping) uses() []bool {
	used := make([]bool, len(*m.ix.maps.Load()))
	used[m.slot] = true
	for _, words := range m.words {
		for _, w := range words {
			if w != 0 {
				used[w.Slot()] = true
			}
		}
	}
	return used
}

// list adds the map to a manifest, and the maps of ancestors that it needs.
func (m *mapping) list(man *manifest) {
	man.Layers = append(slices.Clone(man.Layers), m.info)
	man.Counted.Map = max(man.Counted.Map, m.info.Number)
	man.Foreign = slices.Clone(man.Foreign)
	for slot, f := range *m.ix.maps.Load() {
		if f != nil && m.used[slot] && f.id.Timeline != m.of.id && !slices.Contains(man.Foreign, f.id) {
			man.Foreign = append(man.Foreign, f.id)
		}
	}
}

// install tells the live index where the tables stand now that did not change
// since the copy was made; those can leave memory. The caller holds freeze
// shared or is alone.
func (m *mapping) install(live *index) {
	live.setMap(m.slot, m.file)
	for n := range live.inodes.all() {
		words := m.words[n.ino]
		was := m.ix.inodes.get(n.ino)
		if was == nil || was.pages.Load() == nil {
			continue
		}
		n.write.Lock()
		n.move(live.owner, was.pages.Load(), words)
		n.write.Unlock()
	}
	for slot, f := range *live.maps.Load() {
		if f != nil && (slot >= len(m.used) || !m.used[slot]) {
			live.setMap(slot, nil)
		}
	}
	live.behind.Add(-m.ix.behind.Load())
}

// move gives the tables that are still those of was their new places. The
// caller holds n.write.
func (n *node) move(o *owner, was *pageTable, words []layer.TableRef) {
	t := n.pages.Load()
	if t == nil {
		return
	}
	moved := int64(0)
	for i := range min(len(t.slots), len(was.slots)) {
		w, before := t.slots[i].where.Load(), was.slots[i].where.Load()
		c := t.slots[i].chunk.Load()
		same := w == before && w&dirtyBit == 0 || c != nil && c == was.slots[i].chunk.Load()
		next := layer.TableRef(0)
		if i < len(words) {
			next = words[i]
		}
		if !same || uint64(next) == w {
			continue
		}
		if t.owner != o {
			t = n.own(o, len(t.slots))
		}
		t.slots[i].where.Store(uint64(next))
		if next == 0 {
			t.slots[i].chunk.Store(nil)
		} else if c != nil && w&dirtyBit != 0 {
			moved++
		}
	}
}

// mapVolume writes a map of an open volume while it goes on.
//
//  1. copy the index in memory, at the end of a batch   crash: nothing
//  2. sync the log up to there                          crash: nothing
//  3. write the map and sync it                         crash: litter
//  4. list it in the manifest                           crash: either
//  5. tell the volume's index where its tables are
//
// It is not done when the volume was closed meanwhile.
func (s *shelf) mapVolume(ctx context.Context, v *Volume) error {
	v.mapping.Lock()
	defer v.mapping.Unlock()
	ix, at, err := v.snapshot(forMap)
	if err != nil {
		return err
	}
	defer ix.release()
	if err := v.log.sync(); err != nil {
		return fmt.Errorf("map timeline %s: %w", v.of.id, err)
	}
	m := s.newMapping(v.of, ix, at)
	if err := m.write(ctx); err != nil {
		return fmt.Errorf("map timeline %s: %w", v.of.id, err)
	}
	installed := false
	err = s.whileOpen(ctx, v, func() error {
		if err := s.amend(v.of, m.list); err != nil {
			return err
		}
		installed = true
		v.freeze.RLock()
		defer v.freeze.RUnlock()
		m.install(v.ix)
		return nil
	})
	if !installed {
		err = errors.Join(err, ignoreMissing(s.files.Remove(m.file.path)))
	}
	if err != nil {
		return fmt.Errorf("map timeline %s: %w", v.of.id, err)
	}
	s.cache.loaded.Add(int64(m.header.Tables))
	s.cache.trim()
	s.slog.Debug("map written", "timeline", v.of.id, "seq", ix.seq, "count", m.header.Tables)
	return nil
}

// whileOpen does something with the turn of a volume's timeline unless the
// volume was closed.
func (s *shelf) whileOpen(ctx context.Context, v *Volume, do func() error) error {
	if err := s.wait(ctx, v.of); err != nil {
		return err
	}
	defer v.of.pass()
	if v.closed.Load() {
		return errClosed
	}
	return do()
}

// amend replaces a timeline's manifest by one that differs from it. change
// must not write into the lists of the one it gets. The caller has the turn.
func (s *shelf) amend(t *timeline, change func(*manifest)) error {
	s.mu.Lock()
	man := *t.man
	s.mu.Unlock()
	epoch := man.Epoch
	change(&man)
	if err := s.manifests.replace(&man, epoch); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.man = &man
	return nil
}

// putClosed writes a manifest that says where a log ends, with a map of ix when
// there is one. The caller has the turn and nobody appends.
func (s *shelf) putClosed(t *timeline, ix *index, e end, m *mapping) error {
	return s.amend(t, func(man *manifest) {
		man.Closed = closed{Head: e.seq, Bytes: e.bytes(), Marks: slices.Clone(ix.marks)}
		if e.last != nil {
			man.Closed.Segment = e.last.id.Number
		}
		s.count(t, man, ix)
		s.mu.Lock()
		man.Dead = t.dead + ix.dead.Load()
		man.Loose = t.loose + ix.loose.Load()
		s.mu.Unlock()
		if m != nil {
			m.list(man)
		}
	})
}

// count lists the segments of a timeline's log that its index knows and the
// manifest does not. Nobody appends.
func (s *shelf) count(t *timeline, man *manifest, ix *index) {
	man.Layers = slices.Clone(man.Layers)
	for _, f := range *ix.segs.Load() {
		if f == nil || f.id.Timeline != t.id || f.id.Kind != layer.FileLog || f.id.Number <= man.Counted.Log {
			continue
		}
		l := layerFile{Kind: layer.FileLog, Number: f.id.Number}
		if o, err := f.open(); err == nil {
			l.Bytes, _ = o.Size()
		}
		man.Layers = append(man.Layers, l)
	}
	for _, l := range man.Layers {
		if l.Kind == layer.FileLog {
			man.Counted.Log = max(man.Counted.Log, l.Number)
		}
	}
}

// mapWorth is how much log is worth a map when a volume is closed: reading the
// heads of so much takes about as long as writing one.
const mapWorth = 4 << 20

// mapClosed writes a map of a volume's index when it was closed and that is
// worth it. nil without one.
func (s *shelf) mapClosed(t *timeline, ix *index, e end) *mapping {
	if ix.behind.Load() < min(mapWorth, s.options.MapBytes) {
		return nil
	}
	at := position{}
	if e.last != nil {
		at = position{e.last.id.Number, e.block}
	}
	m := s.newMapping(t, ix, at)
	if err := m.write(context.Background()); err != nil {
		s.slog.Warn("write map", "timeline", t.id, "err", err) // the log tells the same, only slower
		return nil
	}
	return m
}
