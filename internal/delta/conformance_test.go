package delta_test

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/ipc"

	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/delta"
)

// conformanceRow is a line of the conformance set's index.
type conformanceRow map[string]string

func conformanceIndex(t *testing.T) (root string, rows []conformanceRow) {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", "..", "..", "shared", "conformance", "delta"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(root, "index.tsv"))
	if os.IsNotExist(err) {
		t.Skipf("the conformance tables are not beside the module: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma, r.LazyQuotes, r.FieldsPerRecord = '\t', true, -1
	lines, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines[1:] {
		row := conformanceRow{}
		for i, name := range lines[0] {
			if i < len(l) {
				row[name] = l[i]
			}
		}
		rows = append(rows, row)
	}
	return root, rows
}

// writeIPC writes a scan of the latest version to an Arrow file.
func writeIPC(t *testing.T, s *delta.Snapshot, path string) (rows int64, err error) {
	t.Helper()
	schema, err := s.Schema().Arrow()
	if err != nil {
		return 0, err
	}
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	w, err := ipc.NewFileWriter(f, ipc.WithSchema(schema))
	if err != nil {
		return 0, err
	}
	for rec, err := range s.Scan(t.Context(), delta.ScanOptions{}) {
		if err != nil {
			return 0, err
		}
		rows += rec.NumRows()
		err := w.Write(rec)
		rec.Release()
		if err != nil {
			return 0, err
		}
	}
	return rows, w.Close()
}

// Tables whose deletion vectors lie under names that only their makers' tests
// find: they can be counted, not scanned, by anybody.
var unscannable = []string{
	"tables/delta-spark/partitioned-table-with-dv-large", "tables/delta-spark/table-with-dv-large",
	"tables/delta-spark/table-with-dv-small", "tables/delta-spark/table-with-dv-special-char",
}

// What the other readers cannot read or read otherwise, and why we are right.
var otherwise = map[string]string{
	"tables/delta-rs/table_with_edge_timestamps deltalake":                  "INT96 as nanoseconds ends in the year 2262: the year 9999 becomes 1816",
	"tables/kernel-rs-data/table-with-geo deltalake":                        "no type geometry",
	"tables/kernel-rs-data/table-with-geo duckdb":                           "no type geometry",
	"tables/delta-spark/variant-stats-nested-no-checkpoint deltalake":       "no shredded variants",
	"tables/delta-spark/variant-stats-nested-no-checkpoint duckdb":          "no variants out to Arrow",
	"tables/kernel-rs-data/void-column duckdb":                              "no type void",
	"tables/kernel-rs-golden/canonicalized-paths-normal-b/delta deltalake":  "adds and removes one absolute path in two spellings",
	"tables/kernel-rs-golden/canonicalized-paths-normal-b/delta duckdb":     "the same",
	"tables/kernel-rs-golden/canonicalized-paths-special-a/delta deltalake": "the same",
	"tables/kernel-rs-golden/canonicalized-paths-special-a/delta duckdb":    "the same",
}

// Every table of the conformance set has the rows its index promises, and the
// values that its expected files hold and that deltalake and DuckDB read.
func TestConformance(t *testing.T) {
	root, index := conformanceIndex(t)
	type compared struct {
		Name     string `json:"name"`
		Table    string `json:"table"`
		Ours     string `json:"ours"`
		Expected string `json:"expected"`
	}
	var cases []compared
	out := t.TempDir()
	for i, row := range index {
		name := row["table"]
		want := row["rows_from_stats"]
		for _, also := range []string{"rows_in_expected", "rows_from_parquet"} {
			if want == "" {
				want = row[also]
			}
		}
		present, active, _ := strings.Cut(row["data_files_present"], "/")
		store, err := dir.Open(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		c := compared{Name: name, Table: filepath.Join(root, filepath.FromSlash(name)), Ours: filepath.Join(out, fmt.Sprintf("%d.arrow", i))}
		var rows int64
		tab, err := delta.Open(t.Context(), store, "")
		var s *delta.Snapshot
		if err == nil {
			s, err = tab.Latest(t.Context())
		}
		scanned := !slices.Contains(unscannable, name)
		switch {
		case err == nil && scanned:
			rows, err = writeIPC(t, s, c.Ours)
		case err == nil:
			rows, err = s.Count(t.Context())
		}
		switch {
		case strings.Contains(row["notes"], "must refuse"):
			if !delta.IsRefusal(err) {
				t.Errorf("%s must be refused: %v", name, err)
			}
		case want == "" || active != "" && present != active:
			continue // log only
		case strings.Contains(row["reader_features"], "catalog"):
			// Its commits may lie unpublished with a catalog: reading the folder
			// could give an old version.
			if !delta.IsRefusal(err) || !strings.Contains(err.Error(), "catalogManaged") {
				t.Errorf("%s must be refused by its feature: %v", name, err)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case fmt.Sprint(rows) != want:
			t.Errorf("%s: %d rows, want %s", name, rows, want)
		case scanned:
			if e := row["expected_dir"]; e != "" {
				c.Expected = filepath.Join(root, filepath.FromSlash(e))
			}
			cases = append(cases, c)
		}
	}
	if len(cases) < 120 {
		t.Errorf("only %d tables were read", len(cases))
	}
	tally := map[string]int{}
	for name, readers := range otherReaders(t, cases) {
		for reader, v := range readers {
			kind, _, _ := strings.Cut(v, ":")
			tally[reader+" "+kind]++
			if _, known := otherwise[name+" "+reader]; known == (kind == "same") {
				t.Errorf("%s, %s %s", name, reader, v)
			}
		}
	}
	t.Log(tally)
}
