package syncedtable

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// The synced table is a partitioned table with one partition, which takes every
// row:
//
//	public.users          partitioned by list of the key's first column;
//	                      keeps grants, comments, views, policies, indexes
//	└─ public.users_p7    default partition, made by load 7, holds the rows
//
// A load makes another partition beside it and puts it in the old one's place.
// Both belong to tarn_synced_owner, whose members are the project's owner: it
// may index and comment them and let others read them, as an owner can. Rows
// are written by tarn_sync_writer, into the partition itself.
const (
	ownerRole  = "tarn_synced_owner"
	writerRole = "tarn_sync_writer"
)

// index is an index of the old partition, made again on the new one under a
// passing name. One that belongs to an index of the partitioned table is
// joined to it when the partition is attached.
type index struct{ name, made string }

const (
	// What follows the table's name in an index's definition can be used for
	// another table as it is. Indexes of the partitioned table, and those that
	// only its partition has.
	indexesSQL = `SELECT c.relname, i.indisunique, i.indrelid = $1 AS whole,
	substr(pg_get_indexdef(i.indexrelid), strpos(pg_get_indexdef(i.indexrelid), ' USING '))
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE (i.indrelid = $1 OR i.indrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = $1)
	AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid))
AND NOT i.indisprimary AND (i.indisvalid OR i.indrelid = $1)
AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)
ORDER BY c.relname`
	roleSQL       = `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`
	partitionsSQL = `SELECT c.oid, n.nspname, c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE i.inhparent = $1 ORDER BY c.oid`
)

// furnish gives the new partition its owner, the refusal to be written, and the
// indexes that readers rely on. Members of the owner's role may have put
// functions of their own into indexes: Postgres runs those as the owner.
func (s *session) furnish(ctx context.Context, b built) ([]index, error) {
	if err := s.dress(ctx, s.conn, b.path()); err != nil {
		return nil, err
	}
	project, err := controldb.GetProject(ctx, s.w.k.db, s.w.row.Branch.Parent())
	if err != nil {
		return nil, err
	}
	if err := s.makeSchema(ctx, project.Owner); err != nil {
		return nil, err
	}
	for _, role := range []string{writerRole, ownerRole} {
		if _, err := s.conn.Exec(ctx, "GRANT USAGE ON SCHEMA "+pgx.Identifier{s.w.row.Name.Schema}.Sanitize()+" TO "+role); err != nil {
			return nil, fmt.Errorf("let %s into the Postgres schema: %w", role, err)
		}
	}
	if err := s.admitOwner(ctx, project.Owner); err != nil {
		return nil, err
	}
	if s.old.oid == 0 {
		return nil, nil
	}
	return s.reindex(ctx, b, s.old.oid)
}

// dress gives a table its owner, takes writing away from it, and lets the
// writer write.
func (s *session) dress(ctx context.Context, x executing, path string) error {
	for _, sql := range []string{
		"ALTER TABLE " + path + " OWNER TO " + ownerRole,
		"REVOKE ALL ON " + path + " FROM " + ownerRole,
		"GRANT SELECT, REFERENCES ON " + path + " TO " + ownerRole,
		"GRANT SELECT, INSERT, UPDATE, DELETE ON " + path + " TO " + writerRole,
		"CREATE TRIGGER " + readOnlyTrigger + " BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON " + path +
			" FOR EACH STATEMENT EXECUTE FUNCTION tarn_sync.refuse_write(" + quoteLiteral(s.w.row.Source.String()) + ")",
	} {
		if _, err := x.Exec(ctx, sql); err != nil {
			return fmt.Errorf("make the table read-only: %w", err)
		}
	}
	return nil
}

const memberSQL = `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1) AND NOT pg_has_role($1, '` + ownerRole + `', 'USAGE')`

