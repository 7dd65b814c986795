package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/blob/s3/s3test"
)

// The computer is lost: every process is killed at once and the data directory
// is gone. What is in the object store brings every branch back, on a directory
// and on a real S3 server.
func TestLostDataDirectory(t *testing.T) {
	t.Run("directory", func(t *testing.T) {
		place, err := os.MkdirTemp("", "tarn-e2e-bucket-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(place); err != nil {
				t.Error(err)
			}
		})
		lostDataDirectory(t, "--storage", place)
	})
	t.Run("s3", func(t *testing.T) {
		lostDataDirectory(t, onS3(t, s3test.Start(t))...)
	})
}

// onS3 gives the keys to what the test starts, and the flags that name a bucket.
func onS3(t *testing.T, s *s3test.Server) []string {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", s.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s.SecretKey.Reveal())
	return []string{"--storage", "s3://" + s3test.Bucket + "/home", "--storage-endpoint", s.Endpoint, "--storage-region", s.Region}
}

func lostDataDirectory(t *testing.T, flags ...string) {
	in := start(t, flags...)
	ctx := testContext(t, 8*time.Minute)
	in.tarn("project", "create", "shop")
	main := &ledger{url: in.url("shop/production")}
	main.begin(ctx, t)
	in.tarn("feed", "create", "shop/production", "--schema", "public", "--to", "lake.shop")
	in.tarn("sql", "CREATE TABLE lake.gold.kept AS SELECT range AS n FROM range(1000)")
	in.tarn("branch", "create", "shop/dev")
	dev := &ledger{url: in.url("shop/dev"), acked: main.acked}
	work, stop := context.WithCancel(ctx)
	var writers sync.WaitGroup
	writers.Go(func() { main.write(work, t) })
	writers.Go(func() { dev.write(work, t) })
	main.awaitProgress(ctx, t, 200)
	in.tarn("snapshot", "create", "shop/early", "--from", "production")
	in.tarn("branch", "create", "shop/fork")
	dev.awaitProgress(ctx, t, 200)
	stop()
	writers.Wait()
	in.awaitArchived(ctx, t)
	atEnd, devAtEnd := main.acked, dev.acked
	in.awaitVerified(ctx, t, atEnd, "public", "ledger", "--project", "shop")
	in.awaitArchived(ctx, t)
	kept := in.tarn("table", "history", "lake.gold.kept", "--json")

	in.killEverything()
	past := in.data + "-past"
	t.Cleanup(func() { os.RemoveAll(past) })
	if err := errors.Join(os.Rename(in.data, past), os.RemoveAll(in.config)); err != nil {
		t.Fatal(err)
	}
	said := in.refused(1, append(in.upArgs("--detach"), flags...)...)
	if !strings.Contains(said, "is held by "+in.data) || !strings.Contains(said, "--take-over") {
		t.Errorf("a start without --take-over says\n%s", said)
	}
	in.tarn(append(append(in.upArgs("--detach"), flags...), "--take-over")...)

	for name, want := range map[string]int64{"shop/production": atEnd, "shop/dev": devAtEnd} {
		l := &ledger{url: in.url(name), acked: want}
		l.check(ctx, t, name)
	}
	if n := (&ledger{url: in.url("shop/fork")}).count(ctx, t); n < 200 {
		t.Errorf("the fork came back with %d rows", n)
	}
	in.tarn("branch", "create", "shop/again", "--snapshot", "early")
	if n := (&ledger{url: in.url("shop/again")}).count(ctx, t); n < 200 {
		t.Errorf("the snapshot came back with %d rows", n)
	}
	var shown struct {
		Copy *wire.BranchCopy `json:"copy"`
	}
	in.tarnJSON(&shown, "branch", "show", "shop/dev")
	if shown.Copy == nil || shown.Copy.BackLSN == "" || shown.Copy.BackTime == "" || shown.Copy.Problem != "" {
		t.Errorf("branch show tells of how far it came back: %+v", shown.Copy)
	}
	// The tables are in the storage too, and the history adds up to the table. It
	// goes on where it ended, or begins anew when the slot did not come back.
	if now := in.tarn("table", "history", "lake.gold.kept", "--json"); now != kept {
		t.Errorf("the managed table came back as\n%swas\n%s", now, kept)
	}
	if got := in.tarn("sql", "--format", "csv", "SELECT sum(n) AS s FROM lake.gold.kept"); got != "s\n499500\n" {
		t.Errorf("the managed table adds up to %s", got)
	}
	(&ledger{url: in.url("shop/production"), acked: atEnd}).one(ctx, t)
	in.awaitVerified(ctx, t, atEnd+1, "public", "ledger", "--project", "shop")
	if list := in.tarn("branch", "list", "shop"); !strings.Contains(list, "up to LSN "+shown.Copy.BackLSN) {
		t.Errorf("branch list does not tell how far dev came back:\n%s", list)
	}
	// It goes on from there.
	more := &ledger{url: in.url("shop/dev"), acked: devAtEnd}
	more.one(ctx, t)
	in.awaitArchived(ctx, t)

	// The directory that was overtaken stays out, whether or not the storage is
	// free, and nothing is changed by the try.
	in.tarn("down", "--data", in.data)
	args := append(in.upArgs("--detach", "--data", past, "--take-over"), flags...)
	if said := in.refused(1, args...); !strings.Contains(said, "was overtaken") || !strings.Contains(said, "empty data directory") {
		t.Errorf("a start of the overtaken directory says\n%s", said)
	}
	in.tarn(append(in.upArgs("--detach"), flags...)...)
	if n := (&ledger{url: in.url("shop/again")}).count(ctx, t); n < 200 {
		t.Errorf("the branch that the overtaken directory does not know has %d rows", n)
	}
}

