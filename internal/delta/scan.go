package delta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// ScanOptions choose columns and rows; zero value = all columns, every row.
type ScanOptions struct {
	Columns   []string  // any order, fields of structs as a.b; batches have the table's order
	Where     Predicate // zero = every row; files that cannot hold one are not read
	Limit     int64     // 0 = all rows
	BatchRows int       // most rows of one batch; 0 = 16384
	Split     Split     // the files to scan; zero = all
}

// scanBatch is the most rows of one batch.
const scanBatch = 16 << 10

// errEnough ends a scan whose consumer stopped or whose limit is reached.
var errEnough = errors.New("scan has enough")

// Scan yields record batches in table column order (partition columns
// included). Each batch is released by the consumer. Files come in the order of
// their paths; memory holds one batch and one row group's compressed columns.
func (s *Snapshot) Scan(ctx context.Context, o ScanOptions) iter.Seq2[arrow.RecordBatch, error] {
	return func(yield func(arrow.RecordBatch, error) bool) {
		if err := s.scan(ctx, o, yield); err != nil && !errors.Is(err, errEnough) {
			yield(nil, fmt.Errorf("scan %s@%d: %w", s.table.name(), s.version, err))
		}
	}
}

func (s *Snapshot) scan(ctx context.Context, o ScanOptions, yield func(arrow.RecordBatch, error) bool) error {
	w, err := s.want(o.Columns, o.Where)
	if err != nil {
		return err
	}
	schema, err := arrowSchema(w.fields)
	if err != nil {
		return err
	}
	given, err := arrowSchema(w.fields[:w.given])
	if err != nil {
		return err
	}
	left := o.Limit
	files := o.Split.files
	if files == nil {
		files = s.sortedFiles()
	}
	for _, a := range files {
		if !s.mayHold(a, w.where) {
			continue
		}
		f := &fileScan{snapshot: s, add: a, fields: w.fields, schema: schema, batch: int64(o.BatchRows)}
		err := f.run(ctx, func(rec arrow.RecordBatch) error {
			rec, err := w.filter(ctx, rec, given)
			if err != nil {
				return err
			}
			if rec.NumRows() == 0 {
				rec.Release()
				return nil
			}
			if o.Limit > 0 {
				if rec.NumRows() > left {
					part := rec.NewSlice(0, left)
					rec.Release()
					rec = part
				}
				left -= rec.NumRows()
			}
			if !yield(rec, nil) || o.Limit > 0 && left == 0 {
				return errEnough
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sortedFiles gives the active files in a fixed order.
func (s *Snapshot) sortedFiles() []*addAction {
	files := make([]*addAction, 0, len(s.state.files))
	for _, a := range s.state.files {
		files = append(files, a)
	}
	slices.SortFunc(files, func(a, b *addAction) int { return cmp.Compare(a.Path, b.Path) })
	return files
}

// filter takes rec over and gives the rows and columns that are asked for.
func (w *wanted) filter(ctx context.Context, rec arrow.RecordBatch, given *arrow.Schema) (arrow.RecordBatch, error) {
	if w.where == nil {
		return rec, nil
	}
	mask, kept := maskOf(w.where.eval(func(i int) arrow.Array { return rec.Column(w.at[i]) }, int(rec.NumRows())))
	defer mask.Release()
	rec, err := filterRows(ctx, rec, mask, kept)
	if err != nil || w.given == len(w.fields) {
		return rec, err
	}
	defer rec.Release()
	return array.NewRecordBatch(given, rec.Columns()[:w.given], rec.NumRows()), nil
}
