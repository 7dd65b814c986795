// Package syncedtable keeps a Postgres table equal to a Delta table: by loading
// a whole version beside the old rows, which takes their place in one
// transaction, or by applying what changed since the version that is there. No
// reader sees half of a version, but of a large one that several connections
// apply.
//
// It knows how Arrow values become Postgres ones, COPY's binary format, and
// what must survive a change of rows: grants, indexes, views. It does not know
// how a compute runs, how the catalog stores names, nor how Delta keeps rows.
//
// How far a synced table is stands in the database it is written to
// (tarn_sync.position), in the transaction that made it so; the row in the
// control database only reports it.
package syncedtable

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/controldb"
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
	ChunkRows int           // changes applied in one transaction, about; 0 = 50 000
	Alerts    Alerts        // of the workspace: told of every synced table's
}

// Keeper keeps every synced table of a workspace.
type Keeper struct {
	db        *controldb.DB
	catalog   *catalog.Catalog
	computes  Computes
	openStore func(ctx context.Context, url string) (blob.Store, error)
	log       *slog.Logger
	poll      time.Duration
	alerts    Alerts
	budget    *budget
	chunkRows int
	slots     chan struct{} // one token per load that may run
	changed   chan struct{}

	mu sync.Mutex // not held across I/O
	// running are the loads of this process, by UID; a table being deleted
	// has an entry, too, so that nobody loads it.
	running map[string]*worker
	watched map[string]*watch // by UID; what Run remembers of tables at rest
	trimmed time.Time         // when old records of pipelines were last removed
}

// New builds a keeper; Run makes it work.
func New(c Config) *Keeper {
	k := &Keeper{
		db: c.DB, catalog: c.Catalog, computes: c.Computes, openStore: c.OpenStore, log: c.Log, poll: c.Poll,
		changed: make(chan struct{}, 1), running: map[string]*worker{}, watched: map[string]*watch{}, alerts: c.Alerts, budget: newBudget(),
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
	if k.chunkRows = c.ChunkRows; k.chunkRows <= 0 {
		k.chunkRows = chunkRows
	}
	k.slots = make(chan struct{}, c.Loads)
	return k
}

// Get gives one synced table. KindNotFound.
func (k *Keeper) Get(ctx context.Context, n tarn.TableName) (tarn.SyncedTable, error) {
	return controldb.GetSyncedTable(ctx, k.db, n)
}

// List gives those of one project ("" = all).
func (k *Keeper) List(ctx context.Context, project string) ([]tarn.SyncedTable, error) {
	return controldb.ListSyncedTables(ctx, k.db, project)
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
