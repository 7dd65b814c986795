package delta

import (
	"cmp"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
)

// Readers skip a file when its statistics say that no row can match. So a
// bound may be too wide, and then costs time, but never too narrow.

const (
	defaultStatColumns = 32 // leaves from the first on; delta.dataSkippingNumIndexedCols
	maxStatRunes       = 32 // longer strings are cut
)

// fileStats gathers the statistics of one data file.
type fileStats struct {
	rows   int64
	leaves []*leafStats
	fields []field
}

// leafStats are the statistics of one leaf column.
type leafStats struct {
	typ    *dataType
	nulls  int64
	seen   bool // a value that is not null
	broken bool // a value that cannot be bounded: NaN, infinity, not UTF-8

	minInt, maxInt     int64 // integers, dates in days, times in microseconds
	minFloat, maxFloat float64
	minDec, maxDec     decimal128.Num
	minText, maxText   string
	maxTextCut         bool // maxText is the beginning of a longer string
}

// newFileStats prepares for the first limit leaves of fields; limit < 0 = all.
func newFileStats(fields []field, limit int) *fileStats {
	s := &fileStats{fields: fields}
	var walk func(fields []field)
	walk = func(fields []field) {
		for _, f := range fields {
			if f.typ.kind == kindStruct {
				walk(f.typ.fields)
			} else if limit < 0 || len(s.leaves) < limit {
				s.leaves = append(s.leaves, &leafStats{typ: f.typ})
			}
		}
	}
	walk(fields)
	return s
}

// add takes in a batch whose columns are the fields.
func (s *fileStats) add(rec arrow.RecordBatch) {
	s.rows += rec.NumRows()
	next := 0
	for i, f := range s.fields {
		next = s.addColumn(rec.Column(i), f.typ, next, nil)
	}
}

// addColumn takes in one column from leaf next on and returns the leaf behind
// it. hidden tells which rows are null because a struct around them is.
func (s *fileStats) addColumn(a arrow.Array, t *dataType, next int, hidden func(int) bool) int {
	null := a.IsNull
	if hidden != nil {
		null = func(i int) bool { return hidden(i) || a.IsNull(i) }
	}
	if st, ok := a.(*array.Struct); ok && t.kind == kindStruct {
		for i, f := range t.fields {
			next = s.addColumn(st.Field(i), f.typ, next, null)
		}
		return next
	}
	if next < len(s.leaves) {
		s.leaves[next].add(a, null)
	}
	return next + 1
}

// add takes in the values of one leaf.
func (l *leafStats) add(a arrow.Array, null func(int) bool) {
	var take func(i int)
	switch a := a.(type) {
	case *array.Int8:
		take = func(i int) { l.integer(int64(a.Value(i))) }
	case *array.Int16:
		take = func(i int) { l.integer(int64(a.Value(i))) }
	case *array.Int32:
		take = func(i int) { l.integer(int64(a.Value(i))) }
	case *array.Int64:
		take = func(i int) { l.integer(a.Value(i)) }
	case *array.Date32:
		take = func(i int) { l.integer(int64(a.Value(i))) }
	case *array.Timestamp:
		take = func(i int) { l.integer(int64(a.Value(i))) }
	case *array.Float32:
		take = func(i int) { l.float(float64(a.Value(i))) }
	case *array.Float64:
		take = func(i int) { l.float(a.Value(i)) }
	case *array.Decimal128:
		take = func(i int) { l.decimal(a.Value(i)) }
	case *array.String:
		take = func(i int) { l.text(a.Value(i)) }
	default: // boolean, binary, array, map: only nulls are counted
		take = func(int) {}
		l.broken = true
	}
	for i := range a.Len() {
		if null(i) {
			l.nulls++
		} else if !l.broken {
			take(i)
		}
	}
}

func (l *leafStats) integer(v int64) {
	if !l.seen {
		l.minInt, l.maxInt, l.seen = v, v, true
	}
	l.minInt, l.maxInt = min(l.minInt, v), max(l.maxInt, v)
}

// float drops the bounds of a column with NaN: readers disagree whether it is
// above every number. Infinity has no JSON number.
func (l *leafStats) float(v float64) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		l.broken = true
		return
	}
	if !l.seen {
		l.minFloat, l.maxFloat, l.seen = v, v, true
	}
	l.minFloat, l.maxFloat = min(l.minFloat, v), max(l.maxFloat, v)
}

func (l *leafStats) decimal(v decimal128.Num) {
	if !l.seen {
		l.minDec, l.maxDec, l.seen = v, v, true
	}
	if v.Less(l.minDec) {
		l.minDec = v
	}
	if l.maxDec.Less(v) {
		l.maxDec = v
	}
}

