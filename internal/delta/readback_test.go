package delta_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/delta"
)

// What we write must be read by a reader that shares no code with us: the
// Python package deltalake.

// python gives the interpreter that has deltalake.
func python(t *testing.T) string {
	t.Helper()
	at, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			break
		}
		if at == filepath.Dir(at) {
			t.Fatal("the test does not run inside the module")
		}
		at = filepath.Dir(at)
	}
	p := filepath.Join(at, "build", "venv", "bin", "python")
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("%s is missing: run `make setup`", p)
	}
	return p
}

type reading struct {
	Version  int64
	Files    int
	Protocol [2]int
	Rows     []map[string]any
	Actions  []map[string]any
	History  []string
	Versions map[string]int64
	Txns     map[string]*int64
	Changes  [][3]any
}

func readBack(t *testing.T, folder, order string, apps ...string) reading {
	t.Helper()
	c := exec.CommandContext(t.Context(), python(t), append([]string{"testdata/readback.py", folder, order}, apps...)...)
	out, err := c.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("deltalake cannot read the table: %s", exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	var r reading
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return r
}

func newDir(t *testing.T) *dir.Store {
	t.Helper()
	s, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

// nan gives a row of everyType with NaN and infinity.
func nan(t *testing.T, id int64) arrow.RecordBatch {
	t.Helper()
	schema := arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64}, {Name: "f64", Type: arrow.PrimitiveTypes.Float64}, {Name: "f32", Type: arrow.PrimitiveTypes.Float32}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	b.Field(0).(*array.Int64Builder).Append(id)
	b.Field(1).(*array.Float64Builder).Append(math.Inf(1))
	b.Field(2).(*array.Float32Builder).Append(float32(math.NaN()))
	rec := b.NewRecordBatch()
	t.Cleanup(rec.Release)
	return rec
}

var everyType = []delta.Field{
	{Name: "id", Type: "long"},
	{Name: "b", Type: "boolean", Nullable: true},
	{Name: "i8", Type: "byte", Nullable: true},
	{Name: "i16", Type: "short", Nullable: true},
	{Name: "i32", Type: "integer", Nullable: true},
	{Name: "f32", Type: "float", Nullable: true},
	{Name: "f64", Type: "double", Nullable: true},
	{Name: "d9", Type: "decimal(9,2)", Nullable: true},
	{Name: "d18", Type: "decimal(18,4)", Nullable: true},
	{Name: "d38", Type: "decimal(38,10)", Nullable: true},
	{Name: "s", Type: "string", Nullable: true},
	{Name: "bin", Type: "binary", Nullable: true},
	{Name: "day", Type: "date", Nullable: true},
	{Name: "ts", Type: "timestamp", Nullable: true},
	{Name: "ntz", Type: "timestamp_ntz", Nullable: true},
	{Name: "arr", Type: `{"type":"array","elementType":"string","containsNull":true}`, Nullable: true},
	{Name: "m", Type: `{"type":"map","keyType":"string","valueType":"long","valueContainsNull":true}`, Nullable: true},
	{Name: "st", Type: `{"type":"struct","fields":[{"name":"x","type":"integer","nullable":true,"metadata":{}},{"name":"in","type":{"type":"array","elementType":"double","containsNull":true},"nullable":true,"metadata":{}}]}`, Nullable: true},
	{Name: "odd name, ünïcode", Type: "string", Nullable: true},
}

func TestReadBackEveryType(t *testing.T) {
	store := newDir(t)
	schema := delta.Schema{Fields: everyType}
	tab, err := delta.Create(t.Context(), store, "", delta.Metadata{Name: "every", Description: "every type", Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("ż", 40)
	write(t, tab,
		`{"id":1,"b":true,"i8":-128,"i16":32767,"i32":-2147483648,"f32":1.5,"f64":-0.25,"d9":"1234567.89","d18":"-1.0001","d38":"1234567890123456789012345678.0123456789",
		  "s":"`+long+`","bin":"AAH/","day":"1582-10-15","ts":"0001-01-01T00:00:00.000001Z","ntz":"9999-12-31T23:59:59.999999",
		  "arr":["a",null,""],"m":[{"key":"k","value":1},{"key":"l","value":null}],"st":{"x":7,"in":[1,null]},"odd name, ünïcode":"\u0000\n\t\"quoted\" 漢字 🦆"}`,
		`{"id":2,"b":false,"i8":127,"i16":-1,"i32":0,"f32":0,"f64":0,"d9":"0.00","d18":"0","d38":"-0.0000000001","s":"","bin":"","day":"2024-02-29","ts":"2038-01-19T03:14:08.123456Z","ntz":"1969-12-31T23:59:59.999999","arr":[],"m":[],"st":{"x":null,"in":null},"odd name, ünïcode":""}`,
		`{"id":3}`)
	// NaN is no JSON: it comes as its own file, whose statistics must not hide it.
	s := latest(t, tab)
	x := tab.Begin(s)
	if err := x.Append(t.Context(), nan(t, 4)); err != nil {
		t.Fatal(err)
	}
	commit(t, x)

	r := readBack(t, store.Root(), "id")
	equal(t, "protocol", r.Protocol, [2]int{3, 7})
	if len(r.Rows) != 4 {
		t.Fatalf("%d rows", len(r.Rows))
	}
	want := []map[string]any{
		{"id": 1.0, "b": true, "i8": -128.0, "i16": 32767.0, "i32": -2147483648.0, "f32": 1.5, "f64": -0.25, "d9": "1234567.89", "d18": "-1.0001",
			"d38": "1234567890123456789012345678.0123456789", "s": long, "bin": "AAH/", "day": "1582-10-15", "ts": "0001-01-01T00:00:00.000001+00:00",
			"ntz": "9999-12-31T23:59:59.999999", "arr": []any{"a", nil, ""}, "m": map[string]any{"k": 1.0, "l": nil},
			"st": map[string]any{"x": 7.0, "in": []any{1.0, nil}}, "odd name, ünïcode": "\x00\n\t\"quoted\" 漢字 🦆"},
		{"id": 2.0, "b": false, "i8": 127.0, "i16": -1.0, "i32": 0.0, "f32": 0.0, "f64": 0.0, "d9": "0.00", "d18": "0.0000", "d38": "-1E-10", "s": "", "bin": "",
			"day": "2024-02-29", "ts": "2038-01-19T03:14:08.123456+00:00", "ntz": "1969-12-31T23:59:59.999999", "arr": []any{}, "m": []any{},
			"st": map[string]any{"x": nil, "in": nil}, "odd name, ünïcode": ""},
		{"id": 3.0},
		{"id": 4.0, "f32": "nan", "f64": "inf"},
	}
	for i, w := range want {
		for _, f := range everyType {
			equal(t, fmt.Sprintf("row %d, %s", i+1, f.Name), r.Rows[i][f.Name], w[f.Name])
		}
	}
	for _, a := range r.Actions {
		if a["num_records"] != 3.0 {
			if a["max.f64"] != nil || a["max.f32"] != nil {
				t.Errorf("statistics of NaN and infinity: %v, %v", a["max.f32"], a["max.f64"])
			}
			continue
		}
		for name, w := range map[string]any{
			"min.id": 1.0, "max.id": 3.0, "min.i8": -128.0, "max.i16": 32767.0, "null_count.s": 1.0, "null_count.arr": 1.0, "max.d9": "1234567.89", "min.d18": "-1.0001", "min.d38": "-1E-10",
			"min.s": "", "max.s": strings.Repeat("ż", 31) + "Ž", "min.day": "1582-10-15", "max.ts": "2038-01-19T03:14:08.124000+00:00",
			"min.ntz": "1969-12-31T23:59:59.999000", "max.st.x": 7.0, "null_count.st.x": 2.0,
		} {
			equal(t, name, a[name], w)
		}
	}
	// and by ourselves
	got := content(t, latest(t, tab), delta.ScanOptions{Columns: []string{"id", "odd name, ünïcode", "ts"}})
	if len(got) != 4 || !contains(got, "1|\x00\n\t\"quoted\" 漢字 🦆|0001-01-01T00:00:00.000001Z") && !contains(got, "1|0001-01-01T00:00:00.000001Z|\x00\n\t\"quoted\" 漢字 🦆") {
		t.Errorf("scan gives %q", got)
	}
}

func TestReadBackHistory(t *testing.T) {
	store := newDir(t)
	tab, err := delta.Create(t.Context(), store, "", delta.Metadata{Schema: people(), Properties: map[string]string{"delta.enableChangeDataFeed": "true"}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		s := latest(t, tab)
		x := tab.Begin(s)
		x.SetAppTxn("tarn/x", int64(100+i))
		if err := x.Append(t.Context(), rows(t, s.Schema(), person(i, "n", "t"), person(i+100, "n", "t"))); err != nil {
			t.Fatal(err)
		}
		commit(t, x)
	}
	if _, err := os.Stat(filepath.Join(store.Root(), "_delta_log", "00000000000000000010.checkpoint.parquet")); err != nil {
		t.Errorf("no checkpoint after ten commits: %v", err)
	}
	wide := people()
	wide.Fields = append(wide.Fields, delta.Field{Name: "age", Type: "integer", Nullable: true})
	s := latest(t, tab)
	x := tab.Begin(s)
	if err := x.SetSchema(wide); err != nil {
		t.Fatal(err)
	}
	x.Overwrite()
	if err := x.Append(t.Context(), rows(t, &wide, `{"id":7,"name":"only","town":null,"age":42}`)); err != nil {
		t.Fatal(err)
	}
	if v := commit(t, x); v != 13 {
		t.Errorf("overwrite is version %d", v)
	}
	if err := tab.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The reader must manage with the checkpoint, and without the old commits.
	for v := range 10 {
		if err := store.Delete(t.Context(), fmt.Sprintf("_delta_log/%020d.json", v)); err != nil {
			t.Fatal(err)
		}
	}
	r := readBack(t, store.Root(), "id", "tarn/x")
	equal(t, "version", r.Version, int64(13))
	equal(t, "protocol", r.Protocol, [2]int{1, 4})
	equal(t, "rows", r.Rows, []map[string]any{{"id": 7.0, "name": "only", "town": nil, "age": 42.0}})
	equal(t, "counts", r.Versions, map[string]int64{"10": 20, "11": 22, "12": 24, "13": 1})
	if v := r.Txns["tarn/x"]; v == nil || *v != 111 {
		t.Errorf("txn is %v", v)
	}
	deleted, inserted := 0, 0
	for _, c := range r.Changes {
		if c[0] == 13.0 && c[1] == "delete" {
			deleted++
		}
		if c[1] == "insert" {
			inserted++
		}
	}
	if deleted != 24 || inserted != 3*2+1 {
		t.Errorf("change feed has %d deletes at 13 and %d inserts from 10 on", deleted, inserted)
	}
	if got := count(t, latest(t, tab)); got != 1 {
		t.Errorf("we count %d rows", got)
	}
	again, err := delta.Open(t.Context(), store, "")
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := latest(t, again).AppTxn("tarn/x"); !ok || v != 111 {
		t.Errorf("from the checkpoint, txn is %d, %v", v, ok)
	}
	if got := content(t, latest(t, again), delta.ScanOptions{}); len(got) != 1 || got[0] != "7|only|(null)|42" {
		t.Errorf("from the checkpoint, scan gives %q", got)
	}
	if _, err := again.At(t.Context(), 3); !errors.Is(err, delta.ErrNoVersion) {
		t.Errorf("a version cleaned up: %v", err)
	}
}

func TestReadBackPartitions(t *testing.T) {
	store := newDir(t)
	values := []string{
		"plain", "with space", "a/b", "a=b", "50%", "%20", "ünïcode 漢字", "q?a#b&c+d", `back\slash`, "colon:12", "quo'te\"", "tab\tnl\n", "[x]{y}^~", "..", ".",
		strings.Repeat("long ", 60), strings.Repeat("漢", 100),
	}
	schema := delta.Schema{Fields: []delta.Field{
		{Name: "id", Type: "long"},
		{Name: "p", Type: "string", Nullable: true},
		{Name: "day of", Type: "date", Nullable: true},
		{Name: "at", Type: "timestamp", Nullable: true},
		{Name: "ntz", Type: "timestamp_ntz", Nullable: true},
		{Name: "n", Type: "decimal(10,3)", Nullable: true},
		{Name: "f", Type: "double", Nullable: true},
		{Name: "yes", Type: "boolean", Nullable: true},
		{Name: "i", Type: "byte", Nullable: true},
	}}
	by := []string{"p", "day of", "at", "ntz", "n", "f", "yes", "i"}
	tab, err := delta.Create(t.Context(), store, "", delta.Metadata{Schema: schema, PartitionBy: by})
	if err != nil {
		t.Fatal(err)
	}
	var objects []string
	for i, v := range values {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, fmt.Sprintf(`{"id":%d,"p":%s,"day of":"2024-02-29","at":"2024-02-29T01:02:03.000004Z","ntz":"1969-12-31T23:59:59.5","n":"-12.345","f":1e300,"yes":true,"i":-7}`, i, b))
	}
	objects = append(objects, `{"id":100}`, `{"id":101,"p":""}`)
	write(t, tab, objects...)
	r := readBack(t, store.Root(), "id")
	if len(r.Rows) != len(values)+2 {
		t.Fatalf("%d rows", len(r.Rows))
	}
	for i, v := range values {
		equal(t, "row", r.Rows[i], map[string]any{
			"id": float64(i), "p": v, "day of": "2024-02-29", "at": "2024-02-29T01:02:03.000004+00:00", "ntz": "1969-12-31T23:59:59.500000",
			"n": "-12.345", "f": 1e300, "yes": true, "i": -7.0,
		})
	}
	for _, row := range r.Rows[len(values):] {
		for _, p := range by {
			equal(t, p, row[p], nil)
		}
	}
	mine := content(t, latest(t, tab), delta.ScanOptions{Columns: []string{"p", "at", "id"}})
	for i, v := range values {
		if w := fmt.Sprintf("%d|%s|2024-02-29T01:02:03.000004Z", i, v); !contains(mine, w) {
			t.Errorf("our scan has no %q in %q", w, mine)
		}
	}
}
