package warehouse

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/warehouse/engine"
)

// scene is what a statement sees: views of the tables it names, and the files
// they read.
type scene struct {
	w        *Warehouse
	who      tarn.Principal
	catalog  string // of names without one
	schema   string
	stage    *stage
	prepare  []string
	paths    []string
	made     map[string]bool
	sources  []tarn.TableName // that were read
	lineage  lineage
	versions map[string]int64 // of Delta tables, by full name
	changing *changing        // the table that the statement changes; nil = none
}

// changing is a table whose rows a statement changes, and how they are found: through
// a view of its own, which tells their places.
type changing struct {
	name  tarn.TableName
	base  *delta.Snapshot
	read  delta.Predicate   // what every row that is changed satisfies
	self  bool              // the statement reads the table elsewhere, too
	files map[string]string // keys of files by how they are called in a result
}

// placed asks for the view of changing, by what stands behind pastMark. It has two
// columns more.
const (
	placed   = "w"
	fileOf   = "f" + pastMark
	rowOf    = "r" + pastMark
	keyOf    = "k" + pastMark // of a merge: the clause that applies
	sourceOf = "s" + pastMark // of a merge: a row of the source is there
)

// target is what a name and its asked past mean.
type target struct {
	name  tarn.TableName
	asked string
	refs  []*ref
}

// full completes a name.
func (s *scene) full(parts []string) (tarn.TableName, error) {
	switch len(parts) {
	case 1:
		return tarn.TableName{Catalog: s.catalog, Schema: s.schema, Table: parts[0]}, nil
	case 2:
		return tarn.TableName{Catalog: s.catalog, Schema: parts[0], Table: parts[1]}, nil
	case 3:
		return tarn.TableName{Catalog: parts[0], Schema: parts[1], Table: parts[2]}, nil
	}
	return tarn.TableName{}, tarn.Invalid("name %s: want catalog.schema.table", strings.Join(parts, "."))
}

// show makes a view of every table that the statement names.
func (s *scene) show(ctx context.Context, t *tree, sql string) error {
	s.made = map[string]bool{}
	s.folder(s.catalog, s.schema)
	var order []*target
	by := map[string]*target{}
	for _, r := range t.refs {
		n, err := s.full(r.parts)
		if err != nil {
			return err
		}
		key := n.String() + pastMark + r.asked
		if by[key] == nil {
			by[key] = &target{name: n, asked: r.asked}
			order = append(order, by[key])
		}
		by[key].refs = append(by[key].refs, r)
	}
	for _, g := range order {
		if err := s.table(ctx, t, g); err != nil {
			return fmt.Errorf("%w%s", err, where(sql, g.refs[0].at))
		}
	}
	s.prepare = append(s.prepare, "USE "+quoteAll(duckCatalog(s.catalog), s.schema))
	return nil
}

// folder makes the catalog and the schema that a view is in.
func (s *scene) folder(catalog, schema string) {
	if key := catalog; !s.made[key] {
		s.made[key] = true
		if catalog != "memory" {
			s.prepare = append(s.prepare, "ATTACH ':memory:' AS "+quote(duckCatalog(catalog)))
		}
	}
	if key := catalog + "\x00" + schema; !s.made[key] {
		s.made[key] = true
		s.prepare = append(s.prepare, "CREATE SCHEMA IF NOT EXISTS "+quoteAll(duckCatalog(catalog), schema))
	}
}

// resolve finds a table that the principal may read.
func (s *scene) resolve(ctx context.Context, n tarn.TableName, want tarn.Privilege) (catalog.Entry, error) {
	if strings.EqualFold(n.Catalog, catalog.System) && want != tarn.PrivilegeSelect {
		return catalog.Entry{}, tarn.Denied("tables of catalog %s are written by Tarn alone", n.Catalog)
	}
	rights := s.w.config.Catalog.For(s.who)
	e, err := rights.Table(ctx, n)
	if err != nil {
		if tarn.KindOf(err) == tarn.KindNotFound {
			return e, tarn.NotFound("[TABLE_OR_VIEW_NOT_FOUND] there is no table %s", n).WithHint("SHOW TABLES IN " + n.Catalog + "." + n.Schema)
		}
		return e, err
	}
	return e, rights.Check(ctx, want, n.Securable())
}

