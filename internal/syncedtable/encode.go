package syncedtable

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// encoding is how an Arrow column becomes a Postgres one in COPY's binary
// format. append writes the value without its length; the row is not NULL.
type encoding struct {
	sql    string // Postgres type
	oid    uint32 // of that type; needed inside arrays
	append func(dst []byte, a arrow.Array, row int) ([]byte, error)
}

// Reasons for which a value cannot be stored. Each sends its row to the dead
// letters.
var (
	errNUL      = errors.New("text holds a NUL character, which Postgres cannot store")
	errUTF8     = errors.New("text is not valid UTF-8")
	errRange    = errors.New("value is outside of the range of the Postgres type")
	errJSON     = errors.New("text is not valid JSON")
	errNumber   = errors.New("text is not a number")
	errUUID     = errors.New("text is not a UUID")
	errNullKey  = errors.New("a key column is NULL")
	errTooLarge = errors.New("value is larger than 1 GB")
)

// encodingOf plans a column. pgType is the type it had in Postgres, if known:
// text forms go back to what they were.
func encodingOf(t arrow.DataType, pgType string) (encoding, error) {
	switch t.ID() {
	case arrow.BOOL:
		return encoding{"boolean", 16, func(d []byte, a arrow.Array, i int) ([]byte, error) {
			if a.(*array.Boolean).Value(i) {
				return append(d, 1), nil
			}
			return append(d, 0), nil
		}}, nil
	case arrow.INT8:
		return encoding{"smallint", 21, func(d []byte, a arrow.Array, i int) ([]byte, error) {
			return binary.BigEndian.AppendUint16(d, uint16(a.(*array.Int8).Value(i))), nil
		}}, nil
	case arrow.INT16:
		return encoding{"smallint", 21, func(d []byte, a arrow.Array, i int) ([]byte, error) {
			return binary.BigEndian.AppendUint16(d, uint16(a.(*array.Int16).Value(i))), nil
		}}, nil
	case arrow.INT32:
		return encoding{"integer", 23, func(d []byte, a arrow.Array, i int) ([]byte, error) {
			return binary.BigEndian.AppendUint32(d, uint32(a.(*array.Int32).Value(i))), nil
		}}, nil
	case arrow.INT64:
		return encoding{"bigint", 20, func(d []byte, a arrow.Array, i int) ([]byte, error) {
			return binary.BigEndian.AppendUint64(d, uint64(a.(*array.Int64).Value(i))), nil
		}}, nil
	case arrow.FLOAT32:
		return encoding{"real", 700, func(d []byte, a arrow.Array, i int) ([]byte, error) {
			return binary.BigEndian.AppendUint32(d, math.Float32bits(a.(*array.Float32).Value(i))), nil
		}}, nil
	case arrow.FLOAT64:
		return encoding{"double precision", 701, func(d []byte, a arrow.Array, i int) ([]byte, error) {
			return binary.BigEndian.AppendUint64(d, math.Float64bits(a.(*array.Float64).Value(i))), nil
		}}, nil
	case arrow.DECIMAL128:
		dt := t.(*arrow.Decimal128Type)
		return encoding{fmt.Sprintf("numeric(%d,%d)", dt.Precision, dt.Scale), 1700, func(d []byte, a arrow.Array, i int) ([]byte, error) {
			return appendNumeric(d, a.(*array.Decimal128).Value(i).ToString(dt.Scale))
		}}, nil
	case arrow.STRING, arrow.LARGE_STRING:
		return stringEncoding(pgType), nil
	case arrow.BINARY, arrow.LARGE_BINARY:
		return encoding{"bytea", 17, func(d []byte, a arrow.Array, i int) ([]byte, error) {
			return append(d, bytesOf(a, i)...), nil
		}}, nil
	case arrow.DATE32:
		return encoding{"date", 1082, func(d []byte, a arrow.Array, i int) ([]byte, error) {
			return appendDate(d, int64(a.(*array.Date32).Value(i)))
		}}, nil
	case arrow.TIMESTAMP:
		return timestampEncoding(t.(*arrow.TimestampType))
	case arrow.NULL:
		return encoding{"text", 25, nil}, nil
	case arrow.LIST:
		elem, err := encodingOf(t.(*arrow.ListType).Elem(), "")
		if err != nil {
			return encoding{}, err
		}
		if elem.sql == "jsonb" || elem.append == nil || t.(*arrow.ListType).Elem().ID() == arrow.LIST {
			return jsonEncoding, nil // Postgres arrays are rectangular
		}
		return encoding{elem.sql + "[]", 0, func(d []byte, a arrow.Array, i int) ([]byte, error) {
			return appendArray(d, a.(*array.List), i, elem)
		}}, nil
	case arrow.STRUCT, arrow.MAP, arrow.LARGE_LIST:
		return jsonEncoding, nil
	}
	return encoding{}, fmt.Errorf("type %s has no Postgres form", t)
}

