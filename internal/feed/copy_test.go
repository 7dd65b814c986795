package feed_test

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/delta"
)

// commits is how many commits the history of a table has.
func (w *world) commits(id, table string) int64 {
	w.t.Helper()
	f := w.feed(id)
	entry, err := w.catalog.Table(w.t.Context(), tarn.TableName{Catalog: f.Catalog, Schema: f.Schema, Table: "lb_" + table + "_history"})
	check(w.t, err)
	store, err := openDir(w.t.Context(), entry.Location)
	check(w.t, err)
	d, err := delta.Open(w.t.Context(), store, "")
	check(w.t, err)
	s, err := d.Latest(w.t.Context())
	check(w.t, err)
	return s.Version()
}

// A table is copied by several readers in many commits, while it is written to,
// and a copy that is cut off begins again behind a truncate row.
func copyInChunks(t *testing.T, w *world) {
	w.exec(`CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY, v text, n int);
		INSERT INTO s.t SELECT i, repeat(md5(i::text), 3), 0 FROM generate_series(1, 8000) i;
		CREATE TABLE s.p (id int, v text) PARTITION BY HASH (id);
		CREATE TABLE s.p0 PARTITION OF s.p FOR VALUES WITH (MODULUS 2, REMAINDER 0);
		CREATE TABLE s.p1 PARTITION OF s.p FOR VALUES WITH (MODULUS 2, REMAINDER 1);
		INSERT INTO s.p SELECT i, repeat('x', 100) FROM generate_series(1, 3000) i;
		ANALYZE`)
	conn := w.connect()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := conn.Exec(t.Context(), `UPDATE s.t SET n = n + 1 WHERE id % 500 = $1`, i%500); err != nil {
				t.Errorf("writer: %v", err)
				return
			}
		}
	}()
	w.start()
	w.follow("s")
	w.kill()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	var died atomic.Int64
	for range 5 {
		struck := make(chan struct{})
		w.open = once(faulty.At(10+r.IntN(150), faulty.DieAfter), struck, &died)
		w.start()
		select {
		case <-struck:
		case <-time.After(5 * time.Second):
		}
		w.kill()
	}
	w.open = openDir
	w.start()
	w.caughtUp("s", "t", "p")
	close(stop)
	<-done
	w.caughtUp("s", "t", "p")
	w.sameRows("s", "s", "t", "id", "v", "n")
	w.sameRows("s", "s", "p", "id", "v")
	if n := w.commits("s", "t"); n < 10 {
		t.Errorf("the table was copied in %d commits", n)
	}
	if x := w.table("s", "t"); x.Copied != 8000 || x.CopyRows != 0 || x.Rows < 8000 {
		t.Errorf("status %+v", x)
	}
	cut := 0
	for _, c := range append(w.history("s", "t"), w.history("s", "p")...) {
		if c.kind() == "truncate" {
			cut++
		}
	}
	if t.Logf("%d copies were cut off", cut); cut == 0 {
		t.Error("no copy was cut off")
	}
}
