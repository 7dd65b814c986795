package warehouse

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/delta"
)

// text reads a text.
func (c *cursor) text() (string, error) {
	if c.next().kind != lexString {
		return "", c.want("a text")
	}
	s := c.next().value()
	c.i++
	return s, nil
}

// properties reads ('key' = 'value', …).
func (c *cursor) properties() (map[string]string, error) {
	out := map[string]string{}
	for more := c.next().sign("("); ; more = c.next().sign(",") {
		if !more {
			if len(out) == 0 || !c.next().sign(")") {
				return nil, c.want("properties, as in ('key' = 'value')")
			}
			c.i++
			return out, nil
		}
		c.i++
		key := c.next().value()
		if c.next().kind == lexString {
			c.i++
		} else if p, err := c.parts(); err != nil {
			return nil, err
		} else {
			key = strings.Join(p, ".")
		}
		if c.next().sign("=") {
			c.i++
		}
		switch c.next().kind {
		case lexString, lexNumber, lexWord:
		default:
			return nil, c.want("a value")
		}
		out[key] = c.next().value()
		c.i++
	}
}

// fields reads the columns of a new table: (name type [NOT NULL] [COMMENT '…'], …).
func (c *cursor) fields() ([]delta.Field, error) {
	all, err := c.columns("(", ")")
	var out []delta.Field
	for _, f := range all {
		typ, ok := f.Type.(string)
		if !ok {
			b, err := json.Marshal(f.Type)
			if err != nil {
				return nil, err
			}
			typ = string(b)
		}
		out = append(out, delta.Field{Name: f.Name, Type: typ, Nullable: f.Nullable, Metadata: f.Metadata})
	}
	return out, err
}

// column is a field as Delta's JSON has it.
type column struct {
	Name     string         `json:"name"`
	Type     any            `json:"type"` // its name, or an object
	Nullable bool           `json:"nullable"`
	Metadata map[string]any `json:"metadata"`
}

// columns reads fields of a table or a struct between two signs.
func (c *cursor) columns(open, end string) (out []column, err error) {
	for more := c.next().sign(open); ; more = c.next().sign(",") {
		if !more {
			if len(out) == 0 || !c.next().sign(end) {
				return nil, c.want("columns, as in " + open + "id BIGINT, name STRING" + end + ",")
			}
			c.i++
			return out, nil
		}
		c.i++
		if w := strings.ToLower(c.next().text); !c.next().name() || c.next().kind == lexWord && slices.Contains([]string{"constraint", "primary", "foreign", "check", "unique"}, w) {
			return nil, c.want("a column (constraints are not known)")
		}
		f := column{Name: c.next().value(), Nullable: true, Metadata: map[string]any{}}
		if c.i++; c.next().sign(":") {
			c.i++
		}
		if f.Type, err = c.typ(0); err != nil {
			return nil, err
		}
		for !c.next().sign(",") && !c.next().sign(end) {
			switch {
			case c.take("not", "null"):
				f.Nullable = false
			case c.take("comment"):
				if f.Metadata["comment"], err = c.text(); err != nil {
					return nil, err
				}
			default:
				return nil, c.want("NOT NULL, COMMENT or " + end + " (defaults, generated columns and constraints are not known)")
			}
		}
		out = append(out, f)
	}
}

// sqlTypes are Delta's names of the types of SQL.
var sqlTypes = map[string]string{
	"boolean": "boolean", "tinyint": "byte", "byte": "byte", "smallint": "short", "short": "short", "int": "integer", "integer": "integer",
	"bigint": "long", "long": "long", "float": "float", "real": "float", "double": "double", "string": "string", "varchar": "string", "text": "string",
	"binary": "binary", "date": "date", "timestamp": "timestamp", "timestamp_ltz": "timestamp", "timestamp_ntz": "timestamp_ntz",
}

