package syncedtable_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
	"github.com/tarndb/tarn/internal/syncedtable"
)

// TestSyncedTable runs every case in databases of its own on one server a
// version.
func TestSyncedTable(t *testing.T) {
	eachVersion(t, func(t *testing.T, in postgres.Install) {
		l := newLab(t, in)
		for _, c := range cases() {
			if c.on == bothVersions || in.Major == pgtest.Newest(t).Major {
				t.Run(c.name, func(t *testing.T) { c.run(t, l.world(t)) })
			}
		}
	})
}

type versions int

const (
	bothVersions versions = iota
	newestOnly
)

type testCase struct {
	name string
	run  func(*testing.T, *world)
	on   versions
}

func cases() []testCase {
	return []testCase{
		{"RoundTripOfTypes", roundTripOfTypes, bothVersions},
		{"PoisonRows", poisonRows, newestOnly},
		{"SwapIsAtomic", swapIsAtomic, bothVersions},
		{"ReadersKeepWhatTheyHave", readersKeepWhatTheyHave, newestOnly},
		{"Kills", kills, newestOnly},
		{"CreateRefusals", createRefusals, newestOnly},
		{"Failures", failures, newestOnly},
		{"DeleteAndBranches", deleteAndBranches, newestOnly},
	}
}

func roundTripOfTypes(t *testing.T, w *world) {
	pg := func(name, typ, pgType string) delta.Field {
		return delta.Field{Name: name, Type: typ, Nullable: true, Metadata: map[string]any{"tarn.pgType": pgType}}
	}
	s := w.source("types",
		col("id", "integer"), col("b", "boolean"), col("by", "byte"), col("i2", "short"), col("i8", "long"), col("f", "float"), col("d", "double"),
		col("n", "decimal(20,3)"), col("big", "decimal(38,0)"), col("s", "string"), col("bin", "binary"), col("day", "date"),
		col("tz", "timestamp"), col("ts", "timestamp_ntz"),
		col("ia", `{"type":"array","elementType":"integer","containsNull":true}`), col("sa", `{"type":"array","elementType":"string","containsNull":true}`),
		col("na", `{"type":"array","elementType":"decimal(5,2)","containsNull":true}`),
		col("aa", `{"type":"array","elementType":{"type":"array","elementType":"long","containsNull":true},"containsNull":true}`),
		col("st", `{"type":"struct","fields":[{"name":"x","type":"decimal(5,2)","nullable":true,"metadata":{}},{"name":"when","type":"timestamp","nullable":true,"metadata":{}}]}`),
		col("m", `{"type":"map","keyType":"string","valueType":"double","valueContainsNull":true}`),
		pg("u", "string", "uuid"), pg("jb", "string", "jsonb"), pg("num", "string", "numeric"),
		col("a column with a name that is longer than Postgres can keep in its catalog", "string"),
	)
	s.write(add, `{"id":1,"b":true,"by":-5,"i2":-32768,"i8":9007199254740993,"f":0.1,"d":1e300,"n":"-12345678901234567.891","big":"99999999999999999999999999999999999999","s":"té\"st","bin":"AP8=","day":"1969-12-31","tz":"2024-02-29T01:02:03.000004Z","ts":"0001-01-01T00:00:00","ia":[1,null,3],"sa":["x,y",""],"na":["1.50",null],"aa":[[1,2],[3]],"st":{"x":"1.10","when":"2024-01-01T00:00:00Z"},"m":[{"key":"k","value":1.5}],"u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","jb":"{\"a\": [1, 2]}","num":"12345678901234567890123.000100","a column with a name that is longer than Postgres can keep in its catalog":"long"}
		{"id":2,"n":"0.000","ia":[],"num":"NaN","d":0}
		{"id":3,"n":"10000.000","num":"0.00001"}`)
	w.create(w.spec("types", "id"))
	x := w.reaches("types", tarn.SyncOnline, 1)
	if x.RowsSynced != 3 || x.RowsTotal != 3 || x.Message != "" || x.SyncEnd.IsZero() || x.VersionTS.IsZero() {
		t.Errorf("status %+v", x)
	}
	w.exec(`SET timezone = 'UTC'`)
	for _, c := range []struct{ sql, want string }{
		{`b::text`, "true"}, {`"by"::text`, "-5"}, {`i2::text`, "-32768"}, {`i8::text`, "9007199254740993"}, {`f::text`, "0.1"}, {`d::text`, "1e+300"},
		{`n::text`, "-12345678901234567.891"}, {`big::text`, "99999999999999999999999999999999999999"}, {`s`, `té"st`}, {`bin::text`, `\x00ff`},
		{`day::text`, "1969-12-31"}, {`tz::text`, "2024-02-29 01:02:03.000004+00"}, {`ts::text`, "0001-01-01 00:00:00"},
		{`ia::text`, "{1,NULL,3}"}, {`sa::text`, `{"x,y",""}`}, {`na::text`, "{1.50,NULL}"}, {`aa::text`, "[[1, 2], [3]]"},
		{`st::text`, `{"x": 1.10, "when": "2024-01-01T00:00:00Z"}`}, {`m::text`, `{"k": 1.5}`},
		{`u::text`, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}, {`jb::text`, `{"a": [1, 2]}`}, {`num::text`, "12345678901234567890123.000100"},
		{`format_type(pg_typeof(n), -1)`, "numeric"}, {`pg_typeof(tz)::text`, "timestamp with time zone"}, {`pg_typeof(ts)::text`, "timestamp without time zone"},
		{`pg_typeof(u)::text`, "uuid"}, {`pg_typeof(jb)::text`, "jsonb"}, {`pg_typeof("by")::text`, "smallint"},
	} {
		if got := w.text(`SELECT ` + c.sql + ` FROM public.types WHERE id = 1`); got != c.want {
			t.Errorf("%s is %s, want %s", c.sql, got, c.want)
		}
	}
	for _, c := range []struct{ sql, want string }{{`n::text`, "0.000"}, {`ia::text`, "{}"}, {`num::text`, "NaN"}, {`b::text`, "NULL"}, {`st::text`, "NULL"}} {
		if got := w.text(`SELECT ` + c.sql + ` FROM public.types WHERE id = 2`); got != c.want {
			t.Errorf("%s is %s, want %s", c.sql, got, c.want)
		}
	}
	if got := w.text(`SELECT n || ' ' || num FROM public.types WHERE id = 3`); got != "10000.000 0.00001" {
		t.Errorf("numerics of row 3 are %s", got)
	}
	if got := w.text(`SELECT string_agg(a.attname, ',') FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
		WHERE i.indrelid = 'public.types'::regclass AND i.indisprimary`); got != "id" {
		t.Errorf("the key is on %s", got)
	}
	if got := w.text(`SELECT attname::text FROM pg_attribute WHERE attrelid = 'public.types'::regclass AND attname LIKE 'a column%'`); len(got) > 63 || !strings.HasPrefix(got, "a column with a name that") {
		t.Errorf("the long column is named %q", got)
	}
}

