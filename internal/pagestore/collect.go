package pagestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// collection gives back what nobody can see any more of one timeline's own
// files. It decides by marking: everything that is visible from a retained
// point is marked page by page, and the rest goes.
//
// Retained are the head, the seqs at which other timelines begin, and the
// marks of the window (retained). Only what stands before the newest map is
// looked at: the log behind it is what recovery reads.
type collection struct {
	store *Store
	of    *timeline
	pace  *pace

	man   *manifest // as it was when the points were fixed
	ghost bool
	head  *index // at the head; nil of a ghost
	at    []tarn.Seq
	limit position // blocks of the log before it can go

	blocks map[layer.FileID]*bitmap  // of own segments and images: kept
	tables map[layer.FileID]*offsets // of own maps: offsets of tables that were visited
	maps   map[layer.FileID]bool     // own: needed
	freed  int64

	// page, when set, is called once for every own page that is visible.
	page  func(ix *index, n *node, page uint32, ref pageRef) error
	bad   func(error) error // what becomes of a table that cannot be read; nil = it ends there
	heads int64
	// orphans says whether files without a name are visible at a point: a mount
	// that is handed over may have them open.
	orphans orphanRule
}

// bitmap is the blocks of a segment.
type bitmap [1 << blockBits / 64]uint64

func (b *bitmap) set(block uint32)      { b[block/64] |= 1 << (block % 64) }
func (b *bitmap) get(block uint32) bool { return b[block/64]&(1<<(block%64)) != 0 }

func (b *bitmap) count() (n int64) {
	if b == nil {
		return 0
	}
	for _, w := range b {
		for ; w != 0; w &= w - 1 {
			n++
		}
	}
	return n
}

// offsets is a set of places of tables in a map. No two are nearer than 16
// bytes.
type offsets []uint64

// add reports whether an offset is new.
func (o *offsets) add(at int64) bool {
	i := at / 16
	for int(i/64) >= len(*o) {
		*o = append(*o, make([]uint64, max(1024, len(*o)/4))...)
	}
	is := (*o)[i/64]&(1<<(i%64)) != 0
	(*o)[i/64] |= 1 << (i % 64)
	return !is
}

