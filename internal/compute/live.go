package compute

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
)

// A compute that crashes is started again at once, then after pauses that
// double. One that crashes this often without a steady time in between has
// failed: the next Wake tries anew.
const (
	maxCrashes  = 6
	steadyAfter = time.Minute
	firstPause  = 500 * time.Millisecond
)

// runner runs the lives of a fleet.
type runner struct{ *Fleet }

// live is the whole of a life. ctx ends when somebody asks it to end.
func (f runner) live(ctx context.Context, l *life) {
	crashes := 0
	for {
		began := time.Now()
		begin := f.startLife
		if l.handed != nil {
			begin = func(ctx context.Context, l *life) (*engine, error) {
				defer f.resuming.Done()
				return f.resumeLife(ctx, l)
			}
		}
		e, err := begin(ctx, l)
		if err == nil {
			if crashes > 0 {
				f.log.Info("compute restarted", "endpoint", l.spec.Endpoint, "count", crashes, "took", time.Since(began))
			}
			began = time.Now()
			err = f.watch(ctx, l, e)
			if err == nil {
				if !errors.Is(context.Cause(ctx), errHanding) || !f.handLife(ctx, l, e) {
					f.stopLife(ctx, l, e)
				}
				return
			}
			if time.Since(began) >= steadyAfter {
				crashes = 0
			}
			f.wreckLife(ctx, l, e, err)
			if gone := (overtakenError{}); errors.As(err, &gone) {
				f.endOvertaken(l, err)
				return
			}
		} else if crashes == 0 || ctx.Err() != nil {
			f.endLife(ctx, l, err)
			return
		}
		crashes++
		if crashes >= maxCrashes {
			f.endLife(ctx, l, tarn.Unavailable("its compute ended %d times in a row, at last: %w", crashes, err).
				WithHint("see "+f.path("log", l.spec.Endpoint+".log")))
			return
		}
		if crashes == 1 {
			continue
		}
		pause := time.NewTimer(firstPause << (crashes - 2))
		select {
		case <-ctx.Done():
			pause.Stop()
			f.endLife(ctx, l, context.Cause(ctx))
			return
		case <-pause.C:
		}
	}
}

// startLife brings the compute up and makes it active. The timeline is held
// meanwhile.
func (f runner) startLife(ctx context.Context, l *life) (*engine, error) {
	steps := tarn.BeginSteps()
	f.mu.Lock()
	spec := l.spec
	f.mu.Unlock()
	in, err := f.install(spec.PGVersion)
	if err != nil {
		return nil, err
	}
	settings, err := f.settings(spec)
	if err != nil {
		return nil, err
	}
	var e *engine
	if spec.ReadOnly {
		e, err = f.startReplica(ctx, l, spec, in, settings)
		steps.Done("replica")
	} else {
		e, err = f.startWriter(ctx, l, spec, in, settings, steps)
	}
	if err != nil {
		return nil, err
	}
	e.set = spec.Settings
	e.ice.thaw = func(ctx context.Context) error { return f.awaken(ctx, l) }
	now := time.Now().UTC()
	f.log.Info("compute active", "endpoint", spec.Endpoint, "branch", spec.Branch.String(), "timeline", string(spec.Timeline), "pid", e.server.PID(), "took", steps.Took(), "steps", steps)
	f.mu.Lock()
	defer f.mu.Unlock()
	l.activate(e, now, now)
	l.status.Start = steps.All()
	return e, nil
}

// startWriter runs Postgres on the branch's own timeline. Its steps are queue
// (until it has the timeline to itself, with what of it was elsewhere), volume,
// group, files (what is written before it is shown), mount and those of
// postgres.Server.Steps.
func (f runner) startWriter(ctx context.Context, l *life, s tarn.ComputeSpec, in postgres.Install, settings map[string]string, steps *tarn.Steps) (*engine, error) {
	release, err := f.holds.take(ctx, string(s.Timeline))
	if err != nil {
		return nil, err
	}
	defer release()
	if err := f.maker.present(ctx, s.Timeline); err != nil {
		return nil, err
	}
	steps.Done("queue")
	e, err := f.openEngine(ctx, s.Endpoint, s.Timeline)
	if err != nil {
		return nil, err
	}
	e.steps = steps
	steps.Done("volume")
	if err := e.enter(l, s); err != nil {
		return nil, errors.Join(err, e.wreck(ctx))
	}
	steps.Done("group")
	if err := e.start(ctx, in, settings); err != nil {
		return nil, errors.Join(e.explain(l, err), e.wreck(ctx))
	}
	e.startCopying(ctx)
	return e, nil
}

