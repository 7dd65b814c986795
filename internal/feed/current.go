package feed

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/delta"
)

const (
	// mergeRows are merged in one commit.
	mergeRows = 100_000
	// currentApp is the app transaction of a derived table: its version is that
	// of the history it has.
	currentApp = "tarn/feed/history"
)

// derivation brings a derived table from one version of a history to another.
type derivation struct {
	history  *delta.Table
	target   *delta.Table
	from, to int64 // versions of the history; from -1 = all
	snap     *delta.Snapshot
	key      []string // Delta columns of the primary key
}

// batches yields what the versions added. It may be run more than once.
func (d *derivation) batches(ctx context.Context, columns []string) iter.Seq2[arrow.RecordBatch, error] {
	if d.from < 0 {
		return d.snap.Scan(ctx, delta.ScanOptions{Columns: columns})
	}
	return func(yield func(arrow.RecordBatch, error) bool) {
		for c, err := range d.history.Changes(ctx, delta.ChangeOptions{From: d.from + 1, To: d.to, Columns: columns}) {
			if !yield(c.Rows, err) {
				return
			}
		}
	}
}

// What the names of derived tables end with, in place of _history.
const (
	currentSuffix   = ""
	intervalsSuffix = "_scd2"
)

func derivedName(history, suffix string) string {
	return strings.TrimSuffix(history, "_history") + suffix
}

// derive opens a derived table, making it where it is missing; nil = there is
// nothing to do.
func (u *upkeep) derive(ctx context.Context, t tarn.FeedTable, h *delta.Table, suffix, comment string, extra []delta.Field) (*derivation, error) {
	snap, err := h.Latest(ctx)
	if err != nil {
		return nil, err
	}
	name := derivedName(t.Target.Table, suffix)
	target := tarn.TableName{Catalog: t.Target.Catalog, Schema: t.Target.Schema, Table: name}
	d := &derivation{history: h, snap: snap, to: snap.Version(), from: -1}
	if d.target = u.tables[target]; d.target == nil {
		key, err := u.key(ctx, t.PostgresTable)
		if err != nil || len(key) == 0 {
			return nil, err
		}
		fields := sourceFields(*snap.Schema())
		for i := range fields {
			fields[i].Nullable = true
		}
		d.target, err = u.openSide(ctx, name, fmt.Sprintf("%s of %s.%s of %s", comment, u.row.PostgresSchema, t.PostgresTable, u.row.Branch), func() (delta.Metadata, error) {
			return delta.Metadata{Name: name, Schema: delta.Schema{Fields: slices.Concat(fields, extra)}, Properties: map[string]string{changeFeedProperty: "true"}}, nil
		})
		if err != nil {
			return nil, err
		}
		u.tables[target] = d.target
	}
	have, err := d.target.Latest(ctx)
	if err != nil {
		return nil, err
	}
	if v, ok := have.AppTxn(currentApp); ok && v >= d.to {
		return nil, nil
	} else if ok {
		d.from = v
		// A history that told no changes then, or whose log is gone by now,
		// is read as a whole.
		if c, err := h.ChangesAvailable(ctx, v+1, d.to); err != nil || !c.Feed || c.SchemaChanged && !c.Additive {
			d.from = -1
		}
	}
	key, err := u.key(ctx, t.PostgresTable)
	if err != nil || len(key) == 0 {
		return nil, err
	}
	for _, k := range key {
		names := fieldsOf(*snap.Schema(), k)
		if len(names) == 0 {
			return nil, nil // the history does not have it yet
		}
		d.key = append(d.key, names[0])
	}
	if err := tellChanges(ctx, h, snap); err != nil {
		return nil, err
	}
	return d, d.widen(ctx, have)
}

// tellChanges makes a history say what each version changed, where it does not.
func tellChanges(ctx context.Context, h *delta.Table, snap *delta.Snapshot) error {
	if snap.Properties()[changeFeedProperty] == "true" {
		return nil
	}
	tx := h.Begin(snap)
	err := tx.SetProperties(map[string]string{changeFeedProperty: "true"})
	if err == nil {
		_, err = tx.Commit(ctx, delta.CommitOptions{Operation: "SET TBLPROPERTIES"})
	}
	if err != nil {
		tx.Abort(ctx)
		return fmt.Errorf("enable the change data feed: %w", err)
	}
	return nil
}

const changeFeedProperty = "delta.enableChangeDataFeed"

