package delta_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	arrowmemory "github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/delta"
)

// A model of people: id → name and town. "" is a null town, which the log
// cannot tell from the empty string.
type model map[int][2]string

func (m model) lines() []string {
	var out []string
	for id, v := range m {
		out = append(out, modelLine(id, v))
	}
	slices.Sort(out)
	return out
}

func modelLine(id int, v [2]string) string {
	town := v[1]
	if town == "" {
		town = "(null)"
	}
	return fmt.Sprintf("%d|%s|%s", id, v[0], town)
}

func modelJSON(id int, v [2]string) string {
	if v[1] == "" {
		return fmt.Sprintf(`{"id":%d,"name":%q,"town":null}`, id, v[0])
	}
	return person(id, v[0], v[1])
}

// modelRun does random work on a table and on its model.
type modelRun struct {
	t    *testing.T
	r    *rand.Rand
	tab  *delta.Table
	now  model
	past map[int64]model
}

func (m *modelRun) person() [2]string {
	return [2]string{fmt.Sprintf("n%d", m.r.IntN(1000)), []string{"x", "y", "z", ""}[m.r.IntN(4)]}
}

// step does one commit and returns what it was.
func (m *modelRun) step() string {
	t, ctx := m.t, m.t.Context()
	s := latest(t, m.tab)
	x := m.tab.Begin(s)
	next := maps.Clone(m.now)
	limit := m.r.IntN(60)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	what := []string{"append", "append", "delete", "update", "merge", "merge", "overwrite where", "optimize", "restore", "delete town"}[m.r.IntN(10)]
	switch what {
	case "append":
		var objects []string
		for range 1 + m.r.IntN(6) {
			id := m.r.IntN(60)
			if _, there := next[id]; !there {
				next[id] = m.person()
				objects = append(objects, modelJSON(id, next[id]))
			}
		}
		must(x.Append(ctx, rows(t, s.Schema(), objects...)))
	case "delete":
		n, err := x.Delete(ctx, delta.And(delta.Lt("id", limit), delta.Gt("name", "n5")))
		must(err)
		maps.DeleteFunc(next, func(id int, v [2]string) bool { return id < limit && v[0] > "n5" })
		if int(n) != len(m.now)-len(next) {
			t.Errorf("deleted %d rows, want %d", n, len(m.now)-len(next))
		}
	case "delete town":
		_, err := x.Delete(ctx, delta.Eq("town", "z"))
		must(err)
		maps.DeleteFunc(next, func(_ int, v [2]string) bool { return v[1] == "z" })
	case "update":
		_, err := x.Update(ctx, delta.Ge("id", limit), func(rec arrow.RecordBatch) (arrow.RecordBatch, error) {
			b := array.NewStringBuilder(arrowmemory.DefaultAllocator)
			defer b.Release()
			for i := range int(rec.NumRows()) {
				b.Append(rec.Column(1).ValueStr(i) + "u")
			}
			names := b.NewArray()
			defer names.Release()
			return array.NewRecordBatch(rec.Schema(), []arrow.Array{rec.Column(0), names, rec.Column(2)}, rec.NumRows()), nil
		})
		must(err)
		for id, v := range next {
			if id >= limit {
				next[id] = [2]string{v[0] + "u", v[1]}
			}
		}
	case "merge":
		var upserts, deletes []string
		want := delta.MergeCounts{}
		for range 1 + m.r.IntN(10) {
			id := m.r.IntN(60)
			if strings.Contains(strings.Join(append(upserts, deletes...), ""), fmt.Sprintf(`"id":%d,`, id)) {
				continue
			}
			_, there := m.now[id]
			if m.r.IntN(3) == 0 {
				deletes = append(deletes, modelJSON(id, [2]string{}))
				delete(next, id)
				if there {
					want.Deleted++
				}
				continue
			}
			next[id] = m.person()
			upserts = append(upserts, modelJSON(id, next[id]))
			if want.Inserted++; there {
				want.Inserted--
				want.Updated++
			}
		}
		work := delta.Merge{Keys: []string{"id"}}
		if upserts != nil {
			work.Upserts = rows(t, s.Schema(), upserts...)
		}
		if deletes != nil {
			work.Deletes = rows(t, s.Schema(), deletes...)
		}
		n, err := x.Merge(ctx, work)
		must(err)
		want.FilesRead = n.FilesRead
		equal(t, "merge", n, want)
	case "overwrite where":
		must(x.OverwriteWhere(ctx, delta.Eq("town", "x")))
		maps.DeleteFunc(next, func(_ int, v [2]string) bool { return v[1] == "x" })
		id := 60 + m.r.IntN(10)
		if _, there := next[id]; !there {
			next[id] = [2]string{"over", "x"}
			must(x.Append(ctx, rows(t, s.Schema(), modelJSON(id, next[id]))))
		}
		if err := m.tab.Begin(s).OverwriteWhere(ctx, delta.Eq("town", "nowhere")); err != nil {
			t.Error(err)
		}
	case "optimize":
		o := delta.OptimizeOptions{}
		if m.r.IntN(2) == 0 {
			o.ClusterBy = []string{"name", "id"}
		}
		_, err := m.tab.Optimize(ctx, o)
		must(err)
	case "restore":
		v := int64(m.r.IntN(int(s.Version()) + 1))
		_, err := m.tab.Restore(ctx, v)
		must(err)
		next = maps.Clone(m.past[v])
	}
	if what != "optimize" && what != "restore" {
		commit(t, x)
	}
	m.now = next
	return what
}

