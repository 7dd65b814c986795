package compute

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/wal"
)

// fork makes an unpublished child of s.Source. The caller holds the child; the
// parent is held only while its pages are pinned and its WAL is linked.
func (k *maker) fork(ctx context.Context, s tarn.TimelineSpec) (timeline, error) {
	// Postgres's clock ticks in microseconds.
	at := target{time: s.Time.UTC().Truncate(time.Microsecond), lsn: s.LSN}
	if s.Time.IsZero() {
		at.time = time.Time{}
	}
	t, r, err := k.pin(ctx, s, at)
	if err != nil || r == nil {
		return t, err
	}
	return k.replay(ctx, t, *r)
}

// pin takes from the parent all that the child needs. When the child must still
// replay WAL, it says which.
func (k *maker) pin(ctx context.Context, s tarn.TimelineSpec, at target) (timeline, *replay, error) {
	release, err := k.holds.take(ctx, string(s.Source))
	if err != nil {
		return timeline{}, nil, err
	}
	defer release()
	source, ok := k.records.known(s.Source)
	switch {
	case !ok:
		return timeline{}, nil, fmt.Errorf("source: %w", k.records.missing(s.Source))
	case s.PGVersion != 0 && s.PGVersion != source.PGVersion:
		return timeline{}, nil, tarn.Invalid("source timeline %s is of Postgres %d, not %d", s.Source, source.PGVersion, s.PGVersion)
	}
	if err := k.present(ctx, source.ID); err != nil {
		return timeline{}, nil, err
	}
	child := timeline{ID: s.ID, PGVersion: source.PGVersion, Source: source.ID, History: s.History}
	if e := k.serving(source.ID); e != nil {
		return k.pinRunning(ctx, e, source, child, at)
	}
	return k.pinStopped(ctx, source, child, at)
}

// pinRunning forks a timeline whose Postgres runs and may be written.
//
// As it is now:
//
//  1. Pin the pages at S.
//  2. Learn L, the end of a record with everything before it on disk. Pages
//     reach the volume after their WAL, so L covers every page at S.
//  3. Mark the parent: S, L, now. The work is not wasted.
//  4. Equip the child with its WAL; its first start recovers from there.
//
// No WAL is lost between 1 and 4: what a checkpoint removes from pg_wal it has
// put into the archive before.
func (k *maker) pinRunning(ctx context.Context, e *engine, source, child timeline, at target) (timeline, *replay, error) {
	s, err := e.connect(ctx)
	if err != nil {
		return child, nil, err
	}
	defer s.close(ctx)
	if !at.isNow() {
		to := tarn.Mark{Time: time.Now().UTC()}
		if _, err := s.flush(ctx, "a replay may end here"); err != nil {
			return child, nil, err
		}
		if to.LSN, err = s.flushed(ctx); err != nil {
			return child, nil, err
		}
		return k.pinPast(ctx, source, child, at, to)
	}
	if k.store.PageWrites() == tornPages {
		if err := s.shortenReplay(ctx); err != nil {
			return child, nil, err
		}
	}
	point, err := k.store.Fork(ctx, e.timeline, child.ID)
	if err != nil {
		return child, nil, err
	}
	m := tarn.Mark{Seq: point.Seq}
	if m.LSN, err = s.flush(ctx, "fork "+string(child.ID)); err != nil {
		return child, nil, err
	}
	m.Time = time.Now().UTC()
	if err := e.volume.Mark(ctx, m); err != nil {
		return child, nil, err
	}
	child.ForkLSN, child.ForkTime = m.LSN, m.Time
	_, err = k.equip(ctx, e.wal, child, m, markBeginning)
	return child, nil, err
}

// pinStopped forks a timeline on which no Postgres runs. Its end mark says what
// a running one would be asked.
func (k *maker) pinStopped(ctx context.Context, source, child timeline, at target) (timeline, *replay, error) {
	now := time.Now().UTC()
	end, err := k.settle(ctx, source)
	if err != nil {
		return child, nil, err
	}
	to := tarn.Mark{Seq: end.Seq, LSN: end.LSN, Time: now}
	// Nothing happened after the end mark, so a time behind it is the end too.
	atEnd := at.isNow() || at.lsn == end.LSN || at.lsn == 0 && at.covers(end) && !at.time.After(now)
	if !atEnd {
		return k.pinPast(ctx, source, child, at, to)
	}
	st, err := k.store.Stat(ctx, source.ID)
	if err != nil {
		return child, nil, err
	}
	w, _ := source.window(st.Marks, to)
	if err := w.Check(at.time, at.lsn); err != nil {
		return child, nil, err
	}
	if _, err := k.store.Fork(ctx, source.ID, child.ID); err != nil {
		return child, nil, err
	}
	child.ForkLSN, child.ForkTime = end.LSN, now
	if !at.time.IsZero() {
		child.ForkTime = at.time
	}
	_, err = k.equip(ctx, k.walOf(source.ID), child, end, markBeginning)
	return child, nil, err
}

