package pagestore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// ownSegments lists the segments of a timeline in order.
func (s *Store) ownSegments(t *timeline) ([]fileInfo, error) {
	files, err := s.files.ReadDir(t.dir(s))
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	files = slices.DeleteFunc(files, func(f fileInfo) bool { return segmentNumber(f.Name) == 0 })
	slices.SortFunc(files, func(a, b fileInfo) int { return int(segmentNumber(a.Name)) - int(segmentNumber(b.Name)) })
	for i, f := range files {
		if segmentNumber(f.Name) != uint32(i+1) {
			return nil, &layer.CorruptError{File: filepath.Join(t.dir(s), segmentName(uint32(i+1))), Expected: "a segment", Found: "no file, though later ones exist"}
		}
	}
	return files, nil
}

// unchanged reports whether the log still ends where the manifest says it was
// closed.
func (c closed) unchanged(segments []fileInfo) bool {
	n := len(segments)
	return int(c.Segment) == n && (n == 0 || segments[n-1].Size == c.Bytes)
}

// summary gives head and marks of an idle timeline, from the kept index or the
// manifest where those know and from the log where not. The caller has the
// turn.
func (s *Store) summary(ctx context.Context, t *timeline) (tarn.Seq, []tarn.Mark, error) {
	s.mu.Lock()
	ix, man := t.index, t.man
	s.mu.Unlock()
	if ix == nil {
		segments, err := s.ownSegments(t)
		if err != nil {
			return 0, nil, err
		}
		if man.Closed.unchanged(segments) {
			return man.Closed.Head, man.Closed.Marks, nil
		}
		if ix, _, err = s.head(ctx, t); err != nil {
			return 0, nil, err
		}
	}
	return ix.seq, ix.marks, nil
}

// head gives the index of an idle timeline at its head and keeps it. The
// caller has the turn.
//
//  1. the index at the fork point, from the parents   nothing is changed
//  2. the records of the own segments on top of it    nothing is changed
//  3. if the log was not closed: drop a last segment  crash: the same again
//     without a whole header
//  4. write again what nothing proves to be on disk:  crash: the same again
//     it was read, and so will be called durable
//  5. cut what follows the last whole batch and sync  crash: the same again
func (s *Store) head(ctx context.Context, t *timeline) (*index, end, error) {
	s.mu.Lock()
	if t.index != nil {
		defer s.mu.Unlock()
		s.clock++
		t.used = s.clock
		return t.index, t.end, nil
	}
	s.mu.Unlock()
	ix, err := s.base(ctx, t)
	if err != nil {
		return nil, end{}, err
	}
	segments, err := s.ownSegments(t)
	if err != nil {
		ix.release()
		return nil, end{}, err
	}
	clean := t.man.Closed.unchanged(segments)
	r := replay{store: s, of: t, ix: ix, segments: segments, floor: max(t.man.Closed.Head, s.floor(t.id))}
	if err = r.run(ctx); err == nil && !clean {
		err = r.repair()
	}
	if err == nil && clean && t.man.Closed.Head != ix.seq {
		err = &layer.CorruptError{File: s.manifests.path(t.id), Offset: 72, Expected: fmt.Sprintf("head %d", ix.seq), Found: fmt.Sprint(t.man.Closed.Head)}
	}
	if err != nil {
		ix.release()
		return nil, end{}, fmt.Errorf("read log: %w", err)
	}
	if !clean {
		s.slog.Info("log recovered", "timeline", t.id, "seq", ix.seq, "count", len(segments))
	}
	s.keep(t, ix, r.end)
	return ix, r.end, nil
}

// base gives the index with which a timeline begins.
func (s *Store) base(ctx context.Context, t *timeline) (*index, error) {
	if t.parent.Timeline == "" {
		return newIndex(), nil
	}
	return s.indexAt(ctx, t.parent)
}

