package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/blobtest"
	"github.com/tarndb/tarn/internal/blob/cache"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/blob/s3/s3test"
)

const step = 64 << 10

func open(t *testing.T, s blob.Store, o cache.Options) *cache.Cache {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Range == 0 {
		o.Range = step
	}
	c, err := cache.Open(s, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// put stores an object of the pattern.
func put(t *testing.T, s blob.Store, key string, size int64) {
	t.Helper()
	if err := s.Put(t.Context(), key, &blobtest.Pattern{End: size}); err != nil {
		t.Fatal(err)
	}
}

// check reads and compares with the pattern.
func check(ctx context.Context, c *cache.Cache, key string, size, off int64, n int) error {
	p := make([]byte, n)
	got, err := c.ReadAt(ctx, key, size, p, off)
	if err != nil {
		return err
	}
	want := make([]byte, n)
	blobtest.Fill(want, off)
	if got != n || !bytes.Equal(p, want) {
		return fmt.Errorf("%s at %d: %d bytes, not what was put there", key, off, got)
	}
	return nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Every store below, many readers, less room than there is data.
func TestReaders(t *testing.T) {
	server := s3test.Start(t)
	for name, make := range map[string]func(*testing.T) blob.Store{
		"memory": func(*testing.T) blob.Store { return memory.New() },
		"dir": func(t *testing.T) blob.Store {
			s, err := dir.Open(t.TempDir())
			must(t, err)
			return s
		},
		"s3": func(t *testing.T) blob.Store { return server.Store(t) },
	} {
		t.Run(name, func(t *testing.T) {
			const objects, size, limit = 4, 9*step + 4321, 12 * step
			s := make(t)
			for i := range objects {
				put(t, s, fmt.Sprintf("layer/%d", i), size)
			}
			d := t.TempDir()
			c := open(t, s, cache.Options{Dir: d, Bytes: limit})
			var wg sync.WaitGroup
			for r := range 8 {
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(uint64(r), 0))
					for range 60 {
						off := rnd.Int64N(size)
						n := int(rnd.Int64N(min(3*step, size-off))) + 1
						if err := check(t.Context(), c, fmt.Sprintf("layer/%d", rnd.IntN(objects)), size, off, n); err != nil {
							t.Error(err)
							return
						}
						if u := c.Usage(); u.Bytes > limit {
							t.Errorf("%d bytes are cached, the limit is %d", u.Bytes, limit)
						}
						if rnd.IntN(40) == 0 {
							c.Invalidate(fmt.Sprintf("layer/%d", rnd.IntN(objects)), off, step)
						}
						if rnd.IntN(100) == 0 {
							if err := c.Drop(fmt.Sprintf("layer/%d", rnd.IntN(objects))); err != nil {
								t.Error(err)
							}
						}
					}
				})
			}
			wg.Wait()
			must(t, c.Close())
			u := c.Usage()
			if u.Hits == 0 || u.Misses == 0 || u.Bytes == 0 {
				t.Errorf("usage %+v", u)
			}
			if on := blocks(t, d); on > limit+64<<10 {
				t.Errorf("%d bytes on disk, the limit is %d", on, limit)
			}
			// What is on disk is right, too, and counted.
			again := open(t, s, cache.Options{Dir: d, Bytes: limit})
			if v := again.Usage(); v.Bytes != u.Bytes || v.Objects != u.Objects {
				t.Errorf("after a restart %+v, before %+v", v, u)
			}
			for i := range objects {
				must(t, check(t.Context(), again, fmt.Sprintf("layer/%d", i), size, 0, size))
			}
			if v := again.Usage(); v.Unproven != 0 {
				t.Errorf("%d ranges did not match after an orderly restart", v.Unproven)
			}
		})
	}
}

// blocks is what the files in d take on disk.
func blocks(t *testing.T, d string) int64 {
	t.Helper()
	var n int64
	list, err := os.ReadDir(d)
	must(t, err)
	for _, e := range list {
		st, err := e.Info()
		must(t, err)
		n += st.Sys().(*syscall.Stat_t).Blocks * 512
	}
	return n
}

