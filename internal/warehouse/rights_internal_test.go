package warehouse

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// Tables are made, filled and read by who may, and nobody else.
func TestWritingAndRights(t *testing.T) {
	ctx := t.Context()
	_, conn := pgtest.Start(t, pgtest.Newest(t))
	db, err := controldb.Open(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	cat := catalog.New(db)
	if err := cat.EnsureDefault(ctx, "file://"+t.TempDir()); err != nil {
		t.Fatal(err)
	}
	w := New(Config{
		Catalog: cat, OpenTable: openDelta, Command: engineCommand, Run: shortDir(t), Dir: t.TempDir(),
		CreateTable: func(ctx context.Context, location string, m delta.Metadata) (*delta.Table, error) {
			path := strings.TrimPrefix(location, "file://")
			if err := os.MkdirAll(path, 0o755); err != nil {
				return nil, err
			}
			s, err := dir.Open(path)
			if err != nil {
				return nil, err
			}
			return delta.Create(ctx, s, "", m)
		},
	})
	t.Cleanup(w.process.Stop)
	admin, eve := tarn.Principal{ID: "1", Name: "ann@example.com", Admin: true}, tarn.Principal{ID: "2", Name: "eve@example.com"}
	run := func(who tarn.Principal, sql string) (*Statement, Status, string) {
		t.Helper()
		s, err := w.Submit(who, Request{SQL: sql, Schema: "s"})
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		s.Wait(ctx, 2*time.Minute)
		st := s.Status()
		text := []byte{'['}
		for i := range st.Result.Chunks {
			if err := s.EachBatch(i, func(rec arrow.RecordBatch) error { text = AppendRows(text, rec); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		return s, st, string(text) + "]"
	}
	for _, c := range []struct{ sql, want string }{
		{"CREATE TABLE t PARTITIONED BY (g) AS SELECT i AS id, i % 3 AS g, 'n' || i AS name, [i, NULL] AS l, {'a': i} AS st, MAP {'k': i} AS m FROM range(10) r(i)", `[["10"]]`},
		{"INSERT INTO t (id, g) VALUES (10, 1), (11, NULL)", `[["2"]]`},
		{"SELECT count(*), sum(id), count(name), sum(l[1]), sum(st.a), sum(m['k']) FROM t", `[["12","66","10","45","45","45"]]`},
		{"SELECT id FROM t WHERE g IS NULL", `[["11"]]`},
		{"INSERT INTO s.t SELECT id + 100, g, name, l, st, m FROM t WHERE id < 2", `[["2"]]`},
		{"DELETE FROM lake.s.t WHERE id >= 100", `[["2"]]`},
		{"SELECT count(*), max(id) FROM t", `[["12","11"]]`},
		{"CREATE TABLE IF NOT EXISTS t AS SELECT 1 AS x", `[]`},
		{"INSERT OVERWRITE t (id) SELECT 7", `[["1"]]`},
		{"SELECT id, g, name FROM t", `[["7",null,null]]`},
		{"SELECT count(*) FROM t VERSION AS OF 1", `[["10"]]`},
		{"CREATE TABLE system.access.audit AS SELECT 403 AS status_code", `[["1"]]`}, // DuckDB has a system of its own
		{"SELECT system.access.audit.status_code FROM System.access.audit WHERE audit.status_code = 403", `[["403"]]`},
		{"SELECT a.status_code, t.id FROM `system`.access.audit VERSION AS OF 1 a, t", `[["403","7"]]`},
		{"SELECT id AS system FROM t", `[["7"]]`},
	} {
		if _, st, got := run(admin, c.sql); st.State != Succeeded || got != c.want {
			t.Fatalf("%s\ngives %s %v %s\nwant %s", c.sql, st.State, st.Err, got, c.want)
		}
	}
	for _, bad := range []string{
		"CREATE TABLE t AS SELECT 1 AS x", "INSERT INTO t (nope) SELECT 1", "INSERT INTO t SELECT 1", "INSERT INTO t (id) SELECT 'x'", "DELETE FROM t WHERE id IN (SELECT 1)",
		"CREATE TABLE u AS SELECT TIME '10:00' AS x", "CREATE TABLE u AS SELECT CASE WHEN i = 90000 THEN error('stop') ELSE i END AS x FROM range(100000) r(i)",
	} {
		if _, st, _ := run(admin, bad); st.State != Failed {
			t.Errorf("%s: %s", bad, st.State)
		}
	}
	if _, err := cat.Table(ctx, tarn.TableName{Catalog: "lake", Schema: "s", Table: "u"}); tarn.KindOf(err) != tarn.KindNotFound {
		t.Errorf("a failed CREATE TABLE leaves its name: %v", err)
	}
	for _, sql := range []string{"SELECT * FROM t", "SELECT 1 WHERE EXISTS (SELECT 1 FROM lake.s.t)", "WITH t AS (SELECT * FROM t) SELECT * FROM t", "SELECT * FROM t@v1",
		"SELECT * FROM table_changes('lake.s.t', 0)", "DESCRIBE HISTORY t", "DESCRIBE t", "EXPLAIN SELECT * FROM t", "SHOW TABLES IN lake.s",
		"INSERT INTO t (id) SELECT 1", "DELETE FROM t", "DROP TABLE t", "CREATE TABLE mine AS SELECT 1 AS x"} {
		if _, st, got := run(eve, sql); st.State != Failed || tarn.KindOf(st.Err) != tarn.KindDenied || tarn.HintOf(st.Err) == "" {
			t.Errorf("eve: %s is %s %s: %v", sql, st.State, got, st.Err)
		}
	}
	s, _, _ := run(admin, "SELECT 1")
	if _, err := w.Statement(eve, s.ID); tarn.KindOf(err) != tarn.KindNotFound {
		t.Errorf("eve sees the statement of another: %v", err)
	}
	if _, st, _ := run(admin, "DROP TABLE t"); st.State != Succeeded {
		t.Errorf("drop: %v", st.Err)
	}
}
