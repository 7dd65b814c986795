package compute

import (
	"maps"
	"strings"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// TestSettingsWhileItRuns: what can change changes in open sessions too; what
// cannot waits for the next start, and the status says so.
func TestSettingsWhileItRuns(t *testing.T) {
	onceOnly(t)
	f := openFleet(t, options(t, pgtest.Dir(t)))
	tl := create(t, f, tarn.TimelineSpec{})
	s := spec("ep-a", tl.ID)
	s.Settings = map[string]string{"work_mem": "8MB", "search_path": `it's, "a\b"`}
	c := client(t, wake(t, f, s))
	if got := query[string](t, c, `SHOW work_mem`); got != "8MB" {
		t.Fatalf("work_mem is %s", got)
	}
	if got := query[string](t, c, `SHOW search_path`); got != s.Settings["search_path"] {
		t.Errorf("search_path is %s, want %s", got, s.Settings["search_path"])
	}
	s.Settings = maps.Clone(s.Settings)
	s.Settings["work_mem"], s.Settings["max_connections"] = "9MB", "77"
	delete(s.Settings, "search_path")
	wake(t, f, s)
	until(t, f, "ep-a", "waiting for a start", func(st tarn.ComputeStatus) bool {
		return strings.Contains(st.Message, "next start: max_connections")
	})
	for range 100 {
		if query[string](t, c, `SHOW work_mem`) == "9MB" {
			break
		}
	}
	if got := query[string](t, c, `SHOW work_mem`) + query[string](t, c, `SHOW search_path`); got != `9MB"$user", public` {
		t.Errorf("an open session has %s", got)
	}
	suspend(t, f, "ep-a")
	c = connectTo(t, wake(t, f, s), "app")
	if got := query[string](t, c, `SHOW max_connections`); got != "77" {
		t.Errorf("max_connections is %s after a start", got)
	}
}
