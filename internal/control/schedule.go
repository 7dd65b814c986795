package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Schedule reads when snapshots of a branch are taken by themselves; without a
// schedule it has no cadences.
func (c *Snapshots) Schedule(ctx context.Context, b tarn.BranchName) (tarn.SnapshotSchedule, error) {
	if _, err := controldb.GetBranch(ctx, c.cfg.DB, b); err != nil {
		return tarn.SnapshotSchedule{}, err
	}
	s, err := controldb.GetSnapshotSchedule(ctx, c.cfg.DB, b)
	if tarn.KindOf(err) == tarn.KindNotFound {
		return tarn.SnapshotSchedule{Branch: b}, nil
	}
	return s, err
}

// SetSchedule replaces it; no cadences end it.
func (c *Snapshots) SetSchedule(ctx context.Context, b tarn.BranchName, cadences []tarn.Cadence) (tarn.SnapshotSchedule, error) {
	for _, x := range cadences {
		switch {
		case x.Hour < 0 || x.Hour > 23:
			return tarn.SnapshotSchedule{}, tarn.Invalid("schedule: hour %d, want 0 to 23", x.Hour)
		case x.MonthDay < 0 || x.MonthDay > 31:
			return tarn.SnapshotSchedule{}, tarn.Invalid("schedule: day %d, want 1 to 31", x.MonthDay)
		case x.Retention < time.Hour:
			return tarn.SnapshotSchedule{}, tarn.Invalid("schedule: retention %s, want at least an hour", x.Retention)
		}
	}
	s := tarn.SnapshotSchedule{Branch: b, Cadences: cadences}
	s.Next, _ = s.Due(time.Now())
	err := c.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		row, err := controldb.LockBranch(ctx, tx, b)
		if err == nil && row.State != tarn.BranchReady {
			err = tarn.Conflict("branch %q is in state %s, want %s", b.Branch, row.State, tarn.BranchReady)
		}
		if err != nil {
			return err
		}
		return controldb.PutSnapshotSchedule(ctx, tx, s)
	})
	return s, err
}

// scheduled takes the snapshots that are due, one a branch however many were
// missed, and then says when the next is. One that is taken twice, after a crash
// in between, has the same name and is one.
func (s *sweeper) scheduled(ctx context.Context) error {
	due, err := controldb.DueSnapshotSchedules(ctx, s.c.cfg.DB, time.Now())
	if err != nil {
		return err
	}
	var errs []error
	for _, x := range due {
		next, retention := x.Due(x.Next)
		for now := time.Now(); !next.After(now); {
			var longer time.Duration
			next, longer = x.Due(next)
			retention = max(retention, longer)
		}
		n := x.Branch.Parent().Snapshot(snapshotID(x))
		spec := tarn.SnapshotSpec{Name: n, Source: x.Branch.Branch, ExpireTime: time.Now().Add(retention)}
		if _, err := s.c.Snapshots.Create(ctx, tarn.Principal{}, spec); err != nil && tarn.KindOf(err) != tarn.KindConflict {
			errs = append(errs, err)
			continue
		}
		s.c.cfg.Log.Info("snapshot taken as scheduled", "branch", x.Branch.String(), "path", n.String())
		errs = append(errs, controldb.SetNextSnapshot(ctx, s.c.cfg.DB, x, next))
	}
	return errors.Join(errs...)
}

// snapshotID names a scheduled snapshot by its branch and the time it was due.
func snapshotID(s tarn.SnapshotSchedule) string {
	branch := s.Branch.Branch
	return fmt.Sprintf("auto-%s-%s", branch[:min(len(branch), 40)], s.Next.UTC().Format("20060102-15"))
}
