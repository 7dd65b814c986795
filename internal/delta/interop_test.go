package delta_test

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/delta"
)

// Another tool may write between our commits; each reads what the other wrote.
func TestAnotherWriter(t *testing.T) {
	store := newDir(t)
	tab, err := delta.Create(t.Context(), store, "", delta.Metadata{Schema: people(), PartitionBy: []string{"town"}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, tab, person(1, "ours", "x"), person(2, "ours", "x"), person(3, "ours", "y"))
	stale := latest(t, tab)
	out, err := exec.CommandContext(t.Context(), python(t), "testdata/othertool.py", store.Root()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := strings.TrimSpace(string(out)); got != "3" {
		t.Errorf("their version is %s", got)
	}
	want := []string{"2|ours|x", "3|ours|y", "50|theirs|x", "51|theirs|(null)"}
	got := content(t, latest(t, tab), delta.ScanOptions{})
	slices.Sort(got)
	equal(t, "rows after them", got, want)

	// A blind append on the version before theirs is rebased behind it.
	x := tab.Begin(stale)
	if err := x.Append(t.Context(), rows(t, stale.Schema(), person(4, "late", "z"))); err != nil {
		t.Fatal(err)
	}
	if v := commit(t, x); v != 4 {
		t.Errorf("our version is %d", v)
	}
	r := readBack(t, store.Root(), "id")
	if len(r.Rows) != 5 || r.Version != 4 {
		t.Errorf("they read %v at %d", r.Rows, r.Version)
	}
	// From their checkpoint on, without the commits before it.
	if err := store.Delete(t.Context(), "_delta_log/00000000000000000000.json", "_delta_log/00000000000000000001.json"); err != nil {
		t.Fatal(err)
	}
	again, err := delta.Open(t.Context(), store, "")
	if err != nil {
		t.Fatal(err)
	}
	got = content(t, latest(t, again), delta.ScanOptions{})
	slices.Sort(got)
	equal(t, "rows from their checkpoint", got, []string{"2|ours|x", "3|ours|y", "4|late|z", "50|theirs|x", "51|theirs|(null)"})
}

// Rows of many partitions come mixed and over several calls; nested values
// must stay with their row.
func TestMixedPartitions(t *testing.T) {
	schema := delta.Schema{Fields: everyType}
	tab := create(t, memory.New(), delta.Metadata{Schema: schema, PartitionBy: []string{"i16"}})
	s := latest(t, tab)
	x := tab.Begin(s)
	const n, partitions = 300, 90 // more partitions than files may be open
	var want []string
	for call := range 3 {
		var objects []string
		for i := range n {
			id := call*n + i
			objects = append(objects, fmt.Sprintf(`{"id":%d,"i16":%d,"b":%v,"d38":"%d.5","s":"s%d","bin":"AAH/","ts":"2020-01-01T00:00:00Z","arr":["a%d",null],"m":[{"key":"k","value":%d}],"st":{"x":%d,"in":[%d]}}`,
				id, i%partitions, i%2 == 0, id, id, id, id, id, id))
			want = append(want, fmt.Sprintf(`%d|%v|%d|%d.5|s%d|["a%d",null]|[{"key":"k","value":%d}]|{"in":[%d],"x":%d}`, id, i%2 == 0, i%partitions, id, id, id, id, id, id))
		}
		if err := x.Append(t.Context(), rows(t, &schema, objects...)); err != nil {
			t.Fatal(err)
		}
	}
	commit(t, x)
	got := content(t, latest(t, tab), delta.ScanOptions{Columns: []string{"id", "i16", "b", "d38", "s", "arr", "m", "st"}})
	slices.Sort(got)
	slices.Sort(want)
	if len(got) != len(want) {
		t.Fatalf("%d rows of %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("row %d is %s, want %s", i, got[i], want[i])
		}
	}
	if c := count(t, latest(t, tab)); c != 3*n {
		t.Errorf("counted %d", c)
	}
}
