package compute

import (
	"context"
	"fmt"
	"time"

	"github.com/tarndb/tarn"
)

// copyOf tells how far the object store has a timeline; nil without one.
func (f *Fleet) copyOf(t timeline) *tarn.CopyState {
	if f.o.Remote.WAL == nil {
		return nil
	}
	s := &tarn.CopyState{BackLSN: t.BackLSN, BackTime: t.BackTime}
	if why, ok := f.maker.away.has(t.ID); ok {
		s.Away = true
		if why != nil {
			s.Problem = why.Error()
		}
		return s
	}
	if e := f.serving(t.ID); e != nil && e.copying != nil {
		lag := e.copying.uploader.Lag()
		s.LagBytes, s.LagAge = lag.Bytes, lag.Age
		return s
	}
	s.Waiting = !f.rest.isCopied(t.ID)
	return s
}

// mayLeave is asked before the object store lists pages of a timeline: all that
// was written before the call. They may leave when the object store has the
// record that makes the timeline exist, and the WAL that made the pages.
func (f *Fleet) mayLeave(ctx context.Context, id tarn.TimelineID) error {
	t, ok := f.records.known(id)
	if !ok {
		return nil // a ghost that others began in, or one that is not complete: without a record Open clears it away
	}
	if f.maker.copies != nil && !f.maker.copies.isCopied(t) {
		f.records.tell()
		return tarn.Unavailable("the record of timeline %s is not in the object store yet", id)
	}
	e := f.serving(id)
	if e == nil || e.copying == nil {
		if f.rest.isCopied(id) {
			return nil
		}
		f.rest.wake()
		return tarn.Unavailable("the end of the WAL of timeline %s is not in the object store yet", id)
	}
	return e.walArrives(ctx)
}

// arrivalPatience is how long pages wait for WAL before they are asked for
// again.
const arrivalPatience = 10 * time.Second

// walArrives waits until all WAL that is on disk now is in the object store.
func (e *engine) walArrives(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, arrivalPatience)
	defer cancel()
	ask := flushedAsk{e: e}
	defer ask.close(context.WithoutCancel(ctx))
	lsn, err := ask.flushed(limit)
	if err != nil {
		return fmt.Errorf("ask how far WAL of timeline %s is on disk: %w", e.timeline, err)
	}
	return e.copying.uploader.Flush(limit, lsn)
}