// sourceFields are the columns of a history that came from Postgres.
func sourceFields(s delta.Schema) []delta.Field {
	return slices.DeleteFunc(slices.Clone(s.Fields), func(f delta.Field) bool { return systemOf(f) != notSystem })
}

// widen adds the columns that came to the history.
func (d *derivation) widen(ctx context.Context, have *delta.Snapshot) error {
	schema := delta.Schema{Fields: slices.Clone(have.Schema().Fields)}
	for _, f := range sourceFields(*d.snap.Schema()) {
		if !hasField(schema, f.Name) {
			f.Nullable = true
			schema.Fields = append(schema.Fields, f)
		}
	}
	if len(schema.Fields) == len(have.Schema().Fields) {
		return nil
	}
	tx := d.target.Begin(have)
	err := tx.SetSchema(schema)
	if err == nil {
		_, err = tx.Commit(ctx, delta.CommitOptions{Operation: "ADD COLUMNS"})
	}
	if err != nil {
		tx.Abort(ctx)
		return fmt.Errorf("add columns: %w", err)
	}
	return nil
}

// place is the last change of a key.
type place struct {
	sortBy string
	gone   bool
}

// current keeps lb_<table>: the rows as they are after what the history has.
//
//  1. the last change of each key is found     memory holds the keys that changed
//  2. those rows are merged, mergeRows a commit     again after a crash, with the same result
//  3. the last commit carries the history's version
func (u *upkeep) current(ctx context.Context, t tarn.FeedTable, h *delta.Table) error {
	d, err := u.derive(ctx, t, h, currentSuffix, "current rows", nil)
	if err != nil || d == nil {
		return err
	}
	last, cleared, err := d.last(ctx)
	if err != nil {
		return err
	}
	m := &merging{derivation: d, keys: d.key, clear: cleared || d.from < 0}
	defer m.release()
	if err := m.upserts(ctx, last); err != nil {
		return err
	}
	return m.finish(ctx)
}

// last finds the last change of each key behind the last truncate row; cleared
// reports that there was one.
func (d *derivation) last(ctx context.Context) (last map[string]place, cleared bool, err error) {
	last = map[string]place{}
	begin := ""
	for rec, err := range d.batches(ctx, append([]string{changeTypeColumn, sortByColumn}, d.key...)) {
		if err != nil {
			return nil, false, err
		}
		kinds, places, keys := textColumn(rec, changeTypeColumn), textColumn(rec, sortByColumn), keyReader(rec, d.key)
		for i := range int(rec.NumRows()) {
			kind, at := changeKind(kinds.Value(i)), places.Value(i)
			if kind == changeTruncate {
				begin = max(begin, strings.Clone(at))
				continue
			}
			key, ok := keys(i)
			if !ok {
				continue // of a key column's earlier type: a copy follows
			}
			if p, seen := last[string(key)]; seen && p.sortBy > at {
				continue
			}
			last[string(key)] = place{strings.Clone(at), kind == changeDelete || kind == changePreimage}
		}
		rec.Release()
	}
	if begin != "" {
		for k, p := range last {
			if p.sortBy < begin {
				delete(last, k)
			}
		}
	}
	return last, begin != "", nil
}

// keyReader gives a row's key as bytes; ok is false when a part of it is NULL.
func keyReader(rec arrow.RecordBatch, key []string) func(row int) (k []byte, ok bool) {
	cols := make([]arrow.Array, len(key))
	for i, n := range key {
		cols[i] = rec.Column(rec.Schema().FieldIndices(n)[0])
	}
	var buf []byte
	return func(row int) ([]byte, bool) {
		buf = buf[:0]
		for _, c := range cols {
			if c.IsNull(row) {
				return nil, false
			}
			text := c.ValueStr(row)
			buf = append(binary.AppendUvarint(buf, uint64(len(text))), text...)
		}
		return buf, true
	}
}

// merging writes a derived table in commits of bounded size.
type merging struct {
	*derivation
	keys  []string            // that tell rows of the target apart
	clear bool                // the table is emptied by the first commit
	rows  []arrow.RecordBatch // whole rows to be upserted
	gone  []arrow.RecordBatch // keys to be deleted
	count int64
}

