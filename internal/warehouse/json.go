package warehouse

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// AppendRows adds the rows of a batch to the text of a JSON array: each is an
// array of texts and nulls. b ends with [ or with a row.
func AppendRows(b []byte, rec arrow.RecordBatch) []byte {
	for i := range int(rec.NumRows()) {
		if b[len(b)-1] != '[' {
			b = append(b, ',')
		}
		b = append(b, '[')
		for j, c := range rec.Columns() {
			if j > 0 {
				b = append(b, ',')
			}
			if c.IsNull(i) || c.DataType().ID() == arrow.NULL {
				b = append(b, "null"...)
				continue
			}
			quoted, err := json.Marshal(Text(c, i))
			if err != nil {
				quoted = []byte("null") // strings can always be written
			}
			b = append(b, quoted...)
		}
		b = append(b, ']')
	}
	return b
}

// Text writes one value, which is not null, as published results do.
func Text(c arrow.Array, i int) string {
	switch c := c.(type) {
	case *array.String:
		return c.Value(i)
	case *array.Binary:
		return base64.StdEncoding.EncodeToString(c.Value(i))
	case *array.Float32:
		return floatText(float64(c.Value(i)), 32)
	case *array.Float64:
		return floatText(c.Value(i), 64)
	case *array.Decimal128:
		return c.Value(i).ToString(c.DataType().(*arrow.Decimal128Type).Scale)
	case *array.Date32:
		return c.Value(i).ToTime().Format("2006-01-02")
	case *array.Timestamp:
		t := c.DataType().(*arrow.TimestampType)
		v := c.Value(i).ToTime(t.Unit)
		form := "2006-01-02T15:04:05.000"
		if v.Nanosecond()%int(time.Millisecond) != 0 {
			form = "2006-01-02T15:04:05.000000"
		}
		if t.TimeZone != "" {
			form += "Z"
		}
		return v.UTC().Format(form)
	case *array.Dictionary:
		return Text(c.Dictionary(), c.GetValueIndex(i))
	case *array.List, *array.Struct, *array.Map, *array.FixedSizeList:
		if b, err := json.Marshal(c.GetOneForMarshal(i)); err == nil {
			return string(b)
		}
	}
	return c.ValueStr(i)
}

func floatText(f float64, bits int) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	case f != 0 && (math.Abs(f) < 1e-3 || math.Abs(f) >= 1e7):
		return strconv.FormatFloat(f, 'E', -1, bits)
	}
	s := strconv.FormatFloat(f, 'f', -1, bits)
	for _, r := range s {
		if r == '.' {
			return s
		}
	}
	return s + ".0"
}
