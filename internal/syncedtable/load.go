package syncedtable

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
)

// load brings a whole version of the source into Postgres, as the partition of
// the synced table.
//
//  1. leftovers of older loads go
//  2. tarn_sync.load_<uid>_<gen> is made and filled     a crash leaves nothing, or
//     a table that step 1 of the next load removes
//  3. key, owner, indexes are made on it                the same
//  4. it takes the old partition's place, with the position, in one transaction
//     either the old version with the old position or the new with the new
//  5. the control database is told                      the next run reads the
//     position and finds the version there
func (s *session) load(ctx context.Context, why string) error {
	w := s.w
	next := position{
		sourceID: s.snap.ID(), version: s.snap.Version(), time: s.snap.Time(),
		generation: s.pos.generation + 1, started: time.Now().UTC(),
	}
	if err := s.begin(ctx, next, why); err != nil {
		return err
	}
	n, err := w.k.budget.take(ctx, w.row.Branch, s.wanted())
	if err != nil {
		return err
	}
	defer w.k.budget.give(w.row.Branch, n)
	b, err := s.build(ctx, n, &next)
	if err != nil {
		return err
	}
	if err := s.swapPatiently(ctx, b, &next); err != nil {
		return err
	}
	s.pos = next
	w.event(ctx, tarn.PipelineEvent{Level: tarn.EventMetrics, Type: tarn.EventFlowProgress, Message: fmt.Sprintf(
		"Loaded version %d of %s: %d rows, %d could not be stored, over %d connections in %s.",
		next.version, w.row.Source, next.rows, next.rejected, n, time.Since(next.started).Round(time.Millisecond))})
	return nil
}

// wanted is how many connections a load is worth.
func (s *session) wanted() int {
	if s.snap.Size() < smallTable {
		return 1
	}
	return min(maxConnections, max(2, runtime.GOMAXPROCS(0)))
}

// begin says what is done now and removes what a killed load left.
func (s *session) begin(ctx context.Context, next position, why string) error {
	w := s.w
	total, err := s.snap.Count(ctx)
	if err != nil {
		return refused(w.row.Source, err)
	}
	w.row.State = tarn.SyncInitialSnapshot
	if w.row.Version >= 0 {
		w.row.State = tarn.SyncUpdating
	}
	w.row.RowsTotal, w.row.RowsSynced = total, 0
	w.row.Message = fmt.Sprintf("loading version %d of %s", next.version, w.row.Source)
	if why != "" {
		w.row.Message += ": " + why
		w.event(ctx, tarn.PipelineEvent{Type: tarn.EventUpdateProgress, Message: "The whole table is loaded: " + why + "."})
	}
	if err := controldb.UpdateSyncedTable(ctx, w.k.db, w.row); err != nil {
		return err
	}
	if err := s.clear(ctx); err != nil {
		return err
	}
	if _, err := s.conn.Exec(ctx, clearLettersSQL, w.row.UID, next.generation); err != nil {
		return fmt.Errorf("clear dead letters: %w", err)
	}
	return nil
}

const leftoversSQL = `SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'tarn_sync' AND c.relkind = 'r' AND starts_with(c.relname, $1)
AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)`

// clear drops tables that were built and never took their place.
func (s *session) clear(ctx context.Context) error {
	rows, err := s.conn.Query(ctx, leftoversSQL, s.buildPrefix())
	if err != nil {
		return fmt.Errorf("look for leftovers: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for leftovers: %w", err)
	}
	for _, n := range names {
		if _, err := s.conn.Exec(ctx, "DROP TABLE "+pgx.Identifier{trackingSchema, n}.Sanitize()); err != nil {
			return fmt.Errorf("drop leftover %s: %w", n, err)
		}
	}
	return nil
}

func (s *session) buildPrefix() string { return "load_" + s.w.row.UID + "_" }

// built is a table that is ready to become the partition.
type built struct {
	name    string // without schema
	layout  layout
	indexes []index
	plain   bool   // filled without FREEZE
	horizon string // then: transactions that began before this xid8 may not see its rows
}

func (b built) path() string { return pgx.Identifier{trackingSchema, b.name}.Sanitize() }

func (b built) pkey() string { return cut(b.name, maxIdentifier-5) + "_pkey" }

