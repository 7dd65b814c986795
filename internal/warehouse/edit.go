package warehouse

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/warehouse/engine"
)

// editor does UPDATE, DELETE and MERGE: DuckDB finds the rows that change and what
// they become, each with its file and its position there; the table's own code
// takes them away and writes the new ones, in one commit. When somebody else
// changed in between what the statement read, it is done again on the new version.
type editor struct {
	*command
	name    tarn.TableName
	written string     // the table's name, as DuckDB has it
	called  []nickname // of the table, and of a merge's source
	table   *delta.Table
	twice   bool // rows may be deleted twice
}

// nickname is what columns of a table are qualified with.
type nickname struct {
	parts []string // the table's full name; nil = it has none
	alias string
}

func (e *editor) do(ctx context.Context, kind string) error {
	e.i++
	switch kind {
	case "DELETE":
		return e.delete(ctx)
	case "UPDATE":
		return e.update(ctx)
	}
	return (&merge{editor: e}).do(ctx)
}

// target reads name [[AS] alias] and opens the table.
func (e *editor) target(ctx context.Context, until ...string) (err error) {
	if e.name, err = e.command.table(); err != nil {
		return err
	}
	n := nickname{[]string{e.name.Catalog, e.name.Schema, e.name.Table}, e.name.Table}
	e.written = duckTable(n.parts, pastMark+placed)
	if as := e.take("as"); as || e.next().name() && !slices.ContainsFunc(until, e.next().is) {
		if !e.next().name() {
			return e.want("an alias")
		}
		n.alias = e.next().value()
		e.i++
	}
	e.called = append(e.called, n)
	e.table, err = e.command.written(ctx, e.name)
	return err
}

// expr reads an expression, up to one of the words or a comma or parenthesis that
// is not its own. Full names of tables in it become their aliases.
func (e *editor) expr(until ...string) (string, error) {
	var open []string
	first := e.i
	var b strings.Builder
	at := e.next().from
	for ; !e.end(); e.i++ {
		t := e.next()
		behindDot := e.i > first && e.tokens[e.i-1].sign(".")
		if len(open) == 0 && !behindDot && (t.sign(",") || t.sign(")") || slices.ContainsFunc(until, t.is)) {
			break
		}
		switch {
		case t.sign("("), t.sign("["), t.sign("{"):
			open = append(open, map[string]string{"(": ")", "[": "]", "{": "}"}[t.text])
		case t.is("case") && !behindDot:
			open = append(open, "end")
		case len(open) > 0 && (t.sign(open[len(open)-1]) || t.is("end") && open[len(open)-1] == "end"):
			open = open[:len(open)-1]
		case t.sign(")"), t.sign("]"), t.sign("}"):
			return "", e.want("the rest of an expression")
		case t.name() && !behindDot:
			parts, _ := chain(e.tokens, e.i)
			for _, n := range e.called {
				for _, full := range [][]string{n.parts, n.parts[min(1, len(n.parts)):]} {
					if k := len(full); k > 1 && len(parts) > k && slices.EqualFunc(full, parts[:k], strings.EqualFold) {
						b.WriteString(e.sql[at:t.from] + quote(n.alias))
						e.i += 2 * (k - 1)
						at, parts = e.next().to, nil
					}
				}
			}
		}
	}
	if e.i == first || len(open) > 0 {
		return "", e.want("an expression")
	}
	return "(" + b.String() + e.sql[at:e.tokens[e.i-1].to] + ")", nil
}

// assignments reads a = expression, … and gives expressions by column.
func (e *editor) assignments(until ...string) (map[string]string, error) {
	out := map[string]string{}
	for {
		p, err := e.parts()
		if err != nil {
			return nil, err
		}
		n := e.called[0]
		if k := len(p) - 1; k > 0 && !(k == 1 && strings.EqualFold(p[0], n.alias)) && !slices.EqualFunc(p[:k], n.parts[3-min(k, 3):], strings.EqualFold) {
			return nil, tarn.Invalid("[UNSUPPORTED_FEATURE] %s is no column of %s: fields of structs are not set alone", strings.Join(p, "."), e.name)
		}
		column := strings.ToLower(p[len(p)-1])
		if out[column] != "" {
			return nil, tarn.Invalid("column %s is set twice", column)
		}
		if !e.next().sign("=") {
			return nil, e.want("=")
		}
		e.i++
		if out[column], err = e.expr(until...); err != nil {
			return nil, err
		}
		if !e.next().sign(",") {
			return out, nil
		}
		e.i++
	}
}

