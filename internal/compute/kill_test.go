package compute

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	blobopen "github.com/tarndb/tarn/internal/blob/open"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
	"github.com/tarndb/tarn/internal/volumefs"
)

// nodeEnv makes the test binary a node that is going to be killed: it names
// what to do; nodeDirEnv names the data directory.
const (
	nodeEnv    = "TARN_TEST_NODE"
	nodeDirEnv = "TARN_TEST_NODE_DIR"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// victims are what a node does until it is killed. They write a line for every
// step that is done.
var victims = map[string]func(t *testing.T, f *Fleet, out io.Writer) error{
	"write":    victimWrite,
	"fork":     victimFork,
	"template": victimTemplate,
	"pause":    victimPause,
}

// TestNodeToKill is not a test of its own: TestKilledNode runs it in another
// process.
func TestNodeToKill(t *testing.T) {
	do := victims[os.Getenv(nodeEnv)]
	if do == nil {
		t.Skip("only as a process of TestKilledNode")
	}
	o := options(t, os.Getenv(nodeDirEnv))
	if at := os.Getenv(nodeBucketEnv); at != "" {
		b, err := blobopen.Store(t.Context(), at, blobopen.Options{})
		if err != nil {
			t.Fatal(err)
		}
		o = inBucket(t, o.Dir, b)
	}
	f, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	unix.CloseOnExec(3) // Postgres outlives us and must not keep the pipe open
	out := os.NewFile(3, "steps")
	if err := do(t, f, out); err != nil {
		fmt.Fprintln(out, "error", err)
	}
}

const victimID = tarn.TimelineID("00000000000000000000000000000001")

func victimCompute(t *testing.T, f *Fleet) (*pgx.Conn, error) {
	if _, err := f.CreateTimeline(t.Context(), tarn.TimelineSpec{ID: victimID}); err != nil {
		return nil, err
	}
	st, err := f.Wake(t.Context(), spec("ep-1", victimID))
	if err != nil {
		return nil, err
	}
	c, err := pgx.Connect(t.Context(), dsn(st, tarn.Superuser))
	if err != nil {
		return nil, err
	}
	_, err = c.Exec(t.Context(), `CREATE TABLE IF NOT EXISTS t (id int)`)
	return c, err
}

// victimWrite inserts row after row and says so after each commit.
func victimWrite(t *testing.T, f *Fleet, out io.Writer) error {
	c, err := victimCompute(t, f)
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		if _, err := c.Exec(t.Context(), `INSERT INTO t VALUES ($1)`, n); err != nil {
			return err
		}
		fmt.Fprintln(out, n)
	}
}

// victimFork makes forks, now and in the past, and says so before each.
func victimFork(t *testing.T, f *Fleet, out io.Writer) error {
	c, err := victimCompute(t, f)
	if err != nil {
		return err
	}
	for n := 1; ; n++ {
		if _, err := c.Exec(t.Context(), `INSERT INTO t VALUES ($1)`, n); err != nil {
			return err
		}
		s := tarn.TimelineSpec{ID: tarn.TimelineID(fmt.Sprintf("%032x", 16+n)), Source: victimID}
		if n%2 == 0 {
			s.Time = time.Now()
		}
		fmt.Fprintln(out, n)
		if _, err := f.CreateTimeline(t.Context(), s); err != nil {
			return err
		}
	}
}

// victimTemplate says when it begins with the first template.
func victimTemplate(t *testing.T, f *Fleet, out io.Writer) error {
	fmt.Fprintln(out, 1)
	_, err := f.CreateTimeline(t.Context(), tarn.TimelineSpec{ID: victimID})
	return err
}

// killNode runs a victim in a process of its own and kills that some time after
// it has written so many lines. It returns the last line.
func killNode(t *testing.T, dir, victim string, lines int, then time.Duration) int {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestNodeToKill$", "-test.v")
	cmd.Env = append(os.Environ(), nodeEnv+"="+victim, nodeDirEnv+"="+dir)
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	// Postgres inherits none of these, but a copy of standard output must not
	// keep Wait from returning.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	killed := false
	kill := func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(func() { clearAway(t, dir) })
	defer kill()
	last := 0
	scan := bufio.NewScanner(r)
	watchdog := time.AfterFunc(time.Minute, func() {
		_ = cmd.Process.Kill()
		_ = r.SetReadDeadline(time.Now())
	})
	defer watchdog.Stop()
	for scan.Scan() {
		if _, err := fmt.Sscan(scan.Text(), &last); err != nil {
			t.Fatalf("node says %q", scan.Text())
		}
		if last == lines {
			time.AfterFunc(then, func() { _ = cmd.Process.Kill() })
		}
	}
	if last < lines {
		t.Fatalf("the node ended after %d of %d steps", last, lines)
	}
	kill()
	return last
}

// clearAway ends what a killed node left when the test could not.
func clearAway(t *testing.T, dir string) {
	entries, err := os.ReadDir(filepath.Join(dir, "mnt"))
	if err != nil {
		return
	}
	for _, e := range entries {
		mnt := filepath.Join(dir, "mnt", e.Name())
		err := errors.Join(postgres.KillOrphans(mnt, filepath.Join(dir, "run", e.Name()+".pid")), volumefs.UnmountStale(mnt))
		if err != nil {
			t.Error(err)
		}
	}
}

