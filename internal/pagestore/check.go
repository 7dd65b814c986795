package pagestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// Finding is something that Check found wrong. Where bytes are damaged, Err
// unwraps to a *layer.CorruptError with file and offset.
type Finding struct {
	Timeline tarn.TimelineID
	Err      error
}

// Checked counts what a check verified.
type Checked struct {
	Timelines int   `json:"timelines"` // ghosts too
	Points    int   `json:"points"`    // heads, marks and beginnings of children
	Maps      int   `json:"maps"`
	Tables    int64 `json:"tables"` // page tables of maps
	Heads     int64 `json:"heads"`  // of batches that a recovery or a fork would read
	Pages     int64 `json:"pages"`  // visible from any of the points
	Bytes     int64 `json:"bytes"`  // of those pages
}

// check verifies one timeline.
type check struct {
	collection
	report func(Finding)
	seen   map[string]bool // reported
	sum    *Checked
	whole  map[layer.FileID]*offsets // tables verified for themselves, not for what they show
}

// Check verifies the store while it is used: every manifest and map, the heads
// of the logs that recovery would read, and every page that is visible from a
// head, a mark or the beginning of a child. What it finds wrong it reports and
// goes on; the error is one of the check itself. It reads everything, within
// Options.CollectBytesPerSecond; collections wait meanwhile.
func (s *Store) Check(ctx context.Context, report func(Finding)) (sum Checked, err error) {
	for _, t := range checkable(s) {
		if err := collectNothing(ctx, s); err != nil {
			return sum, err
		}
		one, err := checkOne(ctx, s, t, report)
		<-s.collecting
		if err != nil {
			return sum, err
		}
		sum.add(one)
	}
	return sum, nil
}

// checkAtOnce is Check of several timelines at once, for a store that lies far
// away. report is not called twice at the same time.
func checkAtOnce(ctx context.Context, s *Store, n int, report func(Finding)) (sum Checked, err error) {
	if err := collectNothing(ctx, s); err != nil {
		return sum, err
	}
	defer func() { <-s.collecting }()
	var mu sync.Mutex // guards sum, and what report does
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(n)
	for _, t := range checkable(s) {
		g.Go(func() error {
			one, err := checkOne(ctx, s, t, func(f Finding) {
				mu.Lock()
				defer mu.Unlock()
				report(f)
			})
			mu.Lock()
			defer mu.Unlock()
			sum.add(one)
			return err
		})
	}
	err = g.Wait()
	return sum, err
}

// checkable lists the timelines that are there.
func checkable(s *Store) (all []*timeline) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.timelines {
		if t.state != stateMaking {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b *timeline) int { return cmp.Compare(a.id, b.id) })
	return all
}

func collectNothing(ctx context.Context, s *Store) error {
	select {
	case s.collecting <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("check page store: %w", context.Cause(ctx))
	}
}

func checkOne(ctx context.Context, s *Store, t *timeline, report func(Finding)) (sum Checked, err error) {
	k := &check{report: report, seen: map[string]bool{}, sum: &sum, whole: map[layer.FileID]*offsets{}, collection: collection{store: s, of: t,
		pace: newPace(s.options.CollectBytesPerSecond), blocks: map[layer.FileID]*bitmap{}, tables: map[layer.FileID]*offsets{}, maps: map[layer.FileID]bool{}}}
	k.page, k.bad, k.orphans = k.verify, k.found, dropOrphans
	err = k.timeline(ctx)
	sum.Heads += k.heads
	switch {
	case tarn.KindOf(err) == tarn.KindNotFound:
		return sum, nil // deleted meanwhile
	case err != nil:
		return sum, fmt.Errorf("check timeline %s: %w", t.id, err)
	}
	sum.Timelines++
	return sum, nil
}

func (c *Checked) add(o Checked) {
	c.Timelines, c.Points, c.Maps = c.Timelines+o.Timelines, c.Points+o.Points, c.Maps+o.Maps
	c.Tables, c.Heads, c.Pages, c.Bytes = c.Tables+o.Tables, c.Heads+o.Heads, c.Pages+o.Pages, c.Bytes+o.Bytes
}

