package delta_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/delta"
)

// changes gives the changes of a range as sorted lines version|type|values….
func changes(t testing.TB, tab *delta.Table, o delta.ChangeOptions) ([]string, error) {
	t.Helper()
	var out []string
	last := int64(-1)
	for c, err := range tab.Changes(t.Context(), o) {
		if err != nil {
			return nil, err
		}
		if c.Version < last {
			t.Errorf("version %d after %d", c.Version, last)
		}
		if last = c.Version; c.Time.IsZero() {
			t.Errorf("version %d has no time", c.Version)
		}
		if c.Rows.NumRows() == 0 || o.BatchRows > 0 && c.Rows.NumRows() > int64(o.BatchRows) {
			t.Errorf("a batch of %d rows", c.Rows.NumRows())
		}
		for i := range int(c.Rows.NumRows()) {
			row := []string{fmt.Sprint(c.Version), string(c.Type)}
			for col := range int(c.Rows.NumCols()) {
				row = append(row, c.Rows.Column(col).ValueStr(i))
			}
			out = append(out, strings.Join(row, "|"))
		}
		c.Rows.Release()
	}
	slices.Sort(out)
	return out, nil
}

// The changes that another writer made are those that it reads itself.
func TestChangesOfAnotherWriter(t *testing.T) {
	for _, partition := range []string{"none", "town"} {
		t.Run(partition, func(t *testing.T) {
			store := newDir(t)
			folder := strings.TrimPrefix(store.URL(), "file://")
			out, err := exec.CommandContext(t.Context(), python(t), "testdata/changes.py", folder, partition).Output()
			if err != nil {
				t.Fatal(err, stderr(err))
			}
			var theirs [][]any
			if err := json.Unmarshal(out, &theirs); err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, r := range theirs {
				line := make([]string, len(r))
				for i, v := range r {
					if line[i] = fmt.Sprint(v); v == nil {
						line[i] = "(null)"
					}
				}
				want = append(want, strings.Join(line, "|"))
			}
			slices.Sort(want)
			tab, err := delta.Open(t.Context(), store, "")
			if err != nil {
				t.Fatal(err)
			}
			got, err := changes(t, tab, delta.ChangeOptions{BatchRows: 2})
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "changes", got, want)
			if len(want) < 15 {
				t.Errorf("only %d changes: does the other writer keep the feed?", len(want))
			}
			// Part of the range, one column, and what the summary says of it.
			some, err := changes(t, tab, delta.ChangeOptions{From: 1, To: 1, Columns: []string{"name"}})
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "one version", some, []string{"1|update_postimage|changed", "1|update_preimage|b"})
			sum, err := tab.ChangesAvailable(t.Context(), 1, 0)
			if err != nil {
				t.Fatal(err)
			}
			if !sum.Feed || !sum.SchemaChanged || !sum.Additive || sum.To != latest(t, tab).Version() || sum.Files < 5 || sum.Bytes == 0 || sum.Rows == 0 ||
				len(sum.OldSchema.Fields) != 3 || len(sum.NewSchema.Fields) != 4 {
				t.Errorf("summary %+v", sum)
			}
		})
	}
}

func stderr(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(exit.Stderr)
	}
	return ""
}

