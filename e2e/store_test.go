package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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

	file, at := in.flip(filepath.Join(in.data, "store", "timelines", names["projects/shop/branches/production"].Timeline, "log-*"), "the pages of this table are found")
	said := in.refused(1, "store", "check")
	if !strings.Contains(said, "the page store is damaged") {
		t.Errorf("check of a damaged store says %q", said)
	}
	in.foundAt(file, at, "store", "check", "--json")
	in.stop()
	in.foundAt(file, at, "store", "check", "--json", "--data", in.data)
	in.up()
}

// A flipped byte in the object store is found by key and offset though every
// copy on this computer is whole, and put right from there.
func TestStoreCheckOfTheBucket(t *testing.T) {
	place := t.TempDir()
	in := start(t, "--storage", place)
	in.tarn("project", "create", "shop")
	in.tarn("psql", "shop", "-c", "CREATE TABLE t AS SELECT i, 'the pages of this table are found by these words' AS words FROM generate_series(1, 20000) i")
	in.tarn("endpoint", "suspend", "shop")
	ctx := testContext(t, 3*time.Minute)
	var logs string
	for tick := time.NewTicker(100 * time.Millisecond); logs == ""; {
		var s client.StoreStats
		in.tarnJSON(&s, "store", "stats")
		for _, one := range s.Timelines {
			at := filepath.Join(place, "store", one.Timeline, "log-*")
			if found, _ := filepath.Glob(at); one.Branch == "projects/shop/branches/production" && in.holds(found, "the pages of this table") {
				logs = at
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the pages do not reach the storage")
		}
	}
	var c client.StoreCheck
	in.tarnJSON(&c, "store", "check")
	if b := c.Bucket; b == nil || len(c.Findings) > 0 || b.Manifests < 2 || b.Objects < 2 || b.Pages < 1000 || b.WAL == 0 {
		t.Errorf("check of a sound storage: %+v, %+v", c, b)
	}
	file, at := in.flip(logs, "the pages of this table are found")
	key, err := filepath.Rel(place, file)
	if err != nil {
		t.Fatal(err)
	}
	in.foundAt(key, at, "store", "check", "--json")
	in.tarn("store", "check", "--local")
	if said := in.tarn("store", "check", "--repair"); !strings.Contains(said, "Repaired 1 object") || !strings.Contains(said, "nothing is wrong") {
		t.Errorf("a repair says %q", said)
	}
	in.tarn("store", "check")
}

// holds tells whether a file holds text.
func (in *instance) holds(files []string, text string) bool {
	in.t.Helper()
	return slices.ContainsFunc(files, func(file string) bool {
		b, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(b), text)
	})
}

// flip changes one byte of a page that holds text, where it is in files.
func (in *instance) flip(pattern, text string) (file string, at int64) {
	in.t.Helper()
	logs, err := filepath.Glob(pattern)
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
