package compute

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tarndb/tarn"
)

// past answers a fleet's callers what concerns the past of timelines.
type past struct {
	maker *maker
	enter func() (leave func(), err error) // of the fleet
}

// Window tells what of a timeline's past it can be forked at. A timeline whose
// Postgres was killed is recovered for that.
func (p *past) Window(ctx context.Context, id tarn.TimelineID) (tarn.Window, error) {
	leave, err := p.enter()
	if err != nil {
		return tarn.Window{}, err
	}
	defer leave()
	w, err := p.maker.window(ctx, id)
	if err != nil {
		return tarn.Window{}, fmt.Errorf("look at the window of timeline %s: %w", id, err)
	}
	return w, nil
}

func (k *maker) window(ctx context.Context, id tarn.TimelineID) (tarn.Window, error) {
	release, err := k.holds.take(ctx, string(id))
	if err != nil {
		return tarn.Window{}, err
	}
	defer release()
	t, ok := k.records.known(id)
	if !ok {
		return tarn.Window{}, k.records.missing(id)
	}
	if err := k.present(ctx, id); err != nil {
		return tarn.Window{}, err
	}
	to := tarn.Mark{Time: time.Now().UTC()}
	if e := k.serving(id); e != nil {
		s, err := e.connect(ctx)
		if err != nil {
			return tarn.Window{}, err
		}
		defer s.close(ctx)
		to.LSN, err = s.flushed(ctx)
		if err != nil {
			return tarn.Window{}, err
		}
	} else {
		end, err := k.settle(ctx, t)
		if err != nil {
			return tarn.Window{}, err
		}
		to.Seq, to.LSN = end.Seq, end.LSN
	}
	st, err := k.store.Stat(ctx, id)
	if err != nil {
		return tarn.Window{}, err
	}
	w, _ := t.window(st.Marks, to)
	return w, nil
}

// window gives what of the timeline's past, up to to, it can be forked at, and
// the marks at which a replay to a target in it may begin.
func (t timeline) window(marks []tarn.Mark, to tarn.Mark) (tarn.Window, []tarn.Mark) {
	// Both ends are said and asked for in microseconds: what is printed is inside.
	to.Time = to.Time.Truncate(time.Microsecond)
	w := tarn.Window{From: to, To: to, History: t.history()}
	if w.History <= 0 {
		return w, nil
	}
	horizon := to.Time.Add(-w.History)
	if t.Since.After(horizon) {
		horizon = t.Since
	}
	kept := retained(marks, horizon)
	if len(kept) == 0 {
		return w, nil
	}
	w.From = slices.MinFunc(kept, func(a, b tarn.Mark) int { return cmp.Compare(a.Seq, b.Seq) })
	w.Whole = len(kept) == len(marks)
	if w.From.Time.Before(horizon) {
		// The mark is older than anything that may be asked for: what was
		// promised ends here.
		w.From.Time, w.Whole = horizon, false
	}
	w.From.Time = w.From.Time.Add(time.Microsecond - 1).Truncate(time.Microsecond)
	return w, kept
}

// SetHistory changes how far back a timeline can be forked: 0 = the default,
// negative = not at all. What a shorter history lets go is gone for good, soon.
//
//  1. The record says so: targets outside are refused.
//  2. The page store may let go of the points before. A crash between leaves it
//     keeping too much, until it is asked again.
func (p *past) SetHistory(ctx context.Context, id tarn.TimelineID, d time.Duration) error {
	leave, err := p.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := p.maker.setHistory(ctx, id, d); err != nil {
		return fmt.Errorf("set the history of timeline %s: %w", id, err)
	}
	return nil
}

func (k *maker) setHistory(ctx context.Context, id tarn.TimelineID, d time.Duration) error {
	release, err := k.holds.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer release()
	t, ok := k.records.known(id)
	if !ok {
		return tarn.NotFound("timeline %s does not exist", id)
	}
	if t.History != d {
		t = t.withHistory(d, time.Now())
		if err := k.records.publish(t); err != nil {
			return err
		}
	}
	return k.retain(ctx, t)
}

// forgetful is storage that lets go of points longer ago than it was told to
// keep them; other storage keeps all that it has.
type forgetful interface {
	SetHistory(ctx context.Context, id tarn.TimelineID, d time.Duration) error
}

// retain tells the storage how long the points of a timeline are wanted.
func (k *maker) retain(ctx context.Context, t timeline) error {
	s, ok := k.store.(forgetful)
	if !ok {
		return nil
	}
	return s.SetHistory(ctx, t.ID, t.history())
}

// DropSlots removes what belongs to the consumers of a timeline that begins to
// serve another branch: they go on elsewhere, and slots that nobody reads would
// keep its WAL for ever. No compute may run on it. Doing it again is harmless.
//
//  1. Empty the directories of slots and of logical decoding. A crash leaves
//     them half emptied, and the timeline one that recovers at its next start.
//  2. Mark the end again where there was an end mark.
func (p *past) DropSlots(ctx context.Context, id tarn.TimelineID) error {
	leave, err := p.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := p.maker.dropSlots(ctx, id); err != nil {
		return fmt.Errorf("drop the slots of timeline %s: %w", id, err)
	}
	return nil
}

func (k *maker) dropSlots(ctx context.Context, id tarn.TimelineID) (err error) {
	release, err := k.holds.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer release()
	t, ok := k.records.known(id)
	switch {
	case !ok:
		return tarn.NotFound("timeline %s does not exist", id)
	case k.serving(id) != nil:
		return tarn.Unavailable("a compute runs on it")
	}
	if err := k.present(ctx, id); err != nil {
		return err
	}
	end, settled, err := k.settled(ctx, t)
	if err != nil {
		return err
	}
	if err := k.closeStuck(id); err != nil {
		return err
	}
	v, err := k.store.OpenVolume(ctx, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	before := v.Head()
	if err := detachFork(v); err != nil {
		return err
	}
	if !settled || v.Head() == before {
		return nil
	}
	return v.Mark(ctx, tarn.Mark{Seq: v.Head(), LSN: end.LSN, Time: time.Now().UTC()})
}