// admitOwner makes the project's owner a member of the owner's role.
func (s *session) admitOwner(ctx context.Context, owner string) error {
	var missing bool
	var version int
	if err := s.conn.QueryRow(ctx, roleSQL, owner).Scan(&missing); err != nil || !missing {
		return err
	}
	if err := s.conn.QueryRow(ctx, memberSQL, owner).Scan(&missing); err != nil || !missing {
		return err
	}
	if err := s.conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int`).Scan(&version); err != nil {
		return err
	}
	sql := "GRANT " + ownerRole + " TO " + pgx.Identifier{owner}.Sanitize()
	if version >= 160000 {
		sql += " WITH INHERIT TRUE, SET FALSE"
	}
	if _, err := s.conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("let %s index the table: %w", owner, err)
	}
	return nil
}

// quoteLiteral quotes a string for SQL that takes no arguments. Backslashes
// stand for themselves in standard_conforming_strings, Postgres's default and
// all we ever set.
func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// makeSchema makes the target's Postgres schema for the project's owner.
func (s *session) makeSchema(ctx context.Context, owner string) error {
	schema := s.w.row.Name.Schema
	var exists bool
	if err := s.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)`, schema).Scan(&exists); err != nil {
		return fmt.Errorf("look for Postgres schema %s: %w", schema, err)
	}
	if exists {
		return nil
	}
	if make := s.w.row.Asked.MakeObjects; make != nil && !*make {
		return tarn.Invalid("Postgres schema %s is not there, and create_database_objects_if_missing is false", schema).
			WithHint("create the schema, then refresh the synced table")
	}
	sql := "CREATE SCHEMA IF NOT EXISTS " + pgx.Identifier{schema}.Sanitize()
	if err := s.conn.QueryRow(ctx, roleSQL, owner).Scan(&exists); err != nil {
		return fmt.Errorf("look for role %s: %w", owner, err)
	}
	if exists {
		sql += " AUTHORIZATION " + pgx.Identifier{owner}.Sanitize()
	}
	if _, err := s.conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("create Postgres schema %s: %w", schema, err)
	}
	return nil
}

// reindex makes the users' indexes on the new partition. One that no longer
// fits, because its column went, is left out.
func (s *session) reindex(ctx context.Context, b built, old uint32) ([]index, error) {
	type definition struct {
		name          string
		unique, whole bool
		rest          string
	}
	rows, err := s.conn.Query(ctx, indexesSQL, old)
	if err != nil {
		return nil, fmt.Errorf("list indexes: %w", err)
	}
	defs, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (d definition, err error) {
		return d, r.Scan(&d.name, &d.unique, &d.whole, &d.rest)
	})
	if err != nil {
		return nil, fmt.Errorf("list indexes: %w", err)
	}
	var made []index
	for i, d := range defs {
		x := index{made: fmt.Sprintf("%s_i%d", cut(b.name, maxIdentifier-8), i)}
		if !d.whole {
			x.name = d.name
		}
		kind := "INDEX "
		if d.unique {
			kind = "UNIQUE INDEX "
		}
		_, err := s.conn.Exec(ctx, "CREATE "+kind+pgx.Identifier{x.made}.Sanitize()+" ON "+b.path()+d.rest)
		switch {
		case isCode(err, "42703", "42804", "42883", "0A000"):
			s.w.log.Warn("index left out", "path", d.name, "err", err)
			s.w.event(ctx, tarn.PipelineEvent{Level: tarn.EventWarn, Type: tarn.EventFlowDefinition,
				Message: "Index " + d.name + " does not fit the new rows and was left out: " + err.Error()})
			continue
		case isCode(err, "23505"):
			return nil, tarn.Conflict("the rows of the source do not fit unique index %s: %w", d.name, err).WithHint("drop the index and refresh")
		case err != nil:
			return nil, fmt.Errorf("make index %s again: %w", d.name, err)
		}
		made = append(made, x)
	}
	return made, nil
}

// difference is how the columns of a partitioned table differ from those it
// should have.
type difference struct {
	add     []string // definitions: name and type
	drop    []string // names, quoted
	retype  []string // "name TYPE type"
	changes []string // what of it is not additive, in words
}

const columnsSQL = `SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum`

type pgColumn struct{ name, typ string }

func columnTypes(ctx context.Context, tx pgx.Tx, oid uint32) ([]pgColumn, error) {
	rows, err := tx.Query(ctx, columnsSQL, oid)
	if err != nil {
		return nil, fmt.Errorf("list columns: %w", err)
	}
	cols, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (c pgColumn, err error) { return c, r.Scan(&c.name, &c.typ) })
	if err != nil {
		return nil, fmt.Errorf("list columns: %w", err)
	}
	return cols, nil
}

// compare finds what has to change in have to make it want.
func compare(have, want []pgColumn) difference {
	var d difference
	for _, c := range want {
		id := pgx.Identifier{c.name}.Sanitize()
		i := slices.IndexFunc(have, func(h pgColumn) bool { return h.name == c.name })
		switch {
		case i < 0:
			d.add = append(d.add, id+" "+c.typ)
		case have[i].typ != c.typ:
			d.retype = append(d.retype, id+" TYPE "+c.typ+" USING NULL")
			d.changes = append(d.changes, fmt.Sprintf("column %s was %s and is %s now", c.name, have[i].typ, c.typ))
		}
	}
	for _, h := range have {
		if !slices.ContainsFunc(want, func(c pgColumn) bool { return c.name == h.name }) {
			d.drop = append(d.drop, pgx.Identifier{h.name}.Sanitize())
			d.changes = append(d.changes, fmt.Sprintf("column %s is not there any more", h.name))
		}
	}
	return d
}
