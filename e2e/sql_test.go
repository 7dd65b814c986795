package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/delta"
)

// deltaTable makes a table with ids 1 to 4 in a folder: partitioned, with a
// deletion vector on one file, and row 4 deleted by its second version.
func deltaTable(t *testing.T, folder string) {
	t.Helper()
	ctx := t.Context()
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := dir.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	schema := delta.Schema{Fields: []delta.Field{{Name: "id", Type: "long"}, {Name: "name", Type: "string", Nullable: true}, {Name: "day", Type: "date", Nullable: true}}}
	dt, err := delta.Create(ctx, s, "", delta.Metadata{Schema: schema, PartitionBy: []string{"day"}, Properties: map[string]string{
		"delta.enableDeletionVectors": "true", "delta.enableChangeDataFeed": "true",
	}})
	if err != nil {
		t.Fatal(err)
	}
	as, err := schema.Arrow()
	if err != nil {
		t.Fatal(err)
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, as)
	defer b.Release()
	b.Field(0).(*array.Int64Builder).AppendValues([]int64{1, 2, 3, 4}, nil)
	b.Field(1).(*array.StringBuilder).AppendValues([]string{"ann", "bob", "", "dan"}, []bool{true, true, false, true})
	b.Field(2).(*array.Date32Builder).AppendValues([]arrow.Date32{20000, 20001, 20001, 20001}, nil)
	rec := b.NewRecordBatch()
	defer rec.Release()
	if _, err := dt.Commit(ctx, delta.CommitOptions{}, func(x *delta.Tx) error { return x.Append(ctx, rec) }); err != nil {
		t.Fatal(err)
	}
	_, err = dt.Commit(ctx, delta.CommitOptions{Operation: "DELETE"}, func(x *delta.Tx) error {
		_, err := x.Delete(ctx, delta.Eq("id", int64(4)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSQLOverBoth(t *testing.T) {
	in := start(t)
	in.tarn("project", "create", "shop")
	conn := in.connect(testContext(t, time.Minute), in.url("shop/production"))
	for _, q := range []string{
		"CREATE TABLE orders (id bigint PRIMARY KEY, customer bigint, total numeric(10,2), tags text[])",
		"INSERT INTO orders VALUES (1, 1, 9.50, '{a,b}'), (2, 2, 1.25, NULL), (3, 2, 3.00, '{}')",
	} {
		if _, err := conn.Exec(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	folder := filepath.Join(t.TempDir(), "users")
	deltaTable(t, folder)
	in.tarn("table", "register", "lake.gold.users", folder)

	out := in.python("sql.py")
	for _, want := range []string{
		"manifest ['name STRING STRING', 'spent DECIMAL(38,2) DECIMAL', 'n BIGINT LONG'] 2 rows\n",
		"join [['ann', '9.50', '1'], ['bob', '4.25', '2']]\n",
		"parameters [['2']]\n", "chunks 100000 rows in several True sum 4999950000\n",
		"merge [['3', '1', '1', '1']]\n",
		"deltalake [(1, '9.50'), (2, '4.25')] [('delete', 7), ('insert', 2), ('update_postimage', 1), ('update_preimage', 1)]\n",
		"failed BAD_REQUEST [UNRESOLVED_COLUMN]", "LINE 2: ", "canceled CANCELED\n", "history True\n", "warehouse default RUNNING\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
	for _, c := range []struct{ sql, want string }{
		{"SELECT count(*) AS n FROM lake.gold.users", "n\n3\n"},
		{"SELECT id, name, day FROM `lake`.gold.users WHERE day = '2024-10-05' ORDER BY 1", "id,name,day\n2,bob,2024-10-05\n3,,2024-10-05\n"},
		{"SELECT id FROM lake.gold.users VERSION AS OF 1 ORDER BY id DESC LIMIT 1", "id\n4\n"},
		{"SELECT old.id FROM lake.gold.users@v1 AS old ANTI JOIN lake.gold.users USING (id)", "id\n4\n"},
		{"SELECT _change_type, id FROM table_changes('lake.gold.users', 2)", "_change_type,id\ndelete,4\n"},
		{"WITH u AS (SELECT * FROM lake.gold.users) SELECT u.id FROM u WHERE id IN (2, 9)", "id\n2\n"},
		{"SELECT version, operation FROM (VALUES (1, 'x')) v(version, operation)", "version,operation\n1,x\n"},
		{"DESCRIBE lake.gold.users", "col_name,data_type,comment\nid,bigint,\nname,string,\nday,date,\n"},
		{"SHOW TABLES IN lake.gold", "database,tableName,isTemporary\ngold,totals,false\ngold,users,false\n"},
		{"SHOW TABLES IN lake.gold LIKE 'x*'", "database,tableName,isTemporary\n"},
		{"SHOW CATALOGS LIKE 's*'", "catalog\nshop_pg\nsystem\n"},
		{"SHOW SCHEMAS IN shop_pg", "databaseName\npublic\n"},
		{"SHOW COLUMNS IN lake.gold.users", "col_name\nid\nname\nday\n"},
		{"SELECT count(*) AS n FROM lake.gold.users TIMESTAMP AS OF '2100-01-01' u", "n\n3\n"},
		{"CREATE TABLE lake.gold.spent COMMENT 'x' AS SELECT customer, sum(total) AS total FROM shop_pg.public.orders GROUP BY customer", "num_affected_rows\n2\n"},
		{"SELECT s.total FROM lake.gold.spent s JOIN lake.gold.users u ON u.id = s.customer WHERE u.name = 'bob'", "total\n4.25\n"},
	} {
		if got := in.tarn("sql", "--format", "csv", c.sql); got != c.want {
			t.Errorf("%s\ngives %q\nwant  %q", c.sql, got, c.want)
		}
	}
	if got := in.tarn("sql", "--format", "csv", "DESCRIBE HISTORY lake.gold.users LIMIT 1"); !strings.Contains(got, "2,") || !strings.Contains(got, "DELETE") {
		t.Errorf("history: %s", got)
	}
	for sql, want := range map[string]string{
		"DESCRIBE TABLE EXTENDED lake.gold.users": "# Detailed Table Information", "DESCRIBE DETAIL lake.gold.users": "delta", "EXPLAIN SELECT id FROM lake.gold.users": "explain_value",
	} {
		if got := in.tarn("sql", "--format", "csv", sql); !strings.Contains(got, want) {
			t.Errorf("%s gives %s", sql, got)
		}
	}
	if got := in.tarn("sql", "--json", "--param", "n:BIGINT=2", "SELECT id, name, [id] AS l, NULL AS x FROM lake.gold.users WHERE id = :n"); got != `{"id": 2, "name": "bob", "l": [2], "x": null}`+"\n" {
		t.Errorf("json: %s", got)
	}
	script := filepath.Join(t.TempDir(), "script.sql")
	if err := os.WriteFile(script, []byte("-- two statements;\nSELECT 1 AS a; SELECT ';' AS b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := in.tarn("sql", "-f", script, "--format", "csv"); got != "a\n1\nb\n;\n" {
		t.Errorf("script: %q", got)
	}
	piped := in.command("sql", "--format", "arrow")
	piped.Stdin = strings.NewReader("SELECT i FROM range(100000) t(i)")
	stream, err := piped.Output()
	if err != nil {
		t.Fatal(err)
	}
	r, err := ipc.NewReader(bytes.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	rows := int64(0)
	for r.Next() {
		rows += r.RecordBatch().NumRows()
	}
	if rows != 100000 || r.Err() != nil {
		t.Errorf("arrow: %d rows, %v", rows, r.Err())
	}
	// Whatever is written, it reads tables of the catalog and nothing else.
	for _, bad := range []string{
		"SELECT * FROM read_parquet('" + folder + "/*/*.parquet')", "SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM '/etc/passwd'",
		"SELECT * FROM query('SELECT 1')", "ATTACH '/tmp/x.db'", "INSTALL httpfs", "COPY (SELECT 1) TO '/tmp/x'", "SELECT 1; SET memory_limit = '1GB'",
		"SELECT * FROM duckdb_settings()", "PRAGMA database_list", "SELECT * FROM lake.gold.nothing",
	} {
		cmd := in.command("sql", bad)
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("%s succeeds:\n%s", bad, out)
		}
	}
}
