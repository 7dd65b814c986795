package control

import (
	"context"
	"fmt"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// CreateBranch forks a branch and gives it endpoint primary.
func (c *Control) CreateBranch(ctx context.Context, p tarn.Principal, s tarn.BranchSpec) (tarn.Operation, error) {
	var op tarn.Operation
	err := checkBranch(s)
	if err == nil {
		s, err = place(ctx, c.cfg, s)
	}
	if err == nil {
		err = c.cfg.DB.InTx(ctx, func(tx *controldb.Tx) (err error) {
			op, err = createBranch(ctx, tx, s)
			return err
		})
	}
	if err != nil {
		return tarn.Operation{}, fmt.Errorf("create branch %s of project %s: %w", s.Name.Branch, s.Name.Project, err)
	}
	c.signals.recorded()
	return op, nil
}

// place finds the branch that has what is asked for, which is another than the
// one that is named when that was restored since.
func place(ctx context.Context, cfg Config, s tarn.BranchSpec) (tarn.BranchSpec, error) {
	if s.SourceSnapshot != "" {
		return s, nil
	}
	source, err := sourceBranch(ctx, cfg.DB, s.Name.Parent(), s.Source)
	if err == nil {
		source, err = lineAt(ctx, cfg, source, s.SourceTime, s.SourceLSN)
	}
	s.Source = source.Name.Branch
	return s, err
}

func checkBranch(s tarn.BranchSpec) error {
	if _, err := tarn.ParseID("branch", s.Name.Branch); err != nil {
		return err
	}
	switch {
	case !s.SourceTime.IsZero() && s.SourceLSN != 0:
		return tarn.Invalid("source time and source LSN are both set, want at most one")
	case s.SourceSnapshot != "" && (s.Source != "" || !s.SourceTime.IsZero() || s.SourceLSN != 0):
		return tarn.Invalid("a branch is made from a snapshot, or from a branch at a time or LSN: want one of them")
	}
	return checkExpiry(tarn.Branch{BranchSpec: s})
}

func createBranch(ctx context.Context, tx *controldb.Tx, s tarn.BranchSpec) (tarn.Operation, error) {
	// Locks go from project to branch, as in DeleteProject.
	project, err := controldb.LockProject(ctx, tx, s.Name.Parent())
	if err != nil {
		return tarn.Operation{}, err
	}
	if err := refuseDeleted(project); err != nil {
		return tarn.Operation{}, err
	}
	if s.SourceSnapshot != "" {
		if _, err := readySnapshot(ctx, tx, s.Name.Parent().Snapshot(s.SourceSnapshot)); err != nil {
			return tarn.Operation{}, err
		}
		return recordBranch(ctx, tx, s, project.Endpoint)
	}
	// The lock keeps the source from being deleted before its child is there
	// to forbid it.
	source, err := controldb.LockBranch(ctx, tx, s.Name.Parent().Branch(s.Source))
	switch {
	case err != nil:
		return tarn.Operation{}, err
	case source.State != tarn.BranchReady:
		return tarn.Operation{}, tarn.Conflict("source branch %q is in state %s, want %s", s.Source, source.State, tarn.BranchReady)
	case !source.ExpireTime.IsZero():
		return tarn.Operation{}, tarn.Conflict("source branch %q expires, and its children with it", s.Source).WithHint("Take away its expiry first.")
	}
	return recordBranch(ctx, tx, s, project.Endpoint)
}

func recordBranch(ctx context.Context, tx *controldb.Tx, s tarn.BranchSpec, e tarn.EndpointSpec) (tarn.Operation, error) {
	if err := insertBranch(ctx, tx, tarn.Branch{BranchSpec: s}, e); err != nil {
		return tarn.Operation{}, err
	}
	return insertOperation(ctx, tx, "create", s.Name.String())
}

// GetBranch reads a branch.
func (c *Control) GetBranch(ctx context.Context, n tarn.BranchName) (tarn.Branch, error) {
	return controldb.GetBranch(ctx, c.cfg.DB, n)
}

// ListBranches gives one page of a project's branches, by id, and the next
// page's token.
func (c *Control) ListBranches(ctx context.Context, n tarn.ProjectName, pg Page) ([]tarn.Branch, string, error) {
	after, size, err := pg.start()
	if err != nil {
		return nil, "", err
	}
	if _, err := controldb.GetProject(ctx, c.cfg.DB, n); err != nil {
		return nil, "", err
	}
	rows, err := controldb.ListBranches(ctx, c.cfg.DB, n, after, size+1, pg.Deleted)
	if err != nil {
		return nil, "", err
	}
	rows, next := cut(rows, size, func(b tarn.Branch) string { return b.Name.Branch })
	return rows, next, nil
}

// UpdateBranch applies f to the recorded branch under a row lock and saves its
// protection and expiry, which alone may change. f may be called more than once
// and must change nothing else.
func (c *Control) UpdateBranch(ctx context.Context, n tarn.BranchName, f func(*tarn.Branch) error) (tarn.Operation, error) {
	var op tarn.Operation
	err := c.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		old, err := controldb.LockBranch(ctx, tx, n)
		if err != nil {
			return err
		}
		if !old.PurgeTime.IsZero() {
			return deletedBranch(n)
		}
		b := old
		if err := f(&b); err != nil {
			return err
		}
		if err := checkBranchUpdate(ctx, tx, old, b); err != nil {
			return err
		}
		if err := controldb.UpdateBranch(ctx, tx, b); err != nil {
			return err
		}
		op, err = insertOperation(ctx, tx, "update", n.String())
		return err
	})
	if err != nil {
		return tarn.Operation{}, fmt.Errorf("update branch %s of project %s: %w", n.Branch, n.Project, err)
	}
	c.signals.recorded()
	return op, nil
}