// upserts takes the row, or the key, of every last change.
func (m *merging) upserts(ctx context.Context, last map[string]place) error {
	if len(last) == 0 {
		return nil
	}
	for rec, err := range m.batches(ctx, nil) {
		if err != nil {
			return err
		}
		places, keys := textColumn(rec, sortByColumn), keyReader(rec, m.key)
		var rows, gone []int32
		for i := range int(rec.NumRows()) {
			key, ok := keys(i)
			if !ok {
				continue
			}
			switch p, is := last[string(key)]; {
			case !is || p.sortBy != places.Value(i):
			case p.gone:
				gone = append(gone, int32(i))
			default:
				rows = append(rows, int32(i))
			}
		}
		err = m.take(ctx, rec, rows, gone)
		rec.Release()
		if err != nil {
			return err
		}
		if m.count >= mergeRows {
			if err := m.commit(ctx, notLast); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *merging) take(ctx context.Context, rec arrow.RecordBatch, rows, gone []int32) error {
	keep := map[string]bool{}
	for _, f := range sourceFields(*m.snap.Schema()) {
		keep[f.Name] = true
	}
	for _, part := range []struct {
		rows []int32
		into *[]arrow.RecordBatch
		want func(name string) bool
	}{
		{rows, &m.rows, func(n string) bool { return keep[n] }},
		{gone, &m.gone, func(n string) bool { return slices.Contains(m.key, n) }},
	} {
		if len(part.rows) == 0 {
			continue
		}
		r, err := pick(ctx, rec, part.rows, part.want)
		if err != nil {
			return err
		}
		*part.into = append(*part.into, r)
		m.count += int64(len(part.rows))
	}
	return nil
}

// pick copies some rows of some columns.
func pick(ctx context.Context, rec arrow.RecordBatch, rows []int32, want func(string) bool) (arrow.RecordBatch, error) {
	b := array.NewInt32Builder(memory.DefaultAllocator)
	defer b.Release()
	b.AppendValues(rows, nil)
	index := b.NewArray()
	defer index.Release()
	var fields []arrow.Field
	var cols []arrow.Array
	defer func() {
		for _, c := range cols {
			c.Release()
		}
	}()
	for i, f := range rec.Schema().Fields() {
		if !want(f.Name) {
			continue
		}
		c, err := compute.TakeArray(ctx, rec.Column(i), index)
		if err != nil {
			return nil, err
		}
		fields, cols = append(fields, f), append(cols, c)
	}
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, int64(len(rows))), nil
}

// join makes one batch of several of one schema; nil of none.
func join(parts []arrow.RecordBatch) (arrow.RecordBatch, error) {
	if len(parts) == 0 {
		return nil, nil
	}
	cols := make([]arrow.Array, parts[0].NumCols())
	defer func() {
		for _, c := range cols {
			if c != nil {
				c.Release()
			}
		}
	}()
	rows := int64(0)
	for _, p := range parts {
		rows += p.NumRows()
	}
	for i := range cols {
		var all []arrow.Array
		for _, p := range parts {
			all = append(all, p.Column(i))
		}
		var err error
		if cols[i], err = array.Concatenate(all, memory.DefaultAllocator); err != nil {
			return nil, err
		}
	}
	return array.NewRecordBatch(parts[0].Schema(), cols, rows), nil
}

func (m *merging) release() {
	for _, p := range slices.Concat(m.rows, m.gone) {
		p.Release()
	}
	m.rows, m.gone, m.count = nil, nil, 0
}

// finality says whether a commit carries the history's version.
type finality int

const (
	notLast finality = iota
	isLast
)

func (m *merging) finish(ctx context.Context) error { return m.commit(ctx, isLast) }

func (m *merging) commit(ctx context.Context, f finality) error {
	snap, err := m.target.Latest(ctx)
	if err != nil {
		return err
	}
	rows, err := join(m.rows)
	if err != nil {
		return err
	}
	gone, err := join(m.gone)
	if err != nil {
		return err
	}
	tx := m.target.Begin(snap)
	err = func() error {
		switch {
		case m.clear:
			tx.Overwrite()
			if rows != nil {
				return tx.Append(ctx, rows)
			}
			return nil
		case rows == nil && gone == nil:
			return nil
		}
		_, err := tx.Merge(ctx, delta.Merge{Keys: m.keys, Upserts: rows, Deletes: gone})
		return err
	}()
	if err == nil {
		if f == isLast {
			tx.SetAppTxn(currentApp, m.to)
		}
		_, err = tx.Commit(ctx, delta.CommitOptions{Operation: "MERGE"})
	}
	for _, r := range []arrow.RecordBatch{rows, gone} {
		if r != nil {
			r.Release()
		}
	}
	if err != nil {
		tx.Abort(ctx)
		if !errors.Is(err, delta.ErrAppliedTxn) {
			return err
		}
	}
	m.clear = false
	m.release()
	return nil
}
