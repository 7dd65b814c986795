// Package warehouse runs SQL over the lake: Delta tables through our own planning
// of their files, tables of registered Postgres databases with the rights of who
// asks, and both in one statement. DuckDB computes, in a process of its own (see
// package engine); this package decides what a statement may see, makes views of
// it, and keeps results until they are fetched. It knows no HTTP.
//
// A statement on its way:
//
//  1. it is cut into tokens, and what DuckDB writes otherwise is rewritten
//  2. DuckDB's parser names the tables; each is resolved for the principal, who
//     must have SELECT on it
//  3. every table becomes a view: exact files of one version, or rows of Postgres
//     that were copied into a file
//  4. DuckDB runs it in a database that can open those files and no other
//  5. the result is kept in chunks, as Arrow streams, for an hour
//
// A crash of this process forgets results; what a statement committed stays.
package warehouse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/warehouse/duck"
	"github.com/tarndb/tarn/internal/warehouse/engine"
)

// Config is what a warehouse stands on and its limits.
type Config struct {
	Catalog   *catalog.Catalog
	OpenTable func(ctx context.Context, location string) (*delta.Table, error)
	OpenStore func(ctx context.Context, location string) (blob.Store, error) // a new table's folder
	// Connect opens a connection to a registered database as the principal.
	Connect func(ctx context.Context, who tarn.Principal, b tarn.BranchName, database string) (*pgx.Conn, error)
	Command func(engine.Options) *exec.Cmd // the engine's process
	Journal Journal                        // told of every statement; nil = nobody is
	Audit   Audit                          // told of changes of the catalog and of refusals; nil = nobody is

	Dir     string        // of the warehouse alone; results and what is spilled
	Run     string        // short directory of the process's socket
	Library string        // path of libduckdb; "" = found
	Memory  int64         // bytes of all statements together; 0 = a quarter of the computer's
	Threads int           // 0 = all processors
	Slots   int           // statements that run at once, others wait; 0 = 8
	Idle    time.Duration // after which the process stops; 0 = 10 minutes
	Keep    time.Duration // how long results are kept; 0 = 1 hour
	Log     *slog.Logger  // nil = discard
}

// Journal keeps what statements were run.
type Journal interface {
	Record(ctx context.Context, r Record) error
	// Records gives the newest that were submitted before a time; principal "" =
	// everybody's.
	Records(ctx context.Context, principal string, before time.Time, limit int) ([]Record, error)
}

// Warehouse runs statements. It is safe for concurrent use.
type Warehouse struct {
	config  Config
	process *engine.Process
	footers delta.Footers
	slots   chan struct{}

	mu         sync.Mutex // guards the rest; not held across I/O
	statements map[string]*Statement
	tables     map[string]*delta.Table // by location
	reserved   int64                   // bytes of memory of running statements
	active     int
	used       time.Time // when the last statement ended
	base       context.Context
	running    sync.WaitGroup
}

// mostTables bounds the open tables that are remembered.
const mostTables = 256

// New builds a warehouse; its process starts with the first statement.
func New(c Config) *Warehouse {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Library == "" {
		c.Library = duck.Find("")
	}
	if c.Memory == 0 {
		c.Memory = systemMemory() / 4
	}
	if c.Threads == 0 {
		c.Threads = runtime.GOMAXPROCS(0)
	}
	if c.Slots == 0 {
		c.Slots = 8
	}
	if c.Idle == 0 {
		c.Idle = 10 * time.Minute
	}
	if c.Keep == 0 {
		c.Keep = time.Hour
	}
	return &Warehouse{
		config: c, slots: make(chan struct{}, c.Slots), statements: map[string]*Statement{}, tables: map[string]*delta.Table{},
		process: engine.NewProcess(engine.Options{Library: c.Library, Dir: c.Run, Threads: c.Threads}, c.Command, c.Log),
		base:    context.Background(), used: time.Now(),
	}
}

