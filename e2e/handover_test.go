package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// restarts is how often TestNodeRestarts restarts the node:
// TARN_RESTARTS=50 go test ./e2e -run TestNodeRestarts
func restarts(t *testing.T) int {
	t.Helper()
	return times(t, "TARN_RESTARTS", 6)
}

// TestNodeRestarts: the node, which serves every file of the databases, is
// restarted again and again under pgbench and transfers. No transaction fails,
// no session ends, no Postgres is restarted, whoever connects gets in, and files
// without a name stay usable.
func TestNodeRestarts(t *testing.T) {
	versions(t, func(t *testing.T, _, pgBin string) {
		in := start(t, "--pg-bin", pgBin)
		ctx := testContext(t, 20*time.Minute)
		in.tarn("project", "create", "bank")
		b := &bank{url: in.url("bank/production"), acked: map[string]bool{}}
		b.open(ctx, t)
		in.pgbench(ctx, t, b.url, "-i", "-q", "-s", "5")
		server := in.onSocket(ctx, t)
		var began time.Time
		scan(ctx, t, server, &began, "SELECT pg_postmaster_start_time()")

		// A session with a temporary table and a cursor whose rows stand in a
		// temporary file, and one that has files of a dropped table open.
		session := in.connect(ctx, b.url)
		for _, sql := range []string{
			"CREATE TEMP TABLE mine AS SELECT generate_series(1, 200000) AS n",
			"CREATE TABLE dropped AS SELECT generate_series(1, 200000) AS n",
			"SET work_mem = '64kB'",
			"DECLARE rest CURSOR WITH HOLD FOR SELECT generate_series(1, 500000) AS n",
		} {
			if _, err := session.Exec(ctx, sql); err != nil {
				t.Fatal(err)
			}
		}
		var read int
		scan(ctx, t, server, &read, "SELECT count(*) FROM dropped") // it has the files open from now on
		if _, err := session.Exec(ctx, "DROP TABLE dropped"); err != nil {
			t.Fatal(err)
		}

		work, stop := context.WithCancel(ctx)
		var workers sync.WaitGroup
		for k := range tellers {
			workers.Go(func() { b.faultless(work, t, k) })
		}
		workers.Go(func() {
			for work.Err() == nil {
				out := in.pgbench(ctx, t, b.url, "-c", "4", "-j", "2", "-T", "3", "-M", "prepared")
				if !strings.Contains(out, "number of failed transactions: 0 ") {
					t.Errorf("pgbench:\n%s", out)
				}
			}
		})
		workers.Go(func() {
			for work.Err() == nil {
				c, err := pgx.Connect(ctx, b.url)
				if err != nil {
					t.Errorf("connect: %v", err)
					return
				}
				if err := c.Close(ctx); err != nil {
					t.Errorf("disconnect: %v", err)
				}
			}
		})
		node := in.process(t, "node")
		for round := range restarts(t) {
			b.awaitProgress(ctx, t, 20)
			from := time.Now()
			in.tarn("restart", "node")
			took := time.Since(from)
			b.awaitProgress(ctx, t, 1)
			t.Logf("restart %d: new node after %s, working again after %s, %d acknowledged", round+1,
				took.Round(time.Millisecond), time.Since(from).Round(time.Millisecond), b.count.Load())
			if pid := in.process(t, "node"); pid != node {
				t.Fatalf("restart %d: the node died: it was process %d and is %d", round+1, node, pid)
			}
			var sum int64
			scan(ctx, t, session, &sum, "WITH u AS (UPDATE mine SET n = n + 1 RETURNING n) SELECT sum(n) FROM u")
			if want := int64(200000)*200001/2 + int64(round+1)*200000; sum != want {
				t.Errorf("restart %d: the temporary table sums to %d, want %d", round+1, sum, want)
			}
			var next int
			scan(ctx, t, session, &next, "FETCH FORWARD FROM rest")
			if next != round*1000+1 {
				t.Errorf("restart %d: the cursor gives %d, want %d", round+1, next, round*1000+1)
			}
			if _, err := session.Exec(ctx, "MOVE FORWARD 999 FROM rest"); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				break
			}
		}
		stop()
		workers.Wait()
		var now time.Time
		scan(ctx, t, server, &now, "SELECT pg_postmaster_start_time()")
		if !now.Equal(began) {
			t.Errorf("Postgres was restarted: it ran since %s and now since %s", began, now)
		}
		b.check(ctx, t)
		in.amcheck(ctx, t)
		// What the nodes left is a branch like any other.
		in.stop()
		in.up()
		b.url = in.url("bank/production")
		b.check(ctx, t)
	})
}