// pinPast pins the pages at the newest mark that the target covers, and WAL for
// a replay from there to the target. to is the end of the parent's WAL on disk.
func (k *maker) pinPast(ctx context.Context, source, child timeline, at target, to tarn.Mark) (timeline, *replay, error) {
	st, err := k.store.Stat(ctx, source.ID)
	if err != nil {
		return child, nil, err
	}
	w, marks := source.window(st.Marks, to)
	if err := w.Check(at.time, at.lsn); err != nil {
		return child, nil, err
	}
	m, ok := chooseMark(marks, at)
	if !ok {
		return child, nil, fmt.Errorf("no mark before the target in a window that begins with one")
	}
	if err := k.store.ForkAt(ctx, tarn.Point{Timeline: source.ID, Seq: m.Seq}, child.ID); err != nil {
		return child, nil, err
	}
	parent := k.walOf(source.ID)
	r, err := k.equip(ctx, parent, child, m, replayFirst)
	if err != nil {
		return child, nil, err
	}
	r.To = to.LSN
	if err := parent.Restore(ctx, k.walOf(child.ID), r); err != nil {
		return child, nil, err
	}
	return child, &replay{from: m, to: at}, nil
}

// beginning says whether a child is complete as soon as it is equipped.
type beginning uint8

const (
	// markBeginning children are: a mark of their own at their beginning lets
	// them be forked at any time from now on.
	markBeginning beginning = iota
	// replayFirst children are marked when their replay has ended.
	replayFirst
)

// equip makes a pinned child independent: its own WAL up to the mark, and
// nothing that belongs to the parent's consumers. It returns the range of its
// WAL.
func (k *maker) equip(ctx context.Context, parent *wal.Log, child timeline, m tarn.Mark, b beginning) (r wal.Range, err error) {
	v, err := k.store.OpenVolume(ctx, child.ID)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	c, err := readControl(v)
	if err != nil {
		return r, err
	}
	r = wal.Range{TLI: c.TLI, From: c.Redo, To: m.LSN, SegmentBytes: c.SegmentBytes}
	if err := parent.Fork(ctx, k.walOf(child.ID), r); err != nil {
		return r, err
	}
	if err := detachFork(v); err != nil || b == replayFirst {
		return r, err
	}
	return r, v.Mark(ctx, tarn.Mark{Seq: v.Head(), LSN: m.LSN, Time: time.Now().UTC()})
}

// settle returns the mark at the end of a timeline on which no Postgres runs.
// Where there is none, because its Postgres or its node was killed, Postgres
// recovers and shuts down cleanly. The caller holds the timeline.
func (k *maker) settle(ctx context.Context, t timeline) (tarn.Mark, error) {
	m, ok, err := k.settled(ctx, t)
	if err != nil || ok {
		return m, err
	}
	in, err := k.install(t.PGVersion)
	if err != nil {
		return tarn.Mark{}, err
	}
	e, err := k.openEngine(ctx, engineName(t.ID), t.ID)
	if err != nil {
		return tarn.Mark{}, err
	}
	settings, err := k.ownSettings(t.ID)
	if err == nil {
		err = e.start(ctx, in, settings)
	}
	if err != nil {
		return tarn.Mark{}, errors.Join(fmt.Errorf("recover timeline %s: %w", t.ID, err), e.wreck(ctx))
	}
	if err := e.stop(ctx); err != nil {
		return tarn.Mark{}, fmt.Errorf("recover timeline %s: %w", t.ID, err)
	}
	if m, ok, err = k.settled(ctx, t); err == nil && !ok {
		err = fmt.Errorf("recover timeline %s: it has no mark at its end", t.ID)
	}
	return m, err
}

// settled returns the mark at the end of a timeline on which no Postgres runs,
// if it is the end of its WAL too. That nothing was written behind a mark is not
// enough: what a killed Postgres acknowledged may be in its WAL alone. So either
// it shut down cleanly, or it never ran since the timeline was forked: its only
// mark is then at the LSN of the fork. One mark alone says nothing, since the
// storage lets go of old ones. And what came back from the object store may have
// run after the pages that did.
func (k *maker) settled(ctx context.Context, t timeline) (m tarn.Mark, ok bool, err error) {
	st, err := k.store.Stat(ctx, t.ID)
	if err != nil {
		return m, false, err
	}
	m, ok = endMark(st.Marks, st.Head)
	if !ok || len(st.Marks) == 1 && m.LSN == t.ForkLSN && t.BackLSN <= t.ForkLSN {
		return m, ok, nil
	}
	v, err := k.store.OpenVolume(ctx, t.ID)
	if err != nil {
		return m, false, err
	}
	c, err := readControl(v)
	if err := errors.Join(err, v.Close()); err != nil {
		return m, false, err
	}
	return m, c.State == postgres.StateShutDown, nil
}
