package delta

import (
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// physicalSchema gives fields as data files under column mapping hold them: by
// physical name, with the field id.
func physicalSchema(fields []field) (*arrow.Schema, error) {
	out := make([]arrow.Field, 0, len(fields))
	for _, f := range fields {
		p, err := f.physicalField()
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return arrow.NewSchema(out, nil), nil
}

func (f field) physicalField() (arrow.Field, error) {
	t, err := f.typ.physicalArrow()
	if err != nil {
		return arrow.Field{}, err
	}
	out := arrow.Field{Name: f.physical, Type: t, Nullable: f.nullable}
	if f.id > 0 {
		out.Metadata = arrow.NewMetadata([]string{"PARQUET:field_id"}, []string{strconv.Itoa(int(f.id))})
	}
	return out, nil
}

func (t *dataType) physicalArrow() (arrow.DataType, error) {
	switch t.kind {
	case kindStruct:
		s, err := physicalSchema(t.fields)
		if err != nil {
			return nil, err
		}
		return arrow.StructOf(s.Fields()...), nil
	case kindArray:
		elem, err := t.elem.physicalArrow()
		if err != nil {
			return nil, err
		}
		return arrow.ListOfField(arrow.Field{Name: "element", Type: elem, Nullable: t.elemNullable}), nil
	case kindMap:
		key, err := t.key.physicalArrow()
		if err != nil {
			return nil, err
		}
		value, err := t.elem.physicalArrow()
		if err != nil {
			return nil, err
		}
		m := arrow.MapOf(key, value)
		m.SetItemNullable(t.elemNullable)
		return m, nil
	}
	return t.arrow()
}

// asPhysical gives the same values under the physical names.
func asPhysical(rec arrow.RecordBatch, schema *arrow.Schema) arrow.RecordBatch {
	columns := make([]arrow.Array, 0, rec.NumCols())
	for i, c := range rec.Columns() {
		d := retype(c.Data(), schema.Field(i).Type)
		columns = append(columns, array.MakeFromData(d))
		d.Release()
	}
	defer release(columns)
	return array.NewRecordBatch(schema, columns, rec.NumRows())
}

// retype gives the same data another type of the same layout.
func retype(d arrow.ArrayData, t arrow.DataType) *array.Data {
	var below []arrow.DataType
	switch t := t.(type) {
	case *arrow.StructType:
		for _, f := range t.Fields() {
			below = append(below, f.Type)
		}
	case *arrow.ListType:
		below = []arrow.DataType{t.Elem()}
	case *arrow.MapType:
		below = []arrow.DataType{t.Elem()}
	}
	children := make([]arrow.ArrayData, 0, len(d.Children()))
	for i, c := range d.Children() {
		children = append(children, retype(c, below[i]))
	}
	out := array.NewData(t, d.Len(), d.Buffers(), children, d.NullN(), d.Offset())
	for _, c := range children {
		c.Release()
	}
	return out
}
