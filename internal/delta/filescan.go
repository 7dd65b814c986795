package delta

import (
	"context"
	"fmt"
	"slices"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
)

// fileScan reads the active rows of one data file.
type fileScan struct {
	snapshot *Snapshot
	add      *addAction
	fields   []field // wanted columns
	schema   *arrow.Schema
	batch    int64             // most rows of one batch; 0 = scanBatch
	only     *roaring64.Bitmap // the rows to give, instead of those not deleted; nil = those

	file    *parquetFile
	raw     bool              // give deleted rows, too
	deleted *roaring64.Bitmap // nil = none
	sources []source          // one per wanted column
	leaves  []int             // Parquet leaves that the Arrow reader reads
	row     int64             // position in the file of the next batch
}

// source is where the values of one column come from: exactly one of
// a partition value, a column of the Arrow reader, a raw INT96 column; or
// nothing, and then the column is null.
type source struct {
	partition bool
	value     *string
	column    int // of the Arrow reader's batches; -1 = none
	int96     int // Parquet leaf; -1 = none
}

// run hands out the batches of the file; do takes each over. The reader's
// panics become errors, those of do do not concern it but end up the same way.
func (f *fileScan) run(ctx context.Context, do func(arrow.RecordBatch) error) (err error) {
	key, err := f.snapshot.table.dataKey(f.add.Path)
	if err != nil {
		return err
	}
	if f.only == nil && !f.raw {
		if f.deleted, err = f.snapshot.deleted(ctx, f.add.DV); err != nil {
			return err
		}
	}
	if f.file, err = openParquet(ctx, f.snapshot.table.store, key, -1); err != nil {
		return missingInLog(key, err)
	}
	defer f.file.close()
	reader, err := f.plan()
	if err != nil {
		return f.damaged(err)
	}
	for g := range f.file.reader.NumRowGroups() {
		if err := f.rowGroup(ctx, reader, g, do); err != nil {
			return err
		}
	}
	return nil
}

func (f *fileScan) damaged(err error) error {
	if IsRefusal(err) || f.file.source.failed != nil {
		return err
	}
	return &DamagedError{Path: f.file.key, Reason: "data file", Err: err}
}

// plan decides where each column comes from.
func (f *fileScan) plan() (reader *pqarrow.FileReader, err error) {
	defer catch(&err, f.file.source)
	if f.batch <= 0 {
		f.batch = scanBatch
	}
	reader, err = f.file.arrowReader(f.batch)
	if err != nil {
		return nil, err
	}
	nodes, columns := nodesOf(f.file.reader.MetaData().Schema.Root(), 0)
	by := f.snapshot.find()
	if f.snapshot.mapping == mapID && !slices.ContainsFunc(columns, func(c arrow.Field) bool { return c.Metadata.Len() > 0 }) {
		return nil, fmt.Errorf("no field ids in a table mapped by id")
	}
	partitions := f.snapshot.state.metadata.PartitionColumns
	var picked []int // top-level columns for the Arrow reader
	for _, w := range f.fields {
		src := source{column: -1, int96: -1}
		if slices.Contains(partitions, w.name) {
			src.partition = true
			src.value = f.add.PartitionValues[w.physical]
		} else if i := by(w, columns); i >= 0 {
			if nodes[i].int96() {
				src.int96 = nodes[i].leaf
			} else {
				src.column = i // resolved below
				if !slices.Contains(picked, i) {
					picked = append(picked, i)
				}
				f.leaves = append(f.leaves, nodes[i].leaves(w.typ, by)...)
			}
		}
		f.sources = append(f.sources, src)
	}
	// The Arrow reader gives columns in file order.
	slices.Sort(picked)
	for i := range f.sources {
		if c := f.sources[i].column; c >= 0 {
			f.sources[i].column, _ = slices.BinarySearch(picked, c)
		}
	}
	slices.Sort(f.leaves)
	f.leaves = slices.Compact(f.leaves)
	return reader, nil
}

// find is how columns of data files are matched.
func (s *Snapshot) find() find {
	if s.mapping == mapID {
		return byID
	}
	return byPhysicalName
}

// rowGroup reads one row group batch by batch and checks that it gives all of
// its rows.
func (f *fileScan) rowGroup(ctx context.Context, reader *pqarrow.FileReader, g int, do func(arrow.RecordBatch) error) error {
	rg, err := f.openRowGroup(ctx, reader, g)
	if err != nil {
		return f.ended(ctx, err)
	}
	defer rg.close()
	for rg.left > 0 {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		rec, err := f.next(ctx, rg)
		if err != nil {
			return f.ended(ctx, err)
		}
		if rec.NumRows() == 0 {
			rec.Release()
			continue
		}
		if err := do(rec); err != nil {
			return err
		}
	}
	return nil
}

