// Package blobtest is the conformance suite of blob stores: what every backend
// must do for the rooms above. It knows only the Store interface.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/tarndb/tarn/internal/blob"
)

// Run runs the suite; open gives a new, empty store each time.
func Run(t *testing.T, open func(t *testing.T) blob.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, blob.Store)
	}{
		{"get what was put", getPut},
		{"ranges", ranges},
		{"missing", missing},
		{"bad keys", badKeys},
		{"list in byte order", list},
		{"delete", del},
		{"put if absent", putIfAbsent},
		{"put if absent has one winner", oneWinner},
		{"put if match", putIfMatch},
		{"put if match counts every increment", counter},
		{"reader that fails leaves nothing", brokenReader},
		{"ended context", ended},
		{"context that ends in the middle of a put", endedPut},
		{"put if match has one winner", oneSwap},
		{"ranges of an empty object", emptyRanges},
		{"deleted is gone", deleted},
		{"list more than a page", listMany},
		{"large object", large},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

func put(t *testing.T, s blob.Store, key, text string) {
	t.Helper()
	if err := s.Put(t.Context(), key, strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, s blob.Store, key string, off, n int64) string {
	t.Helper()
	r, err := s.Get(t.Context(), key, off, n)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func expect(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got error %v, want %v", got, want)
	}
}

func getPut(t *testing.T, s blob.Store) {
	for _, key := range []string{"a", "dir/sub/b", "space and ünïcode/%41=b.c", "x/_delta_log/00.json"} {
		put(t, s, key, "one of "+key)
		put(t, s, key, "two of "+key)
		if got := read(t, s, key, 0, -1); got != "two of "+key {
			t.Errorf("%s holds %q", key, got)
		}
		o, err := s.Head(t.Context(), key)
		if err != nil || o.Key != key || o.Size != int64(len("two of "+key)) || o.ETag == "" || o.ModTime.IsZero() {
			t.Errorf("head %s: %+v, %v", key, o, err)
		}
	}
	put(t, s, "empty", "")
	if got := read(t, s, "empty", 0, -1); got != "" {
		t.Errorf("empty holds %q", got)
	}
}

func ranges(t *testing.T, s blob.Store) {
	put(t, s, "k", "0123456789")
	for _, c := range []struct {
		off, n int64
		want   string
	}{{0, 3, "012"}, {7, -1, "789"}, {8, 10, "89"}, {10, -1, ""}, {11, 4, ""}, {4, 0, ""}} {
		if got := read(t, s, "k", c.off, c.n); got != c.want {
			t.Errorf("get %d+%d: %q, want %q", c.off, c.n, got, c.want)
		}
	}
	if _, err := s.Get(t.Context(), "k", -1, 1); err == nil {
		t.Error("a negative offset is accepted")
	}
}

func missing(t *testing.T, s blob.Store) {
	put(t, s, "d/k", "x")
	for _, key := range []string{"no", "d", "d/no", "d/k/below"} {
		_, err := s.Get(t.Context(), key, 0, -1)
		expect(t, err, blob.ErrNotExist)
		_, err = s.Head(t.Context(), key)
		expect(t, err, blob.ErrNotExist)
		_, err = s.PutIfMatch(t.Context(), key, "tag", nil)
		expect(t, err, blob.ErrNotExist)
	}
	for o := range s.List(t.Context(), "nowhere/", "") {
		t.Errorf("nowhere lists %s", o.Key)
	}
}

func badKeys(t *testing.T, s blob.Store) {
	for _, key := range []string{"", "/a", "a/", "a//b", ".", "a/../b", "..", "a/.", "a\x00b"} {
		if err := s.Put(t.Context(), key, strings.NewReader("x")); err == nil {
			t.Errorf("put %q is accepted", key)
		}
		if err := s.PutIfAbsent(t.Context(), key, nil); err == nil {
			t.Errorf("put if absent %q is accepted", key)
		}
		if _, err := s.Get(t.Context(), key, 0, -1); err == nil {
			t.Errorf("get %q is accepted", key)
		}
		if err := s.Delete(t.Context(), key); err == nil {
			t.Errorf("delete %q is accepted", key)
		}
	}
	for _, err := range s.List(t.Context(), "../", "") {
		if err == nil {
			t.Error("list ../ is accepted")
		}
	}
}

func keys(t *testing.T, s blob.Store, prefix, after string) string {
	t.Helper()
	var got []string
	for o, err := range s.List(t.Context(), prefix, after) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, o.Key)
	}
	return strings.Join(got, " ")
}

func list(t *testing.T, s blob.Store) {
	for _, key := range []string{"a/2", "a.b", "a/1", "a-c", "ab/x/y", "a/1.json", "b", "a0", "a/sub/9", "a/ü"} {
		put(t, s, key, key)
	}
	for _, c := range []struct{ prefix, after, want string }{
		{"", "", "a-c a.b a/1 a/1.json a/2 a/sub/9 a/ü a0 ab/x/y b"},
		{"a/", "", "a/1 a/1.json a/2 a/sub/9 a/ü"},
		{"a/", "a/1.json", "a/2 a/sub/9 a/ü"},
		{"a/", "a/1.", "a/1.json a/2 a/sub/9 a/ü"},
		{"a", "a/sub/8", "a/sub/9 a/ü a0 ab/x/y"},
		{"a", "a/sub/9", "a/ü a0 ab/x/y"},
		{"a", "a/t", "a/ü a0 ab/x/y"},
		{"a/s", "", "a/sub/9"},
		{"ab/x", "", "ab/x/y"},
		{"b", "", "b"},
		{"b/", "", ""},
		{"", "b", ""},
	} {
		if got := keys(t, s, c.prefix, c.after); got != c.want {
			t.Errorf("list %q after %q: %s, want %s", c.prefix, c.after, got, c.want)
		}
	}
	for o := range s.List(t.Context(), "", "") {
		h, err := s.Head(t.Context(), o.Key)
		if err != nil || h != o {
			t.Errorf("list shows %+v, head %+v, %v", o, h, err)
		}
		if o.Key == "a/1" {
			break // a consumer may stop
		}
	}
}

