package control

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Snapshots keeps points of branches.
type Snapshots struct {
	cfg     Config
	signals *signals
}

// Create keeps a point of a branch until the snapshot is deleted. A
// point that cannot be had is KindInvalid at once, and the error names the
// window.
func (c *Snapshots) Create(ctx context.Context, p tarn.Principal, s tarn.SnapshotSpec) (tarn.Operation, error) {
	op, err := c.create(ctx, s)
	if err != nil {
		return tarn.Operation{}, fmt.Errorf("create snapshot %s of project %s: %w", s.Name.Snapshot, s.Name.Project, err)
	}
	c.signals.recorded()
	return op, nil
}

func (c *Snapshots) create(ctx context.Context, s tarn.SnapshotSpec) (op tarn.Operation, err error) {
	if _, err := tarn.ParseID("snapshot", s.Name.Snapshot); err != nil {
		return op, err
	}
	switch {
	case !s.SourceTime.IsZero() && s.SourceLSN != 0:
		return op, tarn.Invalid("source time and source LSN are both set, want at most one")
	case !s.ExpireTime.IsZero() && s.ExpireTime.Before(time.Now()):
		return op, tarn.Invalid("expiry %s is in the past", s.ExpireTime.UTC().Format(time.RFC3339))
	}
	source, err := sourceBranch(ctx, c.cfg.DB, s.Name.Parent(), s.Source)
	if err != nil {
		return op, err
	}
	line, err := lineAt(ctx, c.cfg, source, s.SourceTime, s.SourceLSN)
	if err != nil {
		return op, err
	}
	s.Source = source.Name.Branch
	err = c.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		if _, err := controldb.LockProject(ctx, tx, s.Name.Parent()); err != nil {
			return err
		}
		from, err := controldb.LockBranch(ctx, tx, line.Name)
		switch {
		case err != nil:
			return err
		case from.State != tarn.BranchReady:
			return tarn.Conflict("branch %q is in state %s, want %s", from.Name.Branch, from.State, tarn.BranchReady)
		}
		if _, err := controldb.InsertSnapshot(ctx, tx, tarn.Snapshot{SnapshotSpec: s, UID: newUID("snap-"), Timeline: newTimelineID()}, from.Timeline); err != nil {
			return err
		}
		op, err = insertOperation(ctx, tx, "create", s.Name.String())
		return err
	})
	return op, err
}

// sourceBranch reads the branch that something is made from; "" = the default
// one.
func sourceBranch(ctx context.Context, c controldb.Conn, p tarn.ProjectName, id string) (tarn.Branch, error) {
	if id == "" {
		return controldb.GetDefaultBranch(ctx, c, p)
	}
	return controldb.GetBranch(ctx, c, p.Branch(id))
}

// readySnapshot locks a snapshot that something may be made from, so that it
// is not deleted before that is recorded.
func readySnapshot(ctx context.Context, tx *controldb.Tx, n tarn.SnapshotName) (tarn.Snapshot, error) {
	s, err := controldb.LockSnapshot(ctx, tx, n)
	if err == nil && s.State != tarn.BranchReady {
		err = tarn.Conflict("snapshot %q is in state %s, want %s", n.Snapshot, s.State, tarn.BranchReady)
	}
	return s, err
}

// Get reads a snapshot.
func (c *Snapshots) Get(ctx context.Context, n tarn.SnapshotName) (tarn.Snapshot, error) {
	return controldb.GetSnapshot(ctx, c.cfg.DB, n)
}

// List gives one page of a project's snapshots, by id, and the next
// page's token.
func (c *Snapshots) List(ctx context.Context, n tarn.ProjectName, pg Page) ([]tarn.Snapshot, string, error) {
	after, size, err := pg.start()
	if err != nil {
		return nil, "", err
	}
	if _, err := controldb.GetProject(ctx, c.cfg.DB, n); err != nil {
		return nil, "", err
	}
	rows, err := controldb.ListSnapshots(ctx, c.cfg.DB, n, after, size+1)
	if err != nil {
		return nil, "", err
	}
	rows, next := cut(rows, size, func(s tarn.Snapshot) string { return s.Name.Snapshot })
	return rows, next, nil
}