// ended tells the end of the context from damage.
func (f *fileScan) ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return f.damaged(err)
}

// rowGroupScan holds the readers of one row group.
type rowGroupScan struct {
	records pqarrow.RecordReader // nil when no column needs it
	int96   map[int]*int96Reader
	left    int64 // rows not read yet
}

func (r *rowGroupScan) close() {
	if r.records != nil {
		r.records.Release()
	}
	for _, c := range r.int96 {
		c.close()
	}
}

func (f *fileScan) openRowGroup(ctx context.Context, reader *pqarrow.FileReader, g int) (rg *rowGroupScan, err error) {
	defer catch(&err, f.file.source)
	rg = &rowGroupScan{int96: map[int]*int96Reader{}, left: f.file.reader.MetaData().RowGroups[g].NumRows}
	if len(f.leaves) > 0 {
		if rg.records, err = reader.GetRecordReader(ctx, f.leaves, []int{g}); err != nil {
			return nil, err
		}
	}
	for i, src := range f.sources {
		if src.int96 >= 0 {
			if rg.int96[i], err = openInt96(f.file.reader, g, src.int96); err != nil {
				rg.close()
				return nil, err
			}
		}
	}
	return rg, nil
}

// next reads the next rows, converts them to the table's types and drops the
// deleted ones. The result may be empty.
func (f *fileScan) next(ctx context.Context, rg *rowGroupScan) (rec arrow.RecordBatch, err error) {
	defer catch(&err, f.file.source)
	n := min(rg.left, f.batch)
	var raw arrow.RecordBatch
	if rg.records != nil {
		if !rg.records.Next() {
			if err := rg.records.Err(); err != nil {
				return nil, err
			}
			return nil, fmt.Errorf("row group ends %d rows early", rg.left)
		}
		raw = rg.records.RecordBatch()
		if n = raw.NumRows(); n > rg.left {
			return nil, fmt.Errorf("row group has %d rows too many", n-rg.left)
		}
	}
	columns := make([]arrow.Array, 0, len(f.fields))
	defer func() {
		for _, c := range columns {
			c.Release()
		}
	}()
	for i, w := range f.fields {
		c, err := f.column(ctx, w, f.sources[i], raw, rg.int96[i], int(n))
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", w.name, err)
		}
		columns = append(columns, c)
	}
	whole := array.NewRecordBatch(f.schema, columns, n)
	first := f.row
	f.row += n
	rg.left -= n
	return f.keep(ctx, whole, first)
}

func (f *fileScan) column(ctx context.Context, w field, src source, raw arrow.RecordBatch, r96 *int96Reader, n int) (arrow.Array, error) {
	switch {
	case src.partition:
		return partitionArray(src.value, w.typ, n)
	case src.int96 >= 0:
		a, err := r96.read(n)
		if err != nil {
			return nil, err
		}
		defer a.Release()
		if f.file.julian.int96 && ancient(a) {
			return nil, errJulian
		}
		return converter{by: f.snapshot.find()}.convert(ctx, a, w.typ)
	case src.column >= 0:
		if f.file.julian.others && ancient(raw.Column(src.column)) {
			return nil, errJulian
		}
		return converter{by: f.snapshot.find()}.convert(ctx, raw.Column(src.column), w.typ)
	}
	at, err := w.typ.arrow()
	if err != nil {
		return nil, err
	}
	return array.MakeArrayOfNull(memory.DefaultAllocator, at, n), nil
}

// keep takes rec over and drops the rows that are not wanted; first is its
// position in the file.
func (f *fileScan) keep(ctx context.Context, rec arrow.RecordBatch, first int64) (arrow.RecordBatch, error) {
	rows := f.deleted
	if f.only != nil {
		rows = f.only
	} else if rows == nil {
		return rec, nil
	}
	defer rec.Release()
	b := array.NewBooleanBuilder(memory.DefaultAllocator)
	defer b.Release()
	b.Reserve(int(rec.NumRows()))
	gone := 0
	for i := range rec.NumRows() {
		keep := rows.Contains(uint64(first+i)) == (f.only != nil)
		if !keep {
			gone++
		}
		b.UnsafeAppend(keep)
	}
	switch int64(gone) {
	case 0:
		rec.Retain()
		return rec, nil
	case rec.NumRows():
		return rec.NewSlice(0, 0), nil
	}
	mask := b.NewBooleanArray()
	defer mask.Release()
	return compute.FilterRecordBatch(ctx, rec, mask, compute.DefaultFilterOptions())
}
