package compute

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

func isFrozen(st tarn.ComputeStatus) bool { return st.State == tarn.ComputeFrozen }
func isActive(st tarn.ComputeStatus) bool { return st.State == tarn.ComputeActive }

// freezing is a spec of a compute that is frozen as soon as possible.
func freezing(id tarn.TimelineID) tarn.ComputeSpec {
	s := spec("ep-a", id)
	s.FreezeAfter = leastFreeze
	return s
}

// stands fails unless no process of a compute runs.
func stands(t *testing.T, f *Fleet, endpoint string) {
	t.Helper()
	ticks := func() (all string) {
		for _, pid := range processesOf(t, f, endpoint) {
			b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
			if err != nil {
				t.Fatal(err)
			}
			fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')'):]))
			all += fields[12] + " " + fields[13] + "\n" // utime, stime
		}
		return all
	}
	before := ticks()
	wait := time.NewTimer(300 * time.Millisecond)
	<-wait.C
	if after := ticks(); before != after {
		t.Errorf("a frozen compute runs: CPU ticks %q became %q", before, after)
	}
}

func TestFreeze(t *testing.T) {
	onceOnly(t)
	for _, by := range []string{"control group", "signals"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			f := openFleet(t, options(t, pgtest.Dir(t)))
			if by == "signals" {
				f.groups.tree.Close()
				f.groups.tree = nil
			} else {
				withGroups(t, f)
			}
			tl := create(t, f, tarn.TimelineSpec{})
			s := freezing(tl.ID)
			st := wake(t, f, s)
			c := client(t, st)
			run(t, c, `CREATE TABLE t (id int)`)
			run(t, c, `INSERT INTO t VALUES (1)`)
			run(t, c, `SET work_mem = '7MB'`)

			frozen := until(t, f, "ep-a", "frozen", isFrozen)
			if frozen.PID != st.PID || frozen.SocketDir == "" {
				t.Errorf("frozen compute is %+v", frozen)
			}
			stands(t, f, "ep-a")

			// The gateway's way: whoever hears of a client wakes. All share one thaw.
			woken := make(chan error, 20)
			for range cap(woken) {
				go func() {
					_, err := f.Wake(context.Background(), s)
					woken <- err
				}()
			}
			for range cap(woken) {
				if err := <-woken; err != nil {
					t.Fatal(err)
				}
			}
			if got := query[string](t, c, `SHOW work_mem`); got != "7MB" {
				t.Errorf("the session's setting is %s after a thaw, want 7MB", got)
			}

			// Nobody says anything: what waits in a socket thaws it.
			until(t, f, "ep-a", "frozen again", isFrozen)
			if got := rows(t, c); len(got) != 1 {
				t.Errorf("rows %v", got)
			}
			until(t, f, "ep-a", "frozen a third time", isFrozen)
			n, err := net.Dial("unix", st.SocketDir+"/.s.PGSQL.5432")
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			until(t, f, "ep-a", "active for a new connection", isActive)

			// A fork of a frozen parent has all of it.
			until(t, f, "ep-a", "frozen a fourth time", isFrozen)
			child := create(t, f, tarn.TimelineSpec{Source: tl.ID})
			if got := rows(t, connectTo(t, wake(t, f, spec("ep-b", child.ID)), "app")); len(got) != 1 {
				t.Errorf("rows %v of a fork of a frozen parent", got)
			}
			suspend(t, f, "ep-b")

			// A crash while it is frozen, and a suspend.
			until(t, f, "ep-a", "frozen a fifth time", isFrozen)
			suspend(t, f, "ep-a")
			if st := status(t, f, "ep-a"); st.State != tarn.ComputeStopped {
				t.Errorf("suspended compute is %+v", st)
			}
			wake(t, f, s)
			until(t, f, "ep-a", "frozen a sixth time", isFrozen)
			// The fleet closes over a frozen compute: see openFleet.
		})
	}
}

// TestFrozenThenStopped: both depths, one after the other, and what keeps a
// compute from the first.
func TestFrozenThenStopped(t *testing.T) {
	onceOnly(t)
	t.Parallel()
	f := openFleet(t, options(t, pgtest.Dir(t)))
	tl := create(t, f, tarn.TimelineSpec{})
	s := freezing(tl.ID)
	s.SuspendAfter = 6 * time.Second
	st := wake(t, f, s)
	c := client(t, st)
	until(t, f, "ep-a", "frozen", isFrozen)
	until(t, f, "ep-a", "stopped", func(st tarn.ComputeStatus) bool { return st.State == tarn.ComputeStopped })
	c.Close(context.Background())

	// A transaction that is open is a client at work.
	st = wake(t, f, s)
	c = connectTo(t, st, "app")
	run(t, c, `BEGIN`)
	wait := time.NewTimer(leastFreeze + 2*time.Second)
	<-wait.C
	if st := status(t, f, "ep-a"); st.State != tarn.ComputeActive {
		t.Errorf("a compute with an open transaction is %s", st.State)
	}
	run(t, c, `COMMIT`)
	until(t, f, "ep-a", "frozen", isFrozen)
}

func TestCanFreeze(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		freeze, suspend, idle time.Duration
		anybody               int
		want                  bool
	}{
		"in time":                    {freeze: time.Minute, suspend: time.Hour, idle: time.Minute, want: true},
		"too early":                  {freeze: time.Minute, suspend: time.Hour, idle: 59 * time.Second},
		"never":                      {freeze: -1, suspend: time.Hour, idle: time.Hour},
		"not asked":                  {suspend: time.Hour, idle: time.Hour},
		"stopped before":             {freeze: time.Minute, suspend: time.Minute, idle: time.Hour},
		"somebody there":             {freeze: time.Minute, suspend: time.Hour, idle: time.Hour, anybody: 1},
		"sooner than clients' words": {freeze: time.Millisecond, idle: time.Second},
	} {
		s := tarn.ComputeSpec{FreezeAfter: c.freeze, SuspendAfter: c.suspend}
		if got := canFreeze(s, now.Add(-c.idle), now, activity{anybody: c.anybody}); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
