package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What is new in a table goes to a Delta table once, by the command line and by
// the Python client, whose tokens come from the published SDK.
func TestIngest(t *testing.T) {
	in := startOn5432(t)
	in.tarn("project", "create", "shop")
	ctx := testContext(t, time.Minute)
	conn := in.connect(ctx, in.url("shop/production"))
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE TABLE items (id int PRIMARY KEY, name text, changed timestamptz NOT NULL DEFAULT now()); INSERT INTO items SELECT i, 'item ' || i FROM generate_series(1, 1000) i`)
	ingest := []string{"ingest", "items", "--branch", "shop/production", "--column", "changed", "--to", "lake.bronze.items", "--limit", "300"}
	count := func() string { return strings.TrimSpace(in.tarn("table", "count", "lake.bronze.items")) }
	if out := in.tarn(append(ingest, "--track")...); !strings.HasPrefix(out, "1000 new rows") || count() != "1000" {
		t.Errorf("first: %s%s rows", out, count())
	}
	exec(`UPDATE items SET name = 'changed' WHERE id <= 10; INSERT INTO items VALUES (0, 'late', now() - interval '1 year')`)
	if out := in.tarn(ingest...); !strings.HasPrefix(out, "11 new rows") || count() != "1011" {
		t.Errorf("then: %s%s rows", out, count())
	}
	if out := in.tarn(ingest...); !strings.HasPrefix(out, "0 new rows") {
		t.Errorf("again: %s", out)
	}
	if out := in.refused(4, "ingest", "nothing", "--branch", "shop/production", "--column", "id", "--to", "lake.bronze.nothing"); !strings.Contains(out, "there is no table nothing") {
		t.Errorf("no table: %s", out)
	}
	out := in.python("lakebase_client.py", filepath.Join(in.data, "checkpoints"))
	const want = "1001 in 5 batches\n2 tokens\n[{'id': 7, 'name': 'again'}]\n"
	if out != want {
		t.Errorf("the program printed:\n%swant:\n%s", out, want)
	}
}
