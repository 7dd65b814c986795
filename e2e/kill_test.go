package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// rounds is how often TestKill kills; read from the environment so that the
// long run is one variable away: TARN_KILL_ROUNDS=200 go test ./e2e -run TestKill
func rounds(t *testing.T) int {
	t.Helper()
	return times(t, "TARN_KILL_ROUNDS", 20)
}

// times reads how often a test does its worst from the environment.
func times(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	v := os.Getenv(variable)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a positive number", variable, v)
	}
	return n
}

const (
	accounts       = 50
	initialBalance = 1000
	tellers        = 4
)

// TestKill: SIGKILL of postgres, node and control, each at random moments
// under a transfer workload. No acknowledged transaction may be missing, money
// is neither made nor lost, pg_amcheck is clean, and the feed's history equals
// the tables' history.
func TestKill(t *testing.T) {
	grounds(t, func(t *testing.T, _ string, flags ...string) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 1))
		in := start(t, flags...)
		ctx := testContext(t, 20*time.Minute)
		in.tarn("project", "create", "bank")
		b := &bank{url: in.url("bank/production"), acked: map[string]bool{}}
		b.open(ctx, t)
		in.tarn("feed", "create", "bank/production", "--schema", "public", "--to", "lake.bank")
		in.awaitStreaming(ctx, t, tarn.BranchName{Project: "bank", Branch: tarn.DefaultBranch}, "public", 2)

		work, stop := context.WithCancel(ctx)
		var tellersDone sync.WaitGroup
		for k := range tellers {
			tellersDone.Go(func() { b.teller(work, k) })
		}
		victims := []string{"postgres", "node", "control"}
		for round := range rounds(t) {
			b.awaitProgress(ctx, t, int64(20+r.IntN(200)))
			victim := victims[round%len(victims)]
			in.kill(t, victim)
			began := time.Now()
			b.awaitProgress(ctx, t, 1)
			t.Logf("round %d: %s killed, working again after %s, %d acknowledged", round+1, victim, time.Since(began).Round(time.Millisecond), b.count.Load())
		}
		stop()
		tellersDone.Wait()
		b.check(ctx, t)
		in.amcheck(ctx, t)
		in.checkBankHistory(ctx, t, b)
	})
}

// bank is the workload and what it knows was acknowledged.
type bank struct {
	url   string
	count atomic.Int64 // acknowledged transfers

	// mu guards acked.
	mu    sync.Mutex
	acked map[string]bool // tags of acknowledged transfers
}

func (b *bank) open(ctx context.Context, t *testing.T) {
	t.Helper()
	c, err := pgx.Connect(ctx, b.url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, fmt.Sprintf(`
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE transfers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tag text NOT NULL UNIQUE,
	source int NOT NULL REFERENCES accounts, target int NOT NULL REFERENCES accounts, amount bigint NOT NULL);
INSERT INTO accounts SELECT i, %d FROM generate_series(1, %d) i`, initialBalance, accounts))
	if err != nil {
		t.Fatal(err)
	}
}

// teller makes transfers until ctx ends, connecting again after every error.
func (b *bank) teller(ctx context.Context, k int) {
	r := rand.New(rand.NewPCG(uint64(k), 2))
	for n := 0; ctx.Err() == nil; {
		connecting, cancel := context.WithTimeout(ctx, 45*time.Second)
		c, err := pgx.Connect(connecting, b.url)
		cancel()
		if err != nil {
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		for ctx.Err() == nil {
			n++
			tag := fmt.Sprintf("%d-%d", k, n)
			// A broken compute must not hold a teller for ever.
			one, cancel := context.WithTimeout(ctx, 30*time.Second)
			err := transfer(one, c, r, tag)
			cancel()
			if err != nil {
				break
			}
			b.mu.Lock()
			b.acked[tag] = true
			b.mu.Unlock()
			b.count.Add(1)
		}
		// The connection is broken already when there is an error to tell.
		_ = c.Close(context.WithoutCancel(ctx))
	}
}

func transfer(ctx context.Context, c *pgx.Conn, r *rand.Rand, tag string) error {
	from := 1 + r.IntN(accounts)
	to := 1 + (from+r.IntN(accounts-1))%accounts
	amount := 1 + r.IntN(20)
	return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		// Always the smaller account first, so that tellers do not deadlock.
		low, high, change := from, to, -amount
		if from > to {
			low, high, change = to, from, amount
		}
		if _, err := tx.Exec(ctx, "UPDATE accounts SET balance = balance + $2 WHERE id = $1", low, change); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "UPDATE accounts SET balance = balance - $2 WHERE id = $1", high, change); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "INSERT INTO transfers (tag, source, target, amount) VALUES ($1, $2, $3, $4)", tag, from, to, amount)
		return err
	})
}

