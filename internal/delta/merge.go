package delta

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/tarndb/tarn"
)

// Merge is a set of changes by key. A key may occur once, in one of the batches.
type Merge struct {
	Keys    []string          // columns that tell rows apart; none may be null
	Upserts arrow.RecordBatch // whole rows, as for Append; nil = none
	Deletes arrow.RecordBatch // at least the key columns; nil = none
}

// MergeCounts tells what a merge did, in rows.
type MergeCounts struct {
	Inserted, Updated, Deleted int64
	FilesRead                  int // others were left out by their statistics
}

// Merge replaces the rows whose key is among the upserts, appends upserts whose
// key the table has not, and deletes the rows whose key is among the deletes.
// Memory holds the keys. Rows go as Delete says; with a change data feed the
// commit tells what every row was and is.
func (x *Tx) Merge(ctx context.Context, m Merge) (MergeCounts, error) {
	n, err := rowChange{x}.merge(ctx, m)
	if err != nil {
		return MergeCounts{}, x.broken(fmt.Errorf("merge into %s: %w", x.table.name(), err))
	}
	x.operation = "MERGE"
	x.params["predicate"] = jsonText(m.Keys)
	x.metrics = map[string]any{
		"numTargetRowsInserted": strconv.FormatInt(n.Inserted, 10), "numTargetRowsUpdated": strconv.FormatInt(n.Updated, 10),
		"numTargetRowsDeleted": strconv.FormatInt(n.Deleted, 10),
	}
	return n, nil
}

// mergeKeys are the keys of a merge. A key's value is the row of the upserts, or
// -1 for a delete.
type mergeKeys struct {
	at    map[string]int
	where *condition // what every row with one of the keys satisfies
}

func (x rowChange) merge(ctx context.Context, m Merge) (n MergeCounts, err error) {
	if err := x.beginRows(); err != nil {
		return n, err
	}
	keyAt, err := x.keyColumns(m.Keys)
	if err != nil {
		return n, err
	}
	var upserts []arrow.Array
	if m.Upserts != nil {
		if upserts, err = x.tableColumns(ctx, m.Upserts); err != nil {
			return n, err
		}
		defer release(upserts)
	}
	keys, err := x.mergeKeys(ctx, m, keyAt, upserts)
	if err != nil || len(keys.at) == 0 {
		return n, err
	}
	x.reads.where = append(x.reads.where, keys.where)
	found := make(map[int]bool) // rows of the upserts that replace one
	victims, updates, err := x.findKeys(ctx, keys, keyAt, found, &n)
	if err != nil {
		return n, err
	}
	if len(victims) > 0 {
		if err := x.beginFeed(); err != nil {
			return n, err
		}
	}
	for i, v := range victims {
		if x.feeding {
			err := x.each(ctx, v.add, updates[i], func(c []arrow.Array, n int) error { return x.feed(ctx, c, n, PreUpdated) })
			if err != nil {
				return n, err
			}
			deletes := roaring64.AndNot(v.rows, updates[i])
			err = x.each(ctx, v.add, deletes, func(c []arrow.Array, n int) error { return x.feed(ctx, c, n, Deleted) })
			if err != nil {
				return n, err
			}
		}
		if err := x.drop(ctx, v); err != nil {
			return n, err
		}
	}
	if m.Upserts == nil {
		return n, nil
	}
	n.Inserted = m.Upserts.NumRows() - int64(len(found))
	return n, x.writeUpserts(ctx, upserts, int(m.Upserts.NumRows()), found)
}

