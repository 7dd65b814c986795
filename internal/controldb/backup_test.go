package controldb_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// database makes an empty database beside the others of a server.
func database(t *testing.T, conn, name string) string {
	t.Helper()
	name = strings.ReplaceAll(t.Name(), "/", "_") + "_" + name
	c, err := pgx.Connect(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	if _, err := c.Exec(t.Context(), "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		t.Fatal(err)
	}
	return strings.Replace(conn, "dbname=postgres", "dbname="+name, 1)
}

func openAt(t *testing.T, conn string) *controldb.DB {
	t.Helper()
	db := must[*controldb.DB](t)(controldb.Open(t.Context(), conn))
	t.Cleanup(db.Close)
	return db
}

// contents are all rows of all tables as text, and what the next of each counter is.
func contents(t *testing.T, conn string) map[string][]string {
	t.Helper()
	c, err := pgx.Connect(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	read := func(sql string) []string {
		rows, err := c.Query(t.Context(), sql)
		if err != nil {
			t.Fatal(err)
		}
		all, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	all := map[string][]string{}
	for _, table := range read(`SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`) {
		all[table] = read(`SELECT r::text FROM public.` + pgx.Identifier{table}.Sanitize() + ` r ORDER BY 1`)
	}
	all["counters"] = read(`SELECT format('%s %s', sequencename, last_value) FROM pg_sequences ORDER BY 1`)
	return all
}

func exec(t *testing.T, conn, sql string, args ...any) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	if _, err := c.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// fill puts rows into every table.
func fill(t *testing.T, conn string) {
	t.Helper()
	db := openAt(t, conn)
	for _, f := range []func(*testing.T, *controldb.DB){workspace, tokens, signingKeys, projects, branches, endpoints, operations, catalog, syncedTables, feeds} {
		f(t, db)
	}
	// Rows of tables that those tests empty again, of a project that they leave alone.
	exec(t, conn, `INSERT INTO projects SELECT (jsonb_populate_record(p, '{"name": "kept", "uid": "kept"}')).* FROM projects p LIMIT 1`)
	exec(t, conn, `INSERT INTO branches SELECT (jsonb_populate_record(b, '{"project": "kept", "name": "main", "uid": "kb", "timeline": "00112233445566778899aabbccddeeff", "source": null, "is_default": true}')).* FROM branches b LIMIT 1`)
	exec(t, conn, `INSERT INTO operations (name, verb, target) VALUES ('operations/1', 'create', 'x'), ('operations/2', 'delete', 'y')`)
	exec(t, conn, `INSERT INTO synced_tables SELECT 'u', 'main', 's', 't', 'main', 's', 'src', '{a,"b c"}', 'SNAPSHOT', project, name, 'db', '', '', 'p', 'ONLINE', '', 7, now(), 1, 2 FROM branches WHERE project = 'kept'`)
	exec(t, conn, `INSERT INTO feeds SELECT 'f', project, name, 'id', 'db', 'public', 'main', 's', '' FROM branches WHERE project = 'kept'`)
	exec(t, conn, `INSERT INTO feed_tables VALUES ('f', 'orders', 'main', 's', 'orders', 'ACTIVE', '16/B374D848', now(), '')`)
	exec(t, conn, `INSERT INTO sql_statements VALUES ('s', 'ann', E'SELECT \t1', 'SELECT', 'SUCCEEDED', '', now(), NULL, now(), 1, 8)`)
	exec(t, conn, `INSERT INTO pipelines VALUES ('p', 'SYNCED_TABLE', 'main.s.t', 'u', 'kept', 'ada')`)
	exec(t, conn, `INSERT INTO pipeline_updates VALUES ('p1', DEFAULT, 'p', 'COMPLETED', 'API_CALL', 'NEW', '', 3)`)
	exec(t, conn, `INSERT INTO pipeline_events VALUES ('e1', DEFAULT, 'p', 'p1', 'INFO', 'update_progress', E'odd\t', '')`)
	exec(t, conn, `INSERT INTO snapshots (project, name, uid, source, source_time, source_timeline, state, timeline)
		VALUES ('kept', 'first', 'ks', 'main', now(), '00112233445566778899aabbccddeeff', 'READY', '112233445566778899aabbccddeeff00')`)
	exec(t, conn, `INSERT INTO swaps (operation, source_timeline, source_lsn, timeline, replaced)
		VALUES ('operations/1', '00112233445566778899aabbccddeeff', '16/B374D848', '2233445566778899aabbccddeeff0011', '00112233445566778899aabbccddeeff')`)
	exec(t, conn, `INSERT INTO registered_catalogs VALUES ('shop', 'rc', 'kept', 'main', 'db', '[{"schema": "public", "name": "t", "columns": []}]')`)
	exec(t, conn, `INSERT INTO grants VALUES ('lake', 'gold', '', 1, 'SELECT', 'ada')`)
	exec(t, conn, `INSERT INTO lineage VALUES ('a', 'b', 'c', 'd', 'e', 'f', 'INSERT', '', 's', 'ann', '[{"s": "x", "t": "y"}]')`)
	exec(t, conn, `INSERT INTO system_rows (target, batch, row) VALUES ('access.audit', NULL, '{"action": "x"}')`)
	exec(t, conn, `INSERT INTO child_instances VALUES ('child', 'kept', 'main', 'kept', 'kept', now(), '16/B374D848', 'ada', '{"k": "v"}', 'CU_1', 1, false, 'p')`)
	exec(t, conn, `INSERT INTO database_tables VALUES ('shop', 'public', 't', 'kept', 'main', 'db')`)
	exec(t, conn, `INSERT INTO data_apis VALUES ('kept', 'main', 'db', 'da', '{"db_max_rows": 3}')`)
	exec(t, conn, `INSERT INTO snapshot_schedules VALUES ('kept', 'main', '[{"hour": 3}]', now())`)
	fillIdentity(t, conn)
	exec(t, conn, `INSERT INTO principals (name, type, admin) VALUES (E'odd "name"\t\\ ü\n', 'USER', true)`)
}

func sameContents(t *testing.T, got, want map[string][]string) {
	t.Helper()
	if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) {
		t.Errorf("tables %v, want %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	for table, rows := range want {
		if !slices.Equal(got[table], rows) {
			t.Errorf("table %s has\n%s\nwant\n%s", table, strings.Join(got[table], "\n"), strings.Join(rows, "\n"))
		}
	}
}

func TestBackup(t *testing.T) {
	_, conn := pgtest.Start(t, pgtest.Newest(t))
	for _, c := range []struct {
		name string
		f    func(*testing.T, string)
	}{
		{"BringsEverythingBack", backupBringsEverythingBack}, {"WithoutAnything", backupWithoutAnything},
		{"PassesOverABrokenCopy", backupPassesOverABrokenCopy}, {"UnderFaults", backupUnderFaults}, {"Run", backupRun},
	} {
		t.Run(c.name, func(t *testing.T) { c.f(t, conn) })
	}
}

func keys(t *testing.T, s blob.Store) []string {
	t.Helper()
	var all []string
	for o, err := range s.List(t.Context(), "", "") {
		do(t, err)
		all = append(all, o.Key)
	}
	return all
}

func backupBringsEverythingBack(t *testing.T, conn string) {
	from := database(t, conn, "a")
	fill(t, from)
	want := contents(t, from)
	for table, rows := range want {
		if len(rows) == 0 {
			t.Errorf("no rows in %s: the test does not see whether they come back", table)
		}
	}
	store := memory.New()
	b := controldb.NewBackup(openAt(t, from), store, controldb.BackupOptions{})
	do(t, b.Copy(t.Context()))
	do(t, b.Copy(t.Context())) // nothing changed
	if n := len(keys(t, store)); n != 1 {
		t.Errorf("%d copies of what did not change", n)
	}
	exec(t, from, `UPDATE projects SET display_name = 'changed'`)
	do(t, b.Copy(t.Context()))
	if n := len(keys(t, store)); n != 2 {
		t.Errorf("%d copies after a change, want 2", n)
	}
	want = contents(t, from)

	to := database(t, conn, "b")
	r := must[controldb.Restored](t)(controldb.Restore(t.Context(), to, store, controldb.BackupOptions{}))
	if r.Rows == 0 || r.Time.IsZero() {
		t.Errorf("restored %+v", r)
	}
	sameContents(t, contents(t, to), want)
	db := openAt(t, to)
	// Counters go on behind what was handed out.
	must[tarn.Principal](t)(controldb.InsertPrincipal(t.Context(), db, tarn.Principal{Name: "new", Type: tarn.PrincipalUser}))
	_, err := controldb.Restore(t.Context(), to, store, controldb.BackupOptions{})
	wantKind(t, err, tarn.KindConflict)

	// The restored one takes the store over; the old one must end, now and after
	// a restart.
	restored := controldb.NewBackup(db, store, controldb.BackupOptions{})
	do(t, restored.Copy(t.Context()))
	exec(t, from, `UPDATE projects SET display_name = 'too late'`)
	wantKind(t, b.Copy(t.Context()), tarn.KindConflict)
	wantKind(t, b.Run(t.Context()), tarn.KindConflict)
	wantKind(t, controldb.NewBackup(openAt(t, from), store, controldb.BackupOptions{}).Copy(t.Context()), tarn.KindConflict)
	// The restored one may restart.
	do(t, controldb.NewBackup(db, store, controldb.BackupOptions{}).Copy(t.Context()))
	third := database(t, conn, "c")
	must[controldb.Restored](t)(controldb.Restore(t.Context(), third, store, controldb.BackupOptions{}))
	sameContents(t, contents(t, third), contents(t, to))
}

func backupWithoutAnything(t *testing.T, conn string) {
	conn = database(t, conn, "a")
	_, err := controldb.Restore(t.Context(), conn, memory.New(), controldb.BackupOptions{})
	wantKind(t, err, tarn.KindNotFound)
	openAt(t, conn) // an ordinary first start goes on
}

// A broken copy is passed over for the one before it, and never loaded.
func backupPassesOverABrokenCopy(t *testing.T, conn string) {
	from := database(t, conn, "a")
	fill(t, from)
	want := contents(t, from)
	store := memory.New()
	b := controldb.NewBackup(openAt(t, from), store, controldb.BackupOptions{})
	do(t, b.Copy(t.Context()))
	exec(t, from, `UPDATE projects SET display_name = 'broken'`)
	do(t, b.Copy(t.Context()))
	last := keys(t, store)[1]
	rd := must[io.ReadCloser](t)(store.Get(t.Context(), last, 0, -1))
	whole := must[[]byte](t)(io.ReadAll(rd))
	for i, broken := range [][]byte{whole[:len(whole)-3], {}, flip(whole, len(whole)/2)} {
		do(t, store.Put(t.Context(), last, bytes.NewReader(broken)))
		to := database(t, conn, fmt.Sprint("r", i))
		must[controldb.Restored](t)(controldb.Restore(t.Context(), to, store, controldb.BackupOptions{}))
		sameContents(t, contents(t, to), want)
	}
	// The next reign begins behind the broken one.
	do(t, controldb.NewBackup(openAt(t, from), store, controldb.BackupOptions{}).Copy(t.Context()))
	to := database(t, conn, "after")
	must[controldb.Restored](t)(controldb.Restore(t.Context(), to, store, controldb.BackupOptions{}))
	sameContents(t, contents(t, to), contents(t, from))
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 0x10
	return b
}

// Faults at every call: what Copy reported is what comes back.
func backupUnderFaults(t *testing.T, conn string) {
	from := database(t, conn, "a")
	fill(t, from)
	db := openAt(t, from)
	under := memory.New()
	for n := range 6 {
		for _, f := range []faulty.Fault{faulty.Fail, faulty.Lost, faulty.Unsent, faulty.Torn, faulty.DieAfter} {
			store := faulty.New(under, faulty.At(n, f))
			b := controldb.NewBackup(db, store, controldb.BackupOptions{})
			for i := range 3 {
				name := fmt.Sprintf("call %d fault %d change %d", n, f, i)
				exec(t, from, `UPDATE projects SET display_name = $1`, name)
				err := b.Copy(t.Context())
				if err != nil && !errors.Is(err, faulty.ErrInjected) && !errors.Is(err, blob.ErrExists) {
					t.Fatalf("%s: %v", name, err)
				}
				if err == nil && !lastHolds(t, under, name) {
					t.Fatalf("%s: reported as copied, and is not there", name)
				}
			}
			b = controldb.NewBackup(db, under, controldb.BackupOptions{})
			if err := b.Copy(t.Context()); err != nil {
				t.Fatalf("call %d fault %d: begin again: %v", n, f, err)
			}
		}
	}
	to := database(t, conn, "b")
	must[controldb.Restored](t)(controldb.Restore(t.Context(), to, under, controldb.BackupOptions{}))
	sameContents(t, contents(t, to), contents(t, from))
}

// lastHolds tells whether the last copy holds a text.
func lastHolds(t *testing.T, s blob.Store, text string) bool {
	t.Helper()
	all := keys(t, s)
	files, err := controldb.ReadCopy(t.Context(), s, all[len(all)-1])
	do(t, err)
	return bytes.Contains(files["projects"], []byte(text))
}

func backupRun(t *testing.T, conn string) {
	from := database(t, conn, "a")
	fill(t, from)
	store := memory.New()
	b := controldb.NewBackup(openAt(t, from), store, controldb.BackupOptions{Every: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for n := range 3 {
		text := fmt.Sprint("change ", n)
		exec(t, from, `UPDATE projects SET display_name = $1`, text)
		for len(keys(t, store)) == 0 || !lastHolds(t, store, text) {
			select {
			case <-tick.C:
			case err := <-ended:
				t.Fatal(err)
			}
		}
	}
	cancel()
	do(t, <-ended)
	exec(t, from, `UPDATE projects SET display_name = 'the end'`)
	do(t, b.Copy(t.Context()))
	if !lastHolds(t, store, "the end") {
		t.Error("the last change is not copied")
	}
}
