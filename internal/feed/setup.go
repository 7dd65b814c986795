package feed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/pgoutput"
)

// source is the Postgres side of one feed.
type source struct {
	conn        *pgx.Conn
	schema      string
	publication string // also the prefix of the slot's name
	follows     func(table string) bool
}

// messagePrefix marks the logical messages of feeds in the WAL.
const messagePrefix = "tarn_feed"

const (
	walLevelSQL     = `SHOW wal_level`
	schemaSQL       = `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)`
	publicationSQL  = `SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)`
	createSchemaSQL = `CREATE SCHEMA IF NOT EXISTS tarn_sync`

	// The trigger makes a table complete before its first row: full identity,
	// and a message by which the feed knows that it has every row of it.
	triggerFunctionSQL = `CREATE OR REPLACE FUNCTION tarn_sync.feed_table_created() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t record;
BEGIN
	FOR t IN
		SELECT DISTINCT c.oid, n.nspname, c.relkind
		FROM pg_event_trigger_ddl_commands() d
		JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass
		JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
		AND EXISTS (SELECT FROM pg_publication_namespace pn JOIN pg_publication p ON p.oid = pn.pnpubid
			WHERE p.pubname LIKE 'tarn\_feed\_%' AND pn.pnnspid = n.oid)
	LOOP
		EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', t.oid::regclass);
		PERFORM pg_logical_emit_message(true, 'tarn_feed', 'born ' || t.oid || ' ' || t.nspname);
	END LOOP;
END $$`
	// What a database's users can see of its feeds, under the published name.
	// A fork has the rows, but not the slots: its view is empty.
	statusTableSQL = `CREATE TABLE IF NOT EXISTS tarn_sync.feed_status (publication text, table_oid oid, status text NOT NULL,
	committed_lsn pg_lsn, PRIMARY KEY (publication, table_oid))`
	statusSchemaSQL = `CREATE SCHEMA IF NOT EXISTS wal2delta`
	statusOwnerSQL  = `SELECT r.rolsuper FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner WHERE n.nspname = 'wal2delta'`
	statusViewSQL   = `CREATE OR REPLACE VIEW wal2delta.tables AS SELECT f.table_oid, f.status, f.committed_lsn FROM tarn_sync.feed_status f
WHERE EXISTS (SELECT FROM pg_catalog.pg_replication_slots s WHERE pg_catalog.starts_with(s.slot_name, f.publication) AND s.database = pg_catalog.current_database())`
	statusGrantSQL = `GRANT USAGE ON SCHEMA wal2delta TO PUBLIC; GRANT SELECT ON wal2delta.tables TO PUBLIC`

	triggerExistsSQL = `SELECT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'tarn_feed_table_created')`
	createTriggerSQL = `CREATE EVENT TRIGGER tarn_feed_table_created ON ddl_command_end
WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO') EXECUTE FUNCTION tarn_sync.feed_table_created()`
	alwaysTriggerSQL = `ALTER EVENT TRIGGER tarn_feed_table_created ENABLE ALWAYS`

	// Every table whose rows the publication sends, partitions included.
	identitySQL = `SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.relreplident <> 'f'
AND (n.nspname = $1 OR EXISTS (SELECT FROM pg_partition_ancestors(c.oid) a
	JOIN pg_class ac ON ac.oid = a.relid JOIN pg_namespace an ON an.oid = ac.relnamespace WHERE an.nspname = $1))`

	// What the publication publishes, but read without its function, which
	// waits for every table that a user's transaction has locked. A partition
	// belongs to its topmost ancestor in the schema. Synced tables, known by
	// their trigger, came from Delta and do not go back.
	tablesSQL = `SELECT c.oid, c.relname FROM pg_publication p
JOIN pg_publication_namespace pn ON pn.pnpubid = p.oid
JOIN pg_class c ON c.relnamespace = pn.pnnspid AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
WHERE p.pubname = $1 AND NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND g.tgname = 'tarn_read_only')
AND NOT (c.relispartition AND EXISTS (SELECT FROM pg_partition_ancestors(c.oid) a
	JOIN pg_class ac ON ac.oid = a.relid WHERE ac.oid <> c.oid AND ac.relnamespace = c.relnamespace))
ORDER BY c.relname`
)

