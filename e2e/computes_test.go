package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// computeStates are the states of the computes, by branch and kind.
func (in *instance) computeStates() map[string]string {
	var s struct {
		Computes []struct {
			Branch, State string
			ReadOnly      bool `json:"read_only"`
		}
	}
	in.tarnJSON(&s, "status")
	states := map[string]string{}
	for _, c := range s.Computes {
		states[fmt.Sprintf("%s %t", c.Branch, c.ReadOnly)] = c.State
	}
	return states
}

// awaitCompute waits until the compute of shop/production is in a state.
func (in *instance) awaitCompute(ctx context.Context, t *testing.T, state string) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		states := in.computeStates()
		if states["projects/shop/branches/production false"] == state {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("computes are %v, want %s", states, state)
		}
	}
}

// Through the gateway nobody notices that a compute was frozen, and a killed
// node brings back what is never suspended.
func TestFrozenSessions(t *testing.T) {
	in := start(t)
	ctx := testContext(t, 3*time.Minute)
	in.tarn("project", "create", "shop")
	in.tarn("endpoint", "update", "shop/production", "--freeze-after", "2s", "--set", "work_mem=7MB")
	c := in.connect(ctx, in.url("shop/production"))
	if _, err := c.Exec(ctx, "CREATE TEMP TABLE mine AS SELECT 42 AS answer"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		in.awaitCompute(ctx, t, "frozen")
		var answer int
		var memory string
		if err := c.QueryRow(ctx, "SELECT answer, current_setting('work_mem') FROM mine").Scan(&answer, &memory); err != nil || answer != 42 || memory != "7MB" {
			t.Fatalf("a session that was frozen says %d, %s, %v", answer, memory, err)
		}
	}
	said := in.refused(1, "endpoint", "update", "shop/production", "--set", "work_mem=lots")
	if !strings.Contains(said, "work_mem") || !strings.Contains(said, "number") {
		t.Errorf("a setting that is none: %s", said)
	}

	in.tarn("endpoint", "update", "shop/production", "--suspend-after", "never", "--freeze-after", "never")
	in.awaitCompute(ctx, t, "active")
	in.kill(t, "node")
	in.awaitCompute(ctx, t, "active")
	if show := in.tarn("endpoint", "show", "shop/production"); !strings.Contains(show, "never") {
		t.Errorf("tarn endpoint show:\n%s", show)
	}
}

func hostOf(t *testing.T, text string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// A read replica has its own address, follows its branch, and goes.
func TestReadReplica(t *testing.T) {
	in := start(t)
	ctx := testContext(t, 3*time.Minute)
	in.tarn("project", "create", "shop")
	primary := in.url("shop/production")
	c := in.connect(ctx, primary)
	if _, err := c.Exec(ctx, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS id"); err != nil {
		t.Fatal(err)
	}
	said := in.refused(4, "psql", "shop/production", "--read-only", "-c", "SELECT 1")
	if !strings.Contains(said, "tarn endpoint create shop/production/reader --read-only") {
		t.Errorf("a branch without a replica: %s", said)
	}
	in.tarn("endpoint", "create", "shop/production/reader", "--read-only", "--max-cu", "1")
	replica := strings.TrimSpace(in.tarn("connection-string", "shop/production", "--read-only", "--credential"))
	if same := strings.TrimSpace(in.tarn("connection-string", "shop/production/reader")); hostOf(t, same) != hostOf(t, replica) || hostOf(t, same) == hostOf(t, primary) {
		t.Errorf("the replica's addresses: %s and %s", same, replica)
	}
	for _, flags := range [][]string{{"--read-only"}, {"--read-only", "--pooled"}, {"--pooled"}} {
		out := in.tarn(append([]string{"psql", "shop/production", "-c", "SELECT pg_is_in_recovery()", "-c", "SHOW transaction_read_only"}, append(flags, "--", "-At")...)...)
		if want := map[bool]string{true: "t\non\n", false: "f\noff\n"}[flags[0] == "--read-only"]; out != want {
			t.Errorf("tarn psql %v: %q", flags, out)
		}
	}
	r := in.connect(ctx, replica)
	count := func(want int) {
		t.Helper()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			var n int
			if err := r.QueryRow(ctx, "SELECT count(*) FROM t").Scan(&n); err != nil {
				t.Fatal(err)
			}
			if n == want {
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("the replica has %d rows, want %d", n, want)
			}
		}
	}
	count(1000)
	var pg *pgconn.PgError
	if _, err := r.Exec(ctx, "DELETE FROM t"); !errors.As(err, &pg) || pg.Code != "25006" {
		t.Errorf("a write on a replica: %v", err)
	}
	if _, err := c.Exec(ctx, "INSERT INTO t VALUES (0)"); err != nil {
		t.Fatal(err)
	}
	count(1001)
	if s := in.tarn("status"); !strings.Contains(s, "LAG") {
		t.Errorf("tarn status shows no lag:\n%s", s)
	}
	said = in.refused(1, "endpoint", "create", "shop/production/reader", "--read-only")
	if !strings.Contains(said, "exists") {
		t.Errorf("a second one of the name: %s", said)
	}
	in.tarn("endpoint", "delete", "shop/production/reader")
	if list := in.tarn("endpoint", "list", "shop"); strings.Contains(list, "reader") {
		t.Errorf("a deleted replica is listed:\n%s", list)
	}
	if _, err := pgx.Connect(ctx, replica); err == nil {
		t.Error("a deleted replica answers")
	}
}
