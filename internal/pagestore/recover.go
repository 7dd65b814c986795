package pagestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// logFile is one segment of a timeline's log as it is found.
type logFile struct {
	number uint32
	size   int64
}

// ownSegments lists the segments of a timeline in order. Those that a
// collection removed are missing; one that it could not remove is left out.
func (s *shelf) ownSegments(t *timeline) ([]logFile, error) {
	files, err := s.files.ReadDir(t.dir(s))
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	s.mu.Lock()
	man := t.man
	s.mu.Unlock()
	var out []logFile
	there := map[uint32]bool{}
	for _, f := range files {
		n := fileNumber(layer.FileLog, f.Name)
		if n == 0 || n <= man.Counted.Log && !man.has(layer.FileLog, n) {
			continue
		}
		out = append(out, logFile{n, f.Size})
		there[n] = true
	}
	slices.SortFunc(out, func(a, b logFile) int { return cmp.Compare(a.number, b.number) })
	missing := uint32(0)
	for _, l := range man.Layers {
		if l.Kind == layer.FileLog && !there[l.Number] {
			missing = l.Number
		}
	}
	next := man.Counted.Log
	for _, f := range out {
		if f.number <= man.Counted.Log {
			continue
		}
		if next++; f.number != next {
			missing = next
			break
		}
	}
	if missing != 0 {
		return nil, &layer.CorruptError{File: filepath.Join(t.dir(s), fileName(layer.FileLog, missing)), Expected: "a segment", Found: "no file, though the manifest or later ones say that there is one"}
	}
	return out, nil
}

// unchanged reports whether the log still ends where the manifest says it was
// closed.
func (c closed) unchanged(segments []logFile) bool {
	if len(segments) == 0 {
		return c.Segment == 0
	}
	last := segments[len(segments)-1]
	return c.Segment == last.number && last.size == c.Bytes
}

// summary gives head and marks of an idle timeline, from the manifest when the
// timeline was closed cleanly. When it was not, its log is read and repaired
// and the manifest replaced. The caller has the turn.
func (s *shelf) summary(ctx context.Context, t *timeline) (tarn.Seq, []tarn.Mark, error) {
	s.mu.Lock()
	man := t.man
	s.mu.Unlock()
	segments, err := s.ownSegments(t)
	if err != nil {
		return 0, nil, err
	}
	if man.Closed.unchanged(segments) {
		return man.Closed.Head, man.Closed.Marks, nil
	}
	ix, e, err := s.head(ctx, t)
	if err != nil {
		return 0, nil, err
	}
	defer ix.release()
	err = s.putClosed(t, ix, e, nil)
	if err != nil && !isFull(err) { // with a full disk the log will be read again
		return 0, nil, err
	}
	return ix.seq, ix.marks, nil
}

// head gives the index of an idle timeline at its head. The caller has the
// turn.
//
//  1. the newest map, or what it began with           nothing is changed
//  2. the records behind it on top of it              nothing is changed
//  3. if the log was not closed: drop a last segment  crash: the same again
//     without a whole header
//  4. write again what nothing proves to be on disk:  crash: the same again
//     it was read, and so will be called durable
//  5. cut what follows the last whole batch and sync  crash: the same again
//
// Files in held stay although they have no name.
func (s *shelf) head(ctx context.Context, t *timeline, held ...layer.Ino) (ix *index, e end, err error) {
	err = s.mended(func() error {
		ix, e, err = s.headOnce(ctx, t, held)
		return err
	})
	return ix, e, err
}

func (s *shelf) headOnce(ctx context.Context, t *timeline, held []layer.Ino) (*index, end, error) {
	if ix := s.handed(t); ix != nil {
		return ix, end{seq: ix.seq}, nil
	}
	s.mu.Lock()
	man := t.man
	s.mu.Unlock()
	segments, err := s.ownSegments(t)
	if err != nil {
		return nil, end{}, err
	}
	orphans := dropOrphans
	if len(held) > 0 {
		orphans = keepOrphans // while the log is read: it does not say who is held
	}
	ix, from, err := s.foundation(ctx, t, 0, orphans)
	if err != nil {
		return nil, end{}, err
	}
	clean := man.Closed.unchanged(segments)
	ix.keep = orphans
	ix.dead.Store(0)
	ix.loose.Store(0)
	r := replay{store: s, of: t, man: man, ix: ix, segments: segments, from: from, floor: max(man.Closed.Head, s.floor(t.id)), clean: clean}
	if err = r.run(ctx); err == nil && !clean {
		err = r.repair()
	}
	if err == nil && clean && man.Closed.Head != ix.seq {
		err = &layer.CorruptError{File: s.manifests.path(t.id), Offset: 72, Expected: fmt.Sprintf("head %d", ix.seq), Found: fmt.Sprint(man.Closed.Head)}
	}
	if err != nil {
		ix.release()
		return nil, end{}, fmt.Errorf("read log: %w", err)
	}
	ix.marks = man.shown(ix.marks)
	if clean {
		ix.dead.Store(0) // it is in the manifest's
		ix.loose.Store(0)
	}
	if !clean {
		s.slog.Info("log recovered", "timeline", t.id, "seq", ix.seq, "count", len(segments))
	}
	if len(held) > 0 {
		ix.dropNameless(held...)
	}
	return ix, r.end, nil
}

