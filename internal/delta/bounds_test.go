package delta_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/delta"
)

// mirrored shows one data file under many names.
type mirrored struct {
	blob.Store
	file string
}

func (m mirrored) key(k string) string {
	if strings.HasPrefix(k, "t/copy-") {
		return m.file
	}
	return k
}

func (m mirrored) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	return m.Store.Get(ctx, m.key(key), off, n)
}

func (m mirrored) Head(ctx context.Context, key string) (blob.Object, error) {
	return m.Store.Head(ctx, m.key(key))
}

// A scan of many files with many columns, and a look for few rows among them,
// keep to 512 MiB. TARN_FULL=1 takes 10 000 files of 2 000 columns.
func TestMemoryIsBounded(t *testing.T) {
	files, columns, rowsEach := 400, 150, 20
	if os.Getenv("TARN_FULL") != "" {
		files, columns = 10_000, 2_000
	}
	store := memory.New()
	schema := delta.Schema{Fields: []delta.Field{{Name: "id", Type: "long"}}}
	for i := range columns - 1 {
		schema.Fields = append(schema.Fields, delta.Field{Name: fmt.Sprintf("column_%d", i), Type: "string", Nullable: true})
	}
	tab := create(t, store, delta.Metadata{Schema: schema})
	var objects []string
	for r := range rowsEach {
		var o strings.Builder
		fmt.Fprintf(&o, `{"id":%d`, r)
		for i := range columns - 1 {
			fmt.Fprintf(&o, `,"column_%d":"value %d"`, i, r)
		}
		objects = append(objects, o.String()+"}")
	}
	write(t, tab, objects...)
	var seen mirrored
	for o, err := range store.List(t.Context(), "t/part-", "") {
		if err != nil {
			t.Fatal(err)
		}
		seen = mirrored{store, o.Key}
	}
	size, err := store.Head(t.Context(), seen.file)
	if err != nil {
		t.Fatal(err)
	}
	var commit bytes.Buffer
	for i := range files {
		fmt.Fprintf(&commit, `{"add":{"path":"copy-%d","partitionValues":{},"size":%d,"modificationTime":1,"dataChange":true,"stats":"{\"numRecords\":%d,\"minValues\":{\"id\":0},\"maxValues\":{\"id\":%d}}"}}`+"\n", i, size.Size, rowsEach, rowsEach)
	}
	if err := store.Put(t.Context(), "t/_delta_log/00000000000000000002.json", &commit); err != nil {
		t.Fatal(err)
	}
	many, err := delta.Open(t.Context(), seen, "t")
	if err != nil {
		t.Fatal(err)
	}
	s := latest(t, many)
	var peak uint64
	rows, batches := int64(0), 0
	for rec, err := range s.Scan(t.Context(), delta.ScanOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		rows += rec.NumRows()
		rec.Release()
		if batches++; batches%100 == 0 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
		}
	}
	if want := int64(rowsEach * (files + 1)); rows != want {
		t.Errorf("%d rows of %d", rows, want)
	}
	if peak == 0 || peak > 512<<20 {
		t.Errorf("the heap held up to %d MiB", peak>>20)
	}
	t.Logf("%d files of %d columns: the heap held up to %d MiB", files, columns, peak>>20)
}
