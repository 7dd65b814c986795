package feed

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// What a stream of rows does not tell, triggers write into it as messages of
// the transaction that did it:
//
//	born <oid> <schema>     the table was made: every row of it comes
//	parts <oid> <schema>    a partition was attached, detached, dropped or truncated
//	mark <publication> <n>  the feed's own: everything before it has come
const (
	// A table's partitions as they were last seen. What differs without a
	// CREATE TABLE came or went with its rows, of which the stream says nothing.
	partitionTableSQL = `CREATE TABLE IF NOT EXISTS tarn_sync.feed_partitions (root oid PRIMARY KEY, leaves oid[] NOT NULL)`

	noteFunctionSQL = `CREATE OR REPLACE FUNCTION tarn_sync.note_partitions(tell boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	r record;
	leaf oid;
	had oid[];
BEGIN
	FOR r IN
		SELECT c.oid, n.nspname, ARRAY(SELECT t.relid::oid FROM pg_partition_tree(c.oid) t WHERE t.isleaf ORDER BY 1) AS leaves
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'p' AND EXISTS (SELECT FROM pg_publication_namespace pn JOIN pg_publication p ON p.oid = pn.pnpubid
			WHERE p.pubname LIKE 'tarn\_feed\_%' AND pn.pnnspid = n.oid)
	LOOP
		had := (SELECT f.leaves FROM tarn_sync.feed_partitions f WHERE f.root = r.oid);
		CONTINUE WHEN had IS NOT DISTINCT FROM r.leaves;
		INSERT INTO tarn_sync.feed_partitions (root, leaves) VALUES (r.oid, r.leaves)
			ON CONFLICT (root) DO UPDATE SET leaves = excluded.leaves;
		FOR leaf IN
			SELECT c.oid FROM pg_class c WHERE c.oid = ANY (r.leaves) AND c.relkind = 'r'
			AND NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND g.tgname = 'tarn_feed_truncated')
		LOOP
			EXECUTE format('CREATE TRIGGER tarn_feed_truncated AFTER TRUNCATE ON %s EXECUTE FUNCTION tarn_sync.feed_truncated()', leaf::regclass);
		END LOOP;
		IF tell AND had IS NOT NULL THEN
			PERFORM pg_logical_emit_message(true, 'tarn_feed', 'parts ' || r.oid || ' ' || r.nspname);
		END IF;
	END LOOP;
END $$`

	truncatedFunctionSQL = `CREATE OR REPLACE FUNCTION tarn_sync.feed_truncated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	r record;
BEGIN
	FOR r IN
		SELECT c.oid, n.nspname FROM pg_partition_ancestors(TG_RELID) a JOIN pg_class c ON c.oid = a.relid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'p'
	LOOP
		PERFORM pg_logical_emit_message(true, 'tarn_feed', 'parts ' || r.oid || ' ' || r.nspname);
	END LOOP;
	RETURN NULL;
END $$`

	// A new table is complete before its first row.
	ddlFunctionSQL = `CREATE OR REPLACE FUNCTION tarn_sync.feed_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	t record;
BEGIN
	-- First: the ALTER TABLE below comes here, too.
	PERFORM tarn_sync.note_partitions(TG_TAG IN ('ALTER TABLE', 'DROP TABLE'));
	IF TG_TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO') THEN
		FOR t IN
			SELECT DISTINCT c.oid, n.nspname, c.relkind,
				EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attgenerated = 'v') AS virtual
			FROM pg_event_trigger_ddl_commands() d
			JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass
			JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
			AND EXISTS (SELECT FROM pg_publication_namespace pn JOIN pg_publication p ON p.oid = pn.pnpubid
				WHERE p.pubname LIKE 'tarn\_feed\_%' AND pn.pnnspid = n.oid)
		LOOP
			IF NOT t.virtual THEN
				EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', t.oid::regclass);
			END IF;
			PERFORM pg_logical_emit_message(true, 'tarn_feed', 'born ' || t.oid || ' ' || t.nspname);
		END LOOP;
	END IF;
END $$`

	triggerExistsSQL = `SELECT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'tarn_feed_ddl')`
	createTriggerSQL = `CREATE EVENT TRIGGER tarn_feed_ddl ON ddl_command_end
WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE', 'DROP TABLE') EXECUTE FUNCTION tarn_sync.feed_ddl()`
	alwaysTriggerSQL = `ALTER EVENT TRIGGER tarn_feed_ddl ENABLE ALWAYS`
	// Of an earlier version.
	dropOldTriggerSQL  = `DROP EVENT TRIGGER IF EXISTS tarn_feed_table_created`
	dropOldFunctionSQL = `DROP FUNCTION IF EXISTS tarn_sync.feed_table_created()`
	notePartitionsSQL  = `SELECT tarn_sync.note_partitions(false)`
)

