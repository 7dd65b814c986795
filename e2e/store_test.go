package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tarndb/tarn/client"
)

// A flipped byte in a page that no running database reads is found, with file
// and offset, while Tarn runs and when it does not.
func TestStoreCheck(t *testing.T) {
	in := start(t)
	in.tarn("project", "create", "shop")
	in.tarn("psql", "shop", "-c", "CREATE TABLE t AS SELECT i, 'the pages of this table are found by these words' AS words FROM generate_series(1, 20000) i")
	in.tarn("endpoint", "suspend", "shop") // every page is in a sealed segment
	in.tarn("psql", "shop", "-c", "SELECT 1")
	in.tarn("branch", "create", "shop/dev")

	var s client.StoreStats
	in.tarnJSON(&s, "store", "stats")
	names := map[string]client.StoreTimeline{}
	for _, one := range s.Timelines {
		names[one.Branch] = one
	}
	if p := names["projects/shop/branches/production"]; p.LogBytes == 0 || p.WALBytes == 0 || !p.Open || p.MemoryBytes == 0 {
		t.Errorf("production takes %+v", p)
	}
	if d := names["projects/shop/branches/dev"]; d.Parent == "" || d.Parent != names["projects/shop/branches/production"].Timeline {
		t.Errorf("dev takes %+v", d)
	}

	var c client.StoreCheck
	in.tarnJSON(&c, "store", "check")
	if !c.Done || len(c.Findings) > 0 || c.Timelines < 3 || c.Pages < 1000 || c.Heads == 0 {
		t.Errorf("check of a sound store: %+v", c)
	}
	if said := in.tarn("store", "check"); !strings.Contains(said, "nothing is wrong") {
		t.Errorf("check of a sound store says %q", said)
	}
	in.refused(1, "store", "check", "--data", in.data)

	file, at := in.flip(names["projects/shop/branches/production"].Timeline, "the pages of this table are found")
	said := in.refused(1, "store", "check")
	if !strings.Contains(said, "the page store is damaged") {
		t.Errorf("check of a damaged store says %q", said)
	}
	in.foundAt(file, at, "store", "check", "--json")
	in.stop()
	in.foundAt(file, at, "store", "check", "--json", "--data", in.data)
	in.up()
}

// flip changes one byte of a page of the timeline that holds text, where it is on
// disk.
func (in *instance) flip(timeline, text string) (file string, at int64) {
	in.t.Helper()
	logs, err := filepath.Glob(filepath.Join(in.data, "store", "timelines", timeline, "log-*"))
	if err != nil {
		in.t.Fatal(err)
	}
	slices.Reverse(logs)
	for _, file := range logs {
		b, err := os.ReadFile(file)
		if err != nil {
			in.t.Fatal(err)
		}
		i := strings.LastIndex(string(b), text)
		if i < 0 {
			continue
		}
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		if err != nil {
			in.t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte{b[i] ^ 1}, int64(i)); err != nil {
			in.t.Fatal(err)
		}
		return file, int64(i)
	}
	in.t.Fatalf("no page with %q is in %q", text, logs)
	return "", 0
}

// foundAt runs a check that must find the damaged page.
func (in *instance) foundAt(file string, at int64, args ...string) {
	in.t.Helper()
	out, err := in.command(args...).Output()
	var c client.StoreCheck
	if jerr := json.Unmarshal(out, &c); err == nil || jerr != nil {
		in.t.Fatalf("tarn %s: %v, %v: %s", strings.Join(args, " "), err, jerr, out)
	}
	for _, f := range c.Findings {
		if f.File == file && f.Offset <= at && at < f.Offset+8192 && f.Hint != "" {
			return
		}
	}
	in.t.Errorf("byte %d of %s was not found: %+v", at, file, c.Findings)
}
