package warehouse

import (
	"context"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/blob/s3/s3test"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// lab is a warehouse over an empty catalog lake.
type lab struct {
	w      *Warehouse
	cat    *catalog.Catalog
	db     *controldb.DB
	events []catalog.Event
	plan   faulty.Plan                    // of the folders of new tables; nil = no faults
	bucket func(prefix string) blob.Store // of s3:// locations
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
		Catalog: l.cat, OpenTable: l.table, Command: engineCommand, Run: shortDir(t), Dir: t.TempDir(), Audit: l,
		OpenStore: l.store,
	})
	t.Cleanup(l.w.process.Stop)
	return l
}

func (l *lab) store(_ context.Context, location string) (blob.Store, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "s3" {
		return l.bucket(u.Path[1:]), nil
	}
	s, err := dir.Open(u.Path)
	if err != nil || l.plan == nil {
		return s, err
	}
	return faulty.New(s, l.plan), nil
}

func (l *lab) table(ctx context.Context, location string) (*delta.Table, error) {
	s, err := l.store(ctx, location)
	if err != nil {
		return nil, err
	}
	return delta.Open(ctx, s, "")
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
	t.Run("Lineage", l.lineages)
	t.Run("Grants", l.grants)
	t.Run("Tables", l.tables)
	t.Run("Changes", l.changes)
	t.Run("ChangesAtOnce", l.changesAtOnce)
	t.Run("Buckets", l.buckets)
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
	for _, sql := range []string{
		"DELETE FROM system.access.audit", "UPDATE System.access.audit SET status_code = 200", "INSERT INTO system.access.audit SELECT 1", "DROP TABLE system.access.audit",
		"MERGE INTO system.access.audit a USING (SELECT 1 AS x) s ON a.status_code = s.x WHEN NOT MATCHED THEN INSERT (status_code) VALUES (1)",
	} {
		if _, st, _ := run(admin, sql); st.State != Failed || tarn.KindOf(st.Err) != tarn.KindDenied {
			t.Errorf("%s: %s %v", sql, st.State, st.Err)
		}
	}
	for _, bad := range []string{
		"CREATE TABLE t AS SELECT 1 AS x", "INSERT INTO t (nope) SELECT 1", "INSERT INTO t SELECT 1", "INSERT INTO t (id) SELECT 'x'",
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
		"CREATE SCHEMA made": "made", "CREATE SCHEMA nowhere.x": "nowhere", "DROP SCHEMA made": "table a is in it", "DROP SCHEMA nothing": "nothing", "CREATE TABLE made.b (x INT)": "ALREADY_EXISTS",
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

// Rows are updated, deleted and merged: with deletion vectors and without, in
// partitions, and told by the change data feed.
func (l *lab) changes(t *testing.T) {
	for _, properties := range []string{"'a' = 'b'", "'delta.enableChangeDataFeed' = 'true', 'delta.enableDeletionVectors' = 'true'"} {
		for _, c := range []struct{ sql, want string }{
			{"CREATE SCHEMA IF NOT EXISTS ch", "[]"},
			{"CREATE TABLE ch.t (id BIGINT NOT NULL, name STRING, g INT) PARTITIONED BY (g) TBLPROPERTIES (" + properties + ")", "[]"},
			{"INSERT INTO ch.t SELECT i, 'n' || i, i % 2 FROM range(6) r(i)", `[["6"]]`},
			{"CREATE TABLE ch.s AS SELECT * FROM (VALUES (1, 'one'), (2, NULL), (9, 'nine'), (10, 'ten')) v(id, name)", `[["4"]]`},
			{"UPDATE ch.t SET name = upper(lake.ch.t.name) || CASE WHEN id > 2 THEN '!' ELSE '' END, ch.t.g = g + 1 WHERE id IN (SELECT id FROM ch.s UNION SELECT 3)", `[["3"]]`},
			{"UPDATE ch.t x SET name = NULL WHERE x.id = (SELECT max(id) FROM ch.t)", `[["1"]]`},
			{"SELECT * FROM ch.t ORDER BY id", `[["0","n0","0"],["1","N1","2"],["2","N2","1"],["3","N3!","2"],["4","n4","0"],["5",null,"1"]]`},
			{"DELETE FROM ch.t AS x WHERE EXISTS (SELECT 1 FROM ch.s WHERE s.id = x.id + 1) AND g = 0", `[["1"]]`},
			{"DELETE FROM ch.t WHERE id % 100 = 50", `[["0"]]`},
			{"MERGE INTO ch.t USING (SELECT * FROM ch.s) AS s ON t.id = s.id WHEN MATCHED AND s.name IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET t.name = s.name" +
				" WHEN NOT MATCHED AND s.id = 9 THEN INSERT (name, id) VALUES (concat(s.name, CASE WHEN true THEN '.' END), s.id) WHEN NOT MATCHED BY SOURCE AND t.id = 5 THEN UPDATE SET g = 7", `[["4","2","1","1"]]`},
			{"SELECT * FROM ch.t ORDER BY id", `[["1","one","2"],["3","N3!","2"],["4","n4","0"],["5",null,"7"],["9","nine.",null]]`},
			{"MERGE INTO lake.ch.t AS t USING (SELECT id, name || '?' AS name, 5 AS g FROM ch.t VERSION AS OF 1 WHERE id IN (3, 0)) ON t.id = source.id AND t.g = 2 WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *", `[["2","1","0","1"]]`},
			{"MERGE INTO ch.t USING (VALUES (3, 0), (3, 1)) v(k, n) ON id = k WHEN MATCHED AND n = 1 THEN UPDATE SET name = 'last'", `[["1","1","0","0"]]`}, // the condition leaves one
			{"MERGE INTO ch.t USING (SELECT 4 AS k UNION ALL SELECT 4) ON id = k WHEN MATCHED THEN DELETE", `[["1","0","1","0"]]`},
			{"SELECT * FROM ch.t ORDER BY id", `[["0","n0?","5"],["1","one","2"],["3","last","5"],["5",null,"7"],["9","nine.",null]]`},
		} {
			l.want(t, ann, c.sql, c.want)
		}
		for sql, why := range map[string]string{
			"MERGE INTO ch.t USING (VALUES (3), (3)) v(k) ON id = k WHEN MATCHED THEN UPDATE SET name = 'x'": "more than one row of the source", "MERGE INTO ch.t USING ch.s ON t.id = s.id WHEN MATCHED THEN UPDATE SET *": "\"g\"",
			"UPDATE ch.t SET id = NULL": "must have a value", "UPDATE ch.t SET nope = 1": "no column nope", "UPDATE ch.t SET g = 'x' WHERE id = 1": "CAST_INVALID_INPUT", "UPDATE ch.t SET g = 1, g = 2": "set twice", "UPDATE ch.t SET name.x = 1": "not set alone",
			"UPDATE ch.t SET g = (1": "an expression", "UPDATE ch.t SET g = 1) FROM ch.s --": ") stands", "DELETE FROM ch.t WHERE (SELECT 1 FROM read_text('/etc/passwd')) = '1'": "read_text", "MERGE INTO ch.t USING ch.s ON true": "WHEN MATCHED", "UPDATE ch.t SET g = 1 FROM ch.s": "PARSE_SYNTAX_ERROR",
			"MERGE INTO ch.t USING ch.s ON t.id = s.id WHEN NOT MATCHED THEN DELETE": "INSERT", "MERGE INTO ch.t USING ch.s ON t.id = s.id WHEN NOT MATCHED THEN INSERT (id, g) VALUES (1)": "as many values", "DELETE FROM ch.t WHERE nope = 1": "nope",
		} {
			l.fails(t, ann, sql, why)
		}
		if strings.Contains(properties, "Feed") {
			l.want(t, ann, "SELECT _commit_version, _change_type, count(*), sum(id) FROM table_changes('lake.ch.t', 1) GROUP BY ALL ORDER BY ALL", `[["1","insert","6","15"],["2","update_postimage","3","6"],["2","update_preimage","3","6"],`+
				`["3","update_postimage","1","5"],["3","update_preimage","1","5"],["4","delete","1","0"],["5","delete","1","2"],["5","insert","1","9"],["5","update_postimage","2","6"],["5","update_preimage","2","6"],`+
				`["6","insert","1","0"],["6","update_postimage","1","3"],["6","update_preimage","1","3"],["7","update_postimage","1","3"],["7","update_preimage","1","3"],["8","delete","1","4"]]`)
		}
		l.want(t, ann, "DROP SCHEMA ch CASCADE", "[]")
	}
}

// Who changes the same row at once waits for nobody and loses nothing; and files
// that DuckDB does not read itself are changed as others are.
func (l *lab) changesAtOnce(t *testing.T) {
	l.want(t, ann, "CREATE TABLE s.c (id INT, st STRUCT<x: INT>) TBLPROPERTIES ('delta.columnMapping.mode' = 'name', 'delta.enableDeletionVectors' = 'true')", "[]")
	l.want(t, ann, "INSERT INTO s.c VALUES (1, {'x': 0}), (2, {'x': 5}), (3, {'x': 6})", `[["3"]]`)
	e, err := l.cat.Table(t.Context(), tarn.TableName{Catalog: "lake", Schema: "s", Table: "c"})
	if err != nil {
		t.Fatal(err)
	}
	dt, err := openDelta(t.Context(), e.Location)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dt.Commit(t.Context(), delta.CommitOptions{}, func(x *delta.Tx) error { return x.RenameColumn("st.x", "n") }); err != nil {
		t.Fatal(err)
	}
	l.want(t, ann, "DELETE FROM s.c WHERE id = 2", `[["1"]]`)
	snap, err := dt.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if plan, err := l.w.footers.Plan(t.Context(), snap, delta.Predicate{}); err != nil || plan.Rest.Files == 0 {
		t.Errorf("DuckDB reads every file: %+v %v", plan, err)
	}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for range 3 {
				s, err := l.w.Submit(ann, Request{SQL: "UPDATE s.c SET st = {'n': st.n + 1} WHERE id < (SELECT max(id) FROM s.c)"})
				if err == nil {
					s.Wait(t.Context(), 2*time.Minute)
					err = s.Status().Err
				}
				if err != nil {
					t.Errorf("update: %v", err)
				}
			}
		})
	}
	all.Wait()
	l.want(t, ann, "SELECT id, st.n FROM s.c ORDER BY 1", `[["1","9"],["3","6"]]`)
}

