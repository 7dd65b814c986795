// Package pgvalue turns Postgres's types and the text forms of their values
// into Delta's and Arrow's. It knows no table and no protocol; the caller has
// set DateStyle, TimeZone, IntervalStyle, bytea_output and extra_float_digits so
// that text says exactly what the value is.
package pgvalue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// OIDs of built-in types that have a Delta type of their own; all others are
// strings in Postgres's text form.
const (
	oidBool        = 16
	oidBytea       = 17
	oidInt8        = 20
	oidInt2        = 21
	oidInt2Vector  = 22
	oidInt4        = 23
	oidOID         = 26
	oidXID         = 28
	oidOIDVector   = 30
	oidFloat4      = 700
	oidFloat8      = 701
	oidDate        = 1082
	oidTimestamp   = 1114
	oidTimestampTZ = 1184
	oidNumeric     = 1700
)

// Type is a column's type in Postgres and what it becomes in Delta.
type Type struct {
	Name  string // as format_type prints it, e.g. numeric(10,2)
	Delta string // Delta type; nested ones as JSON
	Array bool
	Delim byte // between an array's elements
}

type typeKey struct {
	oid uint32
	mod int32
}

// Types resolves type OIDs of one database and remembers them. What it looks
// up cannot change for an OID, except names.
type Types struct {
	conn  *pgx.Conn
	known map[typeKey]Type
}

// NewTypes looks types up over conn.
func NewTypes(conn *pgx.Conn) *Types { return &Types{conn: conn, known: map[typeKey]Type{}} }

const typeSQL = `SELECT format_type(t.oid, $2), t.typtype::text, t.typbasetype, t.typtypmod, t.typelem, t.typdelim::text,
	t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc
	FROM pg_catalog.pg_type t WHERE t.oid = $1`

// Resolve gives a column's type.
func (t *Types) Resolve(ctx context.Context, oid uint32, mod int32) (Type, error) {
	key := typeKey{oid, mod}
	if p, ok := t.known[key]; ok {
		return p, nil
	}
	p, err := t.lookup(ctx, oid, mod)
	if err != nil {
		return Type{}, fmt.Errorf("look up type %d: %w", oid, err)
	}
	t.known[key] = p
	return p, nil
}

func (t *Types) lookup(ctx context.Context, oid uint32, mod int32) (Type, error) {
	p := Type{Delta: "string"}
	var kind, delim string
	var base, elem uint32
	var baseMod int32
	var array bool
	err := t.conn.QueryRow(ctx, typeSQL, oid, mod).Scan(&p.Name, &kind, &base, &baseMod, &elem, &delim, &array)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		// Dropped since the change was made: its text form is all there is.
		p.Name = fmt.Sprintf("dropped type %d", oid)
		return p, nil
	case err != nil:
		return Type{}, err
	case kind == "d":
		b, err := t.Resolve(ctx, base, baseMod)
		b.Name = p.Name
		return b, err
	case array && oid != oidInt2Vector && oid != oidOIDVector:
		e, err := t.Resolve(ctx, elem, mod)
		if err != nil || e.Array {
			return p, err
		}
		// A Delta type name is plain or like decimal(10,2): it is its own JSON string.
		text, err := json.Marshal(map[string]any{"type": "array", "elementType": e.Delta, "containsNull": true})
		p.Delta, p.Array, p.Delim = string(text), true, delim[0]
		return p, err
	}
	p.Delta = scalarDelta(oid, mod)
	return p, nil
}

func scalarDelta(oid uint32, mod int32) string {
	switch oid {
	case oidBool:
		return "boolean"
	case oidInt2:
		return "short"
	case oidInt4:
		return "integer"
	case oidInt8, oidOID, oidXID:
		return "long"
	case oidFloat4:
		return "float"
	case oidFloat8:
		return "double"
	case oidBytea:
		return "binary"
	case oidDate:
		return "date"
	case oidTimestamp:
		return "timestamp_ntz"
	case oidTimestampTZ:
		return "timestamp"
	case oidNumeric:
		if p, s, ok := numericMod(mod); ok {
			return fmt.Sprintf("decimal(%d,%d)", p, s)
		}
	}
	return "string"
}

// numericMod splits a numeric's type modifier; ok is false when Delta's decimal
// cannot hold it (no precision, more than 38 digits, a scale outside 0..p).
//
//	typmod = ((precision << 16) | (scale & 0x7ff)) + 4; scale is 11 bits, signed
func numericMod(mod int32) (precision, scale int, ok bool) {
	if mod < 4 {
		return 0, 0, false
	}
	precision = int((mod - 4) >> 16 & 0xffff)
	scale = int((mod-4)&0x7ff^0x400) - 0x400
	return precision, scale, precision <= 38 && scale >= 0 && scale <= precision
}

// Holds reports whether every value of Postgres type p fits a column of Delta
// type d as it is. It decides what happens when a column's type changes.
func Holds(d string, p Type) bool {
	if SameType(d, p.Delta) || d == "string" {
		return true
	}
	switch p.Delta {
	case "short":
		return d == "integer" || d == "long"
	case "integer":
		return d == "long"
	case "float":
		return d == "double"
	}
	dp, ds, ok1 := parseDecimal(d)
	pp, ps, ok2 := parseDecimal(p.Delta)
	return ok1 && ok2 && ds >= ps && dp-ds >= pp-ps
}

// SameType compares Delta types; nested ones are JSON, whose spelling may differ.
func SameType(a, b string) bool {
	if a == b {
		return true
	}
	var x, y map[string]any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return false
	}
	return x["type"] == y["type"] && x["type"] == "array" && x["elementType"] == y["elementType"]
}

func parseDecimal(d string) (precision, scale int, ok bool) {
	inner, found := strings.CutPrefix(d, "decimal(")
	inner, closed := strings.CutSuffix(inner, ")")
	p, s, two := strings.Cut(inner, ",")
	if !found || !closed || !two {
		return 0, 0, false
	}
	precision, err1 := strconv.Atoi(strings.TrimSpace(p))
	scale, err2 := strconv.Atoi(strings.TrimSpace(s))
	return precision, scale, err1 == nil && err2 == nil
}
