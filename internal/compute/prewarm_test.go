package compute

import (
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// TestPrewarm: what was hot before a stop is in memory again without a query that
// reads it, also on a fork.
func TestPrewarm(t *testing.T) {
	onceOnly(t)
	o := options(t, pgtest.Dir(t))
	if !o.Installs[0].Has(prewarmModule) || !o.Installs[0].Has("pg_buffercache") {
		t.Skip("this Postgres has no pg_prewarm or no pg_buffercache")
	}
	f := openFleet(t, o)
	tl := create(t, f, tarn.TimelineSpec{})
	s := spec("ep-a", tl.ID)
	c := inDatabase(t, wake(t, f, s), "postgres")
	for _, sql := range []string{`CREATE EXTENSION pg_buffercache`, `CREATE TABLE hot AS SELECT i, repeat('x', 500) AS t FROM generate_series(1, 2000) i`} {
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	const cached = `SELECT count(*) FROM pg_buffercache b JOIN pg_class k ON b.relfilenode = pg_relation_filenode(k.oid)
WHERE k.relname = 'hot' AND b.relforknumber = 0 AND b.reldatabase = (SELECT oid FROM pg_database WHERE datname = current_database())`
	want := query[int](t, c, cached)
	if want < 100 {
		t.Fatalf("%d pages of the table are in memory before the stop", want)
	}
	suspend(t, f, "ep-a")
	fork := create(t, f, tarn.TimelineSpec{Source: tl.ID})
	for _, s := range []tarn.ComputeSpec{s, spec("ep-b", fork.ID)} {
		c := inDatabase(t, wake(t, f, s), "postgres")
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for began := time.Now(); ; <-tick.C {
			has := query[int](t, c, cached)
			if has >= want {
				break
			}
			if time.Since(began) > time.Minute {
				t.Fatalf("%s has %d of %d pages in memory a minute after its start", s.Endpoint, has, want)
			}
		}
	}
}