// found reports damage and gives back every other error.
func (k *check) found(err error) error {
	if err == nil {
		return nil
	}
	if !errors.Is(err, layer.ErrCorrupt) && !errors.Is(err, errNoFile) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !k.seen[err.Error()] {
		k.seen[err.Error()] = true
		k.report(Finding{Timeline: k.of.id, Err: err})
	}
	return nil
}

func (k *check) timeline(ctx context.Context) error {
	s := k.store
	if err := k.fixed(ctx); err != nil {
		return err
	}
	if k.head != nil {
		defer k.head.release()
	}
	for _, m := range k.man.maps() {
		ix, _, err := s.readMap(k.of.id, m.Number, dropOrphans)
		if err == nil {
			k.sum.Maps++
			err = k.mapTables(ctx, ix)
			ix.release()
		}
		if err := k.found(err); err != nil {
			return err
		}
	}
	for _, l := range k.man.images() {
		if err := k.found(k.checkImage(l)); err != nil {
			return err
		}
	}
	for _, seq := range k.at {
		ix, err := k.index(ctx, seq, seq)
		if err == nil {
			err = k.visit(ctx, ix)
			if err == nil && k.head != nil && seq == k.head.seq {
				err = k.same(ix)
			}
			ix.release()
		}
		if err := k.found(err); err != nil {
			return err
		}
		k.sum.Points++
	}
	return nil
}

