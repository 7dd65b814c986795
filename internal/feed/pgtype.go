package feed

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

// pgType is a column's type in Postgres and what it becomes in Delta.
type pgType struct {
	Name  string // as format_type prints it, e.g. numeric(10,2)
	Delta string // Delta type; nested ones as JSON
	Array bool
	Delim byte // between an array's elements
}

type typeKey struct {
	oid uint32
	mod int32
}

// types resolves type OIDs of one database and remembers them. What it looks
// up cannot change for an OID, except names.
type types struct {
	conn  *pgx.Conn
	known map[typeKey]pgType
}

func newTypes(conn *pgx.Conn) *types { return &types{conn: conn, known: map[typeKey]pgType{}} }

const typeSQL = `SELECT format_type(t.oid, $2), t.typtype::text, t.typbasetype, t.typtypmod, t.typelem, t.typdelim::text,
	t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc
	FROM pg_catalog.pg_type t WHERE t.oid = $1`

func (t *types) resolve(ctx context.Context, oid uint32, mod int32) (pgType, error) {
	key := typeKey{oid, mod}
	if p, ok := t.known[key]; ok {
		return p, nil
	}
	p, err := t.lookup(ctx, oid, mod)
	if err != nil {
		return pgType{}, fmt.Errorf("look up type %d: %w", oid, err)
	}
	t.known[key] = p
	return p, nil
}

func (t *types) lookup(ctx context.Context, oid uint32, mod int32) (pgType, error) {
	p := pgType{Delta: "string"}
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
		return pgType{}, err
	case kind == "d":
		b, err := t.resolve(ctx, base, baseMod)
		b.Name = p.Name
		return b, err
	case array && oid != oidInt2Vector && oid != oidOIDVector:
		e, err := t.resolve(ctx, elem, mod)
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

// holds reports whether every value of Postgres type p fits a column of Delta
// type d as it is. It decides what happens when a column's type changes.
func holds(d string, p pgType) bool {
	if sameType(d, p.Delta) || d == "string" {
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

// sameType compares Delta types; nested ones are JSON, whose spelling may differ.
func sameType(a, b string) bool {
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