// Run stops the process when it is idle and forgets old results, until ctx ends;
// then it ends every statement.
func (w *Warehouse) Run(ctx context.Context) error {
	// What an earlier process left nobody can fetch any more.
	if err := os.RemoveAll(w.config.Dir); err != nil {
		w.config.Log.WarnContext(ctx, "old results not removed", "path", w.config.Dir, "err", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	w.mu.Lock()
	w.base = ctx
	w.mu.Unlock()
	defer func() {
		cancel(tarn.Unavailable("the server stops"))
		w.running.Wait()
		w.process.Stop()
	}()
	tick := time.NewTicker(min(w.config.Idle, time.Minute) / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			w.tidy(now)
		}
	}
}

// tidy does what time asks for.
func (w *Warehouse) tidy(now time.Time) {
	w.mu.Lock()
	idle := w.active == 0 && now.Sub(w.used) >= w.config.Idle
	var old []*Statement
	for id, s := range w.statements {
		if end := s.ended(); !end.IsZero() && now.Sub(end) >= w.config.Keep {
			old = append(old, s)
			delete(w.statements, id)
		}
	}
	w.mu.Unlock()
	for _, s := range old {
		if err := os.RemoveAll(s.dir); err != nil {
			w.config.Log.Warn("result not removed", "path", s.dir, "err", err)
		}
	}
	if idle && w.process.Running() {
		w.process.Stop()
		w.config.Log.Info("warehouse process stopped: idle", "path", w.config.Run)
	}
}

// State is what the warehouse's process does.
func (w *Warehouse) State() string {
	if w.process.Running() {
		return "RUNNING"
	}
	return "STOPPED"
}

// Active counts the statements that run or wait.
func (w *Warehouse) Active() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.active
}

// Limits gives memory, threads, slots and the idle time.
func (w *Warehouse) Limits() Config { return w.config }

// Start starts the process. KindUnavailable says what is missing.
func (w *Warehouse) Start(ctx context.Context) error {
	if w.config.Library == "" {
		return tarn.Unavailable("DuckDB is not installed").WithHint("scripts/setup.sh run fetches it; or let TARN_DUCKDB name a libduckdb.so of DuckDB 1.5 and restart Tarn")
	}
	return w.process.Start(ctx)
}

// Stop ends the process, and every statement with it.
func (w *Warehouse) Stop() {
	w.mu.Lock()
	all := make([]*Statement, 0, len(w.statements))
	for _, s := range w.statements {
		all = append(all, s)
	}
	w.mu.Unlock()
	for _, s := range all {
		s.cancel(errStopped)
	}
	w.process.Stop()
}

var errStopped = tarn.Unavailable("the warehouse was stopped")

// open gives a table of a location; one object for it remembers what it read.
func (w *Warehouse) open(ctx context.Context, location string) (*delta.Table, error) {
	w.mu.Lock()
	t := w.tables[location]
	w.mu.Unlock()
	if t != nil {
		return t, nil
	}
	t, err := w.config.OpenTable(ctx, location)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.tables) >= mostTables {
		clear(w.tables)
	}
	w.tables[location] = t
	return t, nil
}

// reserve takes memory for a statement: half of what is free, so that one alone
// has much and several have some.
func (w *Warehouse) reserve() (int64, func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := max((w.config.Memory-w.reserved)/2, w.config.Memory/64, 32<<20)
	w.reserved += n
	return n, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.reserved -= n
	}
}

// Submit begins a statement and returns at once.
func (w *Warehouse) Submit(who tarn.Principal, q Request) (*Statement, error) {
	if w.config.Library == "" {
		return nil, w.Start(context.Background())
	}
	if err := q.complete(); err != nil {
		return nil, err
	}
	s := &Statement{ID: uuid.NewString(), Who: who, Request: q, w: w, done: make(chan struct{}), submitted: time.Now().UTC(), state: Pending}
	s.dir = filepath.Join(w.config.Dir, s.ID)
	w.mu.Lock()
	ctx, cancel := context.WithCancelCause(w.base)
	s.cancel = cancel
	w.statements[s.ID] = s
	w.active++
	w.running.Add(1)
	w.mu.Unlock()
	go func() { // joined by Run
		defer w.running.Done()
		s.run(ctx)
		w.mu.Lock()
		w.active--
		w.used = time.Now()
		w.mu.Unlock()
	}()
	return s, nil
}

