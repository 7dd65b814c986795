package compute

import (
	"fmt"
	"slices"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// Every Postgres version there is goes once through a branch's whole life.
func TestLife(t *testing.T) {
	f := openFleet(t, options(t, pgtest.Dir(t)))
	for _, in := range pgtest.Installs(t) {
		t.Run(fmt.Sprint(in.Major), func(t *testing.T) {
			tl := create(t, f, tarn.TimelineSpec{PGVersion: in.Major})
			ep := fmt.Sprintf("ep-%d", in.Major)
			st := wake(t, f, spec(ep, tl.ID))
			c := connectTo(t, st, tarn.Superuser)
			if v := query[int](t, c, `SELECT current_setting('server_version_num')::int / 10000`); v != in.Major {
				t.Fatalf("woke Postgres %d", v)
			}
			run(t, c, `CREATE TABLE t (id int)`)
			run(t, c, `INSERT INTO t SELECT generate_series(1, 1000)`)
			c.Close(t.Context())
			suspend(t, f, ep)
			suspend(t, f, ep) // a stopped one is no error
			c = connectTo(t, wake(t, f, spec(ep, tl.ID)), tarn.Superuser)
			if n := len(rows(t, c)); n != 1000 {
				t.Errorf("%d rows after a suspend, want 1000", n)
			}
			for _, q := range []string{
				`SELECT count(*) FROM pg_roles WHERE rolname IN ('databricks_superuser', 'tarn_oauth') AND NOT rolcanlogin`,
				`SELECT count(*) + 1 FROM pg_roles WHERE rolname = 'tarn_admin' AND rolsuper`,
				`SELECT count(*) - 1 FROM pg_auth_members m JOIN pg_roles r ON m.member = r.oid WHERE r.rolname = 'databricks_superuser'`,
			} {
				if n := query[int](t, c, q); n != 2 {
					t.Errorf("%s: %d", q, n)
				}
			}
			fullPages := map[pageWrites]string{wholePages: "off", tornPages: "on"}[f.store.PageWrites()]
			for name, want := range map[string]string{"full_page_writes": fullPages, "data_checksums": fullPages, "wal_recycle": "off", "wal_level": "logical", "max_connections": "104"} {
				if got := query[string](t, c, `SELECT current_setting($1)`, name); got != want {
					t.Errorf("%s is %s", name, got)
				}
			}
			c.Close(t.Context())

			if again := create(t, f, tarn.TimelineSpec{ID: tl.ID, PGVersion: in.Major}); again.ID != tl.ID {
				t.Errorf("created again: %+v", again)
			}
			if err := f.DeleteTimeline(t.Context(), tl.ID); err != nil {
				t.Fatal(err)
			}
			if err := f.DeleteTimeline(t.Context(), tl.ID); err != nil {
				t.Errorf("deleted again: %v", err)
			}
			if _, err := f.Wake(t.Context(), spec(ep, tl.ID)); tarn.KindOf(err) != tarn.KindNotFound {
				t.Errorf("wake of a deleted timeline: %v", err)
			}
		})
	}
	all, err := f.Timelines(t.Context())
	if err != nil || len(all) != 0 {
		t.Errorf("timelines left: %+v, %v", all, err)
	}
	if v, _ := f.Versions(t.Context()); len(v) == 0 || !slices.IsSortedFunc(v, func(a, b int) int { return b - a }) {
		t.Errorf("versions %v", v)
	}
}
