package warehouse

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/warehouse/engine"
)

// create does CREATE SCHEMA and CREATE TABLE.
func (c *command) create(ctx context.Context) error {
	c.i++
	switch {
	case c.take("schema"), c.take("database"):
		return c.createSchema(ctx)
	case c.take("table"):
		return c.createTable(ctx)
	case c.take("or", "replace"):
		return tarn.Invalid("[UNSUPPORTED_FEATURE] CREATE OR REPLACE is not known").WithHint("INSERT OVERWRITE keeps the table, its history and its grants; or DROP TABLE first")
	}
	return c.want("TABLE or SCHEMA")
}

// createSchema does CREATE SCHEMA [IF NOT EXISTS] name [COMMENT '…']
// [WITH DBPROPERTIES (…)].
func (c *command) createSchema(ctx context.Context) error {
	absent := c.take("if", "not", "exists")
	on, err := c.schemaName()
	if err != nil {
		return err
	}
	e := tarn.SchemaEntry{Catalog: on.Catalog, ObjectEntry: tarn.ObjectEntry{Name: on.Schema}}
	for err == nil && !c.end() {
		switch {
		case c.take("comment"):
			e.Comment, err = c.text()
		case c.take("with", "dbproperties"):
			e.Properties, err = c.properties()
		case c.next().is("managed") || c.next().is("location"):
			err = tarn.Invalid("[UNSUPPORTED_FEATURE] the tables of a schema lie under its catalog's root: leave LOCATION out")
		default:
			err = c.want("COMMENT, WITH DBPROPERTIES or the end of the statement")
		}
	}
	if err != nil {
		return err
	}
	c.act("createSchema", "schemas", on.FullName())
	rights := c.w.config.Catalog.For(c.who)
	if _, err := c.w.config.Catalog.Objects().SchemaEntry(ctx, on.Catalog, on.Schema); absent && err == nil {
		return rights.CheckVisible(ctx, on)
	}
	if err := c.ours(ctx, on.Catalog); err != nil {
		return err
	}
	if err := rights.Check(ctx, tarn.PrivilegeCreateSchema, tarn.CatalogSecurable(on.Catalog)); err != nil {
		return err
	}
	_, err = c.w.config.Catalog.Objects().CreateSchema(ctx, c.who, e)
	if absent && tarn.KindOf(err) == tarn.KindConflict {
		return nil
	}
	return err
}

// ours refuses the catalog of a registered database.
func (s *scene) ours(ctx context.Context, name string) error {
	_, err := s.w.config.Catalog.Registered(ctx, name)
	if err == nil {
		return tarn.Invalid("catalog %s shows a Postgres database: make its schemas and tables there", name).WithHint("tarn psql --help")
	}
	if tarn.KindOf(err) == tarn.KindNotFound {
		return nil
	}
	return err
}

// createTable does CREATE TABLE [IF NOT EXISTS] name [(columns)] [USING DELTA]
// [PARTITIONED BY (…)] [COMMENT '…'] [TBLPROPERTIES (…)] [AS query].
func (c *command) createTable(ctx context.Context) error {
	absent := c.take("if", "not", "exists")
	n, err := c.table()
	if err != nil {
		return err
	}
	var m delta.Metadata
	if c.next().sign("(") {
		if m.Schema.Fields, err = c.fields(); err != nil {
			return err
		}
	}
	query := false
	for !c.end() && !query {
		if query, err = c.tableOption(&m); err != nil {
			return err
		}
	}
	switch {
	case query && len(m.Schema.Fields) > 0:
		return tarn.Invalid("[UNSUPPORTED_FEATURE] a table has the columns of its query: leave the list of columns out, and CAST in the query")
	case !query && len(m.Schema.Fields) == 0:
		return c.want("a list of columns, or AS and a query")
	case query && c.end():
		return c.want("a query")
	}
	c.act("createTable", "tables", n.String())
	if err := c.ours(ctx, n.Catalog); err != nil {
		return err
	}
	if err := c.w.config.Catalog.For(c.who).CheckCreateTable(ctx, n.Catalog, n.Schema); err != nil {
		return err
	}
	if _, err := c.w.config.Catalog.Table(ctx, n); err == nil {
		if absent {
			return nil
		}
		return existsAlready(n)
	} else if tarn.KindOf(err) != tarn.KindNotFound {
		return err
	}
	if !query {
		return c.make(ctx, n, m, "CREATE TABLE", func(*delta.Tx) error { return nil })
	}
	return c.query(ctx, c.statement.ID, c.tail(), "", c.statement.Params, func(rows *engine.Rows) (err error) {
		if m.Schema, err = schemaOf(rows.Schema()); err != nil {
			return err
		}
		c.lineage.target = n
		for _, f := range m.Schema.Fields {
			c.lineage.columns = append(c.lineage.columns, f.Name)
		}
		count := int64(0)
		err = c.make(ctx, n, m, "CREATE TABLE AS SELECT", func(x *delta.Tx) (err error) {
			count, err = appendAll(ctx, x, rows)
			return err
		})
		if err != nil {
			return err
		}
		return errors.Join(c.affected(count), io.EOF)
	})
}