// Statement finds a statement of the principal; an admin sees all. KindNotFound,
// also for one whose result is no longer kept.
func (w *Warehouse) Statement(who tarn.Principal, id string) (*Statement, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.statements[id]
	if s == nil || s.Who.Name != who.Name && !who.Admin {
		return nil, tarn.NotFound("there is no statement %s, or its result is no longer kept", id)
	}
	return s, nil
}

// Statements lists the statements that are kept, newest first.
func (w *Warehouse) Statements(who tarn.Principal) []*Statement {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []*Statement
	for _, s := range w.statements {
		if s.Who.Name == who.Name || who.Admin {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b *Statement) int { return b.submitted.Compare(a.submitted) })
	return out
}

// History gives the newest statements that were submitted before a time, those
// that run included; an admin sees everybody's.
func (w *Warehouse) History(ctx context.Context, who tarn.Principal, before time.Time, limit int) ([]Record, error) {
	var out []Record
	seen := map[string]bool{}
	for _, s := range w.Statements(who) {
		if r := s.Record(); r.Submitted.Before(before) && !seen[r.ID] {
			seen[r.ID] = true
			out = append(out, r)
		}
	}
	if w.config.Journal != nil {
		name := who.Name
		if who.Admin {
			name = ""
		}
		older, err := w.config.Journal.Records(ctx, name, before, limit)
		if err != nil {
			return nil, err
		}
		for _, r := range older {
			if !seen[r.ID] {
				out = append(out, r)
			}
		}
	}
	slices.SortFunc(out, func(a, b Record) int { return b.Submitted.Compare(a.Submitted) })
	return out[:min(len(out), limit)], nil
}

// run does the statement, from waiting for a slot to its end.
func (s *Statement) run(ctx context.Context) {
	err := s.work(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	s.finish(err)
	s.cancel(nil)
	if s.w.config.Journal == nil {
		return
	}
	// The end of a statement is told even while the server stops.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := s.w.config.Journal.Record(ctx, s.Record()); err != nil {
		s.w.config.Log.WarnContext(ctx, "statement not recorded", "err", err)
	}
}

func (s *Statement) work(ctx context.Context) (err error) {
	select {
	case s.w.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-s.w.slots }()
	s.begin()
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("keep the result: %w", err)
	}
	sc := &scene{w: s.w, who: s.Who, catalog: s.Catalog, schema: s.Schema, stage: &stage{dir: filepath.Join(s.dir, "stage")}, versions: map[string]int64{}}
	defer func() { err = errors.Join(err, sc.stage.clear()) }()
	c := &command{scene: sc, statement: s}
	err = c.do(ctx)
	c.audited(ctx, err)
	if err == nil {
		c.traced(ctx)
	}
	return err
}

// query runs a SELECT and hands its batches out.
func (s *scene) query(ctx context.Context, id, sql, prefix string, params []Parameter, do func(*engine.Rows) error) error {
	types := map[string]string{}
	var values []engine.Param
	for _, p := range params {
		types[p.Name] = p.duckType()
		values = append(values, engine.Param{Name: p.Name, Text: p.Value})
	}
	r, err := rewrite(sql, types)
	if err != nil {
		return err
	}
	answer, err := s.w.process.Parse(ctx, r.sql)
	if err != nil {
		return err
	}
	t, err := parseTree(answer, r, sql)
	if err != nil {
		return err
	}
	if err := s.show(ctx, t, sql); err != nil {
		return err
	}
	s.lineage.from = t.outputs
	memory, release := s.w.reserve()
	defer release()
	rows, err := s.w.process.Run(ctx, engine.Statement{
		ID: id, Memory: memory, Threads: s.w.config.Threads, Paths: s.paths, Prepare: s.prepare, SQL: prefix + r.sql, Params: values,
	})
	if err != nil {
		return s.explain(err, r, sql, len(prefix))
	}
	defer rows.Close()
	return s.explain(do(rows), r, sql, len(prefix))
}

// drain does something with every batch.
func drain(rows *engine.Rows, do func(arrowBatch) error) error {
	for {
		rec, err := rows.Next()
		if err != nil {
			return err
		}
		if err := do(rec); err != nil {
			return err
		}
	}
}