func (s *scene) table(ctx context.Context, t *tree, g *target) error {
	e, err := s.resolve(ctx, g.name, tarn.PrivilegeSelect)
	if err != nil {
		return err
	}
	if a, ok := s.w.config.Audit.(*catalog.Audit); ok && g.name.Catalog == catalog.System { // shows what was recorded until now
		if err := a.Flush(ctx); err != nil {
			s.w.config.Log.WarnContext(ctx, "audit not written to its table", "err", err)
		}
	}
	var body string
	switch {
	case e.Kind.Delta():
		body, err = s.delta(ctx, t, g, e)
	case g.asked != "":
		return tarn.Invalid("%s is a Postgres table, which keeps no versions", g.name).WithHint("tarn branch create --at makes a branch of a past moment")
	default:
		body, err = s.postgres(ctx, t, g, e)
	}
	if err != nil {
		return err
	}
	s.sources = append(s.sources, g.name)
	s.folder(g.name.Catalog, g.name.Schema)
	view := g.name.Table
	if g.asked != "" {
		view += pastMark + g.asked
	}
	s.prepare = append(s.prepare, "CREATE VIEW "+quoteAll(duckCatalog(g.name.Catalog), g.name.Schema, view)+" AS "+body)
	return nil
}

// needs tells which of the columns the statement may use; all must be given to
// the view, but these must be right.
func (g *target) needs(t *tree, column string) bool {
	return slices.ContainsFunc(g.refs, func(r *ref) bool { return t.needs(r, column) })
}

// tests are what every row of use satisfies. A table that is named twice has
// none.
func (g *target) tests() []test {
	if len(g.refs) != 1 {
		return nil
	}
	return g.refs[0].tests
}

// snapshot opens the version that is asked for.
func (s *scene) snapshot(ctx context.Context, dt *delta.Table, asked string) (*delta.Snapshot, error) {
	if asked == "" {
		return dt.Latest(ctx)
	}
	n, err := strconv.ParseInt(asked[1:], 10, 64)
	if err != nil {
		return nil, tarn.Invalid("version %q", asked)
	}
	if asked[0] == 'v' {
		return dt.At(ctx, n)
	}
	return dt.AtTime(ctx, time.UnixMicro(n).UTC())
}

