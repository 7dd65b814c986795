package warehouse

import (
	"context"
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
	n, err := appendAll(ctx, x, rows)
	if err != nil {
		return 0, err
	}
	_, err = x.Commit(ctx, o)
	return n, err
}

// appendAll brings the rows of a query into a transaction.
func appendAll(ctx context.Context, x *delta.Tx, rows *engine.Rows) (n int64, err error) {
	err = drain(rows, func(rec arrow.RecordBatch) error {
		n += rec.NumRows()
		return x.Append(ctx, rec)
	})
	if errors.Is(err, io.EOF) {
		err = nil
	}
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
	c.lineage.target = n
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
	var casts, names, into []string
	for i, f := range as.Fields() {
		if columns != nil && !slices.ContainsFunc(columns, func(s string) bool { return strings.EqualFold(s, f.Name) }) {
			continue
		}
		typ, err := duckType(as.Field(i).Type)
		if err != nil {
			return err
		}
		casts = append(casts, "CAST("+quote(f.Name)+" AS "+typ+") AS "+quote(f.Name))
		names, into = append(names, quote(f.Name)), append(into, f.Name)
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
	c.lineage.columns = into
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
