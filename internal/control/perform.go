package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// holdPoll is how often a deletion looks whether the holds are gone.
const holdPoll = 250 * time.Millisecond

// ending is the last change of an operation's rows, made in the transaction
// that records its end; nil = none.
type ending func(tx *controldb.Tx) error

// worker performs the steps of operations. Each step may be repeated.
type worker struct {
	cfg     Config
	fleet   *fleet
	signals *signals
}

// do performs an operation up to its ending.
func (w worker) do(ctx context.Context, op tarn.Operation) (ending, error) {
	if n, err := tarn.ParseProjectName(op.Target); err == nil {
		switch op.Verb {
		case "create":
			return w.createProject(ctx, n)
		case "update":
			return nil, w.settleProject(ctx, n)
		case "delete":
			return w.deleteProject(ctx, n, op.CreateTime)
		case "undelete":
			return nil, nil // its rows were all there was to change
		}
	}
	if n, err := tarn.ParseBranchName(op.Target); err == nil {
		switch op.Verb {
		case "create":
			return w.createBranch(ctx, n)
		case "update", "undelete":
			return nil, nil // its row was all there was to change
		case "delete":
			return w.deleteBranch(ctx, n, op.CreateTime)
		case "restore", "reset":
			return w.swapBranch(ctx, op, n)
		}
	}
	if n, err := tarn.ParseSnapshotName(op.Target); err == nil {
		switch op.Verb {
		case "create":
			return w.createSnapshot(ctx, n)
		case "delete":
			return w.deleteSnapshot(ctx, n)
		}
	}
	if n, err := tarn.ParseEndpointName(op.Target); err == nil {
		switch op.Verb {
		case "create", "update":
			return nil, w.settleEndpoint(ctx, n)
		case "delete":
			return w.deleteEndpoint(ctx, n)
		}
	}
	return nil, fmt.Errorf("operation %s: nobody knows how to %s %s", op.Name, op.Verb, op.Target)
}

// createProject:
//
//  1. Make the timeline of branch production from the template; its id was
//     recorded, so doing it again finds it.
//  2. Wake endpoint primary and make the owner's role.
//  3. Branch production is READY (with the operation's end).
func (w worker) createProject(ctx context.Context, n tarn.ProjectName) (ending, error) {
	p, err := controldb.GetProject(ctx, w.cfg.DB, n)
	if err != nil {
		return nil, err
	}
	b, err := controldb.GetDefaultBranch(ctx, w.cfg.DB, n)
	if err != nil {
		return nil, err
	}
	if b.State != tarn.BranchInit {
		return nil, notInit(b)
	}
	if _, err := w.cfg.Node.CreateTimeline(ctx, tarn.TimelineSpec{ID: b.Timeline, PGVersion: p.PGVersion, History: p.History}); err != nil {
		return nil, err
	}
	wk, err := controldb.GetWakeable(ctx, w.cfg.DB, b.Name.Endpoint(tarn.DefaultEndpoint))
	if err != nil {
		return nil, err
	}
	st, err := w.fleet.wake(ctx, computeSpec(wk))
	if err != nil {
		return nil, err
	}
	if err := ownDatabase(ctx, st, p.Owner); err != nil {
		return nil, err
	}
	if wk.Stopped {
		if err := w.fleet.suspend(ctx, wk.Endpoint.UID); err != nil {
			return nil, err
		}
	}
	return func(tx *controldb.Tx) error {
		return controldb.SetBranchState(ctx, tx, b.Name, tarn.BranchInit, tarn.BranchReady, "")
	}, nil
}

// notInit says why a branch that is no longer INIT is not made: READY is what
// was asked.
func notInit(b tarn.Branch) error {
	if b.State == tarn.BranchReady {
		return nil
	}
	return tarn.Conflict("branch %q is being deleted", b.Name.Branch)
}

// createBranch:
//
//  1. Fork the source's timeline; the child's id was recorded, so doing it
//     again finds it.
//  2. The branch is READY (with the operation's end).
func (w worker) createBranch(ctx context.Context, n tarn.BranchName) (ending, error) {
	b, err := controldb.GetBranch(ctx, w.cfg.DB, n)
	if err != nil {
		return nil, err
	}
	if b.State != tarn.BranchInit {
		return nil, notInit(b)
	}
	p, err := controldb.GetProject(ctx, w.cfg.DB, n.Parent())
	if err != nil {
		return nil, err
	}
	spec := tarn.TimelineSpec{ID: b.Timeline, PGVersion: p.PGVersion, Time: b.SourceTime, LSN: b.SourceLSN, History: p.History}
	from := b.Source
	if b.SourceSnapshot != "" {
		from = "snapshot " + b.SourceSnapshot
		s, err := controldb.GetSnapshot(ctx, w.cfg.DB, n.Parent().Snapshot(b.SourceSnapshot))
		if err != nil {
			return nil, err
		}
		spec.Source = s.Timeline
	} else {
		source, err := controldb.GetBranch(ctx, w.cfg.DB, n.Parent().Branch(b.Source))
		if err != nil {
			return nil, err
		}
		spec.Source = source.Timeline
	}
	if _, err := w.cfg.Node.CreateTimeline(ctx, spec); err != nil {
		return nil, fmt.Errorf("create branch %s from %s: %w", n.Branch, from, err)
	}
	return func(tx *controldb.Tx) error {
		return controldb.SetBranchState(ctx, tx, n, tarn.BranchInit, tarn.BranchReady, "")
	}, nil
}