// conformance opens a table of the shared conformance set.
func conformance(t testing.TB, name string) *delta.Table {
	t.Helper()
	folder := filepath.Join("..", "..", "..", "shared", "conformance", "delta", "tables", filepath.FromSlash(name))
	if _, err := os.Stat(folder); err != nil {
		t.Skipf("the conformance tables are not beside the module: %v", err)
	}
	s, err := dir.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	tab, err := delta.Open(t.Context(), s, "")
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// Every version is the one before with its changes applied.
func TestChangesAddUp(t *testing.T) {
	for name, versions := range map[string]int64{
		"kernel-rs-data/cdf-table-with-dv": 7, "kernel-rs-data/cdf-table-partitioned": 3,
		"delta-rs/simple_table_with_cdc": 3, "kernel-rs-data/cdf-table-backtick-column-names": 2,
	} {
		t.Run(name, func(t *testing.T) {
			tab := conformance(t, name)
			s := latest(t, tab)
			if s.Version() != versions-1 {
				t.Fatalf("%d versions", s.Version()+1)
			}
			lines, err := changes(t, tab, delta.ChangeOptions{})
			if err != nil {
				t.Fatal(err)
			}
			rows := map[string]int{}
			for v := range versions {
				for _, l := range lines {
					p := strings.SplitN(l, "|", 3)
					if p[0] != fmt.Sprint(v) {
						continue
					}
					switch delta.ChangeType(p[1]) {
					case delta.Inserted, delta.PostUpdated:
						rows[p[2]]++
					case delta.Deleted, delta.PreUpdated:
						if rows[p[2]]--; rows[p[2]] == 0 {
							delete(rows, p[2])
						}
					}
				}
				at, err := tab.At(t.Context(), v)
				if err != nil {
					t.Fatal(err)
				}
				want := map[string]int{}
				for _, r := range content(t, at, delta.ScanOptions{}) {
					want[r]++
				}
				equal(t, fmt.Sprintf("version %d", v), rows, want)
			}
		})
	}
}

// What Changes refuses, it refuses before the first batch.
func TestChangesRefused(t *testing.T) {
	without := create(t, memory.New(), delta.Metadata{Schema: people()})
	write(t, without, person(1, "a", "x"))
	if _, err := changes(t, without, delta.ChangeOptions{From: 1}); !errors.Is(err, delta.ErrNoChangeFeed) {
		t.Errorf("without a feed: %v", err)
	}
	if sum, err := without.ChangesAvailable(t.Context(), 1, 0); err != nil || sum.Feed || sum.FeedOff != 1 || sum.Rows != 1 {
		t.Errorf("without a feed: %+v, %v", sum, err)
	}
	store := memory.New()
	tab := create(t, store, delta.Metadata{Schema: people(), Properties: map[string]string{"delta.enableChangeDataFeed": "true"}})
	for i := range 3 {
		write(t, tab, person(i, "a", "x"))
	}
	for _, o := range []delta.ChangeOptions{{From: 4}, {From: 1, To: 9}, {From: 3, To: 2}, {From: -1}, {Columns: []string{"nope"}}} {
		if got, err := changes(t, tab, o); err == nil {
			t.Errorf("%+v gives %v", o, got)
		}
	}
	got, err := changes(t, tab, delta.ChangeOptions{From: 2, To: 3})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "changes", got, []string{"2|insert|1|a|x", "3|insert|2|a|x"})
	// A data file that is gone, then the log.
	for o := range store.List(t.Context(), "t/part-", "") {
		if err := store.Delete(t.Context(), o.Key); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tab.ChangesAvailable(t.Context(), 1, 0); !errors.Is(err, delta.ErrNoVersion) {
		t.Errorf("vacuumed: %v", err)
	}
	if _, err := changes(t, tab, delta.ChangeOptions{From: 1}); !errors.Is(err, delta.ErrNoVersion) {
		t.Errorf("vacuumed: %v", err)
	}
	if err := tab.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(t.Context(), "t/_delta_log/00000000000000000001.json"); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.ChangesAvailable(t.Context(), 1, 0); !errors.Is(err, delta.ErrNoVersion) {
		t.Errorf("cleaned up: %v", err)
	}
}

// The parts of a split snapshot are its whole.
func TestSplits(t *testing.T) {
	tab := create(t, memory.New(), delta.Metadata{Schema: people()})
	if n := len(latest(t, tab).Splits(4)); n != 0 {
		t.Errorf("%d parts of an empty table", n)
	}
	for i := range 7 {
		write(t, tab, person(i, "n", "x"))
	}
	s := latest(t, tab)
	for _, n := range []int{0, 1, 3, 7, 20} {
		var got []string
		parts := s.Splits(n)
		rows := int64(0)
		for _, p := range parts {
			got = append(got, content(t, s, delta.ScanOptions{Split: p})...)
			rows += p.Rows
		}
		slices.Sort(got)
		want := content(t, s, delta.ScanOptions{})
		slices.Sort(want)
		equal(t, fmt.Sprintf("%d parts", n), got, want)
		if rows != 7 || len(parts) != min(max(n, 1), 7) {
			t.Errorf("%d parts of %d with %d rows", len(parts), n, rows)
		}
	}
}
