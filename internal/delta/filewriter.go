package delta

import (
	"context"
	"fmt"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/google/uuid"

	"github.com/tarndb/tarn/internal/blob"
)

const (
	maxRowGroupRows  = 1 << 20
	maxRowGroupBytes = 128 << 20 // before compression; they are in memory until written
	maxFileBytes     = 256 << 20
)

// fileWriter writes one data file.
type fileWriter struct {
	key      string // path below the table's folder, not encoded
	values   map[string]*string
	up       *upload
	out      *pqarrow.FileWriter
	stats    *fileStats
	physical *arrow.Schema // under column mapping; else nil
	full     int64         // bytes
}

// fileBegin says what kind of file begins.
type fileBegin struct {
	number      int    // of the file in its commit
	folder      string // "" or ends with a slash
	values      map[string]*string
	fields      []field
	mapped      bool // columns go by their physical names and ids
	statColumns int
	full        int64 // bytes
	effort      effort
}

// effort is a level of zstd, also of files that are not compressed with it.
type effort int

const (
	// quickly takes 1.8 µs of a core for a row of 1 KB of hex digits, where
	// thoroughly takes 12: it is for files that may be joined later.
	quickly    effort = 1
	thoroughly effort = 3
)

// newFileWriter begins a file.
func (t *place) newFileWriter(ctx context.Context, b fileBegin) (*fileWriter, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, fmt.Errorf("name a data file: %w", err)
	}
	w := &fileWriter{
		key:    fmt.Sprintf("%spart-%05d-%s.c000.zstd.parquet", b.folder, b.number, id),
		values: b.values, full: b.full,
		stats: newFileStats(b.fields, b.statColumns),
	}
	schema, err := arrowSchema(b.fields)
	if err != nil {
		return nil, err
	}
	if b.mapped {
		if schema, err = physicalSchema(b.fields); err != nil {
			return nil, err
		}
		w.physical = schema
	}
	w.up = newUpload(ctx, t.store, t.key(w.key))
	if w.out, err = newParquetWriter(schema, w.up, compress.Codecs.Zstd, b.effort); err != nil {
		w.up.abort()
		return nil, err
	}
	return w, nil
}

func newParquetWriter(schema *arrow.Schema, u *upload, codec compress.Compression, e effort) (*pqarrow.FileWriter, error) {
	props := parquet.NewWriterProperties(
		parquet.WithCompression(codec),
		parquet.WithCompressionLevel(int(e)),
		parquet.WithMaxRowGroupLength(maxRowGroupRows),
		parquet.WithDataPageVersion(parquet.DataPageV1), // what every reader reads
		parquet.WithStoreDecimalAsInteger(true),
		parquet.WithCreatedBy("tarn"),
	)
	return pqarrow.NewFileWriter(schema, u, props, pqarrow.NewArrowWriterProperties(pqarrow.WithAllocator(memory.DefaultAllocator)))
}

// write adds a batch of exactly the file's columns.
func (w *fileWriter) write(ctx context.Context, rec arrow.RecordBatch) error {
	stop := w.up.breakOff(ctx)
	defer stop()
	w.stats.add(rec)
	if w.physical != nil {
		rec = asPhysical(rec, w.physical)
		defer rec.Release()
	}
	if err := w.out.WriteBuffered(rec); err != nil {
		return err
	}
	if w.out.RowGroupTotalBytesWritten() > maxRowGroupBytes {
		return w.out.NewBufferedRowGroupChecked()
	}
	return nil
}

// held is about what the file keeps in memory.
func (w *fileWriter) held() int64 { return w.out.RowGroupTotalBytesWritten() }

// isFull tells whether the file has its size.
func (w *fileWriter) isFull() bool { return w.up.size+w.held()/4 > w.full }

// finish makes the file durable and gives the action that adds it.
func (w *fileWriter) finish(ctx context.Context) (*addAction, error) {
	stop := w.up.breakOff(ctx)
	err := w.out.Close()
	stop()
	if err != nil {
		w.up.abort()
		return nil, fmt.Errorf("write %s: %w", w.key, err)
	}
	if err := w.up.close(ctx); err != nil {
		return nil, fmt.Errorf("write %s: %w", w.key, err)
	}
	stats, err := w.stats.json()
	if err != nil {
		return nil, fmt.Errorf("statistics of %s: %w", w.key, err)
	}
	return &addAction{
		Path: escapePath(w.key), PartitionValues: w.values, Size: w.up.size,
		ModificationTime: time.Now().UnixMilli(), DataChange: true, Stats: stats, rows: -1,
	}, nil
}

// discard deletes keys as far as that goes: what stays is an orphan that no
// version names.
func discard(ctx context.Context, s blob.Store, keys []string) {
	if len(keys) > 0 {
		_ = s.Delete(ctx, keys...)
	}
}
