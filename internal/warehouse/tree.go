package warehouse

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/tarndb/tarn"
)

// tree is what DuckDB's own parser says of a SELECT. It is walked as JSON, whose
// objects are of dozens of kinds.
type tree struct {
	refs    []*ref
	columns map[string]bool // last and other parts of all names of columns, in lower case
	star    bool            // a * stands somewhere
	outputs []output        // the columns of the SELECT; nil = not known
}

// ref is a table that the statement names.
type ref struct {
	parts []string // as written: catalog and schema may be missing
	alias string
	at    int // byte in the text that was parsed; -1 = unknown
	asked string
	tests []test // comparisons that every row of use satisfies
}

// test compares a column with a constant.
type test struct {
	column string
	op     string // = < <= > >= IN
	values []any  // int64, string or day
}

type object = map[string]any

// tableFunctions are those that read nothing but their arguments.
var tableFunctions = []string{"range", "generate_series", "unnest", "json_each", "json_tree", "repeat", "repeat_row", "generate_subscripts"}

// parseTree reads DuckDB's answer. Statements that are not one SELECT, or that
// read what is no table of ours, are refused.
func parseTree(answer []byte, r *rewritten, sql string) (*tree, error) {
	var top struct {
		Error      bool   `json:"error"`
		Message    string `json:"error_message"`
		Type       string `json:"error_type"`
		Position   string `json:"position"`
		Statements []struct {
			Node object `json:"node"`
		} `json:"statements"`
	}
	if err := json.Unmarshal(answer, &top); err != nil {
		return nil, err
	}
	if top.Error {
		at := -1
		if top.Position != "" {
			at = r.origin(atoi(top.Position))
		}
		if top.Type == "not implemented" {
			return nil, tarn.Invalid("[UNSUPPORTED_STATEMENT] this kind of statement is not known").WithHint("docs/sql.md lists those that are")
		}
		return nil, tarn.Invalid("[PARSE_SYNTAX_ERROR] %s%s", top.Message, where(sql, at))
	}
	if len(top.Statements) != 1 {
		return nil, tarn.Invalid("[PARSE_SYNTAX_ERROR] want one statement, got %d", len(top.Statements))
	}
	t := &tree{columns: map[string]bool{}}
	w := walker{tree: t, origin: r, sql: sql}
	t.outputs = outputsOf(top.Statements[0].Node)
	return t, w.node(top.Statements[0].Node, nil)
}

func atoi(s string) int {
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}

type walker struct {
	tree   *tree
	origin *rewritten
	sql    string
}

func text(o object, key string) string {
	s, _ := o[key].(string)
	return s
}

func (w *walker) at(o object) int {
	f, ok := o["query_location"].(float64)
	if !ok || f > float64(len(w.origin.sql)) {
		return -1
	}
	return w.origin.origin(int(f))
}

// node walks any value; names are the common table expressions in sight.
func (w *walker) node(v any, names []string) error {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if err := w.node(e, names); err != nil {
				return err
			}
		}
	case object:
		return w.object(v, names)
	}
	return nil
}