func (s *scene) delta(ctx context.Context, t *tree, g *target, e catalog.Entry) (string, error) {
	dt, err := s.w.open(ctx, e.Table.Location)
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(g.asked, "c") {
		return s.changes(ctx, dt, g.asked)
	}
	var snap *delta.Snapshot
	places := g.asked == placed
	switch {
	case places:
		snap = s.changing.base
	case g.asked == "" && s.changing != nil && strings.EqualFold(s.changing.name.String(), g.name.String()):
		snap, s.changing.self = s.changing.base, true
	default:
		snap, err = s.snapshot(ctx, dt, g.asked)
	}
	if err != nil {
		return "", err
	}
	s.versions[g.name.String()] = snap.Version()
	schema := snap.Schema()
	where := predicate(g.tests(), schema)
	if places {
		s.changing.read = where
	}
	var plan delta.Plan
	root, local := localRoot(e.Table.Location)
	if local {
		plan, err = s.w.footers.Plan(ctx, snap, where)
	} else if all := snap.Splits(1); len(all) > 0 { // DuckDB opens local files only
		plan.Rest = all[0]
	}
	if err != nil {
		return "", err
	}
	as, err := schema.Arrow()
	if err != nil {
		return "", err
	}
	var parts []string
	for _, group := range merged(plan.Groups) {
		part, err := s.group(group, root, as, places)
		if err != nil {
			return "", err
		}
		parts = append(parts, part...)
	}
	if plan.Rest.Files > 0 && places {
		part, err := s.placedRest(ctx, snap, plan.Rest, as)
		if err != nil {
			return "", err
		}
		parts = append(parts, part)
	} else if plan.Rest.Files > 0 {
		part, err := s.rest(ctx, snap, plan.Rest, where, func(c string) bool { return g.needs(t, c) }, as)
		if err != nil {
			return "", err
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		if places {
			as = withPlaces(as)
		}
		return nothing(as)
	}
	return balanced(parts), nil
}

// balanced joins parts as a tree of little depth.
func balanced(parts []string) string {
	if len(parts) == 1 {
		return parts[0]
	}
	half := len(parts) / 2
	return "(" + balanced(parts[:half]) + ") UNION ALL (" + balanced(parts[half:]) + ")"
}

// nothing is a view without rows.
func nothing(as *arrow.Schema) (string, error) {
	var cols []string
	for _, f := range as.Fields() {
		typ, err := duckType(f.Type)
		if err != nil {
			return "", fmt.Errorf("column %s: %w", f.Name, err)
		}
		cols = append(cols, "CAST(NULL AS "+typ+") AS "+quote(f.Name))
	}
	if len(cols) == 0 {
		return "", tarn.Invalid("the table has no columns")
	}
	return "SELECT " + strings.Join(cols, ", ") + " WHERE false", nil
}

func localRoot(location string) (string, bool) {
	u, err := url.Parse(location)
	if err != nil || u.Scheme != "file" {
		return "", false
	}
	return filepath.FromSlash(u.Path), true
}

// predicate leaves files out. It says no more than what DuckDB will test again.
func predicate(tests []test, schema *delta.Schema) delta.Predicate {
	var all []delta.Predicate
	for _, t := range tests {
		i := slices.IndexFunc(schema.Fields, func(f delta.Field) bool { return strings.EqualFold(f.Name, t.column) })
		if i < 0 {
			continue
		}
		f := schema.Fields[i]
		values, ok := valuesFor(f.Type, t.values)
		if !ok {
			continue
		}
		name := "`" + strings.ReplaceAll(f.Name, "`", "``") + "`"
		switch t.op {
		case "=":
			all = append(all, delta.Eq(name, values[0]))
		case "<":
			all = append(all, delta.Lt(name, values[0]))
		case "<=":
			all = append(all, delta.Le(name, values[0]))
		case ">":
			all = append(all, delta.Gt(name, values[0]))
		case ">=":
			all = append(all, delta.Ge(name, values[0]))
		case "IN":
			all = append(all, delta.In(name, values...))
		}
	}
	if len(all) == 0 {
		return delta.Predicate{}
	}
	return delta.And(all...)
}

// valuesFor gives constants in a column's own type, where DuckDB compares in it.
func valuesFor(typ string, values []any) ([]any, bool) {
	out := make([]any, 0, len(values))
	for _, v := range values {
		switch v := v.(type) {
		case int64:
			bits := map[string]int{"byte": 8, "short": 16, "integer": 32, "long": 64}[typ]
			if bits == 0 || bits < 64 && (v >= 1<<(bits-1) || v < -1<<(bits-1)) {
				return nil, false
			}
			out = append(out, v)
		case day:
			d, err := time.Parse("2006-01-02", string(v))
			if typ != "date" || err != nil {
				return nil, false
			}
			out = append(out, d)
		case string:
			if typ == "date" {
				d, err := time.Parse("2006-01-02", v)
				if err != nil {
					return nil, false
				}
				out = append(out, d)
				continue
			}
			if typ != "string" {
				return nil, false
			}
			out = append(out, v)
		}
	}
	return out, true
}

// mergedGroup is groups that differ in partition values only; then a table beside
// has them by file.
type mergedGroup struct {
	columns []delta.PlanColumn
	groups  []delta.PlanGroup
}

// fewGroups is how many parts a view has before groups are merged.
const fewGroups = 48

func merged(groups []delta.PlanGroup) []mergedGroup {
	var out []mergedGroup
	at := map[string]int{}
	for i, g := range groups {
		key := strconv.Itoa(i)
		if len(groups) > fewGroups {
			key = ""
			for _, c := range g.Columns {
				key += fmt.Sprintf("|%q %t", c.Source, c.Partition)
			}
			for _, f := range g.Files {
				key += fmt.Sprint(f.Deleted != nil)
				break
			}
		}
		j, ok := at[key]
		if !ok {
			j = len(out)
			at[key] = j
			out = append(out, mergedGroup{columns: g.Columns})
		}
		out[j].groups = append(out[j].groups, g)
	}
	return out
}

// fileColumn names the column with a file's path.
const fileColumn = "_tarn_file"

func (s *scene) group(m mergedGroup, root string, as *arrow.Schema, places bool) ([]string, error) {
	apart := len(m.groups) > 1
	var cols []string
	n := 0
	for i, c := range m.columns {
		typ, err := duckType(as.Field(i).Type)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", c.Field.Name, err)
		}
		source := "NULL"
		switch {
		case c.Partition && apart:
			source = "p.p" + itoa(n)
			n++
		case c.Partition && c.Value != nil:
			source = engine.Literal(*c.Value)
		case c.Source != "":
			source = "f." + quote(c.Source)
		}
		cols = append(cols, "CAST("+source+" AS "+typ+") AS "+quote(c.Field.Name))
	}
	if places {
		cols = append(cols, "f."+fileColumn+" AS "+quote(fileOf), "f.file_row_number AS "+quote(rowOf))
	}
	// Files with deleted rows are read with their rows' numbers.
	var plain, marked, list []string
	var deleted []delta.PlanFile
	for _, g := range m.groups {
		for _, f := range g.Files {
			path := filepath.Join(root, filepath.FromSlash(f.Key))
			s.paths = append(s.paths, path)
			if places {
				s.changing.files[path] = f.Key
			}
			if f.Deleted == nil {
				plain = append(plain, engine.Literal(path))
			} else {
				marked = append(marked, engine.Literal(path))
				deleted = append(deleted, f)
			}
		}
	}
	join := ""
	if apart {
		path, err := s.stage.partitions(m, root, n)
		if err != nil {
			return nil, err
		}
		s.paths = append(s.paths, path)
		join = " JOIN read_parquet(" + engine.Literal(path) + ", hive_partitioning = false) p ON p.f = f." + fileColumn
	}
	head := "SELECT " + strings.Join(cols, ", ") + " FROM read_parquet(["
	var out []string
	if len(plain) > 0 {
		list = plain
		option := ""
		if apart || places {
			option = ", filename = '" + fileColumn + "'"
		}
		if places {
			option += ", file_row_number = true"
		}
		out = append(out, head+strings.Join(list, ", ")+"], hive_partitioning = false"+option+") f"+join)
	}
	if len(marked) > 0 {
		path, err := s.stage.deletions(deleted, root)
		if err != nil {
			return nil, err
		}
		s.paths = append(s.paths, path)
		out = append(out, head+strings.Join(marked, ", ")+"], hive_partitioning = false, file_row_number = true, filename = '"+fileColumn+"') f"+join+
			" WHERE NOT EXISTS (SELECT 1 FROM read_parquet("+engine.Literal(path)+", hive_partitioning = false) d WHERE d.f = f."+fileColumn+" AND d.r = f.file_row_number)")
	}
	return out, nil
}

