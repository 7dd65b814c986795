package delta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/tarndb/tarn"
)

// ScanOptions choose columns; zero value = all columns, every row.
type ScanOptions struct {
	Columns   []string // any order; batches have the table's
	Limit     int64    // 0 = all rows
	BatchRows int      // most rows of one batch; 0 = 16384
	Split     Split    // the files to scan; zero = all
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
	fields, err := s.columns(o.Columns)
	if err != nil {
		return err
	}
	schema, err := arrowSchema(fields)
	if err != nil {
		return err
	}
	left := o.Limit
	files := o.Split.files
	if files == nil {
		files = s.sortedFiles()
	}
	for _, a := range files {
		f := &fileScan{snapshot: s, add: a, fields: fields, schema: schema, batch: int64(o.BatchRows)}
		err := f.run(ctx, func(rec arrow.RecordBatch) error {
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

// columns gives the asked fields in table order; nil asks for all.
func (s *Snapshot) columns(names []string) ([]field, error) {
	if names == nil {
		return s.schema.fields, nil
	}
	for _, n := range names {
		if !slices.ContainsFunc(s.schema.fields, func(f field) bool { return f.name == n }) {
			return nil, tarn.Invalid("the table has no column %s", n)
		}
	}
	var out []field
	for _, f := range s.schema.fields {
		if slices.Contains(names, f.name) {
			out = append(out, f)
		}
	}
	return out, nil
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