var jsonEncoding = encoding{"jsonb", 3802, func(d []byte, a arrow.Array, i int) ([]byte, error) {
	return appendJSON(append(d, 1), a, i) // 1: version of jsonb's binary form
}}

func timestampEncoding(t *arrow.TimestampType) (encoding, error) {
	if t.Unit != arrow.Microsecond {
		return encoding{}, fmt.Errorf("type %s is not in microseconds", t)
	}
	e := encoding{"timestamp", 1114, func(d []byte, a arrow.Array, i int) ([]byte, error) {
		return appendTimestamp(d, int64(a.(*array.Timestamp).Value(i)))
	}}
	if t.TimeZone != "" {
		e.sql, e.oid = "timestamptz", 1184
	}
	return e, nil
}

func stringEncoding(pgType string) encoding {
	switch pgType {
	case "uuid":
		return encoding{"uuid", 2950, func(d []byte, a arrow.Array, i int) ([]byte, error) {
			return appendUUID(d, bytesOf(a, i))
		}}
	case "json":
		return encoding{"json", 114, func(d []byte, a arrow.Array, i int) ([]byte, error) {
			return appendJSONText(d, bytesOf(a, i))
		}}
	case "jsonb":
		return encoding{"jsonb", 3802, func(d []byte, a arrow.Array, i int) ([]byte, error) {
			return appendJSONText(append(d, 1), bytesOf(a, i))
		}}
	case "numeric":
		return encoding{"numeric", 1700, func(d []byte, a arrow.Array, i int) ([]byte, error) {
			return appendNumeric(d, string(bytesOf(a, i)))
		}}
	}
	return encoding{"text", 25, func(d []byte, a arrow.Array, i int) ([]byte, error) {
		return appendText(d, bytesOf(a, i))
	}}
}

// bytesOf gives a string's or a binary's bytes without a copy.
func bytesOf(a arrow.Array, i int) []byte {
	switch a := a.(type) {
	case *array.String:
		return []byte(a.Value(i))
	case *array.LargeString:
		return []byte(a.Value(i))
	case *array.Binary:
		return a.Value(i)
	case *array.LargeBinary:
		return a.Value(i)
	}
	return nil
}

func appendText(d, v []byte) ([]byte, error) {
	if err := checkText(v); err != nil {
		return d, err
	}
	return append(d, v...), nil
}

func checkText(v []byte) error {
	switch {
	case len(v) > math.MaxInt32/2:
		return errTooLarge
	case bytes.IndexByte(v, 0) >= 0:
		return errNUL
	case !utf8.Valid(v):
		return errUTF8
	}
	return nil
}

// postgresEpoch is 2000-01-01 in days and microseconds of Unix time.
const (
	postgresEpochDays   = 10957
	postgresEpochMicros = postgresEpochDays * 86400 * 1000000
)

// The ranges of Postgres's types: 4713-11-24 BC to 5874897-12-31 and to the
// end of 294276, counted from 2000.
const (
	minDate      = -2451545
	maxDate      = 2145031948
	minTimestamp = -211813488000000000
	maxTimestamp = 9223371331200000000 - 1
)

func appendDate(d []byte, unixDays int64) ([]byte, error) {
	v := unixDays - postgresEpochDays
	if v < minDate || v > maxDate {
		return d, errRange
	}
	return binary.BigEndian.AppendUint32(d, uint32(int32(v))), nil
}

func appendTimestamp(d []byte, unixMicros int64) ([]byte, error) {
	v := unixMicros - postgresEpochMicros
	if v > unixMicros || v < minTimestamp || v > maxTimestamp {
		return d, errRange
	}
	return binary.BigEndian.AppendUint64(d, uint64(v)), nil
}

func appendUUID(d, v []byte) ([]byte, error) {
	if len(v) != 36 || v[8] != '-' || v[13] != '-' || v[18] != '-' || v[23] != '-' {
		return d, errUUID
	}
	var h [32]byte
	n := copy(h[:], v[:8])
	for _, at := range [][2]int{{9, 13}, {14, 18}, {19, 23}, {24, 36}} {
		n += copy(h[n:], v[at[0]:at[1]])
	}
	var raw [16]byte
	if _, err := hex.Decode(raw[:], h[:]); err != nil {
		return d, errUUID
	}
	return append(d, raw[:]...), nil
}