// Rows that Postgres cannot store are kept aside and counted; the rest is there.
func poisonRows(t *testing.T, w *world) {
	s := w.source("poison", col("a", "integer"), col("b", "string"), col("v", "string"),
		delta.Field{Name: "j", Type: "string", Nullable: true, Metadata: map[string]any{"tarn.pgType": "jsonb"}})
	s.write(add, `{"a":1,"b":"x","v":"good"}
		{"a":2,"b":null,"v":"no key"}
		{"a":3,"b":"x","v":"nul\u0000here"}
		{"a":4,"b":"x","j":"{not json"}
		{"a":5,"b":"x","j":"\"\\u0000\""}
		{"a":6,"b":"x","v":"twin a"}
		{"a":6,"b":"x","v":"twin c"}
		{"a":6,"b":"x","v":"twin b"}
		{"a":6,"b":"y","v":"not a twin"}`)
	w.create(w.spec("poison", "b", "a"))
	x := w.reaches("poison", tarn.SyncOnline, 1)
	if x.RowsSynced != 3 || x.RowsTotal != 9 || !strings.Contains(x.Message, "6 rows") {
		t.Errorf("status %+v", x)
	}
	if got := w.text(`SELECT string_agg(v, ',' ORDER BY a, b) FROM public.poison`); got != "good,twin c,not a twin" {
		t.Errorf("rows are %s", got)
	}
	if got := w.text(`SELECT string_agg(source_row->>'a', ',' ORDER BY source_row->>'a') FROM tarn_sync.dead_letters WHERE version = 1`); got != "2,3,4,5,6,6" {
		t.Errorf("dead letters are %s", got)
	}
	if got := w.text(`SELECT reason FROM tarn_sync.dead_letters WHERE source_row->>'a' = '3'`); !strings.Contains(got, "NUL") || !strings.Contains(got, "column v") {
		t.Errorf("reason is %q", got)
	}
	// A better version takes the letters away.
	s.write(replace, `{"a":1,"b":"x","v":"good"}`)
	w.refresh(w.spec("poison").Name)
	x = w.reaches("poison", tarn.SyncOnline, 2)
	if got := w.text(`SELECT count(*)::text FROM tarn_sync.dead_letters`); got != "0" || x.Message != "" {
		t.Errorf("%s dead letters are left, message %q", got, x.Message)
	}
}

