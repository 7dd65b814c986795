package blobtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tarndb/tarn/internal/blob"
)

// Pattern is n bytes that differ at every offset, made as they are read, so
// that a test can stream and check an object without holding it.
type Pattern struct{ At, End int64 }

// Read gives the bytes from At on.
func (p *Pattern) Read(b []byte) (int, error) {
	if p.At >= p.End {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), p.End-p.At)]
	Fill(b, p.At)
	p.At += int64(len(b))
	return len(b), nil
}

// Fill writes what Pattern has from off on into b.
func Fill(b []byte, off int64) {
	var word [8]byte
	for i := 0; i < len(b); {
		at := off + int64(i)
		binary.LittleEndian.PutUint64(word[:], (uint64(at/8)+1)*0x9e3779b97f4a7c15)
		i += copy(b[i:], word[at%8:])
	}
}

const largeSize = 64<<20 + 12345 // many parts of any upload, and a piece

// large streams an object that no backend sends in one piece, and reads it by
// ranges from many goroutines.
func large(t *testing.T, s blob.Store) {
	if testing.Short() {
		t.Skip("64 MiB")
	}
	if err := s.Put(t.Context(), "layer/large", &Pattern{End: largeSize}); err != nil {
		t.Fatal(err)
	}
	o, err := s.Head(t.Context(), "layer/large")
	if err != nil || o.Size != largeSize {
		t.Fatalf("head: %+v, %v", o, err)
	}
	const readers, each = 4, 8
	const step = largeSize / (readers * each)
	var wg sync.WaitGroup
	for r := range readers {
		wg.Go(func() {
			for i := range each {
				off := int64((i*readers + r) * step)
				n := int64(step)
				if off+2*n > largeSize {
					n = -1 // the last one reads to the end
				}
				if err := checkRange(t.Context(), s, "layer/large", off, n, largeSize); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func checkRange(ctx context.Context, s blob.Store, key string, off, n, size int64) error {
	r, err := s.Get(ctx, key, off, n)
	if err != nil {
		return err
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if n < 0 {
		n = size - off
	}
	want := make([]byte, n)
	Fill(want, off)
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%s at %d: %d bytes that were not put there, want %d", key, off, len(got), n)
	}
	return nil
}

// listMany has more keys than one page of a listing of S3.
func listMany(t *testing.T, s blob.Store) {
	const n, writers = 1230, 8
	var want []string
	for i := range n {
		want = append(want, fmt.Sprintf("wal/%03d/%d", i%7, i))
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := w; i < n; i += writers {
				if err := s.PutIfAbsent(t.Context(), want[i], []byte("x")); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	put(t, s, "wal.", "before all in byte order")
	put(t, s, "wal0", "behind all")
	wg.Wait()
	slices.Sort(want)
	if got := keys(t, s, "wal/", ""); got != strings.Join(want, " ") {
		t.Errorf("listed %d keys, want %d", strings.Count(got, " ")+1, n)
	}
	for _, after := range []int{0, 99, 1000, n - 2, n - 1} {
		if got := keys(t, s, "wal/", want[after]); got != strings.Join(want[after+1:], " ") {
			t.Errorf("after %s: %d keys, want %d", want[after], len(strings.Fields(got)), n-1-after)
		}
	}
	if got := keys(t, s, "wal/003/", "wal/003/9"); strings.Contains(got, "wal/004") || strings.Contains(got, "wal/003/8") || got == "" {
		t.Errorf("wal/003/ after wal/003/9: %s", got)
	}
	if err := s.Delete(t.Context(), want...); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, s, "", ""); got != "wal. wal0" {
		t.Errorf("left: %.200s", got)
	}
}

// oneSwap races swaps from one ETag.
func oneSwap(t *testing.T, s blob.Store) {
	const writers, rounds = 8, 15
	put(t, s, "manifest", "0")
	for round := range rounds {
		o, err := s.Head(t.Context(), "manifest")
		if err != nil {
			t.Fatal(err)
		}
		tags, errs := make([]string, writers), make([]error, writers)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				<-start
				tags[w], errs[w] = s.PutIfMatch(t.Context(), "manifest", o.ETag, fmt.Appendf(nil, "%d by %d", round, w))
			})
		}
		close(start)
		wg.Wait()
		winner := -1
		for w, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Fatalf("round %d: writers %d and %d both won", round, winner, w)
			case err == nil:
				winner = w
			default:
				expect(t, err, blob.ErrMismatch)
			}
		}
		if winner < 0 {
			t.Fatalf("round %d: nobody won", round)
		}
		if got := read(t, s, "manifest", 0, -1); got != fmt.Sprintf("%d by %d", round, winner) {
			t.Fatalf("round %d: writer %d won, the object holds %q", round, winner, got)
		}
		if h, err := s.Head(t.Context(), "manifest"); err != nil || h.ETag != tags[winner] {
			t.Fatalf("round %d: the winner's ETag is %s, head says %s, %v", round, tags[winner], h.ETag, err)
		}
	}
}

func emptyRanges(t *testing.T, s blob.Store) {
	put(t, s, "empty", "")
	for _, c := range []struct{ off, n int64 }{{0, -1}, {0, 0}, {0, 8192}, {5, 3}, {5, -1}} {
		if got := read(t, s, "empty", c.off, c.n); got != "" {
			t.Errorf("get %d+%d: %q", c.off, c.n, got)
		}
	}
	for _, c := range []struct{ off, n int64 }{{0, 0}, {9, 0}, {9, 9}, {9, -1}} {
		_, err := s.Get(t.Context(), "missing", c.off, c.n)
		expect(t, err, blob.ErrNotExist)
	}
}

func deleted(t *testing.T, s blob.Store) {
	put(t, s, "d/k", "x")
	o, err := s.Head(t.Context(), "d/k")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a deletion may be repeated
		if err := s.Delete(t.Context(), "d/k"); err != nil {
			t.Fatal(err)
		}
		_, err = s.Get(t.Context(), "d/k", 0, -1)
		expect(t, err, blob.ErrNotExist)
		_, err = s.Head(t.Context(), "d/k")
		expect(t, err, blob.ErrNotExist)
		_, err = s.PutIfMatch(t.Context(), "d/k", o.ETag, []byte("back"))
		expect(t, err, blob.ErrNotExist)
	}
	if err := s.Delete(t.Context()); err != nil {
		t.Errorf("delete nothing: %v", err)
	}
	put(t, s, "d/k", "y")
	if got := read(t, s, "d/k", 0, -1); got != "y" {
		t.Errorf("k holds %q", got)
	}
}

// endingReader ends a context after some bytes and goes on.
type endingReader struct {
	Pattern
	after int64
	end   func()
}

func (r *endingReader) Read(p []byte) (int, error) {
	if r.At >= r.after {
		r.end()
	}
	return r.Pattern.Read(p)
}

func endedPut(t *testing.T, s blob.Store) {
	put(t, s, "d/old", "old")
	cause := errors.New("the caller went home")
	for _, c := range []struct {
		key         string
		after, size int64
	}{{"d/new", 0, 10}, {"d/new", 100 << 10, 1 << 20}, {"d/new", 20 << 20, 30 << 20}, {"d/old", 1 << 20, 3 << 20}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		err := s.Put(ctx, c.key, &endingReader{Pattern{End: c.size}, c.after, func() { cancel(cause) }})
		cancel(nil)
		expect(t, err, cause)
		if got := keys(t, s, "", ""); got != "d/old" {
			t.Errorf("ended after %d of %d bytes: there is %s", c.after, c.size, got)
		}
	}
	if got := read(t, s, "d/old", 0, -1); got != "old" {
		t.Errorf("old holds %.20q", got)
	}
}
