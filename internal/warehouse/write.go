package warehouse

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/warehouse/engine"
)

// create does CREATE TABLE [IF NOT EXISTS] name [USING DELTA] [PARTITIONED BY (…)]
// [COMMENT '…'] AS query.
//
//  1. the query is begun: a wrong one leaves nothing
//  2. the name is registered (crash: a name without a table, which DROP TABLE removes)
//  3. an empty table is made, then filled by one commit (crash: an empty table)
//
// An error after step 2 takes the name back.
func (c *command) create(ctx context.Context) error {
	c.i++
	if !c.take("table") {
		return c.want("TABLE")
	}
	absent := c.take("if", "not", "exists")
	n, err := c.table()
	if err != nil {
		return err
	}
	var m delta.Metadata
	comment := ""
	for !c.take("as") {
		switch {
		case c.take("using"):
			if !c.take("delta") {
				return c.want("DELTA")
			}
		case c.take("comment"):
			if c.next().kind != lexString {
				return c.want("a text")
			}
			comment = c.next().value()
			c.i++
		case c.take("partitioned", "by"):
			if m.PartitionBy, err = c.names(); err != nil {
				return err
			}
		default:
			return c.want("AS and a query")
		}
	}
	c.act("createTable", "tables", n.String())
	rights := c.w.config.Catalog.For(c.who)
	if err := rights.Check(ctx, tarn.PrivilegeCreateTable, tarn.SchemaSecurable(n.Catalog, n.Schema)); err != nil {
		return err
	}
	if _, err := c.w.config.Catalog.Table(ctx, n); err == nil {
		if absent {
			return nil
		}
		return tarn.Conflict("[TABLE_OR_VIEW_ALREADY_EXISTS] there is a table %s", n)
	} else if tarn.KindOf(err) != tarn.KindNotFound {
		return err
	}
	return c.query(ctx, c.statement.ID, c.tail(), "", c.statement.Params, func(rows *engine.Rows) error {
		m.Schema, err = schemaOf(rows.Schema())
		if err != nil {
			return err
		}
		t, err := c.w.config.Catalog.CreateTable(ctx, c.who, n, "", comment)
		if err != nil {
			return err
		}
		count, err := c.filled(ctx, t.Location, m, rows)
		if err != nil {
			return errors.Join(err, c.w.config.Catalog.DropTable(context.WithoutCancel(ctx), c.who, n))
		}
		return errors.Join(c.affected(count), io.EOF)
	})
}

func (c *command) filled(ctx context.Context, location string, m delta.Metadata, rows *engine.Rows) (int64, error) {
	dt, err := c.w.config.CreateTable(ctx, location, m)
	if err != nil {
		return 0, err
	}
	return appendRows(ctx, dt, rows, delta.CommitOptions{Operation: "CREATE TABLE AS SELECT"}, nil)
}

// appendRows commits the rows of a query in one version.
func appendRows(ctx context.Context, dt *delta.Table, rows *engine.Rows, o delta.CommitOptions, before func(*delta.Tx)) (int64, error) {
	base, err := dt.Latest(ctx)
	if err != nil {
		return 0, err
	}
	x := dt.Begin(base)
	defer func() { x.Abort(context.WithoutCancel(ctx)) }()
	if before != nil {
		before(x)
	}
	n := int64(0)
	err = drain(rows, func(rec arrow.RecordBatch) error {
		n += rec.NumRows()
		return x.Append(ctx, rec)
	})
	if !errors.Is(err, io.EOF) {
		return 0, err
	}
	_, err = x.Commit(ctx, o)
	return n, err
}

func (c *command) affected(n int64) error {
	return c.answer("num_affected_rows#", [][]string{{fmt.Sprint(n)}})
}

// names reads (a, b).
func (c *cursor) names() ([]string, error) {
	var out []string
	if !c.next().sign("(") {
		return nil, c.want("(")
	}
	for {
		c.i++
		if !c.next().name() {
			return nil, c.want("a column")
		}
		out = append(out, c.next().value())
		c.i++
		if c.next().sign(")") {
			c.i++
			return out, nil
		}
		if !c.next().sign(",") {
			return nil, c.want(", or )")
		}
	}
}

