package warehouse

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/catalog"
)

// answer keeps rows of texts as the result; a column named with # holds numbers,
// and "\x00" is NULL.
func (c *command) answer(columns string, rows [][]string) error {
	var fields []arrow.Field
	for _, n := range strings.Fields(columns) {
		typ := arrow.DataType(arrow.BinaryTypes.String)
		if strings.HasSuffix(n, "#") {
			n, typ = strings.TrimSuffix(n, "#"), arrow.PrimitiveTypes.Int64
		}
		fields = append(fields, arrow.Field{Name: n, Type: typ, Nullable: true})
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer b.Release()
	for _, r := range rows {
		for i, v := range r {
			if v == null {
				b.Field(i).AppendNull()
			} else if err := b.Field(i).AppendValueFromString(v); err != nil {
				return err
			}
		}
	}
	return c.statement.keepBatch(b.NewRecordBatch())
}

const null = "\x00"

// show does SHOW CATALOGS, SCHEMAS, TABLES, COLUMNS.
func (c *command) show(ctx context.Context) error {
	c.i++
	rights := c.w.config.Catalog.For(c.who)
	in := func() bool { return c.take("in") || c.take("from") }
	switch {
	case c.take("grants"), c.take("grant"):
		return c.showGrants(ctx)
	case c.take("catalogs"):
		return c.showCatalogs(ctx, rights)
	case c.take("schemas"), c.take("databases"):
		name := c.catalog
		if in() {
			p, err := c.parts()
			if err != nil || len(p) != 1 {
				return c.want("the name of a catalog")
			}
			name = p[0]
		}
		like, err := c.like()
		if err != nil {
			return err
		}
		if err := rights.CheckVisible(ctx, tarn.CatalogSecurable(name)); err != nil {
			return err
		}
		visible, err := rights.Visible(ctx, name)
		if err != nil {
			return err
		}
		schemas, err := c.schemas(ctx, name)
		if err != nil {
			return err
		}
		var rows [][]string
		for _, s := range schemas {
			if visible(tarn.SchemaSecurable(name, s)) && like(s) {
				rows = append(rows, []string{s})
			}
		}
		return c.answer("databaseName", rows)
	case c.take("tables"), c.take("views"):
		cat, schema := c.catalog, c.schema
		if in() {
			p, err := c.parts()
			switch {
			case err != nil || len(p) > 2:
				return c.want("the name of a schema")
			case len(p) == 2:
				cat, schema = p[0], p[1]
			default:
				schema = p[0]
			}
		}
		like, err := c.like()
		if err != nil {
			return err
		}
		if err := rights.CheckVisible(ctx, tarn.SchemaSecurable(cat, schema)); err != nil {
			return err
		}
		visible, err := rights.Visible(ctx, cat)
		if err != nil {
			return err
		}
		tables, err := c.tablesOf(ctx, cat, schema)
		if err != nil {
			return err
		}
		var rows [][]string
		for _, t := range tables {
			if visible(tarn.TableName{Catalog: cat, Schema: schema, Table: t}.Securable()) && like(t) {
				rows = append(rows, []string{schema, t, "false"})
			}
		}
		return c.answer("database tableName isTemporary", rows)
	case c.take("columns"):
		if !in() {
			return c.want("IN and a table")
		}
		n, err := c.table()
		if err != nil {
			return err
		}
		columns, _, err := c.columns(ctx, n)
		var rows [][]string
		for _, col := range columns {
			rows = append(rows, []string{col[0]})
		}
		if err != nil {
			return err
		}
		return c.answer("col_name", rows)
	}
	return c.want("CATALOGS, SCHEMAS, TABLES or COLUMNS")
}

func (c *command) showCatalogs(ctx context.Context, rights *catalog.Rights) error {
	like, err := c.like()
	if err != nil {
		return err
	}
	names, err := c.w.config.Catalog.Catalogs(ctx)
	if err != nil {
		return err
	}
	registered, err := c.w.config.Catalog.AllRegistered(ctx)
	if err != nil {
		return err
	}
	for _, r := range registered {
		names = append(names, r.Name)
	}
	slices.Sort(names)
	visible, err := rights.Visible(ctx, "")
	if err != nil {
		return err
	}
	var rows [][]string
	for _, n := range slices.Compact(names) {
		if visible(tarn.CatalogSecurable(n)) && like(n) {
			rows = append(rows, []string{n})
		}
	}
	return c.answer("catalog", rows)
}

// like reads [LIKE] 'pattern', in which * stands for anything and | parts
// patterns, and the end.
func (c *command) like() (func(string) bool, error) {
	c.take("like")
	if c.next().kind != lexString {
		return func(string) bool { return true }, c.done()
	}
	patterns := strings.Split(strings.ToLower(c.next().value()), "|")
	c.i++
	return func(name string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return matches(strings.ToLower(name), strings.ReplaceAll(p, "%", "*")) })
	}, c.done()
}

func matches(name, pattern string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return name == pattern
	}
	if !strings.HasPrefix(name, head) {
		return false
	}
	for i := len(head); i <= len(name); i++ {
		if matches(name[i:], rest) {
			return true
		}
	}
	return false
}

func (c *command) schemas(ctx context.Context, name string) ([]string, error) {
	r, err := c.w.config.Catalog.Registered(ctx, name)
	if err == nil {
		return catalog.SchemasOf(r), nil
	}
	if tarn.KindOf(err) != tarn.KindNotFound {
		return nil, err
	}
	return c.w.config.Catalog.Schemas(ctx, name)
}