// prepare makes the publication and the trigger where they are missing. fresh
// reports that the publication is new: an older slot is then worthless.
func (s *source) prepare(ctx context.Context) (fresh bool, err error) {
	var level string
	if err := s.conn.QueryRow(ctx, walLevelSQL).Scan(&level); err != nil {
		return false, fmt.Errorf("read wal_level: %w", err)
	}
	if level != "logical" {
		return false, tarn.Conflict("wal_level of the branch is %s: a feed needs logical", level)
	}
	var found bool
	if err := s.conn.QueryRow(ctx, schemaSQL, s.schema).Scan(&found); err != nil {
		return false, fmt.Errorf("look for Postgres schema %s: %w", s.schema, err)
	}
	if !found {
		return false, tarn.NotFound("Postgres schema %q does not exist in the branch", s.schema).
			WithHint("CREATE SCHEMA " + pgx.Identifier{s.schema}.Sanitize())
	}
	if err := s.conn.QueryRow(ctx, triggerExistsSQL).Scan(&found); err != nil {
		return false, fmt.Errorf("look for the event trigger: %w", err)
	}
	if err := ownSchema(ctx, s.conn); err != nil {
		return false, err
	}
	steps := []string{triggerFunctionSQL}
	if !found {
		steps = append(steps, createTriggerSQL, alwaysTriggerSQL)
	}
	for _, sql := range steps {
		if _, err := s.conn.Exec(ctx, sql); err != nil && !isCode(err, codeDuplicateObject, codeUnique) {
			return false, fmt.Errorf("make the event trigger: %w", err)
		}
	}
	if err := s.showStatus(ctx); err != nil {
		return false, err
	}
	if err := s.conn.QueryRow(ctx, publicationSQL, s.publication).Scan(&found); err != nil {
		return false, fmt.Errorf("look for publication %s: %w", s.publication, err)
	}
	if !found {
		// Before anything is published: an update of a published table without
		// identity fails, and it is the user's.
		if err := s.identify(ctx, everyTable); err != nil {
			return false, err
		}
		sql := "CREATE PUBLICATION " + pgx.Identifier{s.publication}.Sanitize() + " FOR TABLES IN SCHEMA " +
			pgx.Identifier{s.schema}.Sanitize() + " WITH (publish_via_partition_root = true)"
		if _, err := s.conn.Exec(ctx, sql); err != nil {
			return false, fmt.Errorf("create publication: %w", err)
		}
	}
	return !found, nil
}

// showStatus makes the view of feeds' tables. A user's own schema of that name
// is left alone: then there is no view.
func (s *source) showStatus(ctx context.Context) error {
	for _, sql := range []string{statusTableSQL, statusSchemaSQL} {
		if _, err := s.conn.Exec(ctx, sql); err != nil && !isCode(err, codeDuplicateObject, codeUnique, codeDuplicateTable) {
			return fmt.Errorf("make the status view: %w", err)
		}
	}
	var ours bool
	if err := s.conn.QueryRow(ctx, statusOwnerSQL).Scan(&ours); err != nil {
		return fmt.Errorf("look for the owner of Postgres schema wal2delta: %w", err)
	}
	if !ours {
		return nil
	}
	for _, sql := range append([]string{statusViewSQL}, strings.Split(statusGrantSQL, ";")...) {
		// Two feeds that begin at once make it at once.
		if _, err := s.conn.Exec(ctx, sql); err != nil && !isCode(err, codeUnique, codeDuplicateTable, codeInternal) {
			return fmt.Errorf("make the status view: %w", err)
		}
	}
	return nil
}

const upsertStatusSQL = `INSERT INTO tarn_sync.feed_status (publication, table_oid, status, committed_lsn)
SELECT $1, o, s, l FROM unnest($2::oid[], $3::text[], $4::text[]::pg_lsn[]) AS t (o, s, l)
ON CONFLICT (publication, table_oid) DO UPDATE SET status = excluded.status, committed_lsn = excluded.committed_lsn`

// tell writes what the view shows of tables.
func (s *source) tell(ctx context.Context, tables []*table) error {
	var oids []uint32
	var states, lsns []string
	for _, t := range tables {
		oids = append(oids, t.oid)
		states = append(states, strings.TrimPrefix(string(t.status.state), "CDF_STATE_"))
		lsns = append(lsns, t.base.String())
	}
	if _, err := s.conn.Exec(ctx, upsertStatusSQL, s.publication, oids, states, lsns); err != nil {
		return fmt.Errorf("write the status view: %w", err)
	}
	return nil
}

