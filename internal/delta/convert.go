package delta

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// find gives the position of f among the fields of a file or of a batch; -1
// when it is not there.
type find func(f field, among []arrow.Field) int

// byName finds fields as the table calls them.
func byName(f field, among []arrow.Field) int {
	return indexOf(among, func(a arrow.Field) bool { return a.Name == f.name })
}

// byPhysicalName finds fields as data files call them. Delta tells columns
// apart without regard to letter case, and some writers use it.
func byPhysicalName(f field, among []arrow.Field) int {
	if i := indexOf(among, func(a arrow.Field) bool { return a.Name == f.physical }); i >= 0 {
		return i
	}
	return indexOf(among, func(a arrow.Field) bool { return strings.EqualFold(a.Name, f.physical) })
}

// byID finds fields by the Parquet field id of column mapping. Fields that the
// protocol adds to files have none and go by name.
func byID(f field, among []arrow.Field) int {
	if f.id == 0 {
		return byPhysicalName(f, among)
	}
	id := strconv.Itoa(int(f.id))
	return indexOf(among, func(a arrow.Field) bool {
		v, ok := a.Metadata.GetValue("PARQUET:field_id")
		return ok && v == id
	})
}

func indexOf(among []arrow.Field, is func(arrow.Field) bool) int {
	for i, a := range among {
		if is(a) {
			return i
		}
	}
	return -1
}

// nulls says what to do with a null where the type wants a value.
type nulls uint8

const (
	letNulls    nulls = iota // reading: the file is as it is
	refuseNulls              // writing
)

// converter turns arrays into the table's types.
type converter struct {
	by    find
	nulls nulls
}

// convert gives the values of a as type t: fields found and ordered as t has
// them, missing ones null, narrower types of older files widened. It never
// changes a value; one that does not fit is an error. The caller releases the
// result.
func (c converter) convert(ctx context.Context, a arrow.Array, t *dataType) (arrow.Array, error) {
	want, err := t.arrow()
	if err != nil {
		return nil, err
	}
	if a.DataType().ID() == arrow.NULL || want.ID() == arrow.NULL {
		return array.MakeArrayOfNull(memory.DefaultAllocator, want, a.Len()), nil
	}
	switch t.kind {
	case kindStruct:
		if s, ok := a.(*array.Struct); ok {
			return c.ofStruct(ctx, s, t, want)
		}
	case kindArray:
		if l, ok := a.(*array.List); ok {
			return c.ofList(ctx, l, t, want)
		}
	case kindMap:
		if m, ok := a.(*array.Map); ok {
			return c.ofMap(ctx, m, t, want)
		}
	default:
		if t.name == "variant" {
			return variantArray(a)
		}
		if arrow.TypeEqual(a.DataType(), want) {
			a.Retain()
			return a, nil
		}
		if e, ok := a.(array.ExtensionArray); ok {
			return c.convert(ctx, e.Storage(), t)
		}
		return convertPrimitive(ctx, a, want)
	}
	return nil, fmt.Errorf("%s is not %s", a.DataType(), t.text())
}

// validity copies the null bitmap of a to offset 0; nil when nothing is null.
func validity(a arrow.Array) *memory.Buffer {
	if a.NullN() == 0 {
		return nil
	}
	b := make([]byte, (a.Len()+7)/8)
	for i := range a.Len() {
		if a.IsValid(i) {
			b[i/8] |= 1 << (i % 8)
		}
	}
	return memory.NewBufferBytes(b)
}

