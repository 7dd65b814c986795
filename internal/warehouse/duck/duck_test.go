package duck_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn/internal/warehouse/duck"
)

func load(t *testing.T) *duck.Library {
	t.Helper()
	path := duck.Find("")
	if path == "" {
		t.Fatal("no DuckDB: scripts/setup.sh test fetches it")
	}
	l, err := duck.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestTypesAndValues(t *testing.T) {
	db, err := load(t).Open(map[string]string{"threads": "2", "memory_limit": "200MB"})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	text := "x"
	rows, err := db.Query(t.Context(), `SELECT i::TINYINT a, i::BIGINT b, (i/3)::DECIMAL(10,2) c, 'n' || i d, i = 3 e,
		CASE WHEN i % 2 = 0 THEN i::DOUBLE END f, DATE '2024-02-29' + i::INT g, TIMESTAMP '2024-01-01' + INTERVAL (i) SECOND h,
		[i, NULL] l, {'x': i, 'y': [$p]} s, MAP {'k' || i: i} m, sum(i) OVER () n, NULL o, '\xAA'::BLOB p, uuid() IS NOT NULL q,
		(CASE WHEN i < 2 THEN 'lo' ELSE 'hi' END)::ENUM('lo', 'hi') r, [i, i]::INT[2] w, INTERVAL 3 DAY v
		FROM range(5) t(i) ORDER BY i`, []duck.Param{{Name: "p", Text: &text}, {Name: "unused"}})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	rec, err := rows.Next()
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Release()
	var got []string
	for i, c := range rec.Columns() {
		got = append(got, rec.ColumnName(i)+"="+c.ValueStr(3)+","+c.ValueStr(4))
	}
	const want = `a=3,4 b=3,4 c=1,1.33 d=n3,n4 e=true,false f=(null),4 g=2024-03-03,2024-03-04 h=2024-01-01T00:00:03,2024-01-01T00:00:04 ` +
		`l=[3,null],[4,null] s={"x":3,"y":["x"]},{"x":4,"y":["x"]} m=[{"key":"k3","value":3}],[{"key":"k4","value":4}] n=10,10 o=(null),(null) p=qg==,qg== q=true,true ` +
		`r=hi,hi w=[3,3],[4,4] v={"months":0,"days":3,"nanoseconds":0},{"months":0,"days":3,"nanoseconds":0}`
	if s := strings.Join(got, " "); s != want {
		t.Fatalf("got  %s\nwant %s", s, want)
	}
	if _, err := rows.Next(); !errors.Is(err, io.EOF) {
		t.Fatalf("after the last row: %v", err)
	}
}

func TestManyRowsAndErrors(t *testing.T) {
	db, err := load(t).Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(t.Context(), "SELECT i, i::VARCHAR s FROM range(100000) t(i)", nil)
	if err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	for {
		rec, err := rows.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n += rec.NumRows()
		rec.Release()
	}
	rows.Close()
	if n != 100000 {
		t.Fatalf("%d rows", n)
	}
	for _, bad := range []string{"SELEC 1", "SELECT nope", "SELECT error('stop') FROM range(3)", "SELECT $x"} {
		rows, err := db.Query(t.Context(), bad, nil)
		if err == nil {
			_, err = rows.Next()
			rows.Close()
		}
		if err == nil {
			t.Errorf("%s succeeds", bad)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err = db.Exec(ctx, "CREATE TABLE x AS SELECT count(*) FROM range(1000000) a(i), range(1000000) b(j) WHERE i * j % 7 = 3")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("interrupted statement: %v", err)
	}
	if err := db.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatalf("after an interrupt: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	if _, err := duck.Load(os.DevNull); err == nil {
		t.Fatal("loads no library")
	}
}
