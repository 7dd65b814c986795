package delta

import (
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/parquet"
	parquetschema "github.com/apache/arrow-go/v18/parquet/schema"
)

// columns gives the asked fields in table order; nil asks for all. A name with
// dots asks for a part of a struct: the column is then a struct of those parts.
func (s *Snapshot) columns(names []string) ([]field, error) {
	if names == nil {
		return s.schema.fields, nil
	}
	var paths [][]int
	for _, n := range names {
		path, _, err := s.schema.leaf(n)
		if err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return pick(s.schema.fields, paths), nil
}

// pick keeps the fields that paths lead to, in their order.
func pick(fields []field, paths [][]int) []field {
	var out []field
	for i, f := range fields {
		var below [][]int
		asked, whole := false, false
		for _, p := range paths {
			if p[0] != i {
				continue
			}
			asked = true
			if len(p) == 1 {
				whole = true
			} else {
				below = append(below, p[1:])
			}
		}
		if !asked {
			continue
		}
		if !whole {
			f.typ = &dataType{kind: kindStruct, fields: pick(f.typ.fields, below)}
		}
		out = append(out, f)
	}
	return out
}

// columnNode is a column of a data file and the first of its leaves.
type columnNode struct {
	node parquetschema.Node
	leaf int
}

// nodesOf lists the columns of a group, whose first leaf is given, and how the
// finders see them.
func nodesOf(g *parquetschema.GroupNode, leaf int) ([]columnNode, []arrow.Field) {
	nodes := make([]columnNode, g.NumFields())
	fields := make([]arrow.Field, g.NumFields())
	for i := range nodes {
		n := g.Field(i)
		nodes[i] = columnNode{n, leaf}
		fields[i] = arrow.Field{Name: n.Name()}
		if n.FieldID() >= 0 {
			fields[i].Metadata = arrow.NewMetadata([]string{"PARQUET:field_id"}, []string{fmt.Sprint(n.FieldID())})
		}
		leaf += leavesIn(n)
	}
	return nodes, fields
}

func leavesIn(n parquetschema.Node) int {
	g, ok := n.(*parquetschema.GroupNode)
	if !ok {
		return 1
	}
	total := 0
	for i := range g.NumFields() {
		total += leavesIn(g.Field(i))
	}
	return total
}

// leaves lists what must be read of a column for a value of type t: of structs
// the fields that t has, at least one, so that their nulls are known.
func (c columnNode) leaves(t *dataType, by find) []int {
	g, ok := c.node.(*parquetschema.GroupNode)
	if ok && t.kind == kindStruct && g.LogicalType().IsNone() {
		var out []int
		nodes, fields := nodesOf(g, c.leaf)
		for _, f := range t.fields {
			if i := by(f, fields); i >= 0 {
				out = append(out, nodes[i].leaves(f.typ, by)...)
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	n := leavesIn(c.node)
	if ok && t.kind == kindStruct {
		n = min(n, 1)
	}
	out := make([]int, n)
	for i := range out {
		out[i] = c.leaf + i
	}
	return out
}

// int96 tells whether the column is a plain INT96. Those are read raw: as Arrow
// nanoseconds they end in the year 2262.
func (c columnNode) int96() bool {
	p, plain := c.node.(*parquetschema.PrimitiveNode)
	return plain && p.PhysicalType() == parquet.Types.Int96 && p.RepetitionType() != parquet.Repetitions.Repeated
}

// wanted are the columns of one scan: those to give, and behind them those that
// only the condition looks at.
type wanted struct {
	fields []field
	given  int         // how many of fields are given
	where  *condition  // nil = none
	at     map[int]int // position in the schema → position in fields, whole columns only
}

// want plans the columns of a scan.
func (s *Snapshot) want(names []string, p Predicate) (*wanted, error) {
	given, err := s.columns(names)
	if err != nil {
		return nil, err
	}
	w := &wanted{fields: given, given: len(given), at: map[int]int{}}
	if w.where, err = s.schema.bind(p); err != nil {
		return nil, err
	}
	for _, i := range w.where.columns(nil) {
		f := s.schema.fields[i]
		at := slices.IndexFunc(given, func(g field) bool { return g.name == f.name && g.typ == f.typ })
		if at < 0 {
			at = len(w.fields)
			w.fields = append(slices.Clip(w.fields), f)
		}
		w.at[i] = at
	}
	return w, nil
}
