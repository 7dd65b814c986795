package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestSceptic does what users do and builders do not think of.
func TestSceptic(t *testing.T) {
	versions(t, sceptic)
}

func sceptic(t *testing.T, _, pgBin string) {
	in := start(t, "--pg-bin", pgBin)
	ctx := testContext(t, 3*time.Minute)
	t.Run("an impossible branch leaves nothing", func(t *testing.T) { impossibleBranch(t, in) })
	t.Run("the owner cannot lock itself out", func(t *testing.T) { ownerStays(ctx, t, in) })
	t.Run("the owner stays inside its project", func(t *testing.T) { ownerStaysInside(ctx, t, in) })
	t.Run("logical replication through the gateway", func(t *testing.T) { replicates(t, in) })
	t.Run("schema tarn_sync is Tarn's", func(t *testing.T) { trapIsRefused(ctx, t, in) })
	t.Run("a synced table with a view on it is refreshed", func(t *testing.T) { refreshUnderView(ctx, t, in) })
	t.Run("a history adds up when names change hands", func(t *testing.T) { namesChangeHands(ctx, t, in) })
}

func impossibleBranch(t *testing.T, in *instance) {
	in.tarn("project", "create", "past")
	said := in.refused(1, "branch", "create", "past/b", "--at", "-24h")
	if !strings.Contains(said, "create branch b of project past") || !strings.Contains(said, "outside the window") {
		t.Errorf("said: %s", said)
	}
	if out := in.tarn("branch", "list", "past"); strings.Contains(out, "INIT") {
		t.Errorf("a branch that cannot be made is listed:\n%s", out)
	}
	in.refused(2, "branch", "create", "past/b", "--at", "0/0")
	in.tarn("branch", "create", "past/b")
}

func ownerStays(ctx context.Context, t *testing.T, in *instance) {
	c := in.connect(ctx, in.url("past"))
	for _, sql := range []string{"DROP ROLE tarn_oauth", "DROP ROLE databricks_superuser"} {
		var refused *pgconn.PgError
		if _, err := c.Exec(ctx, sql); !errors.As(err, &refused) || refused.Code != "2BP01" {
			t.Errorf("%s: %v, want dependent objects", sql, err)
		}
	}
	in.connect(ctx, in.url("past"))
}

// ownerStaysInside tries every way from a role that makes roles to the machine.
func ownerStaysInside(ctx context.Context, t *testing.T, in *instance) {
	in.tarn("project", "create", "inside")
	c := in.connect(ctx, in.url("inside"))
	for _, role := range []string{"pg_execute_server_program", "pg_read_server_files", "pg_write_server_files", "tarn_admin"} {
		for _, sql := range []string{"GRANT " + role + " TO CURRENT_USER", "CREATE ROLE deputy LOGIN IN ROLE " + role, "SET ROLE " + role} {
			if _, err := c.Exec(ctx, sql); err == nil {
				t.Errorf("%s: done", sql)
			}
		}
	}
	for _, sql := range []string{
		"COPY (SELECT 1) TO PROGRAM 'cat'", "COPY (SELECT 1) TO '/tmp/x'", "CREATE TEMP TABLE f (l text); COPY f FROM '/etc/passwd'",
		"SELECT pg_read_file('/etc/passwd')", "SELECT lo_import('/etc/passwd')", "ALTER SYSTEM SET work_mem = '1GB'",
		"ALTER ROLE CURRENT_USER SUPERUSER", "ALTER ROLE tarn_admin PASSWORD 'x'", "CREATE ROLE deputy SUPERUSER",
	} {
		if _, err := c.Exec(ctx, sql); err == nil {
			t.Errorf("%s: done", sql)
		}
	}
	mustExec(ctx, t, c, "CREATE ROLE app LOGIN PASSWORD 'x'", "GRANT databricks_superuser TO app", "CREATE EXTENSION pg_trgm")
}

