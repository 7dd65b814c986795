package control_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/control"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// ids are the rows of table t, in order; nil where there is no such table.
func (h *house) ids(b tarn.BranchName) []int32 {
	h.t.Helper()
	conn := must(h.Connect(h.t.Context(), b, "", nil))(h.t)
	defer conn.Close(h.t.Context())
	var ids []int32
	err := conn.QueryRow(h.t.Context(), `SELECT coalesce(array_agg(id ORDER BY id), '{}') FROM t`).Scan(&ids)
	if pg, is := errors.AsType[*pgconn.PgError](err); is && pg.Code == "42P01" {
		return nil
	}
	ok(h.t, err)
	return ids
}

func (h *house) holds(b tarn.BranchName, want ...int32) {
	h.t.Helper()
	if got := h.ids(b); !slices.Equal(got, want) {
		h.t.Errorf("branch %s has rows %v, want %v", b.Branch, got, want)
	}
}

// moment is the database's clock, a little after everything that was done.
func (h *house) moment(b tarn.BranchName) time.Time {
	h.t.Helper()
	return query[time.Time](h, b, `SELECT clock_timestamp() FROM pg_sleep(0.02)`)
}

func (h *house) project(id string, major int) (tarn.ProjectName, tarn.BranchName) {
	h.t.Helper()
	p := tarn.ProjectName{Project: id}
	h.end(h.CreateProject(h.t.Context(), h.begin.Owner, tarn.ProjectSpec{Name: p, PGVersion: major}, tarn.InstanceSpec{}))
	return p, p.Branch(tarn.DefaultBranch)
}

func (h *house) branch(n tarn.BranchName) tarn.Branch {
	h.t.Helper()
	return must(h.GetBranch(h.t.Context(), n))(h.t)
}

func (h *house) branches(p tarn.ProjectName) []tarn.Branch {
	h.t.Helper()
	rows, _, err := h.ListBranches(h.t.Context(), p, control.Page{})
	ok(h.t, err)
	return rows
}

func TestRestore(t *testing.T) {
	for _, in := range pgtest.Installs(t) {
		t.Run(fmt.Sprint(in.Major), func(t *testing.T) { testRestore(t, in.Major) })
	}
}