// where reads the rest: a condition, or nothing.
func (e *editor) where() (string, error) {
	if e.end() {
		return "true", nil
	}
	if !e.take("where") {
		return "", e.want("WHERE")
	}
	cond, err := e.expr()
	if err == nil {
		err = e.done()
	}
	return cond, err
}

// delete does DELETE FROM name [[AS] alias] [WHERE condition]. What the table's own
// code understands of conditions it finds itself.
func (e *editor) delete(ctx context.Context) error {
	if !e.take("from") {
		return e.want("FROM")
	}
	if err := e.target(ctx, "where"); err != nil {
		return err
	}
	var simple delta.Predicate
	ok := e.end()
	if e.next().is("where") && e.i+1 < len(e.tokens) {
		var err error
		simple, err = delta.ParsePredicate(e.sql[e.tokens[e.i+1].from:])
		ok = err == nil
	}
	if ok {
		if !e.end() {
			if err := e.w.config.Catalog.For(e.who).Check(ctx, tarn.PrivilegeSelect, e.name.Securable()); err != nil {
				return err
			}
		}
		count := int64(0)
		_, err := e.table.Commit(ctx, delta.CommitOptions{Operation: "DELETE"}, func(x *delta.Tx) (err error) {
			count, err = x.Delete(ctx, simple)
			return err
		})
		if err == nil {
			return e.affected(count)
		}
		if e.end() || tarn.KindOf(err) != tarn.KindInvalid {
			return err
		}
	}
	where, err := e.where()
	if err != nil {
		return err
	}
	n, err := e.change(ctx, "DELETE", where, func(*arrow.Schema) (string, error) {
		return e.places("false") + " FROM " + e.written + " AS " + quote(e.called[0].alias) + " WHERE " + where, nil
	})
	if err != nil {
		return err
	}
	return e.affected(n.Deleted)
}

// places selects where a row is, and whether a new one takes its place.
func (e *editor) places(write string) string {
	t := quote(e.called[0].alias)
	return "SELECT " + t + "." + quote(fileOf) + ", " + t + "." + quote(rowOf) + ", " + write
}

// update does UPDATE name [[AS] alias] SET a = expression, … [WHERE condition].
func (e *editor) update(ctx context.Context) error {
	e.take("table")
	if err := e.target(ctx, "set"); err != nil {
		return err
	}
	if !e.take("set") {
		return e.want("SET")
	}
	set, err := e.assignments("where")
	if err != nil {
		return err
	}
	where, err := e.where()
	if err != nil {
		return err
	}
	n, err := e.change(ctx, "UPDATE", where, func(as *arrow.Schema) (string, error) {
		columns, err := e.columns(as, set, func(name string) string { return quote(e.called[0].alias) + "." + name })
		return e.places("true") + ", " + strings.Join(columns, ", ") + " FROM " + e.written + " AS " + quote(e.called[0].alias) + " WHERE " + where, err
	})
	if err != nil {
		return err
	}
	return e.affected(n.Updated)
}

// columns gives the values of all columns where some are set; rest those of the others.
func (e *editor) columns(as *arrow.Schema, set map[string]string, rest func(name string) string) (out []string, err error) {
	found := 0
	for _, f := range as.Fields() {
		typ, err := duckType(f.Type)
		if err != nil {
			return nil, err
		}
		v, ok := set[strings.ToLower(f.Name)]
		if !ok {
			v = rest(quote(f.Name))
		} else {
			found++
		}
		out = append(out, "CAST("+v+" AS "+typ+")")
	}
	if found < len(set) {
		for name := range set {
			if !slices.ContainsFunc(as.Fields(), func(f arrow.Field) bool { return strings.EqualFold(f.Name, name) }) {
				return nil, tarn.Invalid("[UNRESOLVED_COLUMN] %s has no column %s", e.name, name).WithHint("DESCRIBE " + e.name.String())
			}
		}
	}
	return out, nil
}

// change runs the query that sql gives for the columns of the table: file, row,
// whether one takes its place, and that one's values. The history tells told.
func (e *editor) change(ctx context.Context, operation, told string, sql func(*arrow.Schema) (string, error)) (n delta.MergeCounts, err error) {
	_, err = e.table.Commit(ctx, delta.CommitOptions{Operation: operation, Params: map[string]string{"predicate": told}}, func(x *delta.Tx) error {
		as, err := delta.BaseOf(x).Schema().Arrow()
		if err != nil {
			return err
		}
		text, err := sql(as)
		if err != nil {
			return err
		}
		s := &scene{w: e.w, who: e.who, catalog: e.scene.catalog, schema: e.scene.schema, stage: e.stage, versions: e.versions}
		s.changing = &changing{name: e.name, base: delta.BaseOf(x), files: map[string]string{}}
		defer func() { e.scene.sources = s.sources }()
		return s.query(ctx, e.statement.ID, text, "", e.statement.Params, func(rows *engine.Rows) error {
			if s.changing.self {
				s.changing.read = delta.Predicate{}
			}
			to, err := delta.Edit(x, operation, s.changing.read)
			if err != nil {
				return err
			}
			to.Twice = e.twice
			if err := drain(rows, func(rec arrow.RecordBatch) error { return to.Apply(ctx, edits(rec, as, s.changing.files)) }); !errors.Is(err, io.EOF) {
				return err
			}
			n, err = to.Finish(ctx)
			return err
		})
	})
	return n, err
}

