package syncedtable

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
)

// load brings the newest version of the source into Postgres.
//
//  1. the position is read           a version that is there already ends the load:
//     this is how a swap whose report was lost is recognised
//  2. leftovers of older loads go
//  3. tarn_sync.load_<uid>_<gen> is made and filled     a crash leaves nothing, or
//     a whole table that step 2 of the next load removes
//  4. key, grants, indexes are made on it               the same
//  5. swap and position in one transaction              either the old version
//     with the old position or the new with the new
//  6. the control database is told                      see 1
func (w *worker) load(ctx context.Context) error {
	snap, err := w.k.source(ctx, w.row.Source)
	if err != nil {
		return err
	}
	key, err := checkSource(snap, w.row.Source, w.row.PrimaryKey)
	if err != nil {
		return err
	}
	conn, err := w.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	defer w.keepAwake(ctx)()
	if err := w.fence(ctx, conn); err != nil {
		return err
	}
	if err := prepareTracking(ctx, conn); err != nil {
		return err
	}
	pos, err := readPosition(ctx, conn, w.row.UID)
	if err != nil {
		return err
	}
	old, err := w.mayReplace(ctx, conn)
	if err != nil {
		return err
	}
	if pos.generation > 0 && pos.version == snap.Version() && pos.sourceID == snap.ID() && old.oid == pos.relation {
		return w.online(ctx, conn, pos)
	}
	next := position{
		sourceID: snap.ID(), version: snap.Version(), time: snap.Time(),
		generation: pos.generation + 1, started: time.Now().UTC(),
	}
	if err := w.begin(ctx, conn, snap, next); err != nil {
		return err
	}
	b, err := w.build(ctx, conn, snap, key, &next)
	if err != nil {
		return err
	}
	if err := w.swapPatiently(ctx, conn, b, &next); err != nil {
		return err
	}
	return w.online(ctx, conn, next)
}

// connect opens a connection, waking the compute. That it cannot is never the
// asker's fault, unless the database does not exist.
func (w *worker) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := w.k.computes.Connect(ctx, w.row.Branch, w.row.Database, configure)
	if err != nil {
		return nil, tarn.Unavailable("connect: %w", err)
	}
	return conn, nil
}

// useEvery is below any sensible time after which an idle compute is suspended.
const useEvery = 2 * time.Second

