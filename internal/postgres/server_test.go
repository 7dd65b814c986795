package postgres_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// each runs a test against every installed version.
func each(t *testing.T, test func(t *testing.T, in postgres.Install)) {
	for _, in := range pgtest.Installs(t) {
		t.Run(strconv.Itoa(in.Major), func(t *testing.T) { test(t, in) })
	}
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func initDB(t *testing.T, c postgres.Config) {
	t.Helper()
	o := postgres.InitOptions{DataDir: c.DataDir, WALDir: filepath.Join(filepath.Dir(c.DataDir), "wal"), RunAs: c.RunAs, NoSync: true}
	if err := postgres.InitDB(deadline(t), c.Install, o); err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, c postgres.Config) *postgres.Server {
	t.Helper()
	s, err := postgres.Start(deadline(t), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

func query[T any](t *testing.T, c postgres.Config, sql string) T {
	t.Helper()
	ctx := deadline(t)
	conn, err := pgx.Connect(ctx, pgtest.ConnString(c, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	var v T
	if err := conn.QueryRow(ctx, sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func exec(t *testing.T, c postgres.Config, sql string) {
	t.Helper()
	ctx := deadline(t)
	conn, err := pgx.Connect(ctx, pgtest.ConnString(c, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func TestStartAnswersAndStops(t *testing.T) {
	each(t, func(t *testing.T, in postgres.Install) {
		c := pgtest.Config(t, in, pgtest.Options{})
		initDB(t, c)
		began := time.Now()
		s := start(t, c)
		t.Logf("exec to ready %v", time.Since(began))
		if got := query[int](t, c, "SELECT 1"); got != 1 {
			t.Errorf("SELECT 1 gave %d", got)
		}
		for setting, want := range map[string]string{
			"listen_addresses": "", "server_encoding": "UTF8", "lc_ctype": "C.UTF-8", "TimeZone": "UTC",
			"data_checksums": "off", "shared_buffers": "16MB",
		} {
			if setting == "lc_ctype" && in.Major > 15 {
				continue // belongs to the database since 16
			}
			if got := query[string](t, c, "SELECT current_setting('"+setting+"')"); got != want && got != "Etc/"+want {
				t.Errorf("%s is %q, want %q", setting, got, want)
			}
		}
		if err := s.Stop(deadline(t), postgres.Fast); err != nil {
			t.Errorf("stop: %v", err)
		}
		select {
		case <-s.Done():
		default:
			t.Error("stopped, but not done")
		}
		ctl, err := postgres.ReadControl(c.DataDir)
		if err != nil {
			t.Fatal(err)
		}
		if ctl.State != postgres.StateShutDown {
			t.Errorf("state is %d after a fast stop", ctl.State)
		}
	})
}

func TestKillLosesNothingAndLeavesNobody(t *testing.T) {
	each(t, func(t *testing.T, in postgres.Install) {
		c := pgtest.Config(t, in, pgtest.Options{})
		initDB(t, c)
		s := start(t, c)
		exec(t, c, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS i")
		// A session in the middle of something must not survive.
		busy, err := pgx.Connect(deadline(t), pgtest.ConnString(c, "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		defer busy.Close(context.Background())
		backend := busy.PgConn().PID()
		busyDone := make(chan error, 1)
		go func() {
			_, err := busy.Exec(context.Background(), "SELECT count(*) FROM generate_series(1, 1e12::bigint)")
			busyDone <- err
		}()
		s.Kill()
		if err := <-busyDone; err == nil {
			t.Error("the busy session ended without an error")
		}
		if running(int(backend)) {
			t.Errorf("backend %d survived", backend)
		}
		if _, err := os.Stat(filepath.Join(c.DataDir, "postmaster.pid")); err != nil {
			t.Errorf("a killed server should leave its lock file: %v", err)
		}
		start(t, c)
		if n := query[int](t, c, "SELECT count(*) FROM t"); n != 1000 {
			t.Errorf("%d rows after the crash", n)
		}
	})
}

// running tells whether a process runs; a zombie does not.
func running(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	i := strings.LastIndexByte(string(b), ')')
	return b[i+2] != 'Z' && b[i+2] != 'X'
}

func TestPostmasterDeathEndsBackendsBeforeDone(t *testing.T) {
	c := pgtest.Config(t, pgtest.Newest(t), pgtest.Options{})
	initDB(t, c)
	s := start(t, c)
	busy, err := pgx.Connect(deadline(t), pgtest.ConnString(c, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close(context.Background())
	busyDone := make(chan error, 1)
	go func() {
		// Asks for no interrupts that a dead postmaster would cause.
		_, err := busy.Exec(context.Background(), "SELECT count(*) FROM generate_series(1, 1e12::bigint)")
		busyDone <- err
	}()
	p, err := os.FindProcess(s.PID())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Done():
	case <-deadline(t).Done():
		t.Fatal("not done")
	}
	if s.Err() == nil {
		t.Error("an unasked end has no error")
	}
	if running(int(busy.PgConn().PID())) {
		t.Error("a backend outlived Done")
	}
	<-busyDone
	start(t, c)
}

func TestStartErrors(t *testing.T) {
	in := pgtest.Newest(t)
	c := pgtest.Config(t, in, pgtest.Options{})
	initDB(t, c)
	check := func(name string, kind tarn.Kind, text string, change func(c *postgres.Config)) {
		t.Run(name, func(t *testing.T) {
			c := c
			change(&c)
			s, err := postgres.Start(deadline(t), c)
			if err == nil {
				s.Kill()
				t.Fatal("started")
			}
			if tarn.KindOf(err) != kind || !strings.Contains(err.Error(), text) {
				t.Errorf("error of kind %v: %v\nwant kind %v with %q", tarn.KindOf(err), err, kind, text)
			}
		})
	}
	check("setting unknown to the server", tarn.KindInvalid, `"no_such_setting"`, func(c *postgres.Config) {
		c.Settings = map[string]string{"no_such_setting": "1"}
	})
	check("value the server refuses", tarn.KindInvalid, "shared_buffers", func(c *postgres.Config) {
		c.Settings = map[string]string{"shared_buffers": "plenty"}
	})
	check("name that is none", tarn.KindInvalid, `"a b"`, func(c *postgres.Config) {
		c.Settings = map[string]string{"a b": "1"}
	})
	check("reserved name", tarn.KindInvalid, "listen_addresses", func(c *postgres.Config) {
		c.Settings = map[string]string{"listen_addresses": "*"}
	})
	check("no program", tarn.KindInternal, "no such file", func(c *postgres.Config) {
		c.Install.BinDir = filepath.Join(filepath.Dir(c.DataDir), "nothing")
	})
	check("socket path too long", tarn.KindInvalid, "107", func(c *postgres.Config) {
		c.SocketDir = filepath.Join(filepath.Dir(c.DataDir), strings.Repeat("s", 100))
	})
	check("not a data directory", tarn.KindInternal, "postgresql.conf", func(c *postgres.Config) {
		c.DataDir = c.SocketDir
	})
	t.Run("already running", func(t *testing.T) {
		s := start(t, c)
		if _, err := postgres.Start(deadline(t), c); tarn.KindOf(err) != tarn.KindConflict {
			t.Errorf("second start: %v", err)
		}
		if err := s.Stop(deadline(t), postgres.Fast); err != nil {
			t.Error(err)
		}
	})
	if c.RunAs == nil {
		return // an ordinary user's own directories are open to himself
	}
	check("directory closed to the user", tarn.KindInvalid, "may not enter", func(c *postgres.Config) {
		closed := filepath.Join(filepath.Dir(c.DataDir), "closed")
		if err := os.Mkdir(closed, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(c.DataDir, filepath.Join(closed, "data")); err != nil {
			t.Fatal(err)
		}
		c.DataDir = filepath.Join(closed, "data")
	})
}

func TestStartGivesUpWithContext(t *testing.T) {
	c := pgtest.Config(t, pgtest.Newest(t), pgtest.Options{})
	initDB(t, c)
	// Archive recovery that waits for ever for its first segment.
	if err := os.WriteFile(filepath.Join(c.DataDir, "standby.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c.Settings["hot_standby"] = "off"
	c.Settings["primary_conninfo"] = "host=/nowhere"
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := postgres.Start(ctx, c)
	if err == nil || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("start of a server that recovers for ever: %v", err)
	}
	if _, err := postgres.Start(ctx, c); tarn.KindOf(err) == tarn.KindConflict {
		t.Errorf("something was left running: %v", err)
	}
}

func TestStaleLocksOfReusedPID(t *testing.T) {
	c := pgtest.Config(t, pgtest.Newest(t), pgtest.Options{})
	initDB(t, c)
	s := start(t, c)
	s.Kill()
	// Process 1 runs, but it is not the server that left these.
	for _, lock := range []string{filepath.Join(c.DataDir, "postmaster.pid"), filepath.Join(c.SocketDir, ".s.PGSQL.5432.lock")} {
		b, err := os.ReadFile(lock)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "\n")
		if err := os.WriteFile(lock, []byte("1\n"+rest), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start(t, c)
}
