package e2e

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A table that follows its source while each process of Tarn and its Postgres is
// killed in turn: row by row equal at the end.
func TestSyncedTableOutlivesKills(t *testing.T) {
	in := start(t)
	in.tarn("project", "create", "shop")
	path := filepath.Join(in.data, "lake", "followed")
	in.python("followed.py", path, "0")
	in.tarn("table", "register", "lake.gold.followed", path)
	in.tarn("sync", "create", "--source", "lake.gold.followed", "--name", "lake.public.followed", "--key", "id", "--mode", "continuous", "--interval", "1s")
	ctx := testContext(t, 3*time.Minute)
	for i, victim := range []string{"control", "node", "postgres"} {
		in.python("followed.py", path, string(rune('1'+i)))
		if victim == "postgres" { // there is one again
			in.awaitVersion(ctx, t, "lake.public.followed", int64(3*(i+1)))
			in.python("followed.py", path, "4")
		}
		in.kill(t, victim)
	}
	in.awaitVersion(ctx, t, "lake.public.followed", 12)
	if got := in.tarn("sync", "verify", "lake.public.followed"); !strings.Contains(got, "version 12: equal; 1600 rows in the source, 1600 in Postgres") {
		t.Errorf("verify: %s", got)
	}
	// Never loaded whole after the first time: the position held.
	if got := in.tarn("sync", "events", "lake.public.followed"); strings.Count(got, "Loaded version") != 1 {
		t.Errorf("events:\n%s", got)
	}
}

// awaitVersion waits until a synced table is at a version of its source. The
// server may not answer meanwhile.
func (in *instance) awaitVersion(ctx context.Context, t *testing.T, table string, version int64) {
	t.Helper()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	var last []byte
	for {
		var x struct {
			Status struct {
				Version *int64 `json:"last_processed_commit_version"`
			} `json:"status"`
		}
		last, _ = in.command("sync", "show", table, "--json").Output()
		if json.Unmarshal(last, &x) == nil && x.Status.Version != nil && *x.Status.Version == version {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s never came to version %d; now: %s", table, version, last)
		}
	}
}
