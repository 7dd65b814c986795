package compute

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tarndb/tarn"
)

// atRest are timelines whose WAL may not be in the object store though no
// compute writes it.
type atRest struct {
	kick chan struct{} // holds a token when there is a new one

	mu      sync.Mutex // guards what follows; not held across I/O
	due     map[tarn.TimelineID]bool
	busy    tarn.TimelineID              // the one that is being copied; "" = none
	cancel  func()                       // ends that
	serving map[tarn.TimelineID]*copying // those that a compute copies
	moved   chan struct{}                // closed and replaced when any of it changed
}

func newAtRest() *atRest {
	return &atRest{kick: make(chan struct{}, 1), due: map[tarn.TimelineID]bool{}, serving: map[tarn.TimelineID]*copying{}, moved: make(chan struct{})}
}

// change does something under mu and tells whoever waits.
func (a *atRest) change(do func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	do()
	close(a.moved)
	a.moved = make(chan struct{})
}

// add asks for timelines to be copied at once.
func (a *atRest) add(ids ...tarn.TimelineID) {
	for _, id := range ids {
		a.note(id)
	}
	a.wake()
}

// note asks for a timeline to be copied with the next round.
func (a *atRest) note(id tarn.TimelineID) { a.change(func() { a.due[id] = true }) }

func (a *atRest) wake() {
	select {
	case a.kick <- struct{}{}:
	default: // there is one already
	}
}

// serve says that a compute copies a timeline; leave that it does not any more,
// and that what it has not copied is due.
func (a *atRest) serve(id tarn.TimelineID, w *copying) { a.change(func() { a.serving[id] = w }) }

func (a *atRest) leave(id tarn.TimelineID) {
	a.change(func() {
		delete(a.serving, id)
		a.due[id] = true
	})
}

// begin makes a timeline busy instead of due; cancel ends the copying.
func (a *atRest) begin(id tarn.TimelineID, cancel func()) {
	a.change(func() {
		delete(a.due, id)
		a.busy, a.cancel = id, cancel
	})
}

// interrupt ends the copying of a timeline that is busy, and returns when it has
// ended: of two that copy one timeline, the later run would make void what the
// other writes behind its beginning.
func (a *atRest) interrupt(id tarn.TimelineID) {
	for {
		a.mu.Lock()
		busy, cancel, moved := a.busy == id, a.cancel, a.moved
		a.mu.Unlock()
		if !busy {
			return
		}
		cancel()
		<-moved
	}
}

// end makes no timeline busy; one that was not copied is due again.
func (a *atRest) end(err error) {
	a.change(func() {
		if err != nil && a.busy != "" {
			a.due[a.busy] = true
		}
		a.busy, a.cancel = "", nil
	})
}

// isCopied tells whether nothing of a timeline at rest is missing.
func (a *atRest) isCopied(id tarn.TimelineID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.due[id] && a.busy != id
}

func (a *atRest) isDue(id tarn.TimelineID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.due[id]
}

func (a *atRest) remove(id tarn.TimelineID) { a.change(func() { delete(a.due, id) }) }

func (a *atRest) all() []tarn.TimelineID {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.due))
}

// look gives the copying of a timeline that a compute serves; or whether nothing
// of it is missing, and what to wait for.
func (a *atRest) look(id tarn.TimelineID) (w *copying, copied bool, moved <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.serving[id], !a.due[id] && a.busy != id, a.moved
}

// followPatience is how long pages that are uploaded wait for their WAL before
// they are tried again later: others wait behind them.
// What is at rest is given less: it comes when the copier has come by.
const (
	followPatience = 10 * time.Second
	restPatience   = time.Second
)

// follow returns when all WAL that a timeline's pages of now stand on is in the
// object store. Pages reach the volume after their WAL is on disk, so what is
// on disk now covers them: without it they could not become what they were at
// one moment.
func (a *atRest) follow(ctx context.Context, id tarn.TimelineID) error {
	ctx, cancel := context.WithTimeoutCause(ctx, followPatience, tarn.Unavailable("its WAL is not in the object store yet"))
	defer cancel()
	resting := time.NewTimer(restPatience)
	defer resting.Stop()
	for {
		w, copied, moved := a.look(id)
		switch {
		case w != nil:
			err := w.uploader.CatchUp(ctx, w.done)
			if err == nil || ctx.Err() != nil {
				return err
			}
		case copied:
			return nil
		}
		a.wake()
		select {
		case <-moved:
		case <-resting.C:
			return tarn.Unavailable("follow the WAL of timeline %s: it is not in the object store yet", id)
		case <-ctx.Done():
			return fmt.Errorf("follow the WAL of timeline %s: %w", id, context.Cause(ctx))
		}
	}
}