func replicates(t *testing.T, in *instance) {
	ctx := testContext(t, time.Minute)
	url := in.url("past")
	receive := func(args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, "pg_recvlogical", append([]string{"-d", url, "--slot", "mine"}, args...)...)
	}
	if out, err := receive("--create-slot", "-P", "test_decoding").CombinedOutput(); err != nil {
		t.Fatalf("create a slot: %v\n%s", err, out)
	}
	c := in.connect(ctx, url)
	if _, err := c.Exec(ctx, "CREATE TABLE followed (id int); INSERT INTO followed VALUES (7)"); err != nil {
		t.Fatal(err)
	}
	var end string
	if err := c.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&end); err != nil {
		t.Fatal(err)
	}
	out, err := receive("--start", "-f", "-", "--endpos", end).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "id[integer]:7") {
		t.Errorf("follow: %v\n%s", err, out)
	}
	if out, err := receive("--drop-slot").CombinedOutput(); err != nil {
		t.Errorf("drop the slot: %v\n%s", err, out)
	}
}

// trapIsRefused has an owner make Tarn's schema before Tarn: triggers there
// would run as superuser.
func trapIsRefused(ctx context.Context, t *testing.T, in *instance) {
	in.tarn("project", "create", "trap")
	c := in.connect(ctx, in.url("trap"))
	mustExec(ctx, t, c, "CREATE SCHEMA tarn_sync", "CREATE SCHEMA app", "CREATE TABLE app.t (id int PRIMARY KEY)")
	in.tarn("feed", "create", "trap/production", "--schema", "app", "--to", "lake.trap")
	wait, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(in.tarn("feed", "get", "app", "--project", "trap"), "schema tarn_sync belongs to") {
		select {
		case <-tick.C:
		case <-wait.Done():
			t.Fatalf("the feed does not say what is wrong: %s", in.tarn("feed", "get", "app", "--project", "trap"))
		}
	}
	var made int
	if err := c.QueryRow(ctx, "SELECT count(*) FROM pg_proc WHERE pronamespace = 'tarn_sync'::regnamespace").Scan(&made); err != nil || made != 0 {
		t.Errorf("%d functions were made in the owner's schema (%v)", made, err)
	}
	mustExec(ctx, t, c, "ALTER SCHEMA tarn_sync RENAME TO mine", "INSERT INTO app.t VALUES (1)")
	in.awaitHistory(ctx, t, "lake.trap.lb_t_history", 1)
	in.tarn("sync", "create", "--project", "trap", "--source", "lake.trap.lb_t_history", "--name", "trap.back.t", "--key", "_sort_by")
}

// refreshUnderView syncs a feed's own history back: one source of Delta rows
// that needs no program beside Tarn.
func refreshUnderView(ctx context.Context, t *testing.T, in *instance) {
	in.tarn("project", "create", "viewed")
	c := in.connect(ctx, in.url("viewed"))
	mustExec(ctx, t, c, "CREATE SCHEMA app", "CREATE TABLE app.t (id int PRIMARY KEY)", "INSERT INTO app.t VALUES (1)")
	in.tarn("feed", "create", "viewed/production", "--schema", "app", "--to", "lake.viewed")
	in.awaitHistory(ctx, t, "lake.viewed.lb_t_history", 1)
	in.tarn("sync", "create", "--project", "viewed", "--source", "lake.viewed.lb_t_history", "--name", "viewed.back.t", "--key", "_sort_by")
	mustExec(ctx, t, c, "CREATE VIEW app.v AS SELECT count(*) AS n FROM back.t", "INSERT INTO app.t VALUES (2), (3)")
	in.awaitHistory(ctx, t, "lake.viewed.lb_t_history", 3)
	// More columns than before, too: the view stays, the column is added.
	mustExec(ctx, t, c, "ALTER TABLE app.t ADD COLUMN more text", "INSERT INTO app.t VALUES (4, 'x')")
	in.awaitHistory(ctx, t, "lake.viewed.lb_t_history", 4)
	in.tarn("sync", "refresh", "--project", "viewed", "viewed.back.t")
	var n, more int
	if err := c.QueryRow(ctx, "SELECT n, (SELECT count(more) FROM back.t) FROM app.v").Scan(&n, &more); err != nil {
		t.Fatal(err)
	}
	if n != 4 || more != 1 {
		t.Errorf("the view shows %d rows, %d with the new column; want 4 and 1", n, more)
	}
}

