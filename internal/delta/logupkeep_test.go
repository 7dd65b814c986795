package delta_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn/internal/delta"
)

// logNames lists the log of a table in a directory.
func logNames(t *testing.T, root string) []string {
	t.Helper()
	es, err := os.ReadDir(filepath.Join(root, "_delta_log"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}

// A table that asks for checkpoints of version 2 gets them, and we and others
// read the table with them.
func TestCheckpointV2(t *testing.T) {
	store := newDir(t)
	tab := create(t, store, delta.Metadata{Schema: people(), Properties: map[string]string{"delta.checkpointPolicy": "v2", "delta.checkpointInterval": "3"}})
	for i := range 7 {
		write(t, tab, person(i, "name", "town"))
	}
	var checkpoints int
	for _, n := range logNames(t, store.Root()+"/t") {
		if strings.Contains(n, ".checkpoint.") {
			checkpoints++
			if strings.HasSuffix(n, ".checkpoint.parquet") {
				t.Errorf("a checkpoint of version 1: %s", n)
			}
		}
	}
	if checkpoints != 2 {
		t.Errorf("%d checkpoints", checkpoints)
	}
	if r := readBack(t, store.Root()+"/t", "id"); len(r.Rows) != 7 {
		t.Errorf("deltalake reads %d rows", len(r.Rows))
	}
	out, err := exec.CommandContext(t.Context(), python(t), "testdata/duckcount.py", store.Root()+"/t").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "7" {
		t.Errorf("DuckDB reads %s rows: %v", out, err)
	}
	// Only the checkpoint can tell of the commits below it.
	if err := os.Remove(filepath.Join(store.Root(), "t/_delta_log", fmt.Sprintf("%020d.json", 2))); err != nil {
		t.Fatal(err)
	}
	fresh, err := delta.Open(t.Context(), store, "t")
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, latest(t, fresh), delta.ScanOptions{}); len(got) != 7 {
		t.Errorf("%d rows", len(got))
	}
}

// Commits go when they are older than the retention and a checkpoint that is
// as old covers them; every version of the retention stays.
func TestLogCleanup(t *testing.T) {
	for _, c := range []struct {
		properties map[string]string
		first      int64 // commit that is left
	}{
		{map[string]string{"delta.checkpointInterval": "4"}, 8}, // the younger checkpoint is too young
		{map[string]string{"delta.checkpointInterval": "4", "delta.checkpointPolicy": "v2"}, 8},
		{map[string]string{"delta.checkpointInterval": "4", "delta.logRetentionDuration": "interval 1000 days"}, 0},
		{map[string]string{"delta.checkpointInterval": "4", "delta.enableExpiredLogCleanup": "false"}, 0},
	} {
		store := newDir(t)
		tab := create(t, store, delta.Metadata{Schema: people(), Properties: c.properties})
		age := func(from, to int64, days int) {
			for _, n := range logNames(t, store.Root()+"/t") {
				for v := from; v <= to; v++ {
					if strings.HasPrefix(n, fmt.Sprintf("%020d.", v)) {
						at := time.Now().AddDate(0, 0, -days)
						if err := os.Chtimes(filepath.Join(store.Root(), "t/_delta_log", n), at, at); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		}
		for i := range 12 {
			if i == 11 {
				age(0, 9, 40)
				age(10, 11, 3)
			}
			write(t, tab, person(i, "name", "town"))
		}
		first := int64(-1)
		for _, n := range logNames(t, store.Root()+"/t") {
			var v int64
			if _, err := fmt.Sscanf(n, "%020d.", &v); err == nil && (first < 0 || v < first) {
				first = v
			}
		}
		if first != c.first {
			t.Errorf("%v: the log begins at %d: %v", c.properties, first, logNames(t, store.Root()+"/t"))
		}
		fresh, err := delta.Open(t.Context(), store, "t")
		if err != nil {
			t.Fatal(err)
		}
		for v := c.first; v <= 12; v++ {
			s, err := fresh.At(t.Context(), v)
			if err != nil {
				t.Fatalf("%v: version %d: %v", c.properties, v, err)
			}
			if got := content(t, s, delta.ScanOptions{}); len(got) != int(v) {
				t.Errorf("%v: version %d has %d rows", c.properties, v, len(got))
			}
		}
		if r := readBack(t, store.Root()+"/t", "id"); len(r.Rows) != 12 {
			t.Errorf("%v: deltalake reads %d rows", c.properties, len(r.Rows))
		}
	}
}

// The checksum of each version says what the version is.
func TestChecksums(t *testing.T) {
	store := newDir(t)
	tab := create(t, store, delta.Metadata{Schema: people(), Properties: map[string]string{"delta.enableDeletionVectors": "true", "delta.enableInCommitTimestamps": "true"}})
	write(t, tab, person(1, "name", "town"), person(2, "name", "town"))
	write(t, tab, person(3, "name", "town"))
	for _, id := range []int{1, 3} {
		_, err := tab.Commit(t.Context(), delta.CommitOptions{}, func(x *delta.Tx) error {
			_, err := x.Delete(t.Context(), delta.Eq("id", id))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tab.Optimize(t.Context(), delta.OptimizeOptions{}); err != nil {
		t.Fatal(err)
	}
	for v := int64(0); v <= latest(t, tab).Version(); v++ {
		s, err := tab.At(t.Context(), v)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(store.Root(), "t/_delta_log", fmt.Sprintf("%020d.crc", v)))
		if err != nil {
			t.Fatal(err)
		}
		var c struct {
			TxnID                              string
			TableSizeBytes                     int64
			NumFiles, NumMetadata, NumProtocol int
			InCommitTimestampOpt               int64
			Metadata                           struct{ ID string }
			Protocol                           struct{ MinReaderVersion int }
		}
		if err := json.Unmarshal(b, &c); err != nil {
			t.Fatal(err)
		}
		if c.TxnID == "" || c.TableSizeBytes != s.Size() || c.NumFiles != s.Files() || c.NumMetadata != 1 || c.NumProtocol != 1 ||
			c.Metadata.ID != s.ID() || c.Protocol.MinReaderVersion != s.Protocol().MinReader || c.InCommitTimestampOpt != s.Time().UnixMilli() {
			t.Errorf("version %d of %d files, %d bytes at %s: %s", v, s.Files(), s.Size(), s.Time(), b)
		}
	}
}
