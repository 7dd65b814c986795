package wal

import (
	"testing"
	"time"

	"github.com/tarndb/tarn/internal/blob/memory"
)

// Of two runs that this process begins before either has written anything, the one
// that began last is the later one: what it writes counts, whatever arrives of the
// first meanwhile.
func TestRunsAreOrderedAsTheyBegin(t *testing.T) {
	for seed := range uint64(16) { // the order of names that are as random as nonces
		s := memory.New()
		w := newWriter(t, t.TempDir(), seed)
		w.grow(100_000)
		r := newRemote(t, s)
		first, last := r.Uploader(w.source(1)), r.Uploader(w.source(1))
		short := w.end()
		if err := first.attach(t.Context(), short); err != nil {
			t.Fatal(err)
		}
		w.grow(50_000)
		if err := last.copyTo(t.Context(), w.end(), time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := first.copyTo(t.Context(), short, time.Now()); err != nil {
			t.Fatal(err)
		}
		mustHold(t, s, w, w.end())
	}
}