// namesChangeHands drops and makes a table again, and swaps two by renaming, as
// loaders do. Whoever applies the history in order must end with the table.
func namesChangeHands(ctx context.Context, t *testing.T, in *instance) {
	in.tarn("project", "create", "hands")
	c := in.connect(ctx, in.url("hands"))
	mustExec(ctx, t, c, "CREATE TABLE a (id int PRIMARY KEY)", "INSERT INTO a VALUES (1), (2)")
	in.tarn("feed", "create", "hands/production", "--schema", "public", "--to", "lake.hands")
	in.awaitHistory(ctx, t, "lake.hands.lb_a_history", 2)

	mustExec(ctx, t, c, "DROP TABLE a", "CREATE TABLE a (id int PRIMARY KEY)", "INSERT INTO a VALUES (3)")
	in.awaitState(ctx, t, "lake.hands.lb_a_history", "3")

	mustExec(ctx, t, c, "CREATE TABLE a_new (id int PRIMARY KEY)", "INSERT INTO a_new VALUES (4), (5)")
	in.awaitState(ctx, t, "lake.hands.lb_a_new_history", "4 5")
	mustExec(ctx, t, c, "BEGIN; ALTER TABLE a RENAME TO a_old; ALTER TABLE a_new RENAME TO a; INSERT INTO a VALUES (6); COMMIT")
	in.awaitState(ctx, t, "lake.hands.lb_a_history", "4 5 6")
	in.awaitState(ctx, t, "lake.hands.lb_a_old_history", "3")
	mustExec(ctx, t, c, "INSERT INTO a VALUES (7)", "DELETE FROM a WHERE id = 4", "DELETE FROM a_old", "INSERT INTO a_old VALUES (8)")
	in.awaitState(ctx, t, "lake.hands.lb_a_history", "5 6 7")
	in.awaitState(ctx, t, "lake.hands.lb_a_old_history", "8")

	// A table made empty under an old name has no rows either.
	mustExec(ctx, t, c, "DROP TABLE a", "CREATE TABLE a (id int PRIMARY KEY)")
	in.awaitState(ctx, t, "lake.hands.lb_a_history", "")
}

func mustExec(ctx context.Context, t *testing.T, c *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// awaitHistory waits until a history has at least n rows.
func (in *instance) awaitHistory(ctx context.Context, t *testing.T, table string, n int) {
	t.Helper()
	in.await(ctx, t, table, func(all []change) (string, bool) { return fmt.Sprint(len(all), " rows"), len(all) >= n })
}

// awaitState waits until a history, applied in order, leaves these values of
// column id.
func (in *instance) awaitState(ctx context.Context, t *testing.T, table, want string) {
	t.Helper()
	in.await(ctx, t, table, func(all []change) (string, bool) {
		state := map[int]int{}
		for _, c := range all {
			if c.kind == "truncate" {
				clear(state)
				continue
			}
			id := int(c.values["id"].(int32))
			switch c.kind {
			case "insert", "update_postimage":
				state[id]++
			case "delete", "update_preimage":
				state[id]--
			}
		}
		var ids []string
		for id := range 100 {
			for range state[id] {
				ids = append(ids, fmt.Sprint(id))
			}
		}
		have := strings.Join(ids, " ")
		return have, have == want
	})
}

func (in *instance) await(ctx context.Context, t *testing.T, table string, good func([]change) (string, bool)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last := "no table"
	for {
		// Listed first: reading a table that is not there yet would end the test.
		if strings.Contains(in.tarn("table", "list"), table) {
			var ok bool
			if last, ok = good(in.readHistory(ctx, t, table, "id")); ok {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Errorf("%s shows: %s", table, last)
			return
		}
	}
}
