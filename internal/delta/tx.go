package delta

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn"
)

// Bounds of what one Tx keeps open: each open file has a goroutine that
// uploads it and a row group in memory.
const (
	maxOpenFiles = 64
	maxHeldBytes = 256 << 20
	appendRows   = 64 << 10 // rows written between looks at the bounds
)

// Tx is one commit being prepared on top of a snapshot. One goroutine uses it.
//
//	open ──Commit──▶ committed
//	 │  └──────────▶ unknown    (the log could not be read back)
//	 ├──Commit fails─▶ open     (a conflict, a full disk)
//	 └──Abort──▶ aborted
//
// In every state but unknown and committed, Abort deletes the files. End a Tx by
// a Commit that succeeds or by Abort: one that is only dropped leaves a
// goroutine for each open file.
type Tx struct {
	table   *Table
	base    *Snapshot
	state   txState
	failed  error                  // first error of Append; the files are not whole
	open    map[string]*fileWriter // by partition
	files   []*addAction           // finished
	keys    []string               // of every file begun, for Abort
	removes bool                   // Overwrite was called
	txn     *txnAction
	schema  *dataType // of the base, or as SetSchema made it
	changed bool      // SetSchema changed it
}

type txState uint8

const (
	txOpen txState = iota
	txCommitted
	txUnknown
	txAborted
)

// Begin starts a commit. A blind append is rebased on conflict; others are not.
func (t *Table) Begin(base *Snapshot) *Tx {
	return &Tx{table: t, base: base, open: map[string]*fileWriter{}, schema: base.schema}
}

// usable refuses work on a Tx that is over or broken.
func (x *Tx) usable() error {
	switch {
	case x.state == txCommitted:
		return tarn.Invalid("the transaction is committed")
	case x.state == txAborted:
		return tarn.Invalid("the transaction is aborted")
	case x.state == txUnknown:
		return tarn.Unavailable("the transaction's outcome is unknown")
	}
	return x.failed
}

// Append writes rows (columns by name, partition values taken from the rows) as
// new data files; repeated calls add up. Rows are sorted into partitions. A
// column left out is null. The log has one text for the empty string and for
// null, so an empty string in a partition column is read back as null. After
// an error only Abort is of use.
func (x *Tx) Append(ctx context.Context, rec arrow.RecordBatch) error {
	if err := x.usable(); err != nil {
		return fmt.Errorf("append to %s: %w", x.table.name(), err)
	}
	if err := x.append(ctx, rec); err != nil {
		x.failed = fmt.Errorf("append to %s: %w", x.table.name(), err)
		return x.failed
	}
	return nil
}

func (x *Tx) append(ctx context.Context, rec arrow.RecordBatch) error {
	if err := x.base.checkWritable(); err != nil {
		return err
	}
	for from := int64(0); from < rec.NumRows(); from += appendRows {
		part := rec.NewSlice(from, min(from+appendRows, rec.NumRows()))
		err := x.appendPart(ctx, part)
		part.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *Tx) appendPart(ctx context.Context, rec arrow.RecordBatch) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	columns, err := x.tableColumns(ctx, rec)
	if err != nil {
		return err
	}
	defer release(columns)
	parts, err := x.split(columns, int(rec.NumRows()))
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := x.write(ctx, p, columns); err != nil {
			return err
		}
	}
	return nil
}

func release(columns []arrow.Array) {
	for _, c := range columns {
		c.Release()
	}
}

// tableColumns brings rec's columns into the order and types of the table.
func (x *Tx) tableColumns(ctx context.Context, rec arrow.RecordBatch) (columns []arrow.Array, err error) {
	defer func() {
		if err != nil {
			release(columns)
		}
	}()
	have := rec.Schema().Fields()
	found := 0
	for _, f := range x.schema.fields {
		var c arrow.Array
		if i := byName(f, have); i >= 0 {
			found++
			if c, err = (converter{byName, refuseNulls}).convert(ctx, rec.Column(i), f.typ); err != nil {
				return columns, tarn.Invalid("column %s: %w", f.name, err)
			}
		} else {
			at, err := f.typ.arrow()
			if err != nil {
				return columns, err
			}
			c = array.MakeArrayOfNull(memory.DefaultAllocator, at, int(rec.NumRows()))
		}
		columns = append(columns, c)
		if !f.nullable && c.NullN() > 0 {
			return columns, tarn.Invalid("column %s must have a value in every row", f.name)
		}
	}
	if found < len(have) {
		for _, h := range have {
			if !slices.ContainsFunc(x.schema.fields, func(f field) bool { return f.name == h.Name }) {
				return columns, tarn.Invalid("the table has no column %s", h.Name)
			}
		}
		return columns, tarn.Invalid("two columns of one name")
	}
	return columns, nil
}

