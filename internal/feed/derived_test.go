package feed_test

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/delta"
)

// The derived tables follow a workload, through kills and a new copy: current
// rows are the table's, and the rows that held at any place of the history's
// order are those that the history adds up to there.
func derived(t *testing.T, w *world) {
	w.exec(workloadSchema)
	w.exec(`ALTER TABLE s.wide DROP COLUMN at`)
	l := w.work(2)
	w.start()
	w.followWith("s", tarn.FeedSettings{Derived: tarn.DerivedBoth})
	for i := range 3 {
		eventually(t, "transactions", func() any { return l.done.Load() }, func() bool { return l.done.Load() > int64(100*(i+1)) })
		w.kill()
		w.start()
	}
	w.caughtUp("s", "wide", "pair")
	_, err := w.keeper.Resync(t.Context(), w.branch, "s", []string{"pair"})
	check(t, err)
	eventually(t, "more transactions", func() any { return l.done.Load() }, func() bool { return l.done.Load() > 400 })
	l.end()
	w.exec(`ALTER TABLE s.pair ADD COLUMN late int; UPDATE s.pair SET late = a`)
	w.caughtUp("s", "wide", "pair")
	for _, c := range []struct {
		table   string
		columns []string
		key     func(change) string
	}{
		{"wide", []string{"id", "v", "n"}, func(c change) string { return c["id"] }},
		{"pair", []string{"a", "b", "v", "late"}, func(c change) string { return c["a"] + "|" + c["b"] }},
	} {
		h := w.history("s", c.table)
		for i := range h {
			clean(h[i])
		}
		want := w.rowsOf("s."+c.table, c.columns...)
		var got []string
		eventually(t, "current rows of "+c.table, func() any { return fmt.Sprintf("%d rows, want %d", len(got), len(want)) }, func() bool {
			if got = nil; !w.there("lb_" + c.table) {
				return false
			}
			for _, r := range w.read("s", "lb_"+c.table) {
				got = append(got, clean(r).source())
			}
			sort.Strings(got)
			return slices.Equal(got, want)
		})
		var spans []change
		eventually(t, "intervals of "+c.table, func() any { return len(spans) }, func() bool {
			if !w.there("lb_" + c.table + "_scd2") {
				return false
			}
			spans = w.read("s", "lb_"+c.table+"_scd2")
			got = nil
			for _, r := range spans {
				if r["__END_AT"] == "" {
					got = append(got, clean(r).source())
				}
			}
			sort.Strings(got)
			return slices.Equal(got, want)
		})
		opened := 0
		for _, r := range h {
			if r.kind() == "insert" || r.kind() == "update_postimage" {
				opened++
			}
		}
		if opened != len(spans) {
			t.Errorf("%s: %d intervals, want %d", c.table, len(spans), opened)
		}
		for _, n := range []int{len(h) / 3, len(h) / 2, len(h) - 1} {
			// Not between the two rows of an update.
			for n+1 < len(h) && h[n].kind() == "update_preimage" {
				n++
			}
			at := h[n]["_sort_by"]
			then := replay(t, c.table, h[:n+1])
			got = nil
			for _, r := range spans {
				if r["__START_AT"] <= at && (r["__END_AT"] == "" || r["__END_AT"] > at) {
					got = append(got, clean(r).source())
				}
			}
			sort.Strings(got)
			if !slices.Equal(got, then) {
				t.Errorf("%s: at change %d of %d the intervals have %d rows, the history %d\n%s\n%s", c.table, n, len(h), len(got), len(then), brief(got), brief(then))
			}
		}
		t.Logf("%s: %d changes, %d rows, %d intervals", c.table, len(h), len(want), len(spans))
	}
	// Without a key there is nothing to tell rows apart by.
	if w.there("lb_bag") {
		t.Error("a table without a key has current rows")
	}
}

// there says whether a Delta table beside the histories has been made.
func (w *world) there(table string) bool {
	w.t.Helper()
	e, err := w.catalog.Table(w.t.Context(), tarn.TableName{Catalog: "lake", Schema: "s_history", Table: table})
	if tarn.KindOf(err) == tarn.KindNotFound {
		return false
	}
	check(w.t, err)
	store, err := openDir(w.t.Context(), e.Location)
	check(w.t, err)
	_, err = delta.Open(w.t.Context(), store, "")
	return err == nil
}

// clean writes decimals as Postgres does.
func clean(c change) change {
	if n, ok := c["n"]; ok && len(n)-strings.IndexByte(n+".", '.') != 4 {
		c["n"] = threeDigits(n)
	}
	return c
}
