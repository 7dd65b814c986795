package syncedtable

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/delta"
)

// maxIdentifier is NAMEDATALEN-1: Postgres cuts longer names silently.
const maxIdentifier = 63

// column is one column of the Postgres table.
type column struct {
	name  string // in Postgres
	delta string // in Delta
	form  encoding
	key   bool
}

func (c column) id() string { return pgx.Identifier{c.name}.Sanitize() }

// layout is what the Postgres table of a source looks like.
type layout struct {
	cols  []column // in the source's order
	order []int    // of cols: the key's first, in the key's order
	keys  int      // columns of the key
	ts    int      // index in order of the timeseries key; -1 = none
}

// layoutOf plans the Postgres columns of a Delta table. key and ts are spelled
// as the source spells them.
func layoutOf(s *delta.Schema, key []string, ts string, overrides []tarn.TypeOverride) (layout, error) {
	a, err := s.Arrow()
	if err != nil {
		return layout{}, err
	}
	l := layout{cols: make([]column, len(s.Fields)), keys: len(key), ts: -1}
	for i, f := range s.Fields {
		c := column{name: identifier(f.Name), delta: f.Name, key: slices.Contains(key, f.Name)}
		at := slices.IndexFunc(overrides, func(o tarn.TypeOverride) bool { return o.Column == f.Name })
		if at >= 0 {
			c.form, err = overridden(a.Field(i).Type, overrides[at])
		} else {
			c.form, err = encodingOf(a.Field(i).Type, pgTypeOf(f))
		}
		if err != nil {
			return layout{}, tarn.Invalid("column %s: %w", f.Name, err)
		}
		l.cols[i] = c
	}
	for _, k := range key {
		l.order = append(l.order, slices.IndexFunc(l.cols, func(c column) bool { return c.delta == k }))
	}
	for i, c := range l.cols {
		if !c.key {
			l.order = append(l.order, i)
		}
	}
	if ts != "" {
		l.ts = slices.IndexFunc(l.order, func(i int) bool { return l.cols[i].delta == ts })
	}
	return l, nil
}

// list names columns for SQL, in order; prefix stands before each.
func (l layout) list(order []int, prefix string) string {
	names := make([]string, len(order))
	for i, at := range order {
		names[i] = prefix + l.cols[at].id()
	}
	return strings.Join(names, ", ")
}

func (l layout) keyOrder() []int { return l.order[:l.keys] }

func (l layout) keyList() string { return l.list(l.keyOrder(), "") }

// same is the condition that two rows have the same key.
func (l layout) same(a, b string) string {
	var parts []string
	for _, at := range l.keyOrder() {
		id := l.cols[at].id()
		parts = append(parts, a+"."+id+" = "+b+"."+id)
	}
	return strings.Join(parts, " AND ")
}

// definitions are the columns for CREATE TABLE, in the source's order.
func (l layout) definitions() string {
	defs := make([]string, len(l.cols))
	for i, c := range l.cols {
		defs[i] = c.id() + " " + c.form.sql
	}
	return strings.Join(defs, ", ")
}

// all is every column in the source's order.
func (l layout) all() []int {
	order := make([]int, len(l.cols))
	for i := range order {
		order[i] = i
	}
	return order
}

// pgTypeOf is the type the column had in Postgres when a feed wrote it.
func pgTypeOf(f delta.Field) string {
	t, _ := f.Metadata["tarn.pgType"].(string)
	return t
}

// overridden plans a column whose Postgres type was asked for.
func overridden(t arrow.DataType, o tarn.TypeOverride) (encoding, error) {
	switch o.Type {
	case tarn.TypeVarchar:
		if id := t.ID(); id != arrow.STRING && id != arrow.LARGE_STRING {
			return encoding{}, fmt.Errorf("only a string can be a varchar, this is %s", t)
		}
		if o.Size < 1 || o.Size > 10485760 {
			return encoding{}, fmt.Errorf("a varchar has a size of 1 to 10485760, not %d", o.Size)
		}
		return varcharEncoding(o.Size), nil
	case tarn.TypeVector, tarn.TypeHalfvec:
		list, ok := t.(*arrow.ListType)
		if !ok || list.Elem().ID() != arrow.FLOAT32 && list.Elem().ID() != arrow.FLOAT64 {
			return encoding{}, fmt.Errorf("only an array of float or double can be a vector, this is %s", t)
		}
		limit := 16000
		if o.Size < 1 || o.Size > limit {
			return encoding{}, fmt.Errorf("a vector has a size of 1 to %d, not %d", limit, o.Size)
		}
		return vectorEncoding(o.Type == tarn.TypeHalfvec, o.Size), nil
	}
	return encoding{}, fmt.Errorf("type override %q is not known", o.Type)
}

// identifier shortens a name that Postgres would cut, keeping it unique.
func identifier(name string) string {
	if len(name) <= maxIdentifier {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return cut(name, maxIdentifier-9) + "_" + hex.EncodeToString(sum[:4])
}

// cut shortens s to at most n bytes without splitting a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// spelled finds a column by exact name, else without case, as Delta compares
// names; "" = there is none.
func spelled(s *delta.Schema, name string) string {
	found := ""
	for _, f := range s.Fields {
		if f.Name == name {
			return name
		}
		if found == "" && strings.EqualFold(f.Name, name) {
			found = f.Name
		}
	}
	return found
}

// nested reports a Delta type that cannot be a key.
func nested(typ string) bool { return strings.HasPrefix(strings.TrimSpace(typ), "{") }

// ordered reports a Delta type that can be a timeseries key.
func ordered(typ string) bool {
	return slices.Contains([]string{"timestamp", "timestamp_ntz", "date", "long", "integer", "short", "byte"}, strings.Trim(typ, `"`))
}
