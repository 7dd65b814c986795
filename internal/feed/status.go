package feed

import (
	"context"
	"fmt"
	"strings"
)

const (
	// What a database's users can see of its feeds, under the published name.
	// A fork has the rows, but not the slots: its view is empty.
	statusTableSQL = `CREATE TABLE IF NOT EXISTS tarn_sync.feed_status (publication text, table_oid oid, status text NOT NULL,
	committed_lsn pg_lsn, PRIMARY KEY (publication, table_oid))`
	statusSchemaSQL = `CREATE SCHEMA IF NOT EXISTS wal2delta`
	statusOwnerSQL  = `SELECT r.rolsuper FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner WHERE n.nspname = 'wal2delta'`
	statusViewSQL   = `CREATE OR REPLACE VIEW wal2delta.tables AS SELECT f.table_oid, f.status, f.committed_lsn FROM tarn_sync.feed_status f
WHERE EXISTS (SELECT FROM pg_catalog.pg_replication_slots s WHERE pg_catalog.starts_with(s.slot_name, f.publication) AND s.database = pg_catalog.current_database())`
	statusGrantSQL = `GRANT USAGE ON SCHEMA wal2delta TO PUBLIC; GRANT SELECT ON wal2delta.tables TO PUBLIC`
)

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