// Random appends, deletes, updates, merges, overwrites, optimizations and
// restores leave what a model says, in every kind of table; every version can be
// read again, its changes lead from one to the next, and deltalake and DuckDB
// read the same at the end.
func TestModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	var cases []map[string]string
	out := t.TempDir()
	for kind := range 16 {
		var name []string
		props := map[string]string{}
		m := delta.Metadata{Schema: people(), Properties: props}
		for bit, use := range []struct {
			name string
			do   func()
		}{
			{"dv", func() { props["delta.enableDeletionVectors"] = "true" }},
			{"cdf", func() { props["delta.enableChangeDataFeed"] = "true" }},
			{"mapped", func() { props["delta.columnMapping.mode"] = []string{"name", "id"}[kind%2] }},
			{"partitioned", func() { m.PartitionBy = []string{"town"} }},
		} {
			if kind>>bit&1 == 1 {
				use.do()
				name = append(name, use.name)
			}
		}
		t.Run(strings.Join(append(name, "."), " "), func(t *testing.T) {
			folder := t.TempDir()
			store, err := dir.Open(folder)
			if err != nil {
				t.Fatal(err)
			}
			run := &modelRun{t: t, r: rand.New(rand.NewPCG(seed, uint64(kind))), tab: create(t, store, m), now: model{}, past: map[int64]model{0: {}}}
			did := []string{"create"}
			for range 14 {
				did = append(did, run.step())
				s := latest(t, run.tab)
				run.past[s.Version()] = maps.Clone(run.now)
				got := content(t, s, delta.ScanOptions{})
				slices.Sort(got)
				if want := run.now.lines(); !slices.Equal(got, want) {
					t.Fatalf("after %v:\n got %v\nwant %v", did, got, want)
				}
				if n := count(t, s); n != int64(len(got)) {
					t.Errorf("after %v: counted %d of %d", did, n, len(got))
				}
			}
			if props["delta.enableChangeDataFeed"] != "" {
				run.checkChanges(did)
			}
			ours := filepath.Join(out, fmt.Sprintf("%d.arrow", kind))
			if _, err := writeIPC(t, latest(t, run.tab), ours); err != nil {
				t.Fatal(err)
			}
			kept := filepath.Join(out, fmt.Sprint(kind))
			if err := exec.CommandContext(t.Context(), "cp", "-r", filepath.Join(folder, "t"), kept).Run(); err != nil {
				t.Fatal(err)
			}
			cases = append(cases, map[string]string{"name": fmt.Sprintf("%v %v", name, did), "table": kept, "ours": ours, "expected": ""})
		})
	}
	for name, readers := range otherReaders(t, cases) {
		for reader, v := range readers {
			if v != "same" {
				t.Errorf("%s: %s: %s", name, reader, v)
			}
		}
	}
}

// otherReaders compares our readings with those of others.
func otherReaders(t *testing.T, cases any) map[string]map[string]string {
	t.Helper()
	input, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python(t), "testdata/compare.py")
	cmd.Stdin = bytes.NewReader(input)
	result, err := cmd.Output()
	if err != nil {
		t.Fatal(err, stderr(err))
	}
	var verdicts map[string]map[string]string
	if err := json.Unmarshal(result, &verdicts); err != nil {
		t.Fatal(err)
	}
	return verdicts
}

// checkChanges applies the change feed to the first version.
func (m *modelRun) checkChanges(did []string) {
	t := m.t
	lines, err := changes(t, m.tab, delta.ChangeOptions{})
	if err != nil {
		t.Fatalf("after %v: %v", did, err)
	}
	have := map[string]int{}
	for v := int64(0); v <= latest(t, m.tab).Version(); v++ {
		for _, l := range lines {
			p := strings.SplitN(l, "|", 3)
			if p[0] != fmt.Sprint(v) {
				continue
			}
			switch delta.ChangeType(p[1]) {
			case delta.Inserted, delta.PostUpdated:
				have[p[2]]++
			default:
				have[p[2]]--
			}
		}
		past, ok := m.past[v]
		if !ok {
			continue // in the middle of a step
		}
		maps.DeleteFunc(have, func(_ string, n int) bool { return n == 0 })
		want := map[string]int{}
		for _, l := range past.lines() {
			want[l]++
		}
		if !maps.Equal(have, want) {
			t.Fatalf("changes up to version %d of %v:\n got %v\nwant %v", v, did, have, want)
		}
	}
}
