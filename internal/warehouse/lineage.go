package warehouse

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/tarndb/tarn"
)

// lineage is what a statement that succeeded tells of where rows came from.
type lineage struct {
	target  tarn.TableName // "" = it wrote none
	columns []string       // that a query's columns went into, by place; nil = not known
	from    []output       // the query's columns; nil = not known
}

// traced records the lineage of a statement that has committed. A DELETE brings
// no rows.
func (c *command) traced(ctx context.Context) {
	kind := tarn.LineageKind(c.statement.Status().Kind)
	if kind == "CREATE" {
		kind = tarn.LineageCTAS
	}
	if c.lineage.target.Table == "" || kind == "DELETE" {
		return
	}
	var edges []tarn.LineageEdge
	known := map[tarn.TableName]bool{c.lineage.target: true}
	for _, n := range c.sources {
		if !known[n] {
			known[n] = true
			edges = append(edges, tarn.LineageEdge{Source: n, Target: c.lineage.target, Kind: kind, Run: c.statement.ID, Principal: c.who.Name, Columns: c.pairs(n)})
		}
	}
	if len(edges) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := c.w.config.Catalog.RecordLineage(ctx, edges...); err != nil {
		c.w.config.Log.WarnContext(ctx, "lineage not recorded", "table", c.lineage.target.String(), "err", err)
	}
}

// pairs gives the columns that went from a table into the written one.
func (c *command) pairs(source tarn.TableName) (out []tarn.ColumnPair) {
	l := c.lineage
	if k := c.statement.Status().Kind; k != "CREATE" && k != "INSERT" {
		return nil
	}
	if len(l.from) == 1 && l.from[0].star && c.statement.Status().Kind == "CREATE" {
		return tarn.SameColumns(l.columns)
	}
	if len(l.from) != len(l.columns) {
		return nil
	}
	for i, o := range l.from {
		for _, f := range o.from {
			if n, err := c.full(f.table); err == nil && n == source {
				if p := (tarn.ColumnPair{Source: f.column, Target: l.columns[i]}); !slices.Contains(out, p) {
					out = append(out, p)
				}
			}
		}
	}
	return out
}

// output is a column of a SELECT and the columns of tables it is computed from.
type output struct {
	star bool // every column of the one table
	from []origin
}

type origin struct {
	table  []string // as written
	column string
}

// outputsOf tells from what each column of a SELECT over tables, joins and
// subqueries in its FROM is computed; nil = cannot be told without the columns of
// the tables: a * among others, a name that may be one of several tables', a
// subquery in an expression, a WITH, a UNION.
func outputsOf(node object) []output {
	with, _ := node["cte_map"].(object)
	if text(node, "type") != "SELECT_NODE" || len(list(with["map"])) > 0 {
		return nil
	}
	from, _ := node["from_table"].(object)
	sees := map[string]func(column string) []origin{} // by alias, in lower case
	if !sourcesOf(from, sees) {
		return nil
	}
	var out []output
	named := map[string]bool{} // aliases, which later expressions may use
	for _, v := range list(node["select_list"]) {
		e, _ := v.(object)
		if text(e, "type") == "STAR" && len(list(node["select_list"])) == 1 && text(from, "type") == "BASE_TABLE" {
			return []output{{star: true}}
		}
		o := output{}
		if !o.read(e, sees, named) {
			return nil
		}
		if a := text(e, "alias"); a != "" {
			named[strings.ToLower(a)] = true
		}
		out = append(out, o)
	}
	return out
}

// sourcesOf finds what stands in a FROM.
func sourcesOf(from object, sees map[string]func(string) []origin) bool {
	alias := strings.ToLower(text(from, "alias"))
	switch text(from, "type") {
	case "BASE_TABLE":
		var parts []string
		for _, k := range []string{"catalog_name", "schema_name", "table_name"} {
			if s := text(from, k); s != "" {
				parts = append(parts, strings.TrimSuffix(s, catalogMark))
			}
		}
		last := len(parts) - 1
		parts[last], _, _ = strings.Cut(parts[last], pastMark)
		if alias == "" {
			alias = strings.ToLower(parts[last])
		}
		if sees[alias] != nil || len(list(from["column_name_alias"])) > 0 {
			return false
		}
		sees[alias] = func(column string) []origin { return []origin{{parts, column}} }
		return true
	case "JOIN":
		left, _ := from["left"].(object)
		right, _ := from["right"].(object)
		return sourcesOf(left, sees) && sourcesOf(right, sees)
	case "SUBQUERY":
		sub, _ := from["subquery"].(object)
		node, _ := sub["node"].(object)
		inner, names := outputsOf(node), list(from["column_name_alias"])
		if inner == nil || len(names) != len(inner) || sees[alias] != nil {
			return false // its columns have names of their own
		}
		sees[alias] = func(column string) []origin {
			for i, n := range names {
				if s, _ := n.(string); strings.EqualFold(s, column) {
					return inner[i].from
				}
			}
			return nil
		}
		return true
	}
	return false
}

// nameless are functions that are called like columns.
var nameless = []string{"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "current_user", "session_user", "user", "current_catalog", "current_schema"}

// read collects the columns in an expression; false = one cannot be told.
func (o *output) read(v any, sees map[string]func(string) []origin, named map[string]bool) bool {
	switch v := v.(type) {
	case []any:
		return !slices.ContainsFunc(v, func(e any) bool { return !o.read(e, sees, named) })
	case object:
		switch text(v, "type") {
		case "STAR", "SUBQUERY", "LAMBDA":
			return false
		case "COLUMN_REF":
			names := columnOf(v)
			of := sees[""]
			if len(names) == 1 {
				switch s := strings.ToLower(names[0]); {
				case slices.Contains(nameless, s):
					return true
				case named[s]:
					return false
				}
			}
			if len(names) == 1 && len(sees) == 1 {
				for _, f := range sees {
					of = f
				}
			} else if len(names) == 2 {
				of = sees[strings.ToLower(names[0])]
			}
			if of == nil {
				return false
			}
			o.from = append(o.from, of(names[len(names)-1])...)
			return true
		}
		for _, e := range v {
			if !o.read(e, sees, named) {
				return false
			}
		}
	}
	return true
}
