package compute

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
	"github.com/tarndb/tarn/internal/wal"
)

func withRemote(t *testing.T, dir string, s blob.Store) Options {
	t.Helper()
	o := options(t, dir)
	r, err := wal.NewRemote(s, wal.RemoteOptions{Every: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	o.Remote.WAL = r
	return o
}

// keep runs the fleet until the test ends.
func keep(t *testing.T, f *Fleet) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := timeout(t, 2*time.Minute)
	for !holds() {
		select {
		case <-tick.C:
		case <-limit.Done():
			t.Fatalf("it does not become true that %s", what)
		}
	}
}

func copied(t *testing.T, f *Fleet, id tarn.TimelineID) (tarn.LSN, wal.Position) {
	t.Helper()
	st, err := f.store.Stat(t.Context(), id)
	if err != nil || len(st.Marks) == 0 {
		t.Fatal(st, err)
	}
	m := st.Marks[len(st.Marks)-1]
	c, err := f.maker.controlAt(t.Context(), tarn.Point{Timeline: id, Seq: m.Seq})
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.o.Remote.WAL.Position(t.Context(), id, wal.Start{TLI: c.TLI, LSN: c.Redo, SegmentBytes: c.SegmentBytes})
	if err != nil {
		t.Fatal(err)
	}
	return m.LSN, p
}

func TestWALIsCopied(t *testing.T) {
	store := memory.New()
	dir := pgtest.Dir(t)
	o := withRemote(t, dir, store)
	f := openFleet(t, o)
	stop := keep(t, f)
	main := create(t, f, tarn.TimelineSpec{})
	st := wake(t, f, spec("ep-main", main.ID))
	c := connectTo(t, st, tarn.Superuser)
	run(t, c, `CREATE TABLE t (id int PRIMARY KEY, v text)`)
	run(t, c, `INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 1000) i`)
	past, err := tarn.ParseLSN(query[string](t, c, `SELECT pg_current_wal_flush_lsn()::text`))
	if err != nil {
		t.Fatal(err)
	}
	// Some segments behind it, which leave this computer.
	run(t, c, `INSERT INTO t SELECT i, string_agg(md5((i * 100 + j)::text), '') FROM generate_series(1001, 9000) i, generate_series(1, 200) j GROUP BY i`)
	run(t, c, `CHECKPOINT`)
	end, err := tarn.ParseLSN(query[string](t, c, `SELECT pg_current_wal_flush_lsn()::text`))
	if err != nil {
		t.Fatal(err)
	}
	e := f.serving(main.ID)
	if err := e.copying.uploader.Flush(timeout(t, time.Minute), end); err != nil {
		t.Fatal(err)
	}
	if lag := f.WALLag(); len(lag) != 1 {
		t.Errorf("lag %v", lag)
	}
	if lsn, err := f.WALCopied(t.Context(), main.ID); err != nil || lsn < end {
		t.Errorf("copied up to %s of %s, %v", lsn, end, err)
	}
	archive := filepath.Join(dir, "wal", string(main.ID), "archive")
	run(t, c, `SELECT pg_switch_wal()`)
	run(t, c, `CHECKPOINT`)
	eventually(t, "segments are archived", func() bool { entries, _ := os.ReadDir(archive); return len(entries) >= 2 })
	before, err := os.ReadDir(archive)
	if err != nil {
		t.Fatal(err)
	}
	f.o.Remote.LocalWAL = 1
	if err := (copier{f.maker}).trim(t.Context(), main.ID); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadDir(archive)
	if err != nil || len(after) >= len(before) {
		t.Fatalf("%d of %d segments left, %v", len(after), len(before), err)
	}
	old := create(t, f, tarn.TimelineSpec{Source: main.ID, LSN: past})
	if got := rows(t, connectTo(t, wake(t, f, spec("ep-old", old.ID)), tarn.Superuser)); len(got) != 1000 {
		t.Errorf("the fork at %s has %d rows", past, len(got))
	}

	// What a suspend leaves, and forks that never ran, are copied to their ends.
	suspend(t, f, "ep-main")
	never := create(t, f, tarn.TimelineSpec{Source: main.ID})
	for _, id := range []tarn.TimelineID{main.ID, never.ID} {
		eventually(t, "WAL of "+string(id)+" is copied", func() bool {
			end, p := copied(t, f, id)
			return p.To >= end && len(p.Gaps) == 0
		})
		eventually(t, "the fleet knows", func() bool {
			end, _ := copied(t, f, id)
			lsn, err := f.WALCopied(t.Context(), id)
			return err == nil && lsn >= end
		})
	}

	// All WAL of the timeline is lost here.
	stop()
	if err := f.walOf(main.ID).Remove(); err != nil {
		t.Fatal(err)
	}
	f = openFleet(t, o)
	keep(t, f)
	if got := rows(t, connectTo(t, wake(t, f, spec("ep-main", main.ID)), tarn.Superuser)); len(got) != 9000 {
		t.Errorf("after the loss of the WAL it has %d rows", len(got))
	}

	// A deleted timeline leaves nothing in the store.
	for _, id := range []tarn.TimelineID{never.ID, old.ID} {
		if err := f.DeleteTimeline(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the copy of "+string(id)+" is gone", func() bool {
			ids, err := o.Remote.WAL.Timelines(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return !slices.Contains(ids, id)
		})
	}
}

// A store that is not reached stops nothing; what it missed arrives later.
func TestWALIsCopiedAfterAnOutage(t *testing.T) {
	under := memory.New()
	out := make(chan struct{})
	store := faulty.New(under, func(faulty.Call) faulty.Fault {
		select {
		case <-out:
			return faulty.None
		default:
			return faulty.Fail
		}
	})
	f := openFleet(t, withRemote(t, pgtest.Dir(t), store))
	keep(t, f)
	main := create(t, f, tarn.TimelineSpec{})
	c := connectTo(t, wake(t, f, spec("ep-main", main.ID)), tarn.Superuser)
	run(t, c, `CREATE TABLE t AS SELECT 1 AS id`)
	suspend(t, f, "ep-main")
	close(out)
	eventually(t, "the WAL arrives", func() bool {
		end, p := copied(t, f, main.ID)
		return p.To >= end
	})
}

// The computer is lost. What came back of its pages is older than its WAL in the
// object store: recovery brings the rest.
func TestOlderPagesComeBackWithTheWALBehindThem(t *testing.T) {
	dir, store := pgtest.Dir(t), memory.New()
	o := withRemote(t, dir, store)
	f := openFleet(t, o)
	stop := keep(t, f)
	main := create(t, f, tarn.TimelineSpec{})
	c := connectTo(t, wake(t, f, spec("ep-main", main.ID)), tarn.Superuser)
	run(t, c, `CREATE TABLE t (id int PRIMARY KEY)`)
	stop() // all that is there is of a clean shutdown
	kept, pages := filepath.Join(pgtest.Dir(t), "kept"), map[pageWrites]string{wholePages: "store", tornPages: "plain"}[f.store.PageWrites()]
	if out, err := exec.Command("cp", "-a", filepath.Join(dir, pages), kept).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	f = openFleet(t, o)
	stop = keep(t, f)
	c = connectTo(t, wake(t, f, spec("ep-main", main.ID)), tarn.Superuser)
	for i := range 50 {
		run(t, c, `INSERT INTO t SELECT generate_series($1::int * 100, $1::int * 100 + 99)`, i)
		run(t, c, `UPDATE t SET id = -id WHERE id = $1`, i*100+1)
	}
	run(t, c, `CHECKPOINT`)
	run(t, c, `DELETE FROM t WHERE id % 10 = 0`)
	want := rows(t, c)
	stop()

	for _, lost := range []string{pages, "wal"} {
		if err := os.RemoveAll(filepath.Join(dir, lost)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(kept, filepath.Join(dir, pages)); err != nil {
		t.Fatal(err)
	}
	f = openFleet(t, o)
	keep(t, f)
	c = connectTo(t, wake(t, f, spec("ep-main", main.ID)), tarn.Superuser)
	if got := rows(t, c); !slices.Equal(got, want) {
		t.Errorf("%d rows came back, want %d", len(got), len(want))
	}
	run(t, c, `INSERT INTO t VALUES (1000000)`)
	suspend(t, f, "ep-main")
	eventually(t, "the copy goes on behind it", func() bool {
		end, p := copied(t, f, main.ID)
		return p.To >= end && len(p.Gaps) == 0
	})
}
