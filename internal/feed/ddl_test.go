package feed_test

import (
	"testing"
)

// What happens to partitions is in no row of the stream: the table is copied
// anew, and its history still ends as the table is.
func partitionsMove(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.p (id int, v text) PARTITION BY RANGE (id);
		CREATE TABLE s.p0 PARTITION OF s.p FOR VALUES FROM (0) TO (10);
		CREATE TABLE s.p1 PARTITION OF s.p FOR VALUES FROM (10) TO (20);
		INSERT INTO s.p SELECT i, 'v' || i FROM generate_series(0, 19) i`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "p")
	same := func(after string) {
		t.Helper()
		eventually(t, "the history is right after "+after, func() any { return w.feed("s") }, func() bool {
			w.caughtUp("s", "p")
			return equal(replay(t, "p", w.history("s", "p")), w.rowsOf("s.p", "id", "v"))
		})
	}
	w.exec(`CREATE TABLE s.p2 PARTITION OF s.p FOR VALUES FROM (20) TO (30)`)
	w.exec(`INSERT INTO s.p VALUES (20, 'new')`)
	same("a new partition")
	if h := w.history("s", "p"); len(h) != 21 {
		t.Errorf("a new partition led to %d changes, want 21", len(h))
	}
	w.exec(`ALTER TABLE s.p DETACH PARTITION s.p1; UPDATE s.p1 SET v = 'alone'`)
	same("detach")
	w.exec(`ALTER TABLE s.p ATTACH PARTITION s.p1 FOR VALUES FROM (10) TO (20)`)
	same("attach")
	w.exec(`TRUNCATE s.p0`)
	same("truncate of one")
	// While nobody looks.
	w.kill()
	w.exec(`INSERT INTO s.p VALUES (1, 'x'), (2, 'y')`)
	w.exec(`DROP TABLE s.p2`)
	w.exec(`INSERT INTO s.p VALUES (3, 'z')`)
	w.start()
	same("drop")
	w.exec(`TRUNCATE s.p`)
	w.exec(`INSERT INTO s.p VALUES (4, 'last')`)
	same("truncate of all")
}

func equal(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// Stored generated columns come where Postgres publishes them, virtual ones
// never; both leave the user's updates alone.
func generatedColumns(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.g (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED); INSERT INTO s.g VALUES (1, 1)`)
	columns := []string{"id", "n"}
	if w.lab.in.Major >= 18 {
		w.exec(`CREATE TABLE s.v (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) VIRTUAL); INSERT INTO s.v VALUES (1, 1)`)
		columns = append(columns, "twice")
	}
	w.start()
	w.follow("s")
	w.caughtUp("s", "g")
	w.exec(`UPDATE s.g SET n = 5; INSERT INTO s.g VALUES (2, 2)`)
	w.caughtUp("s", "g")
	w.sameRows("s", "s", "g", columns...)
	if w.lab.in.Major < 18 {
		return
	}
	w.exec(`CREATE TABLE s.later (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2))`)
	w.exec(`INSERT INTO s.later VALUES (1, 1); UPDATE s.later SET n = 2`)
	w.caughtUp("s", "v", "later")
	w.exec(`UPDATE s.v SET n = 5; INSERT INTO s.v VALUES (2, 2); DELETE FROM s.v WHERE id = 1`)
	w.caughtUp("s", "v")
	var got string
	for _, c := range w.history("s", "v") {
		got += c.kind() + " " + c.source() + "\n"
	}
	// The old rows have the key only.
	if want := "insert id=1|n=1\nupdate_preimage id=1\nupdate_postimage id=1|n=5\ninsert id=2|n=2\ndelete id=1\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
