package syncedtable_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
	"github.com/tarndb/tarn/internal/syncedtable"
)

// world is a branch's database, a lake in a directory and a keeper.
type world struct {
	t        *testing.T
	computes *computes
	db       *controldb.DB
	catalog  *catalog.Catalog
	branch   tarn.BranchName
	database string
	conn     *pgx.Conn
	chunk    int    // ChunkRows
	feed     string // delta.enableChangeDataFeed of new sources
	alerts   syncedtable.Alerts
	open     func(context.Context, string) (blob.Store, error) // of sources; nil = openDir

	keeper *syncedtable.Keeper
	cancel context.CancelFunc
	done   chan struct{}
}

// computes gives connections to a scratch server in place of a compute's.
type computes struct {
	mu     sync.Mutex
	config postgres.Config
	before func() error // called before each connection
}

func (c *computes) Connect(ctx context.Context, _ tarn.BranchName, database string, cfg func(*pgx.ConnConfig)) (*pgx.Conn, error) {
	c.mu.Lock()
	before := c.before
	c.mu.Unlock()
	if before != nil {
		if err := before(); err != nil {
			return nil, err
		}
	}
	pc, err := pgx.ParseConfig(pgtest.ConnString(c.config, database))
	if err != nil {
		return nil, err
	}
	if cfg != nil {
		cfg(pc)
	}
	return pgx.ConnectConfig(ctx, pc)
}

func (c *computes) ComputeOf(context.Context, tarn.BranchName) (tarn.ComputeStatus, error) {
	return tarn.ComputeStatus{State: tarn.ComputeActive}, nil
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
	config postgres.Config
	admin  *pgx.Conn
	worlds int
}

func newLab(t *testing.T, in postgres.Install) *lab {
	t.Helper()
	o := pgtest.Options{Throwaway: true, Dir: pgtest.Dir(t)}
	_, conn := pgtest.StartWith(t, in, o)
	l := &lab{in: in, config: pgtest.Config(t, in, o)}
	var err error
	l.admin, err = pgx.Connect(t.Context(), conn)
	check(t, err)
	t.Cleanup(func() { l.admin.Close(context.Background()) })
	for _, sql := range []string{
		"CREATE ROLE databricks_superuser", "GRANT pg_read_all_data, pg_write_all_data TO databricks_superuser",
		`CREATE ROLE "ada@example.com" LOGIN CREATEROLE IN ROLE databricks_superuser`, "CREATE ROLE reader LOGIN", "CREATE ROLE writer LOGIN IN ROLE databricks_superuser",
	} {
		l.exec(t, sql)
	}
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
	w := &world{t: t, feed: "false", branch: tarn.BranchName{Project: "shop", Branch: "production"}, database: fmt.Sprintf("app%d", l.worlds), computes: &computes{config: l.config}}
	ctx := t.Context()
	control := fmt.Sprintf("control%d", l.worlds)
	l.exec(t, "CREATE DATABASE "+w.database)
	l.exec(t, "CREATE DATABASE "+control)
	var err error
	w.db, err = controldb.Open(ctx, pgtest.ConnString(l.config, control))
	check(t, err)
	t.Cleanup(w.db.Close)
	w.catalog = catalog.New(w.db)
	check(t, w.catalog.EnsureDefault(ctx, "file://"+t.TempDir()))
	_, err = controldb.InsertProject(ctx, w.db, tarn.Project{ProjectSpec: tarn.ProjectSpec{Name: w.branch.Parent(), PGVersion: l.in.Major}, UID: uuid.NewString(), Owner: "ada@example.com"})
	check(t, err)
	for _, b := range []tarn.BranchName{w.branch, w.branch.Parent().Branch("dev")} {
		_, err = controldb.InsertBranch(ctx, w.db, tarn.Branch{BranchSpec: tarn.BranchSpec{Name: b}, UID: uuid.NewString(),
			Default: b == w.branch, Timeline: tarn.TimelineID(strings.ReplaceAll(uuid.NewString(), "-", ""))})
		check(t, err)
	}
	w.conn = w.connect(tarn.Superuser)
	w.start()
	t.Cleanup(w.kill)
	return w
}