// indexAt gives a new index of a timeline at one of its points. It reads no
// log when the point is the head of an idle timeline whose index is kept.
func (s *Store) indexAt(ctx context.Context, p tarn.Point) (*index, error) {
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
	s.mu.Lock()
	held := t.volume != nil
	s.mu.Unlock()
	if !held {
		seq, _, err := s.summary(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("read timeline %s: %w", p, err)
		}
		if seq == p.Seq {
			ix, _, err := s.head(ctx, t)
			if err != nil {
				return nil, fmt.Errorf("read timeline %s: %w", p, err)
			}
			return ix.clone(), nil
		}
	}
	ix, err := s.base(ctx, t)
	if err != nil {
		return nil, err
	}
	segments, err := s.ownSegments(t)
	r := replay{store: s, of: t, ix: ix, segments: segments, upTo: p.Seq, floor: p.Seq}
	if err == nil {
		err = r.run(ctx)
	}
	if err != nil {
		ix.release()
		return nil, fmt.Errorf("read timeline %s: %w", p, err)
	}
	ix.marks = nil
	return ix, nil
}

// replay puts the records of a timeline's own segments onto an index.
type replay struct {
	store    *Store
	of       *timeline
	ix       *index
	segments []fileInfo
	upTo     tarn.Seq // stop there; 0 = at the end
	floor    tarn.Seq // the log once reached there

	end      end
	durable  int64               // of the last segment: known to be on disk before this
	torn     *layer.CorruptError // where the last segment read ended
	headless *segment            // a last segment without a whole header
}

func (r *replay) run(ctx context.Context) error {
	r.end.seq = r.ix.seq
	c := r.of.man.Closed
	for i, info := range r.segments {
		if r.upTo != 0 && r.ix.seq >= r.upTo {
			break
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		number := uint32(i + 1)
		whole := int64(0)
		if number == c.Segment {
			whole = c.Bytes
		}
		if err := r.segment(info, number, whole); err != nil {
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

// segment reads one segment.
func (r *replay) segment(info fileInfo, number uint32, whole int64) error {
	seg := newSegment(r.store.files, r.of.dir(r.store), number)
	seg.retain()
	defer seg.release() // the index keeps its own hold
	f, err := seg.open()
	if err != nil {
		return err
	}
	sc, err := layer.NewScanner(layer.Source{R: f, File: seg.path, Size: info.Size, Whole: whole,
		Want: layer.Header{Timeline: r.of.id, Segment: number, FirstSeq: r.ix.seq}})
	if err != nil {
		var bad *layer.CorruptError
		switch {
		case !errors.As(err, &bad):
			return err
		case r.torn != nil: // the one before ended too early
			return fmt.Errorf("%w, though segment %d follows", r.torn, number)
		case r.upTo == 0 && bad.Offset < 16 && r.neverBegun(f, number):
			r.headless = seg
			return nil
		}
		return err
	}
	line := r.ix.addSegment(seg)
	for (r.upTo == 0 || r.ix.seq < r.upTo) && sc.Next() {
		rec := sc.Record()
		var ref pageRef
		if rec.Kind == layer.KindPage {
			_, block := sc.Page()
			ref = makeRef(makePlace(line, block), rec.CRC)
		}
		if err := r.ix.apply(rec, ref); err != nil {
			return &layer.CorruptError{File: seg.path, Offset: sc.End(), Expected: "a record that can be applied before here", Found: err.Error()}
		}
		r.ix.seq = sc.Seq()
	}
	r.torn, r.durable = sc.Torn(), sc.Durable()
	r.end.last, r.end.line, r.end.block = seg, line, uint32(sc.End()/layer.BlockSize)
	return sc.Err()
}

// neverBegun reports whether a segment without a whole header can be what a
// crash left of making it: the last one, and without any batch, since batches
// are written after the header was synced.
func (r *replay) neverBegun(f file, number uint32) bool {
	if int(number) != len(r.segments) || number <= r.of.man.Closed.Segment {
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
