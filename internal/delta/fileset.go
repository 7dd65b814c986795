package delta

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// Bounds of what one Tx keeps open: each open file has a goroutine that
// uploads it and a row group in memory.
const (
	maxOpenFiles = 64
	maxHeldBytes = 256 << 20
	appendRows   = 64 << 10 // rows written between looks at the bounds
)

// fileSet writes rows to files, one open file a partition.
type fileSet struct {
	tx     *Tx
	folder string                 // before the partitions' folders: "" or ends with a slash
	extra  []field                // columns behind the table's
	open   map[string]*fileWriter // by partition
	done   []*addAction
}

// partitionRows are the rows of a batch that belong to one partition.
type partitionRows struct {
	key    string
	values []*string // by partition column
	rows   []int32   // nil = all
}

// add writes columns, which are the table's and then the extra ones.
func (s *fileSet) add(ctx context.Context, columns []arrow.Array, n int) error {
	parts, err := s.tx.split(columns, n)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := s.write(ctx, p, columns); err != nil {
			return err
		}
	}
	return nil
}

// fields are the columns of the files.
func (s *fileSet) fields() []field {
	var out []field
	for _, f := range append(slices.Clone(s.tx.schema.fields), s.extra...) {
		if !s.tx.isPartition(f.name) && f.typ.name != "void" {
			out = append(out, f)
		}
	}
	return out
}

// write adds the rows of p to the partition's open file.
func (s *fileSet) write(ctx context.Context, p *partitionRows, columns []arrow.Array) error {
	fields := s.fields()
	var data []arrow.Array
	for i, f := range append(slices.Clone(s.tx.schema.fields), s.extra...) {
		if !s.tx.isPartition(f.name) && f.typ.name != "void" {
			data = append(data, columns[i])
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
	w, err := s.writer(ctx, p, fields)
	if err != nil {
		return err
	}
	if err := w.write(ctx, rec); err != nil {
		return fmt.Errorf("write %s: %w", w.key, err)
	}
	return s.bound(ctx, p.key)
}

// writer gives the partition's open file.
func (s *fileSet) writer(ctx context.Context, p *partitionRows, fields []field) (*fileWriter, error) {
	if w := s.open[p.key]; w != nil {
		return w, nil
	}
	x := s.tx
	names := x.base.state.metadata.PartitionColumns
	values := make(map[string]*string, len(names))
	for i, n := range names {
		values[x.schema.fields[x.schema.fieldIndex(n)].physical] = p.values[i]
	}
	e := quickly
	if x.quiet {
		e = thoroughly // what Optimize writes stays
	}
	w, err := x.table.newFileWriter(ctx, fileBegin{
		effort: e,
		number: len(x.keys), folder: s.folder + partitionFolder(names, p.values), values: values, fields: fields,
		mapped: x.mapping != mapNone, statColumns: x.base.state.metadata.statColumns(), full: x.base.state.metadata.targetFileBytes(),
	})
	if err != nil {
		return nil, err
	}
	s.open[p.key] = w
	x.keys = append(x.keys, x.table.key(w.key))
	return w, nil
}

// statColumns is how many leaves get statistics.
func (m *metadataAction) statColumns() int {
	n, err := strconv.Atoi(propertyOf(m.Configuration, "delta.dataSkippingNumIndexedCols"))
	if err != nil {
		return defaultStatColumns
	}
	return n
}

// targetFileBytes is the size from which on a file is full; delta.targetFileSize.
func (m *metadataAction) targetFileBytes() int64 {
	if n, ok := byteSize(propertyOf(m.Configuration, "delta.targetFileSize")); ok && n > 0 {
		return min(n, maxFileBytes)
	}
	return maxFileBytes
}

// byteSize reads 1048576, 100mb, 1 GB.
func byteSize(v string) (int64, bool) {
	digits := 0
	for digits < len(v) && v[digits] >= '0' && v[digits] <= '9' {
		digits++
	}
	n, err := strconv.ParseInt(v[:digits], 10, 64)
	unit, ok := map[string]int64{"": 1, "b": 1, "k": 1 << 10, "kb": 1 << 10, "m": 1 << 20, "mb": 1 << 20, "g": 1 << 30, "gb": 1 << 30}[lowerTrim(v[digits:])]
	if err != nil || !ok || n > 1<<62/unit {
		return 0, false
	}
	return n * unit, true
}

// bound finishes files until those open keep to the bounds.
func (s *fileSet) bound(ctx context.Context, last string) error {
	if s.open[last].isFull() {
		if err := s.finishFile(ctx, last); err != nil {
			return err
		}
	}
	for {
		var held int64
		biggest, size := "", int64(-1)
		for key, w := range s.open {
			h := w.held()
			held += h
			if h > size {
				biggest, size = key, h
			}
		}
		if len(s.open) <= maxOpenFiles && held <= maxHeldBytes {
			return nil
		}
		if err := s.finishFile(ctx, biggest); err != nil {
			return err
		}
	}
}

func (s *fileSet) finishFile(ctx context.Context, key string) error {
	w := s.open[key]
	delete(s.open, key)
	a, err := w.finish(ctx)
	if err != nil {
		return err
	}
	s.done = append(s.done, a)
	return nil
}

// finish makes every open file durable.
func (s *fileSet) finish(ctx context.Context) error {
	keys := make([]string, 0, len(s.open))
	for key := range s.open {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if err := s.finishFile(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// abort drops the open files.
func (s *fileSet) abort() {
	for key, w := range s.open {
		w.up.abort()
		delete(s.open, key)
	}
}