// writeUpserts appends the new rows and feeds them by what they are.
func (x rowChange) writeUpserts(ctx context.Context, columns []arrow.Array, n int, found map[int]bool) error {
	for from := 0; from < n; from += appendRows {
		to := min(from+appendRows, n)
		part := make([]arrow.Array, len(columns))
		for i, c := range columns {
			part[i] = array.NewSlice(c, int64(from), int64(to))
		}
		err := x.rows.add(ctx, part, to-from)
		if err == nil && x.feeding {
			var news, olds []int32
			for i := range to - from {
				if found[from+i] {
					olds = append(olds, int32(i))
				} else {
					news = append(news, int32(i))
				}
			}
			if err = x.feedRows(ctx, part, olds, PostUpdated); err == nil {
				err = x.feedRows(ctx, part, news, Inserted)
			}
		}
		release(part)
		if err != nil {
			return err
		}
	}
	return nil
}

func (x rowChange) feedRows(ctx context.Context, columns []arrow.Array, rows []int32, typ ChangeType) error {
	if len(rows) == 0 {
		return nil
	}
	picked, err := take(ctx, columns, rows)
	if err != nil {
		return err
	}
	defer release(picked)
	return x.feed(ctx, picked, len(rows), typ)
}

// keyColumns gives the positions of the key columns.
func (x rowChange) keyColumns(names []string) ([]int, error) {
	if len(names) == 0 {
		return nil, tarn.Invalid("a merge needs key columns")
	}
	var out []int
	for _, name := range names {
		i := x.schema.fieldIndex(name)
		if i < 0 {
			return nil, tarn.Invalid("the table has no column %s", name)
		}
		if _, err := datumKindOf(x.schema.fields[i].typ); err != nil {
			return nil, tarn.Invalid("key column %s: %w", name, err)
		}
		if slices.Contains(out, i) {
			return nil, tarn.Invalid("key column %s is named twice", name)
		}
		out = append(out, i)
	}
	return out, nil
}

// mergeKeys gathers the keys of both batches.
func (x rowChange) mergeKeys(ctx context.Context, m Merge, keyAt []int, upserts []arrow.Array) (*mergeKeys, error) {
	k := &mergeKeys{at: map[string]int{}}
	bounds := make([][2]datum, len(keyAt))
	var some []datum // of a single key column, while few
	take := func(columns []arrow.Array, n int, upsert bool) error {
		var key []byte
		for i := range n {
			var err error
			if key, err = x.appendKey(key[:0], columns, keyAt, i); err != nil {
				return err
			}
			if _, twice := k.at[string(key)]; twice {
				return tarn.Invalid("the key of row %d occurs twice", i)
			}
			k.at[string(key)] = -1
			if upsert {
				k.at[string(key)] = i
			}
			for c := range keyAt {
				d, _ := datumAt(columns[c], i, x.schema.fields[keyAt[c]].typ)
				if len(k.at) == 1 {
					bounds[c] = [2]datum{d, d}
				}
				if o, ok := d.compare(bounds[c][0]); ok && o < 0 {
					bounds[c][0] = d
				}
				if o, ok := d.compare(bounds[c][1]); ok && o > 0 {
					bounds[c][1] = d
				}
				if len(keyAt) == 1 && len(some) <= maxListedKeys {
					some = append(some, d)
				}
			}
		}
		return nil
	}
	if upserts != nil {
		var columns []arrow.Array
		for _, i := range keyAt {
			columns = append(columns, upserts[i])
		}
		if err := take(columns, int(m.Upserts.NumRows()), true); err != nil {
			return nil, fmt.Errorf("upserts: %w", err)
		}
	}
	if m.Deletes != nil {
		columns, err := x.keysOf(ctx, m.Deletes, keyAt)
		if err != nil {
			return nil, fmt.Errorf("deletes: %w", err)
		}
		defer release(columns)
		if err := take(columns, int(m.Deletes.NumRows()), false); err != nil {
			return nil, fmt.Errorf("deletes: %w", err)
		}
	}
	k.where = &condition{op: opAnd}
	for c, i := range keyAt {
		f := x.schema.fields[i]
		if len(keyAt) == 1 && len(some) <= maxListedKeys {
			k.where.of = append(k.where.of, &condition{op: opIn, path: []int{i}, field: f, values: some})
			continue
		}
		k.where.of = append(k.where.of,
			&condition{op: opGe, path: []int{i}, field: f, values: []datum{bounds[c][0]}},
			&condition{op: opLe, path: []int{i}, field: f, values: []datum{bounds[c][1]}})
	}
	return k, nil
}

