package delta

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// group reads fields of an Arrow struct by name and row. A field that is
// missing or of another type than asked reads as null: checkpoints of old
// writers lack columns.
type group struct {
	self   *array.Struct // nil at the root
	fields map[string]arrow.Array
}

func groupOf(rec arrow.RecordBatch) group {
	g := group{fields: map[string]arrow.Array{}}
	for i, f := range rec.Schema().Fields() {
		g.fields[f.Name] = rec.Column(i)
	}
	return g
}

func (g group) group(name string) (group, bool) {
	s, ok := g.fields[name].(*array.Struct)
	if !ok {
		return group{}, false
	}
	sub := group{self: s, fields: map[string]arrow.Array{}}
	for i, f := range s.DataType().(*arrow.StructType).Fields() {
		sub.fields[f.Name] = s.Field(i)
	}
	return sub, true
}

func (g group) null(i int) bool { return g.self != nil && g.self.IsNull(i) }

func (g group) has(name string, i int) bool {
	a, ok := g.fields[name]
	return ok && !a.IsNull(i)
}

func (g group) numberOrNil(name string, i int) *int64 {
	if !g.has(name, i) {
		return nil
	}
	var n int64
	switch a := g.fields[name].(type) {
	case *array.Int64:
		n = a.Value(i)
	case *array.Int32:
		n = int64(a.Value(i))
	default:
		return nil
	}
	return &n
}

func (g group) number(name string, i int) int64 {
	if n := g.numberOrNil(name, i); n != nil {
		return *n
	}
	return 0
}

func (g group) truth(name string, i int) bool {
	a, ok := g.fields[name].(*array.Boolean)
	return ok && !a.IsNull(i) && a.Value(i)
}

func (g group) textOrNil(name string, i int) *string {
	if !g.has(name, i) {
		return nil
	}
	return textAt(g.fields[name], i)
}

func (g group) text(name string, i int) string {
	if s := g.textOrNil(name, i); s != nil {
		return *s
	}
	return ""
}

// textAt copies the text out of the batch, which is soon released.
func textAt(a arrow.Array, i int) *string {
	if a.IsNull(i) {
		return nil
	}
	var s string
	switch a := a.(type) {
	case *array.String:
		s = string([]byte(a.Value(i)))
	case *array.Binary:
		s = string(a.Value(i))
	default:
		return nil
	}
	return &s
}

func (g group) texts(name string, i int) []string {
	l, ok := g.fields[name].(*array.List)
	if !ok || l.IsNull(i) {
		return nil
	}
	from, to := l.ValueOffsets(i)
	out := make([]string, 0, to-from)
	for j := from; j < to; j++ {
		if s := textAt(l.ListValues(), int(j)); s != nil {
			out = append(out, *s)
		}
	}
	return out
}

func (g group) textMap(name string, i int) map[string]*string {
	m, ok := g.fields[name].(*array.Map)
	if !ok || m.IsNull(i) {
		return nil
	}
	from, to := m.ValueOffsets(i)
	out := make(map[string]*string, to-from)
	for j := from; j < to; j++ {
		if k := textAt(m.Keys(), int(j)); k != nil {
			out[*k] = textAt(m.Items(), int(j))
		}
	}
	return out
}
