package compute

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// await looks at an endpoint's compute until it is as wanted.
func await(t *testing.T, f *Fleet, endpoint string, want func(tarn.ComputeStatus) bool) tarn.ComputeStatus {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var st tarn.ComputeStatus
	for deadline := timeout(t, 30*time.Second); ; {
		all, err := f.Computes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			if c.Endpoint == endpoint {
				st = c
			}
		}
		if want(st) {
			return st
		}
		select {
		case <-tick.C:
		case <-deadline.Done():
			t.Fatalf("compute stays %+v", st)
		}
	}
}

func TestConcurrentWakesShareOneStart(t *testing.T) {
	f := openFleet(t, options(t, pgtest.Dir(t)))
	tl := create(t, f, tarn.TimelineSpec{})
	s := spec("ep-1", tl.ID)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var mu sync.Mutex
	pids := make(map[int]int)
	for i := range 20 {
		group.Go(func() {
			mine := t.Context()
			if i == 0 {
				mine = ctx // this one gives up
			}
			st, err := f.Wake(mine, s)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case i == 0:
			case err != nil:
				t.Error(err)
			default:
				pids[st.PID]++
			}
		})
	}
	cancel()
	group.Wait()
	if len(pids) != 1 {
		t.Errorf("wakes met postmasters %v, want one", pids)
	}
	// The endpoint moves to another timeline: the old compute makes way.
	other := create(t, f, tarn.TimelineSpec{Source: tl.ID})
	if st := wake(t, f, spec("ep-1", other.ID)); st.Timeline != other.ID || pids[st.PID] != 0 {
		t.Errorf("after the move: %+v", st)
	}
	// Two endpoints cannot write one timeline.
	if _, err := f.Wake(t.Context(), spec("ep-2", other.ID)); tarn.KindOf(err) != tarn.KindConflict {
		t.Errorf("a second endpoint on the timeline: %v", err)
	}
	bad := spec("ep-3", tl.ID)
	bad.Settings = map[string]string{"shared_buffers": "lots"}
	if _, err := f.Wake(t.Context(), bad); tarn.KindOf(err) != tarn.KindInvalid {
		t.Errorf("a bad setting: %v", err)
	}
	await(t, f, "ep-3", func(st tarn.ComputeStatus) bool { return st.State == tarn.ComputeFailed && st.Message != "" })
	wake(t, f, spec("ep-3", tl.ID))
}

func TestIdleSuspend(t *testing.T) {
	f := openFleet(t, options(t, pgtest.Dir(t)))
	tl := create(t, f, tarn.TimelineSpec{})
	s := spec("ep-1", tl.ID)
	s.SuspendAfter = 600 * time.Millisecond
	st := wake(t, f, s)
	own := connectTo(t, st, tarn.Superuser)
	run(t, own, `CREATE ROLE app LOGIN`)
	c := connectTo(t, st, "app")
	began := time.Now()
	run(t, c, `SELECT pg_sleep(1.5)`) // longer than the suspend time
	if time.Since(began) < 1500*time.Millisecond {
		t.Fatal("the statement was cut")
	}
	ended := time.Now()
	// Now it only holds a connection, and so do we, busily.
	run(t, own, `SELECT 1`)
	st = await(t, f, "ep-1", func(st tarn.ComputeStatus) bool { return st.State == tarn.ComputeStopped })
	if d := time.Since(ended); d < s.SuspendAfter {
		t.Errorf("suspended %s after the last statement", d)
	}
	if st.Message != "idle" || st.LastActive.Before(ended.Add(-100*time.Millisecond)) || st.LastActive.After(ended.Add(100*time.Millisecond)) {
		t.Errorf("suspended with %+v; the last statement ended %s", st, ended)
	}
	if err := c.Ping(t.Context()); err == nil {
		t.Error("a session outlived the suspend")
	}
	checkNothingLeft(t, f.o.Dir)
}

