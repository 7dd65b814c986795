package delta

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/tarndb/tarn"
)

// Field is one column. Type is a Delta primitive type name ("long", "string",
// "timestamp", "decimal(10,2)", …) or, for nested types, its JSON text.
type Field struct {
	Name     string
	Type     string
	Nullable bool
	Metadata map[string]any // e.g. tarn.pgType; numbers read from a log are json.Number
}

// Schema is a table's columns in order.
type Schema struct{ Fields []Field }

// Arrow gives the Arrow schema of batches of s.
func (s *Schema) Arrow() (*arrow.Schema, error) {
	t, err := s.parse()
	if err != nil {
		return nil, err
	}
	return arrowSchema(t.fields)
}

func arrowSchema(fields []field) (*arrow.Schema, error) {
	out := make([]arrow.Field, 0, len(fields))
	for _, f := range fields {
		a, err := f.typ.arrow()
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", f.name, err)
		}
		out = append(out, arrow.Field{Name: f.name, Type: a, Nullable: f.nullable})
	}
	return arrow.NewSchema(out, nil), nil
}

// parse gives the columns as the fields of a struct type.
func (s *Schema) parse() (*dataType, error) {
	t := &dataType{kind: kindStruct}
	seen := map[string]bool{}
	for _, f := range s.Fields {
		if f.Name == "" {
			return nil, tarn.Invalid("a column without a name")
		}
		if folded := strings.ToLower(f.Name); seen[folded] {
			return nil, tarn.Invalid("two columns named %s (letter case does not tell columns apart)", f.Name)
		} else {
			seen[folded] = true
		}
		ft, err := parseType(f.Type)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", f.Name, err)
		}
		t.fields = append(t.fields, newField(f.Name, ft, f.Nullable, f.Metadata))
	}
	return t, nil
}

// schemaOf is the public face of a parsed schema.
func schemaOf(t *dataType) *Schema {
	s := &Schema{Fields: make([]Field, 0, len(t.fields))}
	for _, f := range t.fields {
		s.Fields = append(s.Fields, Field{Name: f.name, Type: f.typ.text(), Nullable: f.nullable, Metadata: f.metadata})
	}
	return s
}

// The metadata keys of column mapping.
const (
	metaPhysicalName = "delta.columnMapping.physicalName"
	metaColumnID     = "delta.columnMapping.id"
)

// mapping is how columns are found in data files.
type mapping string

const (
	mapNone mapping = "none"
	mapName mapping = "name"
	mapID   mapping = "id"
)

func mappingOf(properties map[string]string) (mapping, error) {
	switch m := mapping(strings.ToLower(properties["delta.columnMapping.mode"])); m {
	case "", mapNone:
		return mapNone, nil
	case mapName, mapID:
		return m, nil
	default:
		return "", &UnsupportedError{Feature: "columnMapping mode " + string(m)}
	}
}

// resolve fills in the physical names and ids of all fields under t.
func (t *dataType) resolve(m mapping) error {
	if m == mapNone {
		return nil
	}
	if t.elem != nil {
		if err := t.elem.resolve(m); err != nil {
			return err
		}
	}
	if t.key != nil {
		if err := t.key.resolve(m); err != nil {
			return err
		}
	}
	for i := range t.fields {
		f := &t.fields[i]
		if name, ok := f.metadata[metaPhysicalName].(string); ok {
			f.physical = name
		} else {
			return fmt.Errorf("column %s has no %s", f.name, metaPhysicalName)
		}
		id, ok := intOf(f.metadata[metaColumnID])
		if m == mapID && (!ok || id < 0 || id > math.MaxInt32) {
			return fmt.Errorf("column %s has no %s", f.name, metaColumnID)
		}
		f.id = int32(id)
		if err := f.typ.resolve(m); err != nil {
			return err
		}
	}
	return nil
}

// intOf reads a JSON number of field metadata.
func intOf(v any) (int64, bool) {
	switch n := v.(type) {
	case json.Number:
		i, err := strconv.ParseInt(n.String(), 10, 64)
		return i, err == nil
	case float64:
		return int64(n), n == math.Trunc(n)
	case int:
		return int64(n), true
	case int64:
		return n, true
	}
	return 0, false
}
