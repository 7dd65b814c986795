package compute

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

func replicaOf(primary string, id tarn.TimelineID) tarn.ComputeSpec {
	s := spec("ep-ro", id)
	s.ReadOnly, s.Primary = true, primary
	return s
}

// count waits until a replica sees so many rows.
func count(t *testing.T, c *pgx.Conn, want int) {
	t.Helper()
	limit := timeout(t, time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		got := query[int](t, c, `SELECT count(*) FROM t`)
		if got == want {
			return
		}
		select {
		case <-tick.C:
		case <-limit.Done():
			t.Fatalf("the replica has %d rows, want %d", got, want)
		}
	}
}

func TestReplica(t *testing.T) {
	for _, in := range pgtest.Installs(t) {
		t.Run(fmt.Sprint(in.Major), func(t *testing.T) {
			f := openFleet(t, options(t, pgtest.Dir(t)))
			tl := create(t, f, tarn.TimelineSpec{PGVersion: in.Major})
			p := spec("ep-rw", tl.ID)
			p.Settings = map[string]string{"max_connections": "150", "max_prepared_transactions": "3"}
			c := client(t, wake(t, f, p))
			run(t, c, `CREATE TABLE t (id int)`)
			run(t, c, `INSERT INTO t SELECT generate_series(1, 1000)`)

			// Under a running primary.
			ro := replicaOf("ep-rw", tl.ID)
			r := connectTo(t, wake(t, f, ro), "app")
			count(t, r, 1000)
			if _, err := r.Exec(t.Context(), `INSERT INTO t VALUES (1)`); pgCode(err) != "25006" {
				t.Errorf("a write on a replica: %v, want 25006", err)
			}
			run(t, c, `INSERT INTO t SELECT generate_series(1001, 5000)`)
			count(t, r, 5000)
			until(t, f, "ep-ro", "up to date", func(st tarn.ComputeStatus) bool {
				return st.ReadOnly && st.LSN > 0 && st.LagBytes == 0 && st.Lag == 0
			})

			// Its primary sleeps: it goes on; it wakes: it follows again, in the same
			// session.
			suspend(t, f, "ep-rw")
			count(t, r, 5000)
			c = connectTo(t, wake(t, f, p), "app")
			run(t, c, `INSERT INTO t VALUES (5001)`)
			count(t, r, 5001)

			// Its primary crashes.
			dead := f.serving(tl.ID).server
			dead.Kill()
			until(t, f, "ep-rw", "another", func(st tarn.ComputeStatus) bool { return isActive(st) && st.PID != dead.PID() })
			c = connectTo(t, wake(t, f, p), "app")
			run(t, c, `INSERT INTO t VALUES (5002)`)
			count(t, r, 5002)

			// It crashes itself, and is made anew, from a primary that sleeps.
			suspend(t, f, "ep-rw")
			suspend(t, f, "ep-ro")
			r = connectTo(t, wake(t, f, ro), "app")
			count(t, r, 5002)

			// Its primary comes back with more room than it has: it is made anew.
			p.Settings["max_connections"] = "250"
			c = connectTo(t, wake(t, f, p), "app")
			run(t, c, `INSERT INTO t VALUES (5003)`)
			limit := timeout(t, 2*time.Minute)
			for {
				again, err := pgx.Connect(limit, dsn(wake(t, f, ro), "app"))
				if err == nil {
					var n int
					err = again.QueryRow(limit, `SELECT count(*) FROM t`).Scan(&n)
					again.Close(context.Background())
					if err == nil && n == 5003 {
						break
					}
				}
				if limit.Err() != nil {
					t.Fatalf("the replica did not come back: %v", err)
				}
			}

			// Its fork goes with it, and with its branch.
			before, err := f.store.Timelines(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			suspend(t, f, "ep-ro")
			after, err := f.store.Timelines(t.Context())
			if err != nil || len(after) != len(before)-1 {
				t.Errorf("%d timelines with a replica, %d without, %v", len(before), len(after), err)
			}
			wake(t, f, ro)
			if err := f.DeleteTimeline(t.Context(), tl.ID); err != nil {
				t.Fatal(err)
			}
			if st := status(t, f, "ep-ro"); st.State == tarn.ComputeActive {
				t.Errorf("the replica of a deleted branch is %s", st.State)
			}
			if after, err = f.store.Timelines(t.Context()); err != nil || len(after) != len(before)-2 {
				t.Errorf("%d timelines after all, %v: want %d", len(after), err, len(before)-2)
			}
		})
	}
}

func pgCode(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}
