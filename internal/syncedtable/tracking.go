package syncedtable

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tarndb/tarn"
)

// trackingSchema is the Postgres schema of everything that movers keep in a
// database: positions, dead letters, tables being built.
const trackingSchema = "tarn_sync"

// readOnlyTrigger stands on every synced table: roles that may write all data
// could write it otherwise. Its presence also tells a feed that the table's
// rows came from Delta.
const readOnlyTrigger = "tarn_read_only"

const (
	createSchemaSQL   = `CREATE SCHEMA IF NOT EXISTS tarn_sync`
	createPositionSQL = `CREATE TABLE IF NOT EXISTS tarn_sync.position (
	uid text PRIMARY KEY,
	table_name text NOT NULL,
	relation oid NOT NULL,
	source_id text NOT NULL,
	version bigint NOT NULL,
	version_time timestamptz NOT NULL,
	generation bigint NOT NULL,
	rows bigint NOT NULL,
	rejected bigint NOT NULL,
	started timestamptz NOT NULL,
	finished timestamptz NOT NULL DEFAULT now())`
	createLettersSQL = `CREATE TABLE IF NOT EXISTS tarn_sync.dead_letters (
	uid text NOT NULL,
	table_name text NOT NULL,
	version bigint NOT NULL,
	reason text NOT NULL,
	source_row json NOT NULL,
	created timestamptz NOT NULL DEFAULT now())`
	createLettersIndexSQL = `CREATE INDEX IF NOT EXISTS dead_letters_uid ON tarn_sync.dead_letters (uid, version)`
	createRefuseSQL       = `CREATE OR REPLACE FUNCTION tarn_sync.refuse_write() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF session_user = 'tarn_admin' THEN
		RETURN NULL;
	END IF;
	RAISE EXCEPTION 'table %.% is read-only: it is kept equal to Delta table %', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[0]
		USING ERRCODE = 'insufficient_privilege', HINT = 'Write to the Delta table and refresh the synced table.';
END $$`
	grantTrackingSQL = `DO $$ BEGIN
	IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'databricks_superuser') THEN
		GRANT USAGE ON SCHEMA tarn_sync TO databricks_superuser;
		GRANT SELECT ON tarn_sync.position, tarn_sync.dead_letters TO databricks_superuser;
	END IF;
END $$`
)

// prepareTracking makes the tracking schema. Two loads may do it at once.
func prepareTracking(ctx context.Context, conn *pgx.Conn) error {
	// IF NOT EXISTS still races with another session's creation.
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock(7022891455140)`); err != nil {
		return fmt.Errorf("prepare schema %s: %w", trackingSchema, err)
	}
	defer conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock(7022891455140)`)
	if err := ownSchema(ctx, conn); err != nil {
		return err
	}
	for _, sql := range []string{createPositionSQL, createLettersSQL, createLettersIndexSQL, createRefuseSQL, grantTrackingSQL} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("prepare schema %s: %w", trackingSchema, err)
		}
	}
	return nil
}

// ownSchema refuses a database where schema tarn_sync is not Tarn's: its owner
// could put triggers there, which we would run as superuser. No role can give
// away a schema to a superuser, so what is checked once stays.
func ownSchema(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, createSchemaSQL); err != nil {
		return fmt.Errorf("make Postgres schema tarn_sync: %w", err)
	}
	var owner string
	var super bool
	if err := conn.QueryRow(ctx, schemaOwnerSQL).Scan(&owner, &super); err != nil {
		return fmt.Errorf("look for the owner of Postgres schema tarn_sync: %w", err)
	}
	if !super {
		return tarn.Conflict("Postgres schema tarn_sync belongs to %s: Tarn keeps its own tables there", owner).
			WithHint("ALTER SCHEMA tarn_sync RENAME TO something_else")
	}
	return nil
}

const schemaOwnerSQL = `SELECT r.rolname, r.rolsuper FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner WHERE n.nspname = 'tarn_sync'`

// position is how far a synced table is, as its database says.
type position struct {
	relation   uint32 // oid of the table that holds the version
	sourceID   string // identity of the Delta table; a recreated one differs
	version    int64
	time       time.Time // of the version
	generation int64     // counts loads
	rows       int64
	rejected   int64
	started    time.Time
	finished   time.Time
}

const readPositionSQL = `SELECT relation, source_id, version, version_time, generation, rows, rejected, started, finished
FROM tarn_sync.position WHERE uid = $1`

// readPosition gives the zero position when there is none.
func readPosition(ctx context.Context, conn *pgx.Conn, uid string) (position, error) {
	var p position
	err := conn.QueryRow(ctx, readPositionSQL, uid).Scan(&p.relation, &p.sourceID, &p.version, &p.time, &p.generation,
		&p.rows, &p.rejected, &p.started, &p.finished)
	if errors.Is(err, pgx.ErrNoRows) {
		return position{}, nil
	}
	if err != nil {
		return position{}, fmt.Errorf("read position: %w", err)
	}
	return p, nil
}

