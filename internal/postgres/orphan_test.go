package postgres_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	osexec "os/exec"
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

// earlierProcess names, in the environment of this test binary, the server to
// start and abandon, as a process of ours that crashes would.
const earlierProcess = "TARN_TEST_EARLIER_PROCESS"

func TestMain(m *testing.M) {
	text, ok := os.LookupEnv(earlierProcess)
	if !ok {
		os.Exit(m.Run())
	}
	var c postgres.Config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := postgres.Start(ctx, c)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(s.PID())
	os.Exit(0) // nothing is stopped, released or closed
}

// abandon starts c's server in a process that then dies, and returns the
// postmaster's pid.
func abandon(t *testing.T, c postgres.Config) int {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := postgres.KillOrphans(c.DataDir, c.PIDFile); err != nil {
			t.Error(err)
		}
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := osexec.CommandContext(deadline(t), self)
	cmd.Env = append(os.Environ(), earlierProcess+"="+string(text))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func detached(t *testing.T, in postgres.Install) postgres.Config {
	c := pgtest.Config(t, in, pgtest.Options{})
	c.Bond = postgres.Detached
	c.PIDFile = filepath.Join(filepath.Dir(c.DataDir), "postgres.json")
	initDB(t, c)
	return c
}

func TestAdopt(t *testing.T) {
	each(t, func(t *testing.T, in postgres.Install) {
		c := detached(t, in)
		pid := abandon(t, c)
		client, err := pgx.Connect(deadline(t), pgtest.ConnString(c, "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close(context.Background())
		for range 2 { // a released server can be adopted again
			s, err := postgres.Adopt(deadline(t), c, 0)
			if err != nil {
				t.Fatal(err)
			}
			if s.PID() != pid {
				t.Errorf("adopted %d, started %d", s.PID(), pid)
			}
			s.Release()
		}
		if _, err := client.Exec(deadline(t), "SELECT 1"); err != nil {
			t.Errorf("a session did not survive adoption: %v", err)
		}
		s, err := postgres.Adopt(deadline(t), c, pid)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Stop(deadline(t), postgres.Fast); err != nil {
			t.Error(err)
		}
		if running(pid) {
			t.Error("stopped, but it runs")
		}
		if _, err := postgres.ReadRecord(c.PIDFile); tarn.KindOf(err) != tarn.KindNotFound {
			t.Errorf("record after the end: %v", err)
		}
		if _, err := postgres.Adopt(deadline(t), c, pid); tarn.KindOf(err) != tarn.KindNotFound {
			t.Errorf("adopt what ended: %v", err)
		}
	})
}

func TestAdoptNeverTakesAnotherProcess(t *testing.T) {
	c := detached(t, pgtest.Newest(t))
	if _, err := postgres.Adopt(deadline(t), c, os.Getpid()); tarn.KindOf(err) != tarn.KindNotFound {
		t.Errorf("adopt this test: %v", err)
	}
	other := detached(t, pgtest.Newest(t))
	s := start(t, other)
	if _, err := postgres.Adopt(deadline(t), c, s.PID()); tarn.KindOf(err) != tarn.KindNotFound {
		t.Errorf("adopt the server of another data directory: %v", err)
	}
}

func TestKillOrphans(t *testing.T) {
	each(t, func(t *testing.T, in postgres.Install) {
		c := detached(t, in)
		for name, pidFile := range map[string]string{"by record": c.PIDFile, "by data directory": ""} {
			pid := abandon(t, c)
			client, err := pgx.Connect(deadline(t), pgtest.ConnString(c, "postgres"))
			if err != nil {
				t.Fatal(err)
			}
			if err := postgres.KillOrphans(c.DataDir, pidFile); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if running(pid) || running(int(client.PgConn().PID())) {
				t.Errorf("%s: something runs on", name)
			}
			client.Close(context.Background())
		}
		if err := postgres.KillOrphans(c.DataDir, c.PIDFile); err != nil {
			t.Errorf("with nothing to kill: %v", err)
		}
	})
}

func TestKillOrphansSparesReusedPID(t *testing.T) {
	dir := pgtest.Dir(t)
	bystander := osexec.Command("sleep", "60")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- bystander.Wait() }()
	t.Cleanup(func() {
		bystander.Process.Kill()
		<-ended
	})
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	// The number was recorded for a process that began earlier.
	record, err := json.Marshal(postgres.Record{PID: bystander.Process.Pid, Start: 1, Boot: strings.TrimSpace(string(boot)), DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	pidFile := filepath.Join(dir, "postgres.json")
	if err := os.WriteFile(pidFile, record, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := postgres.KillOrphans(dir, pidFile); err != nil {
		t.Fatal(err)
	}
	if !running(bystander.Process.Pid) {
		t.Error("a bystander with the recorded number was killed")
	}
	if _, err := os.Stat(pidFile); err == nil {
		t.Error("the stale record stays")
	}
}

func TestBoundServerDiesWithItsProcess(t *testing.T) {
	c := detached(t, pgtest.Newest(t))
	c.Bond = postgres.Bound
	pid := abandon(t, c)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for running(pid) {
		select {
		case <-tick.C:
		case <-deadline(t).Done():
			t.Fatal("it runs on")
		}
	}
}