// A table in an object store is made, changed and read as any other.
func (l *lab) buckets(t *testing.T) {
	server := s3test.Start(t)
	l.bucket = func(prefix string) blob.Store { return server.Open(t, server.Options(prefix)) }
	if _, err := l.cat.CreateCatalog(t.Context(), ann, tarn.CatalogEntry{ObjectEntry: tarn.ObjectEntry{Name: "far"}, Root: "s3://" + s3test.Bucket + "/lake"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ sql, want string }{
		{"CREATE TABLE far.s.t AS SELECT i AS id, 'n' || i AS name FROM range(4) r(i)", `[["4"]]`},
		{"MERGE INTO far.s.t USING (VALUES (1, 'one'), (9, 'nine')) v(i, n) ON id = i WHEN MATCHED THEN UPDATE SET name = n WHEN NOT MATCHED THEN INSERT (id, name) VALUES (i, n)", `[["2","1","0","1"]]`},
		{"DELETE FROM far.s.t WHERE id = (SELECT min(id) FROM far.s.t)", `[["1"]]`},
		{"SELECT name FROM far.s.t WHERE id < 9 ORDER BY id", `[["one"],["n2"],["n3"]]`},
		{"SELECT count(*) FROM far.s.t@v0 a JOIN far.s.t b USING (id)", `[["3"]]`},
	} {
		l.want(t, ann, c.sql, c.want)
	}
}