// build fills a new table over n connections and makes its key.
func (s *session) build(ctx context.Context, n int, next *position) (built, error) {
	w := s.w
	conns := []*pgx.Conn{s.conn}
	side, err := w.connect(ctx)
	if err != nil {
		return built{}, err
	}
	defer closeConn(side)
	for len(conns) < n {
		c, err := w.connect(ctx)
		if err != nil {
			return built{}, err
		}
		defer closeConn(c)
		conns = append(conns, c)
	}
	b := built{name: fmt.Sprintf("%s%d", s.buildPrefix(), next.generation), layout: s.layout, plain: n > 1}
	f := &filling{w: w, layout: s.layout, snap: s.snap, path: b.path(), version: next.version, letters: w.letters(next.generation), side: side}
	if err := f.run(ctx, conns); err != nil {
		return built{}, err
	}
	twins, letters, err := s.makeKey(ctx, b, f.letters, next.version)
	if err != nil {
		return built{}, err
	}
	next.rows, next.rejected = f.rows-twins, f.rejected+letters
	if w.row.OnReject == tarn.RejectStop && letters > 0 {
		return built{}, stopped(next.version, fmt.Errorf("%d rows have the key of another: %w", letters, errNullKey))
	}
	if b.indexes, err = s.furnish(ctx, b); err != nil {
		return built{}, err
	}
	if _, err := s.conn.Exec(ctx, "ANALYZE "+b.path()); err != nil {
		return built{}, fmt.Errorf("analyze: %w", err)
	}
	if b.plain {
		if err := s.conn.QueryRow(ctx, `SELECT pg_snapshot_xmax(pg_current_snapshot())::text`).Scan(&b.horizon); err != nil {
			return built{}, fmt.Errorf("read the horizon: %w", err)
		}
	}
	return b, nil
}

// makeKey makes the primary key. Where the source has several rows of one key,
// the one with the greatest timeseries key is kept, and the others are simply
// older. Without such a key, or when it does not decide, the one that sorts last
// by all its columns is kept, whatever file it stands in, and the others become
// dead letters: a snapshot has no order in time that could choose.
func (s *session) makeKey(ctx context.Context, b built, l letters, version int64) (gone, dead int64, err error) {
	key := b.layout.keyList()
	sql := "ALTER TABLE " + b.path() + " ADD CONSTRAINT " + pgx.Identifier{b.pkey()}.Sanitize() + " PRIMARY KEY (" + key + ")"
	_, err = s.conn.Exec(ctx, sql)
	if !isCode(err, "23505") {
		if err != nil {
			err = fmt.Errorf("make the primary key: %w", err)
		}
		return 0, 0, err
	}
	t := b.path()
	if b.layout.ts >= 0 {
		ts := b.layout.cols[b.layout.order[b.layout.ts]].id()
		tag, err := s.conn.Exec(ctx, `DELETE FROM `+t+` d USING (
	SELECT ctid AS at, row_number() OVER (PARTITION BY `+key+` ORDER BY `+ts+` DESC NULLS LAST, t::text DESC, ctid) AS nth FROM `+t+` t
) twin WHERE d.ctid = twin.at AND twin.nth > 1`)
		if err != nil {
			return 0, 0, fmt.Errorf("take out older rows of equal key: %w", err)
		}
		gone = tag.RowsAffected()
	} else {
		tag, err := s.conn.Exec(ctx, `WITH twin AS (
	SELECT ctid AS at, row_number() OVER (PARTITION BY `+key+` ORDER BY t::text DESC, ctid) AS nth FROM `+t+` t
), gone AS (
	DELETE FROM `+t+` d USING twin WHERE d.ctid = twin.at AND twin.nth > 1 RETURNING d.*
)
INSERT INTO tarn_sync.dead_letters (uid, table_name, version, generation, reason, source_row)
SELECT $1, $2, $3, $4, 'another row has the same key', row_to_json(gone) FROM gone`, l.uid, l.name, version, l.generation)
		if err != nil {
			return 0, 0, fmt.Errorf("take out rows of equal key: %w", err)
		}
		gone, dead = tag.RowsAffected(), tag.RowsAffected()
	}
	if _, err := s.conn.Exec(ctx, sql); err != nil {
		return 0, 0, fmt.Errorf("make the primary key: %w", err)
	}
	return gone, dead, nil
}

// refusedColumns says how the columns of the source and of Postgres differ in a
// way that is not followed by itself.
func refusedColumns(source tarn.TableName, problems []string) error {
	return tarn.Conflict("the columns of source %s changed: %s", source, strings.Join(problems, "; ")).
		WithHint("load the table with its new columns, readers keep the old rows meanwhile: tarn sync resync NAME")
}

// refused makes an error of the table itself the asker's, not a passing one.
func refused(n tarn.TableName, err error) error {
	if delta.IsRefusal(err) {
		return tarn.Invalid("source %s: %w", n, err)
	}
	return fmt.Errorf("read source %s: %w", n, err)
}
