package control

import (
	"context"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// swapBranch puts a branch on another timeline: a restore or a reset.
//
//  1. Fork the new timeline; the branch goes on working. Its id was recorded,
//     so doing it again finds it.
//  2. The branch is RESETTING: nobody wakes it, who connects waits.
//  3. Suspend its computes.
//  4. In one transaction: the branch has the new timeline and is READY, and what
//     it had is recorded as a branch, INIT, or as what is to be removed.
//  5. Suspend computes that a late wake began on the replaced timeline.
//  6. The replaced timeline is removed, or forgets the consumers it had: they
//     stay with the branch.
//  7. The branch that goes on with it is READY (with the operation's end).
//
// A crash at any place leaves an operation that the next process goes on with.
// An error before 4 leaves the branch as it was (abandonSwap); from then on
// there is no way back, and what is left is tried until it succeeds.
func (w worker) swapBranch(ctx context.Context, op tarn.Operation, n tarn.BranchName) (ending, error) {
	s, err := controldb.GetSwap(ctx, w.cfg.DB, op.Name)
	if err != nil {
		return nil, err
	}
	if !s.Swapped {
		if err := w.prepareSwap(ctx, n, s); err != nil {
			return nil, err
		}
		err := w.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error { return swapLines(ctx, tx, n, s, op.Verb) })
		if err != nil {
			return nil, err
		}
		w.fleet.forget()
		w.signals.recorded()
	}
	return w.settleSwap(ctx, n, s)
}

// prepareSwap does steps 1 to 3.
func (w worker) prepareSwap(ctx context.Context, n tarn.BranchName, s controldb.Swap) error {
	b, err := controldb.GetBranch(ctx, w.cfg.DB, n)
	if err != nil {
		return err
	}
	p, err := controldb.GetProject(ctx, w.cfg.DB, n.Parent())
	if err != nil {
		return err
	}
	_, err = w.cfg.Node.CreateTimeline(ctx, tarn.TimelineSpec{
		ID: s.Timeline, PGVersion: p.PGVersion, Source: s.Source, Time: s.SourceTime, LSN: s.SourceLSN, History: p.History,
	})
	if err != nil {
		return err
	}
	unmade, err := controldb.UnmadeSnapshots(ctx, w.cfg.DB, s.Replaced)
	if err != nil {
		return err
	}
	if len(unmade) > 0 && s.KeptAs == "" {
		return later{holdPoll, tarn.Unavailable("snapshot %q is being made of the branch", unmade[0])}
	}
	if b.State != tarn.BranchResetting {
		if err := controldb.SetBranchState(ctx, w.cfg.DB, n, tarn.BranchReady, tarn.BranchResetting, ""); err != nil {
			return err
		}
	}
	return w.suspendBranch(ctx, n)
}

func (w worker) suspendBranch(ctx context.Context, n tarn.BranchName) error {
	endpoints, err := controldb.ListEndpoints(ctx, w.cfg.DB, n, "", maxPageSize)
	if err != nil {
		return err
	}
	for _, e := range endpoints {
		if err := w.fleet.suspend(ctx, e.UID); err != nil {
			return err
		}
	}
	return nil
}

// swapLines is step 4.
func swapLines(ctx context.Context, tx *controldb.Tx, n tarn.BranchName, s controldb.Swap, verb string) error {
	if _, err := controldb.LockProject(ctx, tx, n.Parent()); err != nil {
		return err
	}
	b, err := controldb.LockBranch(ctx, tx, n)
	if err != nil {
		return err
	}
	if s.KeptAs == "" {
		if err := refuseChildren(ctx, tx, n, "lose its data", ""); err != nil {
			return err
		}
	}
	if err := controldb.SetBranchTimeline(ctx, tx, n, s.Replaced, s.Timeline, s.KeptAs); err != nil {
		return err
	}
	if s.KeptAs != "" {
		if err := insertKept(ctx, tx, b, s); err != nil {
			return err
		}
	}
	if err := controldb.ReloadSyncedTables(ctx, tx, n, "its branch was "+past(verb)+": it is loaded again"); err != nil {
		return err
	}
	return controldb.SetSwapped(ctx, tx, s.Operation)
}

