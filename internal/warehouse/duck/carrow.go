package duck

import (
	"fmt"
	"strconv"
	"strings"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/ebitengine/purego"
)

// cSchema is ArrowSchema of Arrow's C data interface.
type cSchema struct {
	format, name, metadata uintptr
	flags, children        int64
	child, dictionary      uintptr
	release, private       uintptr
}

// cArray is ArrowArray.
type cArray struct {
	length, nulls, offset, buffers, children int64
	buffer, child, dictionary                uintptr
	release, private                         uintptr
}

const flagNullable = 2

func (s *cSchema) free() {
	if s.release != 0 {
		purego.SyscallN(s.release, uintptr(unsafe.Pointer(s)))
	}
}

func (a *cArray) free() {
	if a.release != 0 {
		purego.SyscallN(a.release, uintptr(unsafe.Pointer(a)))
	}
}

// pointers reads n pointers of C's memory.
func pointers(p uintptr, n int64) []uintptr {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*uintptr)(at(p, 0)), n)
}

func (s *cSchema) field() (arrow.Field, error) {
	f := arrow.Field{Name: goString(s.name), Nullable: s.flags&flagNullable != 0}
	var below []arrow.Field
	for _, c := range pointers(s.child, s.children) {
		sub, err := (*cSchema)(at(c, 0)).field()
		if err != nil {
			return f, err
		}
		below = append(below, sub)
	}
	var err error
	if f.Type, err = typeOf(goString(s.format), below); err != nil {
		return f, fmt.Errorf("column %s: %w", f.Name, err)
	}
	if s.dictionary != 0 {
		values, err := (*cSchema)(at(s.dictionary, 0)).field()
		if err != nil {
			return f, err
		}
		f.Type = &arrow.DictionaryType{IndexType: f.Type, ValueType: values.Type}
	}
	return f, nil
}

// simple are the types whose format says all.
func simple(format string) arrow.DataType {
	switch format {
	case "n":
		return arrow.Null
	case "b":
		return arrow.FixedWidthTypes.Boolean
	case "c":
		return arrow.PrimitiveTypes.Int8
	case "C":
		return arrow.PrimitiveTypes.Uint8
	case "s":
		return arrow.PrimitiveTypes.Int16
	case "S":
		return arrow.PrimitiveTypes.Uint16
	case "i":
		return arrow.PrimitiveTypes.Int32
	case "I":
		return arrow.PrimitiveTypes.Uint32
	case "l":
		return arrow.PrimitiveTypes.Int64
	case "L":
		return arrow.PrimitiveTypes.Uint64
	case "f":
		return arrow.PrimitiveTypes.Float32
	case "g":
		return arrow.PrimitiveTypes.Float64
	case "z":
		return arrow.BinaryTypes.Binary
	case "Z":
		return arrow.BinaryTypes.LargeBinary
	case "u":
		return arrow.BinaryTypes.String
	case "U":
		return arrow.BinaryTypes.LargeString
	case "tdD":
		return arrow.FixedWidthTypes.Date32
	case "ttu":
		return arrow.FixedWidthTypes.Time64us
	case "ttn":
		return arrow.FixedWidthTypes.Time64ns
	case "tin":
		return arrow.FixedWidthTypes.MonthDayNanoInterval
	}
	return nil
}

func typeOf(format string, below []arrow.Field) (arrow.DataType, error) {
	if t := simple(format); t != nil {
		return t, nil
	}
	head, rest, _ := strings.Cut(format, ":")
	switch head {
	case "d":
		var precision, scale int32
		bits := 128
		n, _ := fmt.Sscanf(rest, "%d,%d,%d", &precision, &scale, &bits)
		if n >= 2 && bits == 128 {
			return &arrow.Decimal128Type{Precision: precision, Scale: scale}, nil
		}
	case "w":
		n, err := strconv.Atoi(rest)
		return &arrow.FixedSizeBinaryType{ByteWidth: n}, err
	case "tss", "tsm", "tsu", "tsn":
		unit := map[string]arrow.TimeUnit{"tss": arrow.Second, "tsm": arrow.Millisecond, "tsu": arrow.Microsecond, "tsn": arrow.Nanosecond}[head]
		return &arrow.TimestampType{Unit: unit, TimeZone: rest}, nil
	case "+s":
		return arrow.StructOf(below...), nil
	case "+l":
		if len(below) == 1 {
			return arrow.ListOfField(below[0]), nil
		}
	case "+w":
		if n, err := strconv.ParseInt(rest, 10, 32); err == nil && len(below) == 1 {
			return arrow.FixedSizeListOfField(int32(n), below[0]), nil
		}
	case "+m":
		if len(below) == 1 {
			if kv, ok := below[0].Type.(*arrow.StructType); ok && kv.NumFields() == 2 {
				m := arrow.MapOf(kv.Field(0).Type, kv.Field(1).Type)
				m.SetItemNullable(kv.Field(1).Nullable)
				return m, nil
			}
		}
	}
	return nil, fmt.Errorf("a type of DuckDB that has no form here (%s): cast it to VARCHAR", format)
}