// edits reads a batch of what change asks for.
func edits(rec arrow.RecordBatch, as *arrow.Schema, files map[string]string) delta.Edits {
	var out delta.Edits
	file, row, write := rec.Column(0).(*array.String), rec.Column(1).(*array.Int64), rec.Column(2).(*array.Boolean)
	for i := range int(rec.NumRows()) {
		key := ""
		if file.IsValid(i) {
			key = files[file.Value(i)]
			if key == "" {
				key = file.Value(i) // which no table has
			}
		}
		out.Files, out.Rows, out.Write = append(out.Files, key), append(out.Rows, row.Value(i)), append(out.Write, write.Value(i))
	}
	if rec.NumCols() > 3 {
		fields := slices.Clone(rec.Schema().Fields()[3:])
		for i := range fields {
			fields[i].Name = as.Field(i).Name
		}
		out.New = array.NewRecordBatch(arrow.NewSchema(fields, nil), rec.Columns()[3:], rec.NumRows())
	}
	return out
}

// merge does MERGE INTO target USING source ON condition and its clauses.
type merge struct {
	*editor
	clauses []clause
}

// clause is WHEN MATCHED and its like.
type clause struct {
	kind   string // matched, absent (from the target), orphan (absent from the source)
	when   string
	delete bool
	all    bool // columns are the source's of the same name
	set    map[string]string
}

func (m *merge) do(ctx context.Context) error {
	if m.take("with", "schema", "evolution") {
		return tarn.Invalid("[UNSUPPORTED_FEATURE] WITH SCHEMA EVOLUTION is not known").WithHint("leave it out; columns that the table lacks are not written")
	}
	if !m.take("into") {
		return m.want("INTO")
	}
	if err := m.target(ctx, "using"); err != nil {
		return err
	}
	if !m.take("using") {
		return m.want("USING")
	}
	source, err := m.source()
	if err != nil {
		return err
	}
	if !m.take("on") {
		return m.want("ON")
	}
	on, err := m.expr("when")
	if err != nil {
		return err
	}
	for !m.end() {
		cl, err := m.clause()
		if err != nil {
			return err
		}
		m.clauses = append(m.clauses, cl)
	}
	if len(m.clauses) == 0 {
		return m.want("WHEN MATCHED or WHEN NOT MATCHED")
	}
	n, err := m.change(ctx, "MERGE", on, func(as *arrow.Schema) (string, error) { return m.query(as, source, on) })
	if err != nil {
		return err
	}
	num := func(n int64) string { return strconv.FormatInt(n, 10) }
	return m.answer("num_affected_rows# num_updated_rows# num_deleted_rows# num_inserted_rows#",
		[][]string{{num(n.Updated + n.Deleted + n.Inserted), num(n.Updated), num(n.Deleted), num(n.Inserted)}})
}

// source reads a table or a query in parentheses, and finds its alias.
func (m *merge) source() (string, error) {
	first, n, named := m.i, nickname{alias: "source"}, false
	if m.next().name() {
		p, _ := chain(m.tokens, m.i)
		full, err := m.full(p)
		if err != nil {
			return "", err
		}
		n, named = nickname{[]string{full.Catalog, full.Schema, full.Table}, full.Table}, true
	}
	if _, err := m.expr("on"); err != nil {
		return "", err
	}
	last := m.i - 1
	if depth := 0; m.tokens[last].sign(")") { // of a query, or behind an alias
		for ; last > first; last-- {
			if m.tokens[last].sign(")") {
				depth++
			} else if m.tokens[last].sign("(") {
				depth--
			}
			if depth == 0 {
				last--
				break
			}
		}
	}
	if t := m.tokens[last]; last > first && t.name() && !m.tokens[last-1].sign(".") && !m.tokens[last-1].sign("@") {
		n.alias, named = t.value(), true
	}
	m.called = append(m.called, n)
	text := m.sql[m.tokens[first].from:m.tokens[m.i-1].to]
	if !named {
		text += " AS source"
	}
	return text, nil
}