// ownSchema refuses a database where schema tarn_sync is not Tarn's: its owner
// could put triggers there, which we would run as superuser. No role can give
// away a schema to a superuser, so what is checked once stays.
func ownSchema(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, createSchemaSQL); err != nil && !isCode(err, codeDuplicateObject, codeUnique) {
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

// patience says what to do about a table that is locked for long.
type patience int

const (
	leaveLocked patience = iota // the next look comes soon
	everyTable                  // fail
)

// identify sets REPLICA IDENTITY FULL on the tables of the schema that lack it.
func (s *source) identify(ctx context.Context, p patience) error {
	rows, err := s.conn.Query(ctx, identitySQL, s.schema)
	if err != nil {
		return fmt.Errorf("list replica identities: %w", err)
	}
	names, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (pgx.Identifier, error) {
		n := make(pgx.Identifier, 2)
		return n, r.Scan(&n[0], &n[1])
	})
	if err != nil {
		return fmt.Errorf("list replica identities: %w", err)
	}
	for _, n := range names {
		err := pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '2s'"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "ALTER TABLE "+n.Sanitize()+" REPLICA IDENTITY FULL")
			return err
		})
		if isCode(err, codeUndefinedTable) || p == leaveLocked && isCode(err, codeLockTimeout) {
			continue
		}
		if err != nil {
			return fmt.Errorf("set the replica identity of %s: %w", n.Sanitize(), err)
		}
	}
	return nil
}

// listed is a table of the publication.
type listed struct {
	oid  uint32
	name string
}

func (s *source) tables(ctx context.Context) ([]listed, error) {
	rows, err := s.conn.Query(ctx, tablesSQL, s.publication)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (listed, error) {
		var l listed
		return l, r.Scan(&l.oid, &l.name)
	})
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	return slices.DeleteFunc(all, func(l listed) bool { return !s.follows(l.name) }), nil
}

const columnsSQL = `SELECT a.attname, a.atttypid, a.atttypmod FROM pg_attribute a
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum`

// relation describes a table as the stream would: generated columns are not
// published and so are not copied either.
func relation(ctx context.Context, conn *pgx.Conn, schema string, l listed) (*pgoutput.Relation, error) {
	rows, err := conn.Query(ctx, columnsSQL, l.oid)
	if err != nil {
		return nil, fmt.Errorf("list columns of %s: %w", l.name, err)
	}
	cols, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (pgoutput.RelationColumn, error) {
		var c pgoutput.RelationColumn
		return c, r.Scan(&c.Name, &c.TypeOID, &c.TypeMod)
	})
	if err != nil {
		return nil, fmt.Errorf("list columns of %s: %w", l.name, err)
	}
	return &pgoutput.Relation{ID: l.oid, Namespace: schema, Name: l.name, Identity: pgoutput.IdentityFull, Columns: cols}, nil
}

const markSQL = `SELECT pg_logical_emit_message(true, 'tarn_feed', $1)`

// mark writes a message into the WAL; when it comes out of the slot,
// everything that was committed before this call has come out too.
func (s *source) mark(ctx context.Context, n uint64) error {
	if _, err := s.conn.Exec(ctx, markSQL, "mark "+s.publication+" "+strconv.FormatUint(n, 10)); err != nil {
		return fmt.Errorf("write a mark: %w", err)
	}
	return nil
}

// birth reads "born <oid> <schema>"; markOf reads "mark <publication> <n>".
func birth(content, schema string) (uint32, bool) {
	rest, ok := strings.CutPrefix(content, "born ")
	oid, name, two := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(oid, 10, 32)
	return uint32(n), ok && two && err == nil && name == schema
}

func markOf(content, publication string) (uint64, bool) {
	rest, ok := strings.CutPrefix(content, "mark "+publication+" ")
	n, err := strconv.ParseUint(rest, 10, 64)
	return n, ok && err == nil
}

// SQLSTATEs that setup expects.
const (
	codeUnique          = "23505"
	codeDuplicateObject = "42710"
	codeUndefinedObject = "42704"
	codeUndefinedTable  = "42P01"
	codeDuplicateTable  = "42P07"
	codeInternal        = "XX000" // "tuple concurrently updated"
	codeLockTimeout     = "55P03"
)

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
