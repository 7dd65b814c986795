package compute

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

func upTo(n int32) []int32 {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(i + 1)
	}
	return ids
}

// A fork of a running branch has everything acknowledged before it and nothing
// else, while the parent is written all the time; then both go their own way.
func TestForkUnderLoad(t *testing.T) {
	for _, in := range pgtest.Installs(t) {
		t.Run(fmt.Sprint(in.Major), func(t *testing.T) { testForkUnderLoad(t, in.Major) })
	}
}

func testForkUnderLoad(t *testing.T, major int) {
	o := options(t, pgtest.Dir(t))
	o.CheckEvery, o.MarkEvery = 20*time.Millisecond, time.Millisecond // marks in the middle of everything
	f := openFleet(t, o)
	parent := create(t, f, tarn.TimelineSpec{PGVersion: major})
	st := wake(t, f, spec("ep-parent", parent.ID))
	c := connectTo(t, st, tarn.Superuser)
	run(t, c, `CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL)`)
	run(t, c, `INSERT INTO account SELECT i, 1000 FROM generate_series(1, 2000) i`)
	run(t, c, `CREATE TABLE done (writer int, n bigint)`)
	run(t, c, `SELECT pg_create_logical_replication_slot('feed', 'pgoutput')`)

	// Each writer moves money and notes its n-th transfer in one transaction.
	const writers = 4
	var acknowledged [writers]atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	for w := range writers {
		conn := connectTo(t, st, tarn.Superuser)
		group.Go(func() {
			for n := int64(1); ctx.Err() == nil; n++ {
				a, b := (n*7919+int64(w)*31)%2000+1, (n*104729+int64(w)*17)%2000+1
				err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
					// In one order, so that writers never wait for each other in a circle.
					_, err := tx.Exec(ctx, `UPDATE account SET balance = balance + CASE id WHEN $1 THEN -1 ELSE 1 END
						WHERE id IN (SELECT id FROM account WHERE id IN ($1, $2) AND $1 <> $2 ORDER BY id FOR UPDATE)`, a, b)
					if err != nil {
						return err
					}
					_, err = tx.Exec(ctx, `INSERT INTO done VALUES ($1, $2)`, w, n)
					return err
				})
				if err != nil {
					if ctx.Err() == nil {
						t.Errorf("writer %d: %v", w, err)
					}
					return
				}
				acknowledged[w].Store(n)
			}
		})
	}
	progress := func(by int64) {
		t.Helper()
		from := acknowledged[0].Load()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for deadline := timeout(t, time.Minute); acknowledged[0].Load() < from+by; {
			select {
			case <-tick.C:
			case <-deadline.Done():
				t.Fatal("the writers do not get on")
			}
		}
	}
	var written tarn.TimelineID // a fork whose balances are 0
	rounds := 3
	if major != pgtest.Newest(t).Major || os.Getenv(volumesEnv) != "" {
		rounds = 1
	}
	for round := range rounds {
		progress(100)
		if round == rounds-1 {
			run(t, c, `CHECKPOINT`)
		}
		var before [writers]int64
		for w := range writers {
			before[w] = acknowledged[w].Load()
		}
		at := time.Now()
		began := time.Now()
		child := create(t, f, tarn.TimelineSpec{Source: parent.ID})
		made := time.Since(began)
		var after [writers]int64
		for w := range writers {
			after[w] = acknowledged[w].Load() + 1 // one may be committed and not acknowledged
		}
		progress(20)
		// The same moment again, once it is past: nothing after the fork above.
		past := create(t, f, tarn.TimelineSpec{Source: parent.ID, Time: at})
		check := func(cc *pgx.Conn, what string) {
			t.Helper()
			if sum := query[int64](t, cc, `SELECT sum(balance)::bigint FROM account`); sum != 2000*1000 {
				t.Errorf("round %d, %s: balances add up to %d", round, what, sum)
			}
			for w := range writers {
				n := query[int64](t, cc, `SELECT count(*) FROM done WHERE writer = $1`, w)
				top := query[int64](t, cc, `SELECT COALESCE(max(n), 0) FROM done WHERE writer = $1`, w)
				if n != top || n < before[w] || n > after[w] {
					t.Errorf("round %d, %s: writer %d has %d transfers up to %d in the fork; %d were acknowledged before it, at most %d after", round, what, w, n, top, before[w], after[w])
				}
			}
			if n := query[int](t, cc, `SELECT count(*) FROM pg_replication_slots`); n != 0 {
				t.Errorf("round %d, %s: the fork has %d of its parent's slots", round, what, n)
			}
		}
		ep := fmt.Sprintf("ep-child-%d", round)
		began = time.Now()
		cc := connectTo(t, wake(t, f, spec(ep, child.ID)), tarn.Superuser)
		t.Logf("fork under load %s, first connection %s", made, time.Since(began))
		check(cc, "now")
		pc := connectTo(t, wake(t, f, spec("ep-past", past.ID)), tarn.Superuser)
		check(pc, "past")
		pc.Close(t.Context())
		suspend(t, f, "ep-past")
		// Isolation both ways.
		run(t, cc, `UPDATE account SET balance = 0`)
		run(t, cc, `CHECKPOINT`)
		written = child.ID
		cc.Close(t.Context())
		if child.Parent.Timeline != parent.ID || child.ForkLSN == 0 || child.ForkTime.IsZero() || len(child.Marks) != 1 {
			t.Errorf("round %d: fork is %+v", round, child)
		}
	}
	if sum := query[int64](t, c, `SELECT sum(balance)::bigint FROM account`); sum != 2000*1000 {
		t.Errorf("the parent's balances add up to %d after its forks were written", sum)
	}
	if n := query[int](t, c, `SELECT count(*) FROM pg_replication_slots`); n != 1 {
		t.Errorf("the parent has %d slots", n)
	}
	stop()
	group.Wait()
	// The forks do without their parent.
	if err := f.DeleteTimeline(t.Context(), parent.ID); err != nil {
		t.Errorf("delete of a parent: %v", err)
	}
	// A fork of a fork, of a stopped parent, and of one never started.
	for round := range rounds {
		suspend(t, f, fmt.Sprintf("ep-child-%d", round))
	}
	grand := create(t, f, tarn.TimelineSpec{Source: written})
	great := create(t, f, tarn.TimelineSpec{Source: grand.ID})
	cc := connectTo(t, wake(t, f, spec("ep-great", great.ID)), tarn.Superuser)
	if sum := query[int64](t, cc, `SELECT sum(balance)::bigint FROM account`); sum != 0 {
		t.Errorf("the fork of a fork has balances of %d", sum)
	}
}

