package delta

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/variant"
	"github.com/google/uuid"
)

// A variant is read as JSON text. Kinds that JSON has not become strings: times
// in ISO form, bytes in base 64, NaN and the infinities by name. The JSON value
// null and a row without a value differ: "null" and null.

// variantArray gives the JSON text of variants, which files hold as a struct of
// metadata, value and, shredded, typed_value.
func variantArray(a arrow.Array) (arrow.Array, error) {
	v, ok := a.(*extensions.VariantArray)
	if !ok {
		s, isStruct := a.(*array.Struct)
		if !isStruct {
			return nil, fmt.Errorf("%s is not a variant", a.DataType())
		}
		t, err := extensions.NewVariantType(s.DataType())
		if err != nil {
			return nil, err
		}
		v = array.NewExtensionArrayWithStorage(t, s).(*extensions.VariantArray)
		defer v.Release()
	}
	b := array.NewStringBuilder(memory.DefaultAllocator)
	defer b.Release()
	b.Reserve(v.Len())
	var text []byte
	for i := range v.Len() {
		if v.Storage().IsNull(i) {
			b.AppendNull()
			continue
		}
		one, err := v.Value(i)
		if err != nil {
			return nil, fmt.Errorf("variant: %w", err)
		}
		if text, err = appendVariant(text[:0], one, 0); err != nil {
			return nil, fmt.Errorf("variant: %w", err)
		}
		b.BinaryBuilder.Append(text)
	}
	return b.NewArray(), nil
}

func appendVariant(out []byte, v variant.Value, depth int) ([]byte, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("nested deeper than %d", maxNesting)
	}
	switch x := v.Value().(type) {
	case nil:
		return append(out, "null"...), nil
	case variant.ObjectValue:
		return appendVariantObject(out, x, depth)
	case variant.ArrayValue:
		out = append(out, '[')
		first := true
		for e := range x.Values() {
			if !first {
				out = append(out, ',')
			}
			first = false
			var err error
			if out, err = appendVariant(out, e, depth+1); err != nil {
				return nil, err
			}
		}
		return append(out, ']'), nil
	default:
		return appendVariantScalar(out, x, v.Type())
	}
}

func appendVariantObject(out []byte, o variant.ObjectValue, depth int) ([]byte, error) {
	out = append(out, '{')
	first := true
	for name, e := range o.Values() {
		if !first {
			out = append(out, ',')
		}
		first = false
		out = appendJSONString(out, name)
		out = append(out, ':')
		var err error
		if out, err = appendVariant(out, e, depth+1); err != nil {
			return nil, err
		}
	}
	return append(out, '}'), nil
}

func appendVariantScalar(out []byte, x any, t variant.Type) ([]byte, error) {
	switch x := x.(type) {
	case bool:
		return strconv.AppendBool(out, x), nil
	case int8:
		return strconv.AppendInt(out, int64(x), 10), nil
	case int16:
		return strconv.AppendInt(out, int64(x), 10), nil
	case int32:
		return strconv.AppendInt(out, int64(x), 10), nil
	case int64:
		return strconv.AppendInt(out, x, 10), nil
	case float32:
		return appendJSONFloat(out, float64(x), 32), nil
	case float64:
		return appendJSONFloat(out, x, 64), nil
	case string:
		return appendJSONString(out, x), nil
	case []byte:
		return appendJSONString(out, base64.StdEncoding.EncodeToString(x)), nil
	case uuid.UUID:
		return appendJSONString(out, x.String()), nil
	case arrow.Date32:
		return appendJSONString(out, x.FormattedString()), nil
	case arrow.Time64:
		return appendJSONString(out, time.UnixMicro(int64(x)).UTC().Format("15:04:05.999999")), nil
	case arrow.Timestamp:
		form := "2006-01-02T15:04:05.999999999"
		at := time.UnixMicro(int64(x)).UTC()
		if t == variant.TimestampNanos || t == variant.TimestampNanosNTZ {
			at = time.Unix(0, int64(x)).UTC()
		}
		if t == variant.TimestampMicros || t == variant.TimestampNanos {
			form += "Z"
		}
		return appendJSONString(out, at.Format(form)), nil
	case variant.DecimalValue[decimal.Decimal32]:
		return append(out, x.Value.(decimal.Decimal32).ToString(int32(x.Scale))...), nil
	case variant.DecimalValue[decimal.Decimal64]:
		return append(out, x.Value.(decimal.Decimal64).ToString(int32(x.Scale))...), nil
	case variant.DecimalValue[decimal.Decimal128]:
		return append(out, x.Value.(decimal.Decimal128).ToString(int32(x.Scale))...), nil
	}
	return nil, fmt.Errorf("a value of kind %T", x)
}

func appendJSONFloat(out []byte, f float64, bits int) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(append(append(out, '"'), floatText(f, bits)...), '"')
	}
	return strconv.AppendFloat(out, f, 'g', -1, bits)
}

// appendJSONString writes <, > and & as they are.
func appendJSONString(out []byte, s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err) // a string always encodes
	}
	return append(out, bytes.TrimRight(b.Bytes(), "\n")...)
}