// A node that is killed takes the mounts with it: computes are started again,
// with everything that was acknowledged, also after restarts of the node.
func TestNodeKilledAfterRestart(t *testing.T) {
	in := start(t)
	ctx := testContext(t, 5*time.Minute)
	in.tarn("project", "create", "bank")
	b := &bank{url: in.url("bank/production"), acked: map[string]bool{}}
	b.open(ctx, t)
	work, stop := context.WithCancel(ctx)
	var workers sync.WaitGroup
	for k := range tellers {
		workers.Go(func() { b.teller(work, k) })
	}
	for range 3 {
		b.awaitProgress(ctx, t, 50)
		in.tarn("restart", "node")
		b.awaitProgress(ctx, t, 20)
		in.kill(t, "node")
		b.awaitProgress(ctx, t, 20)
	}
	stop()
	workers.Wait()
	b.check(ctx, t)
	in.amcheck(ctx, t)
	if out := in.tarn("status"); strings.Contains(out, "not connected") {
		t.Errorf("a dead mount is left:\n%s", out)
	}
}

// The node outlives its supervisor, and with it the databases; the next tarn up
// takes it over, restarted or not.
func TestNodeOutlivesSupervisor(t *testing.T) {
	in := start(t)
	ctx := testContext(t, 3*time.Minute)
	in.tarn("project", "create", "shop")
	in.connect(ctx, in.url("shop/production"))
	c := in.onSocket(ctx, t)
	node := in.process(t, "node")
	for range 2 {
		in.sigkill(in.record().Up.PID)
		in.up()
		in.tarn("restart", "node")
		var one int
		scan(ctx, t, c, &one, "SELECT 1")
		if pid := in.process(t, "node"); pid != node {
			t.Errorf("the node was process %d and is %d", node, pid)
		}
		in.awaitLogin(ctx, t, in.url("shop/production"))
	}
	// It is supervised: killed, it is started again.
	in.kill(t, "node")
	in.awaitLogin(ctx, t, in.url("shop/production"))
	if pid := in.process(t, "node"); pid == node {
		t.Error("the killed node is still the recorded one")
	}
}

// A restart is refused where it would do harm or nothing.
func TestRestartRefused(t *testing.T) {
	in := start(t)
	ctx := testContext(t, 2*time.Minute)
	in.tarn("project", "create", "shop")
	c := in.connect(ctx, in.url("shop/production"))
	in.tarn("restart", "node")
	var one int
	scan(ctx, t, c, &one, "SELECT 1")
	in.tarn("restart", "control")
	in.awaitLogin(ctx, t, in.url("shop/production"))
	in.stop()
	if said := in.refused(1, "restart", "node"); !strings.Contains(said, "no Tarn runs on") {
		t.Errorf("restart of nothing: %s", said)
	}
}

// faultless makes transfers over one connection until ctx ends; none may fail.
func (b *bank) faultless(ctx context.Context, t *testing.T, k int) {
	whole := context.WithoutCancel(ctx)
	c, err := pgx.Connect(whole, b.url)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close(whole)
	r := rand.New(rand.NewPCG(uint64(k), 3))
	for n := 0; ctx.Err() == nil; n++ {
		tag := fmt.Sprintf("f%d-%d", k, n)
		if err := transfer(whole, c, r, tag); err != nil {
			t.Errorf("transfer %s: %v", tag, err)
			return
		}
		b.mu.Lock()
		b.acked[tag] = true
		b.mu.Unlock()
		b.count.Add(1)
	}
}

func scan(ctx context.Context, t *testing.T, c *pgx.Conn, into any, sql string) {
	t.Helper()
	if err := c.QueryRow(ctx, sql).Scan(into); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// pgbench runs Debian's pgbench through the gateway.
func (in *instance) pgbench(ctx context.Context, t *testing.T, url string, args ...string) string {
	t.Helper()
	tools, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench")
	if len(tools) == 0 {
		t.Skip("pgbench is not installed: make setup-test")
	}
	out, err := exec.CommandContext(ctx, tools[len(tools)-1], append(args, url)...).CombinedOutput()
	if err != nil {
		t.Errorf("pgbench %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// process is the process id of a role.
func (in *instance) process(t *testing.T, role string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(in.data, "processes.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rec map[string]json.RawMessage
	var p struct{ PID int }
	if err := json.Unmarshal(b, &rec); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(rec[role], &p); err != nil {
		t.Fatal(err)
	}
	return p.PID
}
