package feed

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
)

// optimizeEvery is how many commits of a history lie between two looks at its
// small files.
const optimizeEvery = 64

// upkeep does, beside the stream, what only reads histories: it keeps the
// tables derived from them and joins their small files. What fails is tried
// again in the next round; the stream goes on.
type upkeep struct {
	*follower
	tables  map[tarn.TableName]*delta.Table
	looked  map[tarn.TableName]int64 // version at the last look at small files
	without map[string]bool          // tables that were found to have no key
}

func (f *follower) newUpkeep() *upkeep {
	return &upkeep{follower: f, tables: map[tarn.TableName]*delta.Table{}, looked: map[tarn.TableName]int64{}, without: map[string]bool{}}
}

func (u *upkeep) run(ctx context.Context) {
	tick := time.NewTicker(u.k.upkeep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := u.round(ctx); err != nil && ctx.Err() == nil {
			u.log.Warn("keep what is beside the histories", "err", err)
		}
	}
}

func (u *upkeep) round(ctx context.Context) error {
	tables, err := controldb.ListFeedTables(ctx, u.k.db, u.row.UID)
	if err != nil {
		return err
	}
	var first error
	for _, t := range tables {
		if t.State == tarn.FeedSkipped || t.LastSync.IsZero() {
			continue
		}
		if err := u.table(ctx, t); err != nil && first == nil {
			first = fmt.Errorf("table %s: %w", t.PostgresTable, err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return first
}

func (u *upkeep) table(ctx context.Context, t tarn.FeedTable) error {
	h, err := u.history(ctx, t.Target)
	if err != nil {
		return err
	}
	if u.row.Derived.Current() {
		if err := u.current(ctx, t, h); err != nil {
			return fmt.Errorf("current rows: %w", err)
		}
	}
	if u.row.Derived.Intervals() {
		if err := u.intervals(ctx, t, h); err != nil {
			return fmt.Errorf("intervals: %w", err)
		}
	}
	s, err := h.Latest(ctx)
	if err != nil {
		return err
	}
	if s.Version()-u.looked[t.Target] < optimizeEvery {
		return nil
	}
	n, err := h.Optimize(ctx, delta.OptimizeOptions{})
	if err != nil {
		return err
	}
	u.looked[t.Target] = n.Version
	u.log.Info("joined small files", "path", t.PostgresTable, "count", n.FilesRemoved)
	return nil
}

func (u *upkeep) history(ctx context.Context, n tarn.TableName) (*delta.Table, error) {
	if d := u.tables[n]; d != nil {
		return d, nil
	}
	entry, err := u.k.catalog.Table(ctx, n)
	if err != nil {
		return nil, err
	}
	store, err := u.k.openStore(ctx, entry.Location)
	if err != nil {
		return nil, err
	}
	d, err := delta.Open(ctx, store, "")
	if err == nil {
		u.tables[n] = d
	}
	return d, err
}

const keySQL = `SELECT a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
WHERE n.nspname = $1 AND c.relname = $2 AND i.indisprimary ORDER BY array_position(i.indkey, a.attnum)`

// key reads the columns of a table's primary key; none when it has none.
func (u *upkeep) key(ctx context.Context, table string) ([]string, error) {
	conn, err := u.dial(ctx, func(c *pgx.ConnConfig) { configure(c, "tarn feed "+u.row.ID+" upkeep") })
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer closeConn(conn)
	rows, err := conn.Query(ctx, keySQL, u.row.PostgresSchema, table)
	if err != nil {
		return nil, fmt.Errorf("read the primary key: %w", err)
	}
	key, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err == nil && len(key) == 0 && !u.without[table] {
		u.without[table] = true
		u.log.Warn("no table of current rows without a primary key", "path", table)
	}
	return key, err
}