func openDir(_ context.Context, location string) (blob.Store, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, err
	}
	return dir.Open(u.Path)
}

func (w *world) openStore(ctx context.Context, location string) (blob.Store, error) {
	if w.open != nil {
		return w.open(ctx, location)
	}
	return openDir(ctx, location)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v (%s)", err, tarn.HintOf(err))
	}
}

func (w *world) connect(user string) *pgx.Conn {
	w.t.Helper()
	pc, err := pgx.ParseConfig(pgtest.ConnString(w.computes.config, w.database))
	check(w.t, err)
	pc.User = user
	c, err := pgx.ConnectConfig(w.t.Context(), pc)
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

// text reads one value.
func (w *world) text(sql string, args ...any) string {
	w.t.Helper()
	var s *string
	if err := w.conn.QueryRow(w.t.Context(), sql, args...).Scan(&s); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	if s == nil {
		return "NULL"
	}
	return *s
}

func (w *world) start() {
	w.t.Helper()
	level := slog.LevelError
	if os.Getenv("SYNC_LOG") != "" {
		level = slog.LevelDebug
	}
	w.keeper = syncedtable.New(syncedtable.Config{
		DB: w.db, Catalog: w.catalog, Computes: w.computes, OpenStore: w.openStore, Poll: 50 * time.Millisecond, ChunkRows: w.chunk, Alerts: w.alerts,
		Log: slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: level})),
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

func (w *world) kill() {
	if w.cancel != nil {
		w.cancel()
		<-w.done
		w.cancel = nil
	}
}

func lake(table string) tarn.TableName {
	return tarn.TableName{Catalog: "lake", Schema: "gold", Table: table}
}

// source is a Delta table that tests write.
type source struct {
	w     *world
	table *delta.Table
}

// source makes lake.gold.<name>.
func (w *world) source(name string, fields ...delta.Field) *source {
	w.t.Helper()
	entry, err := w.catalog.CreateTable(w.t.Context(), tarn.Principal{Name: "ada@example.com"}, lake(name), "", "")
	check(w.t, err)
	store, err := openDir(w.t.Context(), entry.Location)
	check(w.t, err)
	d, err := delta.Create(w.t.Context(), store, "", delta.Metadata{Name: name, Schema: delta.Schema{Fields: fields},
		Properties: map[string]string{"delta.enableChangeDataFeed": w.feed}})
	check(w.t, err)
	return &source{w, d}
}

func col(name, typ string) delta.Field { return delta.Field{Name: name, Type: typ, Nullable: true} }

// mode says what a write does to the rows before.
type mode int

const (
	add mode = iota
	replace
)

// write commits rows given as JSON objects, one a line.
func (s *source) write(m mode, rows string) {
	s.w.t.Helper()
	snap, err := s.table.Latest(s.w.t.Context())
	check(s.w.t, err)
	schema, err := snap.Schema().Arrow()
	check(s.w.t, err)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for line := range strings.Lines(rows) {
		if line = strings.TrimSpace(line); line != "" {
			check(s.w.t, b.UnmarshalJSON([]byte(line)))
		}
	}
	s.commit(m, b.NewRecordBatch())
}

func (s *source) commit(m mode, rec arrow.RecordBatch) {
	s.w.t.Helper()
	defer rec.Release()
	snap, err := s.table.Latest(s.w.t.Context())
	check(s.w.t, err)
	tx := s.table.Begin(snap)
	if m == replace {
		tx.Overwrite()
	}
	check(s.w.t, tx.Append(s.w.t.Context(), rec))
	_, err = tx.Commit(s.w.t.Context(), delta.CommitOptions{})
	check(s.w.t, err)
}

// numbers writes rows (i, v) for i in [0, n).
func (s *source) numbers(m mode, n int, v string) {
	s.w.t.Helper()
	snap, err := s.table.Latest(s.w.t.Context())
	check(s.w.t, err)
	schema, err := snap.Schema().Arrow()
	check(s.w.t, err)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for i := range n {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		b.Field(1).(*array.StringBuilder).Append(v)
	}
	s.commit(m, b.NewRecordBatch())
}

func (w *world) spec(table string, key ...string) tarn.SyncedTableSpec {
	return tarn.SyncedTableSpec{
		Name: tarn.TableName{Catalog: "lake", Schema: "public", Table: table}, Source: lake(table), PrimaryKey: key, Branch: w.branch, Database: w.database,
	}
}

func (w *world) create(s tarn.SyncedTableSpec) {
	w.t.Helper()
	t, err := w.keeper.Create(w.t.Context(), tarn.Principal{Name: "ada@example.com"}, s)
	check(w.t, err)
	if t.State != tarn.SyncProvisioning || t.PipelineID == "" || t.Version != -1 {
		w.t.Errorf("created as %+v", t)
	}
}

func (w *world) refresh(n tarn.TableName) {
	w.t.Helper()
	_, err := w.keeper.Refresh(w.t.Context(), n, tarn.RefreshNew)
	check(w.t, err)
}

func (w *world) get(table string) tarn.SyncedTable {
	w.t.Helper()
	x, err := w.keeper.Get(w.t.Context(), w.spec(table).Name)
	check(w.t, err)
	return x
}

// reaches waits for a state, and for a version when that is online.
func (w *world) reaches(table string, state tarn.SyncState, version int64) tarn.SyncedTable {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%s %s at version %d", table, state, version), func() any { return w.get(table) }, func() bool {
		x := w.get(table)
		if x.State.Failed() && !state.Failed() {
			w.t.Fatalf("%s is %s: %s", table, x.State, x.Message)
		}
		return x.State == state && (state != tarn.SyncOnline && state != tarn.SyncContinuing || x.Version == version)
	})
	return w.get(table)
}

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

