package control

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/compute"
	"github.com/tarndb/tarn/internal/controldb"
)

const (
	sweepEvery = 5 * time.Second
	// askAgain is how long the sweep leaves an expired branch alone whose
	// deletion was asked and did not succeed.
	askAgain   = 10 * time.Minute
	pruneEvery = time.Hour
	keepDone   = 30 * 24 * time.Hour // how long operations that are done are remembered
	// wakeTime is how long the sweep waits for computes it starts; they go on.
	wakeTime = 10 * time.Second
	// wakeAgain is how long it leaves an endpoint alone whose compute did not
	// come up.
	wakeAgain = time.Minute
)

// sweeper looks from time to time whether the world still agrees with what is
// recorded, whatever happened in between.
type sweeper struct {
	c      *Control
	pruned time.Time
	woken  map[string]time.Time // by endpoint that is never suspended: when it was last started
}

func (s *sweeper) run(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		err := errors.Join(s.computes(ctx), s.expired(ctx), s.purge(ctx), s.scheduled(ctx), s.prune(ctx))
		if err != nil && ctx.Err() == nil {
			s.c.cfg.Log.Warn("sweep incomplete", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// computes suspends what must not run and remembers when endpoints were last
// active. Computes are looked at before rows, so that a compute without a row
// is one whose row is gone.
func (s *sweeper) computes(ctx context.Context) error {
	seen, err := s.c.fleet.look(ctx)
	if err != nil {
		return err
	}
	rows, err := controldb.ListWakeables(ctx, s.c.cfg.DB)
	if err != nil {
		return err
	}
	byUID := make(map[string]controldb.Wakeable, len(rows))
	for _, w := range rows {
		byUID[w.Endpoint.UID] = w
	}
	var errs []error
	for _, st := range seen {
		w, known := byUID[st.Endpoint]
		if known && st.LastActive.After(w.Endpoint.LastActive) {
			errs = append(errs, controldb.SetLastActive(ctx, s.c.cfg.DB, st.Endpoint, st.LastActive))
		}
		running := st.State == tarn.ComputeActive || st.State == tarn.ComputeFrozen || st.State == tarn.ComputeStarting
		// While a branch is made its compute runs for our own work.
		mayRun := known && w.State != tarn.BranchDeleted && (w.State == tarn.BranchInit || !w.Stopped && !w.Endpoint.Disabled)
		// A wake that was under way while its branch was put on another timeline
		// may have begun the old one again.
		astray := known && w.State == tarn.BranchReady && st.Timeline != "" && st.Timeline != w.Timeline
		if running && (!mayRun || astray) {
			s.c.cfg.Log.Info("suspending compute that must not run", "endpoint", st.Endpoint)
			errs = append(errs, s.c.fleet.suspend(ctx, st.Endpoint))
		}
	}
	return errors.Join(append(errs, s.keepAwake(ctx, seen, rows))...)
}

// keepAwake starts what is never suspended and does not run, because its node
// was killed or the computer was: everything else is started by who connects.
// Suspended on purpose it stays so until somebody does, or the node starts anew.
func (s *sweeper) keepAwake(ctx context.Context, seen []tarn.ComputeStatus, rows []controldb.Wakeable) error {
	states := make(map[string]tarn.ComputeStatus, len(seen))
	for _, st := range seen {
		states[st.Endpoint] = st
	}
	if s.woken == nil {
		s.woken = make(map[string]time.Time)
	}
	limit, cancel := context.WithTimeoutCause(ctx, wakeTime, tarn.Unavailable("no answer within %s", wakeTime))
	defer cancel()
	var g errgroup.Group
	for _, w := range rows {
		st := states[w.Endpoint.UID]
		down := st.State == "" || st.State == tarn.ComputeFailed || st.State == tarn.ComputeStopped && !compute.Asked(st)
		if w.Endpoint.SuspendAfter >= 0 || refuseWake(w) != nil || !down || time.Since(s.woken[w.Endpoint.UID]) < wakeAgain {
			continue
		}
		s.woken[w.Endpoint.UID] = time.Now()
		s.c.cfg.Log.Info("starting compute that is never suspended", "endpoint", w.Endpoint.UID)
		g.Go(func() error {
			_, err := s.c.fleet.wake(limit, computeSpec(w))
			return err
		})
	}
	return g.Wait()
}

// expired asks for the deletion of branches and snapshots whose time has come.
func (s *sweeper) expired(ctx context.Context) error {
	branches, err := controldb.ListExpired(ctx, s.c.cfg.DB, time.Now().Add(-askAgain))
	if err != nil {
		return err
	}
	var errs []error
	for _, b := range branches {
		s.c.cfg.Log.Info("branch expired", "project", b.Name.Project, "branch", b.Name.Branch)
		_, err := s.c.DeleteBranch(ctx, b.Name)
		errs = append(errs, err)
	}
	snapshots, err := controldb.ListExpiredSnapshots(ctx, s.c.cfg.DB)
	errs = append(errs, err)
	for _, snap := range snapshots {
		s.c.cfg.Log.Info("snapshot expired", "project", snap.Name.Project, "path", snap.Name.String())
		_, err := s.c.Snapshots.Delete(ctx, snap.Name)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// purge asks for the removal of what was deleted and stayed its time.
func (s *sweeper) purge(ctx context.Context) error {
	names, err := controldb.ListPurges(ctx, s.c.cfg.DB, time.Now().Add(-askAgain))
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		s.c.cfg.Log.Info("deleted thing purged", "path", name)
		if p, err := tarn.ParseProjectName(name); err == nil {
			_, err = s.c.DeleteProject(ctx, p)
			errs = append(errs, err)
			continue
		}
		b, err := tarn.ParseBranchName(name)
		if err == nil {
			_, err = s.c.DeleteBranch(ctx, b)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *sweeper) prune(ctx context.Context) error {
	if time.Since(s.pruned) < pruneEvery {
		return nil
	}
	s.pruned = time.Now()
	return errors.Join(controldb.PruneOperations(ctx, s.c.cfg.DB, time.Now().Add(-keepDone)), controldb.SweepIdentity(ctx, s.c.cfg.DB))
}
