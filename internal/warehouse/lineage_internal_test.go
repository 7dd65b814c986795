package warehouse

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tarndb/tarn"
)

// Statements tell which tables and, where that can be told, which columns the rows
// they wrote came from.
func (l *lab) lineages(t *testing.T) {
	l.want(t, ann, "CREATE TABLE lin.a AS SELECT 1 AS id, 'x' AS name", `[["1"]]`)
	l.want(t, ann, "CREATE TABLE lin.b AS SELECT 1 AS id, 2.5 AS total", `[["1"]]`)
	for i, c := range []struct{ sql, want string }{
		{"AS SELECT * FROM lin.a", "a CREATE_TABLE_AS id→id name→name"},
		{"AS SELECT x.id + b.id AS k, upper(name) AS n, 1 AS one FROM (SELECT id, name FROM lin.a) x(id, name) JOIN lin.b b ON b.id = x.id", "a CREATE_TABLE_AS|b CREATE_TABLE_AS"},
		{"AS SELECT x.id + b.id AS k, upper(x.name) AS n, current_date AS d FROM lin.a x JOIN lin.b b USING (id)", "a CREATE_TABLE_AS id→k name→n|b CREATE_TABLE_AS id→k"},
		{"AS SELECT x.id + b.id AS k, upper(x.name) AS n FROM (SELECT id, name FROM lin.a) x(id, name) JOIN lin.b b ON b.id = x.id", "a CREATE_TABLE_AS id→k name→n|b CREATE_TABLE_AS id→k"},
		{"AS WITH w AS (SELECT * FROM lin.a) SELECT id FROM w", "a CREATE_TABLE_AS"},
		{"AS SELECT (SELECT max(total) FROM lin.b) AS m FROM lin.a", "a CREATE_TABLE_AS|b CREATE_TABLE_AS"},
		{"AS SELECT 1 AS one", ""},
	} {
		n := fmt.Sprint("t", i)
		if _, st, _ := l.run(t, ann, "CREATE TABLE lin."+n+" "+c.sql); st.State != Succeeded {
			t.Fatal(c.sql, st.Err)
		}
		if got := l.upstream(t, n); got != c.want {
			t.Errorf("%s: %q, want %q", c.sql, got, c.want)
		}
	}
	l.want(t, ann, "CREATE TABLE lin.c (id INT, name STRING, total DECIMAL(9,2))", "[]")
	l.want(t, ann, "INSERT INTO lin.c (name, id) SELECT name, id FROM lin.a", `[["1"]]`)
	l.want(t, ann, "INSERT INTO lin.c (id) VALUES (3)", `[["1"]]`)
	l.want(t, ann, "INSERT INTO lin.c SELECT id, 'n', total FROM lin.b", `[["1"]]`)
	l.want(t, ann, "MERGE INTO lin.c USING lin.a ON c.id = a.id WHEN MATCHED THEN UPDATE SET name = a.name", `[["2","2","0","0"]]`)
	l.want(t, ann, "DELETE FROM lin.c WHERE id IN (SELECT id FROM lin.t0)", `[["2"]]`)
	if got := l.upstream(t, "c"); got != "a INSERT id→id name→name|a MERGE|b INSERT id→id total→total" {
		t.Error(got)
	}
	up, down, err := l.cat.For(ann).Lineage(t.Context(), tarn.TableName{Catalog: "lake", Schema: "lin", Table: "a"})
	if err != nil || len(up) != 0 || len(down) != 8 || down[0].Run == "" || down[0].Principal != ann.Name || down[0].First.IsZero() {
		t.Errorf("%d edges in, %d out, %v: %+v", len(up), len(down), err, down)
	}
	if _, _, err := l.cat.For(tarn.Principal{ID: "2", Name: "eve@example.com"}).Lineage(t.Context(), tarn.TableName{Catalog: "lake", Schema: "lin", Table: "a"}); tarn.KindOf(err) != tarn.KindDenied {
		t.Errorf("a stranger sees lineage: %v", err)
	}
}

func (l *lab) upstream(t *testing.T, name string) string {
	t.Helper()
	up, _, err := l.cat.For(ann).Lineage(t.Context(), tarn.TableName{Catalog: "lake", Schema: "lin", Table: name})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range up {
		s := e.Source.Table + " " + string(e.Kind)
		for _, p := range e.Columns {
			s += " " + p.Source + "→" + p.Target
		}
		out = append(out, s)
	}
	return strings.Join(out, "|")
}
