package controldb_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

func newTimeline() tarn.TimelineID {
	id := uuid.New()
	return tarn.TimelineID(hex(id[:]))
}

func snapshots(t *testing.T, db *controldb.DB) {
	ctx := t.Context()
	prod := line(t, db, "snapped", "production")[0]
	p := prod.Name.Parent()
	s := tarn.Snapshot{UID: uuid.NewString(), Timeline: newTimeline(), SnapshotSpec: tarn.SnapshotSpec{
		Name: p.Snapshot("a"), Source: "production", SourceLSN: 0x16_B374D848, ExpireTime: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)}}
	got := must[tarn.Snapshot](t)(controldb.InsertSnapshot(ctx, db, s, prod.Timeline))
	same(t, got.SnapshotSpec, s.SnapshotSpec)
	same(t, []any{got.State, got.Timeline}, []any{tarn.BranchInit, s.Timeline})
	_, err := controldb.InsertSnapshot(ctx, db, s, prod.Timeline)
	wantKind(t, err, tarn.KindConflict)
	same(t, must[tarn.TimelineID](t)(controldb.SnapshotSource(ctx, db, s.Name)), prod.Timeline)
	making := func(target string) (done func()) {
		op := must[tarn.Operation](t)(controldb.InsertOperation(ctx, db, tarn.Operation{Name: target + "/operations/c", Verb: "create", Target: target}))
		return func() { do(t, controldb.FinishOperation(ctx, db, op.Name, 0, "")) }
	}
	same(t, len(must[[]string](t)(controldb.UnmadeSnapshots(ctx, db, prod.Timeline))), 0)
	done := making(s.Name.String())
	same(t, must[[]string](t)(controldb.UnmadeSnapshots(ctx, db, prod.Timeline)), []string{"a"})
	done()
	same(t, len(must[[]string](t)(controldb.UnmadeSnapshots(ctx, db, prod.Timeline))), 0)
	s.PointTime, s.PointLSN = time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), 7
	do(t, controldb.SetSnapshotReady(ctx, db, s))
	wantKind(t, controldb.SetSnapshotReady(ctx, db, s), tarn.KindConflict)
	do(t, controldb.SetSnapshotMessage(ctx, db, s.Name, "well"))
	got = must[tarn.Snapshot](t)(controldb.GetSnapshot(ctx, db, s.Name))
	same(t, []any{got.State, got.PointTime, got.PointLSN, got.StatusMessage}, []any{tarn.BranchReady, s.PointTime, s.PointLSN, "well"})

	// Who is still to be forked from it.
	same(t, len(must[[]string](t)(controldb.SnapshotUsers(ctx, db, s))), 0)
	made := must[tarn.Branch](t)(controldb.InsertBranch(ctx, db, tarn.Branch{BranchSpec: tarn.BranchSpec{Name: p.Branch("made"), SourceSnapshot: "a"},
		UID: uuid.NewString(), Timeline: newTimeline()}))
	same(t, []any{made.SourceSnapshot, made.Source}, []any{"a", ""})
	done = making(made.Name.String())
	op := must[tarn.Operation](t)(controldb.InsertOperation(ctx, db, tarn.Operation{Name: prod.Name.String() + "/operations/r", Verb: "restore", Target: prod.Name.String()}))
	do(t, controldb.InsertSwap(ctx, db, controldb.Swap{Operation: op.Name, Source: s.Timeline, Timeline: newTimeline(), Replaced: prod.Timeline}))
	same(t, must[[]string](t)(controldb.SnapshotUsers(ctx, db, s)), []string{"branch made is being made", "restore of projects/snapped/branches/production"})
	done()
	do(t, controldb.FinishOperation(ctx, db, op.Name, 0, ""))
	same(t, len(must[[]string](t)(controldb.SnapshotUsers(ctx, db, s))), 0)

	b := s
	b.Name, b.UID, b.Timeline, b.ExpireTime = p.Snapshot("b"), uuid.NewString(), newTimeline(), time.Time{}
	must[tarn.Snapshot](t)(controldb.InsertSnapshot(ctx, db, b, prod.Timeline))
	page := must[[]tarn.Snapshot](t)(controldb.ListSnapshots(ctx, db, p, "a", 5))
	same(t, []any{len(page), page[0].Name}, []any{1, b.Name})
	expired := must[[]tarn.Snapshot](t)(controldb.ListExpiredSnapshots(ctx, db))
	same(t, []any{len(expired), expired[0].Name}, []any{1, s.Name})
	do(t, controldb.MarkSnapshotDeleted(ctx, db, s.Name))
	same(t, len(must[[]tarn.Snapshot](t)(controldb.ListExpiredSnapshots(ctx, db))), 0)
	do(t, controldb.MarkSnapshotDeleted(ctx, db, tarn.SnapshotName{Project: p.Project}))
	for _, s := range must[[]tarn.Snapshot](t)(controldb.AllSnapshots(ctx, db, p)) {
		same(t, s.State, tarn.BranchDeleted)
		do(t, controldb.DeleteSnapshot(ctx, db, s.Name))
	}
	wantKind(t, controldb.DeleteSnapshot(ctx, db, s.Name), tarn.KindNotFound)
}

