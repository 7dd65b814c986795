package compute

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/compute/scale"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// withGroups skips where there are no control groups, and where another round of
// this package's tests shows the same.
func withGroups(t *testing.T, f *Fleet) {
	t.Helper()
	if f.groups.tree == nil {
		t.Skipf("no control groups here: %s", f.groups.why)
	}
}

func onceOnly(t *testing.T) {
	t.Helper()
	if os.Getenv(volumesEnv) != "" {
		t.Skip("the kind of volumes does not matter to it")
	}
}

// status is what the fleet says of a compute.
func status(t *testing.T, f *Fleet, endpoint string) tarn.ComputeStatus {
	t.Helper()
	all, err := f.Computes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(st tarn.ComputeStatus) bool { return st.Endpoint == endpoint })
	if i < 0 {
		return tarn.ComputeStatus{Endpoint: endpoint}
	}
	return all[i]
}

// until waits for what a compute's status is to say.
func until(t *testing.T, f *Fleet, endpoint, what string, is func(tarn.ComputeStatus) bool) tarn.ComputeStatus {
	t.Helper()
	limit := timeout(t, 2*time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		st := status(t, f, endpoint)
		if is(st) {
			return st
		}
		select {
		case <-tick.C:
		case <-limit.Done():
			t.Fatalf("compute %s is %+v, not %s", endpoint, st, what)
		}
	}
}

// TestGrowsUnderLoad: a compute grows with its clients without a restart, within
// its limits, and every process of it is held to them.
func TestGrowsUnderLoad(t *testing.T) {
	onceOnly(t)
	o := options(t, pgtest.Dir(t))
	o.CPUsPerCU = 0.1 // which it gets on a busy computer, too
	f := openFleet(t, o)
	withGroups(t, f)
	tl := create(t, f, tarn.TimelineSpec{})
	s := spec("ep-a", tl.ID)
	s.MinCU, s.MaxCU = 0.5, 2
	st := wake(t, f, s)
	c := client(t, st)
	if st.CU != 0.5 || st.FixedBy != "" {
		t.Fatalf("it starts at %g CU, fixed by %q: want 0.5", st.CU, st.FixedBy)
	}
	g, err := f.groups.group("ep-a")
	if err != nil {
		t.Fatal(err)
	}
	pids, err := g.Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range f.groups.tree.Dirs() {
		for _, pid := range processesOf(t, f, "ep-a") {
			if !slices.Contains(pids, pid) {
				t.Errorf("process %d of the compute is not in its group in %s", pid, dir)
			}
		}
	}
	postmaster := st.PID
	busy, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 3)
	for range 3 {
		go func() {
			c, err := pgx.Connect(busy, dsn(st, "app"))
			if err == nil {
				defer c.Close(context.Background())
				_, err = c.Exec(busy, `DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$`)
			}
			done <- err
		}()
	}
	st = until(t, f, "ep-a", "at 2 CU", func(st tarn.ComputeStatus) bool { return st.CU == 2 })
	if st.PID != postmaster {
		t.Errorf("postmaster %d became %d", postmaster, st.PID)
	}
	run(t, c, `SELECT 1`)
	stop()
	for range 3 {
		<-done
	}
	// Smaller limits hold at once.
	s.MaxCU = 1
	wake(t, f, s)
	until(t, f, "ep-a", "at 1 CU", func(st tarn.ComputeStatus) bool { return st.CU == 1 && st.PID == postmaster })
}

// client connects as an ordinary role, which it makes.
func client(t *testing.T, st tarn.ComputeStatus) *pgx.Conn {
	t.Helper()
	admin := connectTo(t, st, tarn.Superuser)
	defer admin.Close(context.Background())
	run(t, admin, `CREATE ROLE app LOGIN`)
	run(t, admin, `GRANT CREATE ON SCHEMA public TO app`)
	return connectTo(t, st, "app")
}

func processesOf(t *testing.T, f *Fleet, endpoint string) (pids []int) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if cwd, err := os.Readlink(link); err == nil && cwd == f.path("mnt", endpoint) {
			pid, err := strconv.Atoi(strings.Split(link, "/")[2])
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	if len(pids) < 5 {
		t.Fatalf("compute %s has processes %v only", endpoint, pids)
	}
	return pids
}

// TestOutOfMemory: a backend that wants more than the largest size is killed,
// Postgres recovers, nothing acknowledged is lost, and the status says why.
func TestOutOfMemory(t *testing.T) {
	onceOnly(t)
	o := options(t, pgtest.Dir(t))
	o.CPUsPerCU = 8 // what matters here is memory
	f := openFleet(t, o)
	withGroups(t, f)
	tl := create(t, f, tarn.TimelineSpec{})
	st := wake(t, f, spec("ep-a", tl.ID))
	c := client(t, st)
	run(t, c, `CREATE TABLE t (id int)`)
	run(t, c, `INSERT INTO t VALUES (1), (2)`)
	// A kilobyte of text doubled to a gigabyte, twice: more than 0.5 CU has.
	_, err := c.Exec(t.Context(), `SELECT length(repeat('x', 900000000)), length(repeat('y', 900000000) || 'z') FROM generate_series(1, 3)`)
	if err == nil {
		t.Fatal("it had more memory than its size")
	}
	st = until(t, f, "ep-a", "out of memory", func(st tarn.ComputeStatus) bool {
		return st.State == tarn.ComputeActive && strings.Contains(st.Message, "out of memory at 0.5 CU (1 GB)")
	})
	var again *pgx.Conn
	for range 100 {
		if again, err = pgx.Connect(t.Context(), dsn(st, "app")); err == nil {
			break
		}
		st = wake(t, f, spec("ep-a", tl.ID))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close(context.Background())
	if got := rows(t, again); len(got) != 2 {
		t.Errorf("rows %v after it, want 1 and 2", got)
	}
}

// TestCrashAtLargerSize: what the kernel killed starts again with more.
func TestCrashAtLargerSize(t *testing.T) {
	l := &life{size: size{state: scale.State{CU: 1}}}
	e := &engine{on: &machine{o: Options{CPUsPerCU: 1}}}
	if err := e.enter(l, tarn.ComputeSpec{MinCU: 0.5, MaxCU: 4}); err != nil || l.size.state.CU != 4 {
		t.Errorf("without control groups it has %g CU, %v: want the largest", l.size.state.CU, err)
	}
	if why := fmt.Sprint(e.explain(l, os.ErrInvalid)); why != os.ErrInvalid.Error() {
		t.Errorf("without control groups nobody knows why it ended: %s", why)
	}
}