func appendJSONText(d, v []byte) ([]byte, error) {
	if !json.Valid(v) {
		return d, errJSON
	}
	// jsonb has no character for \u0000 either.
	for i := 0; i+5 < len(v); i++ {
		if v[i] == '\\' {
			if string(v[i:i+6]) == `\u0000` {
				return d, errNUL
			}
			i++
		}
	}
	return appendText(d, v)
}

// appendArray writes a one-dimensional array:
//
//	dimensions (4) has NULLs (4) element oid (4) length (4) first index (4) each: length (4) bytes
func appendArray(d []byte, a *array.List, row int, elem encoding) ([]byte, error) {
	start, end := a.ValueOffsets(row)
	values := a.ListValues()
	if start == end {
		d = binary.BigEndian.AppendUint32(d, 0)
		d = binary.BigEndian.AppendUint32(d, 0)
		return binary.BigEndian.AppendUint32(d, elem.oid), nil
	}
	nulls := uint32(0)
	for i := start; i < end; i++ {
		if values.IsNull(int(i)) {
			nulls = 1
		}
	}
	for _, v := range []uint32{1, nulls, elem.oid, uint32(end - start), 1} {
		d = binary.BigEndian.AppendUint32(d, v)
	}
	for i := start; i < end; i++ {
		var err error
		if d, err = appendField(d, values, int(i), elem); err != nil {
			return d, err
		}
	}
	return d, nil
}

// appendField writes length and bytes of one value; length -1 is NULL.
func appendField(d []byte, a arrow.Array, row int, e encoding) ([]byte, error) {
	if e.append == nil || a.IsNull(row) {
		return binary.BigEndian.AppendUint32(d, math.MaxUint32), nil
	}
	at := len(d)
	d, err := e.append(append(d, 0, 0, 0, 0), a, row)
	if err != nil {
		return d, err
	}
	n := len(d) - at - 4
	if n > math.MaxInt32/2 {
		return d, errTooLarge
	}
	binary.BigEndian.PutUint32(d[at:], uint32(n))
	return d, nil
}

// appendNumeric writes a decimal text form as Postgres's numeric:
//
//	digit count (2) weight (2) sign (2) scale (2) digits (2 each, base 10000)
//
// weight is the power of 10000 of the first digit.
func appendNumeric(d []byte, text string) ([]byte, error) {
	sign := uint16(0)
	switch text {
	case "NaN":
		return appendNumericHead(d, 0, 0, 0xC000, 0), nil
	case "Infinity":
		return appendNumericHead(d, 0, 0, 0xD000, 0), nil
	case "-Infinity":
		return appendNumericHead(d, 0, 0, 0xF000, 0), nil
	}
	if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
		if text[0] == '-' {
			sign = 0x4000
		}
		text = text[1:]
	}
	whole, frac := text, ""
	for i := range len(text) {
		if text[i] == '.' {
			whole, frac = text[:i], text[i+1:]
			break
		}
	}
	if len(whole)+len(frac) == 0 || len(frac) > 16383 || len(whole) > 131072 {
		return d, errNumber
	}
	// Pad both sides to whole base-10000 digits.
	head := (4 - len(whole)%4) % 4
	groups := (len(whole) + head + len(frac) + 3) / 4
	weight := (len(whole)+head)/4 - 1
	digit := func(i int) (uint16, bool) { // i-th decimal digit of the padded number
		i -= head
		c := byte('0')
		switch {
		case i < 0:
		case i < len(whole):
			c = whole[i]
		case i-len(whole) < len(frac):
			c = frac[i-len(whole)]
		}
		return uint16(c - '0'), c >= '0' && c <= '9'
	}
	at := len(d)
	d = appendNumericHead(d, 0, 0, sign, uint16(len(frac)))
	n, skipped, last := 0, 0, 0
	for g := range groups {
		v := uint16(0)
		for k := range 4 {
			c, ok := digit(4*g + k)
			if !ok {
				return d[:at], errNumber
			}
			v = v*10 + c
		}
		if n == 0 && v == 0 {
			skipped++
			continue
		}
		d = binary.BigEndian.AppendUint16(d, v)
		n++
		if v != 0 {
			last = n
		}
	}
	d = d[:at+8+2*last] // no trailing zero digits
	if last == 0 {
		binary.BigEndian.PutUint16(d[at+4:], 0) // zero has no sign
		return d, nil
	}
	binary.BigEndian.PutUint16(d[at:], uint16(last))
	binary.BigEndian.PutUint16(d[at+2:], uint16(int16(weight-skipped)))
	return d, nil
}

func appendNumericHead(d []byte, n, weight, sign, scale uint16) []byte {
	for _, v := range []uint16{n, weight, sign, scale} {
		d = binary.BigEndian.AppendUint16(d, v)
	}
	return d
}

