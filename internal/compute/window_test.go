package compute

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// The page store lets go of what is outside of a timeline's history.
var _ forgetful = pages{}

// A line that begins to serve another branch forgets the consumers it had; its
// end stays known, and its past can be had as before.
func TestDropSlots(t *testing.T) {
	o := options(t, pgtest.Dir(t))
	f := openFleet(t, o)
	tl := create(t, f, tarn.TimelineSpec{})
	c := connectTo(t, wake(t, f, spec("ep-1", tl.ID)), tarn.Superuser)
	run(t, c, `CREATE TABLE t (id int)`)
	run(t, c, `INSERT INTO t VALUES (1)`)
	at := query[time.Time](t, c, `SELECT clock_timestamp() FROM pg_sleep(0.02)`)
	run(t, c, `SELECT pg_create_logical_replication_slot('feed', 'pgoutput')`)
	run(t, c, `INSERT INTO t VALUES (2)`)
	if err := f.DropSlots(t.Context(), tl.ID); tarn.KindOf(err) != tarn.KindUnavailable {
		t.Errorf("with a running compute: %v", err)
	}
	c.Close(t.Context())
	suspend(t, f, "ep-1")
	for range 2 { // doing it again is harmless
		if err := f.DropSlots(t.Context(), tl.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok, err := f.maker.settled(t.Context(), timeline{ID: tl.ID}); err != nil || !ok {
		t.Errorf("it has no end mark any more: %v", err)
	}
	past := create(t, f, tarn.TimelineSpec{Source: tl.ID, Time: at})
	for id, want := range map[tarn.TimelineID][]int32{tl.ID: {1, 2}, past.ID: {1}} {
		ep := "ep-" + string(id)
		c := connectTo(t, wake(t, f, spec(ep, id)), tarn.Superuser)
		if got := rows(t, c); !slices.Equal(got, want) {
			t.Errorf("rows %v, want %v", got, want)
		}
		if n := query[int](t, c, `SELECT count(*) FROM pg_replication_slots`); n != 0 {
			t.Errorf("%d slots", n)
		}
		c.Close(t.Context())
		suspend(t, f, ep)
	}
	if err := f.DropSlots(t.Context(), newID(t)); tarn.KindOf(err) != tarn.KindNotFound {
		t.Errorf("of nothing: %v", err)
	}
}

// A history is the timeline's own and survives the process; a window says what
// can be had, of a timeline that runs, that is suspended and that was killed.
func TestHistoryIsTheTimelinesOwn(t *testing.T) {
	o := options(t, pgtest.Dir(t))
	f := openFleet(t, o)
	tl := create(t, f, tarn.TimelineSpec{History: time.Hour})
	window := func(f *Fleet) tarn.Window {
		t.Helper()
		w, err := f.Window(t.Context(), tl.ID)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	born := window(f)
	if !born.Whole || born.History != time.Hour || born.From.Time.After(born.To.Time) || born.From.LSN == 0 {
		t.Errorf("new: %+v", born)
	}
	c := connectTo(t, wake(t, f, spec("ep-1", tl.ID)), tarn.Superuser)
	run(t, c, `CREATE TABLE t (id int)`)
	running := window(f)
	if running.To.LSN <= born.To.LSN || running.From != born.From {
		t.Errorf("running: %+v, was %+v", running, born)
	}
	if err := f.SetHistory(t.Context(), tl.ID, tarn.NoHistory); err != nil {
		t.Fatal(err)
	}
	c.Close(t.Context())
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f = openFleet(t, o)
	if w := window(f); w.History != 0 || w.To.LSN < running.To.LSN || w.From != w.To {
		t.Errorf("without history, after a restart: %+v", w)
	}
	_, err := f.CreateTimeline(t.Context(), tarn.TimelineSpec{ID: newID(t), Source: tl.ID, Time: running.To.Time})
	if tarn.KindOf(err) != tarn.KindInvalid || !strings.Contains(err.Error(), "keeps no history") {
		t.Errorf("the past without history: %v", err)
	}
	child := create(t, f, tarn.TimelineSpec{Source: tl.ID})
	if w, err := f.Window(t.Context(), child.ID); err != nil || w.History != tarn.DefaultHistory {
		t.Errorf("a child asked for without a history has %+v, %v", w, err)
	}
	if _, err := f.Window(t.Context(), newID(t)); tarn.KindOf(err) != tarn.KindNotFound {
		t.Errorf("window of nothing: %v", err)
	}
	if err := f.SetHistory(t.Context(), newID(t), 0); tarn.KindOf(err) != tarn.KindNotFound {
		t.Errorf("history of nothing: %v", err)
	}
}
