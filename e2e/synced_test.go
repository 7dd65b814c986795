package e2e

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn"
)

// The second program of the published quick start, on a table that deltalake
// writes, and its pipeline with the published SDK.
func TestSecondProgramRunsUnmodified(t *testing.T) {
	in := start(t)
	in.tarn("project", "create", "shop")
	path := filepath.Join(in.data, "lake", "user_profiles")
	in.python("user_profiles.py", "make", path)
	in.addCatalog("analytics")
	in.tarn("table", "register", "analytics.gold.user_profiles", path)
	out := in.python("second_program.py")
	if !strings.HasPrefix(out, "SyncedTableState.SYNCED_TABLE_") || strings.Contains(out, "FAILED") {
		t.Errorf("the program printed: %s", out)
	}
	in.python("user_profiles.py", "change", path)
	out = in.python("user_profiles_pipeline.py")
	const want = "COMPLETED False 3 3\n" +
		"IDLE ['COMPLETED', 'COMPLETED'] 2\n" +
		"['create_update', 'flow_progress', 'update_progress']\n" +
		"[True]\n" +
		"shop.public.user_profiles\n"
	if out != want {
		t.Errorf("the program printed:\n%swant:\n%s", out, want)
	}
	if got := in.tarn("sync", "verify", "shop.public.user_profiles"); !strings.Contains(got, "version 3: equal; 991 rows in the source, 991 in Postgres") {
		t.Errorf("verify: %s", got)
	}
	c := in.connect(testContext(t, time.Minute), in.url("shop/production"))
	var name string
	if err := c.QueryRow(t.Context(), `SELECT string_agg(name, ',' ORDER BY user_id) FROM public.user_profiles WHERE user_id IN (5, 6, 11, 2000)`).Scan(&name); err != nil || name != "merged,renamed,user 11,added" {
		t.Errorf("names %s, %v", name, err)
	}
	// The project's owner, as it signs in, indexes the table; a load keeps it.
	mustExec(t.Context(), t, c, `CREATE INDEX by_name ON public.user_profiles (name)`)
	if _, err := c.Exec(t.Context(), `DELETE FROM public.user_profiles`); err == nil || !strings.Contains(err.Error(), "42501") {
		t.Errorf("deleting rows: %v", err)
	}
	in.tarn("sync", "resync", "shop.public.user_profiles")
	var valid bool
	if err := c.QueryRow(t.Context(), `SELECT bool_and(indisvalid) FROM pg_index WHERE indexrelid = 'by_name'::regclass`).Scan(&valid); err != nil || !valid {
		t.Errorf("the index is valid: %v, %v", valid, err)
	}
	in.tarn("sync", "update", "shop.public.user_profiles", "--mode", "continuous", "--interval", "1s")
	in.tarn("sync", "stop", "shop.public.user_profiles")
	if got := in.tarn("sync", "show", "shop.public.user_profiles"); !strings.Contains(got, ": ONLINE\n") {
		t.Errorf("show: %s", got)
	}
	in.tarn("sync", "delete", "shop.public.user_profiles")
}

// addCatalog makes a catalog, for which there is no call yet, in the control
// database; its postmaster.pid says where that listens.
func (in *instance) addCatalog(name string) {
	in.t.Helper()
	b, err := os.ReadFile(filepath.Join(in.data, "control", "pgdata", "postmaster.pid"))
	if err != nil {
		in.t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	q := url.Values{"host": {strings.TrimSpace(lines[4])}, "port": {strings.TrimSpace(lines[3])}, "user": {tarn.Superuser}}
	c := in.connect(testContext(in.t, time.Minute), "postgres:///tarn?"+q.Encode())
	mustExec(in.t.Context(), in.t, c, `INSERT INTO catalogs (name, root) SELECT '`+name+`', root FROM catalogs LIMIT 1`)
}