func TestReaderAt(t *testing.T) {
	s := memory.New()
	put(t, s, "k", 100)
	put(t, s, "empty", 0)
	c := open(t, s, cache.Options{})
	for _, x := range []struct {
		off  int64
		n    int
		want int
		err  error
	}{{0, 100, 100, nil}, {40, 100, 60, io.EOF}, {100, 1, 0, io.EOF}, {1000, 1, 0, io.EOF}, {0, 0, 0, nil}, {99, 1, 1, nil}} {
		p := make([]byte, x.n)
		n, err := c.ReadAt(t.Context(), "k", 100, p, x.off)
		if n != x.want || err != x.err {
			t.Errorf("%d at %d: %d, %v", x.n, x.off, n, err)
		}
	}
	if n, err := c.ReadAt(t.Context(), "empty", 0, make([]byte, 1), 0); n != 0 || err != io.EOF {
		t.Errorf("empty: %d, %v", n, err)
	}
	if _, err := c.ReadAt(t.Context(), "../k", 100, make([]byte, 1), 0); err == nil {
		t.Error("a bad key is accepted")
	}
	if _, err := c.ReadAt(t.Context(), "k", 100, make([]byte, 1), -1); err == nil {
		t.Error("a negative offset is accepted")
	}
	if _, err := c.ReadAt(t.Context(), "none", 100, make([]byte, 1), 0); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	// The object is shorter than its reader believes.
	if _, err := c.ReadAt(t.Context(), "k", 200, make([]byte, 150), 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short: %v", err)
	}
	if err := check(t.Context(), c, "k", 100, 0, 100); err != nil {
		t.Error(err)
	}
	if _, err := cache.Open(s, cache.Options{Dir: t.TempDir(), Range: 1000}); err == nil {
		t.Error("a range of 1000 bytes is accepted")
	}
}

// gate holds Gets until it is opened.
type gate struct {
	blob.Store
	asked chan struct{}
	open  chan struct{}
}

func (g *gate) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	g.asked <- struct{}{}
	select {
	case <-g.open:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return g.Store.Get(ctx, key, off, n)
}

func TestOneFetchForAllWhoWait(t *testing.T) {
	s := &gate{memory.New(), make(chan struct{}, 100), make(chan struct{})}
	put(t, s, "k", step)
	c := open(t, s, cache.Options{})
	cause := errors.New("gone")
	first, cancel := context.WithCancelCause(t.Context())
	begun := make(chan error)
	go func() { begun <- check(first, c, "k", step, 0, 10) }()
	<-s.asked
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if err := check(t.Context(), c, "k", step, int64(i), 100); err != nil {
				t.Error(err)
			}
		})
	}
	cancel(cause) // who began it goes; the others still get it
	if err := <-begun; !errors.Is(err, cause) {
		t.Errorf("the first reader got %v", err)
	}
	close(s.open)
	wg.Wait()
	if len(s.asked) != 0 {
		t.Errorf("%d fetches more than one", len(s.asked))
	}
}

func TestCloseEndsFetches(t *testing.T) {
	s := &gate{memory.New(), make(chan struct{}, 100), make(chan struct{})}
	put(t, s, "k", step)
	c := open(t, s, cache.Options{})
	got := make(chan error)
	go func() { got <- check(t.Context(), c, "k", step, 0, 10) }()
	<-s.asked
	must(t, c.Close())
	if err := <-got; !errors.Is(err, cache.ErrClosed) {
		t.Errorf("the reader got %v", err)
	}
	if err := check(t.Context(), c, "k", step, 0, 10); !errors.Is(err, cache.ErrClosed) {
		t.Errorf("a later reader got %v", err)
	}
}

