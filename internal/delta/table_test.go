package delta_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	arrowmemory "github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/delta"
)

// people is a small schema most tests use.
func people() delta.Schema {
	return delta.Schema{Fields: []delta.Field{
		{Name: "id", Type: "long"},
		{Name: "name", Type: "string", Nullable: true, Metadata: map[string]any{"tarn.pgType": "text"}},
		{Name: "town", Type: "string", Nullable: true},
	}}
}

// rows gives a batch of s from JSON objects, one a row.
func rows(t testing.TB, s *delta.Schema, objects ...string) arrow.RecordBatch {
	t.Helper()
	as, err := s.Arrow()
	if err != nil {
		t.Fatal(err)
	}
	rec, _, err := array.RecordFromJSON(arrowmemory.DefaultAllocator, as, strings.NewReader("["+strings.Join(objects, ",")+"]"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rec.Release)
	return rec
}

func person(id int, name, town string) string {
	return fmt.Sprintf(`{"id":%d,"name":%q,"town":%q}`, id, name, town)
}

func create(t testing.TB, s blob.Store, m delta.Metadata) *delta.Table {
	t.Helper()
	tab, err := delta.Create(t.Context(), s, "t", m)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func latest(t testing.TB, tab *delta.Table) *delta.Snapshot {
	t.Helper()
	s, err := tab.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// write commits one batch on the latest version.
func write(t testing.TB, tab *delta.Table, objects ...string) int64 {
	t.Helper()
	s := latest(t, tab)
	x := tab.Begin(s)
	if err := x.Append(t.Context(), rows(t, s.Schema(), objects...)); err != nil {
		t.Fatal(err)
	}
	return commit(t, x)
}

func commit(t testing.TB, x *delta.Tx) int64 {
	t.Helper()
	v, err := x.Commit(t.Context(), delta.CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// content gives the rows of a scan as text, sorted by file then position.
func content(t testing.TB, s *delta.Snapshot, o delta.ScanOptions) []string {
	t.Helper()
	out, err := scan(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func scan(ctx context.Context, s *delta.Snapshot, o delta.ScanOptions) ([]string, error) {
	var out []string
	for rec, err := range s.Scan(ctx, o) {
		if err != nil {
			return nil, err
		}
		for i := range int(rec.NumRows()) {
			var row []string
			for c := range int(rec.NumCols()) {
				row = append(row, rec.Column(c).ValueStr(i))
			}
			out = append(out, strings.Join(row, "|"))
		}
		rec.Release()
	}
	return out, nil
}

func count(t testing.TB, s *delta.Snapshot) int64 {
	t.Helper()
	n, err := s.Count(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCreateAppendRead(t *testing.T) {
	store := memory.New()
	tab := create(t, store, delta.Metadata{Name: "people", Schema: people(), Properties: map[string]string{"delta.enableChangeDataFeed": "true"}})
	if s := latest(t, tab); s.Version() != 0 || s.ID() == "" || count(t, s) != 0 || len(content(t, s, delta.ScanOptions{})) != 0 {
		t.Errorf("a new table is at %d with %d rows", s.Version(), count(t, s))
	}
	if v := write(t, tab, person(1, "Ada", "London"), `{"id":2,"name":null,"town":"Paris"}`); v != 1 {
		t.Errorf("first append is version %d", v)
	}
	write(t, tab, person(3, "Alan", "Wilmslow"))

	tab, err := delta.Open(t.Context(), store, "t")
	if err != nil {
		t.Fatal(err)
	}
	s := latest(t, tab)
	if s.Version() != 2 || count(t, s) != 3 || s.Files() != 2 {
		t.Errorf("version %d, %d rows, %d files", s.Version(), count(t, s), s.Files())
	}
	got := content(t, s, delta.ScanOptions{})
	if len(got) != 3 || !contains(got, "1|Ada|London") || !contains(got, "2|(null)|Paris") || !contains(got, "3|Alan|Wilmslow") {
		t.Errorf("scan gives %q", got)
	}
	if got := content(t, s, delta.ScanOptions{Columns: []string{"town", "id"}, Limit: 2}); len(got) != 2 || strings.Count(got[0], "|") != 1 {
		t.Errorf("two columns, two rows: %q", got)
	}
	if m := s.Schema().Fields[1].Metadata["tarn.pgType"]; m != "text" {
		t.Errorf("field metadata is %v", m)
	}
	if s.Properties()["delta.enableChangeDataFeed"] != "true" || s.Name() != "people" {
		t.Errorf("properties %v, name %q", s.Properties(), s.Name())
	}
	old, err := tab.At(t.Context(), 1)
	if err != nil || count(t, old) != 2 {
		t.Errorf("version 1: %v, %v", old, err)
	}
	if _, err := tab.At(t.Context(), 3); !errors.Is(err, delta.ErrNoVersion) {
		t.Errorf("version 3: %v", err)
	}
	h, err := tab.History(t.Context(), 2)
	if err != nil || len(h) != 2 || h[0].Version != 2 || h[0].Operation != "WRITE" || h[0].Metrics["numOutputRows"] != "1" || h[1].Version != 1 {
		t.Errorf("history %+v, %v", h, err)
	}
	if _, err := delta.Create(t.Context(), store, "t", delta.Metadata{Schema: people()}); !errors.Is(err, blob.ErrExists) {
		t.Errorf("create again: %v", err)
	}
	if _, err := delta.Open(t.Context(), store, "elsewhere"); !errors.Is(err, delta.ErrNotTable) {
		t.Errorf("open nothing: %v", err)
	}
}

func contains(all []string, one string) bool {
	for _, a := range all {
		if a == one {
			return true
		}
	}
	return false
}

func TestOverwrite(t *testing.T) {
	tab := create(t, memory.New(), delta.Metadata{Schema: people(), PartitionBy: []string{"town"}})
	write(t, tab, person(1, "a", "x"), person(2, "b", "y"), `{"id":3,"name":"c","town":null}`)
	s := latest(t, tab)
	if s.Files() != 3 {
		t.Errorf("%d files for 3 partitions", s.Files())
	}
	x := tab.Begin(s)
	x.Overwrite()
	if err := x.Append(t.Context(), rows(t, s.Schema(), person(9, "z", "x"))); err != nil {
		t.Fatal(err)
	}
	commit(t, x)
	if got := content(t, latest(t, tab), delta.ScanOptions{}); len(got) != 1 || got[0] != "9|z|x" {
		t.Errorf("after overwrite: %q", got)
	}
	if got := content(t, s, delta.ScanOptions{}); len(got) != 3 {
		t.Errorf("the old snapshot now gives %q", got)
	}
}

func TestConflicts(t *testing.T) {
	tab := create(t, memory.New(), delta.Metadata{Schema: people()})
	base := latest(t, tab)
	begin := func(id int) *delta.Tx {
		x := tab.Begin(base)
		if err := x.Append(t.Context(), rows(t, base.Schema(), person(id, "n", "t"))); err != nil {
			t.Fatal(err)
		}
		return x
	}
	one, two, over, schema := begin(1), begin(2), begin(3), tab.Begin(base)
	over.Overwrite()
	if v := commit(t, one); v != 1 {
		t.Errorf("first commit is %d", v)
	}
	if v := commit(t, two); v != 2 {
		t.Errorf("a blind append is rebased to %d", v)
	}
	var conflict *delta.ConflictError
	if _, err := over.Commit(t.Context(), delta.CommitOptions{}); !errors.As(err, &conflict) {
		t.Errorf("an overwrite of an old version: %v", err)
	}
	over.Abort(t.Context())
	wide := people()
	wide.Fields = append(wide.Fields, delta.Field{Name: "age", Type: "integer", Nullable: true})
	if err := schema.SetSchema(wide); err != nil {
		t.Fatal(err)
	}
	late := begin(4)
	if v := commit(t, schema); v != 3 {
		t.Errorf("a schema change is rebased on appends to %d", v)
	}
	x := tab.Begin(base)
	wide.Fields = append(wide.Fields, delta.Field{Name: "more", Type: "integer", Nullable: true})
	if err := x.SetSchema(wide); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Commit(t.Context(), delta.CommitOptions{}); !errors.As(err, &conflict) {
		t.Errorf("two schema changes: %v", err)
	}
	if _, err := late.Commit(t.Context(), delta.CommitOptions{}); !errors.As(err, &conflict) {
		t.Errorf("an append under an old schema: %v", err)
	}
	if n := count(t, latest(t, tab)); n != 2 {
		t.Errorf("%d rows", n)
	}
}

func TestAppTxn(t *testing.T) {
	tab := create(t, memory.New(), delta.Metadata{Schema: people()})
	base := latest(t, tab)
	begin := func(app string, version int64) *delta.Tx {
		x := tab.Begin(base)
		x.SetAppTxn(app, version)
		if err := x.Append(t.Context(), rows(t, base.Schema(), person(1, "n", "t"))); err != nil {
			t.Fatal(err)
		}
		return x
	}
	first, again, newer, other := begin("a", 5), begin("a", 5), begin("a", 6), begin("b", 1)
	commit(t, first)
	if _, err := again.Commit(t.Context(), delta.CommitOptions{}); !errors.Is(err, delta.ErrAppliedTxn) {
		t.Errorf("the same txn, concurrently: %v", err)
	}
	var conflict *delta.ConflictError
	if _, err := newer.Commit(t.Context(), delta.CommitOptions{}); !errors.As(err, &conflict) {
		t.Errorf("a newer txn on an old base: %v", err)
	}
	commit(t, other)
	base = latest(t, tab)
	if v, ok := base.AppTxn("a"); !ok || v != 5 {
		t.Errorf("a is at %d, %v", v, ok)
	}
	if _, ok := base.AppTxn("c"); ok {
		t.Error("c has a version")
	}
	if _, err := begin("a", 4).Commit(t.Context(), delta.CommitOptions{}); !errors.Is(err, delta.ErrAppliedTxn) {
		t.Errorf("an older txn: %v", err)
	}
	only := tab.Begin(base) // a position may move without rows
	only.SetAppTxn("a", 9)
	commit(t, only)
	if v, _ := latest(t, tab).AppTxn("a"); v != 9 {
		t.Errorf("a is at %d", v)
	}
	if n := count(t, latest(t, tab)); n != 2 {
		t.Errorf("%d rows", n)
	}
}

func TestSchemaEvolution(t *testing.T) {
	tab := create(t, memory.New(), delta.Metadata{Schema: people()})
	write(t, tab, person(1, "a", "x"))
	s := latest(t, tab)
	wide := people()
	wide.Fields = append(wide.Fields, delta.Field{Name: "seen", Type: "timestamp_ntz", Nullable: true})
	x := tab.Begin(s)
	if err := x.SetSchema(wide); err != nil {
		t.Fatal(err)
	}
	if err := x.Append(t.Context(), rows(t, &wide, `{"id":2,"name":"b","town":"y","seen":"2020-01-02 03:04:05.000006"}`)); err != nil {
		t.Fatal(err)
	}
	commit(t, x)
	write(t, tab, `{"id":3,"name":"c","town":"z"}`)
	got := content(t, latest(t, tab), delta.ScanOptions{})
	if len(got) != 3 || !contains(got, "1|a|x|(null)") || !contains(got, "3|c|z|(null)") || !contains(got, "2|b|y|2020-01-02T03:04:05.000006") {
		t.Errorf("scan gives %q", got)
	}
	for what, bad := range map[string]delta.Schema{
		"drop":      {Fields: wide.Fields[:2]},
		"retype":    {Fields: append([]delta.Field{{Name: "id", Type: "string"}}, wide.Fields[1:]...)},
		"required":  {Fields: append(wide.Fields[:4:4], delta.Field{Name: "x", Type: "long"})},
		"duplicate": {Fields: append(wide.Fields[:4:4], delta.Field{Name: "ID", Type: "long", Nullable: true})},
		"unknown":   {Fields: append(wide.Fields[:4:4], delta.Field{Name: "x", Type: "money", Nullable: true})},
	} {
		if err := tab.Begin(latest(t, tab)).SetSchema(bad); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
}

func TestAppendRefusals(t *testing.T) {
	tab := create(t, memory.New(), delta.Metadata{Schema: people()})
	for what, s := range map[string]delta.Schema{
		"unknown column": {Fields: append(people().Fields, delta.Field{Name: "more", Type: "long", Nullable: true})},
		"missing value":  {Fields: people().Fields[1:]},
		"other type":     {Fields: []delta.Field{{Name: "id", Type: "string", Nullable: true}}},
		"lossy":          {Fields: []delta.Field{{Name: "id", Type: "double"}}},
	} {
		x := tab.Begin(latest(t, tab))
		err := x.Append(t.Context(), rows(t, &s, `{}`))
		if err == nil || tarn.KindOf(err) != tarn.KindInvalid {
			t.Errorf("%s: %v", what, err)
		}
		if _, again := x.Commit(t.Context(), delta.CommitOptions{}); again == nil {
			t.Errorf("%s: commits after a failed append", what)
		}
		x.Abort(t.Context())
	}
	if v := latest(t, tab).Version(); v != 0 {
		t.Errorf("the table is at %d", v)
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	store := memory.New()
	tab := create(t, store, delta.Metadata{Schema: people(), PartitionBy: []string{"town"}})
	s := latest(t, tab)
	x := tab.Begin(s)
	if err := x.Append(t.Context(), rows(t, s.Schema(), person(1, "a", "x"), person(2, "b", "y"))); err != nil {
		t.Fatal(err)
	}
	x.Abort(t.Context())
	x.Abort(t.Context())
	for o, err := range store.List(t.Context(), "", "") {
		if err != nil || !strings.Contains(o.Key, "_delta_log/") {
			t.Errorf("left %s, %v", o.Key, err)
		}
	}
	if _, err := x.Commit(t.Context(), delta.CommitOptions{}); err == nil {
		t.Error("an aborted transaction commits")
	}
}