func testRestore(t *testing.T, major int) {
	h, ctx := open(t), t.Context()
	owner := h.begin.Owner
	p, prod := h.project("shop", major)
	h.exec(prod, `CREATE TABLE t (id int)`)
	h.exec(prod, `INSERT INTO t VALUES (1), (2)`)
	two := h.moment(prod)
	h.exec(prod, `INSERT INTO t VALUES (3)`)
	lsn, err := tarn.ParseLSN(query[string](h, prod, `SELECT pg_current_wal_lsn()::text`))
	ok(t, err)
	three := h.moment(prod)
	h.exec(prod, `INSERT INTO t VALUES (4)`)
	h.exec(prod, `SELECT pg_create_logical_replication_slot('mine', 'pgoutput')`)
	h.end(h.CreateBranch(ctx, owner, tarn.BranchSpec{Name: p.Branch("dev")}))
	h.exec(prod, `DROP TABLE t`)
	host := must(h.GetEndpoint(ctx, prod.Endpoint("primary")))(t).Host

	// To before the DROP: every row is back, and what was replaced is kept.
	before := h.branch(prod)
	h.end(h.Pasts.Restore(ctx, owner, prod, tarn.RestoreSpec{Time: three, KeepAs: "dropped"}))
	h.holds(prod, 1, 2, 3)
	h.holds(p.Branch("dropped"))
	h.holds(p.Branch("dev"), 1, 2, 3, 4)
	after, kept := h.branch(prod), h.branch(p.Branch("dropped"))
	if after.Earlier != "dropped" || after.Timeline == before.Timeline || after.State != tarn.BranchReady || !after.Default || after.UID != before.UID {
		t.Errorf("restored branch %+v", after)
	}
	if kept.Timeline != before.Timeline || kept.State != tarn.BranchReady || kept.Default || kept.StatusMessage != "" {
		t.Errorf("kept branch %+v", kept)
	}
	if e := must(h.GetEndpoint(ctx, prod.Endpoint("primary")))(t); e.Host != host {
		t.Errorf("the address went from %s to %s", host, e.Host)
	}
	if dev := h.branch(p.Branch("dev")); dev.Source != "dropped" {
		t.Errorf("the child belongs to %q", dev.Source)
	}
	for _, b := range []string{"production", "dropped"} {
		if n := query[int](h, p.Branch(b), `SELECT count(*) FROM pg_replication_slots`); n != 0 {
			t.Errorf("%s has %d slots", b, n)
		}
	}
	for _, e := range must(h.AllEndpoints(ctx))(t) {
		if e.Host == host && e.Name.Branch != prod.Branch {
			t.Errorf("%s has the address, too", e.Name)
		}
	}

	// Twice: to a moment that lies before the first restore and so on what was
	// kept then.
	h.exec(prod, `INSERT INTO t VALUES (5)`)
	five := h.moment(prod)
	h.exec(prod, `INSERT INTO t VALUES (6)`)
	h.end(h.Pasts.Restore(ctx, owner, prod, tarn.RestoreSpec{Time: two}))
	h.holds(prod, 1, 2)
	second := h.branch(prod)
	if !strings.HasPrefix(second.Earlier, "production-before-restore-2") {
		t.Errorf("made-up name %q", second.Earlier)
	}
	h.holds(p.Branch(second.Earlier), 1, 2, 3, 5, 6)
	if major != pgtest.Newest(t).Major {
		return // the older ones differ little
	}
	// And back, through two restores: a restore of a restore.
	h.end(h.Pasts.Restore(ctx, owner, prod, tarn.RestoreSpec{Time: five, KeepAs: "third"}))
	h.holds(prod, 1, 2, 3, 5)
	h.end(h.Pasts.Restore(ctx, owner, prod, tarn.RestoreSpec{LSN: lsn, KeepAs: "fourth"}))
	h.holds(prod, 1, 2, 3)
	h.exec(prod, `INSERT INTO t VALUES (7)`)
	// A branch from a past before all of it.
	h.end(h.CreateBranch(ctx, owner, tarn.BranchSpec{Name: p.Branch("old"), SourceTime: two}))
	h.holds(p.Branch("old"), 1, 2)

	h.refusesPoints(p, before.CreateTime)
	h.resets(p)
	h.keptCanGo(p)
	h.end(h.DeleteProject(ctx, p))
	for _, tl := range must(h.fleet.Timelines(ctx))(t) {
		t.Errorf("timeline left: %+v", tl)
	}
}

// refusesPoints asks for points that no branch has: nothing is recorded.
func (h *house) refusesPoints(p tarn.ProjectName, born time.Time) {
	t, ctx, prod := h.t, h.t.Context(), p.Branch(tarn.DefaultBranch)
	t.Helper()
	had := len(h.branches(p))
	for name, c := range map[string]struct {
		s    tarn.RestoreSpec
		kind tarn.Kind
		says string
	}{
		"future":        {tarn.RestoreSpec{Time: time.Now().Add(time.Hour)}, tarn.KindInvalid, "in the future: it is outside the window ["},
		"before":        {tarn.RestoreSpec{Time: born.Add(-time.Hour)}, tarn.KindInvalid, "before the branch began: it is outside the window ["},
		"never reached": {tarn.RestoreSpec{LSN: 1 << 50}, tarn.KindInvalid, "was never reached: it is outside the window ["},
		"low LSN":       {tarn.RestoreSpec{LSN: 1}, tarn.KindInvalid, "before the branch began: it is outside the window ["},
		"nothing":       {tarn.RestoreSpec{}, tarn.KindInvalid, "one of a time, an LSN and a snapshot"},
		"two things":    {tarn.RestoreSpec{LSN: 1 << 50, Snapshot: "x"}, tarn.KindInvalid, "one of a time, an LSN and a snapshot"},
		"no snapshot":   {tarn.RestoreSpec{Snapshot: "none"}, tarn.KindNotFound, "does not exist"},
		"taken name":    {tarn.RestoreSpec{Time: time.Now(), KeepAs: "dev"}, tarn.KindConflict, "already exists"},
		"bad name":      {tarn.RestoreSpec{Time: time.Now(), KeepAs: "-"}, tarn.KindInvalid, "want 1 to 63"},
	} {
		_, err := h.Pasts.Restore(ctx, h.begin.Owner, prod, c.s)
		if tarn.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v (%s)", name, err, tarn.KindOf(err))
		}
	}
	_, err := h.CreateBranch(ctx, h.begin.Owner, tarn.BranchSpec{Name: p.Branch("never"), SourceTime: time.Now().Add(time.Hour)})
	wantKind(t, err, tarn.KindInvalid)
	_, err = h.Snapshots.Create(ctx, h.begin.Owner, tarn.SnapshotSpec{Name: p.Snapshot("never"), SourceLSN: 1 << 50})
	wantKind(t, err, tarn.KindInvalid)
	if n := len(h.branches(p)); n != had {
		t.Errorf("%d branches, had %d", n, had)
	}
	h.end(h.UpdateBranch(ctx, prod, func(b *tarn.Branch) error { b.Protected = true; return nil }))
	_, err = h.Pasts.Restore(ctx, h.begin.Owner, prod, tarn.RestoreSpec{Time: time.Now()})
	wantKind(t, err, tarn.KindConflict)
	if hint := tarn.HintOf(err); !strings.Contains(hint, "tarn branch unprotect "+p.Project+"/production") {
		t.Errorf("hint %q", hint)
	}
	_, err = h.DeleteProject(ctx, p)
	wantKind(t, err, tarn.KindConflict)
	h.end(h.UpdateBranch(ctx, prod, func(b *tarn.Branch) error { b.Protected = false; return nil }))
}