// batch copies the columns into Go's memory.
func (a *cArray) batch(schema *arrow.Schema) (arrow.RecordBatch, error) {
	children := pointers(a.child, a.children)
	if len(children) != schema.NumFields() {
		return nil, fmt.Errorf("DuckDB gave %d columns instead of %d", len(children), schema.NumFields())
	}
	columns := make([]arrow.Array, 0, len(children))
	defer func() {
		for _, c := range columns {
			c.Release()
		}
	}()
	for i, c := range children {
		d, err := (*cArray)(at(c, 0)).data(schema.Field(i).Type)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", schema.Field(i).Name, err)
		}
		columns = append(columns, array.MakeFromData(d))
		d.Release()
	}
	return array.NewRecordBatch(schema, columns, a.length), nil
}

// data copies one array. Buffers begin where the array does, so the offset stays.
func (a *cArray) data(t arrow.DataType) (arrow.ArrayData, error) {
	end := a.length + a.offset
	raw := pointers(a.buffer, a.buffers)
	copied := func(i int, n int64) *memory.Buffer {
		if i >= len(raw) || raw[i] == 0 || n == 0 {
			return memory.NewBufferBytes(nil)
		}
		return memory.NewBufferBytes(append([]byte(nil), unsafe.Slice((*byte)(at(raw[i], 0)), n)...))
	}
	var validity *memory.Buffer
	if len(raw) > 0 && raw[0] != 0 && a.nulls != 0 {
		validity = copied(0, (end+7)/8)
	}
	var below []arrow.ArrayData
	defer func() {
		for _, b := range below {
			b.Release()
		}
	}()
	child := func(i int, t arrow.DataType) error {
		c, err := (*cArray)(at(pointers(a.child, a.children)[i], 0)).data(t)
		if err == nil {
			below = append(below, c)
		}
		return err
	}
	buffers := []*memory.Buffer{validity}
	switch t := t.(type) {
	case *arrow.NullType:
		buffers = []*memory.Buffer{nil}
	case *arrow.DictionaryType:
		index := *a
		index.dictionary = 0
		d, err := index.data(t.IndexType)
		if err != nil {
			return nil, err
		}
		defer d.Release()
		values, err := (*cArray)(at(a.dictionary, 0)).data(t.ValueType)
		if err != nil {
			return nil, err
		}
		defer values.Release()
		return array.NewDataWithDictionary(t, int(a.length), d.Buffers(), int(a.nulls), int(a.offset), values.(*array.Data)), nil
	case *arrow.StructType:
		for i, f := range t.Fields() {
			if err := child(i, f.Type); err != nil {
				return nil, err
			}
		}
	case *arrow.FixedSizeListType:
		if err := child(0, t.Elem()); err != nil {
			return nil, err
		}
	case *arrow.ListType, *arrow.MapType:
		buffers = append(buffers, copied(1, 4*(end+1)))
		if err := child(0, t.(arrow.ListLikeType).Elem()); err != nil {
			return nil, err
		}
	case arrow.BinaryDataType:
		size, last := int64(4), int64(0)
		if len(raw) > 1 && raw[1] != 0 {
			if t.Layout().Buffers[1].ByteWidth == 8 {
				size, last = 8, *(*int64)(at(raw[1], int(8*end)))
			} else {
				last = int64(*(*int32)(at(raw[1], int(4*end))))
			}
		}
		buffers = append(buffers, copied(1, size*(end+1)), copied(2, last))
	case *arrow.BooleanType:
		buffers = append(buffers, copied(1, (end+7)/8))
	case arrow.FixedWidthDataType:
		buffers = append(buffers, copied(1, end*int64(t.Bytes())))
	default:
		return nil, fmt.Errorf("no form for %s", t)
	}
	return array.NewData(t, int(a.length), buffers, below, int(a.nulls), int(a.offset)), nil
}