// recover puts right what an operation leaves that ended without success, and
// records there why.
func (w worker) recover(ctx context.Context, tx *controldb.Tx, op tarn.Operation, why error) error {
	if n, err := tarn.ParseSnapshotName(op.Target); err == nil {
		if op.Verb == "create" {
			return w.forgetSnapshot(ctx, tx, n, why)
		}
		return controldb.SetSnapshotMessage(ctx, tx, n, op.Verb+": "+why.Error())
	}
	if n, err := tarn.ParseBranchName(op.Target); err == nil && (op.Verb == "restore" || op.Verb == "reset") {
		return w.abandonSwap(ctx, tx, op, n)
	}
	forgotten, err := w.forget(ctx, tx, op, why)
	if err != nil || forgotten {
		return err
	}
	return explain(ctx, tx, op, why)
}

// forget takes back a branch that cannot be made as it was asked, so that its
// name is free for a better question. One that is held, or whose node did not
// answer, stays as it is; forgotten says whether it is gone.
//
//  1. What there may be of its timeline goes.
//  2. Its row goes, and its endpoints' (with the operation's end).
func (w worker) forget(ctx context.Context, tx *controldb.Tx, op tarn.Operation, why error) (forgotten bool, err error) {
	n, err := tarn.ParseBranchName(op.Target)
	if op.Verb != "create" || err != nil || tarn.KindOf(why) != tarn.KindInvalid {
		return false, nil
	}
	b, err := controldb.LockBranch(ctx, tx, n)
	if err != nil || b.State != tarn.BranchInit {
		return false, gone(err)
	}
	holds, err := controldb.ListHolds(ctx, tx, n)
	if err != nil || len(holds) > 0 {
		return false, err
	}
	if err := gone(w.cfg.Node.DeleteTimeline(ctx, b.Timeline)); err != nil {
		w.cfg.Log.Warn("branch not taken back", "path", op.Name, "err", err)
		return false, nil
	}
	return true, controldb.DeleteBranch(ctx, tx, n)
}

// deleteProject clears the branches, leaves first, and the snapshots, then their
// rows and the project's go with the operation's end.
func (w worker) deleteProject(ctx context.Context, n tarn.ProjectName, asked time.Time) (ending, error) {
	p, err := controldb.GetProject(ctx, w.cfg.DB, n)
	if err != nil {
		return nil, gone(err)
	}
	branches, err := controldb.LeavesFirst(ctx, w.cfg.DB, n)
	if err != nil {
		return nil, err
	}
	for _, b := range branches {
		if err := w.awaitHolds(ctx, b.Name, asked); err != nil {
			return nil, err
		}
	}
	if i := slices.IndexFunc(branches, func(b tarn.Branch) bool { return b.Default }); i >= 0 && branches[i].State != tarn.BranchDeleted {
		return nil, nil // it was brought back before
	}
	if !p.PurgeTime.IsZero() { // it can be brought back until then
		return w.hidden(ctx, n.String(), func(tx *controldb.Tx) (bool, error) {
			p, err := controldb.LockProject(ctx, tx, n)
			return p.PurgeTime.IsZero(), err
		}), w.suspendAll(ctx, branches)
	}
	for _, b := range branches {
		if err := w.clearBranch(ctx, b); err != nil {
			return nil, err
		}
	}
	snapshots, err := controldb.AllSnapshots(ctx, w.cfg.DB, n)
	if err != nil {
		return nil, err
	}
	for _, s := range snapshots {
		if err := gone(w.cfg.Node.DeleteTimeline(ctx, s.Timeline)); err != nil {
			return nil, err
		}
	}
	return func(tx *controldb.Tx) error {
		for _, s := range snapshots {
			if err := controldb.DeleteSnapshot(ctx, tx, s.Name); err != nil {
				return err
			}
		}
		for _, b := range branches {
			if err := controldb.DeleteBranch(ctx, tx, b.Name); err != nil {
				return err
			}
		}
		return controldb.DeleteProject(ctx, tx, n)
	}, nil
}