// resets puts a child to what its parent holds now, with and without keeping.
func (h *house) resets(p tarn.ProjectName) {
	t, ctx, owner := h.t, h.t.Context(), h.begin.Owner
	t.Helper()
	prod, kid := p.Branch(tarn.DefaultBranch), p.Branch("kid")
	_, err := h.Pasts.Reset(ctx, owner, prod, "")
	wantKind(t, err, tarn.KindConflict)
	if !strings.Contains(err.Error(), "root branch") || tarn.HintOf(err) == "" {
		t.Errorf("reset of a root: %v (%s)", err, tarn.HintOf(err))
	}
	h.end(h.CreateBranch(ctx, owner, tarn.BranchSpec{Name: kid}))
	h.exec(kid, `DELETE FROM t`)
	h.exec(prod, `INSERT INTO t VALUES (8)`)
	want := h.ids(prod)
	h.end(h.Pasts.Reset(ctx, owner, kid, ""))
	h.holds(kid, want...)
	if b := h.branch(kid); b.Source != tarn.DefaultBranch || b.Earlier != "" {
		t.Errorf("reset branch %+v", b)
	}
	h.exec(kid, `INSERT INTO t VALUES (9)`)
	h.end(h.CreateBranch(ctx, owner, tarn.BranchSpec{Name: p.Branch("grandkid"), Source: "kid"}))
	_, err = h.Pasts.Reset(ctx, owner, kid, "")
	wantKind(t, err, tarn.KindConflict)
	if !strings.Contains(tarn.HintOf(err), "--keep-as") {
		t.Errorf("reset of a branch with children: %v (%s)", err, tarn.HintOf(err))
	}
	h.end(h.Pasts.Reset(ctx, owner, kid, "kid-was"))
	h.holds(kid, want...)
	h.holds(p.Branch("kid-was"), append(slices.Clone(want), 9)...)
	if b := h.branch(p.Branch("grandkid")); b.Source != "kid-was" {
		t.Errorf("the child belongs to %q", b.Source)
	}
}

// keptCanGo deletes what a restore kept: the branch does not need it.
func (h *house) keptCanGo(p tarn.ProjectName) {
	t, ctx, prod := h.t, h.t.Context(), p.Branch(tarn.DefaultBranch)
	t.Helper()
	want := h.ids(prod)
	h.end(h.DeleteBranch(ctx, p.Branch("fourth")))
	h.holds(prod, want...)
	if b := h.branch(prod); b.Earlier != "" {
		t.Errorf("the past of the branch is %q, which is gone", b.Earlier)
	}
	h.end(h.CreateBranch(ctx, h.begin.Owner, tarn.BranchSpec{Name: p.Branch("last")}))
	h.holds(p.Branch("last"), want...)
}