func checkBranchUpdate(ctx context.Context, tx *controldb.Tx, old, b tarn.Branch) error {
	switch {
	case b.Name != old.Name || b.UID != old.UID || b.Timeline != old.Timeline || b.Default != old.Default:
		return tarn.Invalid("a branch's id, uid, timeline and being the default cannot change")
	case b.Source != old.Source || b.SourceSnapshot != old.SourceSnapshot || !b.SourceTime.Equal(old.SourceTime) || b.SourceLSN != old.SourceLSN:
		return tarn.Invalid("a branch's source cannot change")
	case b.ExpireTime.Equal(old.ExpireTime) && b.Protected == old.Protected:
		return nil
	}
	if err := checkExpiry(b); err != nil {
		return err
	}
	if b.ExpireTime.IsZero() {
		return nil
	}
	return refuseChildren(ctx, tx, b.Name, "expire", deleteFirst)
}

const deleteFirst = "Delete those branches first."

func refuseChildren(ctx context.Context, tx *controldb.Tx, n tarn.BranchName, verb, hint string) error {
	children, err := controldb.ListChildren(ctx, tx, n)
	if err != nil {
		return err
	}
	if len(children) > 0 {
		return tarn.Conflict("branch %q cannot %s while branches were made from it: %s", n.Branch, verb, strings.Join(children, ", ")).
			WithHint(hint)
	}
	return nil
}

// DeleteBranch removes a branch for good; Trash.DeleteBranch lets it be brought back.
// It refuses the default branch, protected ones and ones with
// children; it marks others as on their way out and starts removing them. Asked
// again meanwhile, it gives the same operation.
func (c *Control) DeleteBranch(ctx context.Context, n tarn.BranchName) (tarn.Operation, error) {
	var op tarn.Operation
	err := c.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		b, err := controldb.LockBranch(ctx, tx, n)
		switch {
		case err != nil:
			return err
		case b.Default:
			return tarn.Conflict("it is the default branch").WithHint("Delete the project instead.")
		case b.Protected:
			return tarn.Conflict("it is protected").WithHint(unprotect(n))
		}
		if err := refuseChildren(ctx, tx, n, "be deleted", deleteFirst); err != nil {
			return err
		}
		if err := controldb.MarkDeleted(ctx, tx, n); err != nil {
			return err
		}
		op, err = insertRemoval(ctx, tx, n.String(), b.PurgeTime)
		return err
	})
	if err != nil {
		return tarn.Operation{}, fmt.Errorf("delete branch %s of project %s: %w", n.Branch, n.Project, err)
	}
	c.signals.recorded()
	return op, nil
}