const writePositionSQL = `INSERT INTO tarn_sync.position AS p
	(uid, table_name, relation, source_id, version, version_time, generation, rows, rejected, started)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (uid) DO UPDATE SET table_name = $2, relation = $3, source_id = $4, version = $5, version_time = $6,
	generation = $7, rows = $8, rejected = $9, started = $10, finished = now()
WHERE p.generation < $7`

// writePosition moves the position, in the transaction that makes it true. A
// load that was overtaken moves nothing and fails.
func writePosition(ctx context.Context, tx pgx.Tx, uid string, n tarn.TableName, p position) error {
	tag, err := tx.Exec(ctx, writePositionSQL, uid, n.Schema+"."+n.Table, p.relation, p.sourceID, p.version, p.time,
		p.generation, p.rows, p.rejected, p.started)
	if err != nil {
		return fmt.Errorf("write position: %w", err)
	}
	if tag.RowsAffected() != 1 {
		return errBusy
	}
	return nil
}

const (
	trackedSQL = `SELECT to_regclass('tarn_sync.position') IS NOT NULL`
	targetSQL  = `SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2`
	holderSQL  = `SELECT uid FROM tarn_sync.position WHERE relation = $1`
)

// target is what has the synced table's name in Postgres.
type target struct {
	oid    uint32 // 0 = nothing
	holder string // UID of the synced table whose rows it holds; "" = a user's table
}

func findTarget(ctx context.Context, conn *pgx.Conn, n tarn.TableName) (target, error) {
	var t target
	err := conn.QueryRow(ctx, targetSQL, n.Schema, n.Table).Scan(&t.oid)
	if errors.Is(err, pgx.ErrNoRows) {
		return target{}, nil
	}
	if err != nil {
		return target{}, fmt.Errorf("look for table %s.%s: %w", n.Schema, n.Table, err)
	}
	var tracked bool
	if err := conn.QueryRow(ctx, trackedSQL).Scan(&tracked); err != nil {
		return target{}, fmt.Errorf("look for positions: %w", err)
	}
	if tracked {
		err = conn.QueryRow(ctx, holderSQL, t.oid).Scan(&t.holder)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return target{}, fmt.Errorf("look for the holder of %s.%s: %w", n.Schema, n.Table, err)
		}
	}
	return t, nil
}

// taken refuses a name that something else has.
func taken(n tarn.TableName) error {
	return tarn.Conflict("Postgres has a table, view or other relation %s.%s already", n.Schema, n.Table).
		WithHint("drop or rename it, or choose another name")
}

// targetFree refuses a table that no synced table made. One that did may be of
// a parent branch; the load finds out.
func targetFree(ctx context.Context, conn *pgx.Conn, n tarn.TableName) error {
	t, err := findTarget(ctx, conn, n)
	if err == nil && t.oid != 0 && t.holder == "" {
		err = taken(n)
	}
	return err
}

const (
	clearLettersSQL = `DELETE FROM tarn_sync.dead_letters WHERE uid = $1 AND version = $2`
	oldLettersSQL   = `DELETE FROM tarn_sync.dead_letters WHERE uid = $1 AND version <> $2`
	addLettersSQL   = `INSERT INTO tarn_sync.dead_letters (uid, table_name, version, reason, source_row)
SELECT $1, $2, $3, r, d::json FROM unnest($4::text[], $5::text[]) AS l(r, d)`
)

// letters collects the rows of one load that Postgres cannot store. They are
// written beside the load, over a connection of their own, and belong to a
// version: only those of the version in the table count.
type letters struct {
	conn    *pgx.Conn
	uid     string
	name    string
	version int64
	count   int64
	reasons []string
	rows    []string
	first   string // reason of the first one
}

const lettersAtOnce = 500

func (l *letters) add(ctx context.Context, reason error, row string) error {
	l.count++
	if l.first == "" {
		l.first = reason.Error()
	}
	l.reasons, l.rows = append(l.reasons, reason.Error()), append(l.rows, row)
	if len(l.rows) < lettersAtOnce {
		return nil
	}
	return l.flush(ctx)
}

func (l *letters) flush(ctx context.Context) error {
	if len(l.rows) == 0 {
		return nil
	}
	if _, err := l.conn.Exec(ctx, addLettersSQL, l.uid, l.name, l.version, l.reasons, l.rows); err != nil {
		return fmt.Errorf("write dead letters: %w", err)
	}
	l.reasons, l.rows = l.reasons[:0], l.rows[:0]
	return nil
}

// isCode tells whether err is one of Postgres's SQLSTATEs.
func isCode(err error, codes ...string) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	for _, c := range codes {
		if pg.Code == c {
			return true
		}
	}
	return false
}
