package compute

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tarndb/tarn"
)

func TestIdleDecision(t *testing.T) {
	t0 := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	for name, c := range map[string]struct {
		last, now time.Time
		a         activity
		want      time.Time
	}{
		"nobody connected":           {at(0), at(10), activity{}, at(0)},
		"somebody busy":              {at(0), at(10), activity{busy: 1, changed: at(2)}, at(10)},
		"idle since a moment":        {at(0), at(10), activity{changed: at(7)}, at(7)},
		"the recent one has left":    {at(7), at(10), activity{changed: at(3)}, at(7)},
		"busy, and our clock behind": {at(12), at(10), activity{busy: 1}, at(12)},
	} {
		if got := lastActive(c.last, c.now, c.a); !got.Equal(c.want) {
			t.Errorf("%s: last active %s, want %s", name, got, c.want)
		}
	}
	for _, c := range []struct {
		idle, after time.Duration
		want        bool
	}{
		{time.Hour, 0, false},
		{time.Hour, -1, false},
		{59 * time.Second, time.Minute, false},
		{time.Minute, time.Minute, true},
	} {
		if got := isIdle(t0, t0.Add(c.idle), c.after); got != c.want {
			t.Errorf("idle for %s of %s: %v", c.idle, c.after, got)
		}
	}
	for after, want := range map[time.Duration]time.Duration{0: time.Second, time.Hour: time.Second, 2 * time.Second: 200 * time.Millisecond, time.Millisecond: 50 * time.Millisecond} {
		if got := pollEvery(after); got != want {
			t.Errorf("poll every %s for %s, want %s", got, after, want)
		}
	}
}

func mark(seq tarn.Seq, lsn tarn.LSN, second int) tarn.Mark {
	return tarn.Mark{Seq: seq, LSN: lsn, Time: time.Date(2026, 11, 21, 12, 0, second, 0, time.UTC)}
}