func existsAlready(n tarn.TableName) error {
	return tarn.Conflict("[TABLE_OR_VIEW_ALREADY_EXISTS] there is a table %s", n)
}

// tableOption reads one of the clauses behind a new table's columns; query tells
// that one follows.
func (c *cursor) tableOption(m *delta.Metadata) (query bool, err error) {
	switch {
	case c.take("as"):
		return true, nil
	case c.take("using"):
		if !c.take("delta") {
			err = c.want("DELTA")
		}
	case c.take("comment"):
		m.Description, err = c.text()
	case c.take("partitioned", "by"):
		m.PartitionBy, err = c.names()
	case c.take("tblproperties"):
		m.Properties, err = c.properties()
	case c.next().is("cluster") || c.next().is("clustered"):
		err = tarn.Invalid("[UNSUPPORTED_FEATURE] clustered tables are not known").WithHint("leave CLUSTER BY out, or say PARTITIONED BY (column)")
	case c.next().is("location"):
		err = tarn.Invalid("[UNSUPPORTED_FEATURE] a table made by SQL lies under its catalog's root").WithHint("tarn table register makes a table elsewhere known")
	default:
		err = c.want("AS and a query, PARTITIONED BY, COMMENT or TBLPROPERTIES")
	}
	return false, err
}

// make makes a managed table with the rows that fill brings.
//
//  1. data files         (crash: files in a folder that nothing names)
//  2. version 0, with all of them, in one object
//     (crash: a table in a folder that nothing names)
//  3. the catalog's row  (crash: before it there is no table, behind it a whole one)
func (c *command) make(ctx context.Context, n tarn.TableName, m delta.Metadata, operation string, fill func(*delta.Tx) error) error {
	mapNames(&m)
	t, err := c.w.config.Catalog.DraftTable(ctx, c.who, n, m.Description)
	if err != nil {
		return err
	}
	store, err := c.w.config.OpenStore(ctx, t.Location)
	if err != nil {
		return err
	}
	x, err := delta.Draft(ctx, store, "", m)
	if err != nil {
		return err
	}
	defer func() { x.Abort(context.WithoutCancel(ctx)) }()
	if err := fill(x); err != nil {
		return err
	}
	if _, err := x.Commit(ctx, delta.CommitOptions{Operation: operation}); err != nil {
		return err
	}
	_, err = c.w.config.Catalog.RegisterTable(ctx, t)
	if tarn.KindOf(err) == tarn.KindConflict { // and only then it is known not to be registered
		return errors.Join(existsAlready(n), clearFolder(context.WithoutCancel(ctx), store))
	}
	return err
}

// mapNames lets columns have names that Parquet readers do not take: then files
// have others. It writes partition columns as the schema does.
func mapNames(m *delta.Metadata) {
	for _, f := range m.Schema.Fields {
		for i, p := range m.PartitionBy {
			if strings.EqualFold(p, f.Name) {
				m.PartitionBy[i] = f.Name
			}
		}
		if strings.ContainsAny(f.Name, " ,;{}()\n\t=") && m.Properties["delta.columnMapping.mode"] == "" {
			if m.Properties == nil {
				m.Properties = map[string]string{}
			}
			m.Properties["delta.columnMapping.mode"] = "name"
		}
	}
}

// clearFolder deletes what is in a folder that is nobody else's.
func clearFolder(ctx context.Context, s blob.Store) error {
	var keys []string
	for o, err := range s.List(ctx, "", "") {
		if err != nil {
			return err
		}
		keys = append(keys, o.Key)
	}
	return s.Delete(ctx, keys...)
}

// drop does DROP TABLE [IF EXISTS] name, whose files stay, and
// DROP SCHEMA [IF EXISTS] name [RESTRICT|CASCADE].
func (c *command) drop(ctx context.Context) error {
	c.i++
	schema := c.take("schema") || c.take("database")
	if !schema && !c.take("table") {
		return c.want("TABLE or SCHEMA")
	}
	absent := c.take("if", "exists")
	if schema {
		return c.dropSchema(ctx, absent)
	}
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

func (c *command) dropSchema(ctx context.Context, absent bool) error {
	on, err := c.schemaName()
	if err != nil {
		return err
	}
	force := catalog.OnlyEmpty
	if c.take("cascade") {
		force = catalog.WithEverything
	} else {
		c.take("restrict")
	}
	if err := c.done(); err != nil {
		return err
	}
	c.act("deleteSchema", "schemas/"+on.FullName(), "")
	if err := c.w.config.Catalog.For(c.who).Check(ctx, tarn.PrivilegeManage, on); err != nil {
		return err
	}
	err = c.w.config.Catalog.Objects().DeleteSchema(ctx, on.Catalog, on.Schema, force)
	if absent && tarn.KindOf(err) == tarn.KindNotFound {
		return nil
	}
	return err
}