// partitionRows are the rows of a batch that belong to one partition.
type partitionRows struct {
	key    string
	values []*string // by partition column
	rows   []int32   // nil = all
}

// split sorts the n rows into partitions, in order of first appearance.
func (x *Tx) split(columns []arrow.Array, n int) ([]*partitionRows, error) {
	names := x.base.state.metadata.PartitionColumns
	if len(names) == 0 {
		return []*partitionRows{{}}, nil
	}
	var parts []*partitionRows
	byKey := map[string]*partitionRows{}
	var key []byte
	values := make([]*string, len(names))
	for row := range n {
		key = key[:0]
		for i, name := range names {
			at := x.fieldIndex(name)
			v, err := partitionText(columns[at], row, x.schema.fields[at].typ)
			if err != nil {
				return nil, tarn.Invalid("column %s: %w", name, err)
			}
			if values[i] = v; v == nil {
				key = append(key, 0)
			} else {
				key = binary.AppendUvarint(key, uint64(len(*v))+1)
				key = append(key, *v...)
			}
		}
		p := byKey[string(key)]
		if p == nil {
			p = &partitionRows{key: string(key), values: slices.Clone(values)}
			byKey[p.key] = p
			parts = append(parts, p)
		}
		p.rows = append(p.rows, int32(row))
	}
	return parts, nil
}

func (x *Tx) fieldIndex(name string) int {
	return slices.IndexFunc(x.schema.fields, func(f field) bool { return f.name == name })
}

// isPartition tells whether a column lives in the log instead of the files.
func (x *Tx) isPartition(name string) bool {
	return slices.Contains(x.base.state.metadata.PartitionColumns, name)
}

// write adds the rows of p to the partition's open file.
func (x *Tx) write(ctx context.Context, p *partitionRows, columns []arrow.Array) error {
	var fields []field
	var data []arrow.Array
	for i, f := range x.schema.fields {
		if !x.isPartition(f.name) {
			fields, data = append(fields, f), append(data, columns[i])
		}
	}
	schema, err := arrowSchema(fields)
	if err != nil {
		return err
	}
	n := columns[0].Len()
	if p.rows != nil && len(p.rows) < n {
		n = len(p.rows)
		if data, err = take(ctx, data, p.rows); err != nil {
			return err
		}
		defer release(data)
	}
	rec := array.NewRecordBatch(schema, data, int64(n))
	defer rec.Release()
	w, err := x.writer(ctx, p, fields)
	if err != nil {
		return err
	}
	if err := w.write(ctx, rec); err != nil {
		return fmt.Errorf("write %s: %w", w.key, err)
	}
	return x.bound(ctx, p.key)
}

