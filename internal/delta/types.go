package delta

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
)

// kind is the shape of a type. The primitive kinds carry their name in name.
type kind uint8

const (
	kindPrimitive kind = iota
	kindDecimal
	kindArray
	kindMap
	kindStruct
)

// dataType is a parsed Delta type.
type dataType struct {
	kind             kind
	name             string // of a primitive
	precision, scale int32  // of a decimal
	elem             *dataType
	elemNullable     bool // containsNull, valueContainsNull
	key              *dataType
	fields           []field
	udt              json.RawMessage // how the schema calls a Spark class stored as this type; else nil
}

// field is a parsed struct field or column.
type field struct {
	name     string
	physical string // name in the files and in partitionValues; = name without column mapping
	id       int32  // Parquet field id under column mapping; 0 = none
	typ      *dataType
	nullable bool
	metadata map[string]any
}

// The primitive types we read and write, with their Arrow types. void is a
// column that is always null and absent from the files.
var primitives = map[string]arrow.DataType{
	"boolean":       arrow.FixedWidthTypes.Boolean,
	"byte":          arrow.PrimitiveTypes.Int8,
	"short":         arrow.PrimitiveTypes.Int16,
	"integer":       arrow.PrimitiveTypes.Int32,
	"long":          arrow.PrimitiveTypes.Int64,
	"float":         arrow.PrimitiveTypes.Float32,
	"double":        arrow.PrimitiveTypes.Float64,
	"string":        arrow.BinaryTypes.String,
	"binary":        arrow.BinaryTypes.Binary,
	"date":          arrow.FixedWidthTypes.Date32,
	"timestamp":     &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"},
	"timestamp_ntz": &arrow.TimestampType{Unit: arrow.Microsecond},
	"void":          arrow.Null,
}

// unreadable refuses a type whose values we cannot give. A table that has such a
// column opens and counts, and its other columns scan.
func unreadable(name string) *UnsupportedError { return &UnsupportedError{Feature: "type " + name} }

// parseType parses a type as it stands in a schema: a JSON string (quoted) or
// an object; or, without quotes, a bare primitive name.
func parseType(text string) (*dataType, error) {
	t := strings.TrimSpace(text)
	if t == "" {
		return nil, fmt.Errorf("empty type")
	}
	if t[0] == '{' || t[0] == '"' {
		return typeOfJSON([]byte(t), 0)
	}
	return primitiveType(t)
}

func primitiveType(name string) (*dataType, error) {
	if _, ok := primitives[name]; ok {
		return &dataType{kind: kindPrimitive, name: name}, nil
	}
	if name == "decimal" {
		name = "decimal(10,0)"
	}
	if rest, ok := strings.CutPrefix(name, "decimal("); ok {
		p, s, found := strings.Cut(strings.TrimSuffix(rest, ")"), ",")
		precision, err1 := strconv.ParseInt(strings.TrimSpace(p), 10, 32)
		scale, err2 := strconv.ParseInt(strings.TrimSpace(s), 10, 32)
		if !found || err1 != nil || err2 != nil || precision < 1 || precision > 38 || scale < 0 || scale > precision {
			return nil, fmt.Errorf("bad type %q", name)
		}
		return &dataType{kind: kindDecimal, precision: int32(precision), scale: int32(scale)}, nil
	}
	switch {
	case name == "null": // as Spark 2 called it
		name = "void"
	case strings.HasPrefix(name, "string collate "):
		name = "string"
	}
	return &dataType{kind: kindPrimitive, name: name}, nil
}

// maxNesting bounds recursion on hostile schemas.
const maxNesting = 100

type jsonType struct {
	Type              string          `json:"type"`
	ElementType       json.RawMessage `json:"elementType"`
	ContainsNull      *bool           `json:"containsNull"`
	KeyType           json.RawMessage `json:"keyType"`
	ValueType         json.RawMessage `json:"valueType"`
	ValueContainsNull *bool           `json:"valueContainsNull"`
	Fields            []jsonField     `json:"fields"`
	SQLType           json.RawMessage `json:"sqlType"`
}

type jsonField struct {
	Name     string          `json:"name"`
	Type     json.RawMessage `json:"type"`
	Nullable *bool           `json:"nullable"`
	Metadata json.RawMessage `json:"metadata"`
}