// A reader sees one version or the other, whole, whenever it looks and however
// old its snapshot is.
func swapIsAtomic(t *testing.T, w *world) {
	s := w.source("swap", col("id", "long"), col("v", "string"))
	const rows = 2000
	s.numbers(add, rows, "0")
	w.create(w.spec("swap", "id"))
	w.reaches("swap", tarn.SyncOnline, 1)
	stop := make(chan struct{})
	var g sync.WaitGroup
	for i := range 3 {
		conn := w.connect(tarn.Superuser)
		g.Go(func() {
			iso := []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.RepeatableRead, pgx.ReadCommitted}[i]
			for {
				select {
				case <-stop:
					return
				default:
				}
				err := pgx.BeginTxFunc(context.Background(), conn, pgx.TxOptions{IsoLevel: iso}, func(tx pgx.Tx) error {
					if i == 1 { // takes its snapshot well before it looks
						if _, err := tx.Exec(context.Background(), `SELECT count(*) FROM pg_class, pg_sleep(0.05)`); err != nil {
							return err
						}
					}
					var n, versions int
					if err := tx.QueryRow(context.Background(), `SELECT count(*), count(DISTINCT v) FROM public.swap`).Scan(&n, &versions); err != nil {
						return err
					}
					if n != rows || versions != 1 {
						t.Errorf("reader %d saw %d rows of %d versions", i, n, versions)
					}
					return nil
				})
				if err != nil {
					t.Errorf("reader %d: %v", i, err)
					return
				}
			}
		})
	}
	for v := int64(2); v < 10; v++ {
		s.numbers(replace, rows, string(rune('0'+v)))
		w.refresh(w.spec("swap").Name)
		w.reaches("swap", tarn.SyncOnline, v)
	}
	close(stop)
	g.Wait()
}