// Forks at past times and LSNs hold exactly what was committed by then, from a
// running parent, a suspended one, and from a fork that was itself replayed.
func TestForkAtPast(t *testing.T) {
	for _, in := range pgtest.Installs(t) {
		t.Run(fmt.Sprint(in.Major), func(t *testing.T) { testForkAtPast(t, in.Major) })
	}
}

func testForkAtPast(t *testing.T, major int) {
	o := options(t, pgtest.Dir(t))
	o.CheckEvery, o.MarkEvery = 20*time.Millisecond, time.Millisecond // many marks, so that targets fall between all kinds of them
	f := openFleet(t, o)
	parent := create(t, f, tarn.TimelineSpec{PGVersion: major})
	created := time.Now()
	c := connectTo(t, wake(t, f, spec("ep-parent", parent.ID)), tarn.Superuser)
	run(t, c, `CREATE TABLE t (id int, filler text)`)

	type moment struct {
		n    int32
		time time.Time
		lsn  tarn.LSN
	}
	var moments []moment
	const last = 12
	for n := int32(1); n <= last; n++ {
		run(t, c, `INSERT INTO t SELECT $1, repeat('x', 2000)`, n)
		lsn, err := tarn.ParseLSN(query[string](t, c, `SELECT pg_current_wal_lsn()::text`))
		if err != nil {
			t.Fatal(err)
		}
		moments = append(moments, moment{n, time.Now(), lsn})
		switch n {
		case 4:
			run(t, c, `CHECKPOINT`)
		case 6:
			run(t, c, `SELECT pg_switch_wal()`) // the targets stand in two segments, one archived
		case 9:
			c.Close(t.Context())
			suspend(t, f, "ep-parent")
			c = connectTo(t, wake(t, f, spec("ep-parent", parent.ID)), tarn.Superuser)
		default:
			run(t, c, `SELECT pg_sleep(0.03)`)
		}
	}
	check := func(source tarn.TimelineID, m moment, s tarn.TimelineSpec) tarn.TimelineStatus {
		t.Helper()
		s.Source = source
		child := create(t, f, s)
		ep := "ep-" + string(child.ID)
		cc := connectTo(t, wake(t, f, spec(ep, child.ID)), tarn.Superuser)
		if got := rows(t, cc); !slices.Equal(got, upTo(m.n)) {
			t.Errorf("fork at %s / %s has rows %v, want 1 to %d", m.time.Format(time.StampMicro), m.lsn, got, m.n)
		}
		run(t, cc, `INSERT INTO t VALUES (0)`) // it is writable
		run(t, cc, `DELETE FROM t WHERE id = 0`)
		cc.Close(t.Context())
		suspend(t, f, ep)
		return child
	}
	times, lsns := []int{0, 6, 8, 11}, []int{2, 5, 11}
	if major != pgtest.Newest(t).Major || os.Getenv(volumesEnv) != "" {
		times, lsns = []int{7}, []int{3} // the older ones and other volumes differ little
	}
	for _, i := range times {
		check(parent.ID, moments[i], tarn.TimelineSpec{Time: moments[i].time})
	}
	for _, i := range lsns {
		check(parent.ID, moments[i], tarn.TimelineSpec{LSN: moments[i].lsn})
	}

	// Outside the window: an error that names it.
	outside := func(s tarn.TimelineSpec) {
		t.Helper()
		s.ID, s.Source = newID(t), parent.ID
		_, err := f.CreateTimeline(t.Context(), s)
		if tarn.KindOf(err) != tarn.KindInvalid || !strings.Contains(err.Error(), "window [") {
			t.Errorf("fork at %v %s: %v", s.Time, s.LSN, err)
		}
		if _, err := f.store.Stat(t.Context(), s.ID); tarn.KindOf(err) != tarn.KindNotFound {
			t.Errorf("fork at %v %s left a timeline", s.Time, s.LSN)
		}
	}
	outside(tarn.TimelineSpec{Time: time.Now().Add(time.Minute)})
	outside(tarn.TimelineSpec{Time: created.Add(-time.Hour)})
	outside(tarn.TimelineSpec{LSN: 1})
	outside(tarn.TimelineSpec{LSN: moments[len(moments)-1].lsn + 1<<30})

	// The same from a suspended parent; a time after its end is its end. No
	// commit follows the last moment, so a replay to it goes to the WAL's end.
	run(t, c, `INSERT INTO t VALUES (13)`)
	lsn, err := tarn.ParseLSN(query[string](t, c, `SELECT pg_current_wal_lsn()::text`))
	if err != nil {
		t.Fatal(err)
	}
	moments = append(moments, moment{13, time.Now(), lsn})
	c.Close(t.Context())
	suspend(t, f, "ep-parent")
	for _, i := range []int{1, 12} {
		check(parent.ID, moments[i], tarn.TimelineSpec{Time: moments[i].time})
		check(parent.ID, moments[i], tarn.TimelineSpec{LSN: moments[i].lsn})
	}
	child := check(parent.ID, moments[12], tarn.TimelineSpec{Time: time.Now()})
	outside(tarn.TimelineSpec{Time: time.Now().Add(time.Minute)})
	outside(tarn.TimelineSpec{LSN: moments[len(moments)-1].lsn + 1<<30})

	// A fork can itself be forked at a time, from its creation on, also when
	// it is on another TLI than its parent.
	replayed := check(parent.ID, moments[3], tarn.TimelineSpec{Time: moments[3].time})
	for _, source := range []tarn.TimelineStatus{child, replayed} {
		ep := "ep-again-" + string(source.ID)
		cc := connectTo(t, wake(t, f, spec(ep, source.ID)), tarn.Superuser)
		had := rows(t, cc)
		run(t, cc, `SELECT pg_sleep(0.05)`)
		at := moment{n: int32(len(had)), time: time.Now()}
		run(t, cc, `INSERT INTO t VALUES (100)`)
		check(source.ID, at, tarn.TimelineSpec{Time: at.time})
		check(source.ID, at, tarn.TimelineSpec{Time: source.Marks[0].Time.Add(time.Microsecond)})
		cc.Close(t.Context())
	}
}

// A fork of a timeline whose Postgres is killed meanwhile works, or can be tried
// again: whoever asked must be able to tell it from one that never will.
func TestForkOfKilledParent(t *testing.T) {
	f := openFleet(t, options(t, pgtest.Dir(t)))
	parent := create(t, f, tarn.TimelineSpec{})
	s := spec("ep-parent", parent.ID)
	refused := 0
	for range 5 {
		st := wake(t, f, s)
		if err := unix.Kill(st.PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		child := tarn.TimelineSpec{ID: newID(t), Source: parent.ID}
		for deadline := timeout(t, 30*time.Second); ; {
			_, err := f.CreateTimeline(deadline, child)
			if err == nil {
				break
			}
			if tarn.KindOf(err) != tarn.KindUnavailable || deadline.Err() != nil {
				t.Fatalf("fork of a killed parent: %s: %v", tarn.KindOf(err), err)
			}
			refused++
		}
	}
	t.Logf("refused %d times", refused)
}
