package pagestore

import (
	"context"
	"fmt"
	"slices"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// Rewind makes a timeline show at its head what it showed at one of its marks.
// Seqs go on, and so does the log: what was written since the mark is not
// visible any more at the head, nor in marks behind it, and is garbage where
// nothing else keeps it. The timeline is closed. Rewinding to the head does
// nothing.
//
//  1. append a record that says the mark again, synced     crash: the head is as
//  2. manifest with where the log ends now                 it was, and the mark
//  3. a map at that seq of what the mark showed, synced    is there twice
//  4. manifest that lists the map and says that nothing    crash: either
//     before it may stand in for it
func (l Lines) Rewind(ctx context.Context, id tarn.TimelineID, to tarn.Mark) error {
	s := l.s
	t, err := s.take(ctx, id)
	if err != nil {
		return fmt.Errorf("rewind timeline %s: %w", id, err)
	}
	defer t.pass()
	s.mu.Lock()
	idle := t.state == stateIdle
	s.mu.Unlock()
	if !idle {
		err = tarn.Conflict("it is open")
	} else if err = s.remote.own(ctx, t); err == nil {
		err = l.rewind(ctx, t, to)
	}
	if err != nil {
		return fmt.Errorf("rewind timeline %s to seq %d: %w", id, to.Seq, err)
	}
	return nil
}

// rewind rewinds an idle timeline. The caller has the turn.
func (l Lines) rewind(ctx context.Context, t *timeline, to tarn.Mark) error {
	s := l.s
	ix, e, err := s.head(ctx, t)
	if err != nil {
		return err
	}
	defer ix.release()
	kept := slices.IndexFunc(ix.marks, func(m tarn.Mark) bool { return m == to })
	switch {
	case to.Seq == ix.seq:
		return nil
	case kept < 0:
		return tarn.Invalid("there is no such mark").WithHint("choose one of the timeline's marks")
	}
	past, err := l.indexHere(ctx, t, to.Seq)
	if err != nil {
		return err
	}
	defer past.release()
	if e, err = l.repeatMark(t, ix, e, to); err != nil {
		return err
	}
	if err := s.putClosed(t, ix, e, nil); err != nil {
		return err
	}
	past.seq, past.next = e.seq, max(past.next, ix.next)
	past.marks = nil
	for _, m := range ix.marks {
		if m.Seq <= to.Seq && !slices.Contains(past.marks, m) {
			past.marks = append(past.marks, m)
		}
	}
	past.behind.Store(0)
	m := s.newMapping(t, past, position{e.last.id.Number, e.block})
	if err := m.write(ctx); err != nil {
		return err
	}
	err = s.amend(t, func(man *manifest) {
		m.list(man)
		man.Rewound = e.seq
		man.Closed.Marks = past.marks
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	t.due = true
	s.mu.Unlock()
	s.slog.Info("timeline rewound", "timeline", t.id, "seq", to.Seq, "lsn", to.LSN)
	return nil
}

// repeatMark appends a mark to the log of an idle timeline.
func (lines Lines) repeatMark(t *timeline, ix *index, e end, m tarn.Mark) (end, error) {
	l := lines.s.newLog(t, ix, e, t.man.Epoch)
	defer l.release()
	r := layer.Record{Kind: layer.KindMark, MarkSeq: uint64(m.Seq), MarkLSN: uint64(m.LSN), Time: int64(nanos(m.Time))}
	if _, err := l.append(nil, &r); err != nil {
		return end{}, err
	}
	if err := ix.apply(&r, 0); err != nil {
		return end{}, err
	}
	if err := l.sync(); err != nil {
		return end{}, err
	}
	ix.seq++
	return l.finish()
}

// indexHere is indexAt of an idle timeline whose turn the caller has.
func (l Lines) indexHere(ctx context.Context, t *timeline, seq tarn.Seq) (*index, error) {
	s := &l.s.shelf
	if t.parent.Timeline != "" && seq <= t.parent.Seq {
		return s.indexAt(ctx, tarn.Point{Timeline: t.parent.Timeline, Seq: seq})
	}
	segments, err := s.ownSegments(t)
	if err != nil {
		return nil, err
	}
	ix, from, err := s.foundation(ctx, t, seq, dropOrphans)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	man := t.man
	s.mu.Unlock()
	r := replay{store: s, of: t, man: man, ix: ix, segments: segments, from: from, upTo: seq, floor: seq, clean: true}
	if ix.seq < seq {
		err = r.run(ctx)
	}
	if err != nil {
		ix.release()
		return nil, fmt.Errorf("read timeline %s@%d: %w", t.id, seq, err)
	}
	return ix, nil
}

// standsIn reports whether a map may stand in for a damaged newer one at a seq,
// 0 = the head: not across a rewinding, which only the map behind it shows.
func (m *manifest) standsIn(f layerFile, seq tarn.Seq) bool {
	return m.Rewound == 0 || (seq == 0 || seq >= m.Rewound) && f.Last >= m.Rewound
}

// NewestMark gives the newest of a timeline's marks whose LSN is at most a
// limit, 0 = any; false without one.
func NewestMark(marks []tarn.Mark, limit tarn.LSN) (newest tarn.Mark, ok bool) {
	for _, m := range marks {
		if (limit == 0 || m.LSN <= limit) && (!ok || m.Seq > newest.Seq || m.Seq == newest.Seq && m.Time.After(newest.Time)) {
			newest, ok = m, true
		}
	}
	return newest, ok
}
