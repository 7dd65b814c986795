package feed_test

import (
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// settings are changed while the feed runs; a table that is left out and taken
// in again is copied anew.
func settings(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.a (id int); CREATE TABLE s.tmp_1 (id int); INSERT INTO s.a VALUES (1); INSERT INTO s.tmp_1 VALUES (1)`)
	w.start()
	w.followWith("s", tarn.FeedSettings{Exclude: []string{"tmp_*"}, Flush: time.Second})
	w.caughtUp("s", "a")
	w.exec(`INSERT INTO s.tmp_1 VALUES (2); INSERT INTO s.a VALUES (2)`)
	w.caughtUp("s", "a")
	if f := w.feed("s"); len(f.Tables) != 1 || f.Flush != time.Second || f.PipelineID == "" {
		t.Errorf("feed %+v", f)
	}
	// What the database's own users see.
	var state, lsn string
	check(t, w.conn.QueryRow(t.Context(), `SELECT status, committed_lsn::text FROM wal2delta.tables WHERE table_oid = 's.a'::regclass`).Scan(&state, &lsn))
	if state != "STREAMING" || lsn == "" {
		t.Errorf("the view shows %s at %s", state, lsn)
	}

	// Excluded: it is left where it is. Taken in again: copied anew.
	update := func(s tarn.FeedSettings) {
		_, err := w.keeper.Update(t.Context(), w.branch, "s", s)
		check(t, err)
	}
	update(tarn.FeedSettings{Include: []string{"tmp_?"}})
	eventually(t, "a stopped", func() any { return w.feed("s") }, func() bool { return w.table("s", "a").State == tarn.FeedTerminated })
	w.exec(`DELETE FROM s.a WHERE id = 1; INSERT INTO s.a VALUES (3); UPDATE s.tmp_1 SET id = id + 10`)
	w.caughtUp("s", "tmp_1")
	w.sameRows("s", "s", "tmp_1", "id")
	update(tarn.FeedSettings{})
	w.caughtUp("s", "a", "tmp_1")
	w.sameRows("s", "s", "a", "id")

	// Paused: nothing moves, and nothing is lost.
	update(tarn.FeedSettings{Paused: true})
	eventually(t, "paused", func() any { return w.feed("s") }, func() bool { return w.feed("s").Message == "paused" })
	before := len(w.history("s", "a"))
	w.exec(`INSERT INTO s.a VALUES (4)`)
	update(tarn.FeedSettings{})
	w.caughtUp("s", "a")
	if h := w.history("s", "a"); len(h) != before+1 {
		t.Errorf("%d changes after the pause, want %d", len(h), before+1)
	}

	// A new copy on request keeps what was there.
	_, err := w.keeper.Resync(t.Context(), w.branch, "s", []string{"a"})
	check(t, err)
	eventually(t, "a new copy", func() any { return w.feed("s") }, func() bool {
		h := w.history("s", "a")
		return len(h) == before+1+1+3 && h[before+1].kind() == "truncate"
	})
	w.sameRows("s", "s", "a", "id")
	// The pipeline tells of it.
	updates, err := controldb.ListUpdates(t.Context(), w.db, w.feed("s").PipelineID, 10)
	check(t, err)
	if len(updates) < 4 || updates[0].State != tarn.UpdateRunning || updates[1].State != tarn.UpdateCanceled {
		t.Errorf("updates %+v", updates)
	}
	for _, want := range []string{"made replication slot", "copied table a: 3 rows", "table a is not followed any more: the feed leaves the table out"} {
		var told []string // after what it tells of
		eventually(t, "event "+want, func() any { return strings.Join(told, "\n") }, func() bool {
			events, err := controldb.ListEvents(t.Context(), w.db, w.feed("s").PipelineID, 0, 100)
			check(t, err)
			told = nil
			for _, e := range events {
				told = append(told, e.Message)
			}
			return strings.Contains(strings.Join(told, "\n"), want)
		})
	}
	for _, bad := range []tarn.FeedSettings{{Include: []string{"[x"}}, {Flush: time.Millisecond}, {MaxWAL: 1}, {Derived: "views"}} {
		if _, err := w.keeper.Update(t.Context(), w.branch, "s", bad); tarn.KindOf(err) != tarn.KindInvalid {
			t.Errorf("%+v: error %v", bad, err)
		}
	}
	if _, err := w.keeper.Resync(t.Context(), w.branch, "s", []string{"nope"}); tarn.KindOf(err) != tarn.KindNotFound {
		t.Errorf("resync of no table: %v", err)
	}
}

// A slot that holds back too much is given up; the history goes on behind a
// truncate row.
func heldTooMuch(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int); INSERT INTO s.t VALUES (1)`)
	w.start()
	w.followWith("s", tarn.FeedSettings{MaxWAL: tarn.MinFeedWAL})
	w.caughtUp("s", "t")
	_, err := w.keeper.Update(t.Context(), w.branch, "s", tarn.FeedSettings{MaxWAL: tarn.MinFeedWAL, Paused: true})
	check(t, err)
	w.exec(`CREATE TABLE filler (v text)`)
	w.exec(`INSERT INTO filler SELECT repeat(md5(i::text), 200) FROM generate_series(1, 1000) i`)
	w.exec(`ALTER TABLE filler ALTER v SET STORAGE EXTERNAL; INSERT INTO filler SELECT repeat(md5(i::text), 2000) FROM generate_series(1, 1200) i`)
	eventually(t, "the slot is given up", func() any { return w.feed("s") }, func() bool {
		return strings.Contains(w.feed("s").Message, "given up")
	})
	var n int
	check(t, w.conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_replication_slots WHERE database = current_database()`).Scan(&n))
	if n != 0 {
		t.Errorf("%d slots are left", n)
	}
	w.exec(`INSERT INTO s.t VALUES (2)`)
	_, err = w.keeper.Update(t.Context(), w.branch, "s", tarn.FeedSettings{})
	check(t, err)
	w.caughtUp("s", "t")
	w.sameRows("s", "s", "t", "id")
	if h := w.history("s", "t"); len(h) != 4 || h[1].kind() != "truncate" {
		t.Errorf("history %v, want a row, a truncate and two rows", h)
	}
}

// A history that differs from its table is found, whatever differs.
func verifyFinds(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY, v text); INSERT INTO s.t SELECT i, 'v' || i FROM generate_series(1, 2000) i`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	w.verified("s", "t")
	for _, behind := range []string{
		`UPDATE s.t SET v = 'other' WHERE id = 7`, `DELETE FROM s.t WHERE id = 8`, `INSERT INTO s.t VALUES (5000, NULL)`,
		`UPDATE s.t SET id = id + 10000 WHERE id IN (9, 10)`,
	} {
		// A change that the publication does not send is one the feed never sees.
		w.exec(`ALTER PUBLICATION tarn_feed_` + w.feed("s").UID + ` SET (publish = 'truncate')`)
		w.exec(behind)
		w.caughtUp("s", "t")
		w.exec(`ALTER PUBLICATION tarn_feed_` + w.feed("s").UID + ` SET (publish = 'insert, update, delete, truncate')`)
		v, err := w.keeper.Verify(t.Context(), w.branch, "s", "t")
		check(t, err)
		if v.Equal {
			t.Errorf("%s: not found: %+v", behind, v)
		}
		_, err = w.keeper.Resync(t.Context(), w.branch, "s", nil)
		check(t, err)
		w.caughtUp("s", "t")
		w.verified("s", "t")
	}
	if _, err := w.keeper.Verify(t.Context(), w.branch, "s", "nope"); tarn.KindOf(err) != tarn.KindNotFound {
		t.Errorf("verify of no table: %v", err)
	}
}