func TestSnapshots(t *testing.T) {
	h, ctx := open(t), t.Context()
	owner := h.begin.Owner
	p, prod := h.project("shop", 0)
	h.exec(prod, `CREATE TABLE t (id int)`)
	h.exec(prod, `INSERT INTO t VALUES (1)`)
	one := h.moment(prod)
	h.exec(prod, `INSERT INTO t VALUES (2)`)
	dev := p.Branch("dev")
	h.end(h.CreateBranch(ctx, owner, tarn.BranchSpec{Name: dev}))
	h.exec(dev, `INSERT INTO t VALUES (3)`)

	past, now, ends := p.Snapshot("past"), p.Snapshot("now"), p.Snapshot("ends")
	h.end(h.Snapshots.Create(ctx, owner, tarn.SnapshotSpec{Name: past, SourceTime: one}))
	h.end(h.Snapshots.Create(ctx, owner, tarn.SnapshotSpec{Name: now, Source: "dev"}))
	h.end(h.Snapshots.Create(ctx, owner, tarn.SnapshotSpec{Name: ends, ExpireTime: time.Now().Add(time.Hour)}))
	_, err := h.Snapshots.Create(ctx, owner, tarn.SnapshotSpec{Name: now})
	wantKind(t, err, tarn.KindConflict)
	s := must(h.Snapshots.Get(ctx, past))(t)
	if s.State != tarn.BranchReady || !s.PointTime.Equal(one.Truncate(time.Microsecond)) || s.PointLSN == 0 || s.Source != tarn.DefaultBranch {
		t.Errorf("snapshot %+v, want the point %s", s, one)
	}

	// They stay when the project keeps no history, and when the branch is gone.
	h.end(h.UpdateProject(ctx, p, func(p *tarn.Project) error { p.History = tarn.NoHistory; return nil }))
	_, err = h.CreateBranch(ctx, owner, tarn.BranchSpec{Name: p.Branch("x"), SourceTime: one})
	if tarn.KindOf(err) != tarn.KindInvalid || !strings.Contains(err.Error(), "keeps no history") || tarn.HintOf(err) == "" {
		t.Errorf("branch of the past without history: %v (%s)", err, tarn.HintOf(err))
	}
	h.end(h.DeleteBranch(ctx, dev))
	h.exec(prod, `TRUNCATE t`)
	h.end(h.CreateBranch(ctx, owner, tarn.BranchSpec{Name: p.Branch("a"), SourceSnapshot: "now"}))
	h.holds(p.Branch("a"), 1, 2, 3)
	if b := h.branch(p.Branch("a")); b.SourceSnapshot != "now" || b.Source != "" {
		t.Errorf("branch of a snapshot: %+v", b)
	}
	_, err = h.Pasts.Reset(ctx, owner, p.Branch("a"), "")
	wantKind(t, err, tarn.KindConflict)
	h.end(h.Pasts.Restore(ctx, owner, prod, tarn.RestoreSpec{Snapshot: "past"}))
	h.holds(prod, 1)
	h.exec(prod, `INSERT INTO t VALUES (10)`)
	h.end(h.Pasts.Restore(ctx, owner, prod, tarn.RestoreSpec{Snapshot: "past"}))
	h.holds(prod, 1)
	names := func() (all []string) {
		rows, _, err := h.Snapshots.List(ctx, p, control.Page{})
		ok(t, err)
		for _, s := range rows {
			all = append(all, s.Name.Snapshot)
		}
		return all
	}
	if got := names(); !slices.Equal(got, []string{"ends", "now", "past"}) {
		t.Errorf("snapshots %q", got)
	}
	h.end(h.Snapshots.Delete(ctx, past))
	h.holds(prod, 1)
	_, err = h.Snapshots.Get(ctx, past)
	wantKind(t, err, tarn.KindNotFound)
	_, err = h.Snapshots.Delete(ctx, past)
	wantKind(t, err, tarn.KindNotFound)

	// The project takes the rest with it.
	h.end(h.DeleteProject(ctx, p))
	if all := must(controldb.AllSnapshots(ctx, h.db, p))(t); len(all) != 0 {
		t.Errorf("snapshots left: %+v", all)
	}
	for _, tl := range must(h.fleet.Timelines(ctx))(t) {
		t.Errorf("timeline left: %+v", tl)
	}
}

