package warehouse

import (
	"fmt"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
)

// TypeText names the type of a result's column as Spark's SQL does.
func TypeText(t arrow.DataType) string {
	switch t := t.(type) {
	case *arrow.NullType:
		return "VOID"
	case *arrow.BooleanType:
		return "BOOLEAN"
	case *arrow.Int8Type:
		return "TINYINT"
	case *arrow.Int16Type, *arrow.Uint8Type:
		return "SMALLINT"
	case *arrow.Int32Type, *arrow.Uint16Type:
		return "INT"
	case *arrow.Int64Type, *arrow.Uint32Type:
		return "BIGINT"
	case *arrow.Uint64Type:
		return "DECIMAL(20,0)"
	case *arrow.Float32Type:
		return "FLOAT"
	case *arrow.Float64Type:
		return "DOUBLE"
	case *arrow.BinaryType, *arrow.LargeBinaryType, *arrow.FixedSizeBinaryType:
		return "BINARY"
	case *arrow.Date32Type:
		return "DATE"
	case *arrow.TimestampType:
		if t.TimeZone == "" {
			return "TIMESTAMP_NTZ"
		}
		return "TIMESTAMP"
	case *arrow.Decimal128Type:
		return fmt.Sprintf("DECIMAL(%d,%d)", t.Precision, t.Scale)
	case *arrow.MonthDayNanoIntervalType:
		return "INTERVAL"
	case *arrow.DictionaryType:
		return TypeText(t.ValueType)
	case *arrow.MapType:
		return "MAP<" + TypeText(t.KeyType()) + ", " + TypeText(t.ItemType()) + ">"
	case *arrow.StructType:
		var fields []string
		for _, f := range t.Fields() {
			fields = append(fields, f.Name+": "+TypeText(f.Type))
		}
		return "STRUCT<" + strings.Join(fields, ", ") + ">"
	case arrow.ListLikeType:
		return "ARRAY<" + TypeText(t.Elem()) + ">"
	}
	return "STRING"
}

// TypeName is the published name of a type, without its parameters.
func TypeName(t arrow.DataType) string {
	switch text, _, _ := strings.Cut(strings.ReplaceAll(TypeText(t), "<", "("), "("); text {
	case "VOID":
		return "NULL"
	case "TINYINT":
		return "BYTE"
	case "SMALLINT":
		return "SHORT"
	case "BIGINT":
		return "LONG"
	case "TIMESTAMP_NTZ":
		return "TIMESTAMP"
	default:
		return text
	}
}