// written opens a table that the principal may change by SQL.
func (c *command) written(ctx context.Context, n tarn.TableName) (*delta.Table, error) {
	e, err := c.resolve(ctx, n, tarn.PrivilegeModify)
	if err != nil {
		return nil, err
	}
	switch {
	case e.Kind == catalog.Feed:
		return nil, tarn.Conflict("%s is written by a feed, and by nobody else", n)
	case !e.Kind.Delta():
		return nil, tarn.Invalid("%s is a Postgres table: write it through Postgres", n).WithHint("tarn psql " + e.Branch.Project + "/" + e.Branch.Branch)
	}
	return c.w.open(ctx, e.Table.Location)
}

// insert does INSERT INTO|OVERWRITE [TABLE] name [(columns)] query. Columns go by
// place; those that are left out are NULL.
func (c *command) insert(ctx context.Context) error {
	c.i++
	overwrite := c.take("overwrite")
	if !overwrite && !c.take("into") {
		return c.want("INTO or OVERWRITE")
	}
	c.take("table")
	n, err := c.table()
	if err != nil {
		return err
	}
	var columns []string
	// A list of columns and a query may both begin with a parenthesis.
	if c.next().sign("(") && c.i+1 < len(c.tokens) && !slices.ContainsFunc([]string{"select", "with", "values", "from"}, c.tokens[c.i+1].is) {
		if columns, err = c.names(); err != nil {
			return err
		}
	}
	if c.end() {
		return c.want("a query")
	}
	dt, err := c.written(ctx, n)
	if err != nil {
		return err
	}
	snap, err := dt.Latest(ctx)
	if err != nil {
		return err
	}
	as, err := snap.Schema().Arrow()
	if err != nil {
		return err
	}
	var casts, names []string
	for i, f := range as.Fields() {
		if columns != nil && !slices.ContainsFunc(columns, func(s string) bool { return strings.EqualFold(s, f.Name) }) {
			continue
		}
		typ, err := duckType(as.Field(i).Type)
		if err != nil {
			return err
		}
		casts = append(casts, "CAST("+quote(f.Name)+" AS "+typ+") AS "+quote(f.Name))
		names = append(names, quote(f.Name))
	}
	if columns != nil {
		if len(names) != len(columns) {
			return tarn.Invalid("[UNRESOLVED_COLUMN] %s has not all of the columns %s", n, strings.Join(columns, ", ")).WithHint("DESCRIBE " + n.String())
		}
		for i, s := range columns {
			names[i] = quote(s)
		}
	}
	sql := "SELECT " + strings.Join(casts, ", ") + " FROM (\n" + c.tail() + "\n) AS inserted(" + strings.Join(names, ", ") + ")"
	o := delta.CommitOptions{Operation: "WRITE", Params: map[string]string{"mode": "Append"}}
	var before func(*delta.Tx)
	if overwrite {
		o.Params, before = map[string]string{"mode": "Overwrite"}, func(x *delta.Tx) { x.Overwrite() }
	}
	return c.query(ctx, c.statement.ID, sql, "", c.statement.Params, func(rows *engine.Rows) error {
		if want := len(names); rows.Schema().NumFields() != want {
			return tarn.Invalid("the query has %d columns, %d are wanted", rows.Schema().NumFields(), want)
		}
		count, err := appendRows(ctx, dt, rows, o, before)
		if err != nil {
			return err
		}
		return errors.Join(c.affected(count), io.EOF)
	})
}

// delete does DELETE FROM name [WHERE condition], whose condition is one of
// delta.ParsePredicate.
func (c *command) delete(ctx context.Context) error {
	c.i++
	if !c.take("from") {
		return c.want("FROM")
	}
	n, err := c.table()
	if err != nil {
		return err
	}
	var where delta.Predicate
	if !c.end() {
		if !c.take("where") {
			return c.want("WHERE")
		}
		if where, err = delta.ParsePredicate(c.tail()); err != nil {
			return tarn.Invalid("[UNSUPPORTED_STATEMENT] DELETE knows comparisons of columns with constants, IN, IS NULL, AND, OR and NOT: %w", err)
		}
	}
	dt, err := c.written(ctx, n)
	if err != nil {
		return err
	}
	count := int64(0)
	if _, err := dt.Commit(ctx, delta.CommitOptions{Operation: "DELETE"}, func(x *delta.Tx) (err error) {
		count, err = x.Delete(ctx, where)
		return err
	}); err != nil {
		return err
	}
	return c.affected(count)
}

