package compute

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/wal"
)

// The record of a fork is in the object store before whoever asked for the fork
// hears of it (copyAtOnce), its pages seconds later. When the computer is lost in
// between, the record says all that is needed to make it again: where it began.
// What was written in it since is lost.
//
//	unmade ──remake──▶ here
//	  └──────────────▶ lost: what it began in did not come back up to there
//
// timelines/<id>.unmade, without content, says that a timeline is unmade though
// it has a record. It is of this data directory alone.

const unmadeExtension = ".unmade"

func (r *records) unmadePath(id tarn.TimelineID) string {
	return filepath.Join(r.dir, string(id)+unmadeExtension)
}

// unmake notes that a timeline is to be made again; made that it was.
func (r *records) unmake(id tarn.TimelineID) error {
	err := errors.Join(writeSynced(r.unmadePath(id), nil), syncDir(r.dir))
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.unmade[id] = true
	}
	return err
}

func (r *records) made(id tarn.TimelineID) error {
	err := errors.Join(removeFile(r.unmadePath(id)), syncDir(r.dir))
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.unmade, id)
	}
	return err
}

// loadUnmade notes whether a timeline is unmade.
func (r *records) loadUnmade(id tarn.TimelineID) error {
	_, err := os.Lstat(r.unmadePath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	r.unmade[id] = true
	return err
}

// isUnmade tells whether a timeline has a record and is still to be made.
func (r *records) isUnmade(id tarn.TimelineID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unmade[id]
}

// canRemake tells whether a timeline whose pages the object store does not have
// can be made again. Only a new data directory may: in one that was overtaken,
// what is missing was deleted by another computer.
func (k rebuilder) canRemake(t timeline) bool {
	return k.copies != nil && t.Source != "" && t.Short == 0 && (k.records.fetched || k.records.isUnmade(t.ID))
}

// clearUnmade removes what a crash left while a timeline was made again.
func (k rebuilder) clearUnmade(ctx context.Context, id tarn.TimelineID) error {
	if err := k.store.Delete(ctx, id); err != nil && tarn.KindOf(err) != tarn.KindNotFound {
		return err
	}
	return k.walOf(id).Remove()
}

// remake makes a timeline again where it began. The caller holds it.
//
//  1. Remove what an earlier try left.
//  2. Fork what it began in, at that LSN.      crash: it is unmade still, and 1
//  3. Publish its record, with how far it is.  crash: the same
//  4. It is made.                              crash: either
func (k rebuilder) remake(ctx context.Context, id tarn.TimelineID) (p wal.Position, err error) {
	t, ok := k.records.known(id)
	if !ok {
		return p, k.records.missing(id)
	}
	if err := k.clearUnmade(ctx, id); err != nil {
		return p, err
	}
	k.rest.note(id) // its pages wait for its WAL
	again, err := k.forkAgain(ctx, t)
	if err == nil {
		again.Since, again.BackLSN, again.BackTime = t.Since, again.ForkLSN, again.ForkTime
		err = k.retain(ctx, again)
	}
	if err == nil { // what was written in it is lost, and what began there
		err = k.partShort(id, wal.Position{To: again.ForkLSN})
	}
	if err == nil {
		err = k.records.publish(again)
	}
	if err == nil {
		err = k.records.made(id)
	}
	if err != nil {
		return p, errors.Join(err, k.clearUnmade(context.WithoutCancel(ctx), id))
	}
	k.log.Warn("the object store had none of the timeline's pages: it was made again as it began", "timeline", string(id), "lsn", again.ForkLSN.String())
	return wal.Position{From: again.ForkLSN, To: again.ForkLSN, Time: again.ForkTime}, nil
}

func (k rebuilder) forkAgain(ctx context.Context, t timeline) (timeline, error) {
	s := tarn.TimelineSpec{ID: t.ID, PGVersion: t.PGVersion, Source: t.Source, LSN: t.ForkLSN, History: t.History}
	source, ok := k.records.known(t.Source)
	if !ok {
		return t, tarn.Unavailable("what it was made from is not there: %w", k.records.missing(t.Source)).WithHint(lostHint)
	}
	if source.Template { // it never changes
		s.LSN = 0
	}
	if err := k.sourceBack(ctx, t.Source); err != nil {
		return t, err
	}
	if now, _ := k.records.known(t.ID); now.Short != 0 {
		return t, shortOf(now)
	}
	again, err := k.fork(ctx, s)
	if tarn.KindOf(err) == tarn.KindInvalid {
		err = tarn.Unavailable("make it again as it began: %w", err).WithHint(lostHint)
	}
	return again, err
}

// sourceBack brings back what a timeline began in, which then has told whether it
// came back as far as that (partShort).
func (k rebuilder) sourceBack(ctx context.Context, id tarn.TimelineID) error {
	release, err := k.holds.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer release()
	return k.present(ctx, id)
}

func shortOf(t timeline) error {
	return tarn.Unavailable("the object store has what it was made from up to %s only, and it began at %s", t.Short, t.ForkLSN).WithHint(lostHint)
}

// partShort notes, before a timeline goes on from where its WAL in the object
// store ends, which timelines can never be made again from it: they began behind
// that, and from now on that is another history.
func (k rebuilder) partShort(id tarn.TimelineID, p wal.Position) error {
	for _, child := range k.records.ids() {
		t, ok := k.records.known(child)
		if !ok || t.Source != id || t.ForkLSN <= p.To || !k.records.isUnmade(child) {
			continue
		}
		if source, _ := k.records.known(id); source.Template {
			continue
		}
		t.Short = p.To
		if err := k.records.publish(t); err != nil {
			return err
		}
		k.log.Error("timeline not brought back", "timeline", string(child), "err", shortOf(t))
	}
	return nil
}

// unmade tells of a timeline that is still to be made.
func (f *Fleet) unmade(t timeline) tarn.TimelineStatus {
	st := tarn.TimelineStatus{ID: t.ID, ForkLSN: t.ForkLSN, ForkTime: t.ForkTime, Copy: f.copyOf(t)}
	if t.Short != 0 {
		st.Copy = &tarn.CopyState{Away: true, Problem: fmt.Sprint(shortOf(t))}
	}
	return st
}
