package feed

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// errRewritten means that a snapshot no longer shows the table: a command that
// rewrites it (ALTER TABLE, TRUNCATE) hides its older rows from every snapshot
// taken before.
var errRewritten = errors.New("table was rewritten after the snapshot")

const copyAttempts = 3

// copyDue copies the tables of todo.copy in a snapshot of now, exported by a
// temporary slot. Changes up to the snapshot's point are dropped, later ones
// come from the feed's own slot.
func (s *session) copyDue(ctx context.Context) error {
	if len(s.todo.copy) > 0 {
		// A copy may end the Delta table that a renamed one wrote to.
		if err := s.flush(ctx); err != nil {
			return err
		}
	}
	for attempt := 1; len(s.todo.copy) > 0; attempt++ {
		tables, err := s.src.tables(ctx)
		if err != nil {
			return err
		}
		var due []listed
		for _, l := range tables {
			if s.todo.copy[l.oid] {
				due = append(due, l)
			}
		}
		clear(s.todo.copy)
		if len(due) == 0 {
			return nil
		}
		if attempt > copyAttempts {
			return fmt.Errorf("copy table %s: %w", due[0].name, errRewritten)
		}
		if err := s.copyNow(ctx, due); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) copyNow(ctx context.Context, due []listed) error {
	defer s.keepAwake(ctx)()
	r, err := s.replicate(ctx)
	if err != nil {
		return err
	}
	defer closeConn(r.conn)
	ex, err := r.createSlot(ctx, fmt.Sprintf("tarn_copy_%d", r.conn.PgConn().PID()), temporarySlot)
	if err != nil {
		return err
	}
	for _, l := range due {
		if err := s.copyTable(ctx, l, ex); err != nil {
			return err
		}
	}
	return nil
}

// copyTable writes a table as it is in an exported snapshot. When the Delta
// table has rows already (of an older slot, of a copy that was cut off, or of
// changes we could not follow) a truncate row comes first, so that the history
// still adds up.
//
//  1. the truncate row is committed     a crash leaves a table that is copied again
//  2. each chunk is committed           a crash leaves rows that the next copy's truncate row ends
//  3. the snapshot's position is        only now is the table known: streaming begins behind it
//
// A snapshot ends with the connection that exported it, so a copy that was cut
// off begins again; tables that were done stay done. The rejected alternative,
// chunks by key between marks in the WAL, survives a crash in the middle of a
// table, but only where a key can be compared here as Postgres compares it.
func (s *session) copyTable(ctx context.Context, l listed, ex exported) error {
	conn, err := s.dial(ctx, func(c *pgx.ConnConfig) { configure(c, "tarn feed "+s.row.ID+" copy") })
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer closeConn(conn)
	err = func() error {
		if err := enterSnapshot(ctx, conn, ex.Snapshot); err != nil {
			return err
		}
		return s.copyRows(ctx, conn, l, ex)
	}()
	var stop *stopError
	switch {
	case errors.Is(err, errRewritten):
		s.todo.copy[l.oid] = true
		return nil
	case isCode(err, codeUndefinedTable):
		return nil // dropped meanwhile
	case errors.As(err, &stop):
		t := s.tables[l.oid]
		state := tarn.FeedSkipped
		if t.known {
			state = tarn.FeedTerminated
		}
		s.log.Warn("stop table", "path", l.name, "err", err)
		t.discard(ctx)
		t.setState(state, stop.detail)
		return s.record(ctx)
	case err != nil:
		return fmt.Errorf("copy table %s: %w", l.name, err)
	}
	return nil
}

func enterSnapshot(ctx context.Context, conn *pgx.Conn, snapshot string) error {
	if strings.Trim(snapshot, "0123456789ABCDEF-") != "" {
		return fmt.Errorf("snapshot name %q is not one", snapshot)
	}
	for _, sql := range []string{"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "SET TRANSACTION SNAPSHOT '" + snapshot + "'"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("enter the snapshot: %w", err)
		}
	}
	return nil
}

// pg_class read as a table shows the file of the snapshot, the function the
// file of now. Mapped catalogs aside, a table made after the snapshot has no
// row in it, which is no rewrite.
const rewrittenSQL = `SELECT to_regclass($2)::oid IS DISTINCT FROM $1 OR EXISTS (SELECT FROM pg_class c WHERE c.relkind IN ('r', 't')
AND (c.oid = $1 OR c.oid IN (SELECT relid FROM pg_partition_tree($1)))
AND c.relfilenode <> pg_relation_filenode(c.oid))`

func (s *session) copyRows(ctx context.Context, conn *pgx.Conn, l listed, ex exported) error {
	table := pgx.Identifier{s.src.schema, l.name}.Sanitize()
	// Holds off rewrites from here on.
	if _, err := conn.Exec(ctx, "LOCK TABLE "+table+" IN ACCESS SHARE MODE"); err != nil {
		return err
	}
	var rewritten bool
	if err := conn.QueryRow(ctx, rewrittenSQL, l.oid, table).Scan(&rewritten); err != nil {
		return fmt.Errorf("look for a rewrite: %w", err)
	}
	if rewritten {
		return errRewritten
	}
	// The columns of now, which is how the query below is parsed.
	rel, err := relation(ctx, s.src.conn, s.src.schema, l)
	if err != nil {
		return err
	}
	t, err := s.openTable(ctx, rel, createMissing)
	if err != nil {
		return err
	}
	t.discard(ctx)
	if t.delta == nil {
		return &stopError{t.status.detail}
	}
	if err := t.load(ctx); err != nil {
		return err
	}
	if t.known {
		t.gen++ // a new copy under the same slot
		t.known = false
	}
	if err := t.adopt(ctx, s.types, rel); err != nil {
		return err
	}
	started := time.Now()
	t.setState(tarn.FeedSnapshotting, "")
	if err := s.record(ctx); err != nil {
		return err
	}
	pos := position{epoch: s.epoch, lsn: ex.Point, commitEnd: ex.Point, time: started.UTC()}
	t.succeeds = t.used || t.succeeds
	if err := t.succeed(&pos); err != nil {
		return err
	}
	c := &copying{session: s, t: t, pos: pos, ex: ex}
	if err := c.run(ctx, conn); err != nil {
		return err
	}
	t.pending = ex.Point
	if err := t.commit(ctx, "WRITE"); err != nil {
		return err
	}
	t.status.sync, t.status.estimate = time.Now().UTC(), 0
	t.setState(tarn.FeedStreaming, "")
	s.event(ctx, tarn.EventInfo, tarn.EventFlowProgress, "copied table %s: %d rows in %s", l.name, t.status.copied, time.Since(started).Round(time.Millisecond))
	s.log.Info("copied table", "path", l.name, "lsn", ex.Point, "count", t.status.copied, "took", time.Since(started))
	return s.record(ctx)
}
