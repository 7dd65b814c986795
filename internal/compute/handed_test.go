package compute

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// handOver leaves a fleet's computes to a new fleet, by way of what another
// program would get.
func handOver(t *testing.T, f *Fleet, o Options) *Fleet {
	t.Helper()
	h, err := f.HandOver()
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	o.Handed = new(Handed)
	if err := json.Unmarshal(b, o.Handed); err != nil {
		t.Fatal(err)
	}
	return openFleet(t, o)
}

// Postgres and its sessions do not notice that the node changes: neither those
// that write, nor those that use files which have no name any more.
func TestHandOver(t *testing.T) {
	o := options(t, pgtest.Dir(t))
	f := openFleet(t, o)
	tl := create(t, f, tarn.TimelineSpec{})
	s := spec("ep-1", tl.ID)
	st := wake(t, f, s)
	c := connectTo(t, st, tarn.Superuser)
	run(t, c, `CREATE TABLE t (id int)`)
	run(t, c, `CREATE TABLE doomed AS SELECT generate_series(1, 100000) AS n`)
	run(t, c, `CREATE TEMP TABLE mine AS SELECT generate_series(1, 100000) AS n`)
	run(t, c, `CHECKPOINT`)

	// A session that has the files of a table open, which is dropped meanwhile.
	reader := connectTo(t, st, tarn.Superuser)
	run(t, reader, `SET enable_seqscan = on`)
	if n := query[int](t, reader, `SELECT count(*) FROM doomed`); n != 100000 {
		t.Fatalf("%d rows", n)
	}
	run(t, c, `DROP TABLE doomed`)

	// Files that are open and have no name, of somebody like Postgres.
	// Not os.Create: the runtime would ask our own mount to be watched.
	fd, err := unix.Open(filepath.Join(st.Mount, "nameless"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	nameless := os.NewFile(uintptr(fd), filepath.Join(st.Mount, "nameless"))
	defer nameless.Close()
	if err := os.Remove(nameless.Name()); err != nil {
		t.Fatal(err)
	}

	var stop atomic.Bool
	var work sync.WaitGroup
	written := 0
	work.Go(func() {
		own := connectTo(t, st, tarn.Superuser)
		for !stop.Load() {
			if _, err := own.Exec(t.Context(), `INSERT INTO t VALUES ($1)`, written); err != nil {
				t.Errorf("insert %d: %v", written, err)
				return
			}
			written++
		}
	})
	page := make([]byte, 8192)
	for i := range int64(5) {
		if _, err := nameless.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, 8192), 8192*i); err != nil {
			t.Error(err)
		}
		f = handOver(t, f, o)
		if _, err := nameless.ReadAt(page, 8192*i); err != nil || page[0] != byte(i+1) || page[8191] != byte(i+1) {
			t.Errorf("page %d of a file without a name begins with %d: %v", i, page[0], err)
		}
		if now := wake(t, f, s); now.PID != st.PID || !now.StartTime.Equal(st.StartTime) {
			t.Errorf("after the handover: %+v, before: %+v", now, st)
		}
		if n := query[int](t, c, `SELECT count(*) FROM mine`); n != 100000 {
			t.Errorf("%d rows in the temporary table", n)
		}
		run(t, c, `UPDATE mine SET n = n + 1`)
	}
	stop.Store(true)
	work.Wait()
	if n := query[int](t, c, `SELECT count(*) FROM t`); n != written {
		t.Errorf("%d rows, %d were written", n, written)
	}
	if err := nameless.Close(); err != nil {
		t.Error(err)
	}
	// A fork sees it all, and the endpoint can be suspended and woken as ever.
	fork := create(t, f, tarn.TimelineSpec{Source: tl.ID})
	forked := connectTo(t, wake(t, f, spec("ep-2", fork.ID)), tarn.Superuser)
	if n := query[int](t, forked, `SELECT count(*) FROM t`); n != written {
		t.Errorf("%d rows in a fork, %d were written", n, written)
	}
	suspend(t, f, "ep-1")
	if mustRecord(t, o, "ep-1").PID != 0 {
		t.Error("a record of Postgres is left")
	}
	again := connectTo(t, wake(t, f, s), tarn.Superuser)
	if n := query[int](t, again, `SELECT count(*) FROM t`); n != written {
		t.Errorf("%d rows after a restart, %d were written", n, written)
	}
}

// mustRecord is the record of an endpoint's Postgres; zero without one.
func mustRecord(t *testing.T, o Options, endpoint string) postgres.Record {
	t.Helper()
	r, err := postgres.ReadRecord(filepath.Join(o.Dir, "run", endpoint+".pid"))
	if err != nil && tarn.KindOf(err) != tarn.KindNotFound {
		t.Fatal(err)
	}
	return r
}

// A Postgres that dies between two fleets is started again by the second.
func TestHandOverOfDead(t *testing.T) {
	o := options(t, pgtest.Dir(t))
	f := openFleet(t, o)
	tl := create(t, f, tarn.TimelineSpec{})
	s := spec("ep-1", tl.ID)
	st := wake(t, f, s)
	run(t, connectTo(t, st, tarn.Superuser), `CREATE TABLE t AS SELECT 1 AS id`)
	h, err := f.HandOver()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(st.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	o.Handed = h
	f = openFleet(t, o)
	now := wake(t, f, s)
	if now.PID == st.PID {
		t.Error("a dead Postgres was taken over")
	}
	if n := query[int](t, connectTo(t, now, tarn.Superuser), `SELECT count(*) FROM t`); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// A program that knows nothing of the computes clears them away, as after a
// crash.
func TestHandOverToNobody(t *testing.T) {
	o := options(t, pgtest.Dir(t))
	f := openFleet(t, o)
	tl := create(t, f, tarn.TimelineSpec{})
	s := spec("ep-1", tl.ID)
	st := wake(t, f, s)
	run(t, connectTo(t, st, tarn.Superuser), `CREATE TABLE t AS SELECT 1 AS id`)
	h, err := f.HandOver()
	if err != nil {
		t.Fatal(err)
	}
	devices, err := h.Devices()
	mounts := map[pageWrites]int{wholePages: 1, tornPages: 0}[f.store.PageWrites()]
	if err != nil || len(devices) != mounts {
		t.Errorf("devices %v, %v", devices, err)
	}
	for _, d := range devices {
		if err := unix.Close(d); err != nil {
			t.Error(err)
		}
	}
	f = openFleet(t, o)
	checkNothingLeft(t, o.Dir)
	if n := query[int](t, connectTo(t, wake(t, f, s), tarn.Superuser), `SELECT count(*) FROM t`); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// A node that is to end while it takes computes over ends them cleanly.
func TestHandOverThenClose(t *testing.T) {
	o := options(t, pgtest.Dir(t))
	f := openFleet(t, o)
	tl := create(t, f, tarn.TimelineSpec{})
	s := spec("ep-1", tl.ID)
	run(t, connectTo(t, wake(t, f, s), tarn.Superuser), `CREATE TABLE t AS SELECT 1 AS id`)
	f = handOver(t, f, o)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	checkNothingLeft(t, o.Dir)
	f = openFleet(t, o)
	v, err := f.store.OpenVolume(t.Context(), tl.ID)
	if err != nil {
		t.Fatal(err)
	}
	control, err := readControl(v)
	if err != nil || control.State != postgres.StateShutDown {
		t.Errorf("Postgres was left as %v, %v", control.State, err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if n := query[int](t, connectTo(t, wake(t, f, s), tarn.Superuser), `SELECT count(*) FROM t`); n != 1 {
		t.Errorf("%d rows", n)
	}
}