// A compute that crashes comes back by itself with everything acknowledged,
// whether its postmaster is killed or its mount is taken away.
func TestCrashRestart(t *testing.T) {
	f := openFleet(t, options(t, pgtest.Dir(t)))
	tl := create(t, f, tarn.TimelineSpec{})
	st := wake(t, f, spec("ep-1", tl.ID))
	c := connectTo(t, st, tarn.Superuser)
	run(t, c, `CREATE TABLE t (id int)`)
	for n, crash := range []func() error{
		func() error { return unix.Kill(st.PID, unix.SIGKILL) },
		func() error { return cutOff(st.Mount) },
	} {
		run(t, c, `INSERT INTO t VALUES ($1)`, n+1)
		old := st.PID
		switch err := crash(); {
		case errors.Is(err, errors.ErrUnsupported):
			t.Log("no mount is taken away: that needs a mount, and root, or fusectl at /sys/fs/fuse/connections")
			continue
		case err != nil:
			t.Fatal(err)
		}
		st = await(t, f, "ep-1", func(st tarn.ComputeStatus) bool {
			return st.State == tarn.ComputeActive && st.PID != old
		})
		c = connectTo(t, st, tarn.Superuser)
		if got := rows(t, c); len(got) != n+1 {
			t.Errorf("after crash %d: rows %v", n, got)
		}
	}
	// A timeline whose Postgres crashed and did not come back can be forked.
	c.Close(t.Context())
	suspend(t, f, "ep-1")
	child := create(t, f, tarn.TimelineSpec{Source: tl.ID})
	c = connectTo(t, wake(t, f, spec("ep-2", child.ID)), tarn.Superuser)
	if got := rows(t, c); len(got) != 2 {
		t.Errorf("the fork has rows %v", got)
	}
}

// cutOff makes a mount fail while it is used: root takes it away, its owner
// aborts its connection where the kernel lets him. A plain directory cannot be
// taken away.
func cutOff(dir string) error {
	if _, err := os.Readlink(dir); err == nil {
		return errors.ErrUnsupported
	}
	if os.Geteuid() == 0 {
		return unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	err := os.WriteFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", unix.Minor(st.Dev)), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.ErrUnsupported
	}
	return err
}

// WAL that no fork inside the retention needs goes, and nothing else.
func TestPrune(t *testing.T) {
	o := options(t, pgtest.Dir(t))
	o.CheckEvery, o.MarkEvery = 20*time.Millisecond, time.Millisecond
	f := openFleet(t, o)
	tl := create(t, f, tarn.TimelineSpec{})
	c := connectTo(t, wake(t, f, spec("ep-1", tl.ID)), tarn.Superuser)
	run(t, c, `CREATE TABLE t (id int)`)
	for n := range 4 {
		run(t, c, `INSERT INTO t VALUES ($1)`, n+1)
		run(t, c, `SELECT pg_switch_wal()`)
		run(t, c, `CHECKPOINT`)
	}
	at := time.Now()
	c.Close(t.Context())
	suspend(t, f, "ep-1")
	archive := filepath.Join(f.path("wal", string(tl.ID)), "archive")
	entries, err := os.ReadDir(archive)
	if err != nil || len(entries) < 3 {
		t.Fatalf("%d archived, %v", len(entries), err)
	}
	for _, e := range entries {
		if err := os.Chtimes(filepath.Join(archive, e.Name()), at, at.Add(-48*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	// Every mark is young: all WAL is needed.
	if n, err := f.maker.pruneTimeline(t.Context(), tl.ID); err != nil || n != 0 {
		t.Fatalf("pruned %d, %v", n, err)
	}
	// As seen a moment later, only the last mark counts.
	if err := f.SetHistory(t.Context(), tl.ID, tarn.NoHistory); err != nil {
		t.Fatal(err)
	}
	n, err := f.maker.pruneTimeline(t.Context(), tl.ID)
	if err != nil || n == 0 {
		t.Fatalf("pruned %d, %v", n, err)
	}
	_, err = f.CreateTimeline(t.Context(), tarn.TimelineSpec{ID: newID(t), Source: tl.ID, Time: time.Now()})
	if tarn.KindOf(err) != tarn.KindInvalid || !strings.Contains(err.Error(), "keeps no history") {
		t.Errorf("fork in the past without history: %v", err)
	}
	if err := f.SetHistory(t.Context(), tl.ID, time.Hour); err != nil {
		t.Fatal(err)
	}
	_, err = f.CreateTimeline(t.Context(), tarn.TimelineSpec{ID: newID(t), Source: tl.ID, Time: at})
	if tarn.KindOf(err) != tarn.KindInvalid || !strings.Contains(err.Error(), "window [") {
		t.Errorf("fork in a past that was given up: %v", err)
	}
	child := create(t, f, tarn.TimelineSpec{Source: tl.ID, Time: time.Now()})
	c = connectTo(t, wake(t, f, spec("ep-2", child.ID)), tarn.Superuser)
	if got := rows(t, c); len(got) != 4 {
		t.Errorf("rows %v", got)
	}
}