func readersKeepWhatTheyHave(t *testing.T, w *world) {
	s := w.source("kept", col("id", "long"), col("v", "string"))
	s.numbers(add, 10, "a")
	w.exec(`ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader`)
	w.exec(`ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM reader`)
	w.create(w.spec("kept", "id"))
	w.reaches("kept", tarn.SyncOnline, 1)
	owner, writer, reader := w.connect("ada@example.com"), w.connect("writer"), w.connect("reader")
	ctx := t.Context()
	var n int
	if err := reader.QueryRow(ctx, `SELECT count(*) FROM public.kept`).Scan(&n); err == nil {
		t.Error("a role without a grant can read")
	}
	_, err := owner.Exec(ctx, `GRANT SELECT ON public.kept TO reader`)
	check(t, err)
	for _, sql := range []string{`INSERT INTO public.kept VALUES (100, 'x')`, `UPDATE public.kept SET v = 'x'`, `DELETE FROM public.kept`} {
		for _, c := range []*pgx.Conn{owner, writer} {
			_, err := c.Exec(ctx, sql)
			var pg *pgconn.PgError
			if !errors.As(err, &pg) || pg.Code != "42501" {
				t.Errorf("%s: error %v, want 42501", sql, err)
			}
		}
	}
	// The project's owner, who owns the database, makes indexes as on any table.
	w.exec(`GRANT CREATE ON SCHEMA public TO "ada@example.com"`)
	for _, sql := range []string{`CREATE INDEX kept_v ON public.kept (v) WHERE id > 3`, `CREATE UNIQUE INDEX "Kept Lower" ON public.kept (lower(v), id)`, `COMMENT ON TABLE public.kept IS 'theirs'`} {
		_, err := owner.Exec(ctx, sql)
		check(t, err)
	}
	s.numbers(replace, 20, "b")
	w.refresh(w.spec("kept").Name)
	w.reaches("kept", tarn.SyncOnline, 2)
	check(t, reader.QueryRow(ctx, `SELECT count(*) FROM public.kept`).Scan(&n))
	if n != 20 {
		t.Errorf("the reader sees %d rows, want 20", n)
	}
	if got := w.text(`SELECT string_agg(indexdef, '; ' ORDER BY indexname) FROM pg_indexes WHERE tablename = 'kept'`); got !=
		`CREATE UNIQUE INDEX "Kept Lower" ON ONLY public.kept USING btree (lower(v), id); CREATE UNIQUE INDEX kept_pkey ON ONLY public.kept USING btree (id); CREATE INDEX kept_v ON ONLY public.kept USING btree (v) WHERE (id > 3)` {
		t.Errorf("indexes are %s", got)
	}

	if got := w.text(`SELECT count(*)::text || obj_description('public.kept'::regclass) FROM pg_index WHERE indisvalid AND indrelid = (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'public.kept'::regclass)`); got != "3theirs" {
		t.Errorf("indexes of the partition, and the comment: %s", got)
	}
	if got := w.text(`SELECT string_agg(pc.relname || ' ' || (pg_total_relation_size(pi.inhrelid::regclass) > 0), ',') FROM pg_inherits pi JOIN pg_class pc ON pi.inhparent = pc.oid WHERE pc.relkind = 'p'`); got != "kept true" {
		t.Errorf("the published question about sizes answers %s", got)
	}

	// A view hangs on the table itself: its rows are replaced in place.
	w.exec(`CREATE VIEW public.seen AS SELECT * FROM public.kept`)
	s.numbers(replace, 30, "c")
	w.refresh(w.spec("kept").Name)
	w.reaches("kept", tarn.SyncOnline, 3)
	if got := w.text(`SELECT count(*) || max(v) FROM public.seen`); got != "30c" {
		t.Errorf("the view shows %s, want 30c", got)
	}

	// The same version is not loaded again.
	before := w.text(`SELECT generation::text FROM tarn_sync.position`)
	w.refresh(w.spec("kept").Name)
	w.reaches("kept", tarn.SyncOnline, 3)
	if after := w.text(`SELECT generation::text FROM tarn_sync.position`); after != before {
		t.Errorf("generation went from %s to %s", before, after)
	}

	if err := w.keeper.Delete(ctx, w.spec("kept").Name, syncedtable.PurgeData); tarn.KindOf(err) != tarn.KindConflict {
		t.Errorf("purged under a view: %v", err)
	}
	w.exec(`DROP VIEW public.seen`)
	check(t, w.keeper.Delete(ctx, w.spec("kept").Name, syncedtable.PurgeData))
	if got := w.text(`SELECT to_regclass('public.kept')::text`); got != "NULL" {
		t.Error("the purged table is still there")
	}
}

func kills(t *testing.T, w *world) {
	s := w.source("hard", col("id", "long"), col("v", "string"))
	s.numbers(add, 3000, "0")
	w.create(w.spec("hard", "id"))
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	version := int64(1)
	for range 20 {
		timer := time.NewTimer(time.Duration(r.IntN(250)) * time.Millisecond)
		<-timer.C
		w.kill()
		// Whatever is there is one whole version.
		if w.text(`SELECT to_regclass('public.hard')::text`) != "NULL" {
			if got := w.text(`SELECT count(*) || '/' || count(DISTINCT v) FROM public.hard`); got != "3000/1" {
				t.Fatalf("the table has %s rows/versions", got)
			}
			if got, want := w.text(`SELECT min(v) FROM public.hard`), w.text(`SELECT (version - 1)::text FROM tarn_sync.position`); got != want {
				t.Fatalf("the table holds rows of %s, the position says %s", got, want)
			}
		}
		w.start()
		if x := w.get("hard"); x.State == tarn.SyncOnline && x.Version == version {
			s.numbers(replace, 3000, strconv.FormatInt(version, 10))
			version++
			w.refresh(x.Name)
		}
	}
	w.reaches("hard", tarn.SyncOnline, version)
	if got := w.text(`SELECT count(*)::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE nspname = 'tarn_sync' AND starts_with(relname, 'load_')`); got != "0" {
		t.Errorf("%s leftovers", got)
	}
	t.Logf("%d versions", version)
}