func (w *walker) object(o object, names []string) error {
	if n := text(o, "ctename"); n != "" {
		names = append(slices.Clip(names), strings.ToLower(n))
	}
	if n := text(o, "cte_name"); n != "" {
		names = append(slices.Clip(names), strings.ToLower(n))
	}
	if m, ok := o["cte_map"].(object); ok {
		all, _ := m["map"].([]any)
		for _, e := range all {
			entry, _ := e.(object)
			if err := w.node(entry["value"], names); err != nil {
				return err
			}
			names = append(slices.Clip(names), strings.ToLower(text(entry, "key")))
		}
	}
	switch text(o, "type") {
	case "BASE_TABLE":
		w.table(o, names)
		return nil
	case "TABLE_FUNCTION":
		f, _ := o["function"].(object)
		if name := strings.ToLower(text(f, "function_name")); !slices.Contains(tableFunctions, name) {
			return tarn.Denied("[UNRESOLVED_TABLE_VALUED_FUNCTION] the function %s is not to be had: a statement reads tables of the catalog only%s", name, where(w.sql, w.at(f))).
				WithHint("register what it would read as a table; tarn table --help")
		}
	case "SHOW_REF":
		if o["query"] == nil {
			return tarn.Invalid("[UNSUPPORTED_STATEMENT] this form of SHOW is not known").WithHint("SHOW CATALOGS, SHOW SCHEMAS IN catalog, SHOW TABLES IN catalog.schema")
		}
	case "STAR":
		w.tree.star = true
	case "JOIN":
		if text(o, "ref_type") == "NATURAL" {
			w.tree.star = true
		}
		for _, c := range list(o["using_columns"]) {
			if s, ok := c.(string); ok {
				w.tree.columns[strings.ToLower(s)] = true
			}
		}
	case "COLUMN_REF":
		for _, p := range list(o["column_names"]) {
			if s, ok := p.(string); ok {
				w.tree.columns[strings.ToLower(s)] = true
			}
		}
	}
	first := len(w.tree.refs)
	// In a fixed order, so that errors are.
	keys := make([]string, 0, len(o))
	for k := range o {
		if k != "cte_map" {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if err := w.node(o[k], names); err != nil {
			return err
		}
	}
	if text(o, "type") == "SELECT_NODE" {
		w.tests(o, first)
	}
	return nil
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func (w *walker) table(o object, names []string) {
	r := &ref{alias: text(o, "alias"), at: w.at(o)}
	for _, k := range []string{"catalog_name", "schema_name", "table_name"} {
		if s := text(o, k); s != "" {
			r.parts = append(r.parts, strings.TrimSuffix(s, catalogMark))
		}
	}
	if len(r.parts) == 1 && slices.Contains(names, strings.ToLower(r.parts[0])) {
		return
	}
	last := len(r.parts) - 1
	r.parts[last], r.asked, _ = strings.Cut(r.parts[last], pastMark)
	if r.alias == "" {
		r.alias = r.parts[last]
	}
	w.tree.refs = append(w.tree.refs, r)
}

// tests finds, in the condition of a SELECT, comparisons with constants that no
// NULL passes: they may be made before any join. Only tables that stand in the
// FROM itself are meant.
func (w *walker) tests(o object, first int) {
	var direct []*ref
	collect(o["from_table"], func(t object) {
		alias := text(t, "alias")
		if alias == "" {
			alias, _, _ = strings.Cut(text(t, "table_name"), pastMark)
		}
		at := w.at(t)
		for _, r := range w.tree.refs[first:] {
			if r.at == at && strings.EqualFold(r.alias, alias) && at >= 0 {
				direct = append(direct, r)
			}
		}
	})
	if !plainJoins(o["from_table"]) {
		return
	}
	sources := 0
	countSources(o["from_table"], &sources)
	narrow := func(among []*ref) func(object) {
		return func(c object) {
			column, op, values := comparison(c)
			if len(column) == 0 {
				return
			}
			var of *ref
			if len(column) == 1 && sources == 1 && len(among) == 1 {
				of = among[0]
			} else if len(column) == 2 {
				for _, r := range among {
					if strings.EqualFold(r.alias, column[0]) {
						if of != nil {
							return
						}
						of = r
					}
				}
			}
			if of != nil {
				of.tests = append(of.tests, test{column[len(column)-1], op, values})
			}
		}
	}
	conjuncts(o["where_clause"], narrow(direct))
	// What rows of the right side must satisfy to be joined at all.
	if j, _ := o["from_table"].(object); text(j, "type") == "JOIN" && (text(j, "join_type") == "INNER" || text(j, "join_type") == "LEFT") {
		if r, _ := j["right"].(object); text(r, "type") == "BASE_TABLE" && len(direct) > 0 && direct[len(direct)-1].at == w.at(r) {
			conjuncts(j["condition"], narrow(direct[len(direct)-1:]))
		}
	}
}

func collect(v any, do func(object)) {
	o, ok := v.(object)
	if !ok {
		return
	}
	switch text(o, "type") {
	case "BASE_TABLE":
		do(o)
	case "JOIN":
		collect(o["left"], do)
		collect(o["right"], do)
	}
}

// plainJoins tells whether rows may be left out before the joins: those by
// nearness or position would find others instead.
func plainJoins(v any) bool {
	o, ok := v.(object)
	if !ok || text(o, "type") != "JOIN" {
		return ok && o["sample"] == nil
	}
	kind := text(o, "ref_type")
	return (kind == "REGULAR" || kind == "CROSS" || kind == "NATURAL") && plainJoins(o["left"]) && plainJoins(o["right"])
}

func countSources(v any, n *int) {
	o, ok := v.(object)
	if !ok {
		return
	}
	if text(o, "type") == "JOIN" {
		countSources(o["left"], n)
		countSources(o["right"], n)
		return
	}
	*n++
}

func conjuncts(v any, do func(object)) {
	o, ok := v.(object)
	if !ok {
		return
	}
	if text(o, "type") == "CONJUNCTION_AND" {
		for _, c := range list(o["children"]) {
			conjuncts(c, do)
		}
		return
	}
	do(o)
}

// comparison reads column op constant; column is nil when c is something else.
func comparison(c object) (column []string, op string, values []any) {
	ops := map[string]string{
		"COMPARE_EQUAL": "=", "COMPARE_LESSTHAN": "<", "COMPARE_LESSTHANOREQUALTO": "<=", "COMPARE_GREATERTHAN": ">", "COMPARE_GREATERTHANOREQUALTO": ">=",
	}
	if op = ops[text(c, "type")]; op != "" {
		left, right := c["left"], c["right"]
		v, ok := constant(right)
		if !ok {
			if v, ok = constant(left); !ok {
				return nil, "", nil
			}
			left = right
			op = map[string]string{"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}[op]
		}
		return columnOf(left), op, []any{v}
	}
	if text(c, "type") == "COMPARE_IN" {
		children := list(c["children"])
		if len(children) < 2 {
			return nil, "", nil
		}
		for _, e := range children[1:] {
			v, ok := constant(e)
			if !ok {
				return nil, "", nil
			}
			values = append(values, v)
		}
		return columnOf(children[0]), "IN", values
	}
	return nil, "", nil
}

func columnOf(v any) []string {
	o, ok := v.(object)
	if !ok || text(o, "type") != "COLUMN_REF" {
		return nil
	}
	var out []string
	for _, p := range list(o["column_names"]) {
		s, _ := p.(string)
		out = append(out, s)
	}
	return out
}

// constant reads whole numbers and texts; a text that is cast to a date is its
// text.
func constant(v any) (any, bool) {
	o, ok := v.(object)
	if !ok {
		return nil, false
	}
	if text(o, "type") == "OPERATOR_CAST" {
		to, _ := o["cast_type"].(object)
		s, ok := constant(o["child"])
		if d, isText := s.(string); ok && isText && text(to, "id") == "DATE" && isDay(d) {
			return day(d), true
		}
		return nil, false
	}
	if text(o, "type") != "VALUE_CONSTANT" {
		return nil, false
	}
	value, _ := o["value"].(object)
	typ, _ := value["type"].(object)
	if null, _ := value["is_null"].(bool); null {
		return nil, false
	}
	switch text(typ, "id") {
	case "VARCHAR":
		s, ok := value["value"].(string)
		return s, ok
	case "INTEGER", "BIGINT", "SMALLINT", "TINYINT":
		f, ok := value["value"].(float64)
		if !ok || f != float64(int64(f)) || f > 1<<53 || f < -(1<<53) {
			return nil, false
		}
		return int64(f), true
	}
	return nil, false
}

// day is a text that was cast to a date.
type day string

func isDay(s string) bool {
	_, err := time.Parse("2006-01-02", s)
	return err == nil
}

// needs tells whether a column may be used by the statement. A table's own name
// stands for its whole row.
func (t *tree) needs(r *ref, column string) bool {
	return t.star || t.columns[strings.ToLower(r.alias)] || t.columns[strings.ToLower(column)]
}
