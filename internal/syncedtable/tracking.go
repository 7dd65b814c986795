package syncedtable

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

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
	alterLettersSQL = `ALTER TABLE tarn_sync.dead_letters
	ADD COLUMN IF NOT EXISTS id bigint GENERATED ALWAYS AS IDENTITY,
	ADD COLUMN IF NOT EXISTS generation bigint NOT NULL DEFAULT 0,
	ADD COLUMN IF NOT EXISTS key bytea,
	ADD COLUMN IF NOT EXISTS lossy boolean NOT NULL DEFAULT false,
	ADD COLUMN IF NOT EXISTS tries integer NOT NULL DEFAULT 0`
	createLettersIndexSQL = `CREATE INDEX IF NOT EXISTS dead_letters_uid ON tarn_sync.dead_letters (uid, version)`
	createLettersKeySQL   = `CREATE INDEX IF NOT EXISTS dead_letters_key ON tarn_sync.dead_letters (uid, key)`
	createRefuseSQL       = `CREATE OR REPLACE FUNCTION tarn_sync.refuse_write() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF session_user IN ('tarn_admin', 'tarn_sync_writer') THEN
		RETURN NULL;
	END IF;
	RAISE EXCEPTION 'table %.% is read-only: it is kept equal to Delta table %', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_ARGV[0]
		USING ERRCODE = 'insufficient_privilege', HINT = 'Write to the Delta table and refresh the synced table.';
END $$`
	// The owner's members may index a synced table, comment it and let others
	// read it; the writer alone writes. Neither is a superuser: what members hang
	// on the table (functions in indexes, triggers) runs as one of the two.
	createRolesSQL = `DO $$ BEGIN
	BEGIN
		CREATE ROLE tarn_synced_owner NOLOGIN;
	EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
	END;
	BEGIN
		CREATE ROLE tarn_sync_writer LOGIN;
	EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
	END;
END $$`
	grantTrackingSQL = `GRANT USAGE ON SCHEMA tarn_sync TO tarn_sync_writer;
GRANT SELECT, INSERT, UPDATE, DELETE ON tarn_sync.position, tarn_sync.dead_letters TO tarn_sync_writer;
DO $$ BEGIN
	IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'databricks_superuser') THEN
		GRANT USAGE ON SCHEMA tarn_sync TO databricks_superuser;
		GRANT SELECT ON tarn_sync.position, tarn_sync.dead_letters TO databricks_superuser;
	END IF;
END $$`
)

// prepareTracking makes the tracking schema. Two loads may do it at once.
func prepareTracking(ctx context.Context, conn *pgx.Conn) error {
	var ready bool
	if err := conn.QueryRow(ctx, trackingReadySQL).Scan(&ready); err != nil {
		return fmt.Errorf("look for schema %s: %w", trackingSchema, err)
	}
	if err := ownSchema(ctx, conn); err != nil || ready {
		return err
	}
	// IF NOT EXISTS still races with another session's creation.
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock(7022891455140)`); err != nil {
		return fmt.Errorf("prepare schema %s: %w", trackingSchema, err)
	}
	defer conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock(7022891455140)`)
	for _, sql := range []string{createRolesSQL, createPositionSQL, createLettersSQL, alterLettersSQL,
		createLettersIndexSQL, createLettersKeySQL, createRefuseSQL, grantTrackingSQL, `COMMENT ON SCHEMA tarn_sync IS '` + trackingVersion + `'`} {
		if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil { // some are several statements
			return fmt.Errorf("prepare schema %s: %w", trackingSchema, err)
		}
	}
	return nil
}

// trackingVersion names what prepareTracking makes, in a comment of the schema,
// last of all: with it there nothing has to be made.
const trackingVersion = "Tarn keeps positions of synced tables and feeds here (3)"

const trackingReadySQL = `SELECT coalesce(obj_description(to_regnamespace('tarn_sync')::oid, 'pg_namespace') = '` + trackingVersion + `', false)
AND EXISTS (SELECT FROM pg_roles WHERE rolname = 'tarn_sync_writer')`

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
	relation   uint32 // oid of the partitioned table
	sourceID   string // identity of the Delta table; a recreated one differs
	version    int64
	time       time.Time // of the version
	generation int64     // counts loads
	rows       int64
	rejected   int64 // dead letters
	started    time.Time
	finished   time.Time
}

const readPositionSQL = `SELECT relation, source_id, version, version_time, generation, rows, rejected, started, finished
FROM tarn_sync.position WHERE uid = $1`

// querying is what reads one row: a connection or a transaction.
type querying interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// readPosition gives the zero position when there is none.
func readPosition(ctx context.Context, q querying, uid string) (position, error) {
	var p position
	err := q.QueryRow(ctx, readPositionSQL, uid).Scan(&p.relation, &p.sourceID, &p.version, &p.time, &p.generation,
		&p.rows, &p.rejected, &p.started, &p.finished)
	if errors.Is(err, pgx.ErrNoRows) {
		return position{}, nil
	}
	if err != nil {
		return position{}, fmt.Errorf("read position: %w", err)
	}
	return p, nil
}

const (
	writePositionSQL = `INSERT INTO tarn_sync.position AS p
	(uid, table_name, relation, source_id, version, version_time, generation, rows, rejected, started)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (uid) DO UPDATE SET table_name = $2, relation = $3, source_id = $4, version = $5, version_time = $6,
	generation = $7, rows = $8, rejected = $9, started = $10, finished = clock_timestamp()
WHERE p.generation < $7`
	movePositionSQL = `UPDATE tarn_sync.position SET version = $4, version_time = $5, rows = greatest(0, rows + $6), rejected = $7, started = $8, finished = clock_timestamp()
WHERE uid = $1 AND generation = $2 AND version = $3 RETURNING rows`
	addRowsSQL = `UPDATE tarn_sync.position SET rows = greatest(0, rows + $2) WHERE uid = $1`
)

// writePosition records what a load brought, in the transaction that makes it
// true. A load that was overtaken moves nothing and fails.
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

// movePosition takes the position from one version to another, in the
// transaction that applied the changes between. When it is not where it was
// thought to be nothing is moved, and the transaction has to end.
// grown is by how many rows the table grew; to.rows becomes the number.
func movePosition(ctx context.Context, tx pgx.Tx, uid string, from position, to *position, grown int64) error {
	err := tx.QueryRow(ctx, movePositionSQL, uid, from.generation, from.version, to.version, to.time, grown, to.rejected, to.started).Scan(&to.rows)
	if errors.Is(err, pgx.ErrNoRows) {
		return errBusy
	}
	if err != nil {
		return fmt.Errorf("move position: %w", err)
	}
	return nil
}

const (
	trackedSQL = `SELECT to_regclass('tarn_sync.position') IS NOT NULL`
	targetSQL  = `SELECT c.oid, c.relkind = 'p' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2`
	holderSQL  = `SELECT uid FROM tarn_sync.position WHERE relation = $1`
)

// target is what has the synced table's name in Postgres.
type target struct {
	oid         uint32 // 0 = nothing
	partitioned bool
	holder      string // UID of the synced table whose rows it holds; "" = a user's table
}

func findTarget(ctx context.Context, conn *pgx.Conn, n tarn.TableName) (target, error) {
	var t target
	err := conn.QueryRow(ctx, targetSQL, n.Schema, n.Table).Scan(&t.oid, &t.partitioned)
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
