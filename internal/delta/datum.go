package delta

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
)

// datum is one value for comparison with others of its column.
type datum struct {
	kind  datumKind
	int   int64 // integers, days, microseconds, booleans as 0 and 1
	float float64
	text  string // strings and bytes
	rat   *big.Rat
}

type datumKind uint8

const (
	datumInt datumKind = iota
	datumFloat
	datumText
	datumRat
)

// compare orders a and b; ok is false when one is NaN.
func (a datum) compare(b datum) (order int, ok bool) {
	switch a.kind {
	case datumFloat:
		if math.IsNaN(a.float) || math.IsNaN(b.float) {
			return 0, false
		}
		return cmp.Compare(a.float, b.float), true
	case datumText:
		return strings.Compare(a.text, b.text), true
	case datumRat:
		return a.rat.Cmp(b.rat), true
	}
	return cmp.Compare(a.int, b.int), true
}

func datumKindOf(t *dataType) (datumKind, error) {
	if t.kind == kindDecimal {
		return datumRat, nil
	}
	if t.kind == kindPrimitive {
		switch t.name {
		case "boolean", "byte", "short", "integer", "long", "date", "timestamp", "timestamp_ntz":
			return datumInt, nil
		case "float", "double":
			return datumFloat, nil
		case "string", "binary":
			return datumText, nil
		}
	}
	return 0, fmt.Errorf("a %s cannot be compared", t.text())
}

// datumOf makes a Go value one of a column of type t.
func datumOf(v any, t *dataType) (datum, error) {
	kind, err := datumKindOf(t)
	if err != nil {
		return datum{}, err
	}
	d := datum{kind: kind}
	bad := fmt.Errorf("%v (%T) is not a value of a %s", v, v, t.text())
	whole, isWhole := wholeNumber(v)
	switch x := v.(type) {
	case bool:
		if t.name != "boolean" {
			return d, bad
		}
		if x {
			d.int = 1
		}
		return d, nil
	case time.Time:
		switch t.name {
		case "date":
			d.int = floorDiv(x.Unix(), 86400)
		case "timestamp", "timestamp_ntz":
			d.int = x.UnixMicro()
		default:
			return d, bad
		}
		return d, nil
	case []byte:
		if kind != datumText {
			return d, bad
		}
		d.text = string(x)
		return d, nil
	case string:
		return datumOfText(x, t, d)
	case float64:
		if kind != datumFloat {
			return d, bad
		}
		d.float = x
		return d, nil
	}
	switch {
	case !isWhole:
		return d, bad
	case kind == datumRat:
		d.rat = new(big.Rat).SetInt64(whole)
	case kind == datumFloat:
		d.float = float64(whole)
	case t.name == "byte" || t.name == "short" || t.name == "integer" || t.name == "long":
		d.int = whole
	default:
		return d, bad
	}
	return d, nil
}

func wholeNumber(v any) (int64, bool) {
	switch x := v.(type) {
	case int:
		return int64(x), true
	case int64:
		return x, true
	case int32:
		return int64(x), true
	case int16:
		return int64(x), true
	case int8:
		return int64(x), true
	}
	return 0, false
}

// datumOfText reads text as the partition values in the log are written, which
// is how JSON statistics write times, too.
func datumOfText(v string, t *dataType, d datum) (datum, error) {
	switch d.kind {
	case datumText:
		d.text = v
		return d, nil
	case datumRat:
		r, ok := new(big.Rat).SetString(v)
		if !ok || strings.ContainsAny(v, "/xX_") {
			return d, fmt.Errorf("%q is not a %s", v, t.text())
		}
		d.rat = r
		return d, nil
	}
	if v == "" {
		return d, fmt.Errorf("%q is not a %s", v, t.text())
	}
	a, err := partitionArray(&v, t, 1)
	if err != nil {
		return d, err
	}
	defer a.Release()
	d, _ = datumAt(a, 0, t)
	return d, nil
}

// datumAt gives the value of a row; ok is false for null.
func datumAt(a interface {
	IsNull(int) bool
}, i int, t *dataType) (d datum, ok bool) {
	if a.IsNull(i) {
		return d, false
	}
	switch a := a.(type) {
	case *array.Boolean:
		if a.Value(i) {
			d.int = 1
		}
	case *array.Int8:
		d.int = int64(a.Value(i))
	case *array.Int16:
		d.int = int64(a.Value(i))
	case *array.Int32:
		d.int = int64(a.Value(i))
	case *array.Int64:
		d.int = a.Value(i)
	case *array.Date32:
		d.int = int64(a.Value(i))
	case *array.Timestamp:
		d.int = int64(a.Value(i))
	case *array.Float32:
		d.kind, d.float = datumFloat, float64(a.Value(i))
	case *array.Float64:
		d.kind, d.float = datumFloat, a.Value(i)
	case *array.String:
		d.kind, d.text = datumText, a.Value(i)
	case *array.Binary:
		d.kind, d.text = datumText, string(a.Value(i))
	case *array.Decimal128:
		n := a.Value(i)
		den := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(t.scale)), nil)
		d.kind, d.rat = datumRat, new(big.Rat).SetFrac(n.BigInt(), den)
	default:
		return d, false
	}
	return d, true
}

// datumOfJSON reads a bound of JSON statistics; ok is false when it cannot be
// told.
func datumOfJSON(b json.RawMessage, t *dataType) (d datum, ok bool) {
	kind, err := datumKindOf(t)
	b = bytes.TrimSpace(b)
	if err != nil || len(b) == 0 || string(b) == "null" {
		return d, false
	}
	d.kind = kind
	if b[0] == '"' {
		var s string
		if json.Unmarshal(b, &s) != nil || t.name == "binary" {
			return d, false
		}
		d, err = datumOfText(s, t, d)
		return d, err == nil
	}
	switch {
	case t.name == "date" || t.name == "timestamp" || t.name == "timestamp_ntz" || kind == datumText:
		return d, false
	case kind == datumFloat:
		return d, json.Unmarshal(b, &d.float) == nil
	case kind == datumRat:
		d.rat, ok = new(big.Rat).SetString(string(b))
		return d, ok
	case t.name == "boolean":
		return d, false
	}
	return d, json.Unmarshal(b, &d.int) == nil
}
