// Package feed follows one Postgres schema into Delta tables, every change
// once, in commit order: each table s.t becomes the append-only history
// catalog.schema.lb_t_history, one row per inserted, updated (before and
// after), deleted or truncated row, and five columns that say what, where in the
// WAL, by whom and when, plus _sort_by, whose text order is the commit order.
//
// It knows replication slots, pgoutput, how Postgres values become Delta ones
// and how far each Delta table is. It does not know how a compute runs, who may
// ask, nor how Delta or the catalog keep what they are given.
//
// What happens once: a Delta commit carries, as its app transaction, the end of
// the last transaction in it. The slot is confirmed after every table's commit.
// Whatever dies in between, the slot repeats and the table's own app
// transaction says what to skip.
package feed

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
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
	// CameBack tells how far a branch came back from an object store when its
	// computer had been lost; 0 = it never was. nil = none ever does.
	CameBack func(ctx context.Context, b tarn.BranchName) (tarn.LSN, error)
	Log      *slog.Logger  // nil = slog.Default
	Flush    time.Duration // a change is in Delta about this long after its commit; 0 = 2 s
	Poll     time.Duration // how often new tables, computes and requests are looked for; 0 = 1 s
	SpoolDir string        // where large transactions wait for their commit; "" = the system's temporary directory
	Upkeep   time.Duration // how often derived tables are refreshed and small files looked at; 0 = 30 s
	Chunk    int64         // blocks of 8 KiB of a table that are copied by one commit; 0 = 16384 (128 MiB)
}

// Keeper keeps every feed of a workspace.
type Keeper struct {
	db          *controldb.DB
	catalog     *catalog.Catalog
	computes    Computes
	openStore   func(ctx context.Context, url string) (blob.Store, error)
	cameBack    func(ctx context.Context, b tarn.BranchName) (tarn.LSN, error)
	log         *slog.Logger
	flush       time.Duration
	poll        time.Duration
	spoolDir    string
	chunkBlocks int64
	upkeep      time.Duration
	changed     chan struct{} // a feed was asked for
	bare        bool          // slots are made without a pilot, as only a test wants it

	mu sync.Mutex // not held across I/O
	// running are the followers of this process, by the feed's UID. A feed
	// being deleted has an entry, too, so that nobody starts to follow it.
	running map[string]*follower
}

// New builds a keeper; Run makes it work.
func New(c Config) *Keeper {
	k := &Keeper{
		db: c.DB, catalog: c.Catalog, computes: c.Computes, openStore: c.OpenStore, cameBack: c.CameBack,
		log: c.Log, flush: c.Flush, poll: c.Poll, spoolDir: c.SpoolDir, chunkBlocks: c.Chunk, upkeep: c.Upkeep,
		changed: make(chan struct{}, 1), running: map[string]*follower{},
	}
	if k.cameBack == nil {
		k.cameBack = func(context.Context, tarn.BranchName) (tarn.LSN, error) { return 0, nil }
	}
	if k.log == nil {
		k.log = slog.Default()
	}
	if k.flush <= 0 {
		k.flush = 2 * time.Second
	}
	if k.chunkBlocks <= 0 {
		k.chunkBlocks = chunkBlocks
	}
	if k.upkeep <= 0 {
		k.upkeep = 30 * time.Second
	}
	if k.poll <= 0 {
		k.poll = time.Second
	}
	return k
}

