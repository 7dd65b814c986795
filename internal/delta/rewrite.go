package delta

import (
	"context"
	"fmt"
	"slices"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn"
)

// changeFolder holds change data files.
const changeFolder = "_change_data/"

func changeTypeField() field {
	return newField(changeTypeColumn, &dataType{kind: kindPrimitive, name: "string"}, true, nil)
}

// rowChange is what a transaction does to rows that are there.
type rowChange struct{ *Tx }

// victim is a file some of whose rows go.
type victim struct {
	add      *addAction
	deleted  *roaring64.Bitmap // rows that are deleted already; never nil
	rows     *roaring64.Bitmap // positions of the rows that go
	physical int64             // rows in the file
}

// whole tells whether no row is left.
func (v *victim) whole() bool {
	return int64(v.rows.GetCardinality()+v.deleted.GetCardinality()) == v.physical
}

// findIn looks for rows of a file; nil when there is none. test gets batches with
// the columns at the given positions of the schema, in their order, and the
// position of the first row; hit marks row i of a batch and tells whether it was
// there still.
func (x rowChange) findIn(ctx context.Context, a *addAction, columns []int, test func(rec arrow.RecordBatch, first uint64, hit func(i int) bool) error) (*victim, error) {
	var fields []field
	for _, i := range columns {
		fields = append(fields, x.base.schema.fields[i])
	}
	schema, err := arrowSchema(fields)
	if err != nil {
		return nil, err
	}
	v := &victim{add: a, rows: roaring64.New()}
	if v.deleted, err = x.base.deleted(ctx, a.DV); err != nil {
		return nil, err
	}
	if v.deleted == nil {
		v.deleted = roaring64.New()
	}
	f := &fileScan{snapshot: x.base, add: a, fields: fields, schema: schema, raw: true}
	err = f.run(ctx, func(rec arrow.RecordBatch) error {
		defer rec.Release()
		first := uint64(v.physical)
		v.physical += rec.NumRows()
		return test(rec, first, func(i int) bool {
			row := first + uint64(i)
			if v.deleted.Contains(row) {
				return false
			}
			v.rows.Add(row)
			return true
		})
	})
	if err != nil || v.rows.IsEmpty() {
		return nil, err
	}
	return v, nil
}

// each hands out rows of a victim, with the table's columns.
func (x rowChange) each(ctx context.Context, a *addAction, only *roaring64.Bitmap, do func(columns []arrow.Array, n int) error) error {
	if only.IsEmpty() {
		return nil
	}
	schema, err := arrowSchema(x.base.schema.fields)
	if err != nil {
		return err
	}
	f := &fileScan{snapshot: x.base, add: a, fields: x.base.schema.fields, schema: schema, only: only}
	return f.run(ctx, func(rec arrow.RecordBatch) error {
		defer rec.Release()
		return do(rec.Columns(), int(rec.NumRows()))
	})
}

// drop takes the victim's rows out of the table: the whole file, by a deletion
// vector where the table wants them, or by writing the other rows anew.
func (x rowChange) drop(ctx context.Context, v *victim) error {
	if v.whole() {
		x.remove(v.add)
		return nil
	}
	gone := roaring64.Or(v.deleted, v.rows)
	if x.base.truth("delta.enableDeletionVectors") {
		d, err := x.vectors.add(gone)
		if err != nil {
			return err
		}
		now, err := v.add.withVector(d, v.physical)
		if err != nil {
			return err
		}
		x.gone[v.add.key()] = &goneFile{was: v.add, now: now}
		return nil
	}
	left := roaring64.New()
	left.AddRange(0, uint64(v.physical))
	left.AndNot(gone)
	if err := x.each(ctx, v.add, left, func(c []arrow.Array, n int) error { return x.rows.add(ctx, c, n) }); err != nil {
		return err
	}
	x.remove(v.add)
	return nil
}

// feed writes rows to the change data files.
func (x rowChange) feed(ctx context.Context, columns []arrow.Array, n int, typ ChangeType) error {
	b := array.NewStringBuilder(memory.DefaultAllocator)
	defer b.Release()
	b.Reserve(n)
	for range n {
		b.Append(string(typ))
	}
	types := b.NewArray()
	defer types.Release()
	return x.fed.add(ctx, append(slices.Clone(columns), types), n)
}

// beginRows checks that rows may be changed and, when the table keeps a change
// data feed, that the whole commit can be told by change files.
func (x rowChange) beginRows() error {
	if err := x.usable(); err != nil {
		return err
	}
	if err := x.base.checkWritable(); err != nil {
		return err
	}
	if x.base.truth("delta.appendOnly") {
		return tarn.Conflict("the table is append-only (delta.appendOnly)")
	}
	if x.metadata != nil {
		return tarn.Invalid("change the schema and the rows in two transactions")
	}
	if len(x.gone) > 0 {
		return tarn.Invalid("a transaction deletes, updates, merges or overwrites once")
	}
	return nil
}

// beginFeed makes change files tell the whole commit.
func (x rowChange) beginFeed() error {
	if !x.base.truth("delta.enableChangeDataFeed") || x.feeding {
		return nil
	}
	if len(x.keys) > 0 || len(x.gone) > 0 {
		return tarn.Invalid("with a change data feed, delete, update and merge come before other changes of a transaction")
	}
	x.feeding = true
	return nil
}

// Delete deletes the rows for which p is true and returns how many those are.
// Files that lose every row are removed; the others get a deletion vector when
// delta.enableDeletionVectors is set, and are written anew when not.
func (x *Tx) Delete(ctx context.Context, p Predicate) (int64, error) {
	n, err := rowChange{x}.deleteRows(ctx, p)
	if err != nil {
		return 0, x.broken(fmt.Errorf("delete from %s: %w", x.table.name(), err))
	}
	x.operation = "DELETE"
	x.params["predicate"] = jsonText([]string{p.String()})
	return n, nil
}

