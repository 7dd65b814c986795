package delta

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/tarndb/tarn"
)

// Edits is a batch of changes of single rows: the i-th takes away the row at
// Rows[i] of the file Files[i], unless that is "", and where Write[i] is set brings
// the i-th row of New.
type Edits struct {
	Files []string // keys, as PlanFile has them
	Rows  []int64  // positions in the files
	Write []bool
	New   arrow.RecordBatch // the table's columns
}

// Editor changes rows that somebody else found in the base of a transaction.
// Memory holds the positions of those that go.
type Editor struct {
	// Twice lets rows be deleted twice, which is once; otherwise a row that two
	// edits take away is refused.
	Twice   bool
	x       rowChange
	files   map[string]*addAction
	victims map[string]*editedFile
	n       MergeCounts
}

type editedFile struct {
	victim
	updated *roaring64.Bitmap // of rows, those that another takes the place of
}

// BaseOf is the snapshot that the transaction changes.
func BaseOf(x *Tx) *Snapshot { return x.base }

// Edit begins changes of single rows, found among those for which read is true.
func Edit(x *Tx, operation string, read Predicate) (*Editor, error) {
	e := &Editor{x: rowChange{x}, files: map[string]*addAction{}, victims: map[string]*editedFile{}}
	c, err := x.base.schema.bind(read)
	if err == nil {
		err = e.x.beginRows()
	}
	if err == nil {
		err = e.x.beginFeed()
	}
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", operation, x.table.name(), err)
	}
	if c == nil {
		x.reads.all = true
	} else {
		x.reads.where = append(x.reads.where, c)
	}
	for _, a := range x.base.state.files {
		key, err := x.table.dataKey(a.Path)
		if err != nil {
			return nil, err
		}
		e.files[key] = a
	}
	x.operation = operation
	return e, nil
}

// Apply does a batch. After an error only Abort of the transaction is of use.
func (e *Editor) Apply(ctx context.Context, b Edits) error {
	if err := e.apply(ctx, b); err != nil {
		return e.x.broken(fmt.Errorf("change rows of %s: %w", e.x.table.name(), err))
	}
	return nil
}

func (e *Editor) apply(ctx context.Context, b Edits) error {
	var news, updates []int32
	for i, key := range b.Files {
		if key == "" {
			if b.Write[i] {
				news = append(news, int32(i))
			}
			continue
		}
		if err := e.mark(ctx, key, b.Rows[i], b.Write[i]); err != nil {
			return err
		}
		if b.Write[i] {
			updates = append(updates, int32(i))
		}
	}
	e.n.Inserted += int64(len(news))
	if err := e.write(ctx, b.New, updates, PostUpdated); err != nil {
		return err
	}
	return e.write(ctx, b.New, news, Inserted)
}

// mark notes a row that goes.
func (e *Editor) mark(ctx context.Context, key string, row int64, updated bool) (err error) {
	v := e.victims[key]
	if v == nil {
		a := e.files[key]
		if a == nil {
			return fmt.Errorf("version %d has no file %s", e.x.base.version, key)
		}
		v = &editedFile{victim{add: a, rows: roaring64.New()}, roaring64.New()}
		if v.deleted, err = e.x.base.deleted(ctx, a.DV); err != nil {
			return err
		}
		if v.deleted == nil {
			v.deleted = roaring64.New()
		}
		if v.physical, err = e.x.base.rowsOf(ctx, a); err != nil {
			return err
		}
		v.physical += int64(v.deleted.GetCardinality())
		e.victims[key] = v
	}
	if row < 0 || row >= v.physical || v.deleted.Contains(uint64(row)) {
		return fmt.Errorf("file %s has no row %d", key, row)
	}
	if !v.rows.CheckedAdd(uint64(row)) && (!e.Twice || updated) {
		return tarn.Invalid("[DELTA_MULTIPLE_SOURCE_ROW_MATCHING_TARGET_ROW_IN_MERGE] more than one row of the source changes the same row of the table").
			WithHint("let the source have one row for each, as by GROUP BY or QUALIFY row_number() OVER (…) = 1")
	}
	if updated {
		v.updated.Add(uint64(row))
	}
	return nil
}

func (e *Editor) write(ctx context.Context, rec arrow.RecordBatch, rows []int32, typ ChangeType) error {
	if len(rows) == 0 {
		return nil
	}
	picked, err := take(ctx, rec.Columns(), rows)
	if err != nil {
		return err
	}
	defer release(picked)
	part := array.NewRecordBatch(rec.Schema(), picked, int64(len(rows)))
	defer part.Release()
	columns, err := e.x.tableColumns(ctx, part)
	if err != nil {
		return err
	}
	defer release(columns)
	if e.x.feeding {
		if err := e.x.feed(ctx, columns, len(rows), typ); err != nil {
			return err
		}
	}
	return e.x.rows.add(ctx, columns, len(rows))
}

// Finish takes the rows away and tells what was done; Commit may follow.
func (e *Editor) Finish(ctx context.Context) (MergeCounts, error) {
	for _, key := range slices.Sorted(maps.Keys(e.victims)) {
		v := e.victims[key]
		deleted := roaring64.AndNot(v.rows, v.updated)
		e.n.Updated += int64(v.updated.GetCardinality())
		e.n.Deleted += int64(deleted.GetCardinality())
		var err error
		for _, was := range []struct {
			rows *roaring64.Bitmap
			typ  ChangeType
		}{{v.updated, PreUpdated}, {deleted, Deleted}} {
			if err == nil && e.x.feeding {
				err = e.x.each(ctx, v.add, was.rows, func(c []arrow.Array, n int) error { return e.x.feed(ctx, c, n, was.typ) })
			}
		}
		if err == nil {
			err = e.x.drop(ctx, &v.victim)
		}
		if err != nil {
			return e.n, e.x.broken(fmt.Errorf("change rows of %s: %w", e.x.table.name(), err))
		}
	}
	e.x.metrics = map[string]any{
		"numTargetRowsInserted": strconv.FormatInt(e.n.Inserted, 10), "numTargetRowsUpdated": strconv.FormatInt(e.n.Updated, 10),
		"numTargetRowsDeleted": strconv.FormatInt(e.n.Deleted, 10),
	}
	return e.n, nil
}

// EachRow hands out the rows of files, all columns, with their positions in the
// file whose key is given; do takes the batch over.
func EachRow(ctx context.Context, s *Snapshot, files Split, do func(key string, at []int64, rec arrow.RecordBatch) error) error {
	schema, err := arrowSchema(s.schema.fields)
	if err != nil {
		return err
	}
	for _, a := range files.files {
		key, err := s.table.dataKey(a.Path)
		if err != nil {
			return err
		}
		deleted, err := s.deleted(ctx, a.DV)
		if err != nil {
			return err
		}
		first := int64(0)
		f := &fileScan{snapshot: s, add: a, fields: s.schema.fields, schema: schema, raw: true}
		err = f.run(ctx, func(rec arrow.RecordBatch) error {
			var at []int64
			var keep []int32
			for i := range rec.NumRows() {
				if deleted == nil || !deleted.Contains(uint64(first+i)) {
					at, keep = append(at, first+i), append(keep, int32(i))
				}
			}
			first += rec.NumRows()
			defer rec.Release()
			columns, err := take(ctx, rec.Columns(), keep)
			if err != nil {
				return err
			}
			defer release(columns)
			return do(key, at, array.NewRecordBatch(schema, columns, int64(len(keep))))
		})
		if err != nil {
			return fmt.Errorf("read %s of %s@%d: %w", key, s.table.name(), s.version, err)
		}
	}
	return nil
}
