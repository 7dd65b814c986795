package warehouse

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/warehouse/duck"
	"github.com/tarndb/tarn/internal/warehouse/engine"
)

// TestMain lets the test be the engine's process.
func TestMain(m *testing.M) {
	if dir := os.Getenv("TARN_TEST_ENGINE"); dir != "" {
		if err := engine.Serve(context.Background(), engine.Options{Library: duck.Find(""), Dir: dir}, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func engineCommand(o engine.Options) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TARN_TEST_ENGINE="+o.Dir)
	return cmd
}

func openDelta(ctx context.Context, location string) (*delta.Table, error) {
	s, err := dir.Open(strings.TrimPrefix(location, "file://"))
	if err != nil {
		return nil, err
	}
	return delta.Open(ctx, s, "")
}

func shortDir(t *testing.T) string {
	t.Helper()
	d, err := os.MkdirTemp("", "tarn-wh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d) })
	return d
}

// Every row of every conformance table is the same through DuckDB and our views
// as through our own reader: of every sixth, and with TARN_SQL_CONFORMANCE=all of
// all.
func TestConformance(t *testing.T) {
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
	w := New(Config{OpenTable: openDelta, Command: engineCommand, Run: shortDir(t), Dir: t.TempDir()})
	t.Cleanup(w.process.Stop)
	compared, fast := 0, 0
	all := os.Getenv("TARN_SQL_CONFORMANCE") == "all"
	for i, l := range lines[1:] {
		if !all && i%6 != 0 {
			continue
		}
		dt, err := openDelta(t.Context(), "file://"+filepath.Join(root, filepath.FromSlash(l[0])))
		if err != nil {
			continue
		}
		snap, err := dt.Latest(t.Context())
		if err != nil || len(snap.Schema().Fields) == 0 {
			continue
		}
		want, err := scanned(t.Context(), snap)
		if err != nil || len(want) > 60000 {
			continue
		}
		plan, err := w.footers.Plan(t.Context(), snap, delta.Predicate{})
		if err != nil {
			t.Errorf("%s: %v", l[0], err)
			continue
		}
		got, err := viewed(t.Context(), w, fmt.Sprint(i), "file://"+filepath.Join(root, filepath.FromSlash(l[0])))
		var unsupported *delta.UnsupportedError
		if errors.As(err, &unsupported) {
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", l[0], err)
			continue
		}
		compared++
		if plan.Rest.Files == 0 {
			fast++
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %d rows instead of %d%s", l[0], len(got), len(want), difference(got, want))
		}
	}
	t.Logf("%d tables, %d of them read by DuckDB alone", compared, fast)
	if want := map[bool][2]int{true: {120, 75}, false: {15, 10}}[all]; compared < want[0] || fast < want[1] {
		t.Errorf("only %d tables compared, %d by DuckDB alone", compared, fast)
	}
}

func difference(got, want []string) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return "\n got  " + got[i] + "\n want " + want[i]
		}
	}
	return ""
}

func scanned(ctx context.Context, s *delta.Snapshot) (out []string, err error) {
	for rec, err := range s.Scan(ctx, delta.ScanOptions{}) {
		if err != nil {
			return nil, err
		}
		out = append(out, texts(rec)...)
		rec.Release()
	}
	slices.Sort(out)
	return out, nil
}

func texts(rec arrow.RecordBatch) []string {
	out := make([]string, rec.NumRows())
	for i := range out {
		var b strings.Builder
		for j, c := range rec.Columns() {
			fmt.Fprintf(&b, "%s=%s|", rec.ColumnName(j), c.ValueStr(i))
		}
		out[i] = b.String()
	}
	return out
}

// viewed reads a table as a statement does, without a catalog.
func viewed(ctx context.Context, w *Warehouse, id, location string) (out []string, err error) {
	s := &scene{w: w, catalog: "c", schema: "s", stage: &stage{dir: filepath.Join(w.config.Dir, id)}, versions: map[string]int64{}, made: map[string]bool{}}
	n := tarn.TableName{Catalog: "c", Schema: "s", Table: "t"}
	body, err := s.delta(ctx, &tree{star: true}, &target{name: n, refs: []*ref{{alias: "t"}}}, catalog.Entry{Kind: catalog.External, Table: tarn.CatalogTable{Name: n, Location: location}})
	if err != nil {
		return nil, err
	}
	rows, err := w.process.Run(ctx, engine.Statement{Paths: s.paths, SQL: body, Memory: 500 << 20})
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	err = drain(rows, func(rec arrow.RecordBatch) error {
		out = append(out, texts(rec)...)
		return nil
	})
	if !errors.Is(err, io.EOF) {
		return nil, err
	}
	slices.Sort(out)
	return out, nil
}
