package feed

import (
	"context"
	"hash/fnv"
	"slices"
	"sort"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/delta"
)

// Columns of lb_<table>_scd2 beside the source's. A row held from __START_AT to
// before __END_AT, both places in the order of _sort_by; NULL = it still holds.
// The times are those of the commits.
const (
	startAtColumn   = "__START_AT"
	endAtColumn     = "__END_AT"
	startTimeColumn = "__START_TIME"
	endTimeColumn   = "__END_TIME"
)

func intervalFields() []delta.Field {
	return []delta.Field{
		{Name: startAtColumn, Type: "string", Nullable: true}, {Name: endAtColumn, Type: "string", Nullable: true},
		{Name: startTimeColumn, Type: "timestamp", Nullable: true}, {Name: endTimeColumn, Type: "timestamp", Nullable: true},
	}
}

// passEvents bounds the changes whose places are in memory: there are as many
// passes over the history as that takes.
const passEvents = 1 << 20

// keyEvent is one change of a key.
type keyEvent struct {
	at   string // _sort_by
	time arrow.Timestamp
	kind changeKind
}

// opens says whether a row begins to hold with the change.
func (e keyEvent) opens() bool { return e.kind == changeInsert || e.kind == changePostimage }

// intervals keeps lb_<table>_scd2. The intervals of every key that changed are
// made anew from its whole history, so that doing it again changes nothing.
func (u *upkeep) intervals(ctx context.Context, t tarn.FeedTable, h *delta.Table) error {
	d, err := u.derive(ctx, t, h, intervalsSuffix, "rows with the time they held", intervalFields())
	if err != nil || d == nil {
		return err
	}
	last, cleared, err := d.last(ctx)
	if err != nil {
		return err
	}
	if cleared || d.from < 0 {
		last = nil // every key
	}
	n, err := d.snap.Count(ctx)
	if err != nil {
		return err
	}
	m := &merging{derivation: d, keys: append(slices.Clone(d.key), startAtColumn)}
	defer m.release()
	passes := uint64(n)/passEvents + 1
	for p := range passes {
		mine := func(key []byte) bool {
			if _, is := last[string(key)]; last != nil && !is {
				return false
			}
			f := fnv.New64a()
			f.Write(key) // never fails
			return f.Sum64()%passes == p
		}
		events, ends, err := d.events(ctx, mine)
		if err != nil {
			return err
		}
		if err := m.intervals(ctx, events, ends); err != nil {
			return err
		}
	}
	return m.finish(ctx)
}

// events collects the changes of keys, and the truncations, each in order.
func (d *derivation) events(ctx context.Context, mine func([]byte) bool) (map[string][]keyEvent, []keyEvent, error) {
	all := map[string][]keyEvent{}
	var ends []keyEvent
	for rec, err := range d.snap.Scan(ctx, delta.ScanOptions{Columns: append([]string{changeTypeColumn, sortByColumn, "_timestamp"}, d.key...)}) {
		if err != nil {
			return nil, nil, err
		}
		kinds, places, keys := textColumn(rec, changeTypeColumn), textColumn(rec, sortByColumn), keyReader(rec, d.key)
		times := rec.Column(rec.Schema().FieldIndices("_timestamp")[0]).(*array.Timestamp)
		for i := range int(rec.NumRows()) {
			e := keyEvent{strings.Clone(places.Value(i)), times.Value(i), changeKind(strings.Clone(kinds.Value(i)))}
			if e.kind == changeTruncate {
				ends = append(ends, e)
				continue
			}
			if key, ok := keys(i); ok && mine(key) {
				all[string(key)] = append(all[string(key)], e)
			}
		}
		rec.Release()
	}
	inOrder := func(e []keyEvent) { sort.Slice(e, func(i, j int) bool { return e[i].at < e[j].at }) }
	for _, e := range all {
		inOrder(e)
	}
	inOrder(ends)
	return all, ends, nil
}

// endOf finds what ends the row that began with events[i]: the next change of
// its key (of an update, its new row), or a truncation before that.
func endOf(events []keyEvent, i int, ends []keyEvent) (keyEvent, bool) {
	var end keyEvent
	found := i+1 < len(events)
	if found {
		end = events[i+1]
		if end.kind == changePreimage && i+2 < len(events) && events[i+2].kind == changePostimage {
			end = events[i+2]
		}
	}
	j := sort.Search(len(ends), func(j int) bool { return ends[j].at > events[i].at })
	if j < len(ends) && (!found || ends[j].at < end.at) {
		return ends[j], true
	}
	return end, found
}

// intervals merges the rows of the events with the time they held.
func (m *merging) intervals(ctx context.Context, events map[string][]keyEvent, ends []keyEvent) error {
	if len(events) == 0 {
		return nil
	}
	keep := map[string]bool{}
	for _, f := range sourceFields(*m.snap.Schema()) {
		keep[f.Name] = true
	}
	for rec, err := range m.snap.Scan(ctx, delta.ScanOptions{}) {
		if err != nil {
			return err
		}
		places, keys := textColumn(rec, sortByColumn), keyReader(rec, m.key)
		var rows []int32
		var from, to []keyEvent
		for i := range int(rec.NumRows()) {
			key, ok := keys(i)
			if !ok {
				continue
			}
			all := events[string(key)]
			at := places.Value(i)
			n := sort.Search(len(all), func(n int) bool { return all[n].at >= at })
			if n == len(all) || all[n].at != at || !all[n].opens() {
				continue
			}
			end, _ := endOf(all, n, ends)
			rows, from, to = append(rows, int32(i)), append(from, all[n]), append(to, end)
		}
		err = m.takeIntervals(ctx, rec, rows, from, to, keep)
		rec.Release()
		if err != nil {
			return err
		}
		if m.count >= mergeRows {
			if err := m.commit(ctx, notLast); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *merging) takeIntervals(ctx context.Context, rec arrow.RecordBatch, rows []int32, from, to []keyEvent, keep map[string]bool) error {
	if len(rows) == 0 {
		return nil
	}
	picked, err := pick(ctx, rec, rows, func(n string) bool { return keep[n] })
	if err != nil {
		return err
	}
	defer picked.Release()
	schema := delta.Schema{Fields: intervalFields()}
	extra, err := schema.Arrow()
	if err != nil {
		return err
	}
	b := array.NewRecordBuilder(memory.DefaultAllocator, extra)
	defer b.Release()
	for i := range from {
		b.Field(0).(*array.StringBuilder).Append(from[i].at)
		b.Field(2).(*array.TimestampBuilder).Append(from[i].time)
		if to[i].at == "" {
			b.Field(1).AppendNull()
			b.Field(3).AppendNull()
			continue
		}
		b.Field(1).(*array.StringBuilder).Append(to[i].at)
		b.Field(3).(*array.TimestampBuilder).Append(to[i].time)
	}
	more := b.NewRecordBatch()
	defer more.Release()
	fields := slices.Concat(picked.Schema().Fields(), more.Schema().Fields())
	cols := slices.Concat(picked.Columns(), more.Columns())
	m.rows = append(m.rows, array.NewRecordBatch(arrow.NewSchema(fields, nil), cols, picked.NumRows()))
	m.count += picked.NumRows()
	return nil
}
