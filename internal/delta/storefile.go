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
	// failed is the store's first failure to read what is there. A Parquet
	// reader says what it likes of it; broken tells it from damage.
	failed error
	whole  []byte // of a small object, which is read at once; nil = of a larger one
}

// smallObject is what one request reads as fast as its parts.
const smallObject = 1 << 20 // bytes

// load reads a small object.
func (f *storeFile) load() error {
	if f.size > smallObject {
		return nil
	}
	b := make([]byte, f.size)
	if _, err := f.ReadAt(b, 0); err != nil && f.size > 0 {
		return err
	}
	f.whole = b
	return nil
}

func (f *storeFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= f.size {
		return 0, io.EOF
	}
	if off < 0 {
		return 0, fmt.Errorf("read at %d", off)
	}
	want := min(int64(len(p)), f.size-off)
	if f.whole != nil {
		n := copy(p, f.whole[off:])
		if n < len(p) {
			return n, io.EOF
		}
		return n, nil
	}
	r, err := f.store.Get(f.ctx, f.key, off, want)
	if err != nil {
		return 0, f.fail(err)
	}
	defer r.Close()
	n, err := io.ReadFull(r, p[:want])
	if err != nil {
		return n, f.fail(fmt.Errorf("%d of %d bytes at %d: %w", n, want, off, err))
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

// fail remembers err, unless it is that the object is gone: that is for the log
// to answer.
func (f *storeFile) fail(err error) error {
	if f.failed == nil && !errors.Is(err, blob.ErrNotExist) {
		f.failed = err
	}
	return err
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
	source *storeFile
	reader *file.Reader
	julian julianDates
}

// openParquet reads the footer of key. size < 0 asks the store for the size.
func openParquet(ctx context.Context, s blob.Store, key string, size int64) (f *parquetFile, err error) {
	if size < 0 {
		o, err := s.Head(ctx, key)
		if err != nil {
			return nil, err
		}
		size = o.Size
	}
	props := parquet.NewReaderProperties(memory.DefaultAllocator)
	src := &storeFile{ctx: ctx, store: s, key: key, size: size}
	defer catch(&err, src)
	if err := src.load(); err != nil {
		return nil, err
	}
	r, err := file.NewParquetReader(src, file.WithReadProps(props))
	if err != nil {
		if context.Cause(ctx) != nil || errors.Is(err, blob.ErrNotExist) {
			return nil, fmt.Errorf("read footer of %s: %w", key, err)
		}
		return nil, &DamagedError{Path: key, Reason: "not a whole Parquet file", Err: err}
	}
	julian := julianDatesOf(r.MetaData().KeyValueMetadata())
	// The Arrow types some writers note here are theirs; ours come from the log.
	r.MetaData().FileMetaData.KeyValueMetadata = nil
	return &parquetFile{key: key, source: src, reader: r, julian: julian}, nil
}

// close lets go of the reader, which must not hide an error that came before.
func (f *parquetFile) close() { _ = f.reader.Close() }

// arrowReader reads columns as Arrow, batch rows at a time.
func (f *parquetFile) arrowReader(batch int64) (*pqarrow.FileReader, error) {
	// Not parallel: a panic of the reader must stay on our goroutine.
	return pqarrow.NewFileReader(f.reader, pqarrow.ArrowReadProperties{BatchSize: batch}, memory.DefaultAllocator)
}

// catch turns a panic of the Parquet reader, which bytes from a store can
// provoke, into an error, and what the reader made of a store's failure into
// that failure. Use it deferred, with the address of the named error.
func catch(err *error, f *storeFile) {
	if p := recover(); p != nil {
		*err = &DamagedError{Path: f.key, Reason: fmt.Sprintf("the Parquet reader panicked: %v", p)}
	}
	if *err != nil && f.failed != nil {
		*err = fmt.Errorf("read %s: %w", f.key, f.failed)
	}
}