// clause reads WHEN [NOT] MATCHED [BY SOURCE] [AND condition] THEN what.
func (m *merge) clause() (cl clause, err error) {
	cl.kind, cl.when = "matched", "true"
	switch {
	case m.take("when", "matched"):
	case m.take("when", "not", "matched"):
		cl.kind = "absent"
		if m.take("by", "source") {
			cl.kind = "orphan"
		} else {
			m.take("by", "target")
		}
	default:
		return cl, m.want("WHEN MATCHED or WHEN NOT MATCHED")
	}
	if m.take("and") {
		if cl.when, err = m.expr("then"); err != nil {
			return cl, err
		}
	}
	if !m.take("then") {
		return cl, m.want("THEN")
	}
	star := func() bool {
		if cl.all = m.next().sign("*") && cl.kind != "orphan"; cl.all {
			m.i++
		}
		return cl.all
	}
	switch {
	case cl.kind != "absent" && m.take("delete"):
		cl.delete = true
	case cl.kind != "absent" && m.take("update", "set"):
		if !star() {
			cl.set, err = m.assignments("when")
		}
	case cl.kind == "absent" && m.take("insert"):
		if !star() {
			cl.set, err = m.values()
		}
	case cl.kind == "absent":
		err = m.want("INSERT")
	default:
		err = m.want("UPDATE SET or DELETE")
	}
	return cl, err
}

// values reads (a, b) VALUES (expression, expression).
func (m *merge) values() (map[string]string, error) {
	names, err := m.names()
	if err != nil {
		return nil, err
	}
	if !m.take("values") || !m.next().sign("(") {
		return nil, m.want("VALUES and a list")
	}
	set := map[string]string{}
	for i, name := range names {
		if i > 0 && !m.next().sign(",") {
			return nil, m.want("as many values as columns")
		}
		m.i++
		if set[strings.ToLower(name)], err = m.expr(); err != nil {
			return nil, err
		}
	}
	if !m.next().sign(")") || len(set) < len(names) {
		return nil, m.want("as many values as columns, each once,")
	}
	m.i++
	return set, nil
}

// query finds the clause that applies to each pair of rows, and the new row.
func (m *merge) query(as *arrow.Schema, source, on string) (string, error) {
	t, s := quote(m.called[0].alias), quote(m.called[1].alias)
	var writes []string
	picks := map[string]string{}
	values := make([]string, as.NumFields())
	for i, cl := range m.clauses {
		k := itoa(i)
		picks[cl.kind] += " WHEN " + cl.when + " THEN " + k
		if cl.kind == "matched" {
			m.twice = cl.delete && cl.when == "true" && picks[cl.kind] == " WHEN true THEN "+k
		}
		if cl.delete {
			continue
		}
		columns, err := m.columns(as, cl.set, func(name string) string {
			switch {
			case cl.all:
				return s + "." + name
			case cl.kind == "absent":
				return "NULL"
			}
			return t + "." + name
		})
		if err != nil {
			return "", err
		}
		writes = append(writes, k)
		for j, v := range columns {
			values[j] += " WHEN " + k + " THEN " + v
		}
	}
	pick := func(kind string) string {
		if picks[kind] == "" {
			return "NULL"
		}
		return "CASE" + picks[kind] + " END"
	}
	join := " JOIN "
	if picks["absent"] != "" {
		join = " LEFT JOIN "
	}
	key := "CASE WHEN " + t + "." + quote(fileOf) + " IS NULL THEN " + pick("absent")
	if picks["orphan"] != "" {
		join, source = " FULL JOIN ", "(SELECT *, true AS "+quote(sourceOf)+" FROM "+source+") AS "+s
		key += " WHEN " + s + "." + quote(sourceOf) + " IS NULL THEN " + pick("orphan")
	}
	write, out := "false", ""
	inner := m.places("CAST("+key+" ELSE "+pick("matched")+" END AS INTEGER)") + " AS " + quote(keyOf)
	if len(writes) > 0 {
		write = quote(keyOf) + " IN (" + strings.Join(writes, ", ") + ")"
		for i, v := range values {
			inner += ", CASE " + quote(keyOf) + v + " END AS " + quote("v"+itoa(i)+pastMark)
			out += ", " + quote("v"+itoa(i)+pastMark)
		}
	}
	return "SELECT " + quote(fileOf) + ", " + quote(rowOf) + ", " + write + out + " FROM (" + inner + " FROM " + source + join + m.written + " AS " + t + " ON " + on +
		") WHERE " + quote(keyOf) + " IS NOT NULL", nil
}
