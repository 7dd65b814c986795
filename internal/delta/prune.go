package delta

import (
	"encoding/json"
	"slices"
)

// fileBounds are the statistics of one file, read as far as they are asked for.
type fileBounds struct {
	snapshot *Snapshot
	add      *addAction
	parsed   bool
	stats    struct {
		Rows  *int64          `json:"numRecords"`
		Mins  json.RawMessage `json:"minValues"`
		Maxs  json.RawMessage `json:"maxValues"`
		Nulls json.RawMessage `json:"nullCount"`
	}
}

// mayHold tells whether a row of the file can satisfy c. It says so when in
// doubt: a file wrongly left out would lose rows.
func (s *Snapshot) mayHold(a *addAction, c *condition) bool {
	if c == nil {
		return true
	}
	return (&fileBounds{snapshot: s, add: a}).mayHold(c)
}

func (b *fileBounds) mayHold(c *condition) bool {
	switch c.op {
	case opAnd:
		return !slices.ContainsFunc(c.of, func(sub *condition) bool { return !b.mayHold(sub) })
	case opOr:
		return slices.ContainsFunc(c.of, b.mayHold)
	}
	if len(c.path) == 1 && slices.Contains(b.snapshot.state.metadata.PartitionColumns, c.field.name) {
		return b.partition(c)
	}
	return b.values(c)
}

// partition decides by the file's one value of the column.
func (b *fileBounds) partition(c *condition) bool {
	v := b.add.PartitionValues[c.field.physical]
	a, err := partitionArray(v, c.field.typ, 1)
	if err != nil {
		return true // the scan says what is wrong
	}
	defer a.Release()
	d, ok := datumAt(a, 0, c.field.typ)
	if !ok {
		return c.ofNull(a.IsNull(0)) == isTrue
	}
	return c.of1(d) == isTrue
}

// values decides by the least and greatest value and the number of nulls.
func (b *fileBounds) values(c *condition) bool {
	if !b.parsed {
		b.parsed = true
		if json.Unmarshal([]byte(b.add.Stats), &b.stats) != nil {
			b.stats.Rows = nil
		}
	}
	nulls, rows := b.lookUp(b.stats.Nulls, c), b.stats.Rows
	var n int64
	counted := rows != nil && len(nulls) > 0 && json.Unmarshal(nulls, &n) == nil
	switch c.op {
	case opNull:
		return !counted || n > 0
	case opNotNull:
		return !counted || n < *rows
	}
	if counted && n >= *rows {
		return false // all null: no comparison is true
	}
	lo, hasLo := datumOfJSON(b.lookUp(b.stats.Mins, c), c.field.typ)
	hi, hasHi := datumOfJSON(b.lookUp(b.stats.Maxs, c), c.field.typ)
	if t := c.field.typ.name; hasHi && (t == "timestamp" || t == "timestamp_ntz") {
		hi.int += 999 // writers may cut to the millisecond
	}
	below := func(d datum) bool { o, ok := d.compare(lo); return hasLo && ok && o < 0 }
	above := func(d datum) bool { o, ok := d.compare(hi); return hasHi && ok && o > 0 }
	switch c.op {
	case opEq, opIn:
		return slices.ContainsFunc(c.values, func(d datum) bool { return !below(d) && !above(d) })
	case opLt:
		o, ok := lo.compare(c.values[0])
		return !hasLo || !ok || o < 0
	case opLe:
		return !below(c.values[0])
	case opGt:
		o, ok := hi.compare(c.values[0])
		return !hasHi || !ok || o > 0
	case opGe:
		return !above(c.values[0])
	}
	return true // NaN differs from everything, and is in no bound
}

// lookUp finds the column's entry in nested statistics, which go by physical
// names.
func (b *fileBounds) lookUp(in json.RawMessage, c *condition) json.RawMessage {
	t := b.snapshot.schema
	for _, step := range c.path {
		var m map[string]json.RawMessage
		if len(in) == 0 || json.Unmarshal(in, &m) != nil {
			return nil
		}
		in, t = m[t.fields[step].physical], t.fields[step].typ
	}
	return in
}
