package warehouse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
)

// stage is a directory of Parquet files that are made for one statement: rows of
// Postgres, and of Delta files that DuckDB would read otherwise than we.
type stage struct {
	dir string
	n   int
}

// stageRows is the most rows of a row group: DuckDB reads several at once.
const stageRows = 122880

// stageWriter writes one file.
type stageWriter struct {
	path string
	file *os.File
	w    *pqarrow.FileWriter
}

func (st *stage) writer(schema *arrow.Schema) (*stageWriter, error) {
	if err := os.MkdirAll(st.dir, 0o700); err != nil {
		return nil, fmt.Errorf("stage rows: %w", err)
	}
	st.n++
	w := &stageWriter{path: filepath.Join(st.dir, itoa(st.n)+".parquet")}
	var err error
	if w.file, err = os.OpenFile(w.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
		return nil, fmt.Errorf("stage rows: %w", err)
	}
	props := parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy), parquet.WithMaxRowGroupLength(stageRows))
	if w.w, err = pqarrow.NewFileWriter(schema, w.file, props, pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema())); err != nil {
		return nil, errors.Join(fmt.Errorf("stage rows: %w", err), w.file.Close())
	}
	return w, nil
}

func (w *stageWriter) write(rec arrow.RecordBatch) error {
	if rec.NumRows() == 0 {
		return nil
	}
	return w.w.WriteBuffered(rec)
}

// close ends the file, which the Parquet writer closes.
func (w *stageWriter) close() error { return w.w.Close() }

// abort gives up the file and returns why.
func (w *stageWriter) abort(why error) error {
	_ = w.w.Close() // it is of no use any more
	return why
}

// one writes a file of what is in a builder.
func (st *stage) one(schema *arrow.Schema, b *array.RecordBuilder) (string, error) {
	w, err := st.writer(schema)
	if err != nil {
		return "", err
	}
	rec := b.NewRecordBatch()
	defer rec.Release()
	if err := w.write(rec); err != nil {
		return "", w.abort(err)
	}
	return w.path, w.close()
}

// clear removes the files.
func (st *stage) clear() error { return os.RemoveAll(st.dir) }