// Delete lets go of a snapshot's point. Branches that were made from it
// keep what they have; one that is still being made forbids it. Asked again
// meanwhile, it gives the same operation.
func (c *Snapshots) Delete(ctx context.Context, n tarn.SnapshotName) (tarn.Operation, error) {
	var op tarn.Operation
	err := c.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		s, err := controldb.LockSnapshot(ctx, tx, n)
		if err != nil {
			return err
		}
		users, err := controldb.SnapshotUsers(ctx, tx, s)
		if err != nil {
			return err
		}
		if len(users) > 0 {
			return tarn.Conflict("it is being used: %s", strings.Join(users, ", ")).WithHint("Wait for that to end, then ask again.")
		}
		if err := controldb.MarkSnapshotDeleted(ctx, tx, n); err != nil {
			return err
		}
		op, err = insertDeletion(ctx, tx, n.String())
		return err
	})
	if err != nil {
		return tarn.Operation{}, fmt.Errorf("delete snapshot %s of project %s: %w", n.Snapshot, n.Project, err)
	}
	c.signals.recorded()
	return op, nil
}

// createSnapshot:
//
//  1. Fork the timeline that the branch had when it was asked; the fork's id
//     was recorded, so doing it again finds it.
//  2. The snapshot is READY (with the operation's end).
func (w worker) createSnapshot(ctx context.Context, n tarn.SnapshotName) (ending, error) {
	s, err := controldb.GetSnapshot(ctx, w.cfg.DB, n)
	switch {
	case err != nil:
		return nil, err
	case s.State == tarn.BranchReady:
		return nil, nil
	case s.State != tarn.BranchInit:
		return nil, tarn.Conflict("snapshot %q is being deleted", n.Snapshot)
	}
	source, err := controldb.SnapshotSource(ctx, w.cfg.DB, n)
	if err != nil {
		return nil, err
	}
	st, err := w.cfg.Node.CreateTimeline(ctx, tarn.TimelineSpec{
		ID: s.Timeline, Source: source, Time: s.SourceTime, LSN: s.SourceLSN, History: tarn.NoHistory,
	})
	if err != nil {
		return nil, fmt.Errorf("create snapshot %s of branch %s: %w", n.Snapshot, s.Source, err)
	}
	s.PointTime, s.PointLSN = st.ForkTime, st.ForkLSN
	return func(tx *controldb.Tx) error { return controldb.SetSnapshotReady(ctx, tx, s) }, nil
}

// deleteSnapshot removes the timeline; the row goes with the operation's end.
func (w worker) deleteSnapshot(ctx context.Context, n tarn.SnapshotName) (ending, error) {
	s, err := controldb.GetSnapshot(ctx, w.cfg.DB, n)
	if err != nil {
		return nil, gone(err)
	}
	if err := gone(w.cfg.Node.DeleteTimeline(ctx, s.Timeline)); err != nil {
		return nil, err
	}
	return func(tx *controldb.Tx) error { return controldb.DeleteSnapshot(ctx, tx, n) }, nil
}

// forgetSnapshot takes back a snapshot that cannot be made as it was asked, and
// explains one that was not made for another reason.
func (w worker) forgetSnapshot(ctx context.Context, tx *controldb.Tx, n tarn.SnapshotName, why error) error {
	s, err := controldb.LockSnapshot(ctx, tx, n)
	if err != nil || s.State != tarn.BranchInit {
		return gone(err)
	}
	if tarn.KindOf(why) == tarn.KindInvalid {
		err := gone(w.cfg.Node.DeleteTimeline(ctx, s.Timeline))
		if err == nil {
			return controldb.DeleteSnapshot(ctx, tx, n)
		}
		w.cfg.Log.Warn("snapshot not taken back", "path", n.String(), "err", err)
	}
	return controldb.SetSnapshotMessage(ctx, tx, n, "create: "+why.Error())
}
