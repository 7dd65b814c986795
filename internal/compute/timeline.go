package compute

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tarndb/tarn"
)

// maker makes timelines and removes them.
type maker struct {
	*machine
	records *records
	holds   *holds
	away    *away
	copies  *recordCopies // nil without an object store
	// serving is the engine of the compute on a timeline; nil without one. It
	// stays as long as the timeline is held, but for a crash.
	serving func(tarn.TimelineID) *engine
}

// CreateTimeline forks a timeline: from a template of a Postgres version, or
// from Source as it is now or was at a past time or LSN. It is idempotent by
// s.ID. A target that cannot be reached is KindInvalid, and the error names the
// window.
//
// What a crash leaves has no record and is cleared away by Open, or here when
// the same timeline is asked for again.
func (f *Fleet) CreateTimeline(ctx context.Context, s tarn.TimelineSpec) (tarn.TimelineStatus, error) {
	leave, err := f.enter()
	if err != nil {
		return tarn.TimelineStatus{}, err
	}
	defer leave()
	if err := f.maker.createTimeline(ctx, s); err != nil {
		return tarn.TimelineStatus{}, fmt.Errorf("create timeline %s: %w", s.ID, err)
	}
	return f.Timeline(ctx, s.ID)
}

func (k *maker) createTimeline(ctx context.Context, s tarn.TimelineSpec) error {
	if _, err := tarn.ParseTimelineID(string(s.ID)); err != nil {
		return err
	}
	if !s.Time.IsZero() && s.LSN != 0 {
		return tarn.Invalid("want a time or an LSN, not both")
	}
	release, err := k.holds.take(ctx, string(s.ID))
	if err != nil {
		return err
	}
	defer release()
	if _, ok := k.records.known(s.ID); ok {
		return nil
	}
	if s.Source == "" {
		if !s.Time.IsZero() || s.LSN != 0 {
			return tarn.Invalid("a time or an LSN needs a source")
		}
		if s.PGVersion == 0 {
			s.PGVersion = k.o.Installs[0].Major
		}
		if s.Source, err = k.template(ctx, s.PGVersion); err != nil {
			return err
		}
	}
	began := time.Now()
	// Left over from a crash or an earlier failure.
	if err := k.discard(ctx, s.ID); err != nil {
		return err
	}
	k.rest.note(s.ID) // its pages wait for its WAL from the beginning
	t, err := k.fork(ctx, s)
	if err == nil {
		err = k.retain(ctx, t)
	}
	if err == nil {
		err = k.records.publish(t)
	}
	if err != nil {
		return errors.Join(err, k.discard(context.WithoutCancel(ctx), s.ID))
	}
	k.rest.add(s.ID)
	k.copies.copyAtOnce(ctx, t)
	k.log.Info("timeline created", "timeline", string(s.ID), "took", time.Since(began))
	return nil
}

// discard removes what there is of a timeline, its record first; nothing is
// success.
func (k *maker) discard(ctx context.Context, id tarn.TimelineID) error {
	_, elsewhere := k.away.has(id)
	elsewhere = elsewhere || k.records.isLost(id)
	if err := k.records.withdraw(id); err != nil {
		return err
	}
	if err := k.closeStuck(id); err != nil {
		return err
	}
	if _, err := os.Lstat(k.path("wal", string(id))); err == nil || elsewhere { // else nothing of it was ever copied
		if err := k.abandonCopy(id); err != nil {
			return err
		}
	}
	k.away.remove(id)
	if err := k.store.Delete(ctx, id); err != nil && tarn.KindOf(err) != tarn.KindNotFound {
		return err
	}
	return errors.Join(k.walOf(id).Remove(), removeFile(k.path("log", engineName(id)+".log")))
}

// DeleteTimeline stops the computes on a timeline and removes it; timelines that
// were forked from it keep what they share with it. One that does not exist is
// not an error.
//
//  1. Refuse when it is a template; withdraw its record, so that nobody wakes
//     or forks it any more. A crash from here on leaves litter.
//  2. Suspend its computes.
//  3. Remove it from the page store, then its WAL.
func (f *Fleet) DeleteTimeline(ctx context.Context, id tarn.TimelineID) error {
	leave, err := f.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := f.deleteTimeline(ctx, id); err != nil {
		return fmt.Errorf("delete timeline %s: %w", id, err)
	}
	return nil
}

func (f *Fleet) deleteTimeline(ctx context.Context, id tarn.TimelineID) error {
	if _, err := tarn.ParseTimelineID(string(id)); err != nil {
		return err
	}
	if err := f.maker.withdraw(ctx, id); err != nil {
		return err
	}
	f.mu.Lock()
	var endpoints []string
	for endpoint, l := range f.lives {
		if l.spec.Timeline == id {
			endpoints = append(endpoints, endpoint)
		}
	}
	f.mu.Unlock()
	for _, endpoint := range endpoints {
		if err := f.suspend(ctx, endpoint, errDeleted); err != nil {
			return err
		}
	}
	release, err := f.holds.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer release()
	if err := f.maker.discard(ctx, id); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for endpoint, st := range f.last {
		if st.Timeline == id {
			delete(f.last, endpoint)
		}
	}
	f.log.Info("timeline deleted", "timeline", string(id))
	return nil
}

// withdraw withdraws a timeline that is no template. It holds it, so that no
// child is half made.
func (k *maker) withdraw(ctx context.Context, id tarn.TimelineID) error {
	release, err := k.holds.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer release()
	t, ok := k.records.known(id)
	if !ok {
		return nil
	}
	if t.Template {
		return tarn.Conflict("it is the template of Postgres %d", t.PGVersion)
	}
	return k.records.withdraw(id)
}

// Timeline tells of one complete timeline, all its marks included.
func (f *Fleet) Timeline(ctx context.Context, id tarn.TimelineID) (tarn.TimelineStatus, error) {
	t, ok := f.records.known(id)
	if !ok {
		return tarn.TimelineStatus{}, f.records.missing(id)
	}
	if f.records.isUnmade(id) {
		return f.unmade(t), nil
	}
	st, err := f.store.Stat(ctx, id)
	if err != nil {
		return st, fmt.Errorf("look at timeline %s: %w", id, err)
	}
	st.ForkLSN, st.ForkTime, st.Copy = t.ForkLSN, t.ForkTime, f.copyOf(t)
	return st, nil
}

// Timelines tells of all complete timelines but the templates; of their marks,
// which may be thousands, only the first and the last.
func (f *Fleet) Timelines(ctx context.Context) ([]tarn.TimelineStatus, error) {
	all, err := f.store.Timelines(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at timelines: %w", err)
	}
	complete := make([]tarn.TimelineStatus, 0, len(all))
	for _, st := range all {
		t, ok := f.records.known(st.ID)
		if !ok || t.Template || f.records.isUnmade(st.ID) {
			continue
		}
		st.ForkLSN, st.ForkTime, st.Copy = t.ForkLSN, t.ForkTime, f.copyOf(t)
		if n := len(st.Marks); n > 2 {
			st.Marks = []tarn.Mark{st.Marks[0], st.Marks[n-1]}
		}
		complete = append(complete, st)
	}
	for _, id := range f.records.ids() {
		if t, ok := f.records.known(id); ok && f.records.isUnmade(id) {
			complete = append(complete, f.unmade(t))
		}
	}
	for _, id := range f.records.lostIDs() {
		complete = append(complete, tarn.TimelineStatus{ID: id, Copy: &tarn.CopyState{Away: true, Problem: f.records.missing(id).Error()}})
	}
	return complete, nil
}