func (c *command) tablesOf(ctx context.Context, cat, schema string) ([]string, error) {
	var out []string
	r, err := c.w.config.Catalog.Registered(ctx, cat)
	if err == nil {
		for _, o := range r.Objects {
			if o.Schema == schema {
				out = append(out, o.Name)
			}
		}
		return out, nil
	}
	if tarn.KindOf(err) != tarn.KindNotFound {
		return nil, err
	}
	tables, err := c.w.config.Catalog.Tables(ctx, cat, schema)
	for _, t := range tables {
		out = append(out, t.Name.Table)
	}
	return out, err
}

// columns gives name, type and comment of a table's columns.
func (c *command) columns(ctx context.Context, n tarn.TableName) ([][]string, catalog.Entry, error) {
	e, err := c.resolve(ctx, n, tarn.PrivilegeSelect)
	if err != nil {
		return nil, e, err
	}
	var out [][]string
	if e.Kind.Delta() {
		dt, err := c.w.open(ctx, e.Table.Location)
		if err != nil {
			return nil, e, err
		}
		snap, err := dt.Latest(ctx)
		if err != nil {
			return nil, e, err
		}
		as, err := snap.Schema().Arrow()
		if err != nil {
			return nil, e, err
		}
		for i, f := range snap.Schema().Fields {
			comment, ok := f.Metadata["comment"].(string)
			if !ok {
				comment = null
			}
			out = append(out, []string{f.Name, strings.ToLower(TypeText(as.Field(i).Type)), comment})
		}
		return out, e, nil
	}
	for _, f := range e.Object.Columns {
		comment := f.Comment
		if comment == "" {
			comment = null
		}
		out = append(out, []string{f.Name, f.Postgres, comment})
	}
	return out, e, nil
}

// describe does DESCRIBE [TABLE] [EXTENDED], DETAIL, HISTORY, QUERY and SCHEMA.
func (c *command) describe(ctx context.Context) error {
	c.i++
	switch {
	case c.take("history"):
		return c.history(ctx)
	case c.take("detail"):
		return c.detail(ctx)
	case c.take("query"), c.next().is("select"), c.next().is("with"), c.next().is("values"), c.next().sign("("):
		return c.read(ctx, "DESCRIBE "+c.tail(), "")
	}
	c.take("table")
	extended := c.take("extended") || c.take("formatted")
	n, err := c.table()
	if err != nil {
		return err
	}
	if err := c.done(); err != nil {
		return err
	}
	rows, e, err := c.columns(ctx, n)
	if err != nil {
		return err
	}
	if extended {
		rows = append(rows, []string{"", "", ""}, []string{"# Detailed Table Information", "", ""}, []string{"Catalog", n.Catalog, ""}, []string{"Database", n.Schema, ""},
			[]string{"Table", n.Table, ""}, []string{"Type", string(e.Kind), ""})
		if e.Kind.Delta() {
			rows = append(rows, []string{"Location", e.Table.Location, ""}, []string{"Owner", e.Table.Owner, ""}, []string{"Comment", e.Table.Comment, ""})
		} else {
			rows = append(rows, []string{"Branch", e.Branch.String(), ""}, []string{"Postgres database", e.Database, ""})
		}
	}
	return c.answer("col_name data_type comment", rows)
}

func (c *command) history(ctx context.Context) error {
	n, err := c.table()
	if err != nil {
		return err
	}
	limit := 0
	if c.take("limit") {
		if limit = atoi(c.next().text); limit <= 0 {
			return c.want("a number of commits")
		}
		c.i++
	}
	if err := c.done(); err != nil {
		return err
	}
	e, err := c.resolve(ctx, n, tarn.PrivilegeSelect)
	if err != nil {
		return err
	}
	if !e.Kind.Delta() {
		return tarn.Invalid("%s is a Postgres table, which keeps no history of versions", n)
	}
	dt, err := c.w.open(ctx, e.Table.Location)
	if err != nil {
		return err
	}
	all, err := dt.History(ctx, limit)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, h := range all {
		rows = append(rows, []string{fmt.Sprint(h.Version), h.Time.UTC().Format(time.RFC3339Nano), h.Operation, pairs(h.Params), pairs(h.Metrics)})
	}
	return c.answer("version# timestamp operation operationParameters operationMetrics", rows)
}

// pairs writes a map as a text in a fixed order.
func pairs(m map[string]string) string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for i, k := range keys {
		keys[i] = k + "=" + m[k]
	}
	return strings.Join(keys, ", ")
}

func (c *command) detail(ctx context.Context) error {
	n, err := c.table()
	if err != nil {
		return err
	}
	e, err := c.resolve(ctx, n, tarn.PrivilegeSelect)
	if err != nil {
		return err
	}
	if !e.Kind.Delta() {
		return tarn.Invalid("%s is a Postgres table", n).WithHint("DESCRIBE TABLE EXTENDED " + n.String())
	}
	dt, err := c.w.open(ctx, e.Table.Location)
	if err != nil {
		return err
	}
	s, err := dt.Latest(ctx)
	if err != nil {
		return err
	}
	p := s.Protocol()
	return c.answer("format id name location partitionColumns numFiles# sizeInBytes# properties minReaderVersion# minWriterVersion# version#", [][]string{{
		"delta", s.ID(), n.String(), e.Table.Location, strings.Join(s.PartitionBy(), ","), fmt.Sprint(s.Files()), fmt.Sprint(s.Size()), pairs(s.Properties()),
		fmt.Sprint(p.MinReader), fmt.Sprint(p.MinWriter), fmt.Sprint(s.Version()),
	}})
}