// fixed finds out what the timeline keeps, and gets hold of it at its head.
func (k *check) fixed(ctx context.Context) error {
	s, t := k.store, k.of
	if err := s.wait(ctx, t); err != nil {
		return err
	}
	defer t.pass()
	if _, err := s.manifests.load(t.id); err != nil {
		if err := k.found(err); err != nil {
			return err
		}
	}
	s.mu.Lock()
	v := t.volume
	k.man, k.ghost = t.man, t.state == stateGhost
	k.at = s.beginnings(t)
	s.mu.Unlock()
	var marks []tarn.Mark
	var err error
	switch {
	case k.ghost:
	case v != nil:
		if k.head, _, err = v.snapshot(forMap); err != nil {
			return err
		}
		if err := v.log.sync(); err != nil {
			return err
		}
	default:
		if k.head, _, err = s.head(ctx, t); err != nil {
			if err := k.found(err); err != nil {
				return err
			}
			marks = k.man.Closed.Marks
		}
	}
	if k.head != nil {
		k.at, marks = append(k.at, k.head.seq), k.head.marks
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range marks {
		if s.owner(tarn.Point{Timeline: t.id, Seq: m.Seq}) == t {
			k.at = append(k.at, m.Seq)
		}
	}
	k.at = slices.DeleteFunc(k.at, func(seq tarn.Seq) bool {
		// The beginning of the timeline itself is its parent's to keep.
		return t.parent.Timeline != "" && seq <= t.parent.Seq
	})
	slices.Sort(k.at)
	k.at = slices.Compact(k.at)
	return nil
}

// mapTables reads the tables of the timeline's own maps that a map names.
func (k *check) mapTables(ctx context.Context, ix *index) error {
	maps := *ix.maps.Load()
	for n := range ix.inodes.all() {
		t := n.pages.Load()
		if t == nil {
			continue
		}
		for i := range t.slots {
			r := layer.TableRef(t.slots[i].where.Load())
			if r == 0 || maps[r.Slot()].id.Timeline != k.of.id {
				continue
			}
			if k.whole[maps[r.Slot()].id] == nil {
				k.whole[maps[r.Slot()].id] = new(offsets)
			}
			if !k.whole[maps[r.Slot()].id].add(r.Offset()) {
				continue
			}
			var refs [chunkPages]uint64
			if err := k.found(ix.readTable(n.ino, uint32(i), r, &refs)); err != nil {
				return err
			}
			k.sum.Tables++
			k.pace.add(r.Bytes())
		}
		if err := k.pace.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// verify reads a page that is visible.
func (k *check) verify(ix *index, n *node, page uint32, ref pageRef) error {
	p := k.store.scratch.Get().(*[layer.PageSize]byte)
	defer k.store.scratch.Put(p)
	crc := [1]uint32{ref.crc()}
	if err := (&contents{ix: ix}).readFile(ref.place(), p[:], crc[:]); err != nil {
		return k.found(fmt.Errorf("page %d of inode %d: %w", page, n.ino, err))
	}
	k.sum.Pages++
	k.sum.Bytes += layer.PageSize
	k.pace.add(layer.PageSize)
	return nil
}

// same compares the head as it is in memory with what the newest map and the log
// behind it say.
func (k *check) same(ix *index) error {
	for n := range k.head.inodes.all() {
		if n.nlink.Load() == 0 {
			continue
		}
		o := ix.inodes.get(n.ino)
		if o == nil {
			return k.differ(n.ino, "none")
		}
		if n.attr() != o.attr() || n.target != o.target || n.parent != o.parent {
			return k.differ(n.ino, fmt.Sprintf("%+v instead of %+v", o.attr(), n.attr()))
		}
		if err := k.samePages(n, ix, o); err != nil {
			return err
		}
		if n.dir != nil && !n.dir.same(o.dir) {
			return k.differ(n.ino, "other names")
		}
	}
	for n := range ix.inodes.all() {
		if n.nlink.Load() != 0 && k.head.inodes.get(n.ino) == nil {
			return k.differ(n.ino, "an inode that is gone")
		}
	}
	return nil
}

// samePages compares the pages of a file.
func (k *check) samePages(n *node, ix *index, o *node) error {
	a, b := n.pages.Load(), o.pages.Load()
	for i := range max(a.tables(), b.tables()) {
		if i < min(a.tables(), b.tables()) {
			if w := a.slots[i].where.Load(); w&dirtyBit == 0 && w == b.slots[i].where.Load() {
				continue
			}
		}
		for page := uint32(i * chunkPages); page < uint32((i+1)*chunkPages); page++ {
			x, err := k.head.page(n, page)
			if err != nil {
				return err
			}
			y, err := ix.page(o, page)
			if err != nil {
				return err
			}
			if x != y && !samePlace(k.head, x, ix, y) {
				return k.differ(n.ino, fmt.Sprintf("page %d at another place", page))
			}
		}
	}
	return nil
}

func (k *check) differ(ino layer.Ino, what string) error {
	return &layer.CorruptError{File: k.of.dir(&k.store.shelf), Expected: fmt.Sprintf("a log that leads to inode %d as it is", ino), Found: what}
}

func (t *pageTable) tables() int {
	if t == nil {
		return 0
	}
	return len(t.slots)
}

// samePlace reports whether two places of two indexes are one.
func samePlace(a *index, x pageRef, b *index, y pageRef) bool {
	f, g := a.segment(x.place()), b.segment(y.place())
	return x != 0 && y != 0 && f != nil && g != nil && f.id == g.id && x.place().block() == y.place().block() && x.crc() == y.crc()
}

// same reports whether two directories have the same names with the same
// cookies.
func (d *directory) same(o *directory) bool {
	return o != nil && d.next == o.next && slices.Equal(d.order, o.order) &&
		!slices.ContainsFunc(d.order, func(n dirName) bool { return d.names[n.name] != o.names[n.name] })
}

// checkImage verifies that an image is there, and its header.
func (k *check) checkImage(l layerFile) error {
	s := k.store
	f := newSegment(s.files, s.manifests.dir, layer.FileID{Timeline: k.of.id, Kind: layer.FileImage, Number: l.Number})
	f.retain()
	defer f.release()
	o, err := f.open()
	if err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	size, err := o.Size()
	if err != nil {
		return fmt.Errorf("read image: %w", err)
	}
	b := make([]byte, layer.BlockSize)
	if n, err := o.ReadAt(b, 0); n < len(b) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read image: %w", err)
	}
	decode := func() error {
		_, err := layer.DecodeImageHeader(f.path, b, size, k.of.id, l.Number)
		return err
	}
	return reread(o, b, 0, decode(), decode)
}