func createRefusals(t *testing.T, w *world) {
	w.source("src", col("id", "integer"), col("tags", `{"type":"array","elementType":"integer","containsNull":true}`))
	w.exec(`CREATE TABLE public.theirs (id int)`)
	spec := func(change func(*tarn.SyncedTableSpec)) tarn.SyncedTableSpec {
		s := w.spec("src", "id")
		change(&s)
		return s
	}
	for _, c := range []struct {
		spec tarn.SyncedTableSpec
		kind tarn.Kind
		says string
	}{
		{spec(func(s *tarn.SyncedTableSpec) { s.PrimaryKey = []string{"nope"} }), tarn.KindInvalid, `"nope" for the primary key; its columns are id, tags`},
		{spec(func(s *tarn.SyncedTableSpec) { s.PrimaryKey = []string{"tags"} }), tarn.KindInvalid, "nested"},
		{spec(func(s *tarn.SyncedTableSpec) { s.PrimaryKey = []string{"id", "ID"} }), tarn.KindInvalid, "twice"},
		{spec(func(s *tarn.SyncedTableSpec) { s.PrimaryKey = nil }), tarn.KindInvalid, "at least one"},
		{spec(func(s *tarn.SyncedTableSpec) { s.Policy = tarn.SyncContinuous }), tarn.KindInvalid, "change data feed enabled (delta.enableChangeDataFeed = true) for scheduling policy CONTINUOUS"},
		{spec(func(s *tarn.SyncedTableSpec) { s.Policy = tarn.SyncTriggered }), tarn.KindInvalid, "change data feed enabled"},
		{spec(func(s *tarn.SyncedTableSpec) { s.Policy = "HOURLY" }), tarn.KindInvalid, "want SNAPSHOT, TRIGGERED or CONTINUOUS"},
		{spec(func(s *tarn.SyncedTableSpec) { s.Interval = time.Second }), tarn.KindInvalid, "goes with scheduling policy CONTINUOUS"},
		{spec(func(s *tarn.SyncedTableSpec) { s.Schedule.Cron = "99 * * * *" }), tarn.KindInvalid, "minute"},
		{spec(func(s *tarn.SyncedTableSpec) { s.TimeseriesKey = "tags" }), tarn.KindInvalid, "timeseries key"},
		{spec(func(s *tarn.SyncedTableSpec) { s.TimeseriesKey = "nope" }), tarn.KindInvalid, "no column"},
		{spec(func(s *tarn.SyncedTableSpec) {
			s.TypeOverrides = []tarn.TypeOverride{{Column: "id", Type: tarn.TypeVarchar, Size: 3}}
		}), tarn.KindInvalid, "only a string"},
		{spec(func(s *tarn.SyncedTableSpec) { s.Alerts.Webhook = "ftp://x" }), tarn.KindInvalid, "http"},
		{spec(func(s *tarn.SyncedTableSpec) { s.Source = lake("nothing") }), tarn.KindNotFound, "nothing"},
		{spec(func(s *tarn.SyncedTableSpec) { s.Branch.Branch = "nope" }), tarn.KindNotFound, "nope"},
		{spec(func(s *tarn.SyncedTableSpec) { s.Name.Table = "theirs" }), tarn.KindConflict, "theirs"},
		{spec(func(s *tarn.SyncedTableSpec) { s.Name = lake("src") }), tarn.KindConflict, "catalog"},
		{spec(func(s *tarn.SyncedTableSpec) { s.Name.Schema = "pg_catalog" }), tarn.KindInvalid, "system"},
	} {
		_, err := w.keeper.Create(t.Context(), tarn.Principal{}, c.spec)
		if tarn.KindOf(err) != c.kind || err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("error %v, want kind %s and %q", err, c.kind, c.says)
		}
	}
	if all, err := w.keeper.List(t.Context(), ""); err != nil || len(all) != 0 {
		t.Errorf("refusals left %v, error %v", all, err)
	}
	w.create(w.spec("src", "ID"))
	if x := w.get("src"); x.PrimaryKey[0] != "id" {
		t.Errorf("the key is %v, want the source's spelling", x.PrimaryKey)
	}
	if _, err := w.keeper.Create(t.Context(), tarn.Principal{}, w.spec("src", "id")); tarn.KindOf(err) != tarn.KindConflict {
		t.Errorf("created twice: %v", err)
	}
}

