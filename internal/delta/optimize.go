package delta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn"
)

// OptimizeOptions say which files are joined; zero = small ones of every
// partition.
type OptimizeOptions struct {
	TargetBytes int64     // of a joined file; 0 = delta.targetFileSize, else 256 MiB
	Where       Predicate // only files that may hold such rows
	ClusterBy   []string  // sort rows by these columns; then every file is rewritten
	Progress    func(OptimizeCounts)
}

// OptimizeCounts tells what Optimize did so far.
type OptimizeCounts struct {
	Version                 int64 // of the last commit; that of the base when there was nothing to do
	FilesRemoved, FilesMade int
	BytesRead, BytesWritten int64
	FilesPlanned            int
	Conflicts               int // bins given up because others rewrote a file meanwhile
}

const (
	sortBytes        = 96 << 20 // decoded rows sorted at once
	optimizeCommit   = 1 << 30  // bytes rewritten in one commit
	defaultTargetBin = 256 << 20
)

// Optimize joins small files, and those with many deleted rows, into larger ones.
// No row changes: readers and change feeds see nothing of it, and commits of
// others conflict only when they touch the same files. Each commit stands for
// itself, so that an interrupted run keeps what it had done.
func (t *Table) Optimize(ctx context.Context, o OptimizeOptions) (OptimizeCounts, error) {
	n, err := t.optimize(ctx, o)
	if err != nil {
		return n, fmt.Errorf("optimize %s: %w", t.name(), err)
	}
	return n, nil
}

func (t *Table) optimize(ctx context.Context, o OptimizeOptions) (n OptimizeCounts, err error) {
	s, err := t.Latest(ctx)
	if err != nil {
		return n, err
	}
	n.Version = s.version
	if err := s.checkWritable(); err != nil {
		return n, err
	}
	order, err := binPlan{s}.clusterColumns(o.ClusterBy)
	if err != nil {
		return n, err
	}
	bins, err := binPlan{s}.bins(o)
	if err != nil {
		return n, err
	}
	for _, b := range bins {
		n.FilesPlanned += len(b)
	}
	for len(bins) > 0 {
		take, bytes := 0, int64(0)
		for take < len(bins) && (take == 0 || bytes < optimizeCommit) {
			bytes += sizeOf(bins[take])
			take++
		}
		if err := t.optimizeBins(ctx, bins[:take], order, &n); err != nil {
			return n, err
		}
		bins = bins[take:]
		if o.Progress != nil {
			o.Progress(n)
		}
	}
	return n, nil
}

// optimizeBins rewrites some bins in one commit. Bins of which a file is gone
// meanwhile are left out.
func (t *Table) optimizeBins(ctx context.Context, bins [][]*addAction, order []int, n *OptimizeCounts) error {
	s, err := t.Latest(ctx)
	if err != nil {
		return err
	}
	x := t.Begin(s)
	x.quiet, x.operation = true, "OPTIMIZE"
	x.params["predicate"] = "[]"
	if order != nil {
		var names []string
		for _, i := range order {
			names = append(names, s.schema.fields[i].name)
		}
		x.params["clusterBy"] = jsonText(names)
	}
	removed, read := 0, int64(0)
	for _, b := range bins {
		if slices.ContainsFunc(b, func(a *addAction) bool { return s.state.files[a.key()] == nil }) {
			n.Conflicts++
			continue
		}
		if err := (rowChange{x}).rewriteBin(ctx, b, order); err != nil {
			x.Abort(ctx)
			return err
		}
		removed, read = removed+len(b), read+sizeOf(b)
	}
	v, err := x.Commit(ctx, CommitOptions{})
	var conflict *ConflictError
	switch {
	case errors.As(err, &conflict):
		x.Abort(ctx)
		n.Conflicts += len(bins)
		return nil
	case err != nil:
		x.Abort(ctx)
		return err
	}
	n.Version, n.FilesRemoved, n.BytesRead = v, n.FilesRemoved+removed, n.BytesRead+read
	for _, a := range x.rows.done {
		n.FilesMade++
		n.BytesWritten += a.Size
	}
	return nil
}

func sizeOf(files []*addAction) int64 {
	n := int64(0)
	for _, a := range files {
		n += a.Size
	}
	return n
}

// binPlan plans which files of a snapshot become one.
type binPlan struct{ *Snapshot }

