package delta_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/delta"
)

// copyOf gives a new store with the objects of s.
func copyOf(t *testing.T, s blob.Store) *memory.Store {
	t.Helper()
	c := memory.New()
	for o, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Get(t.Context(), o.Key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Put(t.Context(), o.Key, r); err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	return c
}

const app = "tarn/test"

// step opens the table, replaces its rows or adds to them, and commits under
// position 100: what a mover does in one round.
func step(ctx context.Context, t *testing.T, s blob.Store, overwrite bool) (err error) {
	tab, err := delta.Open(ctx, s, "t")
	if err != nil {
		return err
	}
	base, err := tab.Latest(ctx)
	if err != nil {
		return err
	}
	if v, _ := base.AppTxn(app); v >= 100 {
		return nil
	}
	x := tab.Begin(base)
	x.SetAppTxn(app, 100)
	if overwrite {
		x.Overwrite()
	}
	err = x.Append(ctx, rows(t, base.Schema(), person(1, "new", "x"), person(2, "new", "y")))
	if err == nil {
		_, err = x.Commit(ctx, delta.CommitOptions{})
	}
	if err != nil {
		x.Abort(ctx)
	}
	return err
}

// A commit may be struck at every call to the store, in every way. Whatever
// happens, the table is readable and has the old or the new version; what
// Commit says is true; and the round repeated ends with the rows there once.
func TestCrashAtEveryCall(t *testing.T) {
	before := memory.New()
	tab := create(t, before, delta.Metadata{Schema: people()})
	for i := range 9 {
		write(t, tab, person(10+i, "old", "x"))
	}
	for _, overwrite := range []bool{false, true} {
		after := 11
		if overwrite {
			after = 2
		}
		count := faulty.New(copyOf(t, before), nil)
		if err := step(t.Context(), t, count, overwrite); err != nil {
			t.Fatal(err)
		}
		if count.Calls() < 10 {
			t.Fatalf("a round makes only %d calls: is there no checkpoint?", count.Calls())
		}
		for n := range count.Calls() {
			for _, f := range []faulty.Fault{faulty.Fail, faulty.Lost, faulty.Unsent, faulty.Short, faulty.Torn, faulty.DieBefore, faulty.DieAfter} {
				what := fmt.Sprintf("overwrite %v, call %d, fault %d", overwrite, n, f)
				store := copyOf(t, before)
				err := step(t.Context(), t, faulty.New(store, faulty.At(n, f)), overwrite)
				got := readable(t, what, store)
				if got != 9 && got != after {
					t.Errorf("%s: %d rows", what, got)
				}
				died := f == faulty.DieBefore || f == faulty.DieAfter
				switch {
				case err == nil && got != after:
					t.Errorf("%s: committed, but %d rows", what, got)
				case err != nil && !died && !errors.Is(err, blob.ErrAmbiguous) && got != 9:
					t.Errorf("%s: said %v, but %d rows", what, err, got)
				case err != nil && !died && !errors.Is(err, blob.ErrAmbiguous) && f != faulty.Lost:
					noOrphans(t, what, store)
				}
				if err := step(t.Context(), t, store, overwrite); err != nil {
					t.Errorf("%s: repeated: %v", what, err)
				}
				if got := readable(t, what, store); got != after {
					t.Errorf("%s: repeated: %d rows instead of %d", what, got, after)
				}
			}
		}
	}
}

// readable counts the rows by a scan and by the log; they must agree.
func readable(t *testing.T, what string, s blob.Store) int {
	t.Helper()
	tab, err := delta.Open(t.Context(), s, "t")
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	snap := latest(t, tab)
	got, n := content(t, snap, delta.ScanOptions{}), count(t, snap)
	if int64(len(got)) != n {
		t.Errorf("%s: %d rows scanned, %d counted", what, len(got), n)
	}
	if _, err := tab.History(t.Context(), 0); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	return len(got)
}

// noOrphans checks that a failed and aborted round left no data file.
func noOrphans(t *testing.T, what string, s blob.Store) {
	t.Helper()
	files := 0
	for o := range s.List(t.Context(), "t/part-", "") {
		if strings.HasSuffix(o.Key, ".parquet") {
			files++
		}
	}
	if files != 9 {
		t.Errorf("%s: %d data files", what, files)
	}
}

// Many writers with a store that fails one call in ten: every row is there
// exactly once, as long as each writer repeats its round under its position.
func TestConcurrentWritersOnABadStore(t *testing.T) {
	const writers, rounds = 4, 8
	store := newDir(t)
	create(t, store, delta.Metadata{Schema: people()})
	base, err := delta.Open(t.Context(), store, "t")
	if err != nil {
		t.Fatal(err)
	}
	schema := latest(t, base).Schema()
	recs := make([][]string, writers)
	var wg sync.WaitGroup
	for w := range writers {
		bad := faulty.New(store, faulty.Seeded(uint64(w), 0.1, faulty.Fail, faulty.Lost, faulty.Unsent, faulty.Torn))
		for r := range rounds {
			recs[w] = append(recs[w], person(100*w+r, "n", "t"))
		}
		batches := make([]func() error, rounds)
		for r := range rounds {
			rec := rows(t, schema, recs[w][r])
			batches[r] = func() error {
				tab, err := delta.Open(t.Context(), bad, "t")
				if err != nil {
					return err
				}
				snap, err := tab.Latest(t.Context())
				if err != nil {
					return err
				}
				x := tab.Begin(snap)
				x.SetAppTxn(fmt.Sprint(app, w), int64(r+1))
				err = x.Append(t.Context(), rec)
				if err == nil {
					_, err = x.Commit(t.Context(), delta.CommitOptions{})
				}
				if err != nil {
					x.Abort(t.Context())
				}
				return err
			}
		}
		wg.Go(func() {
			for _, round := range batches {
				for tries := 0; ; tries++ {
					err := round()
					if err == nil || errors.Is(err, delta.ErrAppliedTxn) {
						break
					}
					if tries == 200 {
						t.Errorf("writer %d gives up: %v", w, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	snap := latest(t, base)
	got := content(t, snap, delta.ScanOptions{Columns: []string{"id"}})
	slices.Sort(got)
	if len(got) != writers*rounds || len(slices.Compact(got)) != writers*rounds {
		t.Errorf("%d rows of %d: %v", len(got), writers*rounds, got)
	}
	if snap.Version() != writers*rounds {
		t.Errorf("the table is at %d", snap.Version())
	}
	if r := readBack(t, store.Root()+"/t", "id"); len(r.Rows) != writers*rounds {
		t.Errorf("deltalake reads %d rows", len(r.Rows))
	}
}

// A scan of damaged data files ends with an error, never with fewer rows.
func TestDamagedFiles(t *testing.T) {
	store := memory.New()
	tab := create(t, store, delta.Metadata{Schema: people()})
	var many []string
	for i := range 500 {
		many = append(many, person(i, fmt.Sprint("name ", i*7919), "town"))
	}
	write(t, tab, many...)
	var key string
	var whole []byte
	for o := range store.List(t.Context(), "t/part-", "") {
		key = o.Key
		r, err := store.Get(t.Context(), key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if whole, err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	for at := 0; at < len(whole); at += 7 {
		for _, b := range [][]byte{flip(whole, at), whole[:at]} {
			if err := store.Put(t.Context(), key, strings.NewReader(string(b))); err != nil {
				t.Fatal(err)
			}
			got, err := scan(t.Context(), latest(t, tab), delta.ScanOptions{})
			if err == nil && len(got) != 500 {
				t.Errorf("byte %d: %d rows and no error", at, len(got))
			}
		}
	}
	if err := store.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if _, err := scan(t.Context(), latest(t, tab), delta.ScanOptions{}); !delta.IsRefusal(err) {
		t.Errorf("a missing data file: %v", err)
	}
}

func flip(b []byte, at int) []byte {
	c := slices.Clone(b)
	c[at] ^= 0x55
	return c
}
