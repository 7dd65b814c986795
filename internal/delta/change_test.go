package delta_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn/internal/delta"
)

// Columns renamed, dropped, added again under an old name and widened read as
// they should, here and by others.
func TestColumnChanges(t *testing.T) {
	store := newDir(t)
	schema := delta.Schema{Fields: []delta.Field{
		{Name: "id", Type: "long"}, {Name: "a", Type: "integer", Nullable: true}, {Name: "b", Type: "string", Nullable: true},
		{Name: "st", Type: `{"type":"struct","fields":[{"name":"x","type":"integer","nullable":true,"metadata":{}},{"name":"y","type":"string","nullable":true,"metadata":{}}]}`, Nullable: true},
		{Name: "p", Type: "string", Nullable: true},
	}}
	tab := create(t, store, delta.Metadata{Schema: schema, PartitionBy: []string{"p"}})
	add := func(object string) {
		t.Helper()
		write(t, tab, object)
	}
	change := func(do func(x *delta.Tx) error) {
		t.Helper()
		if _, err := tab.Commit(t.Context(), delta.CommitOptions{}, do); err != nil {
			t.Fatal(err)
		}
	}
	add(`{"id":1,"a":10,"b":"one","st":{"x":1,"y":"y1"},"p":"q"}`)
	x := tab.Begin(latest(t, tab))
	if err := x.RenameColumn("a", "c"); err == nil || !strings.Contains(err.Error(), "delta.columnMapping.mode") {
		t.Errorf("a rename without column mapping: %v", err)
	}
	change(func(x *delta.Tx) error {
		return x.SetProperties(map[string]string{"delta.columnMapping.mode": "name"})
	})
	add(`{"id":2,"a":20,"b":"two","st":{"x":2,"y":"y2"},"p":"q"}`)
	change(func(x *delta.Tx) error {
		if err := x.RenameColumn("a", "c"); err != nil {
			return err
		}
		if err := x.RenameColumn("st.x", "z"); err != nil {
			return err
		}
		if err := x.RenameColumn("p", "part"); err != nil {
			return err
		}
		return x.DropColumn("b")
	})
	add(`{"id":3,"c":30,"st":{"z":3,"y":"y3"},"part":"r"}`)
	sameForOthers(t, store.Root(), nil)
	change(func(x *delta.Tx) error { return x.SetProperties(map[string]string{"delta.enableTypeWidening": "true"}) })
	change(func(x *delta.Tx) error {
		s := *latest(t, tab).Schema()
		for i, f := range s.Fields {
			if f.Name == "c" {
				s.Fields[i].Type = "long"
			}
		}
		s.Fields = append(s.Fields, delta.Field{Name: "b", Type: "double", Nullable: true})
		return x.SetSchema(s)
	})
	add(`{"id":4,"c":40000000000,"st":{"z":4,"y":"y4"},"part":"r","b":1.5}`)
	s := latest(t, tab)
	got := content(t, s, delta.ScanOptions{})
	slices.Sort(got)
	equal(t, "rows", got, []string{
		`1|10|{"y":"y1","z":1}|q|(null)`, `2|20|{"y":"y2","z":2}|q|(null)`, `3|30|{"y":"y3","z":3}|r|(null)`, `4|40000000000|{"y":"y4","z":4}|r|1.5`,
	})
	equal(t, "a renamed column in a condition", content(t, s, delta.ScanOptions{Columns: []string{"id"}, Where: delta.And(delta.Eq("c", 20), delta.Eq("part", "q"))}), []string{"2"})
	for _, do := range []func(x *delta.Tx) error{
		func(x *delta.Tx) error { return x.DropColumn("part") },
		func(x *delta.Tx) error { return x.DropColumn("nope") },
		func(x *delta.Tx) error { return x.RenameColumn("c", "ID") },
		func(x *delta.Tx) error { return x.SetProperties(map[string]string{"delta.columnMapping.mode": "none"}) },
		func(x *delta.Tx) error { return x.SetProperties(map[string]string{"delta.enableRowTracking": "true"}) },
		func(x *delta.Tx) error { return x.SetSchema(schema) },
	} {
		if err := do(tab.Begin(s)); err == nil {
			t.Error("a change that cannot be is not refused")
		}
	}
	if _, err := tab.Optimize(t.Context(), delta.OptimizeOptions{}); err != nil {
		t.Fatal(err)
	}
	again := content(t, latest(t, tab), delta.ScanOptions{})
	slices.Sort(again)
	equal(t, "rows after optimize", again, got)
	sameForOthers(t, store.Root(), nil, "[TypeWidening]") // deltalake lacks it
}

// In-commit timestamps grow, and a table at a time goes by them, also from a
// checkpoint and behind the commits of others.
func TestInCommitTimestamps(t *testing.T) {
	store := newDir(t)
	tab := create(t, store, delta.Metadata{Schema: people(), Properties: map[string]string{"delta.enableInCommitTimestamps": "true", "delta.checkpointInterval": "4"}})
	base := latest(t, tab)
	late := tab.Begin(base)
	if err := late.Append(t.Context(), rows(t, base.Schema(), person(100, "late", "x"))); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		write(t, tab, person(i, "n", "x"))
	}
	commit(t, late)
	var last time.Time
	for v := int64(0); v <= 7; v++ {
		again, err := delta.Open(t.Context(), store, "t")
		if err != nil {
			t.Fatal(err)
		}
		s, err := again.At(t.Context(), v)
		if err != nil {
			t.Fatal(err)
		}
		if !s.Time().After(last) {
			t.Errorf("version %d is of %v, the one before of %v", v, s.Time(), last)
		}
		last = s.Time()
		at, err := again.AtTime(t.Context(), s.Time())
		if err != nil || at.Version() != v {
			t.Errorf("at the time of version %d: %v, %v", v, at, err)
		}
	}
	history, err := tab.History(t.Context(), 0)
	if err != nil || len(history) != 8 || !history[0].Time.Equal(last) {
		t.Errorf("history %v, %v", fmt.Sprint(history), err)
	}
	sameForOthers(t, store.Root(), nil)
}