// activate makes a life whose engine serves active; the caller holds f.mu.
func (l *life) activate(e *engine, started, lastActive time.Time) {
	l.engine = e
	l.move(tarn.ComputeActive, "")
	l.status.PID, l.status.SocketDir, l.status.Port, l.status.Mount = e.server.PID(), e.on.socketDir(e.name), port, e.dataDir()
	l.status.StartTime, l.status.LastActive = started, lastActive
	l.status.CU, l.status.FixedBy = l.size.state.CU, e.on.groups.why
}

// stopLife suspends the compute cleanly and ends the life.
func (f runner) stopLife(ctx context.Context, l *life, e *engine) {
	began := time.Now()
	f.mu.Lock()
	if l.status.State == tarn.ComputeActive { // an idle one is stopping already
		l.move(tarn.ComputeStopping, "")
	}
	f.mu.Unlock()
	why := errIdle
	if ctx.Err() != nil {
		why = context.Cause(ctx)
	}
	// The hold ends only with a fork or a start; neither takes forever, and
	// stopping without it would pull the volume away from under a fork.
	release, err := f.holds.take(context.WithoutCancel(ctx), string(e.timeline))
	if err == nil {
		f.leave(l)
		if e.replica {
			err = f.dropReplica(ctx, e)
		} else {
			err = e.stop(ctx)
		}
		release()
	}
	if err != nil {
		f.log.Error("compute not suspended cleanly", "endpoint", l.spec.Endpoint, "err", err)
	}
	f.log.Info("compute suspended", "endpoint", l.spec.Endpoint, "timeline", string(e.timeline), "took", time.Since(began), "err", why)
	f.end(l, tarn.ComputeStopped, why.Error(), nil)
}

// wreckLife clears away what a crash left; the life goes on with a start.
func (f runner) wreckLife(ctx context.Context, l *life, e *engine, cause error) {
	next := "restarting"
	if gone := (overtakenError{}); errors.As(cause, &gone) {
		next = "ending"
	}
	f.mu.Lock()
	l.move(tarn.ComputeStarting, fmt.Sprintf("%s: %v", next, cause))
	f.mu.Unlock()
	f.log.Error("compute crashed", "endpoint", l.spec.Endpoint, "timeline", string(e.timeline), "err", cause)
	release, err := f.holds.take(context.WithoutCancel(ctx), string(e.timeline))
	if err == nil {
		f.leave(l)
		err = e.wreck(ctx)
		if e.replica {
			err = errors.Join(err, f.maker.discard(context.WithoutCancel(ctx), e.timeline))
		}
		release()
	}
	if err != nil {
		f.log.Error("crashed compute not cleared away", "endpoint", l.spec.Endpoint, "err", err)
	}
}

// leave takes the engine out of sight. The caller holds its timeline: without
// the hold a fork could find no engine and the volume still open.
func (f *Fleet) leave(l *life) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l.engine = nil
}

// endLife ends a life that is starting, without a compute.
func (f runner) endLife(ctx context.Context, l *life, err error) {
	if ctx.Err() == nil {
		f.log.Error("compute failed", "endpoint", l.spec.Endpoint, "timeline", string(l.spec.Timeline), "err", err)
		f.end(l, tarn.ComputeFailed, err.Error(), err)
		return
	}
	why := context.Cause(ctx)
	waiters := error(errSuspended)
	if errors.Is(why, errClosing) || errors.Is(why, errHanding) {
		waiters = errClosing
	}
	f.end(l, tarn.ComputeStopped, why.Error(), waiters)
}

func (f runner) end(l *life, to tarn.ComputeState, message string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l.err = err
	delete(f.lives, l.spec.Endpoint)
	l.move(to, message)
	l.status.CU, l.status.MemoryBytes, l.status.LSN, l.status.LagBytes, l.status.Lag = 0, 0, 0, 0, 0
	l.status.SocketDir, l.status.Port, l.status.Mount = "", 0, ""
	f.last[l.spec.Endpoint] = l.status
	close(l.done)
}
