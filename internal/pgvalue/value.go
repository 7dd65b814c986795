package pgvalue

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
)

// Append reads one value in Postgres's text form into a builder. It
// appends exactly one entry: the value, or NULL when the builder's type cannot
// hold it; then (and when an array lost an element) it reports false.
type Append func(v []byte) bool

// Appender gives the reader of Postgres text for b. delim separates array
// elements.
func Appender(b array.Builder, delim byte) (Append, error) {
	switch b := b.(type) {
	case *array.BooleanBuilder:
		return func(v []byte) bool {
			ok := len(v) == 1 && (v[0] == 't' || v[0] == 'f')
			return orNull(b, ok, func() { b.Append(v[0] == 't') })
		}, nil
	case *array.Int8Builder:
		return intAppender(b, 8, func(n int64) { b.Append(int8(n)) }), nil
	case *array.Int16Builder:
		return intAppender(b, 16, func(n int64) { b.Append(int16(n)) }), nil
	case *array.Int32Builder:
		return intAppender(b, 32, func(n int64) { b.Append(int32(n)) }), nil
	case *array.Int64Builder:
		return intAppender(b, 64, b.Append), nil
	case *array.Float32Builder:
		return func(v []byte) bool {
			f, err := strconv.ParseFloat(string(v), 32)
			return orNull(b, err == nil, func() { b.Append(float32(f)) })
		}, nil
	case *array.Float64Builder:
		return func(v []byte) bool {
			f, err := strconv.ParseFloat(string(v), 64)
			return orNull(b, err == nil, func() { b.Append(f) })
		}, nil
	case *array.StringBuilder:
		return func(v []byte) bool { return orNull(b, utf8.Valid(v), func() { b.BinaryBuilder.Append(v) }) }, nil
	case *array.LargeStringBuilder:
		return func(v []byte) bool { return orNull(b, utf8.Valid(v), func() { b.BinaryBuilder.Append(v) }) }, nil
	case *array.BinaryBuilder:
		return func(v []byte) bool {
			raw, err := parseBytea(v)
			return orNull(b, err == nil, func() { b.Append(raw) })
		}, nil
	case *array.Date32Builder:
		return func(v []byte) bool {
			t, ok := parseTimestamp(v)
			return orNull(b, ok, func() { b.Append(arrow.Date32(floorDiv(t.Unix(), 86400))) })
		}, nil
	case *array.TimestampBuilder:
		if b.Type().(*arrow.TimestampType).Unit != arrow.Microsecond {
			return nil, fmt.Errorf("column of %s is not in microseconds", b.Type())
		}
		return func(v []byte) bool {
			t, ok := parseTimestamp(v)
			return orNull(b, ok, func() { b.Append(arrow.Timestamp(t.UnixMicro())) })
		}, nil
	case *array.Decimal128Builder:
		dt := b.Type().(*arrow.Decimal128Type)
		return func(v []byte) bool {
			n, ok := parseDecimalText(v, dt.Precision, dt.Scale)
			return orNull(b, ok, func() { b.Append(n) })
		}, nil
	case *array.ListBuilder:
		elem, err := Appender(b.ValueBuilder(), delim)
		return func(v []byte) bool { return appendArray(b, elem, v, delim) }, err
	}
	return nil, fmt.Errorf("no reader for a column of %s", b.Type())
}

func orNull(b array.Builder, ok bool, add func()) bool {
	if !ok {
		b.AppendNull()
		return false
	}
	add()
	return true
}

