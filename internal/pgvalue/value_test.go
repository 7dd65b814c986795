package pgvalue

import (
	"bytes"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// Every text form is read exactly, or becomes NULL and says so.
func TestAppend(t *testing.T) {
	us, utc := arrow.FixedWidthTypes.Timestamp_us, &arrow.TimestampType{Unit: arrow.Microsecond}
	dec := &arrow.Decimal128Type{Precision: 10, Scale: 2}
	wide := &arrow.Decimal128Type{Precision: 38, Scale: 10}
	list := arrow.ListOf(arrow.PrimitiveTypes.Int32)
	for _, c := range []struct {
		typ  arrow.DataType
		text string
		want string // as Arrow prints it
		lost bool
	}{
		{arrow.FixedWidthTypes.Boolean, "t", "true", false},
		{arrow.FixedWidthTypes.Boolean, "f", "false", false},
		{arrow.PrimitiveTypes.Int16, "-32768", "-32768", false},
		{arrow.PrimitiveTypes.Int32, "2147483648", "(null)", true},
		{arrow.PrimitiveTypes.Int64, "-9223372036854775808", "-9223372036854775808", false},
		{arrow.PrimitiveTypes.Float64, "1e-320", "1e-320", false},
		{arrow.PrimitiveTypes.Float64, "NaN", "NaN", false},
		{arrow.PrimitiveTypes.Float32, "-Infinity", "-Inf", false},
		{arrow.BinaryTypes.String, "", "", false},
		{arrow.BinaryTypes.Binary, `\x00ff`, "AP8=", false},
		{arrow.BinaryTypes.Binary, `abc`, "(null)", true},
		{arrow.FixedWidthTypes.Date32, "1969-12-31", "1969-12-31", false},
		{arrow.FixedWidthTypes.Date32, "0001-01-01", "0001-01-01", false},
		{arrow.FixedWidthTypes.Date32, "9999-12-31", "9999-12-31", false},
		{arrow.FixedWidthTypes.Date32, "10000-01-01", "(null)", true},
		{arrow.FixedWidthTypes.Date32, "0044-03-15 BC", "(null)", true},
		{arrow.FixedWidthTypes.Date32, "infinity", "(null)", true},
		{us, "2024-02-29 12:34:56.000001+00", "2024-02-29T12:34:56.000001Z", false},
		{us, "2024-02-29 12:34:56.5+00", "2024-02-29T12:34:56.5Z", false},
		{us, "1950-01-01 00:00:00+00", "1950-01-01T00:00:00Z", false},
		{us, "2024-02-29 12:34:56+01", "(null)", true},
		{utc, "1999-01-08 04:05:06.789", "1999-01-08T04:05:06.789", false},
		{utc, "-infinity", "(null)", true},
		{utc, "294276-12-31 23:59:59", "(null)", true},
		{dec, "-0.01", "-0.01", false},
		{dec, "12345678.90", "12345678.9", false},
		{dec, "123456789.00", "(null)", true},
		{dec, "1.005", "(null)", true},
		{dec, "NaN", "(null)", true},
		{dec, "Infinity", "(null)", true},
		{wide, "1234567890123456789012345678.0123456789", "1234567890123456789012345678.0123456789", false},
		{wide, "-9999999999999999999999999999.9999999999", "-9999999999999999999999999999.9999999999", false},
		{wide, "10000000000000000000000000000", "(null)", true},
		{list, "{}", "[]", false},
		{list, "{1,NULL,-3}", "[1,null,-3]", false},
		{list, "{{1,2},{3,4}}", "(null)", true},
		{list, "[0:1]={1,2}", "(null)", true},
		{list, "{1,99999999999}", "[1,null]", true},
		{arrow.ListOf(arrow.BinaryTypes.String), `{a,"b,c","d\"e\\f","",NULL,"NULL"}`, `["a","b,c","d\"e\\f","",null,"NULL"]`, false},
	} {
		b := array.NewBuilder(memory.DefaultAllocator, c.typ)
		add, err := Appender(b, ',')
		if err != nil {
			t.Fatal(err)
		}
		ok := add([]byte(c.text))
		a := b.NewArray()
		if a.Len() != 1 {
			t.Fatalf("%s %q: appended %d values", c.typ, c.text, a.Len())
		}
		if _, isDec := c.typ.(*arrow.Decimal128Type); !isDec && a.ValueStr(0) != c.want || ok == c.lost {
			t.Errorf("%s %q: got %s, kept %t; want %s, kept %t", c.typ, c.text, a.ValueStr(0), ok, c.want, !c.lost)
		}
		if d, isDec := a.(*array.Decimal128); isDec && d.IsValid(0) == c.lost {
			t.Errorf("%s %q: got %s", c.typ, c.text, a.ValueStr(0))
		} else if isDec && !c.lost && d.Value(0).ToString(c.typ.(*arrow.Decimal128Type).Scale) != pad(c.want, int(c.typ.(*arrow.Decimal128Type).Scale)) {
			t.Errorf("%s %q: got %s, want %s", c.typ, c.text, d.Value(0).ToString(c.typ.(*arrow.Decimal128Type).Scale), c.want)
		}
	}
}

// pad writes a decimal with all digits of its scale.
func pad(s string, scale int) string {
	whole, frac, _ := bytes.Cut([]byte(s), []byte("."))
	for len(frac) < scale {
		frac = append(frac, '0')
	}
	return string(whole) + "." + string(frac)
}

func TestNumericModifier(t *testing.T) {
	mod := func(p, s int32) int32 { return (p<<16 | s&0x7ff) + 4 }
	for _, c := range []struct {
		mod  int32
		p, s int
		ok   bool
	}{
		{mod(10, 2), 10, 2, true}, {mod(38, 38), 38, 38, true}, {mod(39, 0), 39, 0, false},
		{mod(5, -2), 5, -2, false}, {mod(2, 5), 2, 5, false}, {-1, 0, 0, false},
	} {
		p, s, ok := numericMod(c.mod)
		if ok != c.ok || ok && (p != c.p || s != c.s) {
			t.Errorf("modifier %d: got numeric(%d,%d) %t, want numeric(%d,%d) %t", c.mod, p, s, ok, c.p, c.s, c.ok)
		}
	}
}
