package compute

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// A database made from a template with its files copied is whole, can be
// changed without the template noticing, and where Postgres leaves the copying
// to the file system it costs next to nothing.
func TestCreateDatabaseFromTemplate(t *testing.T) {
	f := openFleet(t, options(t, pgtest.Dir(t)))
	for _, in := range pgtest.Installs(t) {
		t.Run(fmt.Sprint(in.Major), func(t *testing.T) {
			tl := create(t, f, tarn.TimelineSpec{PGVersion: in.Major})
			ep := fmt.Sprintf("ep-%d", in.Major)
			st := wake(t, f, spec(ep, tl.ID))
			c := connectTo(t, st, tarn.Superuser)
			run(t, c, `CREATE TABLE t AS SELECT i AS id, repeat(md5(i::text), 20) AS body FROM generate_series(1, 60000) i`)
			run(t, c, `CHECKPOINT`)
			c.Close(t.Context())
			before := ownBytes(t, f, tl.ID)

			c = inDatabase(t, st, "postgres")
			if in.Major >= cloneSince && query[string](t, c, `SELECT current_setting('file_copy_method')`) != "clone" {
				t.Error("files are not cloned")
			}
			run(t, c, `CREATE DATABASE copied TEMPLATE databricks_postgres STRATEGY file_copy`)
			c.Close(t.Context())
			if grown := ownBytes(t, f, tl.ID) - before; in.Major >= cloneSince && f.store.PageWrites() == wholePages && grown > 16<<20 {
				t.Errorf("a clone of 40 MB took %d bytes", grown)
			}

			c = inDatabase(t, st, "copied")
			run(t, c, `DELETE FROM t WHERE id % 2 = 0`)
			run(t, c, `VACUUM t`)
			if n := query[int](t, c, `SELECT sum(length(body)) / 640 FROM t WHERE body = repeat(md5(id::text), 20)`); n != 30000 {
				t.Errorf("%d rows in the copy", n)
			}
			c.Close(t.Context())
			suspend(t, f, ep)
			st = wake(t, f, spec(ep, tl.ID))
			for db, want := range map[string]int{"copied": 30000, "databricks_postgres": 60000} {
				c := inDatabase(t, st, db)
				if n := query[int](t, c, `SELECT sum(length(body)) / 640 FROM t WHERE body = repeat(md5(id::text), 20)`); n != want {
					t.Errorf("%d rows in %s, want %d", n, db, want)
				}
				c.Close(t.Context())
			}
			suspend(t, f, ep)
		})
	}
}

func inDatabase(t *testing.T, st tarn.ComputeStatus, name string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=disable", st.SocketDir, st.Port, tarn.Superuser, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}
