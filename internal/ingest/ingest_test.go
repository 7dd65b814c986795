package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// world is a Postgres and a lake in memory.
type world struct {
	t     *testing.T
	url   string
	conn  *pgx.Conn
	store blob.Store
}

func newWorld(t *testing.T) *world {
	_, url := pgtest.Start(t, pgtest.Newest(t))
	w := &world{t: t, url: url, store: memory.New()}
	w.conn = w.connect()
	return w
}

func (w *world) connect() *pgx.Conn {
	w.t.Helper()
	c, err := pgx.Connect(w.t.Context(), w.url)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.conn.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

func open(ctx context.Context, s blob.Store, prefix string, schema delta.Schema) (*delta.Table, error) {
	t, err := delta.Open(ctx, s, prefix)
	if err == nil {
		return t, nil
	}
	return delta.Create(ctx, s, prefix, delta.Metadata{Schema: schema})
}

func (w *world) ingest(o Options) *Ingest {
	i := New(o, Places{
		Connect: func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, w.url) },
		Target: func(ctx context.Context, s delta.Schema) (*delta.Table, error) {
			return open(ctx, w.store, "target/", s)
		},
		Checkpoints: func(ctx context.Context) (*delta.Table, error) {
			return open(ctx, w.store, "checkpoints/", CheckpointSchema())
		},
		Rejected: func(ctx context.Context) (*delta.Table, error) {
			return open(ctx, w.store, "rejected/", RejectedSchema())
		},
	}, nil)
	w.t.Cleanup(func() { i.Close(context.Background()) })
	return i
}

