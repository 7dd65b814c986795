package delta

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn"
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
	failed  error                 // first error of a write; the files are not whole
	rows    fileSet               // data files
	fed     fileSet               // change data files
	keys    []string              // of every file begun, for Abort
	gone    map[fileKey]*goneFile // files of the base that the commit removes
	back    []*addAction          // files that Restore brings back
	reads   readSet
	txn     *txnAction
	quiet   bool // Optimize: no row changes
	vectors dvFile

	rules
	told
	feeding  bool       // change files tell the whole commit
	must     *condition // what every appended row must satisfy; nil = nothing
	mustText string
}

// rules are what rows have to keep to: those of the base, or as changed.
type rules struct {
	schema   *dataType
	mapping  mapping
	metadata *metadataAction // nil = the base's
	protocol *protocolAction // nil = the base's
}

// told is what commitInfo will say of the calls that were made.
type told struct {
	params     map[string]any // operationParameters
	metrics    map[string]any // beside those of files
	operation  string         // "" = WRITE
	schemaOnly string         // operation, when no rows change
}

// goneFile is a file of the base that the commit removes, or gives another
// deletion vector.
type goneFile struct {
	was *addAction
	now *addAction // nil = removed
}

type txState uint8

const (
	txOpen txState = iota
	txCommitted
	txUnknown
	txAborted
)

// Begin starts a commit. When others commit in between, it is rebased on their
// versions as long as they did not touch what it read or removes; a blind append
// reads nothing.
func (t *Table) Begin(base *Snapshot) *Tx {
	x := &Tx{
		table: t, base: base, gone: map[fileKey]*goneFile{},
		rules: rules{schema: base.schema, mapping: base.mapping}, told: told{params: map[string]any{}},
	}
	x.rows = fileSet{tx: x, open: map[string]*fileWriter{}}
	x.fed = fileSet{tx: x, folder: changeFolder, extra: []field{changeTypeField()}, open: map[string]*fileWriter{}}
	return x
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
	n := int(rec.NumRows())
	if x.must != nil {
		for i, t := range x.must.eval(func(i int) arrow.Array { return columns[i] }, n) {
			if t != isTrue {
				return tarn.Invalid("row %d is not where %s, which the transaction overwrites", i, x.mustText)
			}
		}
	}
	if x.feeding {
		if err := (rowChange{x}).feed(ctx, columns, n, Inserted); err != nil {
			return err
		}
	}
	return x.rows.add(ctx, columns, n)
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
			if _, ok := f.metadata["CURRENT_DEFAULT"]; ok {
				// Others fill a column left out by its default, which is SQL.
				return columns, &UnsupportedError{Feature: "allowColumnDefaults (give a value for column " + f.name + ")", Writing: true}
			}
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
			at := x.schema.fieldIndex(name)
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

// isPartition tells whether a column lives in the log instead of the files.
func (x *Tx) isPartition(name string) bool {
	return slices.Contains(x.base.state.metadata.PartitionColumns, name)
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

// finishFiles makes everything but the commit durable.
func (x *Tx) finishFiles(ctx context.Context) error {
	err := x.rows.finish(ctx)
	if err == nil {
		err = x.fed.finish(ctx)
	}
	if err == nil {
		err = x.vectors.put(ctx, x)
	}
	x.failed = err
	return err
}

// Overwrite marks every file of the base snapshot for removal.
func (x *Tx) Overwrite() {
	x.reads.all = true
	for _, a := range x.base.state.files {
		x.remove(a)
	}
	x.params["mode"] = "Overwrite"
}

// remove takes a file of the base out of the table.
func (x *Tx) remove(a *addAction) { x.gone[a.key()] = &goneFile{was: a} }

// SetAppTxn makes the commit carry a txn action; Commit fails with ErrAppliedTxn
// when the table's version for appID is already >= version.
func (x *Tx) SetAppTxn(appID string, version int64) {
	x.txn = &txnAction{AppID: appID, Version: version}
}

// Abort deletes files written so far, unless they are, or may be, part of the
// table. It may be called at any time, and again.
func (x *Tx) Abort(ctx context.Context) {
	x.rows.abort()
	x.fed.abort()
	if x.state != txOpen {
		return
	}
	x.state = txAborted
	discard(ctx, x.table.store, x.keys)
}
