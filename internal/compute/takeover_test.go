package compute

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/blob/s3/s3test"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
	"github.com/tarndb/tarn/internal/wal"
)

// nodeBucketEnv names the object store of a node in another process.
const nodeBucketEnv = "TARN_TEST_NODE_BUCKET"

// inBucket are options of a fleet whose pages, WAL and records are copied soon.
func inBucket(t *testing.T, dir string, b blob.Store) Options {
	t.Helper()
	o := options(t, dir)
	r, err := wal.NewRemote(b, wal.RemoteOptions{Every: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	o.Remote = Remote{WAL: r, Store: b, SealEvery: 300 * time.Millisecond, Lease: 4 * time.Second}
	return o
}

// victimPause inserts row after row and says so after each commit, until that is
// not possible any more; then it says how its compute ended.
func victimPause(t *testing.T, f *Fleet, out io.Writer) error {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	c, err := victimCompute(t, f)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for n := 1; ; n++ {
		if _, err := c.Exec(ctx, `INSERT INTO t VALUES ($1)`, n); err != nil {
			break
		}
		if n == 10 { // these are to be found by whoever takes over
			w := f.serving(victimID).copying
			if err := w.uploader.CatchUp(ctx, w.done); err != nil {
				return err
			}
		}
		fmt.Fprintln(out, n)
	}
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		all, err := f.Computes(ctx)
		if err != nil {
			return err
		}
		for _, st := range all {
			if st.State == tarn.ComputeFailed {
				fmt.Fprintln(out, "ended", st.PID, st.Message)
				return nil
			}
		}
	}
}

// pausable is a node in another process.
type pausable struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

func startPausable(t *testing.T, dir, bucket string, env []string) *pausable {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &pausable{cmd: exec.Command(os.Args[0], "-test.run=^TestNodeToKill$", "-test.v"), lines: bufio.NewScanner(r)}
	p.cmd.Env = append(append(os.Environ(), env...), nodeEnv+"=pause", nodeDirEnv+"="+dir, nodeBucketEnv+"="+bucket)
	p.cmd.ExtraFiles = []*os.File{w}
	p.cmd.Stdout, p.cmd.Stderr = t.Output(), t.Output()
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		r.Close()
		clearAway(t, dir)
	})
	limit := time.AfterFunc(4*time.Minute, func() { _ = r.SetReadDeadline(time.Now()) })
	t.Cleanup(func() { limit.Stop() })
	return p
}