// take picks rows of every column.
func take(ctx context.Context, columns []arrow.Array, rows []int32) ([]arrow.Array, error) {
	b := array.NewInt32Builder(memory.DefaultAllocator)
	defer b.Release()
	b.AppendValues(rows, nil)
	index := b.NewArray()
	defer index.Release()
	out := make([]arrow.Array, 0, len(columns))
	for _, c := range columns {
		t, err := compute.TakeArray(ctx, c, index)
		if err != nil {
			release(out)
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// writer gives the partition's open file.
func (x *Tx) writer(ctx context.Context, p *partitionRows, fields []field) (*fileWriter, error) {
	if w := x.open[p.key]; w != nil {
		return w, nil
	}
	names := x.base.state.metadata.PartitionColumns
	values := make(map[string]*string, len(names))
	for i, n := range names {
		values[x.schema.fields[x.fieldIndex(n)].physical] = p.values[i]
	}
	w, err := x.table.newFileWriter(ctx, len(x.keys), partitionFolder(names, p.values), values, fields, x.base.statColumns())
	if err != nil {
		return nil, err
	}
	x.open[p.key] = w
	x.keys = append(x.keys, x.table.key(w.key))
	return w, nil
}

// statColumns is how many leaves get statistics.
func (s *Snapshot) statColumns() int {
	n, err := strconv.Atoi(propertyOf(s.state.metadata.Configuration, "delta.dataSkippingNumIndexedCols"))
	if err != nil {
		return defaultStatColumns
	}
	return n
}

// bound finishes files until those open keep to the bounds.
func (x *Tx) bound(ctx context.Context, last string) error {
	if x.open[last].full() {
		if err := x.finishFile(ctx, last); err != nil {
			return err
		}
	}
	for {
		var held int64
		biggest, size := "", int64(-1)
		for key, w := range x.open {
			h := w.held()
			held += h
			if h > size {
				biggest, size = key, h
			}
		}
		if len(x.open) <= maxOpenFiles && held <= maxHeldBytes {
			return nil
		}
		if err := x.finishFile(ctx, biggest); err != nil {
			return err
		}
	}
}

func (x *Tx) finishFile(ctx context.Context, key string) error {
	w := x.open[key]
	delete(x.open, key)
	a, err := w.finish(ctx)
	if err != nil {
		return err
	}
	x.files = append(x.files, a)
	return nil
}

// finishFiles makes every open file durable.
func (x *Tx) finishFiles(ctx context.Context) error {
	keys := make([]string, 0, len(x.open))
	for key := range x.open {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if err := x.finishFile(ctx, key); err != nil {
			x.failed = err
			return err
		}
	}
	return nil
}

// Overwrite marks every file of the base snapshot for removal.
func (x *Tx) Overwrite() { x.removes = true }

// SetAppTxn makes the commit carry a txn action; Commit fails with ErrAppliedTxn
// when the table's version for appID is already >= version.
func (x *Tx) SetAppTxn(appID string, version int64) {
	x.txn = &txnAction{AppID: appID, Version: version}
}

// SetSchema adds nullable columns at the end (additive evolution only). Call it
// before the Append that brings their values.
func (x *Tx) SetSchema(s Schema) error {
	if err := x.usable(); err != nil {
		return fmt.Errorf("change schema of %s: %w", x.table.name(), err)
	}
	t, err := s.parse()
	if err != nil {
		return fmt.Errorf("change schema of %s: %w", x.table.name(), err)
	}
	have := x.schema.fields
	if len(t.fields) < len(have) {
		return fmt.Errorf("change schema of %s: %w", x.table.name(), tarn.Invalid("columns cannot be dropped"))
	}
	for i, f := range have {
		n := t.fields[i]
		if n.name != f.name || n.typ.text() != f.typ.text() || n.nullable != f.nullable {
			return fmt.Errorf("change schema of %s: %w", x.table.name(), tarn.Invalid("column %d is %s %s, not %s %s", i+1, f.name, f.typ.text(), n.name, n.typ.text()))
		}
		t.fields[i] = f // with the metadata it has
	}
	for _, f := range t.fields[len(have):] {
		if !f.nullable {
			return fmt.Errorf("change schema of %s: %w", x.table.name(), tarn.Invalid("the new column %s must be nullable", f.name))
		}
	}
	if err := t.checkWritable(); err != nil {
		return fmt.Errorf("change schema of %s: %w", x.table.name(), err)
	}
	if len(t.fields) == len(have) {
		return nil
	}
	if len(x.open) > 0 {
		return fmt.Errorf("change schema of %s: %w", x.table.name(), tarn.Invalid("rows of the old schema are being written"))
	}
	x.schema, x.changed = t, true
	return nil
}

// Abort deletes files written so far, unless they are, or may be, part of the
// table. It may be called at any time, and again.
func (x *Tx) Abort(ctx context.Context) {
	for key, w := range x.open {
		w.up.abort()
		delete(x.open, key)
	}
	if x.state != txOpen {
		return
	}
	x.state = txAborted
	discard(ctx, x.table.store, x.keys)
}
