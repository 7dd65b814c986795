package delta

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tarndb/tarn"
)

// Predicate is a condition on the rows of a table. The zero value holds for every
// row. As in SQL, a comparison with null is neither true nor false, and only
// rows for which the whole is true are meant. NaN equals nothing.
//
// Columns are named as the table names them, fields of structs behind dots;
// names with dots stand in backticks. Values are bool, integers, float64,
// string, []byte, time.Time (also for dates), or, for decimals, their text.
type Predicate struct {
	op     predicateOp
	column string
	values []any
	of     []Predicate
}

type predicateOp uint8

const (
	opAll predicateOp = iota // every row
	opEq
	opNe
	opLt
	opLe
	opGt
	opGe
	opIn
	opNotIn
	opNull
	opNotNull
	opAnd
	opOr
	opNot
)

// The comparisons.
func Eq(column string, value any) Predicate { return Predicate{opEq, column, []any{value}, nil} }
func Ne(column string, value any) Predicate { return Predicate{opNe, column, []any{value}, nil} }
func Lt(column string, value any) Predicate { return Predicate{opLt, column, []any{value}, nil} }
func Le(column string, value any) Predicate { return Predicate{opLe, column, []any{value}, nil} }
func Gt(column string, value any) Predicate { return Predicate{opGt, column, []any{value}, nil} }
func Ge(column string, value any) Predicate { return Predicate{opGe, column, []any{value}, nil} }

// In is true when the column equals one of the values.
func In(column string, values ...any) Predicate { return Predicate{opIn, column, values, nil} }

// IsNull and NotNull are never null themselves.
func IsNull(column string) Predicate  { return Predicate{opNull, column, nil, nil} }
func NotNull(column string) Predicate { return Predicate{opNotNull, column, nil, nil} }

// And of nothing holds for every row, Or of nothing for none.
func And(of ...Predicate) Predicate { return Predicate{op: opAnd, of: of} }
func Or(of ...Predicate) Predicate  { return Predicate{op: opOr, of: of} }
func Not(of Predicate) Predicate    { return Predicate{op: opNot, of: []Predicate{of}} }

// All tells whether p holds for every row because it asks nothing.
func (p Predicate) All() bool { return p.op == opAll || p.op == opAnd && len(p.of) == 0 }

// String shows p as SQL does.
func (p Predicate) String() string {
	text := func(v any) string {
		switch v := v.(type) {
		case string:
			return "'" + strings.ReplaceAll(v, "'", "''") + "'"
		case []byte:
			return fmt.Sprintf("X'%X'", v)
		case time.Time:
			return "'" + v.UTC().Format("2006-01-02T15:04:05.999999Z") + "'"
		}
		return fmt.Sprint(v)
	}
	switch p.op {
	case opEq, opNe, opLt, opLe, opGt, opGe:
		return p.column + " " + []string{"=", "<>", "<", "<=", ">", ">="}[p.op-opEq] + " " + text(p.values[0])
	case opIn, opNotIn:
		var list []string
		for _, v := range p.values {
			list = append(list, text(v))
		}
		word := " IN ("
		if p.op == opNotIn {
			word = " NOT IN ("
		}
		return p.column + word + strings.Join(list, ", ") + ")"
	case opNull:
		return p.column + " IS NULL"
	case opNotNull:
		return p.column + " IS NOT NULL"
	case opNot:
		return "NOT (" + p.of[0].String() + ")"
	case opAnd, opOr:
		if len(p.of) == 0 {
			return fmt.Sprint(p.op == opAnd)
		}
		word := " AND "
		if p.op == opOr {
			word = " OR "
		}
		var list []string
		for _, q := range p.of {
			list = append(list, "("+q.String()+")")
		}
		return strings.Join(list, word)
	}
	return "true"
}

// condition is a predicate bound to a table's columns: negations are pushed
// down into the comparisons, values have their column's type.
type condition struct {
	op     predicateOp // none of opNot, opAll
	path   []int       // of a comparison: positions in the schema, outermost first
	field  field       // of a comparison: the leaf
	values []datum
	of     []*condition
}

// bind gives the condition; nil for a predicate that asks nothing.
func (s *dataType) bind(p Predicate) (*condition, error) {
	if p.All() {
		return nil, nil
	}
	return s.bindNode(p, false)
}

var negated = map[predicateOp]predicateOp{
	opEq: opNe, opNe: opEq, opLt: opGe, opGe: opLt, opLe: opGt, opGt: opLe,
	opIn: opNotIn, opNotIn: opIn, opNull: opNotNull, opNotNull: opNull, opAnd: opOr, opOr: opAnd,
}

func (s *dataType) bindNode(p Predicate, not bool) (*condition, error) {
	switch p.op {
	case opAll:
		p = And()
	case opNot:
		return s.bindNode(p.of[0], !not)
	}
	c := &condition{op: p.op}
	if not {
		c.op = negated[p.op]
	}
	if p.op == opAnd || p.op == opOr {
		for _, q := range p.of {
			sub, err := s.bindNode(q, not)
			if err != nil {
				return nil, err
			}
			c.of = append(c.of, sub)
		}
		return c, nil
	}
	var err error
	if c.path, c.field, err = s.leaf(p.column); err != nil {
		return nil, err
	}
	if c.op == opNull || c.op == opNotNull {
		return c, nil
	}
	for _, v := range p.values {
		d, err := datumOf(v, c.field.typ)
		if err != nil {
			return nil, tarn.Invalid("column %s: %w", p.column, err)
		}
		c.values = append(c.values, d)
	}
	return c, nil
}

// leaf finds a column or a field of a struct by its name.
func (s *dataType) leaf(name string) ([]int, field, error) {
	if i := s.fieldIndex(name); i >= 0 {
		return []int{i}, s.fields[i], nil
	}
	steps, err := splitName(name)
	if err != nil {
		return nil, field{}, err
	}
	var path []int
	var f field
	in := s
	for _, step := range steps {
		i := in.fieldIndex(step)
		if i < 0 {
			return nil, field{}, tarn.Invalid("the table has no column %s", name)
		}
		path, f = append(path, i), in.fields[i]
		in = f.typ
	}
	return path, f, nil
}

// splitName takes a.b.`c.d` apart.
func splitName(name string) ([]string, error) {
	var out []string
	for rest := name; ; {
		var step string
		if strings.HasPrefix(rest, "`") {
			end := strings.IndexByte(rest[1:], '`')
			if end < 0 {
				return nil, tarn.Invalid("column %s has a backtick that does not close", name)
			}
			step, rest = rest[1:end+1], rest[end+2:]
		} else if at := strings.IndexByte(rest, '.'); at >= 0 {
			step, rest = rest[:at], rest[at:]
		} else {
			step, rest = rest, ""
		}
		out = append(out, step)
		if rest == "" {
			return out, nil
		}
		if rest[0] != '.' {
			return nil, tarn.Invalid("column %s: a dot must follow a name", name)
		}
		rest = rest[1:]
	}
}

// columns gives the positions of the top-level columns that c looks at.
func (c *condition) columns(into []int) []int {
	if c == nil {
		return into
	}
	if len(c.path) > 0 && !slices.Contains(into, c.path[0]) {
		into = append(into, c.path[0])
	}
	for _, sub := range c.of {
		into = sub.columns(into)
	}
	return into
}
