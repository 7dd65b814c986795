package warehouse

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/pgvalue"
)

// beginSQL makes text forms say exactly what a value is, and one snapshot of what
// is read.
const beginSQL = `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD';
SET LOCAL extra_float_digits = 1; SET LOCAL IntervalStyle = 'postgres'; SET LOCAL bytea_output = 'hex'`

// columnsSQL describes a table as its owner has it now.
const columnsSQL = `SELECT a.attname, a.atttypid, a.atttypmod FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`

// pgColumn is a column of a Postgres table.
type pgColumn struct {
	name string
	oid  uint32
	mod  int32
	typ  pgvalue.Type
}

// postgres reads a table of a registered database: the columns and the rows that
// the statement needs, with the principal's own rights in that database.
func (s *scene) postgres(ctx context.Context, t *tree, g *target, e catalog.Entry) (string, error) {
	conn, err := s.w.config.Connect(ctx, s.who, e.Branch, e.Database)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", g.name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	schema, table := e.Object.Schema, e.Object.Name
	if table == "" {
		schema, table = g.name.Schema, g.name.Table
	}
	body, err := s.copyOut(ctx, conn, t, g, schema, table)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", g.name, err)
	}
	return body, nil
}

func (s *scene) copyOut(ctx context.Context, conn *pgx.Conn, t *tree, g *target, schema, table string) (string, error) {
	if err := conn.PgConn().Exec(ctx, beginSQL).Close(); err != nil {
		return "", err
	}
	columns, err := describePostgres(ctx, conn, schema, table)
	if err != nil {
		return "", err
	}
	all := delta.Schema{}
	var names []string
	var read []pgColumn
	for _, c := range columns {
		all.Fields = append(all.Fields, delta.Field{Name: c.name, Type: c.typ.Delta, Nullable: true})
		if g.needs(t, c.name) {
			read = append(read, c)
		}
	}
	if len(columns) == 0 {
		return "", tarn.NotFound("Postgres has no table %s.%s any more", schema, table)
	}
	if len(read) == 0 {
		read = columns[:1]
	}
	as, err := all.Arrow()
	if err != nil {
		return "", err
	}
	for _, c := range read {
		names = append(names, c.name)
	}
	return s.staged(as, names, func(w *stageWriter, staged *arrow.Schema) error {
		b := array.NewRecordBuilder(memory.DefaultAllocator, staged)
		defer b.Release()
		return fill(ctx, conn, b, w, read, selectSQL(schema, table, read, columns, g.tests()))
	})
}

func describePostgres(ctx context.Context, conn *pgx.Conn, schema, table string) ([]pgColumn, error) {
	rows, err := conn.Query(ctx, columnsSQL, schema, table)
	if err != nil {
		return nil, err
	}
	columns, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (c pgColumn, err error) { return c, r.Scan(&c.name, &c.oid, &c.mod) })
	if err != nil {
		return nil, err
	}
	types := pgvalue.NewTypes(conn)
	for i := range columns {
		if columns[i].typ, err = types.Resolve(ctx, columns[i].oid, columns[i].mod); err != nil {
			return nil, err
		}
	}
	return columns, nil
}

// selection is a statement for Postgres, whose constants are arguments.
type selection struct {
	sql  string
	args [][]byte
}

func selectSQL(schema, table string, read, columns []pgColumn, tests []test) selection {
	var q selection
	var names, conditions []string
	for _, c := range read {
		names = append(names, pgx.Identifier{c.name}.Sanitize())
	}
	for _, t := range tests {
		i := slices.IndexFunc(columns, func(c pgColumn) bool { return strings.EqualFold(c.name, t.column) })
		if i < 0 {
			continue
		}
		c := columns[i]
		// Texts have an order of their own in every collation; whether two are equal,
		// only where Postgres's type is plain.
		if c.typ.Delta == "string" && (t.op != "=" && t.op != "IN" || c.typ.Name != "text" && !strings.HasPrefix(c.typ.Name, "character varying")) {
			continue
		}
		if _, ok := valuesFor(c.typ.Delta, t.values); !ok {
			continue
		}
		typ := map[string]string{"byte": "bigint", "short": "bigint", "integer": "bigint", "long": "bigint", "date": "date", "string": "text"}[c.typ.Delta]
		var marks []string
		for _, v := range t.values {
			q.args = append(q.args, []byte(fmt.Sprint(v)))
			marks = append(marks, "$"+itoa(len(q.args))+"::"+typ)
		}
		if t.op == "IN" {
			conditions = append(conditions, pgx.Identifier{c.name}.Sanitize()+" IN ("+strings.Join(marks, ", ")+")")
		} else {
			conditions = append(conditions, pgx.Identifier{c.name}.Sanitize()+" "+t.op+" "+marks[0])
		}
	}
	q.sql = "SELECT " + strings.Join(names, ", ") + " FROM " + pgx.Identifier{schema, table}.Sanitize()
	if len(conditions) > 0 {
		q.sql += " WHERE " + strings.Join(conditions, " AND ")
	}
	return q
}

// fill streams the rows. All values come as text.
func fill(ctx context.Context, conn *pgx.Conn, b *array.RecordBuilder, w *stageWriter, columns []pgColumn, q selection) error {
	var add []pgvalue.Append
	for i, c := range columns {
		a, err := pgvalue.Appender(b.Field(i), c.typ.Delim)
		if err != nil {
			return fmt.Errorf("column %s: %w", c.name, err)
		}
		add = append(add, a)
	}
	flush := func() error {
		rec := b.NewRecordBatch()
		defer rec.Release()
		return w.write(rec)
	}
	res := conn.PgConn().ExecParams(ctx, q.sql, q.args, nil, nil, nil)
	n := 0
	for res.NextRow() {
		for i, v := range res.Values() {
			if v == nil {
				b.Field(i).AppendNull()
			} else if !add[i](v) {
				_, _ = res.Close()
				return tarn.Invalid("column %s holds %.60q of type %s, which the lake has no form for", columns[i].name, v, columns[i].typ.Name).
					WithHint("read a view in Postgres that casts the column to text, or leaves such rows out")
			}
		}
		if n++; n%16384 == 0 {
			if err := flush(); err != nil {
				_, _ = res.Close()
				return err
			}
		}
	}
	if _, err := res.Close(); err != nil {
		return err
	}
	return flush()
}