func (c converter) ofStruct(ctx context.Context, s *array.Struct, t *dataType, want arrow.DataType) (arrow.Array, error) {
	have := s.DataType().(*arrow.StructType).Fields()
	found := 0
	children := make([]arrow.ArrayData, 0, len(t.fields))
	defer func() {
		for _, d := range children {
			d.Release()
		}
	}()
	for _, f := range t.fields {
		var child arrow.Array
		if i := c.by(f, have); i >= 0 {
			found++
			var err error
			if child, err = c.convert(ctx, s.Field(i), f.typ); err != nil {
				return nil, fmt.Errorf("field %s: %w", f.name, err)
			}
		} else {
			ft, err := f.typ.arrow()
			if err != nil {
				return nil, err
			}
			child = array.MakeArrayOfNull(memory.DefaultAllocator, ft, s.Len())
		}
		if !f.nullable && c.nulls == refuseNulls {
			for i := range s.Len() {
				if s.IsValid(i) && child.IsNull(i) {
					child.Release()
					return nil, fmt.Errorf("field %s: null in a field that must have a value", f.name)
				}
			}
		}
		child.Data().Retain()
		children = append(children, child.Data())
		child.Release()
	}
	if c.nulls == refuseNulls && found < len(have) {
		return nil, fmt.Errorf("%s has fields that %s has not", s.DataType(), t.text())
	}
	d := array.NewData(want, s.Len(), []*memory.Buffer{validity(s)}, children, s.NullN(), 0)
	defer d.Release()
	return array.NewStructData(d), nil
}

// offsets copies the value offsets of a list or map so that they begin at 0,
// and tells which part of the values they cover.
func offsets(a array.ListLike) (buf *memory.Buffer, from, to int64) {
	b := make([]int32, a.Len()+1)
	for i := range a.Len() {
		f, t := a.ValueOffsets(i)
		if i == 0 {
			from = f
		}
		to = t
		b[i], b[i+1] = int32(f-from), int32(t-from)
	}
	return memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(b)), from, to
}

func (c converter) ofList(ctx context.Context, l *array.List, t *dataType, want arrow.DataType) (arrow.Array, error) {
	off, from, to := offsets(l)
	part := array.NewSlice(l.ListValues(), from, to)
	defer part.Release()
	values, err := c.convert(ctx, part, t.elem)
	if err != nil {
		return nil, fmt.Errorf("element: %w", err)
	}
	defer values.Release()
	if !t.elemNullable && c.nulls == refuseNulls && values.NullN() > 0 {
		return nil, fmt.Errorf("element: null in an array whose elements must have a value")
	}
	d := array.NewData(want, l.Len(), []*memory.Buffer{validity(l), off}, []arrow.ArrayData{values.Data()}, l.NullN(), 0)
	defer d.Release()
	return array.NewListData(d), nil
}