func past(verb string) string {
	if verb == "restore" {
		return "restored"
	}
	return verb // reset
}

// insertKept records the branch that goes on with what b was: its origin, its
// children and its past are b's, its endpoint is one with the same limits.
func insertKept(ctx context.Context, tx *controldb.Tx, b tarn.Branch, s controldb.Swap) error {
	kept := tarn.Branch{BranchSpec: b.BranchSpec, UID: newUID("br-"), Timeline: s.Replaced}
	kept.Name.Branch, kept.Protected = s.KeptAs, false
	if _, err := controldb.InsertBranch(ctx, tx, kept); err != nil {
		return err
	}
	if err := controldb.SetBranchLine(ctx, tx, kept.Name, b.LineBegan, b.Earlier); err != nil {
		return err
	}
	e, err := controldb.GetReadWriteEndpoint(ctx, tx, b.Name)
	if err != nil {
		return err
	}
	if err := insertPrimary(ctx, tx, kept.Name, e.EndpointSpec); err != nil {
		return err
	}
	return controldb.MoveChildren(ctx, tx, b.Name, s.KeptAs)
}

// stuckPause is how long what is left of a swap waits before it is tried again.
const stuckPause = 2 * time.Second

// settleSwap does steps 5 to 7.
func (w worker) settleSwap(ctx context.Context, n tarn.BranchName, s controldb.Swap) (ending, error) {
	err := w.leaveTimeline(ctx, s.Replaced)
	if s.KeptAs == "" {
		if err == nil {
			err = gone(w.cfg.Node.DeleteTimeline(ctx, s.Replaced))
		}
		if err != nil && ctx.Err() == nil {
			w.cfg.Log.Warn("replaced data not removed yet", "project", n.Project, "branch", n.Branch, "timeline", string(s.Replaced), "err", err)
			err = later{stuckPause, err}
		}
		return nil, err
	}
	if err == nil {
		err = w.cfg.Node.DropSlots(ctx, s.Replaced)
	}
	var message string
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, err
	case tarn.KindOf(err) == tarn.KindUnavailable:
		return nil, later{stuckPause, err}
	default: // the branch itself is well; what it was is there, and holds a little more than it should
		w.cfg.Log.Warn("slots not dropped", "project", n.Project, "branch", s.KeptAs, "timeline", string(s.Replaced), "err", err)
		message = err.Error()
	}
	return func(tx *controldb.Tx) error {
		err := controldb.SetBranchState(ctx, tx, n.Parent().Branch(s.KeptAs), tarn.BranchInit, tarn.BranchReady, message)
		if tarn.KindOf(err) == tarn.KindConflict { // it is being deleted already
			return nil
		}
		return err
	}, nil
}

// leaveTimeline suspends the computes that run on a timeline which is no
// branch's any more.
func (w worker) leaveTimeline(ctx context.Context, id tarn.TimelineID) error {
	all, err := w.fleet.look(ctx)
	if err != nil {
		return err
	}
	for _, st := range all {
		if st.Timeline != id || st.State == tarn.ComputeStopped || st.State == tarn.ComputeFailed {
			continue
		}
		if err := w.fleet.suspend(ctx, st.Endpoint); err != nil {
			return err
		}
	}
	return nil
}

// abandonSwap leaves a branch as it was when its restore or reset ended without
// success before step 4.
func (w worker) abandonSwap(ctx context.Context, tx *controldb.Tx, op tarn.Operation, n tarn.BranchName) error {
	s, err := controldb.GetSwap(ctx, tx, op.Name)
	if err != nil || s.Swapped {
		return gone(err)
	}
	err = controldb.SetBranchState(ctx, tx, n, tarn.BranchResetting, tarn.BranchReady, "")
	if err != nil && tarn.KindOf(err) != tarn.KindConflict { // it did not get that far, or is being deleted
		return err
	}
	limit, cancel := context.WithTimeoutCause(ctx, askPatience, errNodeSilent)
	defer cancel()
	if err := gone(w.cfg.Node.DeleteTimeline(limit, s.Timeline)); err != nil {
		w.cfg.Log.Warn("abandoned timeline not removed", "project", n.Project, "branch", n.Branch, "timeline", string(s.Timeline), "err", err)
	}
	return nil
}
