package delta

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/tarndb/tarn/internal/blob"
)

// storeFile gives the Parquet reader random access to one object. It lives as
// long as one scan of the file, whose context it carries because io.ReaderAt
// has none.
type storeFile struct {
	ctx   context.Context
	store blob.Store
	key   string
	size  int64
	pos   int64
}

func (f *storeFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= f.size {
		return 0, io.EOF
	}
	r, err := f.store.Get(f.ctx, f.key, off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	defer r.Close()
	n, err := io.ReadFull(r, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

func (f *storeFile) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.pos)
	f.pos += int64(n)
	return n, err
}

func (f *storeFile) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += f.pos
	case io.SeekEnd:
		off += f.size
	}
	if off < 0 {
		return 0, fmt.Errorf("seek to %d", off)
	}
	f.pos = off
	return off, nil
}

// parquetFile is an open Parquet object.
type parquetFile struct {
	key    string
	reader *file.Reader
	julian julianDates
}

// openParquet reads the footer of key. size < 0 asks the store for the size.
func openParquet(ctx context.Context, s blob.Store, key string, size int64) (f *parquetFile, err error) {
	defer catch(&err, key)
	if size < 0 {
		o, err := s.Head(ctx, key)
		if err != nil {
			return nil, err
		}
		size = o.Size
	}
	props := parquet.NewReaderProperties(memory.DefaultAllocator)
	r, err := file.NewParquetReader(&storeFile{ctx: ctx, store: s, key: key, size: size}, file.WithReadProps(props))
	if err != nil {
		if context.Cause(ctx) != nil || errors.Is(err, blob.ErrNotExist) {
			return nil, fmt.Errorf("read footer of %s: %w", key, err)
		}
		return nil, &DamagedError{Path: key, Reason: "not a whole Parquet file", Err: err}
	}
	julian := julianDatesOf(r.MetaData().KeyValueMetadata())
	// The Arrow types some writers note here are theirs; ours come from the log.
	r.MetaData().FileMetaData.KeyValueMetadata = nil
	return &parquetFile{key: key, reader: r, julian: julian}, nil
}

// close lets go of the reader, which must not hide an error that came before.
func (f *parquetFile) close() { _ = f.reader.Close() }

// arrowReader reads columns as Arrow, batch rows at a time.
func (f *parquetFile) arrowReader(batch int64) (*pqarrow.FileReader, error) {
	// Not parallel: a panic of the reader must stay on our goroutine.
	return pqarrow.NewFileReader(f.reader, pqarrow.ArrowReadProperties{BatchSize: batch}, memory.DefaultAllocator)
}

// catch turns a panic of the Parquet reader, which bytes from a store can
// provoke, into an error. Use it deferred, with the address of the named error.
func catch(err *error, key string) {
	if p := recover(); p != nil {
		*err = &DamagedError{Path: key, Reason: fmt.Sprintf("the Parquet reader panicked: %v", p)}
	}
}