// deleteBranch, of one that can be brought back without step 2's second half and 3:
//
//  1. Wait until no synced table and no feed holds the branch; their keepers
//     see its state DELETED and let go.
//  2. Suspend its computes and remove its timeline.
//  3. Its row goes, and its endpoints' (with the operation's end).
func (w worker) deleteBranch(ctx context.Context, n tarn.BranchName, asked time.Time) (ending, error) {
	b, err := controldb.GetBranch(ctx, w.cfg.DB, n)
	if err != nil {
		return nil, gone(err)
	}
	if err := w.awaitHolds(ctx, n, asked); err != nil {
		return nil, err
	}
	if b.State == tarn.BranchReady { // it was brought back before
		return nil, nil
	}
	if !b.PurgeTime.IsZero() { // it can be brought back until then
		return w.hidden(ctx, n.String(), func(tx *controldb.Tx) (bool, error) {
			b, err := controldb.LockBranch(ctx, tx, n)
			return b.State == tarn.BranchDeleted && b.PurgeTime.IsZero(), err
		}), w.suspendBranch(ctx, n)
	}
	if err := w.clearBranch(ctx, b); err != nil {
		return nil, err
	}
	return func(tx *controldb.Tx) error { return controldb.DeleteBranch(ctx, tx, n) }, nil
}

func (w worker) awaitHolds(ctx context.Context, n tarn.BranchName, asked time.Time) error {
	holds, err := controldb.ListHolds(ctx, w.cfg.DB, n)
	if err != nil || len(holds) == 0 {
		return err
	}
	err = tarn.Conflict("branch %q is still held by %s", n.Branch, strings.Join(holds, ", ")).
		WithHint("Delete what holds it, then the branch again.")
	if time.Since(asked) < w.cfg.Hold {
		return later{holdPoll, err}
	}
	return err
}

func (w worker) clearBranch(ctx context.Context, b tarn.Branch) error {
	if b.State != tarn.BranchDeleted || !b.PurgeTime.IsZero() {
		return fmt.Errorf("branch %s is in state %s, not on its way out", b.Name, b.State)
	}
	if err := w.suspendBranch(ctx, b.Name); err != nil {
		return err
	}
	return gone(w.cfg.Node.DeleteTimeline(ctx, b.Timeline))
}

// gone makes NotFound a success, which it is for who deletes.
func gone(err error) error {
	if tarn.KindOf(err) == tarn.KindNotFound {
		return nil
	}
	return err
}

// settleProject makes the timelines and computes of a project agree with its
// row.
func (w worker) settleProject(ctx context.Context, n tarn.ProjectName) error {
	p, err := controldb.GetProject(ctx, w.cfg.DB, n)
	if err != nil {
		return err
	}
	branches, err := controldb.LeavesFirst(ctx, w.cfg.DB, n)
	if err != nil {
		return err
	}
	for _, b := range branches {
		if b.State == tarn.BranchInit || b.State == tarn.BranchDeleted { // it gets its history when it is made
			continue
		}
		if err := gone(w.cfg.Node.SetHistory(ctx, b.Timeline, p.History)); err != nil {
			return err
		}
	}
	endpoints, err := controldb.AllEndpoints(ctx, w.cfg.DB, n.Project)
	if err != nil {
		return err
	}
	for _, e := range endpoints {
		if err := w.settleEndpoint(ctx, e.Name); err != nil {
			return err
		}
	}
	return nil
}

// settleEndpoint makes an endpoint's compute agree with its row: one that must
// not run is suspended, one that runs hears its new limits.
func (w worker) settleEndpoint(ctx context.Context, n tarn.EndpointName) error {
	wk, err := controldb.GetWakeable(ctx, w.cfg.DB, n)
	if err != nil {
		return err
	}
	if wk.Stopped || wk.Endpoint.Disabled {
		return w.fleet.suspend(ctx, wk.Endpoint.UID)
	}
	if wk.State != tarn.BranchReady {
		return nil
	}
	all, err := w.fleet.look(ctx)
	if err != nil {
		return err
	}
	for _, st := range all {
		if st.Endpoint == wk.Endpoint.UID && (st.State == tarn.ComputeActive || st.State == tarn.ComputeFrozen) {
			_, err = w.fleet.wake(ctx, computeSpec(wk))
			return err
		}
	}
	return nil
}

// deleteEndpoint:
//
//  1. Suspend its compute, which removes what a replica has of its own.
//  2. Its row goes (with the operation's end).
func (w worker) deleteEndpoint(ctx context.Context, n tarn.EndpointName) (ending, error) {
	e, err := controldb.GetEndpoint(ctx, w.cfg.DB, n)
	if tarn.KindOf(err) == tarn.KindNotFound { // its branch went before
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := w.fleet.suspend(ctx, e.UID); err != nil {
		return nil, err
	}
	return func(tx *controldb.Tx) error { return controldb.DeleteEndpoint(ctx, tx, n) }, nil
}