// appendJSON writes any Arrow value as JSON: decimals as numbers with all their
// digits, binary in base64, NaN and infinity as strings, dates and times as
// ISO 8601.
func appendJSON(d []byte, a arrow.Array, i int) ([]byte, error) {
	if a.IsNull(i) {
		return append(d, "null"...), nil
	}
	switch a := a.(type) {
	case *array.Boolean:
		return strconv.AppendBool(d, a.Value(i)), nil
	case *array.Int8:
		return strconv.AppendInt(d, int64(a.Value(i)), 10), nil
	case *array.Int16:
		return strconv.AppendInt(d, int64(a.Value(i)), 10), nil
	case *array.Int32:
		return strconv.AppendInt(d, int64(a.Value(i)), 10), nil
	case *array.Int64:
		return strconv.AppendInt(d, a.Value(i), 10), nil
	case *array.Float32:
		return appendJSONFloat(d, float64(a.Value(i)), 32), nil
	case *array.Float64:
		return appendJSONFloat(d, a.Value(i), 64), nil
	case *array.Decimal128:
		return append(d, a.Value(i).ToString(a.DataType().(*arrow.Decimal128Type).Scale)...), nil
	case *array.String, *array.LargeString:
		return appendJSONString(d, bytesOf(a, i))
	case *array.Binary, *array.LargeBinary:
		d = append(d, '"')
		d = base64.StdEncoding.AppendEncode(d, bytesOf(a, i))
		return append(d, '"'), nil
	case *array.Date32:
		return append(append(append(d, '"'), a.Value(i).FormattedString()...), '"'), nil
	case *array.Timestamp:
		t := a.Value(i).ToTime(arrow.Microsecond)
		layout := `"2006-01-02T15:04:05.999999"`
		if a.DataType().(*arrow.TimestampType).TimeZone != "" {
			layout = `"2006-01-02T15:04:05.999999Z"`
		}
		return t.UTC().AppendFormat(d, layout), nil
	case *array.Map:
		return appendJSONMap(d, a, i)
	case *array.List:
		start, end := a.ValueOffsets(i)
		return appendJSONList(d, a.ListValues(), int(start), int(end))
	case *array.LargeList:
		start, end := a.ValueOffsets(i)
		return appendJSONList(d, a.ListValues(), int(start), int(end))
	case *array.Struct:
		return appendJSONStruct(d, a, i)
	}
	return d, fmt.Errorf("type %s has no JSON form", a.DataType())
}

func appendJSONFloat(d []byte, f float64, bits int) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(strconv.AppendFloat(append(d, '"'), f, 'g', -1, bits), '"')
	}
	return strconv.AppendFloat(d, f, 'g', -1, bits)
}

func appendJSONString(d, v []byte) ([]byte, error) {
	if err := checkText(v); err != nil {
		return d, err
	}
	q, err := json.Marshal(string(v))
	return append(d, q...), err
}

func appendJSONList(d []byte, v arrow.Array, start, end int) ([]byte, error) {
	d = append(d, '[')
	for i := start; i < end; i++ {
		if i > start {
			d = append(d, ',')
		}
		var err error
		if d, err = appendJSON(d, v, i); err != nil {
			return d, err
		}
	}
	return append(d, ']'), nil
}

func appendJSONStruct(d []byte, a *array.Struct, i int) ([]byte, error) {
	d = append(d, '{')
	for f := range a.NumField() {
		if f > 0 {
			d = append(d, ',')
		}
		var err error
		if d, err = appendJSONString(d, []byte(a.DataType().(*arrow.StructType).Field(f).Name)); err != nil {
			return d, err
		}
		if d, err = appendJSON(append(d, ':'), a.Field(f), i); err != nil {
			return d, err
		}
	}
	return append(d, '}'), nil
}

// appendJSONMap writes a map as an object; keys that are not strings become
// the string of their JSON form.
func appendJSONMap(d []byte, a *array.Map, i int) ([]byte, error) {
	start, end := a.ValueOffsets(i)
	keys, items := a.Keys(), a.Items()
	d = append(d, '{')
	for k := int(start); k < int(end); k++ {
		if k > int(start) {
			d = append(d, ',')
		}
		text, err := appendJSON(nil, keys, k)
		if err != nil {
			return d, err
		}
		if text[0] != '"' {
			text, _ = json.Marshal(string(text)) // a string always has a JSON form
		}
		d = append(append(d, text...), ':')
		if d, err = appendJSON(d, items, k); err != nil {
			return d, err
		}
	}
	return append(d, '}'), nil
}
