package delta

import (
	"context"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// truth of SQL: a comparison with null is unknown.
type truth uint8

const (
	isFalse truth = iota
	isUnknown
	isTrue
)

// eval gives c's truth for every row. column gives the array of a top-level
// column by its position in the schema.
func (c *condition) eval(column func(int) arrow.Array, n int) []truth {
	out := make([]truth, n)
	switch c.op {
	case opAnd, opOr:
		for i := range out {
			out[i] = isTrue
			if c.op == opOr {
				out[i] = isFalse
			}
		}
		for _, sub := range c.of {
			for i, t := range sub.eval(column, n) {
				if c.op == opAnd {
					out[i] = min(out[i], t)
				} else {
					out[i] = max(out[i], t)
				}
			}
		}
		return out
	}
	a := column(c.path[0])
	hidden := func(int) bool { return false }
	for _, step := range c.path[1:] {
		s := a.(*array.Struct)
		outer := hidden
		hidden = func(i int) bool { return outer(i) || s.IsNull(i) }
		a = s.Field(step)
	}
	for i := range out {
		d, ok := datumAt(a, i, c.field.typ)
		if !ok || hidden(i) {
			out[i] = c.ofNull(hidden(i) || a.IsNull(i))
			continue
		}
		out[i] = c.of1(d)
	}
	return out
}

// ofNull is the truth for a row without a value, or with one that cannot be
// compared.
func (c *condition) ofNull(null bool) truth {
	switch {
	case c.op == opNull && null, c.op == opNotNull && !null:
		return isTrue
	case c.op == opNull, c.op == opNotNull:
		return isFalse
	}
	return isUnknown
}

// of1 is the truth for a value.
func (c *condition) of1(d datum) truth {
	is := func(b bool) truth {
		if b {
			return isTrue
		}
		return isFalse
	}
	switch c.op {
	case opNull:
		return isFalse
	case opNotNull:
		return isTrue
	case opIn, opNotIn:
		for _, v := range c.values {
			if o, ok := d.compare(v); ok && o == 0 {
				return is(c.op == opIn)
			}
		}
		return is(c.op == opNotIn)
	}
	o, ok := d.compare(c.values[0])
	if !ok {
		return is(c.op == opNe)
	}
	switch c.op {
	case opEq:
		return is(o == 0)
	case opNe:
		return is(o != 0)
	case opLt:
		return is(o < 0)
	case opLe:
		return is(o <= 0)
	case opGt:
		return is(o > 0)
	}
	return is(o >= 0)
}

// maskOf makes a filter of the rows that are true.
func maskOf(rows []truth) (mask *array.Boolean, kept int) {
	b := array.NewBooleanBuilder(memory.DefaultAllocator)
	defer b.Release()
	b.Reserve(len(rows))
	for _, t := range rows {
		if t == isTrue {
			kept++
		}
		b.UnsafeAppend(t == isTrue)
	}
	return b.NewBooleanArray(), kept
}

// filterRows takes rec over and gives its rows that the mask keeps.
func filterRows(ctx context.Context, rec arrow.RecordBatch, mask *array.Boolean, kept int) (arrow.RecordBatch, error) {
	defer rec.Release()
	switch int64(kept) {
	case rec.NumRows():
		rec.Retain()
		return rec, nil
	case 0:
		return rec.NewSlice(0, 0), nil
	}
	return compute.FilterRecordBatch(ctx, rec, mask, compute.DefaultFilterOptions())
}
