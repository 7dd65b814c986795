package compute

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

func options(t *testing.T, dir string) Options {
	t.Helper()
	runAs, err := postgres.DefaultRunAs()
	if err != nil {
		t.Fatal(err)
	}
	return Options{Dir: dir, Installs: pgtest.Installs(t), RunAs: runAs, Log: testLog(t), MemoryBytes: 1 << 30, Volumes: VolumeKind(os.Getenv(volumesEnv)), BaseEvery: time.Second}
}

// testLog shows the fleet's log with -v and when the test fails.
func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func openFleet(t *testing.T, o Options) *Fleet {
	t.Helper()
	f, err := Open(t.Context(), o)
	if err != nil {
		t.Fatalf("%v (%s)", err, tarn.HintOf(err))
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		checkNothingLeft(t, o.Dir)
		if f.groups.tree != nil {
			for _, dir := range f.groups.tree.Dirs() {
				if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("left control groups in %s: %v", dir, err)
				}
			}
		}
	})
	return f
}

// checkNothingLeft fails when a closed fleet left a mount, a process or a
// socket.
func checkNothingLeft(t *testing.T, dir string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir+"/") {
			t.Errorf("left mounted: %s", line)
		}
	}
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if cwd, err := os.Readlink(link); err == nil && strings.HasPrefix(cwd, dir+"/") {
			t.Errorf("left running: %s in %s", link, cwd)
		}
	}
	for _, sub := range []string{"mnt", "run"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			t.Errorf("left in %s: %s", sub, e.Name())
		}
	}
}

func newID(t *testing.T) tarn.TimelineID {
	t.Helper()
	id, err := newTimelineID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func create(t *testing.T, f *Fleet, s tarn.TimelineSpec) tarn.TimelineStatus {
	t.Helper()
	if s.ID == "" {
		s.ID = newID(t)
	}
	st, err := f.CreateTimeline(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func spec(endpoint string, id tarn.TimelineID) tarn.ComputeSpec {
	return tarn.ComputeSpec{Endpoint: endpoint, Branch: tarn.BranchName{Project: "shop", Branch: "production"}, Timeline: id, MinCU: 0.5, MaxCU: 0.5}
}

func wake(t *testing.T, f *Fleet, s tarn.ComputeSpec) tarn.ComputeStatus {
	t.Helper()
	st, err := f.Wake(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if st.State != tarn.ComputeActive || st.PID == 0 || st.SocketDir == "" {
		t.Fatalf("woken compute is %+v", st)
	}
	return st
}

func suspend(t *testing.T, f *Fleet, endpoint string) {
	t.Helper()
	if err := f.Suspend(t.Context(), endpoint); err != nil {
		t.Fatal(err)
	}
}

func dsn(st tarn.ComputeStatus, user string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=databricks_postgres sslmode=disable", st.SocketDir, st.Port, user)
}

func connectTo(t *testing.T, st tarn.ComputeStatus, user string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), dsn(st, user))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func run(t *testing.T, c *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := c.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func query[T any](t *testing.T, c *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := c.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// rows is the ids in table t, in order.
func rows(t *testing.T, c *pgx.Conn) []int32 {
	t.Helper()
	return query[[]int32](t, c, `SELECT COALESCE(array_agg(id ORDER BY id), '{}') FROM t`)
}

func timeout(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