// typ reads a type.
func (c *cursor) typ(depth int) (any, error) {
	if depth > 64 {
		return nil, tarn.Invalid("a type is nested deeper than 64")
	}
	word, from := strings.ToLower(c.next().text), c.i
	if c.next().kind != lexWord {
		return nil, c.want("a type")
	}
	c.i++
	inner := func(sign string) (t any, err error) {
		if !c.next().sign(sign) {
			return nil, c.want(sign)
		}
		c.i++
		return c.typ(depth + 1)
	}
	closed := func(t any, err error) (any, error) {
		if err == nil && !c.next().sign(">") {
			err = c.want(">")
		}
		c.i++
		return t, err
	}
	switch word {
	case "decimal", "dec", "numeric":
		size := []string{"10", "0"}
		if c.next().sign("(") {
			for i := 0; i == 0 || i == 1 && c.next().sign(","); i++ {
				if c.i++; c.next().kind != lexNumber {
					return nil, c.want("a number of digits")
				}
				size[i] = c.next().text
				c.i++
			}
			if !c.next().sign(")") {
				return nil, c.want(")")
			}
			c.i++
		}
		return "decimal(" + strings.Join(size, ",") + ")", nil
	case "array":
		elem, err := inner("<")
		return closed(map[string]any{"type": "array", "elementType": elem, "containsNull": true}, err)
	case "map":
		key, err := inner("<")
		if err != nil {
			return nil, err
		}
		value, err := inner(",")
		return closed(map[string]any{"type": "map", "keyType": key, "valueType": value, "valueContainsNull": true}, err)
	case "struct":
		fields, err := c.columns("<", ">")
		return map[string]any{"type": "struct", "fields": fields}, err
	}
	if t := sqlTypes[word]; t != "" && !c.next().sign("(") {
		return t, nil
	}
	c.i = from
	return nil, c.want("a type that tables have, such as BIGINT, DECIMAL(10,2), STRING, TIMESTAMP or ARRAY<INT>,")
}

// schemaOf gives the columns of a new table for those of a result.
func schemaOf(s *arrow.Schema) (delta.Schema, error) {
	var out delta.Schema
	for _, f := range s.Fields() {
		t, err := deltaType(f.Type)
		if err != nil {
			return out, fmt.Errorf("column %s: %w", f.Name, err)
		}
		out.Fields = append(out.Fields, delta.Field{Name: f.Name, Type: t, Nullable: true})
	}
	return out, nil
}

// deltaType is a result's type as a table has it; nested ones as JSON.
func deltaType(t arrow.DataType) (string, error) {
	b, err := deltaJSON(t)
	if err != nil {
		return "", err
	}
	var name string
	if json.Unmarshal(b, &name) == nil {
		return name, nil
	}
	return string(b), nil
}

func deltaJSON(t arrow.DataType) (json.RawMessage, error) {
	name := func(s string) (json.RawMessage, error) { return json.Marshal(s) }
	switch t := t.(type) {
	case *arrow.BooleanType:
		return name("boolean")
	case *arrow.Int8Type:
		return name("byte")
	case *arrow.Int16Type:
		return name("short")
	case *arrow.Int32Type:
		return name("integer")
	case *arrow.Int64Type:
		return name("long")
	case *arrow.Float32Type:
		return name("float")
	case *arrow.Float64Type:
		return name("double")
	case *arrow.StringType:
		return name("string")
	case *arrow.BinaryType:
		return name("binary")
	case *arrow.Date32Type:
		return name("date")
	case *arrow.Decimal128Type:
		return name(fmt.Sprintf("decimal(%d,%d)", t.Precision, t.Scale))
	case *arrow.TimestampType:
		if t.Unit != arrow.Microsecond {
			break
		}
		if t.TimeZone == "" {
			return name("timestamp_ntz")
		}
		return name("timestamp")
	case *arrow.MapType:
		key, err := deltaJSON(t.KeyType())
		if err != nil {
			return nil, err
		}
		value, err := deltaJSON(t.ItemType())
		if err != nil {
			return nil, err
		}
		return json.Marshal(map[string]any{"type": "map", "keyType": key, "valueType": value, "valueContainsNull": true})
	case *arrow.ListType:
		elem, err := deltaJSON(t.Elem())
		if err != nil {
			return nil, err
		}
		return json.Marshal(map[string]any{"type": "array", "elementType": elem, "containsNull": true})
	case *arrow.StructType:
		var fields []any
		for _, f := range t.Fields() {
			typ, err := deltaJSON(f.Type)
			if err != nil {
				return nil, err
			}
			fields = append(fields, map[string]any{"name": f.Name, "type": typ, "nullable": true, "metadata": map[string]any{}})
		}
		return json.Marshal(map[string]any{"type": "struct", "fields": fields})
	}
	return nil, tarn.Invalid("a table cannot have the type %s", t).WithHint("CAST it to a type that Delta has, such as BIGINT, DECIMAL or STRING")
}
