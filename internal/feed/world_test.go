package feed_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/feed"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// world is a control database and a branch's database, a lake in a directory
// and a keeper that can be killed and started again.
type world struct {
	t        *testing.T
	lab      *lab
	computes *computes
	db       *controldb.DB
	catalog  *catalog.Catalog
	branch   tarn.BranchName
	database string
	conn     *pgx.Conn // to the branch's database
	back     tarn.LSN  // how far the branch came back from an object store; 0 = it never was away
	open     func(ctx context.Context, url string) (blob.Store, error)

	keeper *feed.Keeper
	cancel context.CancelFunc
	done   chan struct{}
}

// computes gives connections to a scratch server in place of a compute's.
type computes struct {
	mu     sync.Mutex
	config postgres.Config
	status tarn.ComputeStatus
	woken  int // connections asked for while it slept
}

func (c *computes) Connect(ctx context.Context, _ tarn.BranchName, database string, cfg func(*pgx.ConnConfig)) (*pgx.Conn, error) {
	c.mu.Lock()
	if c.status.State != tarn.ComputeActive {
		c.woken++
	}
	conf := c.config
	c.mu.Unlock()
	pc, err := pgx.ParseConfig(pgtest.ConnString(conf, database))
	if err != nil {
		return nil, err
	}
	if cfg != nil {
		cfg(pc)
	}
	return pgx.ConnectConfig(ctx, pc)
}

func (c *computes) ComputeOf(context.Context, tarn.BranchName) (tarn.ComputeStatus, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status, nil
}

func (c *computes) set(s tarn.ComputeState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.State = s
}

// eachVersion runs f on Postgres 15 and on the newest there is.
func eachVersion(t *testing.T, f func(*testing.T, postgres.Install)) {
	t.Helper()
	seen := map[int]bool{}
	for _, in := range pgtest.Installs(t) {
		if (in.Major == 15 || len(seen) == 0) && !seen[in.Major] {
			seen[in.Major] = true
			t.Run(fmt.Sprintf("pg%d", in.Major), func(t *testing.T) { f(t, in) })
		}
	}
}

// lab is a server on which many worlds have their databases.
type lab struct {
	in     postgres.Install
	server *postgres.Server
	config postgres.Config
	admin  *pgx.Conn
	worlds int
}

func newLab(t *testing.T, in postgres.Install) *lab {
	t.Helper()
	o := pgtest.Options{Throwaway: true, Dir: pgtest.Dir(t), Settings: map[string]string{"wal_level": "logical", "deadlock_timeout": "20ms",
		// All but small transactions come in blocks before their end.
		"logical_decoding_work_mem": "64kB"}}
	server, conn := pgtest.StartWith(t, in, o)
	l := &lab{in: in, server: server, config: pgtest.Config(t, in, o)}
	var err error
	l.admin, err = pgx.Connect(t.Context(), conn)
	check(t, err)
	t.Cleanup(func() { l.admin.Close(context.Background()) })
	l.exec(t, "CREATE ROLE dev LOGIN")
	return l
}

func (l *lab) exec(t *testing.T, sql string) {
	t.Helper()
	_, err := l.admin.Exec(t.Context(), sql)
	check(t, err)
}

func (l *lab) world(t *testing.T) *world {
	t.Helper()
	l.worlds++
	w := &world{
		t: t, lab: l, branch: tarn.BranchName{Project: "shop", Branch: "production"}, database: fmt.Sprintf("app%d", l.worlds), open: openDir,
		computes: &computes{config: l.config, status: tarn.ComputeStatus{State: tarn.ComputeActive, Timeline: "0123456789abcdef0123456789abcdef",
			SocketDir: l.config.SocketDir, Port: l.config.Port}},
	}
	ctx := t.Context()
	l.exec(t, "CREATE DATABASE "+w.database)
	var err error
	w.db, err = controldb.Open(ctx, l.control(t))
	check(t, err)
	t.Cleanup(w.db.Close)
	w.catalog = catalog.New(w.db)
	check(t, w.catalog.EnsureDefault(ctx, "file://"+t.TempDir()))
	_, err = controldb.InsertProject(ctx, w.db, tarn.Project{ProjectSpec: tarn.ProjectSpec{Name: w.branch.Parent(), PGVersion: l.in.Major}, UID: uuid.NewString(), Owner: "ada@example.com"})
	check(t, err)
	_, err = controldb.InsertBranch(ctx, w.db, tarn.Branch{BranchSpec: tarn.BranchSpec{Name: w.branch}, UID: uuid.NewString(), Default: true, Timeline: w.computes.status.Timeline})
	check(t, err)
	w.conn = w.connect()
	// Others wait for the transactions of this world to end, and its slots
	// hold the WAL of all.
	t.Cleanup(w.dropSlots)
	t.Cleanup(w.kill)
	return w
}