// partitions writes the partition values of files as a table.
func (st *stage) partitions(m mergedGroup, root string, n int) (string, error) {
	fields := []arrow.Field{{Name: "f", Type: arrow.BinaryTypes.String}}
	for i := range n {
		fields = append(fields, arrow.Field{Name: "p" + itoa(i), Type: arrow.BinaryTypes.String, Nullable: true})
	}
	schema := arrow.NewSchema(fields, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for _, g := range m.groups {
		for _, f := range g.Files {
			b.Field(0).(*array.StringBuilder).Append(filepath.Join(root, filepath.FromSlash(f.Key)))
			i := 1
			for _, c := range g.Columns {
				if !c.Partition {
					continue
				}
				if p := b.Field(i).(*array.StringBuilder); c.Value == nil {
					p.AppendNull()
				} else {
					p.Append(*c.Value)
				}
				i++
			}
		}
	}
	return st.one(schema, b)
}

// deletions writes the numbers of deleted rows as a table.
func (st *stage) deletions(files []delta.PlanFile, root string) (string, error) {
	schema := arrow.NewSchema([]arrow.Field{{Name: "f", Type: arrow.BinaryTypes.String}, {Name: "r", Type: arrow.PrimitiveTypes.Int64}}, nil)
	w, err := st.writer(schema)
	if err != nil {
		return "", err
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	flush := func() error {
		rec := b.NewRecordBatch()
		defer rec.Release()
		return w.write(rec)
	}
	n := 0
	for _, f := range files {
		path := filepath.Join(root, filepath.FromSlash(f.Key))
		for it := f.Deleted.Iterator(); it.HasNext(); n++ {
			b.Field(0).(*array.StringBuilder).Append(path)
			b.Field(1).(*array.Int64Builder).Append(int64(it.Next()))
			if n%stageRows == stageRows-1 {
				if err := flush(); err != nil {
					return "", w.abort(err)
				}
			}
		}
	}
	if err := flush(); err != nil {
		return "", w.abort(err)
	}
	return w.path, w.close()
}

// rest reads files by our own reader into one that DuckDB reads.
func (s *scene) rest(ctx context.Context, snap *delta.Snapshot, files delta.Split, where delta.Predicate, needs func(string) bool, as *arrow.Schema) (string, error) {
	var names []string
	for _, f := range as.Fields() {
		if needs(f.Name) {
			names = append(names, f.Name)
		}
	}
	if len(names) == 0 {
		names = []string{as.Field(0).Name}
	}
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = "`" + strings.ReplaceAll(n, "`", "``") + "`"
	}
	return s.staged(as, names, func(w *stageWriter, _ *arrow.Schema) error {
		for rec, err := range snap.Scan(ctx, delta.ScanOptions{Columns: quoted, Where: where, Split: files}) {
			if err == nil {
				err = w.write(rec)
				rec.Release()
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// staged writes rows into a file that DuckDB reads, and gives the query of a view
// on it: fill brings the columns called names, in the schema it is given.
func (s *scene) staged(as *arrow.Schema, names []string, fill func(w *stageWriter, schema *arrow.Schema) error) (string, error) {
	cols, schema, err := stagedColumns(as, names)
	if err != nil {
		return "", err
	}
	w, err := s.stage.writer(schema)
	if err != nil {
		return "", err
	}
	if err := fill(w, schema); err != nil {
		return "", w.abort(err)
	}
	if err := w.close(); err != nil {
		return "", err
	}
	s.paths = append(s.paths, w.path)
	return "SELECT " + strings.Join(cols, ", ") + " FROM read_parquet(" + engine.Literal(w.path) + ", hive_partitioning = false) f", nil
}

// withPlaces adds the columns that tell where a row is.
func withPlaces(as *arrow.Schema) *arrow.Schema {
	return arrow.NewSchema(append(slices.Clone(as.Fields()), arrow.Field{Name: fileOf, Type: arrow.BinaryTypes.String, Nullable: true},
		arrow.Field{Name: rowOf, Type: arrow.PrimitiveTypes.Int64, Nullable: true}), nil)
}

// placedRest is rest with the places of rows.
func (s *scene) placedRest(ctx context.Context, snap *delta.Snapshot, files delta.Split, as *arrow.Schema) (string, error) {
	as = withPlaces(as)
	names := make([]string, as.NumFields())
	for i := range names {
		names[i] = as.Field(i).Name
	}
	return s.staged(as, names, func(w *stageWriter, schema *arrow.Schema) error {
		return delta.EachRow(ctx, snap, files, func(key string, at []int64, rec arrow.RecordBatch) error {
			defer rec.Release()
			s.changing.files[key] = key
			b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(as.Fields()[rec.NumCols():], nil))
			defer b.Release()
			for _, n := range at {
				b.Field(0).(*array.StringBuilder).Append(key)
				b.Field(1).(*array.Int64Builder).Append(n)
			}
			places := b.NewRecordBatch()
			defer places.Release()
			whole := array.NewRecordBatch(schema, append(slices.Clone(rec.Columns()), places.Columns()...), rec.NumRows())
			defer whole.Release()
			return w.write(whole)
		})
	})
}

// stagedColumns gives the columns of a view on a file with some of a table's, and
// the schema of that file. The others are NULL, and nobody looks at them.
func stagedColumns(as *arrow.Schema, names []string) (cols []string, staged *arrow.Schema, err error) {
	var fields []arrow.Field
	for _, f := range as.Fields() {
		typ, err := duckType(f.Type)
		if err != nil {
			return nil, nil, fmt.Errorf("column %s: %w", f.Name, err)
		}
		source := "NULL"
		if slices.Contains(names, f.Name) {
			source = "f." + quote(f.Name)
			fields = append(fields, f)
		}
		cols = append(cols, "CAST("+source+" AS "+typ+") AS "+quote(f.Name))
	}
	return cols, arrow.NewSchema(fields, nil), nil
}

// changes reads a range of the change data feed.
func (s *scene) changes(ctx context.Context, dt *delta.Table, asked string) (string, error) {
	var span [2]int64
	for i, p := range strings.Split(asked, ":")[1:] {
		n, err := strconv.ParseInt(p[1:], 10, 64)
		if err != nil {
			return "", err
		}
		if p[0] == 't' {
			when := time.UnixMicro(n).UTC()
			snap, err := dt.AtTime(ctx, when)
			if err != nil {
				return "", err
			}
			// From a moment on: not what was there before it.
			if n = snap.Version(); i == 0 && snap.Time().Before(when) {
				n++
			}
		}
		span[i] = n
	}
	latest, err := dt.Latest(ctx)
	if err != nil {
		return "", err
	}
	if !strings.Contains(asked[2:], ":") {
		span[1] = latest.Version()
	}
	as, err := latest.Schema().Arrow()
	if err != nil {
		return "", err
	}
	fields := append(slices.Clone(as.Fields()),
		arrow.Field{Name: "_change_type", Type: arrow.BinaryTypes.String},
		arrow.Field{Name: "_commit_version", Type: arrow.PrimitiveTypes.Int64},
		arrow.Field{Name: "_commit_timestamp", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}})
	schema := arrow.NewSchema(fields, nil)
	var names []string
	for _, f := range fields {
		names = append(names, f.Name)
	}
	return s.staged(schema, names, func(w *stageWriter, _ *arrow.Schema) error {
		for c, err := range dt.Changes(ctx, delta.ChangeOptions{From: span[0], To: span[1]}) {
			if err != nil {
				return err
			}
			rec := labelled(schema, c)
			c.Rows.Release()
			err = w.write(rec)
			rec.Release()
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// labelled adds what a change says of its rows.
func labelled(schema *arrow.Schema, c delta.Change) arrow.RecordBatch {
	n := int(c.Rows.NumRows())
	at := c.Rows.NumCols()
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(schema.Fields()[at:], nil))
	defer b.Release()
	for range n {
		b.Field(0).(*array.StringBuilder).Append(string(c.Type))
		b.Field(1).(*array.Int64Builder).Append(c.Version)
		b.Field(2).(*array.TimestampBuilder).Append(arrow.Timestamp(c.Time.UnixMicro()))
	}
	label := b.NewRecordBatch()
	defer label.Release()
	return array.NewRecordBatch(schema, append(slices.Clone(c.Rows.Columns()), label.Columns()...), int64(n))
}

// duckType names an Arrow type of a table as DuckDB does.
func duckType(t arrow.DataType) (string, error) {
	switch t := t.(type) {
	case *arrow.BooleanType:
		return "BOOLEAN", nil
	case *arrow.Int8Type:
		return "TINYINT", nil
	case *arrow.Int16Type:
		return "SMALLINT", nil
	case *arrow.Int32Type:
		return "INTEGER", nil
	case *arrow.Int64Type:
		return "BIGINT", nil
	case *arrow.Float32Type:
		return "FLOAT", nil
	case *arrow.Float64Type:
		return "DOUBLE", nil
	case *arrow.StringType:
		return "VARCHAR", nil
	case *arrow.BinaryType:
		return "BLOB", nil
	case *arrow.Date32Type:
		return "DATE", nil
	case *arrow.TimestampType:
		if t.TimeZone != "" {
			return "TIMESTAMPTZ", nil
		}
		return "TIMESTAMP", nil
	case *arrow.Decimal128Type:
		return fmt.Sprintf("DECIMAL(%d,%d)", t.Precision, t.Scale), nil
	case *arrow.NullType:
		return "INTEGER", nil
	case *arrow.MapType:
		key, err := duckType(t.KeyType())
		if err != nil {
			return "", err
		}
		item, err := duckType(t.ItemType())
		return "MAP(" + key + ", " + item + ")", err
	case *arrow.ListType:
		elem, err := duckType(t.Elem())
		return elem + "[]", err
	case *arrow.StructType:
		var fields []string
		for _, f := range t.Fields() {
			typ, err := duckType(f.Type)
			if err != nil {
				return "", err
			}
			fields = append(fields, quote(f.Name)+" "+typ)
		}
		return "STRUCT(" + strings.Join(fields, ", ") + ")", nil
	}
	return "", &delta.UnsupportedError{Feature: "SQL on columns of type " + t.String()}
}