// broken keeps the first error of a write, after which only Abort is of use.
func (x *Tx) broken(err error) error {
	if x.failed == nil && x.state == txOpen {
		x.failed = err
	}
	return err
}

func (x rowChange) deleteRows(ctx context.Context, p Predicate) (int64, error) {
	if err := x.beginRows(); err != nil {
		return 0, err
	}
	c, err := x.base.schema.bind(p)
	if err != nil {
		return 0, err
	}
	if c == nil {
		n, err := x.base.Count(ctx)
		if err != nil {
			return 0, err
		}
		x.Overwrite()
		delete(x.params, "mode")
		return n, nil
	}
	x.reads.where = append(x.reads.where, c)
	victims, err := x.findWhere(ctx, c)
	if err != nil {
		return 0, err
	}
	// Removed files tell their rows themselves: only partly deleted ones need
	// change files, and then all rows stand there.
	if slices.ContainsFunc(victims, func(v *victim) bool { return !v.whole() }) {
		if err := x.beginFeed(); err != nil {
			return 0, err
		}
	}
	n := int64(0)
	for _, v := range victims {
		n += int64(v.rows.GetCardinality())
		if x.feeding {
			err := x.each(ctx, v.add, v.rows, func(c []arrow.Array, n int) error { return x.feed(ctx, c, n, Deleted) })
			if err != nil {
				return 0, err
			}
		}
		if err := x.drop(ctx, v); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// findWhere finds the rows for which c is true.
func (x rowChange) findWhere(ctx context.Context, c *condition) ([]*victim, error) {
	columns := c.columns(nil)
	slices.Sort(columns)
	var out []*victim
	for _, a := range x.base.sortedFiles() {
		if x.gone[a.key()] != nil || !x.base.mayHold(a, c) {
			continue
		}
		v, err := x.findIn(ctx, a, columns, func(rec arrow.RecordBatch, _ uint64, hit func(int) bool) error {
			at := func(i int) arrow.Array { return rec.Column(slices.Index(columns, i)) }
			for i, t := range c.eval(at, int(rec.NumRows())) {
				if t == isTrue {
					hit(i)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if v != nil {
			out = append(out, v)
		}
	}
	return out, nil
}

// OverwriteWhere replaces the rows for which p is true by those that Append
// brings, all of which must satisfy p. Call it before Append.
func (x *Tx) OverwriteWhere(ctx context.Context, p Predicate) error {
	if p.All() {
		x.Overwrite()
		return nil
	}
	if len(x.keys) > 0 {
		return tarn.Invalid("overwrite %s: rows are appended already", x.table.name())
	}
	if _, err := (rowChange{x}).deleteRows(ctx, p); err != nil {
		return x.broken(fmt.Errorf("overwrite %s where %s: %w", x.table.name(), p, err))
	}
	c, err := x.schema.bind(p)
	if err != nil {
		return x.broken(err)
	}
	x.must, x.mustText = c, p.String()
	x.params["mode"], x.params["predicate"] = "Overwrite", p.String()
	return nil
}

// Update changes the rows for which p is true: set gets them in batches of all
// the table's columns, owned by the caller, and gives as many rows to take their
// place, which Update releases. It returns the number of rows.
func (x *Tx) Update(ctx context.Context, p Predicate, set func(arrow.RecordBatch) (arrow.RecordBatch, error)) (int64, error) {
	n, err := rowChange{x}.updateRows(ctx, p, set)
	if err != nil {
		return 0, x.broken(fmt.Errorf("update %s: %w", x.table.name(), err))
	}
	x.operation = "UPDATE"
	x.params["predicate"] = jsonText([]string{p.String()})
	return n, nil
}

func (x rowChange) updateRows(ctx context.Context, p Predicate, set func(arrow.RecordBatch) (arrow.RecordBatch, error)) (int64, error) {
	if err := x.beginRows(); err != nil {
		return 0, err
	}
	c, err := x.base.schema.bind(p)
	if err != nil {
		return 0, err
	}
	if c == nil {
		c = &condition{op: opAnd}
	}
	x.reads.where = append(x.reads.where, c)
	victims, err := x.findWhere(ctx, c)
	if err != nil || len(victims) == 0 {
		return 0, err
	}
	if err := x.beginFeed(); err != nil {
		return 0, err
	}
	schema, err := arrowSchema(x.schema.fields)
	if err != nil {
		return 0, err
	}
	n := int64(0)
	for _, v := range victims {
		n += int64(v.rows.GetCardinality())
		err := x.each(ctx, v.add, v.rows, func(old []arrow.Array, n int) error {
			rec := array.NewRecordBatch(schema, old, int64(n))
			defer rec.Release()
			now, err := set(rec)
			if err != nil {
				return err
			}
			defer now.Release()
			if now.NumRows() != int64(n) {
				return tarn.Invalid("%d rows became %d", n, now.NumRows())
			}
			columns, err := x.tableColumns(ctx, now)
			if err != nil {
				return err
			}
			defer release(columns)
			if x.feeding {
				if err := x.feed(ctx, old, n, PreUpdated); err != nil {
					return err
				}
				if err := x.feed(ctx, columns, n, PostUpdated); err != nil {
					return err
				}
			}
			return x.rows.add(ctx, columns, n)
		})
		if err != nil {
			return 0, err
		}
		if err := x.drop(ctx, v); err != nil {
			return 0, err
		}
	}
	return n, nil
}
