// Package syncedtable keeps a Postgres table equal to a Delta table, by
// snapshots: a whole version is loaded beside the old table and takes its place
// in one transaction, so that no reader ever sees half of it.
//
// It knows how Arrow values become Postgres ones, COPY's binary format, and
// what must survive a change of tables: grants, indexes, views. It does not know
// how a compute runs, how the catalog stores names, nor how Delta keeps rows.
//
// How far a synced table is stands in the database it is written to
// (tarn_sync.position), in the transaction that made it so; the row in the
// control database only reports it.
package syncedtable

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
)

// Computes is what a keeper needs of the computes.
type Computes interface {
	// Connect opens a superuser connection to a database of a branch, waking
	// its compute when it sleeps.
	Connect(ctx context.Context, b tarn.BranchName, database string, cfg func(*pgx.ConnConfig)) (*pgx.Conn, error)
	// ComputeOf reports the branch's read-write compute without waking it.
	ComputeOf(ctx context.Context, b tarn.BranchName) (tarn.ComputeStatus, error)
}

// Config builds a Keeper.
type Config struct {
	DB        *controldb.DB
	Catalog   *catalog.Catalog
	Computes  Computes
	OpenStore func(ctx context.Context, url string) (blob.Store, error)
	Log       *slog.Logger  // nil = slog.Default
	Poll      time.Duration // how often requests are looked for; 0 = 1 s
	Loads     int           // tables loaded at once; 0 = 4
}

// Keeper keeps every synced table of a workspace.
type Keeper struct {
	db        *controldb.DB
	catalog   *catalog.Catalog
	computes  Computes
	openStore func(ctx context.Context, url string) (blob.Store, error)
	log       *slog.Logger
	poll      time.Duration
	slots     chan struct{} // one token per load that may run
	changed   chan struct{}

	mu sync.Mutex // not held across I/O
	// running are the loads of this process, by UID; a table being deleted
	// has an entry, too, so that nobody loads it.
	running map[string]*worker
}

// New builds a keeper; Run makes it work.
func New(c Config) *Keeper {
	k := &Keeper{
		db: c.DB, catalog: c.Catalog, computes: c.Computes, openStore: c.OpenStore, log: c.Log, poll: c.Poll,
		changed: make(chan struct{}, 1), running: map[string]*worker{},
	}
	if k.log == nil {
		k.log = slog.Default()
	}
	if k.poll <= 0 {
		k.poll = time.Second
	}
	if c.Loads <= 0 {
		c.Loads = 4
	}
	k.slots = make(chan struct{}, c.Loads)
	return k
}

// reserved are Postgres schemas that no synced table may be written to.
func reserved(schema string) bool {
	return strings.HasPrefix(schema, "pg_") || schema == "information_schema" || schema == trackingSchema
}

// Create validates and records a synced table; Run loads it. Nothing is
// changed when it fails. KindInvalid, KindNotFound, KindConflict.
func (k *Keeper) Create(ctx context.Context, who tarn.Principal, s tarn.SyncedTableSpec) (tarn.SyncedTable, error) {
	t, err := k.create(ctx, who, s)
	if err != nil {
		return tarn.SyncedTable{}, fmt.Errorf("create synced table %s: %w", s.Name, err)
	}
	k.wake()
	return t, nil
}

func (k *Keeper) create(ctx context.Context, who tarn.Principal, s tarn.SyncedTableSpec) (tarn.SyncedTable, error) {
	if s.Policy == "" {
		s.Policy = tarn.SyncSnapshot
	}
	if s.Database == "" {
		s.Database = tarn.DefaultDatabase
	}
	switch {
	case s.Policy != tarn.SyncSnapshot:
		return tarn.SyncedTable{}, tarn.Invalid("scheduling policy %s is not supported yet: use SNAPSHOT and refresh the table when its source has changed", s.Policy)
	case len(s.PrimaryKey) == 0:
		return tarn.SyncedTable{}, tarn.Invalid("at least one primary key column is needed")
	case len(s.Name.Schema) > maxIdentifier || len(s.Name.Table) > maxIdentifier:
		return tarn.SyncedTable{}, tarn.Invalid("schema and table names of a Postgres table have at most %d bytes", maxIdentifier)
	case reserved(s.Name.Schema):
		return tarn.SyncedTable{}, tarn.Invalid("Postgres schema %s belongs to the system", s.Name.Schema)
	}
	branch, err := controldb.GetBranch(ctx, k.db, s.Branch)
	if err == nil && branch.State == tarn.BranchDeleted {
		err = tarn.NotFound("branch %s is being deleted", s.Branch)
	}
	if err != nil {
		return tarn.SyncedTable{}, err
	}
	snap, err := k.source(ctx, s.Source)
	if err != nil {
		return tarn.SyncedTable{}, err
	}
	if s.PrimaryKey, err = checkSource(snap, s.Source, s.PrimaryKey); err != nil {
		return tarn.SyncedTable{}, err
	}
	if _, err := k.catalog.Table(ctx, s.Name); err == nil {
		return tarn.SyncedTable{}, tarn.Conflict("the catalog has a table of that name already")
	} else if tarn.KindOf(err) != tarn.KindNotFound {
		return tarn.SyncedTable{}, err
	}
	if err := k.checkTarget(ctx, s); err != nil {
		return tarn.SyncedTable{}, err
	}
	return controldb.InsertSyncedTable(ctx, k.db, who.Name, tarn.SyncedTable{SyncedTableSpec: s, State: tarn.SyncProvisioning, Version: -1})
}