func TestNeedsMark(t *testing.T) {
	last := mark(5, 1000, 0)
	for name, c := range map[string]struct {
		lsn  tarn.LSN
		age  time.Duration
		want bool
	}{
		"nothing written":     {1000, time.Hour, false},
		"a little, just now":  {1001, time.Second, false},
		"a little, long ago":  {1001, time.Minute, true},
		"much, just now":      {1000 + 500, time.Second, true},
		"not quite that much": {1000 + 499, 59 * time.Second, false},
	} {
		if got := needsMark(last, c.lsn, last.Time.Add(c.age), time.Minute, 500); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestChooseMark(t *testing.T) {
	// A fork marks an older seq than the periodic mark written meanwhile.
	marks := []tarn.Mark{mark(10, 100, 1), mark(30, 300, 3), mark(20, 200, 2), mark(40, 400, 4)}
	for _, c := range []struct {
		to   target
		want tarn.Seq // 0 = none
	}{
		{target{lsn: 99}, 0},
		{target{lsn: 100}, 10},
		{target{lsn: 299}, 20},
		{target{lsn: 999}, 40},
		{target{time: marks[0].Time.Add(-1)}, 0},
		{target{time: marks[0].Time}, 10},
		{target{time: marks[1].Time.Add(time.Millisecond)}, 30},
		{target{time: marks[3].Time.Add(time.Hour)}, 40},
	} {
		if m, ok := chooseMark(marks, c.to); ok != (c.want != 0) || m.Seq != c.want {
			t.Errorf("%+v: mark %+v, %v, want seq %d", c.to, m, ok, c.want)
		}
	}
	if got := retained(marks, marks[1].Time.Add(time.Millisecond)); len(got) != 2 || got[0].Seq != 30 || got[1].Seq != 40 {
		t.Errorf("retained %+v", got)
	}
	if got := retained(marks, marks[0].Time.Add(-1)); len(got) != 4 {
		t.Errorf("retained %+v", got)
	}
}

func TestEndMark(t *testing.T) {
	for name, c := range map[string]struct {
		marks []tarn.Mark
		head  tarn.Seq
		want  bool
	}{
		"none":                    {nil, 7, false},
		"the mark is the last":    {[]tarn.Mark{mark(3, 1, 1), mark(7, 2, 2)}, 8, true},
		"two marks are":           {[]tarn.Mark{mark(7, 2, 2), mark(7, 2, 3)}, 9, true},
		"something was written":   {[]tarn.Mark{mark(7, 2, 2)}, 9, false},
		"a late mark of the past": {[]tarn.Mark{mark(7, 2, 2), mark(3, 1, 3)}, 9, false},
	} {
		if m, ok := endMark(c.marks, c.head); ok != c.want || ok && m.Seq != 7 {
			t.Errorf("%s: %+v, %v", name, m, ok)
		}
	}
}

func TestWindow(t *testing.T) {
	tl := timeline{}
	w, _ := tl.window([]tarn.Mark{mark(20, 200, 2), mark(10, 100, 1)}, mark(0, 500, 9))
	for _, ok := range []target{{lsn: 100}, {lsn: 500}, {time: mark(0, 0, 1).Time}, {time: mark(0, 0, 9).Time}} {
		if err := w.Check(ok.time, ok.lsn); err != nil {
			t.Errorf("%+v: %v", ok, err)
		}
	}
	for _, bad := range []struct {
		to   target
		says string
	}{
		{target{lsn: 99}, "before the branch began"},
		{target{lsn: 501}, "never reached"},
		{target{time: mark(0, 0, 1).Time.Add(-1)}, "before the branch began"},
		{target{time: mark(0, 0, 9).Time.Add(1)}, "in the future"},
	} {
		err := w.Check(bad.to.time, bad.to.lsn)
		if tarn.KindOf(err) != tarn.KindInvalid || !strings.Contains(err.Error(), bad.says) ||
			!strings.Contains(err.Error(), "window [2026-11-21T12:00:01Z, 2026-11-21T12:00:09Z] (LSN 0/64 to 0/1F4)") || tarn.HintOf(err) == "" {
			t.Errorf("%+v: %v", bad.to, err)
		}
	}
	// A shorter history takes the past away, also when it grows again.
	marks, now := []tarn.Mark{mark(10, 100, 1), mark(20, 200, 2), mark(30, 300, 5)}, mark(0, 500, 9)
	short := tl.withHistory(6*time.Second, now.Time)
	w, kept := short.window(marks, now)
	if err := w.Check(mark(0, 0, 2).Time, 0); err == nil || !strings.Contains(err.Error(), "longer ago than the history of 6s") {
		t.Errorf("outside a short history: %v", err)
	}
	if w.Check(mark(0, 0, 3).Time, 0) != nil || len(kept) != 2 || kept[0].Seq != 20 {
		t.Errorf("short history: %+v, marks %+v", w, kept)
	}
	none := short.withHistory(tarn.NoHistory, now.Time)
	w, _ = none.window(marks, now)
	if err := w.Check(mark(0, 0, 8).Time, 0); err == nil || !strings.Contains(err.Error(), "keeps no history") {
		t.Errorf("without history: %v", err)
	}
	if err := w.Check(time.Time{}, 0); err != nil {
		t.Errorf("the present without history: %v", err)
	}
	later := mark(0, 600, 19)
	again := none.withHistory(0, later.Time)
	w, kept = again.window(marks, later)
	if w.Whole || !w.From.Time.Equal(later.Time) || len(kept) != 1 || kept[0].Seq != 30 {
		t.Errorf("history that grew again: %+v, marks %+v", w, kept)
	}
}

func TestSettings(t *testing.T) {
	for cu, want := range map[float64]int{0: 104, 0.5: 104, 1: 209, 2: 419, 3: 629, 4: 836, 8: 1672, 32: 4000} {
		if got := maxConnections(cu); got != want {
			t.Errorf("%v CU: %d connections, want %d", cu, got, want)
		}
	}
	const gb = 1 << 30
	for _, c := range []struct {
		cu     float64
		memory int64
		want   int64
	}{{2, 64 * gb, 4 * gb * 30 / 100}, {0.5, 64 * gb, gb * 30 / 100}, {0, 64 * gb, gb * 30 / 100}, {8, 4 * gb, 2 * gb * 30 / 100}, {1, 1 << 20, 32 << 20}} {
		if got := sharedBuffers(c.cu, c.memory); got != c.want {
			t.Errorf("%v CU on %d bytes: %d of buffers, want %d", c.cu, c.memory, got, c.want)
		}
	}
	s := tarn.ComputeSpec{Endpoint: "ep-1", MaxCU: 1, Settings: map[string]string{"work_mem": "8MB", "checkpoint_timeout": "1min"}}
	m, err := settingsFor(s, s.MaxCU, 8*gb)
	if err != nil || m["work_mem"] != "8MB" || m["checkpoint_timeout"] != "1min" || m["full_page_writes"] != "off" || m["max_connections"] != "209" {
		t.Errorf("%v, %v", m, err)
	}
	for _, name := range []string{"wal_recycle", "archive_command", "restore_command", "fsync"} {
		s.Settings = map[string]string{name: "on"}
		if _, err := settingsFor(s, s.MaxCU, 8*gb); tarn.KindOf(err) != tarn.KindInvalid {
			t.Errorf("setting %s: %v", name, err)
		}
	}
	if n, err := machineMemory(); err != nil || n < 64<<20 {
		t.Errorf("this computer has %d bytes, %v", n, err)
	}
}

func TestSocketDir(t *testing.T) {
	f := &machine{o: Options{Dir: "/srv/tarn"}}
	if got := f.socketDir("ep-1"); got != "/srv/tarn/run/ep-1" {
		t.Errorf("short: %s", got)
	}
	f.o.Dir = "/" + strings.Repeat("long/", 20)
	a, b := f.socketDir("ep-1"), f.socketDir("ep-2")
	if a == b || len(a) > 60 || a != f.socketDir("ep-1") {
		t.Errorf("long: %s and %s", a, b)
	}
}

// Holds of one timeline come one after another; a wait ends with its context
// and leaves nothing behind.
func TestHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holds{m: make(map[string]*hold)}
		first, err := h.take(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		other, err := h.take(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		other()
		var order []int
		second := make(chan struct{})
		go func() {
			defer close(second)
			release, err := h.take(t.Context(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			order = append(order, 2)
			release()
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := h.take(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a wait that ran out: %v", err)
		}
		order = append(order, 1)
		first()
		<-second
		if !slices.Equal(order, []int{1, 2}) || len(h.m) != 0 {
			t.Errorf("order %v, %d left", order, len(h.m))
		}
	})
}