// awaitVerified waits until a table of n rows is what its history adds up to.
func (in *instance) awaitVerified(ctx context.Context, t *testing.T, n int64, args ...string) {
	t.Helper()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		var got []struct {
			Equal bool  `json:"equal"`
			Rows  int64 `json:"postgres_rows"`
		}
		said, err := in.command(append([]string{"feed", "verify", "--json"}, args...)...).Output()
		if err == nil && json.Unmarshal(said, &got) == nil && len(got) == 1 && got[0].Equal && got[0].Rows == n {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the history does not become that of %d rows: %v\n%s", n, err, said)
		}
	}
}

// An object store that does not answer stops nothing; what it missed arrives
// when it answers again.
func TestStorageOutage(t *testing.T) {
	server := s3test.Start(t)
	// Of a lease that no slow machine outlasts: commits wait after half of it.
	in := start(t, append(onS3(t, server), "--storage-lease", "5m")...)
	ctx := testContext(t, 5*time.Minute)
	in.tarn("project", "create", "shop")
	l := &ledger{url: in.url("shop/production")}
	l.begin(ctx, t)
	in.awaitArchived(ctx, t)
	resume := server.Pause(t)
	for range 50 {
		l.one(ctx, t)
	}
	in.awaitStatus(ctx, t, "the archive is behind", func(s wire.Status) bool {
		return len(s.Storage.Branches) == 1 && s.Storage.Branches[0].LagBytes > 0
	})
	resume()
	in.awaitArchived(ctx, t)
	l.check(ctx, t, "shop/production")
}

// awaitArchived waits until the object store has all WAL of every branch.
func (in *instance) awaitArchived(ctx context.Context, t *testing.T) {
	t.Helper()
	began := time.Now()
	in.awaitStatus(ctx, t, "everything is archived", func(s wire.Status) bool {
		if s.Storage.ControlSecs == 0 || s.Storage.ControlSecs+1 > time.Since(began).Seconds() {
			return false // what the control database knows now is not there yet
		}
		for _, b := range s.Storage.Branches {
			// The age is that of the last answer: one that was asked after the
			// last commit counts.
			if b.LagBytes > 0 || b.LagSecs > 1.5 || b.Waiting || b.Problem != "" {
				return false
			}
		}
		return len(s.Storage.Branches) > 0
	})
}