func (w *world) next(i *Ingest) Progress {
	w.t.Helper()
	p, err := i.Next(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// rows gives the target's rows as JSON objects.
func (w *world) rows(prefix string) []map[string]any {
	w.t.Helper()
	t, err := delta.Open(w.t.Context(), w.store, prefix)
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := t.Latest(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	var out []map[string]any
	for rec, err := range s.Scan(w.t.Context(), delta.ScanOptions{}) {
		if err != nil {
			w.t.Fatal(err)
		}
		var b strings.Builder
		if err := array.RecordToJSON(rec, &b); err != nil {
			w.t.Fatal(err)
		}
		rec.Release()
		for d := json.NewDecoder(strings.NewReader(b.String())); d.More(); {
			row := map[string]any{}
			if err := d.Decode(&row); err != nil {
				w.t.Fatal(err)
			}
			out = append(out, row)
		}
	}
	return out
}

func TestBatchesAreBoundedAndResume(t *testing.T) {
	w := newWorld(t)
	w.exec(`CREATE TABLE t (id int PRIMARY KEY, at int); INSERT INTO t SELECT i, i / 10 FROM generate_series(1, 95) i`)
	var sizes []int64
	for range 4 { // a new process for each
		sizes = append(sizes, w.next(w.ingest(Options{Table: "t", Column: "at", Limit: 40})).Rows)
	}
	if fmt.Sprint(sizes) != "[40 40 15 0]" {
		t.Errorf("batches of %v rows", sizes)
	}
	seen := map[any]bool{}
	for _, r := range w.rows("target/") {
		seen[r["id"]] = true
	}
	if len(seen) != 95 || len(w.rows("target/")) != 95 {
		t.Errorf("%d rows of %d ids in the target", len(w.rows("target/")), len(seen))
	}
}

// A value that Delta has no form for does not hold up the others.
func TestRejectedValues(t *testing.T) {
	w := newWorld(t)
	w.exec(`CREATE TABLE t (id int PRIMARY KEY, n numeric(5,2), d date); INSERT INTO t VALUES (1, 1.5, 'infinity'), (2, 'NaN', '2026-01-02')`)
	if p := w.next(w.ingest(Options{Table: "t", Column: "id"})); p.Rows != 2 || p.Problems != 2 {
		t.Fatalf("%+v", p)
	}
	got := fmt.Sprint(w.rows("target/"), w.rows("rejected/"))
	for _, want := range []string{"d:<nil> id:1 n:1.5", "d:2026-01-02 id:2 n:<nil>", "column:d key:1", "value:infinity", "column:n key:2", "value:NaN"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in %s", want, got)
		}
	}
}

func TestColumnsComeAndGo(t *testing.T) {
	w := newWorld(t)
	w.exec(`CREATE TABLE t (id int PRIMARY KEY, a text, b text); INSERT INTO t VALUES (1, 'a', 'b')`)
	w.next(w.ingest(Options{Table: "t", Column: "id"}))
	w.exec(`ALTER TABLE t ADD c bigint, DROP b; INSERT INTO t VALUES (2, 'x', 7)`)
	w.next(w.ingest(Options{Table: "t", Column: "id"}))
	if got := fmt.Sprint(w.rows("target/")); !strings.Contains(got, "a:a b:b c:<nil> id:1") || !strings.Contains(got, "a:x b:<nil> c:7 id:2") {
		t.Errorf("the target holds %s", got)
	}
	w.exec(`ALTER TABLE t ALTER c TYPE text; INSERT INTO t VALUES (3, 'x', 'y')`)
	if _, err := w.ingest(Options{Table: "t", Column: "id"}).Next(t.Context()); tarn.KindOf(err) != tarn.KindConflict {
		t.Errorf("a changed type: %v", err)
	}
}

// A merge keeps the newest version of each row, also of one whose columns changed.
func TestMerge(t *testing.T) {
	w := newWorld(t)
	w.exec(`CREATE TABLE t (a int, b text, v text, old int, PRIMARY KEY (a, b)); INSERT INTO t SELECT i, 'k', 'first', i FROM generate_series(1, 20) i`)
	o := Options{Table: "t", Column: "a", Limit: 8, Mode: MergeRows}
	for i := w.ingest(o); w.next(i).Rows > 0; {
	}
	w.exec(`UPDATE t SET v = 'second' WHERE a <= 5; ALTER TABLE t DROP old, ADD fresh bigint; INSERT INTO t VALUES (21, 'k', 'first', 7); UPDATE t SET fresh = 1 WHERE a = 1`)
	for i := w.ingest(o); w.next(i).Rows > 0; {
	}
	got := map[string]string{}
	for _, r := range w.rows("target/") {
		key := fmt.Sprint(r["a"], r["b"])
		if got[key] != "" {
			t.Errorf("%s is there twice", key)
		}
		got[key] = fmt.Sprint(r["v"], r["fresh"])
	}
	if len(got) != 21 || got["1k"] != "second1" || got["5k"] != "second<nil>" || got["6k"] != "first<nil>" || got["21k"] != "first7" {
		t.Errorf("the target holds %v", got)
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	w.exec(`CREATE TABLE nokey (v int); CREATE VIEW view AS SELECT 1 AS id; CREATE TABLE nullable (id int UNIQUE)`)
	for _, c := range []struct {
		o    Options
		says string
	}{
		{Options{Table: "nokey", Column: "v"}, "neither a primary key"},
		{Options{Table: "nokey", Column: "v", Key: []string{"w"}}, "no key column w"},
		{Options{Table: "nullable", Column: "id", Key: []string{"id"}}, "may be NULL"},
		{Options{Table: "view", Column: "id"}, "is no table"},
		{Options{Table: "none", Column: "id"}, "there is no table none"},
		{Options{Table: "nokey", Column: "w"}, "no column w"},
	} {
		if _, err := w.ingest(c.o).Next(t.Context()); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.says)
		}
	}
}

// Two readers of one source would each lose what the other read.
func TestTwoReaders(t *testing.T) {
	w := newWorld(t)
	w.exec(`CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)`)
	a, b := w.ingest(Options{Table: "t", Column: "id", Limit: 10}), w.ingest(Options{Table: "t", Column: "id", Limit: 10})
	w.next(a)
	w.next(b)
	w.next(b)
	if _, err := a.Next(t.Context()); tarn.KindOf(err) != tarn.KindConflict {
		t.Errorf("the slower reader: %v", err)
	}
	if n := len(w.rows("target/")); n != 30 {
		t.Errorf("%d rows", n)
	}
}

// A database that went back gives transaction numbers out again: nothing may be
// taken for read because of them.
func TestRestoredDatabaseIsRefused(t *testing.T) {
	w := newWorld(t)
	w.exec(`CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)`)
	w.next(w.ingest(Options{Table: "t", Column: "id"}))
	other := newWorld(t)
	other.store = w.store
	other.exec(`CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (2)`)
	_, err := other.ingest(Options{Table: "t", Column: "id"}).Next(t.Context())
	if tarn.KindOf(err) != tarn.KindConflict || !strings.Contains(tarn.HintOf(err), "--reset") {
		t.Fatalf("%v", err)
	}
	if p := other.next(other.ingest(Options{Table: "t", Column: "id", Reset: true})); p.Rows != 1 {
		t.Errorf("%+v", p)
	}
}

// The process dies before or after each of its calls of the store, or one call
// loses its answer: the next process ends with every row once.
func TestCrashAtEveryStoreCall(t *testing.T) {
	w := newWorld(t)
	w.exec(`CREATE TABLE t (id int PRIMARY KEY, at int); INSERT INTO t SELECT i, i / 2 FROM generate_series(1, 5) i`)
	o := Options{Table: "t", Column: "at", Limit: 2}
	for _, f := range []faulty.Fault{faulty.DieBefore, faulty.DieAfter, faulty.Lost, faulty.Unsent} {
		for call, met := 0, true; met; call++ {
			w.store = memory.New()
			i := w.ingest(o)
			w.next(i) // a batch, so that there is something to be lost
			i.Close(t.Context())
			lake := w.store
			s := faulty.New(lake, faulty.At(call, f))
			w.store = s
			i = w.ingest(o)
			_, err := i.Next(t.Context())
			i.Close(t.Context())
			met = s.Calls() > call
			w.store = lake
			for i = w.ingest(o); w.next(i).Rows > 0; {
			}
			i.Close(t.Context())
			seen := map[any]int{}
			for _, r := range w.rows("target/") {
				seen[r["id"]]++
			}
			if len(seen) != 5 || len(w.rows("target/")) != 5 {
				t.Fatalf("fault %d at call %d (%v): rows %v", f, call, err, seen)
			}
		}
	}
}

// Writers that commit out of order, in subtransactions, with pauses, roll-backs
// and changes that do not move the checkpoint: every version of every row that a
// look could have shown at the end is there, and none twice.
func TestNothingIsLost(t *testing.T) {
	for _, tracked := range []bool{false, true} {
		t.Run(fmt.Sprintf("tracked=%v", tracked), func(t *testing.T) { nothingIsLost(t, tracked) })
	}
}

func nothingIsLost(t *testing.T, tracked bool) {
	w := newWorld(t)
	w.exec(`CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz, v int NOT NULL DEFAULT 0)`)
	if tracked {
		if err := TrackChanges(t.Context(), w.conn, "t"); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
	defer stop()
	var writers sync.WaitGroup
	for seed := range uint64(6) {
		conn := w.connect()
		writers.Go(func() { write(ctx, conn, rand.New(rand.NewPCG(seed, 1))) })
	}
	last, naive := int64(0), 0
	poller := w.connect()
	i := w.ingest(Options{Table: "t", Column: "at", Limit: 50})
	for n := 0; ctx.Err() == nil; n++ {
		if n%7 == 6 { // another process goes on
			i.Close(t.Context())
			i = w.ingest(Options{Table: "t", Column: "at", Limit: 50})
		}
		w.next(i)
		rows, err := poller.Query(t.Context(), `SELECT id FROM t WHERE id > $1 ORDER BY id LIMIT 500`, last)
		if err != nil {
			t.Fatal(err)
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil {
			t.Fatal(err)
		}
		if naive += len(ids); len(ids) > 0 {
			last = ids[len(ids)-1]
		}
	}
	writers.Wait()
	for idle := 0; idle < 2; {
		if w.next(i).Rows == 0 {
			idle++
		}
	}
	seen := map[string]int{}
	for _, r := range w.rows("target/") {
		seen[fmt.Sprint(r["id"], "/", r["v"])]++
	}
	for k, n := range seen {
		if n > 1 {
			t.Errorf("%s is there %d times", k, n)
		}
	}
	rows, err := w.conn.Query(t.Context(), `SELECT id || '/' || v FROM t`)
	if err != nil {
		t.Fatal(err)
	}
	there, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range there {
		if seen[k] == 0 {
			t.Errorf("%s is lost", k)
		}
	}
	t.Logf("%d rows, %d versions read; id > last found %d rows until the end", len(there), len(seen), naive)
	if len(there) < 100 {
		t.Errorf("only %d rows were written", len(there))
	}
}

func write(ctx context.Context, conn *pgx.Conn, r *rand.Rand) {
	for ctx.Err() == nil {
		tx, err := conn.Begin(ctx)
		if err != nil {
			return
		}
		for range 1 + r.IntN(3) {
			sub, err := tx.Begin(ctx)
			if err != nil {
				return
			}
			at := []string{"now()", "clock_timestamp()", "date_trunc('second', now())", "NULL"}[r.IntN(4)]
			if _, err := sub.Exec(ctx, `INSERT INTO t (at) VALUES (`+at+`)`); err != nil {
				return
			}
			if r.IntN(10) == 0 {
				err = sub.Rollback(ctx)
			} else {
				err = sub.Commit(ctx)
			}
			if err != nil {
				return
			}
		}
		if r.IntN(3) == 0 {
			if _, err := tx.Exec(ctx, `UPDATE t SET v = v + 1 WHERE id = (SELECT id FROM t ORDER BY id DESC OFFSET $1 LIMIT 1 FOR UPDATE SKIP LOCKED)`, r.IntN(50)); err != nil {
				return
			}
		}
		if r.IntN(20) == 0 {
			if _, err := tx.Exec(ctx, `SELECT pg_sleep(0.2)`); err != nil {
				return
			}
		}
		if r.IntN(10) == 0 {
			err = tx.Rollback(ctx)
		} else {
			err = tx.Commit(ctx)
		}
		if err != nil {
			return
		}
	}
}
