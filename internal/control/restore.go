package control

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Pasts puts branches back to what they were, and tells what can be had again.
type Pasts struct {
	cfg     Config
	signals *signals
}

// Restore puts a branch back to what it held at a time or LSN, or to what
// a snapshot holds. Its endpoints stay, and what it held until now goes on as
// another branch, to which the branches made from it belong from then on.
//
// A point that cannot be had is KindInvalid at once, and the error names the
// window; a protected branch, and one that is being restored, are KindConflict.
func (c *Pasts) Restore(ctx context.Context, p tarn.Principal, n tarn.BranchName, s tarn.RestoreSpec) (tarn.Operation, error) {
	op, err := c.restore(ctx, n, s)
	if err != nil {
		return tarn.Operation{}, fmt.Errorf("restore branch %s of project %s: %w", n.Branch, n.Project, err)
	}
	c.signals.recorded()
	return op, nil
}

func (c *Pasts) restore(ctx context.Context, n tarn.BranchName, s tarn.RestoreSpec) (op tarn.Operation, err error) {
	if err := checkRestore(s); err != nil {
		return op, err
	}
	// Asked before the rows are locked: the node may take a while.
	b, err := controldb.GetBranch(ctx, c.cfg.DB, n)
	if err != nil {
		return op, err
	}
	line := b
	if s.Snapshot == "" {
		if line, err = lineAt(ctx, c.cfg, b, s.Time, s.LSN); err != nil {
			return op, err
		}
	}
	err = c.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		b, err := lockForSwap(ctx, tx, n)
		if err != nil {
			return err
		}
		swap := controldb.Swap{Source: line.Timeline, SourceTime: s.Time, SourceLSN: s.LSN, Replaced: b.Timeline}
		switch {
		case s.Snapshot != "":
			snap, err := readySnapshot(ctx, tx, n.Parent().Snapshot(s.Snapshot))
			if err != nil {
				return err
			}
			swap.Source = snap.Timeline
		case line.Name == n && line.Timeline != b.Timeline:
			return tarn.Conflict("it was restored by somebody else meanwhile")
		}
		if swap.KeptAs, err = nameKept(ctx, tx, n, s.KeepAs); err != nil {
			return err
		}
		op, err = insertSwap(ctx, tx, "restore", n, swap)
		return err
	})
	return op, err
}

func checkRestore(s tarn.RestoreSpec) error {
	asked := 0
	for _, said := range []bool{!s.Time.IsZero(), s.LSN != 0, s.Snapshot != ""} {
		if said {
			asked++
		}
	}
	if asked != 1 {
		return tarn.Invalid("want one of a time, an LSN and a snapshot to restore to")
	}
	if s.KeepAs != "" {
		_, err := tarn.ParseID("branch", s.KeepAs)
		return err
	}
	return nil
}

// Reset puts a branch to what its parent holds now. Its endpoints stay.
// What it held until now is gone, or goes on as branch keepAs.
func (c *Pasts) Reset(ctx context.Context, p tarn.Principal, n tarn.BranchName, keepAs string) (op tarn.Operation, err error) {
	if keepAs != "" {
		_, err = tarn.ParseID("branch", keepAs)
	}
	if err == nil {
		err = c.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
			op, err = resetBranch(ctx, tx, n, keepAs)
			return err
		})
	}
	if err != nil {
		return tarn.Operation{}, fmt.Errorf("reset branch %s of project %s: %w", n.Branch, n.Project, err)
	}
	c.signals.recorded()
	return op, nil
}