// A branch and a snapshot go when their time has come; what was made from them
// stays.
func TestExpiry(t *testing.T) {
	h, ctx := open(t), t.Context()
	owner := h.begin.Owner
	p, prod := h.project("shop", 0)
	h.exec(prod, `CREATE TABLE t AS SELECT 1 AS id`)
	soon := time.Now().Add(2 * time.Second)
	h.end(h.CreateBranch(ctx, owner, tarn.BranchSpec{Name: p.Branch("brief"), ExpireTime: soon}))
	h.end(h.Snapshots.Create(ctx, owner, tarn.SnapshotSpec{Name: p.Snapshot("brief"), ExpireTime: soon}))
	h.end(h.Snapshots.Create(ctx, owner, tarn.SnapshotSpec{Name: p.Snapshot("of-brief"), Source: "brief"}))
	h.end(h.CreateBranch(ctx, owner, tarn.BranchSpec{Name: p.Branch("stays"), SourceSnapshot: "brief"}))
	_, err := h.CreateBranch(ctx, owner, tarn.BranchSpec{Name: p.Branch("child"), Source: "brief"})
	wantKind(t, err, tarn.KindConflict)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); ; <-tick.C {
		_, b := h.GetBranch(ctx, p.Branch("brief"))
		_, s := h.Snapshots.Get(ctx, p.Snapshot("brief"))
		if tarn.KindOf(b) == tarn.KindNotFound && tarn.KindOf(s) == tarn.KindNotFound {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("branch: %v, snapshot: %v", b, s)
		}
	}
	h.holds(p.Branch("stays"), 1)
	h.end(h.CreateBranch(ctx, owner, tarn.BranchSpec{Name: p.Branch("later"), SourceSnapshot: "of-brief"}))
	h.holds(p.Branch("later"), 1)
}

// Money that moves all the time adds up at every past moment.
func TestAnySecond(t *testing.T) {
	h, ctx := open(t), t.Context()
	owner := h.begin.Owner
	p, prod := h.project("bank", 0)
	const accounts, total = 50, 50 * 1000
	h.exec(prod, fmt.Sprintf(`CREATE TABLE account AS SELECT id, 1000 AS balance FROM generate_series(1, %d) id`, accounts))
	h.exec(prod, `CREATE TABLE done (n int)`)
	conn := must(h.Connect(ctx, prod, "", nil))(t)
	defer conn.Close(ctx)
	type moment struct {
		at time.Time
		n  int
	}
	var moments []moment
	for n := 1; n <= 400; n++ {
		ok(t, pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `UPDATE account SET balance = balance + CASE id WHEN $1 THEN -7 ELSE 7 END WHERE id IN ($1, $2)`, n%accounts+1, (n+13)%accounts+1)
			if err == nil {
				_, err = tx.Exec(ctx, `INSERT INTO done VALUES ($1)`, n)
			}
			return err
		}))
		if n%20 == 0 {
			moments = append(moments, moment{time.Now(), n})
		}
		if n%150 == 0 {
			_, err := conn.Exec(ctx, `CHECKPOINT`)
			ok(t, err)
		}
	}
	for i, m := range moments {
		b := p.Branch(fmt.Sprintf("at-%d", i))
		h.end(h.CreateBranch(ctx, owner, tarn.BranchSpec{Name: b, SourceTime: m.at}))
		if sum, n := query[int](h, b, `SELECT sum(balance) FROM account`), query[int](h, b, `SELECT max(n) FROM done`); sum != total || n != m.n {
			t.Errorf("at %s: balances add up to %d, want %d; %d transfers, want %d", m.at, sum, total, n, m.n)
		}
		h.end(h.DeleteBranch(ctx, b))
	}
	conn.Close(ctx)
	m := moments[7]
	h.end(h.Pasts.Restore(ctx, owner, prod, tarn.RestoreSpec{Time: m.at}))
	if sum, n := query[int](h, prod, `SELECT sum(balance) FROM account`), query[int](h, prod, `SELECT max(n) FROM done`); sum != total || n != m.n {
		t.Errorf("restored to %s: balances add up to %d, want %d; %d transfers, want %d", m.at, sum, total, n, m.n)
	}
}
