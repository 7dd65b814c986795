package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/delta"
)

// historyRow is one line of lb_bookings_history.
type historyRow struct {
	sortBy, kind   string
	commitLSN, xid int64
	b              booking
}

// readHistory reads the whole history table in order of _sort_by.
func readHistory(ctx context.Context, s *delta.Snapshot) ([]historyRow, error) {
	var all []historyRow
	for rec, err := range s.Scan(ctx, delta.ScanOptions{}) {
		if err != nil {
			return nil, err
		}
		rows, err := historyRows(rec)
		rec.Release()
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
	}
	slices.SortFunc(all, func(a, b historyRow) int { return strings.Compare(a.sortBy, b.sortBy) })
	return all, nil
}

func historyRows(rec arrow.RecordBatch) ([]historyRow, error) {
	rows := make([]historyRow, rec.NumRows())
	// Each column is named, so that their order in the table does not matter.
	columns := map[string]func(arrow.Array, int){
		"_sort_by":        func(a arrow.Array, i int) { rows[i].sortBy = a.(*array.String).Value(i) },
		"_pg_change_type": func(a arrow.Array, i int) { rows[i].kind = a.(*array.String).Value(i) },
		"_pg_commit_lsn":  func(a arrow.Array, i int) { rows[i].commitLSN = a.(*array.Int64).Value(i) },
		"_pg_xid":         func(a arrow.Array, i int) { rows[i].xid = a.(*array.Int64).Value(i) },
		"booking_id":      func(a arrow.Array, i int) { rows[i].b.id = a.(*array.Int64).Value(i) },
		"flight_id":       func(a arrow.Array, i int) { rows[i].b.flight = a.(*array.Int64).Value(i) },
		"tx_no":           func(a arrow.Array, i int) { rows[i].b.txNo = a.(*array.Int64).Value(i) },
		"seats":           func(a arrow.Array, i int) { rows[i].b.seats = a.(*array.Int32).Value(i) },
		"origin":          func(a arrow.Array, i int) { rows[i].b.origin = a.(*array.String).Value(i) },
		"destination":     func(a arrow.Array, i int) { rows[i].b.dest = a.(*array.String).Value(i) },
	}
	for name, set := range columns {
		at := rec.Schema().FieldIndices(name)
		if len(at) != 1 {
			return nil, fmt.Errorf("the history has no column %s: %s", name, rec.Schema())
		}
		for i := range rows {
			if rec.Column(at[0]).IsValid(i) {
				set(rec.Column(at[0]), i)
			}
		}
	}
	return rows, nil
}

// checkHistory compares the history with what the app committed: every change
// once, in commit order, and nothing that was taken back.
func (l *ledger) checkHistory(all []historyRow) (changes int, err error) {
	var got []historyRow
	for _, r := range all {
		if tarn.LSN(r.commitLSN) > l.startLSN {
			got = append(got, r)
		}
	}
	var want []historyRow
	for _, t := range l.inOrder() {
		for _, ch := range t.changes {
			switch {
			case ch.before == nil:
				want = append(want, historyRow{kind: "insert", xid: t.xid, b: *ch.after})
			case ch.after == nil:
				want = append(want, historyRow{kind: "delete", xid: t.xid, b: *ch.before})
			default:
				want = append(want, historyRow{kind: "update_preimage", xid: t.xid, b: *ch.before},
					historyRow{kind: "update_postimage", xid: t.xid, b: *ch.after})
			}
			changes++
		}
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) {
			return changes, fmt.Errorf("the history ends after %d of %d rows: transaction %d (%s of booking %d) is missing", len(got), len(want), want[i].xid, want[i].kind, want[i].b.id)
		}
		if i >= len(want) {
			return changes, fmt.Errorf("the history holds a row nobody committed: %+v", got[i])
		}
		if g, w := got[i], want[i]; g.kind != w.kind || g.xid != w.xid || g.b != w.b {
			return changes, fmt.Errorf("row %d of the history is %+v, committed was %+v", i+1, g, w)
		}
	}
	return changes, nil
}
