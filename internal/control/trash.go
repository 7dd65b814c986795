package control

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// KeepDeleted is how long what was deleted without purge can be brought back.
const KeepDeleted = 7 * 24 * time.Hour

// Trash deletes projects and branches so that they can be brought back. Until
// they are, or are purged, they are in state DELETED: nothing wakes them,
// nothing is made from them, their synced tables and feeds end, and their names
// stay taken.
type Trash struct {
	cfg     Config
	signals *signals
}

// refuseDeleted is an error when the project was deleted.
func refuseDeleted(p tarn.Project) error {
	if p.PurgeTime.IsZero() {
		return nil
	}
	return tarn.Conflict("project %q is deleted", p.Name.Project).WithHint("Bring it back first: tarn project undelete " + p.Name.Project)
}

func deletedBranch(n tarn.BranchName) error {
	return tarn.Conflict("it is deleted").WithHint("Bring it back first: tarn branch undelete " + n.Project + "/" + n.Branch)
}

// takenBy says what to do about a project that has the name.
func takenBy(ctx context.Context, c controldb.Conn, n tarn.ProjectName) string {
	if p, err := controldb.GetProject(ctx, c, n); err == nil && !p.PurgeTime.IsZero() {
		return fmt.Sprintf("It is deleted: bring it back (tarn project undelete %s), or remove it for good (tarn project delete %s).", n.Project, n.Project)
	}
	return "Choose another id, or delete the project that has it."
}

// DeleteProject hides a project with all its branches. A protected branch
// forbids it. Asked again, it changes nothing.
func (t *Trash) DeleteProject(ctx context.Context, n tarn.ProjectName) (tarn.Operation, error) {
	return t.record(ctx, "delete", n.String(), func(tx *controldb.Tx) error {
		p, err := controldb.LockProject(ctx, tx, n)
		if err != nil || !p.PurgeTime.IsZero() {
			return err
		}
		protected, err := controldb.ListProtected(ctx, tx, n)
		if err != nil {
			return err
		}
		if len(protected) > 0 {
			return tarn.Conflict("it has protected branches: %s", strings.Join(protected, ", ")).WithHint(unprotect(n.Branch(protected[0])))
		}
		b, err := controldb.GetDefaultBranch(ctx, tx, n)
		if err != nil {
			return err
		}
		if b.State != tarn.BranchReady {
			return tarn.Conflict("it is in state %s and cannot be kept", b.State).WithHint("Delete it with purge=true.")
		}
		return controldb.HideProject(ctx, tx, n, purgeTime())
	})
}

// UndeleteProject brings back a project, with the branches that were deleted
// with it.
func (t *Trash) UndeleteProject(ctx context.Context, n tarn.ProjectName) (tarn.Operation, error) {
	return t.record(ctx, "undelete", n.String(), func(tx *controldb.Tx) error {
		p, err := controldb.LockProject(ctx, tx, n)
		if err != nil {
			return err
		}
		if p.PurgeTime.IsZero() {
			return tarn.Conflict("it is not deleted, or no longer to be had")
		}
		return controldb.ShowProject(ctx, tx, n)
	})
}

// DeleteBranch hides a branch. The default branch, protected ones and ones from
// which others live are refused. Asked again, it changes nothing.
func (t *Trash) DeleteBranch(ctx context.Context, n tarn.BranchName) (tarn.Operation, error) {
	return t.record(ctx, "delete", n.String(), func(tx *controldb.Tx) error {
		b, err := controldb.LockBranch(ctx, tx, n)
		switch {
		case err != nil || b.State == tarn.BranchDeleted:
			return err
		case b.Default:
			return tarn.Conflict("it is the default branch").WithHint("Delete the project instead.")
		case b.Protected:
			return tarn.Conflict("it is protected").WithHint(unprotect(n))
		case b.State != tarn.BranchReady:
			return tarn.Conflict("it is in state %s and cannot be kept", b.State).WithHint("Delete it with purge=true.")
		}
		children, err := controldb.LiveChildren(ctx, tx, n)
		if err != nil {
			return err
		}
		if len(children) > 0 {
			return tarn.Conflict("branches were made from it: %s", strings.Join(children, ", ")).WithHint(deleteFirst)
		}
		return controldb.HideBranch(ctx, tx, n, purgeTime())
	})
}

// UndeleteBranch brings back a branch; its source and its project must be there.
func (t *Trash) UndeleteBranch(ctx context.Context, n tarn.BranchName) (tarn.Operation, error) {
	return t.record(ctx, "undelete", n.String(), func(tx *controldb.Tx) error {
		p, err := controldb.LockProject(ctx, tx, n.Parent())
		if err == nil {
			err = refuseDeleted(p)
		}
		if err != nil {
			return err
		}
		b, err := controldb.LockBranch(ctx, tx, n)
		switch {
		case err != nil:
			return err
		case b.PurgeTime.IsZero():
			return tarn.Conflict("it is not deleted, or no longer to be had")
		case b.Source == "":
			return controldb.ShowBranch(ctx, tx, n)
		}
		source, err := controldb.LockBranch(ctx, tx, n.Parent().Branch(b.Source))
		if err != nil {
			return err
		}
		if source.State == tarn.BranchDeleted {
			return tarn.Conflict("its source %q is deleted", b.Source).WithHint("Bring that back first.")
		}
		return controldb.ShowBranch(ctx, tx, n)
	})
}

// purgeTime is cut to what Postgres keeps, so that it is read as it was written.
func purgeTime() time.Time { return time.Now().Add(KeepDeleted).Truncate(time.Microsecond) }

// record changes rows and records the operation in one transaction.
func (t *Trash) record(ctx context.Context, verb, target string, change func(tx *controldb.Tx) error) (op tarn.Operation, err error) {
	err = t.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		if err := change(tx); err != nil {
			return err
		}
		op, err = insertOperation(ctx, tx, verb, target)
		return err
	})
	if err != nil {
		return tarn.Operation{}, fmt.Errorf("%s %s: %w", verb, target, err)
	}
	t.signals.recorded()
	return op, nil
}

// suspendAll suspends the computes of branches.
func (w worker) suspendAll(ctx context.Context, branches []tarn.Branch) error {
	for _, b := range branches {
		if err := w.suspendBranch(ctx, b.Name); err != nil {
			return err
		}
	}
	return nil
}

// insertRemoval records a deletion for good; hidden is when the thing would have
// been purged, and then an operation that hides it does not do.
func insertRemoval(ctx context.Context, tx *controldb.Tx, target string, hidden time.Time) (tarn.Operation, error) {
	if !hidden.IsZero() {
		return insertOperation(ctx, tx, "delete", target)
	}
	return insertDeletion(ctx, tx, target)
}

// hidden ends an operation that hid something: where its removal was asked while
// it was hidden, that is done next.
func (w worker) hidden(ctx context.Context, target string, removed func(tx *controldb.Tx) (bool, error)) ending {
	return func(tx *controldb.Tx) error {
		now, err := removed(tx)
		if err != nil || !now {
			return gone(err)
		}
		_, err = insertOperation(ctx, tx, "delete", target)
		return err
	}
}
