package compute

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tarndb/tarn"
)

// settleAfter is how long a compute that has started is left to its clients.
const settleAfter = 300 * time.Millisecond

// watch looks after an active compute until it must stop (nil: ctx has ended,
// or it was idle and is stopping now) or has crashed. It marks, observes who is
// active and decides on idleness, over one connection.
func (f runner) watch(ctx context.Context, l *life, e *engine) error {
	w := &watcher{f: f.Fleet, l: l, e: e, set: e.set}
	defer w.disconnect(ctx)
	defer w.work.Wait()
	defer w.thaw(ctx) // whatever comes next, it must be able to go on
	f.mu.Lock()
	wait := pollEvery(l.spec.SuspendAfter)
	f.mu.Unlock()
	poll := time.NewTimer(wait)
	defer poll.Stop()
	var stood time.Time
	// A first mark soon after the start, but not among what whoever woke it asks
	// for first: a connection takes as much of the CPU then as theirs.
	check := time.NewTicker(min(settleAfter, f.o.CheckEvery))
	settling := true
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.server.Done():
			if err := e.server.Err(); err != nil {
				return e.explain(l, err)
			}
			return e.explain(l, errors.New("Postgres ended unasked"))
		case <-e.mount.Done():
			return errors.New("the mount of its data directory ended")
		case <-e.lost():
			e.server.Kill() // at once: what it commits is lost
			return overtakenBy(nil)
		case <-e.outrun():
			e.server.Kill()
			return overtakenBy(e.copying.err)
		case now := <-check.C:
			if settling {
				settling = false
				check.Reset(f.o.CheckEvery)
			}
			if !w.rigid {
				w.check(ctx, now)
			}
		case <-l.thaw:
			w.thaw(ctx)
			poll.Reset(wait)
		case now := <-poll.C:
			if w.rigid {
				w.lookFrozen(ctx, now.UTC())
			}
			if !w.rigid && w.observe(ctx) {
				return nil
			}
			if !w.rigid && now.Sub(stood) >= sampleEvery {
				stood = now
				if err := w.stand(ctx); err != nil {
					return err
				}
				w.reload(ctx)
			}
			f.mu.Lock()
			wait = pollEvery(l.spec.SuspendAfter)
			f.mu.Unlock()
			if w.rigid {
				wait = frozenLook
			}
			poll.Reset(wait)
		}
	}
}

type watcher struct {
	f       *Fleet
	l       *life
	e       *engine
	session *session // nil until connected, and after an error
	mark    tarn.Mark
	sick    bool // the last question went without an answer; it was logged
	rigid   bool // it is frozen
	warm    bool // it could not be frozen; not tried again
	work    sync.WaitGroup
	set     map[string]string // the endpoint's settings that Postgres was given last

	followed time.Time // when a replica last had its primary, or could not
}

// ask runs a question on the connection, which it makes when there is none. A
// compute that does not answer is busy, not idle: nothing is decided.
func (w *watcher) ask(ctx context.Context, question func(*session) error) error {
	err := error(nil)
	if w.session == nil {
		w.session, err = w.e.connect(ctx)
	}
	if err == nil {
		err = question(w.session)
	}
	if err == nil {
		w.sick = false
		return nil
	}
	w.disconnect(ctx)
	if !w.sick && ctx.Err() == nil {
		w.sick = true
		w.f.log.Warn("compute not observed", "endpoint", w.l.spec.Endpoint, "err", err)
	}
	return err
}

func (w *watcher) disconnect(ctx context.Context) {
	if w.session != nil {
		w.session.close(ctx)
		w.session = nil
	}
}

// check writes a mark when one is due.
func (w *watcher) check(ctx context.Context, now time.Time) {
	if w.e.replica {
		return
	}
	// ask has logged what went wrong; the next check tries again.
	_ = w.ask(ctx, func(s *session) error {
		lsn, err := s.flushed(ctx)
		if err != nil || !needsMark(w.mark, lsn, now, w.f.o.MarkEvery, w.f.o.MarkWAL) {
			return err
		}
		seq, ok, err := w.e.volume.Pin(ctx)
		if err != nil {
			return fmt.Errorf("pin timeline %s: %w", w.e.timeline, err)
		}
		if !ok {
			return nil
		}
		m := tarn.Mark{Seq: seq}
		if m.LSN, err = s.flushed(ctx); err != nil {
			return err
		}
		m.Time = time.Now().UTC()
		if err := w.e.volume.Mark(ctx, m); err != nil {
			return fmt.Errorf("mark timeline %s: %w", w.e.timeline, err)
		}
		w.mark = m
		return nil
	})
}

// observe learns who is active. It returns true when the compute was idle long
// enough and is stopping now: a Wake that comes later waits for the next life.
func (w *watcher) observe(ctx context.Context) bool {
	var a activity
	err := w.ask(ctx, func(s *session) error {
		var err error
		a, err = s.activity(ctx)
		return err
	})
	now := time.Now().UTC()
	w.resize(now, a)
	if err != nil {
		return false
	}
	f, l := w.f, w.l
	f.mu.Lock()
	l.status.LastActive = lastActive(l.status.LastActive, now, a)
	last, spec := l.status.LastActive, l.spec
	idle := isIdle(last, now, spec.SuspendAfter) && !f.closed
	if idle {
		l.move(tarn.ComputeStopping, "")
	}
	f.mu.Unlock()
	if !idle && !w.warm && canFreeze(spec, last, now, a) {
		w.check(ctx, now)
		w.freeze(ctx, last)
	}
	return idle
}