// source opens the newest version of a Delta table by its catalog name.
func (k *Keeper) source(ctx context.Context, n tarn.TableName) (*delta.Snapshot, error) {
	entry, err := k.catalog.Table(ctx, n)
	if err != nil {
		return nil, err
	}
	store, err := k.openStore(ctx, entry.Location)
	if err != nil {
		return nil, fmt.Errorf("open source %s: %w", n, err)
	}
	t, err := delta.Open(ctx, store, "")
	if errors.Is(err, delta.ErrNotTable) {
		return nil, tarn.Invalid("source %s has no Delta table at %s", n, entry.Location)
	}
	if err != nil {
		return nil, refused(n, err)
	}
	s, err := t.Latest(ctx)
	if err != nil {
		return nil, refused(n, err)
	}
	return s, nil
}

// refused makes an error of the table itself the asker's, not a passing one.
func refused(n tarn.TableName, err error) error {
	if delta.IsRefusal(err) {
		return tarn.Invalid("source %s: %w", n, err)
	}
	return fmt.Errorf("open source %s: %w", n, err)
}

// checkSource answers the key columns as the source spells them.
func checkSource(snap *delta.Snapshot, n tarn.TableName, key []string) ([]string, error) {
	schema := snap.Schema()
	names, missing := resolveKey(schema, key)
	if missing != "" {
		have := make([]string, len(schema.Fields))
		for i, f := range schema.Fields {
			have[i] = f.Name
		}
		return nil, tarn.Invalid("source %s has no column %q for the primary key; its columns are %s", n, missing, strings.Join(have, ", "))
	}
	seen := map[string]bool{}
	for _, name := range names {
		if seen[name] {
			return nil, tarn.Invalid("column %q stands twice in the primary key", name)
		}
		seen[name] = true
		for _, f := range schema.Fields {
			if f.Name == name && nested(f.Type) {
				return nil, tarn.Invalid("column %q of source %s is nested and cannot be a key", name, n)
			}
		}
	}
	a, err := schema.Arrow()
	if err != nil {
		return nil, refused(n, err)
	}
	if _, err := columnsOf(schema, a, names); err != nil {
		return nil, tarn.Invalid("source %s: %w", n, err)
	}
	return names, nil
}

// checkTarget looks whether the Postgres name is free, if the compute is up; a
// sleeping one is not woken, the load looks again.
func (k *Keeper) checkTarget(ctx context.Context, s tarn.SyncedTableSpec) error {
	status, err := k.computes.ComputeOf(ctx, s.Branch)
	if err != nil || status.State != tarn.ComputeActive {
		return nil
	}
	conn, err := k.computes.Connect(ctx, s.Branch, s.Database, configure)
	if err != nil {
		return nil // the load says so, and tries again
	}
	defer closeConn(conn)
	return targetFree(ctx, conn, s.Name)
}

// Get gives one synced table. KindNotFound.
func (k *Keeper) Get(ctx context.Context, n tarn.TableName) (tarn.SyncedTable, error) {
	return controldb.GetSyncedTable(ctx, k.db, n)
}

// List gives those of one project ("" = all).
func (k *Keeper) List(ctx context.Context, project string) ([]tarn.SyncedTable, error) {
	return controldb.ListSyncedTables(ctx, k.db, project)
}

// Refresh asks for a load of the source's newest version. When that version is
// in the table already, nothing is loaded. KindConflict while a load runs.
func (k *Keeper) Refresh(ctx context.Context, n tarn.TableName) error {
	t, err := k.Get(ctx, n)
	if err != nil {
		return err
	}
	switch t.State {
	case tarn.SyncProvisioning, tarn.SyncInitialSnapshot, tarn.SyncUpdating:
		return tarn.Conflict("refresh synced table %s: it is being loaded", n)
	}
	t.State, t.Message = asked(t), ""
	if err := controldb.UpdateSyncedTable(ctx, k.db, t); err != nil {
		return fmt.Errorf("refresh synced table %s: %w", n, err)
	}
	k.wake()
	return nil
}

// Retention of the Postgres table when its synced table is deleted.
type Retention int

// What becomes of the Postgres table.
const (
	KeepData  Retention = iota // it stays, and becomes writable
	PurgeData                  // it is dropped
)

// Delete ends a synced table. Kept data needs no compute unless it was loaded;
// the compute is woken then. When it fails the synced table goes on; asking
// again is safe.
//
//  1. the load stops
//  2. the Postgres table is released or dropped, with its position
//  3. the row goes
func (k *Keeper) Delete(ctx context.Context, n tarn.TableName, r Retention) error {
	t, err := k.Get(ctx, n)
	if err != nil {
		return err
	}
	w, err := k.claim(ctx, t)
	if err != nil {
		return err
	}
	defer k.release(w)
	going, err := k.branchGoing(ctx, t.Branch)
	if err == nil && !going {
		err = w.leave(ctx, r)
	}
	if err == nil {
		err = controldb.DeleteSyncedTable(ctx, k.db, t.UID)
	}
	if err != nil && tarn.KindOf(err) != tarn.KindNotFound {
		return fmt.Errorf("delete synced table %s: %w", n, err)
	}
	return nil
}

// branchGoing reports that the branch is on its way out, with all in it.
func (k *Keeper) branchGoing(ctx context.Context, b tarn.BranchName) (bool, error) {
	branch, err := controldb.GetBranch(ctx, k.db, b)
	if tarn.KindOf(err) == tarn.KindNotFound {
		return true, nil
	}
	return branch.State == tarn.BranchDeleted, err
}

func (k *Keeper) wake() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}
