package feed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

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

	// Every table whose rows the publication sends, partitions included. With
	// a virtual generated column Postgres refuses updates under full identity:
	// the primary key must do.
	identitySQL = `SELECT n.nspname, c.relname, v.virtual FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
LATERAL (SELECT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 'v' AND NOT a.attisdropped) AS virtual) v
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
AND (NOT v.virtual AND c.relreplident <> 'f' OR v.virtual AND c.relreplident IN ('f', 'n'))
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
	if err := ownSchema(ctx, s.conn); err != nil {
		return false, err
	}
	if err := s.makeTriggers(ctx); err != nil {
		return false, err
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
		options := "publish_via_partition_root = true"
		if s.generated() {
			options += ", publish_generated_columns = stored"
		}
		sql := "CREATE PUBLICATION " + pgx.Identifier{s.publication}.Sanitize() + " FOR TABLES IN SCHEMA " +
			pgx.Identifier{s.schema}.Sanitize() + " WITH (" + options + ")"
		if _, err := s.conn.Exec(ctx, sql); err != nil {
			return false, fmt.Errorf("create publication: %w", err)
		}
	}
	if err := s.notePartitions(ctx); err != nil {
		return false, err
	}
	if found && s.generated() {
		// Made by a version that did not ask for them.
		sql := "ALTER PUBLICATION " + pgx.Identifier{s.publication}.Sanitize() + " SET (publish_generated_columns = stored)"
		if _, err := s.conn.Exec(ctx, sql); err != nil {
			return false, fmt.Errorf("alter publication: %w", err)
		}
	}
	return !found, nil
}

// generated says whether the server publishes generated columns when asked.
// Where it can and was not asked, it refuses updates of tables that have them.
func (s *source) generated() bool { return majorOf(s.conn) >= 18 }

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

// identify gives the tables of the schema the replica identity they need.
func (s *source) identify(ctx context.Context, p patience) error {
	rows, err := s.conn.Query(ctx, identitySQL, s.schema)
	if err != nil {
		return fmt.Errorf("list replica identities: %w", err)
	}
	type lacking struct {
		name    pgx.Identifier
		virtual bool
	}
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (lacking, error) {
		l := lacking{name: make(pgx.Identifier, 2)}
		return l, r.Scan(&l.name[0], &l.name[1], &l.virtual)
	})
	if err != nil {
		return fmt.Errorf("list replica identities: %w", err)
	}
	for _, l := range all {
		n, identity := l.name, "FULL"
		if l.virtual {
			identity = "DEFAULT"
		}
		err := pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '2s'"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "ALTER TABLE "+n.Sanitize()+" REPLICA IDENTITY "+identity)
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
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
AND (a.attgenerated = '' OR a.attgenerated = 's' AND current_setting('server_version_num')::int >= 180000) ORDER BY a.attnum`

// relation describes a table as the stream would: generated columns are
// published, where they are stored, from Postgres 18 on; what is not published
// is not copied either, or it would go stale.
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