// text keeps beginnings only: the beginning of the least string is the least
// of the beginnings.
func (l *leafStats) text(v string) {
	if !utf8.ValidString(v) {
		l.broken = true
		return
	}
	begin, cut := cutRunes(v, maxStatRunes)
	switch {
	case !l.seen:
		l.minText, l.maxText, l.maxTextCut, l.seen = strings.Clone(begin), strings.Clone(begin), cut, true
		return
	case begin < l.minText:
		l.minText = strings.Clone(begin)
	}
	switch cmp.Compare(begin, l.maxText) {
	case 1:
		l.maxText, l.maxTextCut = strings.Clone(begin), cut
	case 0:
		l.maxTextCut = l.maxTextCut || cut
	}
}

func cutRunes(s string, n int) (string, bool) {
	for i := range s {
		if n == 0 {
			return s[:i], true
		}
		n--
	}
	return s, false
}

// json writes the statistics as the add action holds them.
func (s *fileStats) json() (string, error) {
	mins, maxs, nulls := map[string]any{}, map[string]any{}, map[string]any{}
	s.fill(s.fields, 0, mins, maxs, nulls)
	b, err := json.Marshal(map[string]any{"numRecords": s.rows, "minValues": mins, "maxValues": maxs, "nullCount": nulls})
	return string(b), err
}

// fill writes the leaves of fields from next on into nested objects.
func (s *fileStats) fill(fields []field, next int, mins, maxs, nulls map[string]any) int {
	for _, f := range fields {
		if f.typ.kind == kindStruct {
			subMins, subMaxs, subNulls := map[string]any{}, map[string]any{}, map[string]any{}
			next = s.fill(f.typ.fields, next, subMins, subMaxs, subNulls)
			for _, o := range []struct{ in, sub map[string]any }{{mins, subMins}, {maxs, subMaxs}, {nulls, subNulls}} {
				if len(o.sub) > 0 {
					o.in[f.physical] = o.sub
				}
			}
			continue
		}
		if next < len(s.leaves) {
			l := s.leaves[next]
			nulls[f.physical] = l.nulls
			if lo, ok := l.lower(); ok {
				mins[f.physical] = lo
			}
			if hi, ok := l.upper(); ok {
				maxs[f.physical] = hi
			}
		}
		next++
	}
	return next
}

// lower gives the JSON value that no value of the column is below.
func (l *leafStats) lower() (any, bool) {
	if !l.seen || l.broken {
		return nil, false
	}
	switch {
	case l.typ.kind == kindDecimal:
		return json.Number(l.minDec.ToString(l.typ.scale)), true
	case l.typ.name == "string":
		return l.minText, true
	case l.typ.name == "float" || l.typ.name == "double":
		return jsonFloat(l.minFloat, math.Copysign(0, -1), l.typ.name), true
	}
	return timeOrInt(l.minInt, l.typ.name, floorDiv(l.minInt, 1000))
}

// upper gives the JSON value that no value of the column is above.
func (l *leafStats) upper() (any, bool) {
	if !l.seen || l.broken {
		return nil, false
	}
	switch {
	case l.typ.kind == kindDecimal:
		return json.Number(l.maxDec.ToString(l.typ.scale)), true
	case l.typ.name == "string":
		if l.maxTextCut {
			return above(l.maxText)
		}
		return l.maxText, true
	case l.typ.name == "float" || l.typ.name == "double":
		return jsonFloat(l.maxFloat, 0, l.typ.name), true
	}
	return timeOrInt(l.maxInt, l.typ.name, -floorDiv(-l.maxInt, 1000))
}

// jsonFloat writes a number that reads back as itself. The zeros are equal, but
// a reader may order them by sign: zero bounds with the wider one.
func jsonFloat(v, zero float64, name string) json.Number {
	if v == 0 {
		if math.Signbit(zero) {
			return "-0.0"
		}
		return "0.0"
	}
	bits := 64
	if name == "float" {
		bits = 32
	}
	return json.Number(strconv.FormatFloat(v, 'g', -1, bits))
}

// timeOrInt writes integers, dates, and times from milliseconds.
func timeOrInt(v int64, name string, millis int64) (any, bool) {
	var t time.Time
	form := "2006-01-02"
	switch name {
	case "date":
		t = time.Unix(v*86400, 0).UTC()
	case "timestamp":
		t, form = time.UnixMilli(millis).UTC(), "2006-01-02T15:04:05.000Z"
	case "timestamp_ntz":
		t, form = time.UnixMilli(millis).UTC(), "2006-01-02T15:04:05.000"
	default:
		return v, true
	}
	if !commonYear(t) {
		return nil, false
	}
	return t.Format(form), true
}

// above gives a short string that sorts behind every string that begins with s;
// there is none when s is all of the last code point.
func above(s string) (any, bool) {
	for s != "" {
		r, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
		switch {
		case r == 0xD7FF:
			return s + string(rune(0xE000)), true // the surrogates between are no code points
		case r < utf8.MaxRune:
			return s + string(r+1), true
		}
	}
	return nil, false
}
