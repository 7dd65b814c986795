package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
)

// A table is dropped; the command line brings the branch back to the moment
// before, on the same address, for psql and psycopg alike. The feed goes on
// with what is there now, and so does the synced table.
func TestRestore(t *testing.T) {
	versions(t, func(t *testing.T, _, pgBin string) {
		in := start(t, "--pg-bin", pgBin)
		ctx := testContext(t, 5*time.Minute)
		in.tarn("project", "create", "shop")
		in.tarn("feed", "create", "shop/production", "--schema", "public", "--to", "lake.app")
		address := in.url("shop/production")
		c := in.connect(ctx, address)
		mustExec(ctx, t, c, "CREATE TABLE items (id int PRIMARY KEY)", "INSERT INTO items SELECT generate_series(1, 10)")
		prod := tarn.BranchName{Project: "shop", Branch: tarn.DefaultBranch}
		in.awaitStreaming(ctx, t, prod, "public", 1)
		in.awaitState(ctx, t, "lake.app.lb_items_history", "1 2 3 4 5 6 7 8 9 10")
		in.tarn("sync", "create", "--source", "lake.app.lb_items_history", "--name", "shop.back.items", "--key", "_sort_by")

		var before time.Time
		if err := c.QueryRow(ctx, "SELECT clock_timestamp() FROM pg_sleep(0.1)").Scan(&before); err != nil {
			t.Fatal(err)
		}
		mustExec(ctx, t, c, "INSERT INTO items SELECT generate_series(11, 15)")
		in.awaitState(ctx, t, "lake.app.lb_items_history", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15")
		in.tarn("sync", "refresh", "shop.back.items")
		if n := in.psql(t, address, "SELECT count(*) FROM back.items"); n != "15" {
			t.Errorf("the synced table has %s rows before the restore", n)
		}
		mustExec(ctx, t, c, "DROP TABLE items")

		at := before.Format(time.RFC3339Nano)
		said := in.tarn("branch", "restore", "shop/production", "--to", at, "--keep-as", "dropped")
		if !strings.Contains(said, "Restored branch shop/production in ") || !strings.Contains(said, "is branch shop/dropped.") {
			t.Errorf("restore said:\n%s", said)
		}
		if n := in.psql(t, address, "SELECT count(*), max(id) FROM items"); n != "10|10" {
			t.Errorf("psql on the same address counts %s", n)
		}
		if n := strings.TrimSpace(in.python("count_items.py", address)); n != "10" {
			t.Errorf("psycopg on the same address counts %s", n)
		}
		if n := in.psql(t, in.url("shop/dropped"), "SELECT to_regclass('items') IS NULL, (SELECT count(*) FROM pg_replication_slots)"); n != "t|0" {
			t.Errorf("the kept branch says %s", n)
		}

		// The feed: a new slot and a new copy, then the changes.
		in.psql(t, address, "INSERT INTO items VALUES (99)")
		in.awaitState(ctx, t, "lake.app.lb_items_history", "1 2 3 4 5 6 7 8 9 10 99")
		// The synced table holds the newest version again, not the one of then.
		in.awaitSynced(ctx, t, address)

		// The same by hand, where it must not work.
		for what, says := range map[string]string{
			"2099-01-01":    "in the future: it is outside the window [",
			"400 days ago":  "before the branch began: it is outside the window [",
			"FFFF/FFFFFFFF": "was never reached: it is outside the window [",
		} {
			if said := in.refused(1, "branch", "restore", "shop/production", "--to", what); !strings.Contains(said, says) || !strings.Contains(said, "hint: ") {
				t.Errorf("restore to %s said %s", what, said)
			}
		}
		in.tarn("branch", "protect", "shop/production")
		if said := in.refused(1, "project", "delete", "shop", "--yes"); !strings.Contains(said, "tarn branch unprotect shop/production") {
			t.Errorf("deletion of a project with a protected branch said %s", said)
		}
		in.tarn("branch", "unprotect", "shop/production")
	})
}

// psql runs one statement with psql and gives its unaligned output.
func (in *instance) psql(t *testing.T, address, sql string) string {
	t.Helper()
	out, err := exec.Command("psql", address, "-XAtqc", sql).CombinedOutput()
	if err != nil {
		t.Fatalf("psql: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// awaitSynced waits until synced table back.items is at rest with at least the
// version it had before the restore.
func (in *instance) awaitSynced(ctx context.Context, t *testing.T, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		table, err := in.client().SyncedTables().Get(ctx, tarn.TableName{Catalog: "shop", Schema: "back", Table: "items"})
		if err != nil {
			t.Fatal(err)
		}
		state := table.Status.DetailedState
		if state == "SYNCED_TABLE_ONLINE_NO_PENDING_UPDATE" && in.psql(t, address, "SELECT count(*) >= 15 FROM back.items") == "t" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the synced table is %s: %s", state, table.Status.Message)
		case <-tick.C:
		}
	}
}

// Restores under transfers: each line's money adds up, every transfer that was
// acknowledged is on one of the lines, and clients only have to connect again.
func TestRestoreUnderLoad(t *testing.T) {
	in := start(t)
	ctx := testContext(t, 5*time.Minute)
	in.tarn("project", "create", "bank")
	b := &bank{url: in.url("bank/production"), acked: map[string]bool{}}
	b.open(ctx, t)
	work, stop := context.WithCancel(ctx)
	defer stop()
	var tellersDone sync.WaitGroup
	defer tellersDone.Wait()
	for k := range tellers {
		tellersDone.Go(func() { b.teller(work, k) })
	}
	lines := []string{"bank/production"}
	b.awaitProgress(ctx, t, 200)
	for round := 1; round <= 4; round++ {
		b.mu.Lock()
		before, at := len(b.acked), time.Now()
		b.mu.Unlock()
		b.awaitProgress(ctx, t, 200)
		keep := fmt.Sprintf("line-%d", round)
		began := time.Now()
		in.tarn("branch", "restore", "bank/production", "--to", at.UTC().Format(time.RFC3339Nano), "--keep-as", keep)
		restored := time.Since(began)
		lines = append(lines, "bank/"+keep)
		b.awaitProgress(ctx, t, 1)
		t.Logf("round %d: restored in %s to when %d transfers were acknowledged, working again after %s",
			round, restored.Round(time.Millisecond), before, time.Since(began).Round(time.Millisecond))
	}
	stop()
	tellersDone.Wait()
	there := map[string]bool{}
	for _, line := range lines {
		c := in.connect(ctx, in.url(line))
		var sum int64
		var tags []string
		if err := c.QueryRow(ctx, "SELECT (SELECT sum(balance)::bigint FROM accounts), (SELECT array_agg(tag) FROM transfers)").Scan(&sum, &tags); err != nil {
			t.Fatal(err)
		}
		if sum != accounts*initialBalance {
			t.Errorf("%s: balances sum to %d, want %d", line, sum, accounts*initialBalance)
		}
		for _, tag := range tags {
			there[tag] = true
		}
	}
	lost := 0
	for tag := range b.acked {
		if !there[tag] {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d acknowledged transfers are on no line", lost, len(b.acked))
	}
}

// SIGKILL of the node or of control while a branch is restored: the restore
// ends well, or the branch is as it was; nothing between.
func TestKillDuringRestore(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	in := start(t)
	ctx := testContext(t, 10*time.Minute)
	in.tarn("project", "create", "shop")
	address := in.url("shop/production")
	c := in.connect(ctx, address)
	mustExec(ctx, t, c, "CREATE TABLE items (id int)")
	c.Close(ctx)
	api := in.client()
	prod := tarn.BranchName{Project: "shop", Branch: tarn.DefaultBranch}
	for round := 1; round <= rounds(t)/2; round++ {
		var before time.Time
		c, err := pgx.Connect(ctx, address)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		mustExec(ctx, t, c, fmt.Sprintf("INSERT INTO items VALUES (%d)", round))
		if err := c.QueryRow(ctx, "SELECT clock_timestamp() FROM pg_sleep(0.02)").Scan(&before); err != nil {
			t.Fatal(err)
		}
		mustExec(ctx, t, c, fmt.Sprintf("INSERT INTO items VALUES (%d)", -round))
		c.Close(ctx)
		keep := fmt.Sprintf("was-%d", round)
		op, err := api.Past(prod).Restore(ctx, client.RestoreSpec{SourceBranchTime: before.Format(time.RFC3339Nano), KeepAs: keep})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		victim, delay := [...]string{"node", "control"}[round%2], time.Duration(r.IntN(500))*time.Millisecond
		pause := time.NewTimer(delay)
		<-pause.C
		in.kill(t, victim)
		failure := api.WaitOperation(ctx, op, nil)
		in.awaitLogin(ctx, t, address)
		want := fmt.Sprintf("%d|%d|0", round, round)
		kept, keptErr := api.Branch(ctx, prod.Parent().Branch(keep))
		if failure != nil {
			want = fmt.Sprintf("%d|%d|1", round+1, round)
			if keptErr == nil {
				t.Errorf("round %d: the restore failed and left branch %s", round, keep)
			}
		} else if keptErr != nil || kept.Status.CurrentState != "READY" {
			t.Errorf("round %d: kept branch %+v, %v", round, kept, keptErr)
		}
		if got := in.psql(t, address, "SELECT count(*), max(id), count(*) FILTER (WHERE id < 0) FROM items"); got != want {
			t.Fatalf("round %d, %s killed after %s, restore: %v: the branch has %s, want %s", round, victim, delay, failure, got, want)
		}
		if failure == nil {
			got := in.psql(t, in.url("shop/"+keep), "SELECT count(*), max(id), min(id) FROM items")
			if want := fmt.Sprintf("%d|%d|%d", round+1, round, -round); got != want {
				t.Errorf("round %d: the kept branch has %s, want %s", round, got, want)
			}
			in.tarn("branch", "delete", "shop/"+keep)
		} else {
			in.psql(t, address, fmt.Sprintf("DELETE FROM items WHERE id = %d", -round))
		}
		t.Logf("round %d: %s killed after %s, restore: %v", round, victim, delay, failure)
	}
}