func resetBranch(ctx context.Context, tx *controldb.Tx, n tarn.BranchName, keepAs string) (op tarn.Operation, err error) {
	b, err := lockForSwap(ctx, tx, n)
	switch {
	case err != nil:
		return op, err
	case b.Source == "" && b.SourceSnapshot != "":
		return op, tarn.Conflict("it has no parent: it was made from snapshot %q", b.SourceSnapshot).
			WithHint("tarn branch restore " + n.Project + "/" + n.Branch + " --to " + b.SourceSnapshot)
	case b.Source == "":
		return op, tarn.Conflict("it is a root branch and has no parent").
			WithHint("put it back to a point of its own past: tarn branch restore " + n.Project + "/" + n.Branch + " --to TIME")
	}
	if keepAs == "" {
		if err := refuseChildren(ctx, tx, n, "lose its data", "Delete those branches first, or keep its data with --keep-as NAME."); err != nil {
			return op, err
		}
	} else if keepAs, err = nameKept(ctx, tx, n, keepAs); err != nil {
		return op, err
	}
	parent, err := controldb.GetBranch(ctx, tx, n.Parent().Branch(b.Source))
	if err != nil {
		return op, err
	}
	if parent.State != tarn.BranchReady {
		return op, tarn.Conflict("its parent %q is in state %s, want %s", b.Source, parent.State, tarn.BranchReady)
	}
	return insertSwap(ctx, tx, "reset", n, controldb.Swap{Source: parent.Timeline, Replaced: b.Timeline, KeptAs: keepAs})
}

// lockForSwap locks a branch that may be put on another timeline now, its
// project before.
func lockForSwap(ctx context.Context, tx *controldb.Tx, n tarn.BranchName) (tarn.Branch, error) {
	if _, err := controldb.LockProject(ctx, tx, n.Parent()); err != nil {
		return tarn.Branch{}, err
	}
	b, err := controldb.LockBranch(ctx, tx, n)
	switch {
	case err != nil:
		return b, err
	case b.Protected:
		return b, tarn.Conflict("it is protected").WithHint(unprotect(n))
	case b.State != tarn.BranchReady:
		return b, tarn.Conflict("it is in state %s, want %s", b.State, tarn.BranchReady)
	}
	for _, verb := range [...]string{"restore", "reset"} {
		switch _, err := controldb.GetOpenOperation(ctx, tx, verb, n.String()); {
		case err == nil:
			return b, tarn.Conflict("a %s of it is being worked on", verb).WithHint("Wait for its end, then ask again.")
		case tarn.KindOf(err) != tarn.KindNotFound:
			return b, err
		}
	}
	return b, nil
}

func unprotect(n tarn.BranchName) string {
	return "Take away its protection first: tarn branch unprotect " + n.Project + "/" + n.Branch
}

func insertSwap(ctx context.Context, tx *controldb.Tx, verb string, n tarn.BranchName, s controldb.Swap) (tarn.Operation, error) {
	op, err := insertOperation(ctx, tx, verb, n.String())
	if err != nil {
		return op, err
	}
	s.Operation, s.Timeline = op.Name, newTimelineID()
	return op, controldb.InsertSwap(ctx, tx, s)
}

// nameKept checks the name that is asked for what a branch held until now, or
// makes one up.
func nameKept(ctx context.Context, tx *controldb.Tx, n tarn.BranchName, asked string) (string, error) {
	const tries = 20
	for try := 1; try <= tries; try++ {
		id := asked
		if asked == "" {
			id = keptName(n.Branch, time.Now(), try)
		}
		_, err := controldb.GetBranch(ctx, tx, n.Parent().Branch(id))
		switch {
		case tarn.KindOf(err) == tarn.KindNotFound:
			return id, nil
		case err != nil:
			return "", err
		case asked != "":
			return "", tarn.Conflict("branch %q of project %q already exists", id, n.Project).WithHint("Choose another name to keep the data as.")
		}
	}
	return "", tarn.Conflict("all names for what the branch holds now are taken").WithHint("Choose one with --keep-as NAME.")
}

// keptName is the name of what a branch held before a restore, short enough
// for an id.
func keptName(branch string, now time.Time, try int) string {
	suffix := "-before-restore-" + now.UTC().Format("20060102t150405z")
	if try > 1 {
		suffix += "-" + strconv.Itoa(try)
	}
	const longest = 63
	return branch[:min(len(branch), longest-len(suffix))] + suffix
}