func del(t *testing.T, s blob.Store) {
	put(t, s, "d/a", "x")
	put(t, s, "d/b", "x")
	put(t, s, "d/c", "x")
	if err := s.Delete(t.Context(), "d/a", "d/no", "nowhere/at/all", "d/c"); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, s, "", ""); got != "d/b" {
		t.Errorf("left: %s", got)
	}
}

func putIfAbsent(t *testing.T, s blob.Store) {
	if err := s.PutIfAbsent(t.Context(), "x/k", []byte("first")); err != nil {
		t.Fatal(err)
	}
	expect(t, s.PutIfAbsent(t.Context(), "x/k", []byte("second")), blob.ErrExists)
	if got := read(t, s, "x/k", 0, -1); got != "first" {
		t.Errorf("k holds %q", got)
	}
	if err := s.Delete(t.Context(), "x/k"); err != nil {
		t.Fatal(err)
	}
	if err := s.PutIfAbsent(t.Context(), "x/k", []byte("third")); err != nil {
		t.Fatal(err)
	}
}

func oneWinner(t *testing.T, s blob.Store) {
	const writers, versions = 8, 20
	for v := range versions {
		key := fmt.Sprintf("log/%020d.json", v)
		won := make([]error, writers)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				<-start
				won[w] = s.PutIfAbsent(t.Context(), key, bytes.Repeat([]byte{byte('a' + w)}, 100))
			})
		}
		close(start)
		wg.Wait()
		winner := -1
		for w, err := range won {
			switch {
			case err == nil && winner >= 0:
				t.Fatalf("%s: writers %d and %d both won", key, winner, w)
			case err == nil:
				winner = w
			default:
				expect(t, err, blob.ErrExists)
			}
		}
		if winner < 0 {
			t.Fatalf("%s: nobody won", key)
		}
		if got := read(t, s, key, 0, -1); got != strings.Repeat(string(rune('a'+winner)), 100) {
			t.Fatalf("%s: writer %d won, the object holds %.10q…", key, winner, got)
		}
	}
}

func putIfMatch(t *testing.T, s blob.Store) {
	put(t, s, "k", "one")
	o, err := s.Head(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	tag, err := s.PutIfMatch(t.Context(), "k", o.ETag, []byte("two"))
	if err != nil {
		t.Fatal(err)
	}
	if h, err := s.Head(t.Context(), "k"); err != nil || h.ETag != tag || tag == o.ETag {
		t.Errorf("etag was %s, became %s, head says %s, %v", o.ETag, tag, h.ETag, err)
	}
	_, err = s.PutIfMatch(t.Context(), "k", o.ETag, []byte("ten"))
	expect(t, err, blob.ErrMismatch)
	if got := read(t, s, "k", 0, -1); got != "two" {
		t.Errorf("k holds %q", got)
	}
	put(t, s, "k", "two") // the same bytes written again may match or not, other bytes must not
	put(t, s, "k", "six")
	_, err = s.PutIfMatch(t.Context(), "k", tag, []byte("ten"))
	expect(t, err, blob.ErrMismatch)
}

// counter makes increments from many goroutines; none may be lost.
func counter(t *testing.T, s blob.Store) {
	const writers, each = 6, 15
	put(t, s, "n", "0")
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				if err := Increment(t.Context(), s, "n"); err == nil {
					done++
				} else if !errors.Is(err, blob.ErrMismatch) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := read(t, s, "n", 0, -1); got != fmt.Sprint(writers*each) {
		t.Errorf("counted %s of %d", got, writers*each)
	}
}

// Increment adds one to the number under key by one compare-and-swap;
// blob.ErrMismatch when somebody else was faster.
func Increment(ctx context.Context, s blob.Store, key string) error {
	o, err := s.Head(ctx, key)
	if err != nil {
		return err
	}
	r, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	defer r.Close()
	var n int
	if _, err := fmt.Fscan(r, &n); err != nil {
		return err
	}
	_, err = s.PutIfMatch(ctx, key, o.ETag, []byte(fmt.Sprint(n+1)))
	return err
}

var errBroken = errors.New("broken reader")

type broken struct{ n int }

func (b *broken) Read(p []byte) (int, error) {
	if b.n == 0 {
		return 0, errBroken
	}
	b.n--
	return copy(p, "some bytes"), nil
}

func brokenReader(t *testing.T, s blob.Store) {
	expect(t, s.Put(t.Context(), "d/k", &broken{3}), errBroken)
	put(t, s, "d/old", "old")
	expect(t, s.Put(t.Context(), "d/old", &broken{3}), errBroken)
	if got := keys(t, s, "", ""); got != "d/old" {
		t.Errorf("there is %s", got)
	}
	if got := read(t, s, "d/old", 0, -1); got != "old" {
		t.Errorf("old holds %q", got)
	}
}

func ended(t *testing.T, s blob.Store) {
	put(t, s, "k", "x")
	cause := errors.New("the caller went home")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	expect(t, s.Put(ctx, "k", strings.NewReader("y")), cause)
	expect(t, s.PutIfAbsent(ctx, "new", []byte("y")), cause)
	_, err := s.Get(ctx, "k", 0, -1)
	expect(t, err, cause)
	for _, err := range s.List(ctx, "", "") {
		expect(t, err, cause)
	}
	if got := read(t, s, "k", 0, -1); got != "x" {
		t.Errorf("k holds %q", got)
	}
}