// saveDatabase keeps a copy of the database as it is.
func (w *world) saveDatabase() { w.copyDatabase(w.database, w.database+"_saved") }

// restoreDatabase puts the copy in the database's place.
func (w *world) restoreDatabase() { w.copyDatabase(w.database+"_saved", w.database) }

func (w *world) copyDatabase(from, to string) {
	w.t.Helper()
	ctx := w.t.Context()
	w.conn.Close(ctx)
	pc, err := pgx.ParseConfig(pgtest.ConnString(w.computes.config, "postgres"))
	check(w.t, err)
	admin, err := pgx.ConnectConfig(ctx, pc)
	check(w.t, err)
	defer admin.Close(ctx)
	for _, sql := range []string{"DROP DATABASE IF EXISTS " + to + " WITH (FORCE)", "CREATE DATABASE " + to + " TEMPLATE " + from} {
		_, err := admin.Exec(ctx, sql)
		check(w.t, err)
	}
	w.conn = w.connect(tarn.Superuser)
}

// vacuum deletes the data files that the newest version does not need.
func (s *source) vacuum() {
	s.w.t.Helper()
	ctx := s.w.t.Context()
	entry, err := s.w.catalog.Table(ctx, lake("t"))
	check(s.w.t, err)
	u, err := url.Parse(entry.Location)
	check(s.w.t, err)
	newest := ""
	var files []string
	check(s.w.t, filepath.WalkDir(u.Path, func(p string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(p, ".parquet") && !strings.Contains(p, "_delta_log") {
			files = append(files, p)
		}
		return err
	}))
	b, err := os.ReadFile(filepath.Join(u.Path, "_delta_log", fmt.Sprintf("%020d.json", s.version())))
	check(s.w.t, err)
	newest = string(b)
	for _, f := range files {
		i := strings.Index(newest, `"add":{"path":"`+filepath.Base(f))
		if i < 0 {
			check(s.w.t, os.Remove(f))
		}
	}
}