// control makes a control database, on a server of its own where the case is
// to stop the lab's.
func (l *lab) control(t *testing.T) string {
	t.Helper()
	if strings.HasSuffix(t.Name(), "Stops") {
		_, conn := pgtest.Start(t, l.in)
		return conn
	}
	name := fmt.Sprintf("control%d", l.worlds)
	l.exec(t, "CREATE DATABASE "+name)
	return pgtest.ConnString(l.config, name)
}

func (w *world) dropSlots() {
	c, err := w.computes.Connect(context.Background(), w.branch, w.database, nil)
	if err != nil {
		return // the server was stopped on purpose
	}
	defer c.Close(context.Background())
	for _, sql := range []string{
		`SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active AND database = current_database()`,
		`SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()`,
	} {
		if _, err := c.Exec(context.Background(), sql); err != nil {
			w.t.Errorf("%s: %v", sql, err)
		}
	}
}

func openDir(_ context.Context, location string) (blob.Store, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, err
	}
	return dir.Open(u.Path)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v (%s)", err, tarn.HintOf(err))
	}
}

func (w *world) connect() *pgx.Conn {
	w.t.Helper()
	c, err := w.computes.Connect(w.t.Context(), w.branch, w.database, nil)
	check(w.t, err)
	w.t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.conn.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// start runs a new keeper.
func (w *world) start() {
	w.t.Helper()
	level := slog.LevelError
	if os.Getenv("FEED_LOG") != "" {
		level = slog.LevelDebug
	}
	back := w.back
	w.keeper = feed.New(feed.Config{
		DB: w.db, Catalog: w.catalog, Computes: w.computes, OpenStore: w.open,
		CameBack: func(context.Context, tarn.BranchName) (tarn.LSN, error) { return back, nil },
		Log:      slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: level})),
		Flush:    50 * time.Millisecond, Poll: 100 * time.Millisecond, SpoolDir: w.t.TempDir(), Chunk: 8, Upkeep: 300 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel, w.done = cancel, make(chan struct{})
	go func() {
		defer close(w.done)
		if err := w.keeper.Run(ctx); !errors.Is(err, context.Canceled) {
			w.t.Errorf("keeper ended: %v", err)
		}
	}()
}

// kill ends the keeper wherever it is.
func (w *world) kill() {
	if w.cancel != nil {
		w.cancel()
		<-w.done
		w.cancel = nil
	}
}

// follow makes a feed of a Postgres schema into lake.<schema>.
func (w *world) follow(schema string) tarn.Feed {
	w.t.Helper()
	return w.followWith(schema, tarn.FeedSettings{})
}

func (w *world) followWith(schema string, s tarn.FeedSettings) tarn.Feed {
	w.t.Helper()
	f, err := w.keeper.Create(w.t.Context(), tarn.Principal{Name: "ada@example.com"}, tarn.FeedSpec{
		Branch: w.branch, Database: w.database, PostgresSchema: schema, Catalog: catalog.Default, Schema: schema + "_history", FeedSettings: s})
	check(w.t, err)
	return f
}

func (w *world) feed(id string) tarn.Feed {
	w.t.Helper()
	f, err := w.keeper.Get(w.t.Context(), w.branch, id)
	check(w.t, err)
	return f
}

func (w *world) table(id, table string) tarn.FeedTable {
	w.t.Helper()
	for _, x := range w.feed(id).Tables {
		if x.PostgresTable == table {
			return x
		}
	}
	return tarn.FeedTable{}
}

// eventually waits for a condition and shows what was when it never comes.
func eventually(t *testing.T, what string, show func() any, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(60 * time.Second)
	defer end.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("never came: %s; now: %+v", what, show())
		}
	}
}

// caughtUp waits until every streaming table of the feed has everything that
// is committed now.
func (w *world) caughtUp(id string, tables ...string) {
	w.t.Helper()
	var text string
	check(w.t, w.conn.QueryRow(w.t.Context(), "SELECT pg_current_wal_lsn()::text").Scan(&text))
	lsn, err := tarn.ParseLSN(text)
	check(w.t, err)
	eventually(w.t, fmt.Sprintf("feed %s at %s with tables %v", id, lsn, tables), func() any { return w.feed(id) }, func() bool {
		for _, name := range tables {
			x := w.table(id, name)
			if x.State != tarn.FeedStreaming || x.CommittedLSN < lsn {
				return false
			}
		}
		return true
	})
}