// awaitProgress waits until n more transfers were acknowledged.
func (b *bank) awaitProgress(ctx context.Context, t *testing.T, n int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for want := b.count.Load() + n; b.count.Load() < want; {
		select {
		case <-ctx.Done():
			t.Fatalf("no %d transfers within 90 seconds", n)
		case <-tick.C:
		}
	}
}

func (b *bank) check(ctx context.Context, t *testing.T) {
	t.Helper()
	c, err := pgx.Connect(ctx, b.url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	var sum int64
	if err := c.QueryRow(ctx, "SELECT sum(balance) FROM accounts").Scan(&sum); err != nil {
		t.Fatal(err)
	}
	if sum != accounts*initialBalance {
		t.Errorf("balances sum to %d, want %d", sum, accounts*initialBalance)
	}
	rows, err := c.Query(ctx, "SELECT tag FROM transfers")
	if err != nil {
		t.Fatal(err)
	}
	tags, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, tag := range tags {
		there[tag] = true
	}
	lost := 0
	for tag := range b.acked {
		if !there[tag] {
			lost++
		}
	}
	if lost > 0 || len(b.acked) == 0 {
		t.Errorf("%d of %d acknowledged transfers are missing", lost, len(b.acked))
	}
	t.Logf("%d transfers acknowledged, %d in the table", len(b.acked), len(tags))
}

// status is the part of `tarn status --json` the tests read.
type status struct {
	Processes []struct {
		Role      string `json:"role"`
		PID       int    `json:"pid"`
		SocketDir string `json:"socket_dir"`
		Port      int    `json:"port"`
	} `json:"processes"`
}

// kill sends SIGKILL to one of the three kinds of process.
func (in *instance) kill(t *testing.T, victim string) {
	t.Helper()
	pid := 0
	if victim == "postgres" {
		var s status
		in.tarnJSON(&s, "status")
		for _, p := range s.Processes {
			if p.Role == "postgres" {
				pid = p.PID
			}
		}
	} else {
		b, err := os.ReadFile(filepath.Join(in.data, "processes.json"))
		if err != nil {
			t.Fatal(err)
		}
		var rec map[string]json.RawMessage
		var p struct{ PID int }
		if err := json.Unmarshal(b, &rec); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(rec[victim], &p); err != nil {
			t.Fatal(err)
		}
		pid = p.PID
	}
	if pid == 0 {
		t.Fatalf("no process of kind %s is running", victim)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %s %d: %v", victim, pid, err)
	}
}

// amcheck runs pg_amcheck on the running compute as its superuser.
func (in *instance) amcheck(ctx context.Context, t *testing.T) {
	t.Helper()
	tools, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pg_amcheck")
	if len(tools) == 0 {
		t.Fatal("pg_amcheck is not installed: make setup-test")
	}
	var s status
	in.tarnJSON(&s, "status")
	for _, p := range s.Processes {
		if p.Role != "postgres" {
			continue
		}
		cmd := exec.CommandContext(ctx, tools[len(tools)-1], "-h", p.SocketDir, "-p", strconv.Itoa(p.Port), "-U", "tarn_admin",
			"--install-missing", "--heapallindexed", "-d", "databricks_postgres")
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("pg_amcheck: %v\n%s", err, out)
		}
		return
	}
	t.Fatal("no compute is running")
}