// maxListedKeys is up to how many keys files are looked for one by one; beyond,
// only by the least and the greatest.
const maxListedKeys = 512

// keysOf gives the key columns of a batch in the table's types.
func (x rowChange) keysOf(ctx context.Context, rec arrow.RecordBatch, keyAt []int) ([]arrow.Array, error) {
	var out []arrow.Array
	for _, k := range keyAt {
		f := x.schema.fields[k]
		i := byName(f, rec.Schema().Fields())
		if i < 0 {
			release(out)
			return nil, tarn.Invalid("no key column %s", f.name)
		}
		c, err := (converter{byName, refuseNulls}).convert(ctx, rec.Column(i), f.typ)
		if err != nil {
			release(out)
			return nil, tarn.Invalid("column %s: %w", f.name, err)
		}
		out = append(out, c)
	}
	return out, nil
}

// appendKey writes the key of a row so that equal keys, and only those, are
// equal bytes.
func (x rowChange) appendKey(out []byte, columns []arrow.Array, keyAt []int, i int) ([]byte, error) {
	for c, k := range keyAt {
		f := x.schema.fields[k]
		d, ok := datumAt(columns[c], i, f.typ)
		if !ok {
			return nil, tarn.Invalid("key column %s is null in row %d", f.name, i)
		}
		switch d.kind {
		case datumInt:
			out = binary.BigEndian.AppendUint64(out, uint64(d.int))
		case datumFloat:
			if math.IsNaN(d.float) {
				return nil, tarn.Invalid("key column %s is NaN in row %d", f.name, i)
			}
			out = binary.BigEndian.AppendUint64(out, math.Float64bits(d.float+0)) // -0 equals 0
		case datumText:
			out = binary.AppendUvarint(out, uint64(len(d.text)))
			out = append(out, d.text...)
		case datumRat:
			text := d.rat.RatString()
			out = binary.AppendUvarint(out, uint64(len(text)))
			out = append(out, text...)
		}
	}
	return out, nil
}

// findKeys finds the rows with one of the keys; updates are, per victim, those
// that an upsert replaces.
func (x rowChange) findKeys(ctx context.Context, k *mergeKeys, keyAt []int, found map[int]bool, n *MergeCounts) (victims []*victim, updates []*roaring64.Bitmap, err error) {
	columns := slices.Clone(keyAt)
	slices.Sort(columns)
	var key []byte
	for _, a := range x.base.sortedFiles() {
		if x.gone[a.key()] != nil || !x.base.mayHold(a, k.where) {
			continue
		}
		n.FilesRead++
		updated := roaring64.New()
		v, err := x.findIn(ctx, a, columns, func(rec arrow.RecordBatch, first uint64, hit func(int) bool) error {
			batch := make([]arrow.Array, len(keyAt))
			for c, i := range keyAt {
				batch[c] = rec.Column(slices.Index(columns, i))
			}
			for i := range int(rec.NumRows()) {
				if slices.ContainsFunc(batch, func(c arrow.Array) bool { return c.IsNull(i) }) {
					continue
				}
				var err error
				if key, err = x.appendKey(key[:0], batch, keyAt, i); err != nil {
					continue // NaN equals nothing
				}
				at, ok := k.at[string(key)]
				switch {
				case !ok || !hit(i):
				case at < 0:
					n.Deleted++
				default:
					n.Updated++
					found[at] = true
					updated.Add(first + uint64(i))
				}
			}
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
		if v != nil {
			victims, updates = append(victims, v), append(updates, updated)
		}
	}
	return victims, updates, nil
}