var idPattern = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// Create records a feed; Run begins it as soon as the branch's compute is
// active. KindInvalid, KindNotFound (branch, catalog), KindConflict.
func (k *Keeper) Create(ctx context.Context, _ tarn.Principal, s tarn.FeedSpec) (tarn.Feed, error) {
	if s.ID == "" {
		s.ID = s.PostgresSchema
	}
	if s.Database == "" {
		s.Database = tarn.DefaultDatabase
	}
	switch {
	case s.PostgresSchema == "":
		return tarn.Feed{}, tarn.Invalid("create feed: no Postgres schema given")
	case !idPattern.MatchString(s.ID):
		return tarn.Feed{}, tarn.Invalid("create feed %q: an id has 1 to 63 characters, first a lower-case letter, then lower-case letters, digits or underscores", s.ID)
	case strings.HasPrefix(s.PostgresSchema, "pg_") || s.PostgresSchema == "information_schema" || s.PostgresSchema == "tarn_sync":
		return tarn.Feed{}, tarn.Invalid("create feed %s: Postgres schema %s belongs to the system", s.ID, s.PostgresSchema)
	}
	if err := s.Check(); err != nil {
		return tarn.Feed{}, fmt.Errorf("create feed %s: %w", s.ID, err)
	}
	if _, err := tarn.ParseTableName(s.Catalog + "." + s.Schema + ".t"); err != nil {
		return tarn.Feed{}, tarn.Invalid("create feed %s: catalog %q and schema %q do not name a schema", s.ID, s.Catalog, s.Schema)
	}
	return k.create(ctx, s)
}

func (k *Keeper) create(ctx context.Context, s tarn.FeedSpec) (tarn.Feed, error) {
	catalogs, err := k.catalog.Catalogs(ctx)
	if err != nil {
		return tarn.Feed{}, fmt.Errorf("create feed %s: %w", s.ID, err)
	}
	found := false
	for _, c := range catalogs {
		found = found || c == s.Catalog
	}
	if !found {
		return tarn.Feed{}, tarn.NotFound("create feed %s: catalog %s does not exist", s.ID, s.Catalog)
	}
	all, err := controldb.ListFeeds(ctx, k.db, tarn.BranchName{})
	if err != nil {
		return tarn.Feed{}, fmt.Errorf("create feed %s: %w", s.ID, err)
	}
	for _, o := range all {
		if o.Catalog == s.Catalog && o.Schema == s.Schema && (o.Branch != s.Branch || o.ID != s.ID) {
			return tarn.Feed{}, tarn.Conflict("create feed %s: feed %s of %s writes to %s.%s already; two feeds would mix their histories", s.ID, o.ID, o.Branch, s.Catalog, s.Schema).
				WithHint("choose another catalog schema")
		}
	}
	// Slots and publications are named after the UID: no hyphens.
	f, err := controldb.InsertFeed(ctx, k.db, tarn.Feed{FeedSpec: s, UID: strings.ReplaceAll(uuid.NewString(), "-", "")})
	if err != nil {
		return tarn.Feed{}, fmt.Errorf("create feed %s: %w", s.ID, err)
	}
	// A crash in between is made good when the feed is first followed.
	if err := k.newFollower(f, func(error) {}).pipeline(ctx); err != nil {
		return tarn.Feed{}, fmt.Errorf("create feed %s: %w", s.ID, err)
	}
	k.wake()
	return f, nil
}

// Get gives a feed with its tables. KindNotFound.
func (k *Keeper) Get(ctx context.Context, b tarn.BranchName, id string) (tarn.Feed, error) {
	return controldb.GetFeed(ctx, k.db, b, id)
}

// List gives the feeds of one branch; the zero name = all.
func (k *Keeper) List(ctx context.Context, b tarn.BranchName) ([]tarn.Feed, error) {
	return controldb.ListFeeds(ctx, k.db, b)
}

// Retention of the Delta tables when their feed is deleted.
type Retention int

// What becomes of the Delta tables.
const (
	KeepTables  Retention = iota
	PurgeTables           // entries and files are removed
)

// Delete ends a feed: its slot and publication go, waking the compute if it
// sleeps, then the tables if asked, then the feed. When it returns an error the
// feed goes on; asking again is safe.
func (k *Keeper) Delete(ctx context.Context, b tarn.BranchName, id string, r Retention) error {
	row, err := k.Get(ctx, b, id)
	if err != nil {
		return err
	}
	f, err := k.claim(ctx, row)
	if err != nil {
		return err
	}
	defer k.release(f)
	if err := f.remove(ctx, r); err != nil {
		return fmt.Errorf("delete feed %s: %w", id, err)
	}
	return nil
}

// wake makes Run look at once.
func (k *Keeper) wake() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}
