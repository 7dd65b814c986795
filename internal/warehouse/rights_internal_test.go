package warehouse

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// lab is a warehouse over an empty catalog lake.
type lab struct {
	w      *Warehouse
	cat    *catalog.Catalog
	db     *controldb.DB
	events []catalog.Event
	plan   faulty.Plan // of the folders of new tables; nil = no faults
}

var ann = tarn.Principal{ID: "1", Name: "ann@example.com", Admin: true}

func newLab(t *testing.T) *lab {
	t.Helper()
	ctx := t.Context()
	_, conn := pgtest.Start(t, pgtest.Newest(t))
	db, err := controldb.Open(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	l := &lab{db: db, cat: catalog.New(db)}
	if err := l.cat.EnsureDefault(ctx, "file://"+t.TempDir()); err != nil {
		t.Fatal(err)
	}
	l.w = New(Config{
		Catalog: l.cat, OpenTable: openDelta, Command: engineCommand, Run: shortDir(t), Dir: t.TempDir(), Audit: l,
		OpenStore: func(_ context.Context, location string) (blob.Store, error) {
			s, err := dir.Open(location)
			if err != nil || l.plan == nil {
				return s, err
			}
			return faulty.New(s, l.plan), nil
		},
	})
	t.Cleanup(l.w.process.Stop)
	return l
}

// Record makes the lab an audit; statements are run one by one.
func (l *lab) Record(_ context.Context, e catalog.Event) error {
	l.events = append(l.events, e)
	return nil
}

func (l *lab) run(t *testing.T, who tarn.Principal, sql string) (*Statement, Status, string) {
	t.Helper()
	s, err := l.w.Submit(who, Request{SQL: sql, Schema: "s"})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	s.Wait(t.Context(), 2*time.Minute)
	st := s.Status()
	text := []byte{'['}
	for i := range st.Result.Chunks {
		if err := s.EachBatch(i, func(rec arrow.RecordBatch) error { text = AppendRows(text, rec); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	return s, st, strings.NewReplacer(`\u003c`, "<", `\u003e`, ">").Replace(string(text)) + "]"
}

// want runs a statement that gives these rows.
func (l *lab) want(t *testing.T, who tarn.Principal, sql, rows string) {
	t.Helper()
	if _, st, got := l.run(t, who, sql); st.State != Succeeded || got != rows {
		t.Fatalf("%s\ngives %s %v %s\nwant %s", sql, st.State, st.Err, got, rows)
	}
}

// fails runs a statement that is refused with this in the error or its hint.
func (l *lab) fails(t *testing.T, who tarn.Principal, sql, why string) {
	t.Helper()
	if _, st, got := l.run(t, who, sql); st.State != Failed || !strings.Contains(st.Err.Error()+" "+tarn.HintOf(st.Err), why) {
		t.Errorf("%s: %s %s %v, want %q", sql, st.State, got, st.Err, why)
	}
}

func TestStatements(t *testing.T) {
	l := newLab(t)
	t.Run("WritingAndRights", l.writingAndRights)
	t.Run("Grants", l.grants)
	t.Run("Tables", l.tables)
}

// Tables are made, filled and read by who may, and nobody else.
func (l *lab) writingAndRights(t *testing.T) {
	ctx, w, cat, admin := t.Context(), l.w, l.cat, ann
	eve := tarn.Principal{ID: "2", Name: "eve@example.com"}
	run := func(who tarn.Principal, sql string) (*Statement, Status, string) {
		t.Helper()
		return l.run(t, who, sql)
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
		{"SELECT count(*) FROM t VERSION AS OF 0", `[["10"]]`},
		{"CREATE TABLE system.access.audit AS SELECT 403 AS status_code", `[["1"]]`}, // DuckDB has a system of its own
		{"SELECT system.access.audit.status_code FROM System.access.audit WHERE audit.status_code = 403", `[["403"]]`},
		{"SELECT a.status_code, t.id FROM `system`.access.audit VERSION AS OF 0 a, t", `[["403","7"]]`},
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

// Grants are given, shown and taken by who manages the object, and audited.
func (l *lab) grants(t *testing.T) {
	bob, err := controldb.InsertPrincipal(t.Context(), l.db, tarn.Principal{Name: "bob@example.com", Type: tarn.PrincipalUser})
	if err != nil {
		t.Fatal(err)
	}
	l.want(t, ann, "CREATE TABLE given AS SELECT 1 AS x", `[["1"]]`)
	l.events = nil
	l.fails(t, bob, "SELECT * FROM given", "lacks USE CATALOG")
	l.want(t, ann, "GRANT USE CATALOG ON CATALOG lake TO `bob@example.com`", "[]")
	l.want(t, ann, "GRANT USE SCHEMA ON SCHEMA s TO `bob@example.com`", "[]")
	l.want(t, ann, "GRANT SELECT, MODIFY ON TABLE lake.s.given TO `bob@example.com`", "[]")
	l.want(t, bob, "SELECT * FROM given", `[["1"]]`)
	l.want(t, bob, "SHOW GRANTS ON TABLE given",
		`[["bob@example.com","USE CATALOG","CATALOG","lake"],["bob@example.com","USE SCHEMA","SCHEMA","lake.s"],["bob@example.com","MODIFY","TABLE","lake.s.given"],["bob@example.com","SELECT","TABLE","lake.s.given"]]`)
	l.fails(t, bob, "SHOW GRANTS `ann@example.com` ON TABLE given", "lacks MANAGE")
	l.fails(t, bob, "GRANT SELECT ON given TO `bob@example.com`", "lacks MANAGE")
	l.fails(t, bob, "GRANT CREATE CATALOG ON METASTORE TO `bob@example.com`", "only admins")
	l.want(t, ann, "REVOKE SELECT ON given FROM `bob@example.com`", "[]")
	l.fails(t, bob, "SELECT * FROM given", "lacks SELECT")
	l.want(t, ann, "SHOW GRANTS `bob@example.com` ON SCHEMA lake.s", `[["bob@example.com","USE CATALOG","CATALOG","lake"],["bob@example.com","USE SCHEMA","SCHEMA","lake.s"]]`)
	for sql, why := range map[string]string{
		"GRANT SELEKT ON t TO x": "want one of", "GRANT CREATE TABLE ON TABLE given TO `bob@example.com`": "no privilege of", "GRANT SELECT ON TABLE given TO nobody": "nobody",
		"GRANT SELECT ON TABLE nothing TO `bob@example.com`": "nothing", "GRANT SELECT given TO x": "want one of", "REVOKE SELECT ON given TO x": "FROM and a principal",
		"GRANT SELECT ON given TO bob@example.com": "backticks", "SHOW GRANTS": "a principal", "GRANT SELECT ON given TO x y": "the end of the statement",
	} {
		l.fails(t, ann, sql, why)
	}
	said := ""
	for _, e := range l.events[:5] {
		said += strings.Join([]string{e.Service, e.Action, e.Object, e.Principal, e.Detail, e.Error, "\n"}, " ")
	}
	for _, want := range []string{
		"sql select /api/2.0/sql/statements bob@example.com  DENIED: bob@example.com may not",
		"catalog updateGrants /api/2.1/unity-catalog/permissions/table/lake.s.given ann@example.com grant SELECT,MODIFY revoke  principal bob@example.com;   \n",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the audit has not %q:\n%s", want, said)
		}
	}
}

// Schemas and tables are made without a query, and dropped; what fails leaves
// nothing.
func (l *lab) tables(t *testing.T) {
	for _, c := range []struct{ sql, want string }{
		{"CREATE SCHEMA made COMMENT 'x' WITH DBPROPERTIES ('k' = 'v')", "[]"},
		{"CREATE SCHEMA IF NOT EXISTS lake.made", "[]"},
		{"SHOW SCHEMAS LIKE 'mad*'", `[["made"]]`},
		{"CREATE TABLE made.a (id BIGINT NOT NULL COMMENT 'key', `a name` VARCHAR, d DECIMAL(12, 2), n NUMERIC, ts TIMESTAMP, l ARRAY<ARRAY<INT>>, m MAP<STRING, BIGINT>," +
			" s STRUCT<x: INT NOT NULL COMMENT 'deep', y STRUCT<z DATE>>, Day DATE) USING DELTA PARTITIONED BY (day) COMMENT 'it''s' TBLPROPERTIES ('delta.enableChangeDataFeed' = true, mine.k = 'v')", "[]"},
		{"CREATE TABLE IF NOT EXISTS made.a (x INT)", "[]"},
		{"DESCRIBE made.a", `[["id","bigint","key"],["a name","string",null],["d","decimal(12,2)",null],["n","decimal(10,0)",null],["ts","timestamp",null],["l","array<array<int>>",null],` +
			`["m","map<string, bigint>",null],["s","struct<x: int, y: struct<z: date>>",null],["Day","date",null]]`},
		{"INSERT INTO made.a (id, `a name`, l, s, day) VALUES (1, 'x', [[1]], {'x': 1, 'y': NULL}, DATE '2026-01-31')", `[["1"]]`},
		{"SELECT id, \"a name\", s.x, day FROM made.a WHERE day = '2026-01-31'", `[["1","x","1","2026-01-31"]]`},
		{"SELECT _change_type FROM table_changes('lake.made.a', 0)", `[["insert"]]`},
		{"CREATE TABLE made.b AS SELECT count(*) FROM made.a", `[["1"]]`},
		{"DROP TABLE made.b", "[]"},
		{"CREATE TABLE made.b AS SELECT 1 AS x", `[["1"]]`}, // not in the folder of before
		{"SELECT * FROM made.b@v0", `[["1"]]`},
	} {
		l.want(t, ann, c.sql, c.want)
	}
	bad := map[string]string{
		"CREATE SCHEMA made": "made", "CREATE SCHEMA nowhere.x": "nowhere", "DROP SCHEMA made": "2 tables", "DROP SCHEMA nothing": "nothing", "CREATE TABLE made.b (x INT)": "ALREADY_EXISTS",
		"CREATE TABLE made.c": "a list of columns", "CREATE TABLE made.c ()": "a column", "CREATE TABLE made.c (x)": "a type", "CREATE TABLE made.c (x INT, X INT)": "two columns", "CREATE TABLE made.c (x VARCHAR(3))": "a type that tables have",
		"CREATE TABLE made.c (x DECIMAL(50,2))": "decimal(50,2)", "CREATE TABLE made.c (x INT DEFAULT 3)": "NOT NULL, COMMENT or", "CREATE TABLE made.c (x INT, PRIMARY KEY (x))": "constraints are not known", "CREATE TABLE made.c (x INT) CLUSTER BY (x)": "CLUSTER BY",
		"CREATE TABLE made.c (x INT) PARTITIONED BY (y)": "partition column y", "CREATE TABLE made.c (x INT) LOCATION '/tmp'": "tarn table register", "CREATE TABLE made.c (x ARRAY<INT)": ">", "CREATE TABLE made.c (x INT) AS SELECT 1": "columns of its query",
		"CREATE OR REPLACE TABLE made.b (x INT)": "OR REPLACE", "CREATE TABLE made.c (x INT) TBLPROPERTIES ('delta.constraints.x' = 'x > 1')": "checkConstraints", "INSERT INTO made.a (d) VALUES (1)": "must have a value", "INSERT INTO made.a (id, s) VALUES (1, {'x': NULL, 'y': NULL})": "s", "CREATE TABLE made.c AS": "a query",
	}
	for sql, why := range bad {
		l.fails(t, ann, sql, why)
	}
	made := tarn.TableName{Catalog: "lake", Schema: "made", Table: "c"}
	died := 0
	for n := 0; ; n++ { // the folder goes away behind its n-th call
		die := faulty.At(n, faulty.DieAfter)
		l.plan = func(call faulty.Call) faulty.Fault {
			if _, err := l.cat.Table(t.Context(), made); tarn.KindOf(err) != tarn.KindNotFound {
				t.Errorf("%s %s: the table is seen: %v", call.Op, call.Key, err)
			}
			return die(call)
		}
		_, st, _ := l.run(t, ann, "CREATE TABLE made.c AS SELECT 7 AS x")
		if l.plan = nil; st.State == Succeeded {
			break
		}
		if died++; died > 50 {
			t.Fatal(st.Err)
		}
		if _, err := l.cat.Table(t.Context(), made); tarn.KindOf(err) != tarn.KindNotFound {
			t.Fatalf("a crash after call %d leaves its table: %v", n, err)
		}
	}
	if died < 3 {
		t.Errorf("only %d crashes", died)
	}
	l.want(t, ann, "SELECT * FROM made.c VERSION AS OF 0", `[["7"]]`)
	l.want(t, ann, "DROP SCHEMA made CASCADE", "[]")
	l.want(t, ann, "DROP SCHEMA IF EXISTS made", "[]")
}