// awaitStatus waits until the status says something, twice: the first answer may be of
// before.
func (in *instance) awaitStatus(ctx context.Context, t *testing.T, what string, holds func(wire.Status) bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for seen := 0; seen < 2; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("it does not become true that %s:\n%s", what, in.tarn("status"))
		}
		var s wire.Status
		in.tarnJSON(&s, "status")
		if s.Storage == nil {
			t.Fatal("status shows no storage")
		}
		if holds(s) {
			seen++
		} else {
			seen = 0
		}
	}
}

// killEverything kills every process of the instance at once, and takes away
// the mounts that they leave.
func (in *instance) killEverything() {
	in.t.Helper()
	for len(in.processes()) > 0 {
		for pid := range in.processes() {
			// It may end in between.
			_ = syscall.Kill(pid, syscall.SIGKILL)
			thaw(pid)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		in.t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], in.data+"/") {
			if err := syscall.Unmount(f[1], syscall.MNT_DETACH); err != nil {
				in.t.Fatal(err)
			}
		}
	}
}

// thaw lets a killed process end that was frozen: in a control group of version 1
// SIGKILL waits for that.
func thaw(pid int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)) // it may have ended
	for line := range strings.Lines(string(b)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && f[1] == "freezer" && f[2] != "/" {
			_ = os.WriteFile(filepath.Join("/sys/fs/cgroup/freezer", f[2], "freezer.state"), []byte("THAWED"), 0) // tried again
		}
	}
}

// ledger is a table of consecutive numbers: all up to the last acknowledged one
// must be there.
type ledger struct {
	url   string
	acked int64
	seen  atomic.Int64 // as acked, for those who wait
}

const (
	makeLedger  = `CREATE TABLE ledger (n bigint PRIMARY KEY, what text NOT NULL)`
	writeLedger = `INSERT INTO ledger VALUES ($1::bigint, repeat(md5($1::bigint::text), 20))`
	readLedger  = `SELECT count(*), coalesce(max(n), 0), count(*) FILTER (WHERE what <> repeat(md5(n::text), 20)) FROM ledger`
)

func (l *ledger) connect(ctx context.Context, t *testing.T) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(ctx, l.url)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (l *ledger) begin(ctx context.Context, t *testing.T) {
	t.Helper()
	c := l.connect(ctx, t)
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, makeLedger); err != nil {
		t.Fatal(err)
	}
}

func (l *ledger) one(ctx context.Context, t *testing.T) {
	t.Helper()
	c := l.connect(ctx, t)
	defer c.Close(ctx)
	if err := l.insert(ctx, c); err != nil {
		t.Fatal(err)
	}
}

func (l *ledger) insert(ctx context.Context, c *pgx.Conn) error {
	if _, err := c.Exec(ctx, writeLedger, l.acked+1); err != nil {
		return err
	}
	l.acked++
	l.seen.Store(l.acked)
	return nil
}

// write writes until ctx ends.
func (l *ledger) write(ctx context.Context, t *testing.T) {
	c, err := pgx.Connect(ctx, l.url)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close(context.WithoutCancel(ctx))
	for ctx.Err() == nil {
		// The last one is not cut: nobody would know whether it counts.
		if err := l.insert(context.WithoutCancel(ctx), c); err != nil {
			t.Error(err)
			return
		}
	}
}

func (l *ledger) awaitProgress(ctx context.Context, t *testing.T, n int64) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for l.seen.Load() < n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("only %d of %d rows were written", l.seen.Load(), n)
		}
	}
}

func (l *ledger) count(ctx context.Context, t *testing.T) (n int64) {
	t.Helper()
	c := l.connect(ctx, t)
	defer c.Close(ctx)
	var last, wrong int64
	if err := c.QueryRow(ctx, readLedger).Scan(&n, &last, &wrong); err != nil {
		t.Fatal(err)
	}
	if n != last || wrong != 0 {
		t.Errorf("%d rows up to %d, %d of them wrong", n, last, wrong)
	}
	return n
}

func (l *ledger) check(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	if n := l.count(ctx, t); n != l.acked {
		t.Errorf("%s has %d rows, %d were acknowledged", name, n, l.acked)
	} else {
		t.Logf("%s has all %d rows", name, n)
	}
}
