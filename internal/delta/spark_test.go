package delta_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/delta"
)

// Spark reads our tables and their change feeds, works on them, and we read what
// it did and what it made. `make interop` runs it: TARN_SPARK_PYTHON is an
// interpreter with pyspark, TARN_SPARK_JARS are Delta's jars.
func TestSpark(t *testing.T) {
	python, jars := os.Getenv("TARN_SPARK_PYTHON"), os.Getenv("TARN_SPARK_JARS")
	if python == "" || jars == "" {
		t.Skip("TARN_SPARK_PYTHON and TARN_SPARK_JARS are not set: make interop sets them")
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	store := newDir(t)
	var runs []*modelRun
	var folders []string
	for _, kind := range []int{0, 3} {
		props := map[string]string{"delta.enableChangeDataFeed": "true"}
		m := delta.Metadata{Schema: people(), Properties: props}
		if kind&1 == 1 {
			props["delta.enableDeletionVectors"] = "true"
			m.PartitionBy = []string{"town"}
		}
		if kind&2 == 2 {
			props["delta.columnMapping.mode"] = "name"
			props["delta.enableInCommitTimestamps"] = "true"
		}
		name := fmt.Sprintf("ours%d", kind)
		tab, err := delta.Create(t.Context(), store, name, m)
		if err != nil {
			t.Fatal(err)
		}
		run := &modelRun{t: t, r: rand.New(rand.NewPCG(seed, uint64(kind))), tab: tab, now: model{}, past: map[int64]model{0: {}}}
		for range 15 {
			run.step()
			run.past[latest(t, tab).Version()] = run.now
		}
		runs, folders = append(runs, run), append(folders, filepath.Join(store.Root(), name))
	}
	own := filepath.Join(store.Root(), "own")
	var feeds [][]string
	for _, run := range runs {
		feed, err := changes(t, run.tab, delta.ChangeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		feeds = append(feeds, feed)
	}
	out, err := exec.CommandContext(t.Context(), python, append([]string{"testdata/spark.py", jars, own}, folders...)...).Output()
	if err != nil {
		t.Fatal(err, stderr(err))
	}
	var got struct {
		Ours, Changes, After map[string][]string
		Own                  []string
		OwnChanges           []string `json:"own changes"`
	}
	// Spark's vacuum prints, too; the answer is the last line.
	out = out[bytes.LastIndexByte(bytes.TrimSpace(out), '\n')+1:]
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i, run := range runs {
		// A table may end without rows: an empty list is none.
		equal(t, fmt.Sprintf("Spark's reading of table %d", i), append([]string{}, got.Ours[folders[i]]...), append([]string{}, run.now.lines()...))
		equal(t, fmt.Sprintf("Spark's reading of the changes of table %d", i), got.Changes[folders[i]], feeds[i])
		again, err := delta.Open(t.Context(), store, filepath.Base(folders[i]))
		if err != nil {
			t.Fatal(err)
		}
		after := content(t, latest(t, again), delta.ScanOptions{})
		slices.Sort(after)
		equal(t, fmt.Sprintf("our reading of table %d behind Spark", i), after, got.After[folders[i]])
		schema := people()
		if _, err := again.Commit(t.Context(), delta.CommitOptions{}, func(x *delta.Tx) error {
			_, err := x.Merge(t.Context(), delta.Merge{Keys: []string{"id"}, Upserts: rows(t, &schema, person(500, "ours", "y"))})
			return err
		}); err != nil {
			t.Errorf("our merge behind Spark: %v", err)
		}
	}
	s, err := dir.Open(own)
	if err != nil {
		t.Fatal(err)
	}
	tab, err := delta.Open(t.Context(), s, "")
	if err != nil {
		t.Fatal(err)
	}
	snap := latest(t, tab)
	columns := []string{"id", "name", "town", "d"}
	if len(got.Own) == 0 {
		t.Error("Spark's table has no rows")
	}
	var theirs []string
	for _, l := range got.Own {
		theirs = append(theirs, plain(strings.Join(strings.SplitN(l, "|", 5)[:4], "|")))
	}
	slices.Sort(theirs)
	mine := content(t, snap, delta.ScanOptions{Columns: columns})
	slices.Sort(mine)
	equal(t, "our reading of Spark's table", mine, theirs)
	feed, err := changes(t, tab, delta.ChangeOptions{To: 4, Columns: columns})
	if err != nil {
		t.Fatal(err)
	}
	theirs = nil
	for _, l := range got.OwnChanges {
		theirs = append(theirs, plain(strings.Join(strings.SplitN(l, "|", 7)[:6], "|")))
	}
	slices.Sort(theirs)
	equal(t, "our reading of the changes of Spark's table", feed, theirs)
}

// plain writes the decimal at the end of a line as Arrow does, without the zeros
// of its scale.
func plain(line string) string {
	if !strings.Contains(line[strings.LastIndexByte(line, '|')+1:], ".") {
		return line
	}
	return strings.TrimSuffix(strings.TrimRight(line, "0"), ".")
}