// collect collects one timeline.
//
//  1. a map of the head, unless there is a new one    crash: see mapVolume
//  2. fix what is retained; a manifest that says so   crash: either. After it
//     nothing else can be forked or marked
//  3. mark                                            crash: nothing
//  4. a manifest without the files that go            crash: litter
//  5. remove those, punch holes into others           crash: the next
//     collection does it
//
// Readers that hold the place of a page overwritten meanwhile may find a hole:
// they look the page up again. One collection runs at a time.
func (s *Store) collect(ctx context.Context, t *timeline) (freed int64, err error) {
	select {
	case s.collecting <- struct{}{}:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	defer func() { <-s.collecting }()
	if l := t.remote; l != nil {
		select {
		case l.tend <- struct{}{}:
			defer func() { <-l.tend }()
		default:
			return 0, nil // being uploaded; the next round comes
		}
		if !l.writable() {
			return 0, nil
		}
	}
	if err := s.freshMap(ctx, t); err != nil {
		return 0, fmt.Errorf("collect timeline %s: %w", t.id, err)
	}
	c := &collection{store: s, of: t, orphans: keepOrphans, pace: newPace(s.options.CollectBytesPerSecond),
		blocks: map[layer.FileID]*bitmap{}, tables: map[layer.FileID]*offsets{}, maps: map[layer.FileID]bool{}}
	err = c.fix(ctx)
	if c.head != nil {
		defer c.head.release()
	}
	if err == nil {
		err = c.mark(ctx)
	}
	if err == nil {
		err = c.sweep(ctx)
	}
	if err == nil {
		c.wishes()
	}
	if err != nil {
		return c.freed, fmt.Errorf("collect timeline %s: %w", t.id, err)
	}
	if c.freed > 0 {
		s.slog.Info("timeline collected", "timeline", t.id, "seq", c.man.Swept.Head, "count", c.freed)
	}
	return c.freed, nil
}

// freshMap writes a map when much of the log stands behind the last.
func (s *Store) freshMap(ctx context.Context, t *timeline) error {
	s.mu.Lock()
	v, ghost, maps := t.volume, t.state == stateGhost, t.man.maps()
	s.mu.Unlock()
	if ghost {
		return nil
	}
	if v != nil {
		if len(maps) > 0 && v.ix.behind.Load() < s.options.freshEnough() {
			return nil
		}
		err := s.mapVolume(ctx, v)
		if !errors.Is(err, errClosed) {
			return err
		}
	}
	if err := s.wait(ctx, t); err != nil {
		return err
	}
	defer t.pass()
	s.mu.Lock()
	idle := t.state == stateIdle
	s.mu.Unlock()
	if !idle {
		return nil // opened again; the next round comes
	}
	ix, e, err := s.head(ctx, t)
	if err != nil {
		return err
	}
	defer ix.release()
	if e.last == nil || len(maps) > 0 && ix.behind.Load() < s.options.freshEnough() {
		return nil
	}
	m := s.newMapping(t, ix, position{e.last.id.Number, e.block})
	if err := m.write(ctx); err != nil {
		return err
	}
	return s.putClosed(t, ix, e, m)
}

// freshEnough is how much log may stand behind a map for a collection to do
// with it.
func (o *Options) freshEnough() int64 { return min(8<<20, o.MapBytes/2) }

// fix decides what is retained and writes it down.
func (c *collection) fix(ctx context.Context) error {
	s, t := c.store, c.of
	if err := s.wait(ctx, t); err != nil {
		return err
	}
	defer t.pass()
	s.mu.Lock()
	v, man := t.volume, t.man
	c.ghost = t.state == stateGhost
	s.mu.Unlock()
	var marks []tarn.Mark
	var head tarn.Seq
	switch {
	case c.ghost:
	case v != nil:
		ix, _, err := v.snapshot(sweptHere)
		if err != nil {
			return err
		}
		c.head, head, marks = ix, ix.seq, ix.marks
		if err := v.log.sync(); err != nil { // what comes back after a crash is this head or a later one
			return err
		}
	default:
		ix, e, err := s.head(ctx, t)
		if err != nil {
			return err
		}
		c.head, head, marks = ix, ix.seq, ix.marks
		if err := s.putClosed(t, ix, e, nil); err != nil { // it may have been recovered just now
			return err
		}
	}
	now := time.Now()
	kept := retained(marks, now, s.window(man))
	if v != nil {
		v.names.Lock()
		v.ix.marks = slices.DeleteFunc(slices.Clone(v.ix.marks), func(k tarn.Mark) bool {
			return slices.Contains(marks, k) && !slices.Contains(kept, k)
		})
		v.names.Unlock()
	}
	err := s.amend(t, func(m *manifest) {
		m.Swept = swept{Head: max(head, m.Swept.Head), Time: now, Marks: slices.DeleteFunc(slices.Clone(kept), func(k tarn.Mark) bool { return k.Seq >= head })}
		m.Dead = 0
		m.Closed.Marks = m.shown(m.Closed.Marks)
		if !c.ghost && v == nil {
			m.Closed.Marks = kept
		}
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.man = t.man
	c.at = s.beginnings(t)
	t.dead, t.due = 0, false
	if v != nil {
		v.ix.dead.Store(0)
	}
	for _, m := range c.man.Swept.Marks {
		if s.owner(tarn.Point{Timeline: t.id, Seq: m.Seq}) == t {
			c.at = append(c.at, m.Seq)
		}
	}
	slices.Sort(c.at)
	c.at = slices.Compact(c.at)
	return nil
}

// mark visits everything that is visible from a retained point.
func (c *collection) mark(ctx context.Context) error {
	s := c.store
	maps := c.man.maps()
	c.limit = position{segment: 1 << 31}
	if !c.ghost {
		if len(maps) == 0 {
			c.limit = position{}
			return nil
		}
		// The newest map, and the one before with the log between them, should
		// the newest turn out damaged.
		newest := maps[len(maps)-1]
		ix, h, err := s.readMap(c.of.id, newest.Number, keepOrphans)
		if err != nil {
			return err
		}
		ix.release()
		c.limit = position{h.Segment, h.Block}
		c.maps[layer.FileID{Timeline: c.of.id, Kind: layer.FileMap, Number: newest.Number}] = true
		if err := c.between(ctx, maps); err != nil {
			return err
		}
		if err := c.visit(ctx, c.head); err != nil {
			return err
		}
	}
	for _, seq := range c.at {
		ix, err := c.index(ctx, seq, seq)
		if err != nil {
			return err
		}
		err = c.visit(ctx, ix)
		ix.release()
		if err != nil {
			return err
		}
	}
	return nil
}

// between keeps the map before the newest, the maps it needs, and the heads
// from there on.
func (c *collection) between(ctx context.Context, maps []layerFile) error {
	if len(maps) < 2 {
		return nil
	}
	ix, err := c.index(ctx, maps[len(maps)-2].Last, maps[len(maps)-1].Last)
	if errors.Is(err, layer.ErrCorrupt) {
		c.store.slog.Warn("map before the newest is of no use", "timeline", c.of.id, "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer ix.release()
	c.needMaps(ix)
	return nil
}

// needMaps keeps all maps that an index knows of.
func (c *collection) needMaps(ix *index) {
	for _, f := range *ix.maps.Load() {
		if f != nil && f.id.Timeline == c.of.id {
			c.maps[f.id] = true
		}
	}
}

// index makes the index at a seq from the newest map up to another, and keeps
// the heads that it reads.
func (c *collection) index(ctx context.Context, mapAt, seq tarn.Seq) (*index, error) {
	s, t := c.store, c.of
	segments, err := s.ownSegments(t)
	if err != nil {
		return nil, err
	}
	ix, from, err := s.foundation(ctx, t, mapAt, c.orphans)
	if err != nil {
		return nil, err
	}
	for _, f := range *ix.maps.Load() { // the map itself, if nothing else
		if f != nil && f.id.Timeline == t.id {
			c.maps[f.id] = true
		}
	}
	r := replay{store: &s.shelf, of: t, man: c.man, ix: ix, segments: segments, from: from, upTo: seq, floor: seq, clean: true,
		heads: func(number uint32, at, bytes int64) {
			b := c.kept(layer.FileID{Timeline: t.id, Kind: layer.FileLog, Number: number})
			if !b.get(uint32(at / layer.BlockSize)) {
				c.heads++
			}
			for block := at / layer.BlockSize; block < (at+bytes)/layer.BlockSize; block++ {
				b.set(uint32(block))
			}
			c.pace.add(bytes)
		}}
	if ix.seq < seq {
		err = r.run(ctx)
	}
	if err == nil {
		err = c.pace.wait(ctx)
	}
	if err != nil {
		ix.release()
		return nil, fmt.Errorf("read timeline %s@%d: %w", t.id, seq, err)
	}
	return ix, nil
}

func (c *collection) kept(id layer.FileID) *bitmap {
	b := c.blocks[id]
	if b == nil {
		b = new(bitmap)
		c.blocks[id] = b
	}
	return b
}

// visit marks the pages that an index shows, and the maps where it has their
// tables. A table of a map is read once; tables of ancestors' maps hold no page
// of this timeline.
func (c *collection) visit(ctx context.Context, ix *index) error {
	own := make([]*bitmap, 0, 16)
	for _, f := range *ix.segs.Load() {
		var b *bitmap
		if f != nil && f.id.Timeline == c.of.id {
			b = c.kept(f.id)
		}
		own = append(own, b)
	}
	mark := func(n *node, page uint32, ref pageRef) error {
		p := ref.place()
		if ref == 0 || p.segment() >= len(own) || own[p.segment()] == nil {
			return nil
		}
		b := own[p.segment()]
		fresh := !b.get(p.block() + 1)
		b.set(p.block())
		b.set(p.block() + 1)
		if c.page != nil && fresh {
			return c.page(ix, n, page, ref)
		}
		return nil
	}
	maps := *ix.maps.Load()
	for n := range ix.inodes.all() {
		t := n.pages.Load()
		if t == nil {
			continue
		}
		for i := range t.slots {
			w, ch := t.slots[i].where.Load(), t.slots[i].chunk.Load()
			if w == 0 {
				continue
			}
			if w&dirtyBit == 0 {
				r := layer.TableRef(w)
				if r.Slot() >= len(maps) || maps[r.Slot()] == nil {
					return fmt.Errorf("page table %d of inode %d: %w", i, n.ino, errNoFile)
				}
				m := maps[r.Slot()]
				if m.id.Timeline != c.of.id {
					continue
				}
				c.maps[m.id] = true
				seen := c.tables[m.id]
				if seen == nil {
					seen = new(offsets)
					c.tables[m.id] = seen
				}
				if !seen.add(r.Offset()) {
					continue
				}
				var refs [chunkPages]uint64
				err := ix.readTable(n.ino, uint32(i), r, &refs)
				if err != nil && c.bad != nil {
					err = c.bad(err)
				}
				if err != nil {
					return err
				}
				for j, ref := range refs {
					if err := mark(n, uint32(i*chunkPages+j), pageRef(ref)); err != nil {
						return err
					}
				}
				c.pace.add(r.Bytes())
				if err := c.pace.wait(ctx); err != nil {
					return err
				}
				continue
			}
			for j := range ch.refs {
				if err := mark(n, uint32(i*chunkPages+j), pageRef(ch.refs[j].Load())); err != nil {
					return err
				}
			}
		}
	}
	return context.Cause(ctx)
}

// sweep drops from the manifest, and then from the disk, what was not marked.
func (c *collection) sweep(ctx context.Context) error {
	segments, err := c.drop(ctx)
	if err != nil {
		return err
	}
	for _, f := range segments {
		if f.number > c.limit.segment {
			break
		}
		if err := c.punch(ctx, layer.FileID{Timeline: c.of.id, Kind: layer.FileLog, Number: f.number}, f.size); err != nil {
			return err
		}
	}
	for _, l := range c.man.images() {
		id := layer.FileID{Timeline: c.of.id, Kind: layer.FileImage, Number: l.Number}
		if c.blocks[id].count() == 0 {
			continue // it is gone
		}
		if err := c.punch(ctx, id, l.Bytes); err != nil {
			return err
		}
	}
	return nil
}

// drop removes whole files and gives the segments that stay.
func (c *collection) drop(ctx context.Context) ([]logFile, error) {
	s, t := c.store, c.of
	if err := s.wait(ctx, t); err != nil {
		return nil, err
	}
	defer t.pass()
	s.mu.Lock()
	for _, o := range s.timelines {
		for _, f := range o.man.foreign() {
			if f.Timeline == t.id {
				c.maps[f] = true
			}
		}
	}
	s.mu.Unlock()
	for _, ix := range s.cache.all() {
		if ix != c.head {
			c.needMaps(ix)
		}
	}
	segments, err := s.ownSegments(t)
	if err != nil {
		return nil, err
	}
	drop := map[layer.FileID]bool{}
	var stay []logFile
	for i, f := range segments {
		id := layer.FileID{Timeline: t.id, Kind: layer.FileLog, Number: f.number}
		last := i == len(segments)-1 && !c.ghost
		if f.number < c.limit.segment && !last && c.blocks[id].count() == 0 {
			drop[id] = true
		} else {
			stay = append(stay, f)
		}
	}
	for _, m := range c.man.maps() { // newer ones than it knew are needed
		id := layer.FileID{Timeline: t.id, Kind: layer.FileMap, Number: m.Number}
		if !c.maps[id] {
			drop[id] = true
		}
	}
	// Nobody puts pages in order meanwhile: what no page is visible in is not
	// about to be pointed at.
	for _, l := range c.man.images() {
		id := layer.FileID{Timeline: t.id, Kind: layer.FileImage, Number: l.Number}
		if (c.ghost || c.limit.segment > 0) && c.blocks[id].count() == 0 {
			drop[id] = true
		}
	}
	if err := c.unlist(segments, drop); err != nil {
		return nil, err
	}
	for _, ix := range s.cache.all() {
		ix.forget(drop)
	}
	for id := range drop {
		c.remove(id)
	}
	return stay, c.litter()
}

// foreign gives the maps of ancestors that a timeline needs.
func (m *manifest) foreign() []layer.FileID {
	if m == nil { // being made
		return nil
	}
	return m.Foreign
}

// unlist writes the manifest without the files that go. Segments are counted
// up to the one before the last, so that those that go are known to be gone.
func (c *collection) unlist(segments []logFile, drop map[layer.FileID]bool) error {
	if len(drop) == 0 {
		return nil
	}
	return c.store.amend(c.of, func(m *manifest) {
		for i, f := range segments {
			if i < len(segments)-1 && f.number > m.Counted.Log {
				m.Layers = append(slices.Clone(m.Layers), layerFile{Kind: layer.FileLog, Number: f.number, Bytes: f.size})
			}
		}
		for _, l := range m.Layers {
			if l.Kind == layer.FileLog {
				m.Counted.Log = max(m.Counted.Log, l.Number)
			}
		}
		m.Layers = slices.DeleteFunc(slices.Clone(m.Layers), func(l layerFile) bool {
			return drop[layer.FileID{Timeline: c.of.id, Kind: l.Kind, Number: l.Number}]
		})
	})
}

func (c *collection) remove(id layer.FileID) {
	f := newSegment(c.store.files, c.store.manifests.dir, id)
	f.retain()
	defer f.release()
	if o, err := f.open(); err == nil {
		if n, err := o.Used(); err == nil {
			c.freed += n
		}
	}
	if err := ignoreMissing(c.store.files.Remove(f.path)); err != nil {
		c.store.slog.Warn("remove collected file", "timeline", id.Timeline, "path", f.path, "err", err)
	}
}

// litter removes layers that the manifest does not know: of crashes,
// and of removals that failed. The caller has the turn.
func (c *collection) litter() error {
	s, t := c.store, c.of
	files, err := s.files.ReadDir(t.dir(&s.shelf))
	if err != nil {
		return err
	}
	s.mu.Lock()
	man, next := t.man, t.nextMap
	s.mu.Unlock()
	for _, f := range files {
		n := fileNumber(layer.FileLog, f.Name)
		stale := n > 0 && n <= man.Counted.Log && !man.has(layer.FileLog, n)
		if n := fileNumber(layer.FileMap, f.Name); n > 0 && !man.has(layer.FileMap, n) {
			stale = n < next-1 || next == 0 || n >= next // not one that is being written
		}
		if n := fileNumber(layer.FileImage, f.Name); n > 0 && !man.has(layer.FileImage, n) {
			stale = true // images are written while no collection runs
		}
		if stale {
			if err := ignoreMissing(s.files.Remove(filepath.Join(t.dir(&s.shelf), f.Name))); err != nil && !errors.Is(err, fs.ErrPermission) {
				return err
			}
		}
	}
	return nil
}

// punch gives back the blocks of a segment or image that are not kept.
func (c *collection) punch(ctx context.Context, id layer.FileID, size int64) error {
	keep := c.blocks[id]
	if keep == nil {
		keep = new(bitmap)
	}
	end := uint32(size / layer.BlockSize)
	part := id.Kind == layer.FileLog && id.Number == c.limit.segment
	if part {
		end = min(end, c.limit.block)
	}
	f := newSegment(c.store.files, c.store.manifests.dir, id)
	f.retain()
	defer f.release()
	o, err := c.open(ctx, f)
	if err != nil || o == nil {
		return err
	}
	before, err := o.Used()
	if err != nil {
		return err
	}
	if most := (keep.count() + 1) * layer.BlockSize; !part && before <= most {
		return nil // it was done before
	}
	for block := uint32(1); block < end; {
		first := block
		for block < end && !keep.get(block) {
			block++
		}
		if block > first {
			if err := o.Punch(int64(first)*layer.BlockSize, int64(block-first)*layer.BlockSize); err != nil {
				return fmt.Errorf("punch %s at block %d: %w", f.path, first, err)
			}
			c.pace.add(int64(block-first) * layer.BlockSize)
			if err := c.pace.wait(ctx); err != nil {
				return err
			}
		}
		for block < end && keep.get(block) {
			block++
		}
	}
	if after, err := o.Used(); err == nil && after < before {
		c.freed += before - after
	}
	return nil
}

// open opens a file unless its timeline is gone: another may have its id then.
func (c *collection) open(ctx context.Context, f *segment) (file, error) {
	err := c.store.wait(ctx, c.of)
	if tarn.KindOf(err) == tarn.KindNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer c.of.pass()
	return f.open()
}

// pace holds a background job to a number of bytes a second.
type pace struct {
	rate  int64
	owed  int64
	since time.Time
}

func newPace(rate int64) *pace { return &pace{rate: rate, since: time.Now()} }

func (p *pace) add(n int64) { p.owed += n }

// wait waits until what was added is due.
func (p *pace) wait(ctx context.Context) error {
	if p.owed < p.rate/20 { // not for every little thing
		return context.Cause(ctx)
	}
	due := time.Duration(p.owed) * time.Second / time.Duration(p.rate)
	left := due - time.Since(p.since)
	p.owed, p.since = 0, time.Now()
	if left <= 0 {
		return context.Cause(ctx)
	}
	p.since = p.since.Add(left)
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
