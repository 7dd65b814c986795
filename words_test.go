package tarn_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn"
)

func TestParseLSN(t *testing.T) {
	for text, want := range map[string]tarn.LSN{"0/0": 0, "0/16B3748": 0x16B3748, "16/B374D848": 0x16B374D848, "FFFFFFFF/FFFFFFFF": 1<<64 - 1} {
		got, err := tarn.ParseLSN(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("ParseLSN(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "/", "0/", "/0", "0/123456789", "g/0", "-1/0", "0x1/0", "0/0/0"} {
		if v, err := tarn.ParseLSN(text); err == nil {
			t.Errorf("ParseLSN(%q) = %v, want an error", text, v)
		}
	}
}

func TestResourceNames(t *testing.T) {
	n, err := tarn.ParseEndpointName("projects/shop/branches/dev-1/endpoints/primary")
	if err != nil || n != (tarn.EndpointName{Project: "shop", Branch: "dev-1", Endpoint: "primary"}) {
		t.Fatalf("got %v, %v", n, err)
	}
	if got := n.Parent().Parent().Branch("b").Endpoint("e").String(); got != "projects/shop/branches/b/endpoints/e" {
		t.Errorf("round trip gave %s", got)
	}
	for _, bad := range []string{"", "projects", "projects/", "projects/A", "projects/a/branches/b", "projects/1a", "project/a", "projects/a_b", "projects/../x", "projects/" + string(make([]byte, 64))} {
		if _, err := tarn.ParseProjectName(bad); tarn.KindOf(err) != tarn.KindInvalid {
			t.Errorf("ParseProjectName(%q): %v", bad, err)
		}
	}
}

func TestSnapshotNames(t *testing.T) {
	n, err := tarn.ParseSnapshotName("projects/shop/snapshots/before-migration")
	if err != nil || n != (tarn.ProjectName{Project: "shop"}).Snapshot("before-migration") || n.String() != "projects/shop/snapshots/before-migration" || n.Parent().Project != "shop" {
		t.Errorf("got %v, %v", n, err)
	}
	for _, bad := range []string{"", "before-migration", "projects/shop/branches/b", "projects/shop/snapshots/", "projects/shop/branches/b/snapshots/s"} {
		if _, err := tarn.ParseSnapshotName(bad); tarn.KindOf(err) != tarn.KindInvalid {
			t.Errorf("ParseSnapshotName(%q): %v", bad, err)
		}
	}
}

func TestWindowChecks(t *testing.T) {
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	w := tarn.Window{From: tarn.Mark{LSN: 100, Time: noon}, To: tarn.Mark{LSN: 200, Time: noon.Add(time.Hour)}, History: tarn.DefaultHistory}
	whole, none := w, w
	whole.Whole, none.History = true, 0
	for _, c := range []struct {
		w    tarn.Window
		at   time.Time
		lsn  tarn.LSN
		says string // "" = it is inside
	}{
		{w, time.Time{}, 0, ""}, {none, time.Time{}, 0, ""}, {w, noon, 0, ""}, {w, noon.Add(time.Hour), 0, ""}, {w, time.Time{}, 100, ""}, {w, time.Time{}, 200, ""},
		{w, noon.Add(-1), 0, "longer ago than the history of 7d"}, {w, time.Time{}, 99, "longer ago than the history of 7d"},
		{whole, noon.Add(-1), 0, "before the branch began"}, {whole, time.Time{}, 99, "before the branch began"},
		{w, noon.Add(time.Hour + 1), 0, "in the future"}, {w, time.Time{}, 201, "never reached"},
		{none, noon.Add(time.Minute), 0, "keeps no history"}, {none, time.Time{}, 150, "keeps no history"}, {none, noon.Add(2 * time.Hour), 0, "in the future"},
	} {
		err := c.w.Check(c.at, c.lsn)
		if c.says == "" {
			if err != nil {
				t.Errorf("%s %s: %v", c.at, c.lsn, err)
			}
			continue
		}
		const window = "window [2026-01-02T12:00:00Z, 2026-01-02T13:00:00Z] (LSN 0/64 to 0/C8)"
		if tarn.KindOf(err) != tarn.KindInvalid || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), window) || tarn.HintOf(err) == "" {
			t.Errorf("%s %s: %v (%s), want %q and the window", c.at, c.lsn, err, tarn.HintOf(err), c.says)
		}
	}
	for d, want := range map[time.Duration]time.Duration{0: tarn.DefaultHistory, -1: 0, tarn.NoHistory: 0, time.Hour: time.Hour} {
		if got := tarn.HistoryOf(d); got != want {
			t.Errorf("HistoryOf(%s) = %s, want %s", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{48 * time.Hour: "2d", 36 * time.Hour: "36h0m0s", 0: "0s"} {
		if got := tarn.Span(d); got != want {
			t.Errorf("Span(%s) = %s, want %s", d, got, want)
		}
	}
}

func TestTableNames(t *testing.T) {
	for text, want := range map[string]tarn.TableName{
		"a.b.c":           {Catalog: "a", Schema: "b", Table: "c"},
		"a.`b.b`.c":       {Catalog: "a", Schema: "b.b", Table: "c"},
		"`a b`.b.`c.d.e`": {Catalog: "a b", Schema: "b", Table: "c.d.e"},
	} {
		if got, err := tarn.ParseTableName(text); err != nil || got != want {
			t.Errorf("ParseTableName(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "a", "a.b", "a.b.c.d", "a..c", "a.b.", "a.`b.c", "a.`b`x.c", "a.../etc.c", "a.b.x/y", "a.b.x\x00"} {
		if got, err := tarn.ParseTableName(bad); tarn.KindOf(err) != tarn.KindInvalid {
			t.Errorf("ParseTableName(%q) = %v, %v; want invalid", bad, got, err)
		}
	}
}

func TestErrorKindsAndHintsSurviveWrapping(t *testing.T) {
	inner := tarn.Conflict("project %q exists: %w", "shop", fs.ErrExist).WithHint("tarn project list")
	err := fmt.Errorf("create project: %w", inner)
	if tarn.KindOf(err) != tarn.KindConflict || tarn.HintOf(err) != "tarn project list" || !errors.Is(err, fs.ErrExist) {
		t.Errorf("kind %v, hint %q, chain %v", tarn.KindOf(err), tarn.HintOf(err), errors.Is(err, fs.ErrExist))
	}
	if want := `create project: project "shop" exists: file already exists`; err.Error() != want {
		t.Errorf("reads %q, want %q", err, want)
	}
	if tarn.KindOf(errors.New("x")) != tarn.KindInternal {
		t.Error("an unclassified error must be internal")
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	s := tarn.Secret("dapi123")
	js, _ := json.Marshal(map[string]any{"s": s})
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s, s), string(js)} {
		if text == "" || strings.Contains(text, "dapi123") {
			t.Errorf("secret shows in %q", text)
		}
	}
	if s.Reveal() != "dapi123" {
		t.Error("Reveal must give the secret")
	}
}