// position is a place in a timeline's own log: a batch begins there, or would.
// Segment 0 is before the first.
type position struct{ segment, block uint32 }

// foundation gives the newest index that need not be made from the log: the
// newest map there is up to a seq, 0 = any, or what the timeline began with.
// The log goes on at the position. A damaged map is passed over for the one
// before it. orphans says whether files without a name are wanted.
func (s *shelf) foundation(ctx context.Context, t *timeline, upTo tarn.Seq, orphans orphanRule) (*index, position, error) {
	s.mu.Lock()
	man := t.man
	s.mu.Unlock()
	var damage error
	for _, m := range slices.Backward(man.maps()) {
		if upTo != 0 && m.Last > upTo {
			continue
		}
		if damage != nil && !man.standsIn(m, upTo) {
			return nil, position{}, damage
		}
		ix, h, err := s.readMap(t.id, m.Number, orphans)
		if err == nil {
			return ix, position{h.Segment, h.Block}, nil
		}
		if !errors.Is(err, layer.ErrCorrupt) && !errors.Is(err, fs.ErrNotExist) {
			return nil, position{}, err
		}
		s.slog.Error("map unreadable", "timeline", t.id, "err", err)
		damage = errors.Join(damage, err)
	}
	if damage != nil && man.Rewound != 0 {
		return nil, position{}, damage
	}
	if t.parent.Timeline == "" {
		return newIndex(s.cache), position{}, nil
	}
	ix, err := s.indexAt(ctx, t.parent)
	if err != nil {
		return nil, position{}, errors.Join(damage, err)
	}
	return ix, position{}, nil
}

// indexAt gives a new index of a timeline at one of its points. What stands
// before the point is on disk.
func (s *shelf) indexAt(ctx context.Context, p tarn.Point) (ix *index, err error) {
	err = s.mended(func() error {
		ix, err = s.indexAtOnce(ctx, p)
		return err
	})
	return ix, err
}

func (s *shelf) indexAtOnce(ctx context.Context, p tarn.Point) (*index, error) {
	t, err := s.findAny(p.Timeline)
	if err != nil {
		return nil, err
	}
	if parent := t.parent; parent.Timeline != "" && p.Seq <= parent.Seq {
		return s.indexAt(ctx, tarn.Point{Timeline: parent.Timeline, Seq: p.Seq})
	}
	if err := s.wait(ctx, t); err != nil {
		return nil, err
	}
	defer t.pass()
	segments, err := s.ownSegments(t)
	if err != nil {
		return nil, err
	}
	ix, from, err := s.foundation(ctx, t, p.Seq, dropOrphans)
	if err != nil {
		return nil, fmt.Errorf("read timeline %s: %w", p, err)
	}
	s.mu.Lock()
	man := t.man
	s.mu.Unlock()
	r := replay{store: s, of: t, man: man, ix: ix, segments: segments, from: from, upTo: p.Seq, floor: p.Seq, clean: true}
	if err := r.run(ctx); err != nil {
		ix.release()
		return nil, fmt.Errorf("read timeline %s: %w", p, err)
	}
	ix.marks = nil
	return ix, nil
}

// replay puts the records of a timeline's own segments onto an index.
type replay struct {
	store    *shelf
	of       *timeline
	man      *manifest
	ix       *index
	segments []logFile
	from     position
	upTo     tarn.Seq // stop there; 0 = at the end
	floor    tarn.Seq // the log once reached there
	clean    bool     // everything that is read was on disk
	// heads, when set, is told where every head stands that is read.
	heads func(number uint32, at, bytes int64)

	end      end
	durable  int64               // of the last segment: known to be on disk before this
	torn     *layer.CorruptError // where the last segment read ended
	headless *segment            // a last segment without a whole header
}

