package delta

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/arrow/scalar"
)

// The forms of times in partition values. The first is what we write; readers
// must take the others too. A time without a zone is UTC.
var (
	instantForms = []string{"2006-01-02T15:04:05.999999Z07:00", "2006-01-02 15:04:05.999999Z07:00", "2006-01-02 15:04:05.999999", "2006-01-02T15:04:05.999999", "2006-01-02"}
	clockForms   = []string{"2006-01-02 15:04:05.999999", "2006-01-02T15:04:05.999999", "2006-01-02"}
)

// partitionArray repeats a partition value n times as type t. The protocol has
// one text for null and for the empty string.
func partitionArray(value *string, t *dataType, n int) (arrow.Array, error) {
	at, err := t.arrow()
	if err != nil {
		return nil, err
	}
	if value == nil || *value == "" {
		return array.MakeArrayOfNull(memory.DefaultAllocator, at, n), nil
	}
	sc, err := partitionScalar(*value, t, at)
	if err != nil {
		return nil, fmt.Errorf("partition value %q is not %s: %w", *value, t.text(), err)
	}
	return scalar.MakeArrayFromScalar(sc, n, memory.DefaultAllocator)
}

func partitionScalar(v string, t *dataType, at arrow.DataType) (scalar.Scalar, error) {
	if t.kind == kindDecimal {
		d, err := decimal128.FromString(v, t.precision, t.scale)
		return scalar.NewDecimal128Scalar(d, at), err
	}
	switch t.name {
	case "string":
		return scalar.NewStringScalar(v), nil
	case "binary":
		return scalar.NewBinaryScalar(memory.NewBufferBytes([]byte(v)), at), nil
	case "boolean":
		b, err := strconv.ParseBool(v)
		return scalar.NewBooleanScalar(b), err
	case "byte":
		i, err := strconv.ParseInt(v, 10, 8)
		return scalar.NewInt8Scalar(int8(i)), err
	case "short":
		i, err := strconv.ParseInt(v, 10, 16)
		return scalar.NewInt16Scalar(int16(i)), err
	case "integer":
		i, err := strconv.ParseInt(v, 10, 32)
		return scalar.NewInt32Scalar(int32(i)), err
	case "long":
		i, err := strconv.ParseInt(v, 10, 64)
		return scalar.NewInt64Scalar(i), err
	case "float":
		f, err := strconv.ParseFloat(v, 32)
		return scalar.NewFloat32Scalar(float32(f)), err
	case "double":
		f, err := strconv.ParseFloat(v, 64)
		return scalar.NewFloat64Scalar(f), err
	case "date":
		d, err := parseTime(v, []string{"2006-01-02"})
		return scalar.NewDate32Scalar(arrow.Date32(floorDiv(d.Unix(), 86400))), err
	case "timestamp":
		ts, err := parseTime(v, instantForms)
		return scalar.NewTimestampScalar(arrow.Timestamp(ts.UnixMicro()), at), err
	case "timestamp_ntz":
		ts, err := parseTime(v, clockForms)
		return scalar.NewTimestampScalar(arrow.Timestamp(ts.UnixMicro()), at), err
	}
	return nil, fmt.Errorf("a partition column cannot have this type")
}

func parseTime(v string, forms []string) (time.Time, error) {
	var first error
	for _, form := range forms {
		t, err := time.Parse(form, v)
		if err == nil {
			return t, nil
		}
		if first == nil {
			first = err
		}
	}
	return time.Time{}, first
}

// partitionText writes the value of row i as the log holds it; nil for null.
func partitionText(a arrow.Array, i int, t *dataType) (*string, error) {
	if a.IsNull(i) {
		return nil, nil
	}
	var s string
	switch a := a.(type) {
	case *array.String:
		if s = string([]byte(a.Value(i))); s == "" {
			return nil, nil // the log cannot tell "" from null; see Append
		}
		if !utf8.ValidString(s) {
			return nil, fmt.Errorf("partition value %q is not UTF-8", s)
		}
	case *array.Boolean:
		s = strconv.FormatBool(a.Value(i))
	case *array.Int8:
		s = strconv.Itoa(int(a.Value(i)))
	case *array.Int16:
		s = strconv.Itoa(int(a.Value(i)))
	case *array.Int32:
		s = strconv.Itoa(int(a.Value(i)))
	case *array.Int64:
		s = strconv.FormatInt(a.Value(i), 10)
	case *array.Float32:
		s = floatText(float64(a.Value(i)), 32)
	case *array.Float64:
		s = floatText(a.Value(i), 64)
	case *array.Decimal128:
		s = a.Value(i).ToString(t.scale)
	case *array.Date32:
		d := time.Unix(int64(a.Value(i))*86400, 0).UTC()
		if !commonYear(d) {
			return nil, fmt.Errorf("partition value %s is outside the years 1 to 9999", d)
		}
		s = d.Format("2006-01-02")
	case *array.Timestamp:
		ts := time.UnixMicro(int64(a.Value(i))).UTC()
		if !commonYear(ts) {
			return nil, fmt.Errorf("partition value %s is outside the years 1 to 9999", ts)
		}
		if t.name == "timestamp_ntz" {
			s = ts.Format("2006-01-02 15:04:05.000000")
		} else {
			s = ts.Format("2006-01-02T15:04:05.000000Z")
		}
	default:
		return nil, fmt.Errorf("cannot partition by %s", a.DataType())
	}
	return &s, nil
}

func commonYear(t time.Time) bool { return t.Year() >= 1 && t.Year() <= 9999 }

// floatText is how the JVM writes the values Go writes otherwise.
func floatText(f float64, bits int) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return strconv.FormatFloat(f, 'g', -1, bits)
}

// maxFolderName keeps a folder's name below the 255 bytes of file systems.
const maxFolderName = 200

// partitionFolder names the folder of a partition as Hive does: col=value/…/.
// It is for people only; readers take the values from the log.
func partitionFolder(columns []string, values []*string) string {
	var b strings.Builder
	for i, c := range columns {
		v := "__HIVE_DEFAULT_PARTITION__"
		if values[i] != nil {
			v = hiveEscape(*values[i])
		}
		name := hiveEscape(c) + "=" + v
		if len(name) > maxFolderName {
			name = shorten(name)
		}
		b.WriteString(name)
		b.WriteByte('/')
	}
	return b.String()
}

// shorten cuts a name where a character begins.
func shorten(name string) string {
	at := maxFolderName
	for at > 0 && !utf8.RuneStart(name[at]) {
		at--
	}
	return name[:at]
}

// hiveEscape escapes what Hive and Spark do in folder names.
func hiveEscape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c < 0x20 || c == 0x7f || strings.IndexByte("\"#%'*/:=?\\{[]^<>|", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