func typeOfJSON(b []byte, depth int) (*dataType, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("type nested deeper than %d", maxNesting)
	}
	b = bytes.TrimSpace(b)
	if len(b) > 0 && b[0] == '"' {
		var name string
		if err := json.Unmarshal(b, &name); err != nil {
			return nil, err
		}
		return primitiveType(name)
	}
	var j jsonType
	if err := json.Unmarshal(b, &j); err != nil {
		return nil, fmt.Errorf("parse type: %w", err)
	}
	orTrue := func(v *bool) bool { return v == nil || *v }
	switch j.Type {
	case "array":
		elem, err := typeOfJSON(j.ElementType, depth+1)
		if err != nil {
			return nil, err
		}
		return &dataType{kind: kindArray, elem: elem, elemNullable: orTrue(j.ContainsNull)}, nil
	case "map":
		key, err := typeOfJSON(j.KeyType, depth+1)
		if err != nil {
			return nil, err
		}
		value, err := typeOfJSON(j.ValueType, depth+1)
		if err != nil {
			return nil, err
		}
		return &dataType{kind: kindMap, key: key, elem: value, elemNullable: orTrue(j.ValueContainsNull)}, nil
	case "struct":
		t := &dataType{kind: kindStruct}
		for _, jf := range j.Fields {
			ft, err := typeOfJSON(jf.Type, depth+1)
			if err != nil {
				return nil, fmt.Errorf("field %s: %w", jf.Name, err)
			}
			meta, err := metadataOfJSON(jf.Metadata)
			if err != nil {
				return nil, fmt.Errorf("field %s: %w", jf.Name, err)
			}
			t.fields = append(t.fields, newField(jf.Name, ft, orTrue(jf.Nullable), meta))
		}
		return t, nil
	case "udt":
		t, err := typeOfJSON(j.SQLType, depth+1)
		if err != nil {
			return nil, err
		}
		t.udt = bytes.Clone(b)
		return t, nil
	}
	return nil, &UnsupportedError{Feature: "type " + j.Type}
}

// metadataOfJSON keeps numbers as json.Number, so that a schema written back
// loses no digit.
func metadataOfJSON(b json.RawMessage) (map[string]any, error) {
	if len(b) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("field metadata: %w", err)
	}
	return m, nil
}

func newField(name string, t *dataType, nullable bool, meta map[string]any) field {
	return field{name: name, physical: name, typ: t, nullable: nullable, metadata: meta}
}

// json writes the type as it stands in a schema.
func (t *dataType) json() json.RawMessage {
	if t.udt != nil {
		return t.udt
	}
	var v any
	switch t.kind {
	case kindPrimitive:
		v = t.name
	case kindDecimal:
		v = fmt.Sprintf("decimal(%d,%d)", t.precision, t.scale)
	case kindArray:
		v = map[string]any{"type": "array", "elementType": t.elem.json(), "containsNull": t.elemNullable}
	case kindMap:
		v = map[string]any{"type": "map", "keyType": t.key.json(), "valueType": t.elem.json(), "valueContainsNull": t.elemNullable}
	case kindStruct:
		fields := make([]map[string]any, 0, len(t.fields))
		for _, f := range t.fields {
			meta := f.metadata
			if meta == nil {
				meta = map[string]any{}
			}
			fields = append(fields, map[string]any{"name": f.name, "type": f.typ.json(), "nullable": f.nullable, "metadata": meta})
		}
		v = map[string]any{"type": "struct", "fields": fields}
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, bools and decoded JSON only
	}
	return b
}

// text is the type as Field.Type shows it.
func (t *dataType) text() string {
	b := t.json()
	if b[0] == '"' {
		var s string
		if err := json.Unmarshal(b, &s); err == nil {
			return s
		}
	}
	return string(b)
}

// uses tells whether the type is or contains the named primitive.
func (t *dataType) uses(name string) bool {
	switch t.kind {
	case kindPrimitive:
		return t.name == name
	case kindArray:
		return t.elem.uses(name)
	case kindMap:
		return t.key.uses(name) || t.elem.uses(name)
	case kindStruct:
		for _, f := range t.fields {
			if f.typ.uses(name) {
				return true
			}
		}
	}
	return false
}

// arrow gives the Arrow type of values of t.
func (t *dataType) arrow() (arrow.DataType, error) {
	switch t.kind {
	case kindDecimal:
		return &arrow.Decimal128Type{Precision: t.precision, Scale: t.scale}, nil
	case kindArray:
		elem, err := t.elem.arrow()
		if err != nil {
			return nil, err
		}
		return arrow.ListOfField(arrow.Field{Name: "element", Type: elem, Nullable: t.elemNullable}), nil
	case kindMap:
		key, err := t.key.arrow()
		if err != nil {
			return nil, err
		}
		value, err := t.elem.arrow()
		if err != nil {
			return nil, err
		}
		m := arrow.MapOf(key, value)
		m.SetItemNullable(t.elemNullable)
		return m, nil
	case kindStruct:
		fields := make([]arrow.Field, 0, len(t.fields))
		for _, f := range t.fields {
			ft, err := f.typ.arrow()
			if err != nil {
				return nil, err
			}
			fields = append(fields, arrow.Field{Name: f.name, Type: ft, Nullable: f.nullable})
		}
		return arrow.StructOf(fields...), nil
	}
	if a, ok := primitives[t.name]; ok {
		return a, nil
	}
	switch base, _, _ := strings.Cut(t.name, "("); base {
	case "variant":
		return arrow.BinaryTypes.String, nil // as JSON
	case "geometry", "geography":
		return arrow.BinaryTypes.Binary, nil // well-known binary, as the files hold it
	}
	return nil, unreadable(t.name)
}