// A killed node leaves computes that go on writing WAL. The next one ends them,
// and no acknowledged row is missing.
func TestKilledNode(t *testing.T) {
	dir := pgtest.Dir(t)
	seen := 0
	for round := range 2 {
		last := killNode(t, dir, "write", seen+200, 0)
		if _, err := os.Stat(filepath.Join(dir, "run", "ep-1.pid")); err != nil {
			t.Errorf("the killed node left no record of its Postgres: %v", err)
		}
		f := openFleet(t, options(t, dir))
		checkNothingLeft(t, dir)
		c := connectTo(t, wake(t, f, spec("ep-1", victimID)), tarn.Superuser)
		n := query[int](t, c, `SELECT count(DISTINCT id) FROM t`)
		top := query[int](t, c, `SELECT max(id) FROM t`)
		if n < last || n != top {
			t.Errorf("round %d: %d rows up to %d, %d were acknowledged", round, n, top, last)
		}
		run(t, c, `TRUNCATE t`)
		c.Close(t.Context())
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A node killed while it forks leaves whole timelines or nothing.
func TestKilledWhileForking(t *testing.T) {
	dir := pgtest.Dir(t)
	for _, delay := range []time.Duration{5 * time.Millisecond, 60 * time.Millisecond} {
		last := killNode(t, dir, "fork", 2, delay)
		f := openFleet(t, options(t, dir))
		all, err := f.Timelines(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stored, err := f.store.Timelines(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if templates := 1; len(stored) != len(all)+templates {
			t.Errorf("%d timelines in the page store, %d published and %d template", len(stored), len(all), templates)
		}
		if wals, err := os.ReadDir(filepath.Join(dir, "wal")); err != nil || len(wals) != len(stored) {
			t.Errorf("%d WAL directories for %d timelines, %v", len(wals), len(stored), err)
		}
		t.Logf("killed %s after fork %d began: %d timelines", delay, last, len(all))
		// Asked again, the one that was being made comes into being.
		s := tarn.TimelineSpec{ID: tarn.TimelineID(fmt.Sprintf("%032x", 16+last)), Source: victimID}
		if st := create(t, f, s); st.ID != s.ID {
			t.Errorf("created again: %+v", st)
		}
		for _, tl := range append(all, tarn.TimelineStatus{ID: s.ID}) {
			if tl.ID == victimID {
				continue
			}
			ep := "ep-" + strings.TrimLeft(string(tl.ID), "0")
			c := connectTo(t, wake(t, f, spec(ep, tl.ID)), tarn.Superuser)
			var id int
			if _, err := fmt.Sscanf(string(tl.ID), "%x", &id); err != nil {
				t.Fatal(err)
			}
			if n := query[int](t, c, `SELECT count(*) FROM t`); n < id-16 {
				t.Errorf("timeline %s has %d rows", tl.ID, n)
			}
			c.Close(t.Context())
			suspend(t, f, ep)
			if err := f.DeleteTimeline(t.Context(), tl.ID); err != nil {
				t.Error(err)
			}
		}
		c := connectTo(t, wake(t, f, spec("ep-1", victimID)), tarn.Superuser)
		run(t, c, `TRUNCATE t`)
		c.Close(t.Context())
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A node killed while it makes a template leaves none that is half made.
func TestKilledWhileMakingTemplate(t *testing.T) {
	dir := pgtest.Dir(t)
	for _, delay := range []time.Duration{300 * time.Millisecond, 900 * time.Millisecond} {
		killNode(t, dir, "template", 1, delay)
	}
	f := openFleet(t, options(t, dir))
	checkNothingLeft(t, dir)
	tl := create(t, f, tarn.TimelineSpec{ID: victimID})
	connectTo(t, wake(t, f, spec("ep-1", tl.ID)), tarn.Superuser)
	stored, err := f.store.Timelines(t.Context())
	if err != nil || len(stored) != 2 {
		t.Errorf("%d timelines, %v; want the template and one", len(stored), err)
	}
}

// The end of Run is the clean end of every compute, and Run makes templates.
func TestRunEndsCleanly(t *testing.T) {
	dir := pgtest.Dir(t)
	o := options(t, dir)
	o.Installs = o.Installs[:1]
	f := openFleet(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	tl := create(t, f, tarn.TimelineSpec{})
	c := connectTo(t, wake(t, f, spec("ep-1", tl.ID)), tarn.Superuser)
	run(t, c, `CREATE TABLE t (id int)`)
	run(t, c, `INSERT INTO t VALUES (1)`)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	checkNothingLeft(t, dir)
	if _, err := f.Wake(t.Context(), spec("ep-1", tl.ID)); tarn.KindOf(err) != tarn.KindUnavailable {
		t.Errorf("wake after the end: %v", err)
	}
	f = openFleet(t, o)
	st, err := f.Timeline(t.Context(), tl.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := endMark(st.Marks, st.Head); !ok {
		t.Errorf("no mark at the end: %+v", st)
	}
	c = connectTo(t, wake(t, f, spec("ep-1", tl.ID)), tarn.Superuser)
	if got := rows(t, c); len(got) != 1 {
		t.Errorf("rows %v", got)
	}
}