// bins plans which files become one. Files of a bin are of one partition.
func (s binPlan) bins(o OptimizeOptions) ([][]*addAction, error) {
	c, err := s.schema.bind(o.Where)
	if err != nil {
		return nil, err
	}
	target := o.TargetBytes
	if target <= 0 {
		target = min(s.state.metadata.targetFileBytes(), defaultTargetBin)
	}
	byPartition := map[string][]*addAction{}
	for _, a := range s.sortedFiles() {
		if s.mayHold(a, c) && (o.ClusterBy != nil || a.Size < target/4*3 || a.worn()) {
			key := s.partitionKey(a)
			byPartition[key] = append(byPartition[key], a)
		}
	}
	keys := make([]string, 0, len(byPartition))
	for k := range byPartition {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var out [][]*addAction
	for _, k := range keys {
		files := byPartition[k]
		if o.ClusterBy == nil {
			slices.SortStableFunc(files, func(a, b *addAction) int { return cmp.Compare(a.Size, b.Size) })
		}
		var bin []*addAction
		end := func() {
			if len(bin) > 1 || len(bin) == 1 && (bin[0].worn() || o.ClusterBy != nil) {
				out = append(out, bin)
			}
			bin = nil
		}
		for _, a := range files {
			if len(bin) > 0 && sizeOf(bin)+a.Size > target {
				end()
			}
			bin = append(bin, a)
		}
		end()
	}
	return out, nil
}

// worn tells whether so many rows of the file are deleted that it is worth
// writing anew: one in twenty, as others do.
func (a *addAction) worn() bool {
	rows, ok := a.statRows()
	return a.DV != nil && ok && a.DV.Cardinality*20 > rows
}

// partitionKey tells partitions apart.
func (s binPlan) partitionKey(a *addAction) string {
	var b strings.Builder
	for _, p := range s.state.metadata.PartitionColumns {
		v := a.PartitionValues[s.schema.fields[s.schema.fieldIndex(p)].physical]
		if v != nil && *v != "" {
			b.WriteString(strconv.Itoa(len(*v)))
			b.WriteString(*v)
		}
		b.WriteByte(';')
	}
	return b.String()
}

func (s binPlan) clusterColumns(names []string) ([]int, error) {
	var out []int
	for _, name := range names {
		i := s.schema.fieldIndex(name)
		if i < 0 {
			return nil, tarn.Invalid("the table has no column %s", name)
		}
		if _, err := datumKindOf(s.schema.fields[i].typ); err != nil {
			return nil, tarn.Invalid("column %s: %w", name, err)
		}
		out = append(out, i)
	}
	return out, nil
}

// rewriteBin writes the rows of the files anew and removes them.
func (x rowChange) rewriteBin(ctx context.Context, files []*addAction, order []int) error {
	schema, err := arrowSchema(x.base.schema.fields)
	if err != nil {
		return err
	}
	sorter := &rowSorter{order: order, fields: x.base.schema.fields}
	defer sorter.close()
	write := func(rec arrow.RecordBatch) error {
		defer rec.Release()
		return x.rows.add(ctx, rec.Columns(), int(rec.NumRows()))
	}
	for _, a := range files {
		f := &fileScan{snapshot: x.base, add: a, fields: x.base.schema.fields, schema: schema}
		err := f.run(ctx, func(rec arrow.RecordBatch) error {
			if order == nil {
				return write(rec)
			}
			return sorter.add(ctx, rec, write)
		})
		if err != nil {
			return err
		}
		x.remove(a)
	}
	if err := sorter.flush(ctx, write); err != nil {
		return err
	}
	return x.rows.finish(ctx)
}

// rowSorter sorts rows by columns, as many at once as memory allows.
type rowSorter struct {
	order  []int
	fields []field
	held   []arrow.RecordBatch
	bytes  int64
}

// add takes rec over.
func (s *rowSorter) add(ctx context.Context, rec arrow.RecordBatch, do func(arrow.RecordBatch) error) error {
	s.held = append(s.held, rec)
	for _, c := range rec.Columns() {
		s.bytes += int64(c.Data().SizeInBytes())
	}
	if s.bytes < sortBytes {
		return nil
	}
	return s.flush(ctx, do)
}

func (s *rowSorter) close() {
	for _, r := range s.held {
		r.Release()
	}
	s.held, s.bytes = nil, 0
}

// flush hands out the rows held, sorted, nulls first.
func (s *rowSorter) flush(ctx context.Context, do func(arrow.RecordBatch) error) error {
	if len(s.held) == 0 {
		return nil
	}
	defer s.close()
	schema := s.held[0].Schema()
	columns := make([]arrow.Array, schema.NumFields())
	for i := range columns {
		parts := make([]arrow.Array, len(s.held))
		for k, r := range s.held {
			parts[k] = r.Column(i)
		}
		c, err := array.Concatenate(parts, memory.DefaultAllocator)
		if err != nil {
			release(columns[:i])
			return err
		}
		columns[i] = c
	}
	whole := array.NewRecordBatch(schema, columns, int64(columns[0].Len()))
	release(columns)
	defer whole.Release()
	rows := make([]int32, whole.NumRows())
	for i := range rows {
		rows[i] = int32(i)
	}
	slices.SortStableFunc(rows, func(a, b int32) int {
		for _, c := range s.order {
			x, okX := datumAt(whole.Column(c), int(a), s.fields[c].typ)
			y, okY := datumAt(whole.Column(c), int(b), s.fields[c].typ)
			switch {
			case !okX && !okY:
			case !okX:
				return -1
			case !okY:
				return 1
			default:
				if o, ok := x.compare(y); ok && o != 0 {
					return o
				}
			}
		}
		return 0
	})
	for part := range slices.Chunk(rows, appendRows) {
		b := array.NewInt32Builder(memory.DefaultAllocator)
		b.AppendValues(part, nil)
		index := b.NewArray()
		b.Release()
		var picked []arrow.Array
		var err error
		for _, c := range whole.Columns() {
			var p arrow.Array
			if p, err = compute.TakeArray(ctx, c, index); err != nil {
				break
			}
			picked = append(picked, p)
		}
		index.Release()
		if err == nil {
			err = do(array.NewRecordBatch(schema, picked, int64(len(part))))
		}
		release(picked)
		if err != nil {
			return err
		}
	}
	return nil
}