func (r *replay) run(ctx context.Context) error {
	r.end.seq = r.ix.seq
	for i, f := range r.segments {
		if f.number < r.from.segment {
			continue
		}
		if r.upTo != 0 && r.ix.seq >= r.upTo {
			break
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := r.segment(f, i == len(r.segments)-1); err != nil {
			return err
		}
	}
	r.end.seq = r.ix.seq
	if r.ix.seq < r.floor {
		return r.short()
	}
	return nil
}

// short says that the log ends before a seq that it once reached.
func (r *replay) short() error {
	path := r.store.manifests.path(r.of.id)
	if r.end.last != nil {
		path = r.end.last.path
	}
	found := fmt.Sprintf("the end of the log at seq %d", r.ix.seq)
	if r.torn != nil {
		found += ": " + r.torn.Error()
	}
	return &layer.CorruptError{File: path, Offset: r.end.bytes(), Expected: fmt.Sprintf("records up to seq %d", r.floor), Found: found}
}

// segment reads one segment. Of one that has a successor, as of a log that was
// closed, everything was on disk: its heads are read, and pages as they are
// wanted.
func (r *replay) segment(info logFile, last bool) error {
	seg := newSegment(r.store.files, r.store.manifests.dir, layer.FileID{Timeline: r.of.id, Kind: layer.FileLog, Number: info.number})
	seg.retain()
	defer seg.release() // the index keeps its own hold
	if r.clean && r.upTo == 0 && last && info.number == r.from.segment && info.size == int64(r.from.block)*layer.BlockSize {
		// A map was written when the log was closed: there is nothing to read.
		r.end.last, r.end.line, r.end.block = seg, r.ix.addSegment(seg), r.from.block
		return nil
	}
	f, err := seg.open()
	if err != nil {
		return err
	}
	src := layer.Source{R: f, File: seg.path, Size: info.size, Seq: r.ix.seq,
		Want: layer.Header{Timeline: r.of.id, Segment: info.number, FirstSeq: r.ix.seq}}
	if info.number == r.man.Closed.Segment {
		src.Whole = r.man.Closed.Bytes
	}
	if r.clean || !last {
		src.Bodies = layer.SkipBodies
	}
	if info.number == r.from.segment {
		src.From = int64(r.from.block) * layer.BlockSize
	}
	sc, err := layer.NewScanner(src)
	if err != nil {
		var bad *layer.CorruptError
		switch {
		case !errors.As(err, &bad):
			return err
		case r.torn != nil: // the one before ended too early
			return fmt.Errorf("%w, though segment %d follows", r.torn, info.number)
		case r.upTo == 0 && bad.Offset < 16 && last && r.neverBegun(f, info.number):
			r.headless = seg
			return nil
		}
		return err
	}
	line := r.ix.addSegment(seg)
	start := sc.End()
	for (r.upTo == 0 || r.ix.seq < r.upTo) && sc.Next() {
		rec := sc.Record()
		if r.heads != nil {
			at, head := sc.Batch()
			r.heads(info.number, at, head)
		}
		var ref pageRef
		if rec.Kind == layer.KindPage {
			_, block := sc.Page()
			ref = makeRef(makePlace(line, block), rec.CRC)
		} else if rec.Kind == layer.KindMove {
			// The image is gone when nobody shows its pages any more: then later
			// records overwrite them.
			image := newSegment(r.store.files, r.store.manifests.dir, layer.FileID{Timeline: r.of.id, Kind: layer.FileImage, Number: rec.Image})
			ref = makeRef(makePlace(r.ix.addSegment(image), rec.Block), 0)
		}
		err := r.ix.apply(rec, ref)
		var unread *tableError
		if errors.As(err, &unread) {
			return err
		}
		if err != nil {
			return &layer.CorruptError{File: seg.path, Offset: sc.End(), Expected: "a record that can be applied before here", Found: err.Error()}
		}
		r.ix.seq = sc.Seq()
	}
	r.ix.behind.Add(sc.End() - start)
	r.torn, r.durable = sc.Torn(), sc.Durable()
	r.end.last, r.end.line, r.end.block = seg, line, uint32(sc.End()/layer.BlockSize)
	return sc.Err()
}

// neverBegun reports whether a last segment without a whole header can be what
// a crash left of making it: without any batch, since batches are written
// after the header was synced.
func (r *replay) neverBegun(f file, number uint32) bool {
	if number <= r.man.Closed.Segment {
		return false
	}
	var b [4]byte
	if n, _ := f.ReadAt(b[:], layer.BlockSize); n < len(b) {
		return true
	}
	return !layer.BeginsBatch(b[:])
}

// repair does steps 3 to 5 of head.
func (r *replay) repair() error {
	if r.headless != nil {
		if err := r.store.files.Remove(r.headless.path); err != nil {
			return err
		}
		if err := r.store.files.SyncDir(r.of.dir(r.store)); err != nil {
			return err
		}
	}
	if r.end.last == nil {
		return nil
	}
	f, err := r.end.last.open()
	if err != nil {
		return err
	}
	if onlyInBucket(f) {
		return nil // it was uploaded whole, and nothing is appended to it any more
	}
	buf := make([]byte, 1<<20)
	for at := r.durable; at < r.end.bytes(); {
		b := buf[:min(int64(len(buf)), r.end.bytes()-at)]
		if n, err := f.ReadAt(b, at); n < len(b) {
			return fmt.Errorf("read %s at byte %d: %w", r.end.last.path, at, err)
		}
		if _, err := f.WriteAt(b, at); err != nil {
			return fmt.Errorf("write %s at byte %d again: %w", r.end.last.path, at, err)
		}
		at += int64(len(b))
	}
	if err := f.Truncate(r.end.bytes()); err != nil {
		return fmt.Errorf("cut %s: %w", r.end.last.path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", r.end.last.path, err)
	}
	return nil
}
