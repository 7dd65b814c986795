package compute

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tarndb/tarn"
)

// A compute that nobody uses is frozen first: its processes stop where they are,
// its sessions stay open, its page cache is given back. It goes on within a
// millisecond when the gateway says that a client speaks (Wake, at most once a
// second), or when something waits in its sockets that did not come through the
// gateway. Later it is stopped.
//
//	active ──idle, FreezeAfter──▶ frozen ──Wake, unread data──▶ active
//	                                │
//	                                └──idle, SuspendAfter──▶ active ──▶ stopping

const (
	// leastFreeze is twice as long as the gateway waits between two Wakes for a
	// client that speaks: whoever was heard of is not frozen before that would
	// have been said again.
	leastFreeze = 2 * time.Second
	// freezePatience bounds freezing, which takes about a millisecond. What is
	// in the middle of a long read from the volume stops after it.
	freezePatience = 2 * time.Second
	// frozenLook is how often a frozen compute's sockets are looked at.
	frozenLook = time.Second
)

// ice is what an engine's users must know of its being frozen.
type ice struct {
	// thaw lets it go on, and returns when it does; nil for what is never
	// frozen.
	thaw   func(context.Context) error
	frozen atomic.Bool
	// asking is read-held by whoever asks the compute for something on a
	// connection it keeps, and held while it is being frozen.
	asking sync.RWMutex
}

// canFreeze tells whether a compute may be frozen now: nobody has used it for
// long enough, and what it does itself can wait. Walsenders cannot: whoever
// follows would take it for dead.
func canFreeze(s tarn.ComputeSpec, last, now time.Time, a activity) bool {
	after := s.FreezeAfter
	if after <= 0 || a.anybody > 0 || s.SuspendAfter > 0 && after >= s.SuspendAfter {
		return false
	}
	return now.Sub(last) >= max(after, leastFreeze)
}

// freeze freezes the compute, unless somebody comes between. decided is what was
// known to be the last activity when that was decided.
func (w *watcher) freeze(ctx context.Context, decided time.Time) {
	f, l, e := w.f, w.l, w.e
	limit, cancel := context.WithTimeout(ctx, freezePatience)
	defer cancel()
	// A fork asks its parent for more than one thing.
	release, err := f.holds.take(limit, string(e.timeline))
	if err != nil {
		return
	}
	defer release()
	e.ice.asking.Lock()
	defer e.ice.asking.Unlock()
	if e.group != nil {
		err = e.group.Freeze(limit)
	} else {
		err = e.server.Freeze(limit)
	}
	if err == nil {
		w.rigid, err = e.server.Unread()
		w.rigid = !w.rigid && err == nil
	}
	f.mu.Lock()
	w.rigid = w.rigid && !f.closed && l.status.State == tarn.ComputeActive && l.status.LastActive.Equal(decided)
	if w.rigid {
		l.move(tarn.ComputeFrozen, "idle")
	}
	f.mu.Unlock()
	if err != nil {
		f.log.Warn("compute not frozen", "endpoint", l.spec.Endpoint, "err", err)
		w.warm = true
	}
	if !w.rigid {
		w.melt(ctx)
		return
	}
	e.ice.frozen.Store(true)
	f.log.Info("compute frozen", "endpoint", l.spec.Endpoint, "pid", e.server.PID())
	if g := e.group; g != nil {
		w.work.Go(func() {
			if err := g.Reclaim(); err != nil {
				f.log.Debug("memory of a frozen compute not given back", "endpoint", l.spec.Endpoint, "err", err)
			}
		})
	}
}

// melt lets the processes go on, whatever state they are in.
func (w *watcher) melt(ctx context.Context) {
	var err error
	if g := w.e.group; g != nil {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanPatience)
		defer cancel()
		err = g.Thaw(limit)
	} else {
		err = w.e.server.Thaw()
	}
	if err != nil {
		// Postgres cannot go on: end it, the watch sees that and starts again.
		w.f.log.Error("compute not thawed", "endpoint", w.l.spec.Endpoint, "err", err)
		w.e.server.Kill()
	}
}

// thaw makes a frozen compute active again; for others it does nothing.
func (w *watcher) thaw(ctx context.Context) {
	if !w.rigid {
		return
	}
	began := time.Now()
	w.rigid = false
	w.melt(ctx)
	w.e.ice.frozen.Store(false)
	f, l := w.f, w.l
	f.mu.Lock()
	l.move(tarn.ComputeActive, "")
	f.mu.Unlock()
	f.log.Info("compute thawed", "endpoint", l.spec.Endpoint, "took", time.Since(began))
}

// lookFrozen thaws a compute that somebody waits for, or whose time to stop has
// come.
func (w *watcher) lookFrozen(ctx context.Context, now time.Time) {
	f, l := w.f, w.l
	f.mu.Lock()
	over := isIdle(l.status.LastActive, now, l.spec.SuspendAfter)
	f.mu.Unlock()
	waits, err := w.e.server.Unread()
	if err != nil {
		f.log.Warn("frozen compute not observed", "endpoint", l.spec.Endpoint, "err", err)
	}
	if over || waits || err != nil {
		w.thaw(ctx)
	}
	if waits {
		f.mu.Lock()
		l.status.LastActive = now
		f.mu.Unlock()
	}
}