// What cannot succeed says so and waits for a refresh; what may is tried again.
func failures(t *testing.T, w *world) {
	s := w.source("fails", col("id", "long"), col("v", "string"))
	s.numbers(add, 5, "a")
	w.computes.mu.Lock()
	tries := 0
	w.computes.before = func() error {
		if tries++; tries > 1 && tries < 4 {
			return tarn.Unavailable("the compute does not start")
		}
		return nil
	}
	w.computes.mu.Unlock()
	w.create(w.spec("fails", "id"))
	w.reaches("fails", tarn.SyncOnline, 1)
	if tries < 4 {
		t.Errorf("connected at try %d", tries)
	}
	// The name is taken between Create and the load.
	w.kill()
	other := w.spec("fails", "id")
	other.Name.Schema = "late"
	w.exec(`CREATE SCHEMA late`)
	w.create(other)
	w.exec(`CREATE TABLE late.fails (mine int)`)
	w.start()
	eventually(t, "a failure", func() any { return nil }, func() bool {
		x, err := w.keeper.Get(t.Context(), other.Name)
		check(t, err)
		return x.State == tarn.SyncOfflineFailed && strings.Contains(x.Message, "late.fails")
	})
	w.exec(`DROP TABLE late.fails`)
	w.refresh(other.Name)
	eventually(t, "online", func() any { return nil }, func() bool {
		x, err := w.keeper.Get(t.Context(), other.Name)
		check(t, err)
		return x.State == tarn.SyncOnline
	})
	// Its source goes away; the table stays readable.
	check(t, w.catalog.DropTable(t.Context(), tarn.Principal{}, lake("fails")))
	w.refresh(w.spec("fails").Name)
	w.reaches("fails", tarn.SyncPipelineFailed, 0)
	if got := w.text(`SELECT count(*)::text FROM public.fails`); got != "5" {
		t.Errorf("%s rows are left", got)
	}
}

func deleteAndBranches(t *testing.T, w *world) {
	s := w.source("gone", col("id", "long"), col("v", "string"))
	s.numbers(add, 5, "a")
	w.create(w.spec("gone", "id"))
	w.reaches("gone", tarn.SyncOnline, 1)

	// A branch has its parent's table without its parent's synced table: the
	// scratch server stands for both.
	dev := w.spec("gone", "id")
	dev.Branch.Branch, dev.Name.Catalog = "dev", "lakedev"
	_, err := w.keeper.Create(t.Context(), tarn.Principal{}, dev)
	check(t, err)
	eventually(t, "online on the branch", func() any { return nil }, func() bool {
		x, err := w.keeper.Get(t.Context(), dev.Name)
		check(t, err)
		return x.State == tarn.SyncOnline
	})
	check(t, w.keeper.Delete(t.Context(), dev.Name, syncedtable.KeepData))
	if got := w.text(`SELECT relowner::regrole::text FROM pg_class WHERE oid = 'public.gone'::regclass`); got != `"ada@example.com"` {
		t.Errorf("the kept table belongs to %s", got)
	}
	_, err = w.connect("ada@example.com").Exec(t.Context(), `INSERT INTO public.gone VALUES (100, 'mine')`)
	check(t, err)

	check(t, controldb.MarkDeleted(t.Context(), w.db, dev.Branch))
	check(t, w.keeper.Delete(t.Context(), w.spec("gone").Name, syncedtable.KeepData))
	s.numbers(add, 0, "")
	if _, err := w.keeper.Create(t.Context(), tarn.Principal{}, dev); tarn.KindOf(err) != tarn.KindNotFound {
		t.Errorf("created on a branch that goes: %v", err)
	}
	w.exec(`DROP TABLE public.gone`)
	w.create(w.spec("gone", "id"))
	w.reaches("gone", tarn.SyncOnline, 1)
	if _, err := w.conn.Exec(t.Context(), `SELECT 1`); err != nil {
		t.Fatal(err)
	}
}