// makeTriggers makes what writes messages into the stream, where it is missing.
func (s *source) makeTriggers(ctx context.Context) error {
	var found bool
	if err := s.conn.QueryRow(ctx, triggerExistsSQL).Scan(&found); err != nil {
		return fmt.Errorf("look for the event trigger: %w", err)
	}
	steps := []string{partitionTableSQL, truncatedFunctionSQL, noteFunctionSQL, ddlFunctionSQL}
	if !found {
		steps = append(steps, createTriggerSQL, alwaysTriggerSQL, dropOldTriggerSQL, dropOldFunctionSQL)
	}
	for _, sql := range steps {
		// Two feeds that begin at once make them at once.
		if _, err := s.conn.Exec(ctx, sql); err != nil && !isCode(err, codeDuplicateObject, codeUnique, codeDuplicateTable, codeInternal) {
			return fmt.Errorf("make the event trigger: %w", err)
		}
	}
	return nil
}

// notePartitions notes the partitions of tables that were there before. One
// that is locked for long is noted at its next ALTER TABLE.
func (s *source) notePartitions(ctx context.Context) error {
	err := pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '2s'"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, notePartitionsSQL)
		return err
	})
	if err != nil && !isCode(err, codeLockTimeout, codeUnique, codeDuplicateObject) {
		return fmt.Errorf("note the partitions: %w", err)
	}
	return nil
}

const (
	dropTriggerSQL = `DROP EVENT TRIGGER IF EXISTS tarn_feed_ddl`
	dropTableSQL   = `DROP TABLE IF EXISTS tarn_sync.feed_partitions`
	// With the triggers on partitions.
	dropFunctionSQL = `DROP FUNCTION IF EXISTS tarn_sync.feed_ddl(), tarn_sync.note_partitions(boolean), tarn_sync.feed_truncated() CASCADE`
	othersSQL       = `SELECT EXISTS (SELECT FROM pg_publication WHERE pubname LIKE 'tarn\_feed\_%')`
)

// remove takes everything of the feed out of the database, the slot first: it
// is what holds WAL. Doing it again is harmless.
func (s *source) remove(ctx context.Context) error {
	slots, err := s.slots(ctx)
	if err != nil {
		return err
	}
	for _, st := range slots {
		if err := s.dropSlot(ctx, st); err != nil {
			return err
		}
	}
	if _, err := s.conn.Exec(ctx, "DROP PUBLICATION IF EXISTS "+pgx.Identifier{s.publication}.Sanitize()); err != nil {
		return fmt.Errorf("drop publication: %w", err)
	}
	var others bool
	if err := s.conn.QueryRow(ctx, othersSQL).Scan(&others); err != nil {
		return fmt.Errorf("look for other feeds: %w", err)
	}
	if others {
		return nil
	}
	for _, sql := range []string{dropTriggerSQL, dropFunctionSQL, dropTableSQL} {
		if _, err := s.conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("drop the event trigger: %w", err)
		}
	}
	return nil
}

// birth reads "born <oid> <schema>", partsOf "parts <oid> <schema>", markOf
// "mark <publication> <n>".
func birth(content, schema string) (uint32, bool) { return ofTable(content, "born ", schema) }

func partsOf(content, schema string) (uint32, bool) { return ofTable(content, "parts ", schema) }

func ofTable(content, verb, schema string) (uint32, bool) {
	rest, ok := strings.CutPrefix(content, verb)
	oid, name, two := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(oid, 10, 32)
	return uint32(n), ok && two && err == nil && name == schema
}

func markOf(content, publication string) (uint64, bool) {
	rest, ok := strings.CutPrefix(content, "mark "+publication+" ")
	n, err := strconv.ParseUint(rest, 10, 64)
	return n, ok && err == nil
}
