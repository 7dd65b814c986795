package compute

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tarndb/tarn"
)

// session is the fleet's own connection to a compute, as tarn.Superuser.
type session struct{ conn *pgx.Conn }

const sessionPatience = 10 * time.Second // for connecting, and for each statement

func (e *engine) connect(ctx context.Context) (*session, error) {
	if e.ice.frozen.Load() && e.ice.thaw != nil {
		if err := e.ice.thaw(ctx); err != nil {
			return nil, err
		}
	}
	c, err := pgx.ParseConfig("sslmode=disable")
	if err != nil {
		return nil, err
	}
	// Nothing of our own environment (PGHOST …) may say where this goes.
	c.Host, c.Port, c.User, c.Password, c.Database = e.on.socketDir(e.name), port, tarn.Superuser, "", "postgres"
	c.Fallbacks = nil
	c.RuntimeParams = map[string]string{
		"application_name":   "tarn node",
		"synchronous_commit": "on", // flush relies on it
		"search_path":        "pg_catalog",
	}
	limit, cancel := context.WithTimeout(ctx, sessionPatience)
	defer cancel()
	conn, err := pgx.ConnectConfig(limit, c)
	if err != nil {
		return nil, interrupted(fmt.Errorf("connect to the compute of timeline %s: %w", e.timeline, err))
	}
	return &session{conn}, nil
}

// interrupted makes an error unavailable, so that it is tried again, when it is
// no answer of Postgres or one by which Postgres says that it stops or starts:
// the compute has ended, and is being started again or will be.
func interrupted(err error) error {
	if pg, answered := errors.AsType[*pgconn.PgError](err); answered && !strings.HasPrefix(pg.Code, "57P0") {
		return err
	}
	return tarn.Unavailable("%w", err)
}

func (s *session) close(ctx context.Context) {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = s.conn.Close(limit) // the server may be gone already
}

const sqlFlushed = `SELECT pg_current_wal_flush_lsn()::text`

// flushed is the end of the WAL on disk; it may lie within a record.
func (s *session) flushed(ctx context.Context) (tarn.LSN, error) {
	return s.lsn(ctx, sqlFlushed)
}

const (
	sqlInserted = `SELECT pg_current_wal_insert_lsn()::text`
	sqlNote     = `SELECT pg_logical_emit_message(true, 'tarn', $1)::text`
)

// flush returns the end of a record, with everything before it on disk: what
// was inserted, made durable by committing a note behind it. The note also gives
// a replay with a time up to now a later commit to stop at.
func (s *session) flush(ctx context.Context, note string) (tarn.LSN, error) {
	end, err := s.lsn(ctx, sqlInserted)
	if err != nil {
		return 0, err
	}
	if _, err := s.lsn(ctx, sqlNote, note); err != nil {
		return 0, err
	}
	return end, nil
}

const sqlReplayed = `SELECT COALESCE(pg_last_wal_replay_lsn(), '0/0')::text, pg_last_xact_replay_timestamp()`

// replayed is how far the recovery went that this server began with: its LSN,
// and the time of the last commit (zero without one).
func (s *session) replayed(ctx context.Context) (tarn.LSN, time.Time, error) {
	var text string
	var last *time.Time
	if err := s.conn.QueryRow(ctx, sqlReplayed).Scan(&text, &last); err != nil {
		return 0, time.Time{}, fmt.Errorf("ask how far the replay went: %w", err)
	}
	lsn, err := tarn.ParseLSN(text)
	if err != nil || last == nil {
		return lsn, time.Time{}, err
	}
	return lsn, last.UTC(), nil
}

const sqlCheckpoint = `CHECKPOINT`

func (s *session) checkpoint(ctx context.Context) error {
	if _, err := s.conn.Exec(ctx, sqlCheckpoint); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

const (
	sqlReplay = `SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), redo_lsn)::bigint FROM pg_control_checkpoint()`
	// longReplay is the WAL that a fork replays in about the time a checkpoint
	// takes. Full pages make a lot of it.
	longReplay = 64 << 20
)

// shortenReplay makes a checkpoint where a fork would have much to replay.
func (s *session) shortenReplay(ctx context.Context) error {
	limit, cancel := context.WithTimeout(ctx, sessionPatience)
	defer cancel()
	var bytes int64
	if err := s.conn.QueryRow(limit, sqlReplay).Scan(&bytes); err != nil {
		return fmt.Errorf("ask a compute for its last checkpoint: %w", err)
	}
	if bytes < longReplay {
		return nil
	}
	return s.checkpoint(ctx)
}

func (s *session) lsn(ctx context.Context, sql string, args ...any) (tarn.LSN, error) {
	limit, cancel := context.WithTimeout(ctx, sessionPatience)
	defer cancel()
	var text string
	if err := s.conn.QueryRow(limit, sql, args...).Scan(&text); err != nil {
		return 0, interrupted(fmt.Errorf("ask a compute for its WAL position: %w", err))
	}
	return tarn.ParseLSN(text)
}

// activity is what clients do on a compute.
type activity struct {
	busy    int       // sessions with a statement or an open transaction
	active  int       // sessions with a statement, our own movers' too
	waiting int       // of those, waiting for something other than CPU or disk
	anybody int       // that must not be frozen: sessions that do something, also our own; walsenders, workers
	changed time.Time // when a session last began or ended one; zero = no session
}

const sqlActivity = `
SELECT count(*) FILTER (WHERE state <> 'idle' AND usename IS DISTINCT FROM 'tarn_admin'),
	max(state_change) FILTER (WHERE usename IS DISTINCT FROM 'tarn_admin'),
	count(*) FILTER (WHERE state = 'active'),
	count(*) FILTER (WHERE state = 'active' AND wait_event_type IN ('Lock', 'Client', 'IPC', 'Timeout', 'Extension')),
	(SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
		AND (backend_type = 'client backend' AND state <> 'idle'
			OR backend_type IN ('walsender', 'walreceiver', 'autovacuum worker', 'parallel worker', 'logical replication worker',
				'logical replication apply worker', 'logical replication parallel worker', 'logical replication tablesync worker')))
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`

// activity leaves out our own sessions, and walsenders, which are of another
// type: a feed must not keep its compute awake.
func (s *session) activity(ctx context.Context) (activity, error) {
	limit, cancel := context.WithTimeout(ctx, sessionPatience)
	defer cancel()
	var a activity
	var changed *time.Time
	if err := s.conn.QueryRow(limit, sqlActivity).Scan(&a.busy, &changed, &a.active, &a.waiting, &a.anybody); err != nil {
		return activity{}, fmt.Errorf("ask a compute who is active: %w", err)
	}
	if changed != nil {
		a.changed = changed.UTC()
	}
	return a, nil
}