func TestReadAhead(t *testing.T) {
	const size = 200 * step
	for _, x := range []struct {
		ahead    int64
		min, max int
	}{{0, 1, 40}, {16 * step, 1, 40}, {-1, 200, 200}} {
		s := memory.New()
		put(t, s, "k", size)
		f := faulty.New(s, nil)
		c := open(t, f, cache.Options{ReadAhead: x.ahead})
		for off := int64(0); off < size; off += 8192 {
			must(t, check(t.Context(), c, "k", size, off, 8192))
		}
		if n := f.Calls(); n < x.min || n > x.max {
			t.Errorf("ahead %d: %d requests", x.ahead, n)
		}
		if u := c.Usage(); u.Fetched != size {
			t.Errorf("ahead %d: fetched %d bytes of %d", x.ahead, u.Fetched, size)
		}
	}
	// Who does not read in sequence gets what he asks for.
	s := memory.New()
	put(t, s, "k", size)
	c := open(t, s, cache.Options{})
	for i := int64(190); i > 0; i -= 10 {
		must(t, check(t.Context(), c, "k", size, i*step, 10))
	}
	if u := c.Usage(); u.Fetched != 19*step {
		t.Errorf("fetched %d ranges for 19 reads", u.Fetched/step)
	}
}

func TestRestart(t *testing.T) {
	const size = 10*step + 99
	s := memory.New()
	put(t, s, "a/k", size)
	d := t.TempDir()
	c := open(t, s, cache.Options{Dir: d})
	must(t, check(t.Context(), c, "a/k", size, 0, size))
	c.Rest()
	if _, err := cache.Open(s, cache.Options{Dir: d, Range: step}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("opened twice: %v", err)
	}
	// A crash: what stands in the directory at any moment.
	crashed := t.TempDir()
	must(t, os.CopyFS(crashed, os.DirFS(d)))
	must(t, c.Close())
	for name, at := range map[string]string{"closed": d, "crashed": crashed} {
		f := faulty.New(s, nil)
		c := open(t, f, cache.Options{Dir: at})
		must(t, check(t.Context(), c, "a/k", size, 0, size))
		must(t, check(t.Context(), c, "a/k", size, 0, size))
		if f.Calls() != 0 || c.Usage().Bytes != size {
			t.Errorf("%s: %d requests after a restart, %+v", name, f.Calls(), c.Usage())
		}
		must(t, c.Close())
	}
	// A machine's crash lost bytes whose record survived.
	data := only(t, d, "*.data")
	b, err := os.OpenFile(data, os.O_RDWR, 0)
	must(t, err)
	_, err = b.WriteAt(make([]byte, 512), 3*step+100)
	must(t, err)
	must(t, b.Close())
	f := faulty.New(s, nil)
	c = open(t, f, cache.Options{Dir: d})
	must(t, check(t.Context(), c, "a/k", size, 0, size))
	c.Rest()
	if u := c.Usage(); u.Unproven != 1 || f.Calls() != 1 || u.Fetched != step || u.Bytes != size {
		t.Errorf("%d requests, %+v", f.Calls(), u)
	}
	must(t, c.Close())
	// It lost the map, or half of it.
	for _, cut := range []int64{0, 100, 2048, 2048 + 8*5} {
		torn := t.TempDir()
		must(t, os.CopyFS(torn, os.DirFS(d)))
		must(t, os.Truncate(only(t, torn, "*.map"), cut))
		c := open(t, s, cache.Options{Dir: torn})
		if u := c.Usage(); u.Bytes != max((cut-2048)/8, 0)*step {
			t.Errorf("map cut at %d: %+v", cut, u)
		}
		must(t, check(t.Context(), c, "a/k", size, 0, size))
	}
	// Another range size makes it of no use, and a lower limit makes it shorter.
	c = open(t, s, cache.Options{Dir: d, Bytes: 4 * step})
	if u := c.Usage(); u.Bytes > 4*step || u.Bytes == 0 {
		t.Errorf("lowered limit: %+v", u)
	}
	must(t, c.Close())
	c = open(t, s, cache.Options{Dir: d, Range: 4096})
	if u := c.Usage(); u.Bytes != 0 || blocks(t, d) != 0 {
		t.Errorf("other range: %+v", u)
	}
}