// change is one row of a history, by column name; NULL is absent.
type change map[string]string

func (c change) kind() string { return c["_pg_change_type"] }

// source is the change's row without what the feed added.
func (c change) source() string {
	var parts []string
	for k, v := range c {
		if !strings.HasPrefix(k, "_") {
			parts = append(parts, k+"="+v)
		}
	}
	sort.Strings(parts)
	return strings.Join(parts, "|")
}

// history reads the Delta table of a Postgres table in _sort_by order and
// checks what every history must hold.
func (w *world) history(id, table string) []change {
	w.t.Helper()
	all := w.read(id, "lb_"+table+"_history")
	sort.Slice(all, func(i, j int) bool { return all[i]["_sort_by"] < all[j]["_sort_by"] })
	for i := 1; i < len(all); i++ {
		if all[i]["_sort_by"] == all[i-1]["_sort_by"] {
			w.t.Fatalf("%s: two changes at %s: %v and %v", table, all[i]["_sort_by"], all[i-1], all[i])
		}
	}
	return all
}

// read reads a Delta table beside the histories.
func (w *world) read(id, table string) []change {
	w.t.Helper()
	f := w.feed(id)
	entry, err := w.catalog.Table(w.t.Context(), tarn.TableName{Catalog: f.Catalog, Schema: f.Schema, Table: table})
	check(w.t, err)
	store, err := openDir(w.t.Context(), entry.Location)
	check(w.t, err)
	d, err := delta.Open(w.t.Context(), store, "")
	check(w.t, err)
	snap, err := d.Latest(w.t.Context())
	check(w.t, err)
	var all []change
	for rec, err := range snap.Scan(w.t.Context(), delta.ScanOptions{}) {
		check(w.t, err)
		for i := range int(rec.NumRows()) {
			c := change{}
			for j, col := range rec.Columns() {
				if col.IsValid(i) {
					c[rec.ColumnName(j)] = col.ValueStr(i)
				}
			}
			all = append(all, c)
		}
		rec.Release()
	}
	return all
}

// rowsOf reads a table as its history would show it.
func (w *world) rowsOf(table string, columns ...string) []string {
	w.t.Helper()
	rows, err := w.conn.Query(w.t.Context(), "SELECT "+strings.Join(columns, "::text, ")+"::text FROM "+table)
	check(w.t, err)
	var all []string
	for rows.Next() {
		v := make([]*string, len(columns))
		p := make([]any, len(columns))
		for i := range v {
			p[i] = &v[i]
		}
		check(w.t, rows.Scan(p...))
		c := change{}
		for i, name := range columns {
			if v[i] != nil {
				c[name] = *v[i]
			}
		}
		all = append(all, c.source())
	}
	check(w.t, rows.Err())
	sort.Strings(all)
	return all
}

// verified asks the keeper itself whether histories and tables are equal.
func (w *world) verified(id string, tables ...string) {
	w.t.Helper()
	for _, name := range tables {
		v, err := w.keeper.Verify(w.t.Context(), w.branch, id, name)
		check(w.t, err)
		if !v.Equal || v.PostgresRows != v.HistoryRows {
			w.t.Errorf("verify: %+v", v)
		}
	}
}

// replay plays a history: every old row must be there when it is changed, and
// what is left is the table.
func replay(t *testing.T, name string, h []change) []string {
	t.Helper()
	rows := map[string]int{}
	for i, c := range h {
		switch c.kind() {
		case "insert", "update_postimage":
			rows[c.source()]++
		case "delete", "update_preimage":
			if rows[c.source()] == 0 {
				t.Fatalf("%s: change %d of %d is of a row that is not there: %v", name, i, len(h), c)
			}
			rows[c.source()]--
		case "truncate":
			clear(rows)
		default:
			t.Fatalf("%s: change of kind %q", name, c.kind())
		}
	}
	var all []string
	for r, n := range rows {
		for range n {
			all = append(all, r)
		}
	}
	sort.Strings(all)
	return all
}

// sameRows compares the history's end with the table.
func (w *world) sameRows(id, schema, table string, columns ...string) {
	w.t.Helper()
	got := replay(w.t, table, w.history(id, table))
	want := w.rowsOf(schema+"."+table, columns...)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		w.t.Fatalf("%s: the history ends with %d rows, the table has %d\nhistory:\n%s\ntable:\n%s", table, len(got), len(want), brief(got), brief(want))
	}
}

func brief(rows []string) string {
	var b strings.Builder
	for _, r := range rows {
		if len(r) > 120 {
			r = r[:120] + "…"
		}
		fmt.Fprintln(&b, r)
	}
	return b.String()
}
