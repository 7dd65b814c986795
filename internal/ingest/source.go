package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/pgvalue"
)

// xidColumn keeps the transaction of a row's last change, where a trigger
// maintains it (see TrackChanges).
const xidColumn = "_xid"

// column is a column of the source.
type column struct {
	name     string
	sql      string // its type as format_type prints it: SQL
	typ      pgvalue.Type
	required bool
}

// source is a table as the queries need it.
type source struct {
	table      string // quoted
	columns    []column
	checkpoint column
	key        []column
	tracked    bool // it has xidColumn
}

// order is what rows are read along.
func (s *source) order() []column { return append([]column{s.checkpoint}, s.key...) }

const (
	relationSQL = `SELECT c.oid, c.relkind::text, n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = pg_catalog.to_regclass($1)`

	columnsSQL = `SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid, a.atttypmod, a.attnotnull
FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`

	// The primary key, or else a unique index that tells every row from every other.
	keySQL = `SELECT array_agg(a.attname ORDER BY k.ord)
FROM pg_catalog.pg_index i, LATERAL unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k(attnum, ord)
LEFT JOIN pg_catalog.pg_attribute a ON a.attnum = k.attnum AND a.attrelid = $1
WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
GROUP BY i.indexrelid, i.indisprimary HAVING bool_and(a.attnotnull IS TRUE)
ORDER BY i.indisprimary DESC, count(*), i.indexrelid LIMIT 1`
)

// describe reads the definition of a table.
func describe(ctx context.Context, conn *pgx.Conn, o Options) (*source, error) {
	var oid uint32
	var kind, schema, name string
	err := conn.QueryRow(ctx, relationSQL, o.Table).Scan(&oid, &kind, &schema, &name)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, tarn.NotFound("there is no table %s; a name without a schema is looked for along search_path, letters count as small unless quoted", o.Table)
	case err != nil:
		return nil, fmt.Errorf("look for table %s: %w", o.Table, err)
	case kind != "r" && kind != "p":
		return nil, tarn.Invalid("%s is no table: rows of views and foreign tables do not say which transaction wrote them", o.Table)
	}
	s := &source{table: pgx.Identifier{schema, name}.Sanitize()}
	if err := s.readColumns(ctx, conn, oid); err != nil {
		return nil, fmt.Errorf("read the columns of %s: %w", o.Table, err)
	}
	at, ok := s.column(o.Column)
	if !ok {
		return nil, tarn.Invalid("%s has no column %s to read along; it has %s", o.Table, o.Column, strings.Join(s.names(), ", "))
	}
	s.checkpoint = at
	key := o.Key
	if len(key) == 0 {
		if err := conn.QueryRow(ctx, keySQL, oid).Scan(&key); err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return nil, fmt.Errorf("read the key of %s: %w", o.Table, err)
		}
	}
	if len(key) == 0 {
		return nil, tarn.Invalid("%s has neither a primary key nor a unique index over columns that are NOT NULL", o.Table).
			WithHint("name columns that tell its rows apart with --key")
	}
	for _, name := range key {
		c, ok := s.column(name)
		if !ok {
			return nil, tarn.Invalid("%s has no key column %s; it has %s", o.Table, name, strings.Join(s.names(), ", "))
		}
		if !c.required {
			return nil, tarn.Invalid("key column %s of %s may be NULL", name, o.Table)
		}
		s.key = append(s.key, c)
	}
	return s, nil
}

func (s *source) readColumns(ctx context.Context, conn *pgx.Conn, oid uint32) error {
	types := pgvalue.NewTypes(conn)
	rows, err := conn.Query(ctx, columnsSQL, oid)
	if err != nil {
		return err
	}
	type raw struct {
		column
		oid uint32
		mod int32
	}
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (raw, error) {
		var c raw
		return c, r.Scan(&c.name, &c.sql, &c.oid, &c.mod, &c.required)
	})
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.name == xidColumn && c.sql == "xid8" && c.required {
			s.tracked = true
			continue
		}
		if c.typ, err = types.Resolve(ctx, c.oid, c.mod); err != nil {
			return err
		}
		s.columns = append(s.columns, c.column)
	}
	return nil
}

func (s *source) column(name string) (column, bool) {
	i := slices.IndexFunc(s.columns, func(c column) bool { return c.name == name })
	if i < 0 {
		return column{}, false
	}
	return s.columns[i], true
}

func (s *source) names() []string {
	var out []string
	for _, c := range s.columns {
		out = append(out, c.name)
	}
	return out
}

func (s *source) keyNames() []string {
	var out []string
	for _, c := range s.key {
		out = append(out, c.name)
	}
	return out
}
