package feed_test

import (
	"runtime"
	"strings"
	"testing"
	"time"
)

// One transaction far larger than the memory for it, with parts that were
// rolled back, columns that come in its middle, and another that ends first.
func largeTransaction(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY, v text); CREATE TABLE s.u (id int)`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t", "u")
	w.exec(`INSERT INTO s.t SELECT i, repeat('0123456789', 60) FROM generate_series(1, 5) i`)
	other := w.connect()
	steps := []string{`BEGIN`, `INSERT INTO s.t SELECT i, repeat('0123456789', 60) FROM generate_series(6, 40000) i`,
		`SAVEPOINT a`, `INSERT INTO s.t SELECT i, repeat('abcdefghij', 60) FROM generate_series(40001, 60000) i`,
		`SAVEPOINT b`, `DELETE FROM s.t WHERE id < 30000`, `ALTER TABLE s.t ADD COLUMN lost int`, `ROLLBACK TO a`,
		`INSERT INTO s.t SELECT i, repeat('0123456789', 60) FROM generate_series(40001, 70000) i`,
		`SAVEPOINT c`, `UPDATE s.t SET v = 'new' WHERE id % 100 = 0`, `RELEASE c`,
		`ALTER TABLE s.t ADD COLUMN n int`, `INSERT INTO s.t VALUES (70001, 'last', 1)`}
	for i, sql := range steps {
		if _, err := other.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		w.exec(`INSERT INTO s.u VALUES ($1)`, i)
	}
	w.caughtUp("s", "u")
	w.sameRows("s", "s", "u", "id")
	if h := w.history("s", "t"); len(h) != 5 {
		t.Fatalf("%d rows are in the history before the transaction ended", len(h))
	}
	_, err := other.Exec(t.Context(), `COMMIT`)
	check(t, err)
	w.caughtUp("s", "t")
	w.sameRows("s", "s", "t", "id", "v", "n")
	for _, c := range w.history("s", "t") {
		if strings.Contains(c["v"], "abc") {
			t.Fatalf("a row that was rolled back is in the history: %v", c)
		}
	}

	// One that is rolled back as a whole leaves nothing.
	for _, sql := range []string{`BEGIN`, `DELETE FROM s.t`, `ROLLBACK`} {
		_, err := other.Exec(t.Context(), sql)
		check(t, err)
	}
	w.exec(`INSERT INTO s.t VALUES (70002, 'after', 2)`)
	w.caughtUp("s", "t")
	w.sameRows("s", "s", "t", "id", "v", "n")
}

// giant measures the heap while a transaction of mb megabytes goes through.
func giant(t *testing.T, w *world, mb int) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int, v text)`)
	w.start()
	w.follow("s")
	w.caughtUp("s", "t")
	rows := mb << 20 / 1024
	began := time.Now()
	w.exec(`INSERT INTO s.t SELECT i, left(repeat(md5(i::text), 31), 984) FROM generate_series(1, $1) i`, rows)
	t.Logf("%d MB committed after %s", mb, time.Since(began))
	began = time.Now()
	var peak, peakSys uint64
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for w.table("s", "t").Rows < int64(rows) {
		<-look.C
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak, peakSys = max(peak, m.HeapInuse), max(peakSys, m.Sys)
		if time.Since(began) > 10*time.Minute {
			t.Fatalf("it does not end: %+v", w.table("s", "t"))
		}
	}
	t.Logf("%d rows were in Delta %s later; heap at most %d MB, process %d MB", rows, time.Since(began), peak>>20, peakSys>>20)
	if peak > 512<<20 {
		t.Errorf("the heap grew to %d MB", peak>>20)
	}
}
