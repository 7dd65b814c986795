package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Killing control, and its start by the supervisor, must not be noticed by a
// database: the same postmaster, and the same session on the compute's socket.
func TestControlRestartLeavesComputesAlone(t *testing.T) {
	in := start(t)
	ctx := testContext(t, 2*time.Minute)
	in.tarn("project", "create", "shop")
	url := in.url("shop/production")
	in.connect(ctx, url)
	c := in.onSocket(ctx, t)
	var before, after time.Time
	if err := c.QueryRow(ctx, "SELECT pg_postmaster_start_time()").Scan(&before); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(ctx, "BEGIN; CREATE TABLE open_transaction (id int)"); err != nil {
		t.Fatal(err)
	}
	in.kill(t, "control")
	in.awaitLogin(ctx, t, url)
	if err := c.QueryRow(ctx, "SELECT pg_postmaster_start_time() FROM open_transaction RIGHT JOIN (SELECT 1) one ON true").Scan(&after); err != nil {
		t.Fatalf("the session on the compute did not survive: %v", err)
	}
	if !before.Equal(after) {
		t.Errorf("Postgres was restarted: it ran since %s and now since %s", before, after)
	}
	if _, err := c.Exec(ctx, "COMMIT"); err != nil {
		t.Errorf("the open transaction did not survive: %v", err)
	}
}

// onSocket connects to the only running compute as its superuser, past the
// gateway.
func (in *instance) onSocket(ctx context.Context, t *testing.T) *pgx.Conn {
	t.Helper()
	var s status
	in.tarnJSON(&s, "status")
	for _, p := range s.Processes {
		if p.Role == "postgres" {
			return in.connect(ctx, fmt.Sprintf("host=%s port=%d user=tarn_admin dbname=databricks_postgres", p.SocketDir, p.Port))
		}
	}
	t.Fatal("no compute is running")
	return nil
}

// awaitLogin waits until the gateway lets a client in.
func (in *instance) awaitLogin(ctx context.Context, t *testing.T, url string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := pgx.Connect(ctx, url)
		if err == nil {
			if err := c.Close(ctx); err != nil {
				t.Fatal(err)
			}
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("nobody can log in: %v", err)
		case <-tick.C:
		}
	}
}