func swaps(t *testing.T, db *controldb.DB) {
	ctx := t.Context()
	bs := line(t, db, "swapped", "production", "dev")
	prod, dev := bs[0], bs[1]
	op := must[tarn.Operation](t)(controldb.InsertOperation(ctx, db, tarn.Operation{Name: prod.Name.String() + "/operations/s", Verb: "reset", Target: prod.Name.String()}))
	s := controldb.Swap{Operation: op.Name, Source: prod.Timeline, SourceTime: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), SourceLSN: 9,
		Timeline: newTimeline(), Replaced: prod.Timeline, KeptAs: "was"}
	do(t, controldb.InsertSwap(ctx, db, s))
	same(t, must[controldb.Swap](t)(controldb.GetSwap(ctx, db, op.Name)), s)
	wantKind(t, controldb.SetBranchTimeline(ctx, db, prod.Name, s.Replaced, s.Timeline, s.KeptAs), tarn.KindConflict) // it is not RESETTING
	do(t, controldb.SetBranchState(ctx, db, prod.Name, tarn.BranchInit, tarn.BranchResetting, ""))
	wantKind(t, controldb.SetBranchTimeline(ctx, db, prod.Name, s.Timeline, s.Timeline, s.KeptAs), tarn.KindConflict)
	table := must[tarn.SyncedTable](t)(controldb.InsertSyncedTable(ctx, db, "ada", tarn.SyncedTable{SyncedTableSpec: tarn.SyncedTableSpec{
		Name: tarn.TableName{Catalog: "swapped", Schema: "s", Table: "t"}, PrimaryKey: []string{"id"}, Branch: prod.Name}, Version: 7, State: tarn.SyncOnline}))
	do(t, db.InTx(ctx, func(tx *controldb.Tx) error {
		do(t, controldb.SetBranchTimeline(ctx, tx, prod.Name, s.Replaced, s.Timeline, s.KeptAs))
		kept := tarn.Branch{BranchSpec: tarn.BranchSpec{Name: prod.Name.Parent().Branch("was")}, UID: uuid.NewString(), Timeline: s.Replaced}
		must[tarn.Branch](t)(controldb.InsertBranch(ctx, tx, kept))
		do(t, controldb.SetBranchLine(ctx, tx, kept.Name, prod.LineBegan, "further-back"))
		do(t, controldb.MoveChildren(ctx, tx, prod.Name, "was"))
		do(t, controldb.ReloadSyncedTables(ctx, tx, prod.Name, "again"))
		return controldb.SetSwapped(ctx, tx, op.Name)
	}))
	s.Swapped = true
	same(t, must[controldb.Swap](t)(controldb.GetSwap(ctx, db, op.Name)), s)
	now := must[tarn.Branch](t)(controldb.GetBranch(ctx, db, prod.Name))
	same(t, []any{now.Timeline, now.State, now.Earlier, now.LineBegan.After(prod.LineBegan)}, []any{s.Timeline, tarn.BranchReady, "was", true})
	was := must[tarn.Branch](t)(controldb.GetBranch(ctx, db, prod.Name.Parent().Branch("was")))
	same(t, []any{was.Timeline, was.Earlier, was.LineBegan}, []any{s.Replaced, "further-back", prod.LineBegan})
	same(t, must[tarn.Branch](t)(controldb.GetBranch(ctx, db, dev.Name)).Source, "was")
	again := must[tarn.SyncedTable](t)(controldb.GetSyncedTable(ctx, db, table.Name))
	same(t, []any{again.State, again.Message}, []any{tarn.SyncUpdating, "again"})
	do(t, controldb.DeleteSyncedTable(ctx, db, table.UID))
	do(t, db.InTx(ctx, func(tx *controldb.Tx) error {
		same(t, must[bool](t)(controldb.OnTimeline(ctx, tx, prod.Name, s.Timeline)), true)
		same(t, must[bool](t)(controldb.OnTimeline(ctx, tx, prod.Name, s.Replaced)), false)
		return nil
	}))

	// The branch that has the past goes, and the past with it; so does an
	// operation with its swap.
	do(t, controldb.DeleteBranch(ctx, db, dev.Name))
	do(t, controldb.DeleteBranch(ctx, db, was.Name))
	same(t, must[tarn.Branch](t)(controldb.GetBranch(ctx, db, prod.Name)).Earlier, "")
	do(t, controldb.FinishOperation(ctx, db, op.Name, 0, ""))
	do(t, controldb.PruneOperations(ctx, db, time.Now().Add(time.Hour)))
	_, err := controldb.GetSwap(ctx, db, op.Name)
	wantKind(t, err, tarn.KindNotFound)

	prod.Protected = true
	do(t, controldb.UpdateBranch(ctx, db, prod))
	same(t, must[[]string](t)(controldb.ListProtected(ctx, db, prod.Name.Parent())), []string{"production"})
}