func (c converter) ofMap(ctx context.Context, m *array.Map, t *dataType, want arrow.DataType) (arrow.Array, error) {
	off, from, to := offsets(m)
	keyPart := array.NewSlice(m.Keys(), from, to)
	defer keyPart.Release()
	itemPart := array.NewSlice(m.Items(), from, to)
	defer itemPart.Release()
	keys, err := c.convert(ctx, keyPart, t.key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	defer keys.Release()
	items, err := c.convert(ctx, itemPart, t.elem)
	if err != nil {
		return nil, fmt.Errorf("value: %w", err)
	}
	defer items.Release()
	if !t.elemNullable && c.nulls == refuseNulls && items.NullN() > 0 {
		return nil, fmt.Errorf("value: null in a map whose values must not be")
	}
	entryType := want.(*arrow.MapType).Elem()
	entries := array.NewData(entryType, keys.Len(), []*memory.Buffer{nil}, []arrow.ArrayData{keys.Data(), items.Data()}, 0, 0)
	defer entries.Release()
	d := array.NewData(want, m.Len(), []*memory.Buffer{validity(m), off}, []arrow.ArrayData{entries}, m.NullN(), 0)
	defer d.Release()
	return array.NewMapData(d), nil
}

// convertPrimitive widens a to want. Only conversions that keep every value
// are known; the checked cast refuses a value out of range.
func convertPrimitive(ctx context.Context, a arrow.Array, want arrow.DataType) (arrow.Array, error) {
	have := a.DataType()
	if d, ok := a.(*array.Dictionary); ok {
		plain, err := compute.CastArray(ctx, d, compute.SafeCastOptions(d.DataType().(*arrow.DictionaryType).ValueType))
		if err != nil {
			return nil, err
		}
		defer plain.Release()
		if arrow.TypeEqual(plain.DataType(), want) {
			plain.Retain()
			return plain, nil
		}
		return convertPrimitive(ctx, plain, want)
	}
	if ts, ok := want.(*arrow.TimestampType); ok {
		return convertTimestamp(a, ts)
	}
	if want.ID() == arrow.STRING || want.ID() == arrow.BINARY {
		return convertBytes(a, want)
	}
	if !widens(have, want) {
		return nil, fmt.Errorf("%s is not %s", have, want)
	}
	return compute.CastArray(ctx, a, compute.SafeCastOptions(want))
}

// widens tells whether every value of have has a value of want, or the checked
// cast says which has none. Parquet has no integers below 32 bits, so a byte
// may come back as one.
func widens(have, want arrow.DataType) bool {
	integer := arrow.IsInteger(have.ID())
	switch {
	case arrow.IsInteger(want.ID()):
		return integer
	case want.ID() == arrow.FLOAT64:
		return integer || have.ID() == arrow.FLOAT32
	case arrow.IsDecimal(want.ID()):
		return integer || arrow.IsDecimal(have.ID())
	}
	return false
}

// convertBytes copies bytes between the types of strings.
func convertBytes(a arrow.Array, want arrow.DataType) (arrow.Array, error) {
	var at func(i int) []byte
	switch a := a.(type) {
	case *array.Binary:
		at = a.Value
	case *array.LargeBinary:
		at = a.Value
	case *array.FixedSizeBinary:
		at = a.Value
	case *array.BinaryView:
		at = a.Value
	case *array.String:
		at = func(i int) []byte { return []byte(a.Value(i)) }
	case *array.LargeString:
		at = func(i int) []byte { return []byte(a.Value(i)) }
	case *array.StringView:
		at = func(i int) []byte { return []byte(a.Value(i)) }
	default:
		return nil, fmt.Errorf("%s is not %s", a.DataType(), want)
	}
	b := array.NewBinaryBuilder(memory.DefaultAllocator, want.(arrow.BinaryDataType))
	defer b.Release()
	b.Reserve(a.Len())
	for i := range a.Len() {
		if a.IsNull(i) {
			b.AppendNull()
		} else {
			b.Append(at(i))
		}
	}
	return b.NewArray(), nil
}

// convertTimestamp changes the unit to microseconds. Whether a wall clock or an
// instant is meant is the table's word, not the file's.
func convertTimestamp(a arrow.Array, want *arrow.TimestampType) (arrow.Array, error) {
	var at func(i int) int64
	times, per := int64(1), int64(1)
	switch a := a.(type) {
	case *array.Timestamp:
		at = func(i int) int64 { return int64(a.Value(i)) }
		switch a.DataType().(*arrow.TimestampType).Unit {
		case arrow.Second:
			times = 1e6
		case arrow.Millisecond:
			times = 1e3
		case arrow.Nanosecond:
			per = 1e3
		}
	case *array.Date32:
		at = func(i int) int64 { return int64(a.Value(i)) }
		times = 86400e6
	case *array.Int64:
		at = a.Value
	default:
		return nil, fmt.Errorf("%s is not %s", a.DataType(), want)
	}
	b := array.NewTimestampBuilder(memory.DefaultAllocator, want)
	defer b.Release()
	b.Reserve(a.Len())
	for i := range a.Len() {
		if a.IsNull(i) {
			b.AppendNull()
			continue
		}
		v := at(i)
		if v > math.MaxInt64/times || v < math.MinInt64/times {
			return nil, fmt.Errorf("timestamp %d of %s is out of range", v, a.DataType())
		}
		b.Append(arrow.Timestamp(floorDiv(v*times, per)))
	}
	return b.NewArray(), nil
}

// floorDiv rounds towards the past.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