func only(t *testing.T, d, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(d, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s holds %v", d, found)
	}
	return found[0]
}

func TestInvalidate(t *testing.T) {
	const size = 4 * step
	s := memory.New()
	put(t, s, "k", size)
	d := t.TempDir()
	f := faulty.New(s, nil)
	c := open(t, f, cache.Options{Dir: d})
	must(t, check(t.Context(), c, "k", size, 0, size))
	c.Rest()
	b, err := os.OpenFile(only(t, d, "*.data"), os.O_RDWR, 0)
	must(t, err)
	_, err = b.WriteAt([]byte("rot"), 2*step+7)
	must(t, err)
	must(t, b.Close())
	if check(t.Context(), c, "k", size, 0, size) == nil {
		t.Fatal("rot is not seen: the test does not read the file")
	}
	c.Invalidate("k", 2*step+7, 1)
	c.Invalidate("none", 0, 1)
	must(t, check(t.Context(), c, "k", size, 0, size))
	c.Rest()
	if f.Calls() != 2 || c.Usage().Bytes != size {
		t.Errorf("%d requests, %+v", f.Calls(), c.Usage())
	}
}

func TestAdopt(t *testing.T) {
	const size = 5*step + 3
	local, err := dir.Open(t.TempDir()) // on the file system of the cache
	must(t, err)
	put(t, local, "sealed", size)
	path := filepath.Join(local.Root(), "sealed")
	s := memory.New()
	put(t, s, "k", size)
	put(t, s, "other", size)
	f := faulty.New(s, nil)
	d := t.TempDir()
	c := open(t, f, cache.Options{Dir: d, Bytes: 8 * step, ReadAhead: -1})
	must(t, check(t.Context(), c, "k", size, 10, 10)) // a range it replaces
	c.Rest()
	must(t, c.Adopt("k", path))
	must(t, check(t.Context(), c, "k", size, 0, size))
	if u := c.Usage(); f.Calls() != 1 || u.Bytes != size || u.Objects != 1 {
		t.Errorf("%d requests, %+v", f.Calls(), u)
	}
	must(t, c.Close())
	c = open(t, f, cache.Options{Dir: d, Bytes: 8 * step, ReadAhead: -1})
	must(t, check(t.Context(), c, "k", size, 0, size))
	if f.Calls() != 1 {
		t.Errorf("an adopted file is fetched after a restart")
	}
	// Neither doubt nor eviction touches the file itself.
	c.Invalidate("k", 0, 1)
	must(t, check(t.Context(), c, "k", size, 0, 10))
	c.Rest()
	if f.Calls() != 2 || c.Usage().Bytes != step {
		t.Errorf("%d requests, %+v", f.Calls(), c.Usage())
	}
	must(t, c.Adopt("k", path))
	must(t, check(t.Context(), c, "other", size, 0, size))
	c.Rest()
	if u := c.Usage(); u.Bytes > 8*step || u.Objects != 1 {
		t.Errorf("after eviction: %+v", u)
	}
	b, err := os.ReadFile(path)
	want := make([]byte, size)
	blobtest.Fill(want, 0)
	if err != nil || !bytes.Equal(b, want) {
		t.Errorf("the adopted file was written to: %v", err)
	}
	must(t, c.Drop("k", "other", "none"))
	if u := c.Usage(); u.Bytes != 0 || u.Objects != 0 || blocks(t, d) != 0 {
		t.Errorf("after a drop: %+v, %d bytes on disk", u, blocks(t, d))
	}
	if err := c.Adopt("k", filepath.Join(d, "none")); err == nil {
		t.Error("adopted nothing")
	}
	put(t, local, "huge", 9*step)
	if err := c.Adopt("huge", filepath.Join(local.Root(), "huge")); err == nil || c.Usage().Bytes != 0 {
		t.Errorf("adopted more than the limit: %v, %+v", err, c.Usage())
	}
}