func (p *pausable) signal(t *testing.T, s unix.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// A node is paused, another one takes its branch over, and the first goes on: its
// compute ends at once and says why, and what it committed meanwhile is nowhere.
func TestPausedNode(t *testing.T) {
	if os.Getenv(volumesEnv) != "" {
		t.Skip("plain directories have no leases")
	}
	t.Run("dir", func(t *testing.T) {
		at := t.TempDir()
		b, err := dir.Open(at)
		if err != nil {
			t.Fatal(err)
		}
		pausedNode(t, b, "file://"+at, nil)
	})
	t.Run("s3", func(t *testing.T) {
		srv := s3test.Start(t)
		pausedNode(t, srv.Open(t, srv.Options("paused")), "s3://"+s3test.Bucket+"/paused", srv.Env())
	})
}

func pausedNode(t *testing.T, b blob.Store, bucket string, env []string) {
	first := pgtest.Dir(t)
	p := startPausable(t, first, bucket, env)
	acknowledged := 0
	for acknowledged < 20 || !has(t, b, recordKey(victimID)) || !has(t, b, "store/"+string(victimID)+"/MANIFEST") {
		if !p.lines.Scan() {
			t.Fatalf("the node ended after %d rows", acknowledged)
		}
		var err error
		if acknowledged, err = strconv.Atoi(p.lines.Text()); err != nil {
			t.Fatalf("the node says %q", p.lines.Text())
		}
	}
	p.signal(t, unix.SIGSTOP)

	second := openFleet(t, inBucket(t, pgtest.Dir(t), b))
	end := keep(t, second)
	st := takeOver(t, second)
	c := connectTo(t, st, tarn.Superuser)
	if got := rows(t, c); len(got) < 10 || int(got[len(got)-1]) != len(got) {
		t.Errorf("%d rows came over, %v", len(got), got)
	}
	run(t, c, `INSERT INTO t VALUES (1000000)`)
	made := create(t, second, tarn.TimelineSpec{Source: victimID})

	p.signal(t, unix.SIGCONT)
	last := ""
	for p.lines.Scan() && !strings.HasPrefix(last, "ended") {
		last = p.lines.Text()
	}
	if !strings.HasPrefix(last, "ended 0 ") || !strings.Contains(last, "another computer took its branch over") {
		t.Errorf("the paused node said last %q", last)
	}
	_ = p.cmd.Wait() // it ended by itself, and its fleet with it

	run(t, c, `INSERT INTO t VALUES (1000001)`)
	run(t, c, `CHECKPOINT`)
	want := rows(t, c)
	eventually(t, "the new branch is in the object store", func() bool {
		return has(t, b, recordKey(made.ID)) && has(t, b, "store/"+string(made.ID)+"/MANIFEST")
	})
	end()

	// The overtaken directory is opened again: it takes nothing away from the
	// other, and what comes back is the other's.
	for _, dir := range []string{first, pgtest.Dir(t)} {
		f := openFleet(t, inBucket(t, dir, b))
		stop := keep(t, f)
		c := connectTo(t, takeOver(t, f), tarn.Superuser)
		if got := rows(t, c); !slices.Equal(got, want) {
			t.Errorf("in %s: %d rows came back, want the %d of the second node", dir, len(got), len(want))
		}
		if dir != first {
			if _, err := f.Timeline(t.Context(), made.ID); err != nil {
				t.Errorf("the branch that the second node made: %v", err)
			}
		}
		stop()
	}
}

// takeOver wakes the timeline of a node that was alive a moment ago.
func takeOver(t *testing.T, f *Fleet) tarn.ComputeStatus {
	t.Helper()
	var st tarn.ComputeStatus
	eventually(t, "the timeline can be taken", func() bool {
		var err error
		st, err = f.Wake(t.Context(), spec("ep-1", victimID))
		if err != nil && tarn.KindOf(err) != tarn.KindConflict {
			t.Fatal(err)
		}
		return err == nil
	})
	return st
}

func has(t *testing.T, b blob.Store, key string) bool {
	t.Helper()
	for o, err := range b.List(t.Context(), key, "") {
		if err != nil {
			t.Fatal(err)
		}
		return o.Key == key
	}
	return false
}

// Pages leave a computer only behind the WAL that they stand on.
func TestPagesLeaveBehindTheirWAL(t *testing.T) {
	if os.Getenv(volumesEnv) != "" {
		t.Skip("plain directories are not copied to an object store")
	}
	var out atomic.Bool
	under := memory.New()
	o := inBucket(t, pgtest.Dir(t), faulty.New(under, func(c faulty.Call) faulty.Fault {
		if out.Load() && c.Op != faulty.Head && strings.HasPrefix(c.Key, "wal/") {
			return faulty.Fail
		}
		return faulty.None
	}))
	f := openFleet(t, o)
	keep(t, f)
	main := create(t, f, tarn.TimelineSpec{})
	c := connectTo(t, wake(t, f, spec("ep-1", main.ID)), tarn.Superuser)
	run(t, c, `CREATE TABLE t AS SELECT 1 AS id`)
	store := f.store.(pages)
	if err := store.Upload(timeout(t, time.Minute), main.ID); err != nil {
		t.Fatal(err)
	}
	out.Store(true)
	before := manifestOf(t, under, main.ID)
	run(t, c, `INSERT INTO t SELECT generate_series(2, 5000)`)
	run(t, c, `CHECKPOINT`)
	if err := store.Upload(timeout(t, time.Minute), main.ID); tarn.KindOf(err) != tarn.KindUnavailable {
		t.Errorf("upload without its WAL: %v", err)
	}
	if now := manifestOf(t, under, main.ID); now != before {
		t.Error("the manifest lists pages whose WAL is not in the object store")
	}
	out.Store(false)
	eventually(t, "the pages follow their WAL", func() bool { return manifestOf(t, under, main.ID) != before })
}

func manifestOf(t *testing.T, b blob.Store, id tarn.TimelineID) string {
	t.Helper()
	o, err := b.Head(t.Context(), "store/"+string(id)+"/MANIFEST")
	if err != nil {
		t.Fatal(err)
	}
	return o.ETag
}