func intAppender(b array.Builder, bits int, add func(int64)) Append {
	return func(v []byte) bool {
		n, err := strconv.ParseInt(string(v), 10, bits)
		return orNull(b, err == nil, func() { add(n) })
	}
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// parseBytea reads bytea_output = hex.
func parseBytea(v []byte) ([]byte, error) {
	h, ok := bytes.CutPrefix(v, []byte(`\x`))
	if !ok {
		return nil, fmt.Errorf("bytea does not begin with \\x")
	}
	raw := make([]byte, hex.DecodedLen(len(h)))
	_, err := hex.Decode(raw, h)
	return raw, err
}

// parseTimestamp reads "2006-01-02[ 15:04:05[.999999]][+00]" as Postgres prints
// it in UTC. Infinity, years before 1 and after 9999 are refused: Delta's range.
func parseTimestamp(v []byte) (time.Time, bool) {
	p := digits{v: v}
	year, month, day := p.number(4, 4), p.after('-', 2), p.after('-', 2)
	var hour, minute, second, micro int
	if p.is(' ') {
		hour, minute, second = p.after(' ', 2), p.after(':', 2), p.after(':', 2)
		if p.is('.') {
			start := p.at + 1
			micro = p.after('.', 0)
			for n := p.at - start; n < 6; n++ {
				micro *= 10
			}
		}
		if p.is('+') && p.after('+', 2) != 0 {
			p.bad = true
		}
	}
	if p.bad || p.at != len(v) || year < 1 {
		return time.Time{}, false
	}
	return time.Date(year, time.Month(month), day, hour, minute, second, micro*1000, time.UTC), true
}

// digits reads numbers from fixed text forms.
type digits struct {
	v   []byte
	at  int
	bad bool
}

func (d *digits) is(c byte) bool { return d.at < len(d.v) && d.v[d.at] == c }

// after reads a number of n digits that follows c; n = 0 takes 1 to 6.
func (d *digits) after(c byte, n int) int {
	if !d.is(c) {
		d.bad = true
		return 0
	}
	d.at++
	if n == 0 {
		return d.number(1, 6)
	}
	return d.number(n, n)
}

func (d *digits) number(least, most int) int {
	n, start := 0, d.at
	for d.at < len(d.v) && d.at-start < most && d.v[d.at] >= '0' && d.v[d.at] <= '9' {
		n = n*10 + int(d.v[d.at]-'0')
		d.at++
	}
	if d.at-start < least {
		d.bad = true
	}
	return n
}

// parseDecimalText reads "-12.340" exactly. NaN, infinity, digits beyond the
// scale and numbers beyond the precision are refused, never rounded.
func parseDecimalText(v []byte, precision, scale int32) (decimal128.Num, bool) {
	neg := len(v) > 0 && v[0] == '-'
	if neg {
		v = v[1:]
	}
	whole, frac, _ := bytes.Cut(v, []byte("."))
	for len(frac) > int(scale) && frac[len(frac)-1] == '0' {
		frac = frac[:len(frac)-1]
	}
	if len(whole) == 0 || len(frac) > int(scale) {
		return decimal128.Num{}, false
	}
	if len(whole)+int(scale) <= 18 { // fits an int64, the usual case
		n, ok := int64(0), true
		for _, part := range [2][]byte{whole, frac} {
			for _, c := range part {
				ok = ok && c >= '0' && c <= '9'
				n = n*10 + int64(c-'0')
			}
		}
		for range int(scale) - len(frac) {
			n *= 10
		}
		if neg {
			n = -n
		}
		num := decimal128.FromI64(n)
		return num, ok && num.FitsInPrecision(precision)
	}
	whole = bytes.TrimLeft(whole, "0")
	if len(whole)+int(scale) > 38 { // more could overflow 128 bits
		return decimal128.Num{}, false
	}
	n := decimal128.FromI64(0)
	ten := decimal128.FromI64(10)
	for i := range len(whole) + int(scale) {
		c := byte('0')
		switch {
		case i < len(whole):
			c = whole[i]
		case i-len(whole) < len(frac):
			c = frac[i-len(whole)]
		}
		if c < '0' || c > '9' {
			return decimal128.Num{}, false
		}
		n = n.Mul(ten).Add(decimal128.FromI64(int64(c - '0')))
	}
	if neg {
		n = n.Negate()
	}
	return n, n.FitsInPrecision(precision)
}

// appendArray reads a one-dimensional array literal whose first index is 1.
// Others have no Delta form and become NULL.
func appendArray(b *array.ListBuilder, elem Append, v []byte, delim byte) bool {
	items, ok := splitArray(v, delim)
	if !ok {
		b.AppendNull()
		return false
	}
	b.Append(true)
	all := true
	for _, it := range items {
		if it == nil {
			b.ValueBuilder().AppendNull()
			continue
		}
		all = elem(it) && all
	}
	return all
}

// splitArray splits "{a,NULL,"b,\"c"}" into its elements; nil is NULL.
func splitArray(v []byte, delim byte) ([][]byte, bool) {
	if len(v) < 2 || v[0] != '{' || v[len(v)-1] != '}' {
		return nil, false // "[0:2]={…}": other bounds
	}
	v = v[1 : len(v)-1]
	if len(v) == 0 {
		return nil, true
	}
	var items [][]byte
	for {
		var it []byte
		switch v0 := first(v); v0 {
		case '{':
			return nil, false // more dimensions
		case '"':
			it = []byte{}
			i := 1
			for ; i < len(v) && v[i] != '"'; i++ {
				if v[i] == '\\' {
					i++
				}
				if i < len(v) {
					it = append(it, v[i])
				}
			}
			if i >= len(v) {
				return nil, false
			}
			v = v[i+1:]
		default:
			n := bytes.IndexByte(v, delim)
			if n < 0 {
				n = len(v)
			}
			// An unquoted element may hold an escaped delimiter in no type's
			// output: Postgres quotes every such element.
			it, v = v[:n:n], v[n:]
			if bytes.EqualFold(it, []byte("NULL")) {
				it = nil
			} else if len(it) == 0 {
				return nil, false
			}
		}
		items = append(items, it)
		if len(v) == 0 {
			return items, true
		}
		if v[0] != delim {
			return nil, false
		}
		v = v[1:]
	}
}

func first(v []byte) byte {
	if len(v) == 0 {
		return 0
	}
	return v[0]
}