// drop does DROP TABLE [IF EXISTS] name; the files stay.
func (c *command) drop(ctx context.Context) error {
	c.i++
	if !c.take("table") {
		return c.want("TABLE")
	}
	absent := c.take("if", "exists")
	n, err := c.table()
	if err != nil {
		return err
	}
	if err := c.done(); err != nil {
		return err
	}
	c.act("deleteTable", "tables/"+n.String(), "")
	e, err := c.resolve(ctx, n, tarn.PrivilegeManage)
	if absent && tarn.KindOf(err) == tarn.KindNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if e.Kind == catalog.Feed || !e.Kind.Delta() {
		return tarn.Conflict("%s is kept by Tarn: %s", n, e.Kind).WithHint("tarn feed --help, tarn sync --help")
	}
	return c.w.config.Catalog.DropTable(ctx, c.who, n)
}

// schemaOf gives the columns of a new table for those of a result.
func schemaOf(s *arrow.Schema) (delta.Schema, error) {
	var out delta.Schema
	for _, f := range s.Fields() {
		t, err := deltaType(f.Type)
		if err != nil {
			return out, fmt.Errorf("column %s: %w", f.Name, err)
		}
		out.Fields = append(out.Fields, delta.Field{Name: f.Name, Type: t, Nullable: true})
	}
	return out, nil
}

// deltaType is a result's type as a table has it; nested ones as JSON.
func deltaType(t arrow.DataType) (string, error) {
	b, err := deltaJSON(t)
	if err != nil {
		return "", err
	}
	var name string
	if json.Unmarshal(b, &name) == nil {
		return name, nil
	}
	return string(b), nil
}

func deltaJSON(t arrow.DataType) (json.RawMessage, error) {
	name := func(s string) (json.RawMessage, error) { return json.Marshal(s) }
	switch t := t.(type) {
	case *arrow.BooleanType:
		return name("boolean")
	case *arrow.Int8Type:
		return name("byte")
	case *arrow.Int16Type:
		return name("short")
	case *arrow.Int32Type:
		return name("integer")
	case *arrow.Int64Type:
		return name("long")
	case *arrow.Float32Type:
		return name("float")
	case *arrow.Float64Type:
		return name("double")
	case *arrow.StringType:
		return name("string")
	case *arrow.BinaryType:
		return name("binary")
	case *arrow.Date32Type:
		return name("date")
	case *arrow.Decimal128Type:
		return name(fmt.Sprintf("decimal(%d,%d)", t.Precision, t.Scale))
	case *arrow.TimestampType:
		if t.Unit != arrow.Microsecond {
			break
		}
		if t.TimeZone == "" {
			return name("timestamp_ntz")
		}
		return name("timestamp")
	case *arrow.MapType:
		key, err := deltaJSON(t.KeyType())
		if err != nil {
			return nil, err
		}
		value, err := deltaJSON(t.ItemType())
		if err != nil {
			return nil, err
		}
		return json.Marshal(map[string]any{"type": "map", "keyType": key, "valueType": value, "valueContainsNull": true})
	case *arrow.ListType:
		elem, err := deltaJSON(t.Elem())
		if err != nil {
			return nil, err
		}
		return json.Marshal(map[string]any{"type": "array", "elementType": elem, "containsNull": true})
	case *arrow.StructType:
		var fields []any
		for _, f := range t.Fields() {
			typ, err := deltaJSON(f.Type)
			if err != nil {
				return nil, err
			}
			fields = append(fields, map[string]any{"name": f.Name, "type": typ, "nullable": true, "metadata": map[string]any{}})
		}
		return json.Marshal(map[string]any{"type": "struct", "fields": fields})
	}
	return nil, tarn.Invalid("a table cannot have the type %s", t).WithHint("CAST it to a type that Delta has, such as BIGINT, DECIMAL or STRING")
}