// keepAwake uses the compute until the returned func is called: our own
// sessions do not count as use, and a long load would be cut off again and
// again.
func (w *worker) keepAwake(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for pause(ctx, useEvery); ctx.Err() == nil; pause(ctx, useEvery) {
			if conn, err := w.connect(ctx); err == nil {
				closeConn(conn)
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

const fenceSQL = `SELECT pg_try_advisory_lock(hashtextextended('tarn synced table ' || $1, 0))`

// fence keeps a connection of a killed process from writing beside us: the
// lock is freed when Postgres notices that its client is gone.
func (w *worker) fence(ctx context.Context, conn *pgx.Conn) error {
	for deadline := time.Now().Add(10 * time.Second); ; {
		var ok bool
		if err := conn.QueryRow(ctx, fenceSQL, w.row.UID).Scan(&ok); err != nil {
			return fmt.Errorf("lock the synced table: %w", err)
		}
		if ok {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return errBusy
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// mayReplace finds what has the table's name now and refuses what is not ours
// to replace. A table that a synced table of another branch made was forked
// with the data: nobody keeps it here.
func (w *worker) mayReplace(ctx context.Context, conn *pgx.Conn) (target, error) {
	t, err := findTarget(ctx, conn, w.row.Name)
	if err != nil || t.oid == 0 || t.holder == w.row.UID {
		return t, err
	}
	if t.holder != "" {
		all, err := controldb.ListSyncedTables(ctx, w.k.db, w.row.Branch.Project)
		if err != nil {
			return t, err
		}
		for _, o := range all {
			if o.UID == t.holder && o.Branch == w.row.Branch {
				return t, taken(w.row.Name)
			}
		}
		return t, nil
	}
	return t, taken(w.row.Name)
}

const leftoversSQL = `SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'tarn_sync' AND c.relkind = 'r' AND starts_with(c.relname, $1)`

// begin reports the load and clears what an interrupted one left.
func (w *worker) begin(ctx context.Context, conn *pgx.Conn, snap *delta.Snapshot, next position) error {
	total, err := snap.Count(ctx)
	if err != nil {
		return refused(w.row.Source, err)
	}
	if w.row.Version < 0 {
		w.row.State = tarn.SyncInitialSnapshot
	} else {
		w.row.State = tarn.SyncUpdating
	}
	w.row.RowsTotal, w.row.RowsSynced = total, 0
	w.row.Message = fmt.Sprintf("loading version %d of %s", next.version, w.row.Source)
	if err := controldb.UpdateSyncedTable(ctx, w.k.db, w.row); err != nil {
		return err
	}
	if err := w.clear(ctx, conn); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, clearLettersSQL, w.row.UID, next.version); err != nil {
		return fmt.Errorf("clear dead letters: %w", err)
	}
	return nil
}

// clear drops tables that were built and never took their place.
func (w *worker) clear(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, leftoversSQL, w.buildPrefix())
	if err != nil {
		return fmt.Errorf("look for leftovers: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for leftovers: %w", err)
	}
	for _, n := range names {
		if _, err := conn.Exec(ctx, "DROP TABLE "+pgx.Identifier{trackingSchema, n}.Sanitize()); err != nil {
			return fmt.Errorf("drop leftover %s: %w", n, err)
		}
	}
	return nil
}

func (w *worker) buildPrefix() string { return "load_" + w.row.UID + "_" }

// online records that the table stands at pos.
func (w *worker) online(ctx context.Context, conn *pgx.Conn, pos position) error {
	row := w.row // changed only when that is recorded: w.row is reported after an error
	row.State, row.Message = tarn.SyncOnline, ""
	if pos.rejected > 0 {
		var reason string
		if err := conn.QueryRow(ctx, someReasonSQL, w.row.UID, pos.version).Scan(&reason); err != nil {
			return fmt.Errorf("read dead letters: %w", err)
		}
		row.Message = fmt.Sprintf("%d rows of version %d could not be stored and are in %s.dead_letters, e.g.: %s",
			pos.rejected, pos.version, trackingSchema, reason)
	}
	row.Version, row.VersionTS = pos.version, pos.time
	row.RowsSynced, row.RowsTotal = pos.rows, pos.rows+pos.rejected
	row.SyncStart, row.SyncEnd = pos.started, pos.finished
	if row.SyncEnd.IsZero() {
		row.SyncEnd = time.Now().UTC()
	}
	if err := w.rest(ctx, row); err != nil {
		return err
	}
	w.log.Info("synced table is online", "version", pos.version, "count", pos.rows, "took", w.row.SyncEnd.Sub(pos.started))
	return nil
}

const someReasonSQL = `SELECT coalesce(min(reason), 'unknown') FROM tarn_sync.dead_letters WHERE uid = $1 AND version = $2`

// built is a table that is ready to take its place.
type built struct {
	name    string // without schema
	cols    []column
	indexes []index
}

// build fills a new table and makes its key.
func (w *worker) build(ctx context.Context, conn *pgx.Conn, snap *delta.Snapshot, key []string, next *position) (built, error) {
	schema := snap.Schema()
	a, err := schema.Arrow()
	if err != nil {
		return built{}, refused(w.row.Source, err)
	}
	cols, err := columnsOf(schema, a, key)
	if err != nil {
		return built{}, tarn.Invalid("source %s: %w", w.row.Source, err)
	}
	second, err := w.connect(ctx)
	if err != nil {
		return built{}, err
	}
	defer closeConn(second)
	l := &letters{conn: second, uid: w.row.UID, name: w.row.Name.Schema + "." + w.row.Name.Table, version: next.version}
	c, err := newCopier(schema, a, cols, l)
	if err != nil {
		return built{}, tarn.Invalid("source %s: %w", w.row.Source, err)
	}
	b := built{name: fmt.Sprintf("%s%d", w.buildPrefix(), next.generation), cols: cols}
	if err := w.fill(ctx, conn, b.path(), c, snap.Scan(ctx, delta.ScanOptions{})); err != nil {
		return built{}, refused(w.row.Source, err)
	}
	twins, err := w.makeKey(ctx, conn, b, key, l)
	if err != nil {
		return built{}, err
	}
	next.rows, next.rejected = c.rows-twins, l.count
	w.row.RowsSynced = next.rows
	if b.indexes, err = w.furnish(ctx, conn, b); err != nil {
		return built{}, err
	}
	if _, err := conn.Exec(ctx, "ANALYZE "+b.path()); err != nil {
		return built{}, fmt.Errorf("analyze: %w", err)
	}
	return b, nil
}

func (b built) path() string { return pgx.Identifier{trackingSchema, b.name}.Sanitize() }

// keyColumns are the key's columns by their Postgres names, in the order that
// was asked for.
func (b built) keyColumns(key []string) string {
	names := make([]string, len(key))
	for i, k := range key {
		names[i] = pgx.Identifier{identifier(k)}.Sanitize()
	}
	return strings.Join(names, ", ")
}

// makeKey makes the primary key. Where the source has several rows of one key,
// the one that sorts last by all its columns is kept, whatever file it stands
// in, and the others become dead letters: a snapshot has no order in time that
// could choose.
func (w *worker) makeKey(ctx context.Context, conn *pgx.Conn, b built, key []string, l *letters) (twins int64, err error) {
	sql := "ALTER TABLE " + b.path() + " ADD CONSTRAINT " + pgx.Identifier{b.pkey()}.Sanitize() + " PRIMARY KEY (" + b.keyColumns(key) + ")"
	_, err = conn.Exec(ctx, sql)
	if !isCode(err, "23505") {
		if err != nil {
			err = fmt.Errorf("make the primary key: %w", err)
		}
		return 0, err
	}
	t := b.path()
	tag, err := conn.Exec(ctx, `WITH twin AS (
		SELECT ctid AS at, row_number() OVER (PARTITION BY `+b.keyColumns(key)+` ORDER BY t::text DESC, ctid) AS nth FROM `+t+` t
	), gone AS (
		DELETE FROM `+t+` d USING twin WHERE d.ctid = twin.at AND twin.nth > 1 RETURNING d.*
	)
	INSERT INTO tarn_sync.dead_letters (uid, table_name, version, reason, source_row)
	SELECT $1, $2, $3, 'another row has the same key', row_to_json(gone) FROM gone`, l.uid, l.name, l.version)
	if err != nil {
		return 0, fmt.Errorf("take out rows of equal key: %w", err)
	}
	l.count += tag.RowsAffected()
	if _, err := conn.Exec(ctx, sql); err != nil {
		return 0, fmt.Errorf("make the primary key: %w", err)
	}
	return tag.RowsAffected(), nil
}

func (b built) pkey() string { return cut(b.name, maxIdentifier-5) + "_pkey" }
