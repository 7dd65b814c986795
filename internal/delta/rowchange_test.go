package delta_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/blob/s3/s3test"
	"github.com/tarndb/tarn/internal/delta"
)

// mergeStep is one round of a mover that keeps a table equal to its source.
func mergeStep(ctx context.Context, t *testing.T, s blob.Store) error {
	tab, err := delta.Open(ctx, s, "t")
	if err != nil {
		return err
	}
	_, err = tab.Commit(ctx, delta.CommitOptions{}, func(x *delta.Tx) error {
		schema := people()
		x.SetAppTxn(app, 100)
		_, err := x.Merge(ctx, delta.Merge{
			Keys:    []string{"id"},
			Upserts: rows(t, &schema, person(10, "changed", "x"), person(13, "changed", "y"), person(99, "new", "z")),
			Deletes: rows(t, &schema, person(11, "", "")),
		})
		return err
	})
	if errors.Is(err, delta.ErrAppliedTxn) {
		return nil
	}
	return err
}

// A merge struck at every call to the store, in every way, happened or did not,
// is said truly, and happens once when repeated.
func TestCrashDuringMerge(t *testing.T) {
	for _, dv := range []string{"true", "false"} {
		before := memory.New()
		tab := create(t, before, delta.Metadata{Schema: people(), Properties: map[string]string{
			"delta.enableDeletionVectors": dv, "delta.enableChangeDataFeed": "true", "delta.checkpointInterval": "3",
		}})
		write(t, tab, person(10, "old", "x"), person(11, "old", "x"), person(12, "old", "x"))
		write(t, tab, person(13, "old", "x"), person(14, "old", "x"))
		old := content(t, latest(t, tab), delta.ScanOptions{})
		slices.Sort(old)
		want := []string{"10|changed|x", "12|old|x", "13|changed|y", "14|old|x", "99|new|z"}
		look := func(what string, s blob.Store) (string, []string) {
			t.Helper()
			again, err := delta.Open(t.Context(), s, "t")
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			got := content(t, latest(t, again), delta.ScanOptions{})
			slices.Sort(got)
			feed, err := changes(t, again, delta.ChangeOptions{})
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			switch {
			case slices.Equal(got, old):
				return "old", feed
			case slices.Equal(got, want):
				return "new", feed
			}
			t.Fatalf("%s: the table holds %v", what, got)
			return "", nil
		}
		count := faulty.New(copyOf(t, before), nil)
		if err := mergeStep(t.Context(), t, count); err != nil {
			t.Fatal(err)
		}
		for n := range count.Calls() {
			for _, f := range []faulty.Fault{faulty.Fail, faulty.Lost, faulty.Unsent, faulty.DieBefore, faulty.DieAfter}[n%2:] {
				what := fmt.Sprintf("deletion vectors %s, call %d, fault %d", dv, n, f)
				store := copyOf(t, before)
				err := mergeStep(t.Context(), t, faulty.New(store, faulty.At(n, f)))
				got, _ := look(what, store)
				died := f == faulty.DieBefore || f == faulty.DieAfter
				if err == nil && got == "old" || err != nil && !died && !errors.Is(err, blob.ErrAmbiguous) && got == "new" {
					t.Errorf("%s: said %v, but the table is %s", what, err, got)
				}
				if err := mergeStep(t.Context(), t, store); err != nil {
					t.Errorf("%s: repeated: %v", what, err)
				}
				got, feed := look(what, store)
				if got != "new" || len(feed) != 5+2+2+1+1 {
					t.Errorf("%s: repeated: the table is %s, its changes %v", what, got, feed)
				}
			}
		}
	}
}

// Whom a commit of another writer stands in the way of.
func TestConflictRules(t *testing.T) {
	type work func(x *delta.Tx) error
	schema := people()
	add := func(id int, town string) work {
		return func(x *delta.Tx) error { return x.Append(t.Context(), rows(t, &schema, person(id, "n", town))) }
	}
	del := func(p delta.Predicate) work {
		return func(x *delta.Tx) error { _, err := x.Delete(t.Context(), p); return err }
	}
	merge := func(id int) work {
		return func(x *delta.Tx) error {
			_, err := x.Merge(t.Context(), delta.Merge{Keys: []string{"id"}, Upserts: rows(t, &schema, person(id, "merged", "y"))})
			return err
		}
	}
	property := func(x *delta.Tx) error { return x.SetProperties(map[string]string{"note": "x"}) }
	all := delta.Predicate{}
	for _, c := range []struct {
		what         string
		ours, theirs work
		level        string
		clash        bool
	}{
		{"two appends", add(50, "x"), add(51, "x"), "", false},
		{"an append beside a delete", add(50, "x"), del(all), "", false},
		{"a delete beside an append it would have met", del(delta.Eq("town", "x")), add(50, "x"), "", true},
		{"the same, writes only", del(delta.Eq("town", "x")), add(50, "x"), "WriteSerializable", false},
		{"a delete beside an append elsewhere", del(delta.Eq("town", "x")), add(50, "y"), "", false},
		{"deletes in two files", del(delta.Eq("id", 1)), del(delta.Eq("id", 3)), "", false},
		{"deletes in one file", del(delta.Eq("id", 1)), del(delta.Eq("id", 2)), "", true},
		{"the same, writes only", del(delta.Eq("id", 1)), del(delta.Eq("id", 2)), "WriteSerializable", true},
		{"merges of two keys", merge(60), merge(70), "", false},
		{"merges of one new key", merge(60), merge(60), "", true},
		{"the same, writes only", merge(60), merge(60), "WriteSerializable", true},
		{"a merge beside an append of its key", merge(60), add(60, "x"), "", true},
		{"a merge beside a delete of its row", merge(1), del(delta.Eq("id", 1)), "", true},
		{"an append beside new properties", add(50, "x"), property, "", true},
		{"new properties beside an append", property, add(50, "x"), "", false},
		{"new properties twice", property, property, "", true},
	} {
		tab := create(t, memory.New(), delta.Metadata{Schema: people(), PartitionBy: []string{"town"}, Properties: map[string]string{"delta.isolationLevel": c.level}})
		write(t, tab, person(1, "a", "x"), person(2, "b", "x"))
		write(t, tab, person(3, "a", "x"), person(4, "b", "y"))
		base := latest(t, tab)
		ours, theirs := tab.Begin(base), tab.Begin(base)
		if err := c.ours(ours); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if err := c.theirs(theirs); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		commit(t, theirs)
		_, err := ours.Commit(t.Context(), delta.CommitOptions{})
		var conflict *delta.ConflictError
		if errors.As(err, &conflict) != c.clash || !c.clash && err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		ours.Abort(t.Context())
	}
	// Joining files stands in nobody's way but of those who remove them.
	tab := create(t, memory.New(), delta.Metadata{Schema: people()})
	write(t, tab, person(1, "a", "x"))
	write(t, tab, person(2, "b", "x"))
	base := latest(t, tab)
	reads, removes := tab.Begin(base), tab.Begin(base)
	if _, err := reads.Merge(t.Context(), delta.Merge{Keys: []string{"id"}, Upserts: rows(t, &schema, person(7, "new", "x"))}); err != nil {
		t.Fatal(err)
	}
	if err := del(delta.Eq("id", 1))(removes); err != nil {
		t.Fatal(err)
	}
	if n, err := tab.Optimize(t.Context(), delta.OptimizeOptions{}); err != nil || n.FilesRemoved != 2 || n.FilesMade != 1 {
		t.Fatalf("optimize: %+v, %v", n, err)
	}
	commit(t, reads)
	var conflict *delta.ConflictError
	if _, err := removes.Commit(t.Context(), delta.CommitOptions{}); !errors.As(err, &conflict) {
		t.Errorf("a delete beside an optimize of its file: %v", err)
	}
}

// Three writers merge, delete and append on S3 at once: each row is there once,
// as its writer left it.
func TestThreeWritersOnS3(t *testing.T) {
	store := s3test.Start(t).Store(t)
	create(t, store, delta.Metadata{Schema: people(), Properties: map[string]string{"delta.enableDeletionVectors": "true", "delta.enableChangeDataFeed": "true"}})
	threeWriters(t, store, nil)
}

// The same in a folder, beside the package deltalake.
func TestThreeWritersBesideAnother(t *testing.T) {
	store := newDir(t)
	create(t, store, delta.Metadata{Schema: people()})
	folder := filepath.Join(store.Root(), "t")
	theirs := exec.CommandContext(t.Context(), python(t), "testdata/beside.py", folder, "12")
	out := &strings.Builder{}
	theirs.Stdout, theirs.Stderr = out, out
	if err := theirs.Start(); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 12 {
		want = append(want, fmt.Sprintf("%d|theirs|z", 1000+i))
	}
	threeWriters(t, store, func() []string {
		if err := theirs.Wait(); err != nil {
			t.Errorf("deltalake: %v: %s", err, out)
		}
		return want
	})
	sameForOthers(t, store.Root(), nil)
}

// threeWriters works on a table; others, when not nil, waits for another writer
// and gives the rows it left.
func threeWriters(t *testing.T, store blob.Store, others func() []string) {
	const writers, rounds = 3, 4
	schema := people()
	var want []string
	var wg sync.WaitGroup
	for w := range writers {
		tab, err := delta.Open(t.Context(), store, "t")
		if err != nil {
			t.Fatal(err)
		}
		id := func(r int) int { return 100*w + r }
		var work []func(x *delta.Tx) error
		for r := range rounds {
			first := rows(t, &schema, person(id(r), "first", "x"), person(id(50+r), "gone", "x"))
			second := rows(t, &schema, person(id(r), "second", "y"))
			work = append(work,
				func(x *delta.Tx) error { return x.Append(t.Context(), first) },
				func(x *delta.Tx) error {
					n, err := x.Merge(t.Context(), delta.Merge{Keys: []string{"id"}, Upserts: second})
					if err == nil && n.Updated != 1 {
						err = fmt.Errorf("merge updated %d rows", n.Updated)
					}
					return err
				},
				func(x *delta.Tx) error {
					n, err := x.Delete(t.Context(), delta.Eq("id", id(50+r)))
					if err == nil && n != 1 {
						err = fmt.Errorf("deleted %d rows", n)
					}
					return err
				})
			want = append(want, fmt.Sprintf("%d|second|y", id(r)))
		}
		wg.Go(func() {
			for i, do := range work {
				for tries := 0; ; tries++ {
					_, err := tab.Commit(t.Context(), delta.CommitOptions{}, do)
					var conflict *delta.ConflictError
					if err == nil {
						break
					}
					if !errors.As(err, &conflict) || tries == 20 {
						t.Errorf("writer %d, step %d: %v", w, i, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if others != nil {
		want = append(want, others()...)
	}
	tab, err := delta.Open(t.Context(), store, "t")
	if err != nil {
		t.Fatal(err)
	}
	got := content(t, latest(t, tab), delta.ScanOptions{})
	slices.Sort(got)
	slices.Sort(want)
	equal(t, "rows", got, want)
}

// Vacuum keeps what the table and the retention need and deletes the rest.
func TestVacuum(t *testing.T) {
	store := newDir(t)
	tab := create(t, store, delta.Metadata{Schema: people(), PartitionBy: []string{"town"}, Properties: map[string]string{
		"delta.enableDeletionVectors": "true", "delta.enableChangeDataFeed": "true",
	}})
	write(t, tab, person(1, "a", "x"), person(2, "b", "x"), person(3, "c", "_y"))
	for id := 1; id <= 2; id++ { // leaves vectors and change files behind
		if _, err := tab.Commit(t.Context(), delta.CommitOptions{}, func(x *delta.Tx) error {
			schema := people()
			_, err := x.Merge(t.Context(), delta.Merge{Keys: []string{"id"}, Upserts: rows(t, &schema, person(id, "new", "x"))})
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Put(t.Context(), "t/orphan.parquet", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if err := store.Put(t.Context(), "t/_hidden/keep", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	files := func() int {
		n := 0
		for _, err := range store.List(t.Context(), "t/", "") {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	all := files()
	if _, err := tab.Vacuum(t.Context(), delta.VacuumOptions{Retention: time.Hour}); err == nil || !strings.Contains(err.Error(), "force") {
		t.Errorf("an hour's retention: %v", err)
	}
	if n, err := tab.Vacuum(t.Context(), delta.VacuumOptions{}); err != nil || n.Files != 0 || files() != all {
		t.Errorf("a week's retention deletes %+v, %v", n, err)
	}
	force := delta.VacuumOptions{Retention: time.Nanosecond, Force: true, DryRun: true}
	dry, err := tab.Vacuum(t.Context(), force)
	if err != nil || dry.Files < 4 || files() != all {
		t.Errorf("dry run: %+v, %v", dry, err)
	}
	force.DryRun = false
	if n, err := tab.Vacuum(t.Context(), force); err != nil || n.Files != dry.Files || files() != all-n.Files {
		t.Errorf("vacuum: %+v, %v; %d files of %d are left", n, err, files(), all)
	}
	got := content(t, latest(t, tab), delta.ScanOptions{})
	slices.Sort(got)
	equal(t, "rows", got, []string{"1|new|x", "2|new|x", "3|c|_y"})
	if _, err := store.Head(t.Context(), "t/_hidden/keep"); err != nil {
		t.Error(err)
	}
	sameForOthers(t, store.Root(), latest(t, tab))
	if _, err := tab.Restore(t.Context(), 1); !errors.Is(err, delta.ErrNoVersion) {
		t.Errorf("restore of a vacuumed version: %v", err)
	}
}

// sameForOthers checks that deltalake and DuckDB read what we do of the table t
// in a folder; s is its latest version, nil to find it. A reader may lack a
// feature, by its own word.
func sameForOthers(t *testing.T, root string, s *delta.Snapshot, lacks ...string) {
	t.Helper()
	if s == nil {
		store, err := dir.Open(root)
		if err != nil {
			t.Fatal(err)
		}
		tab, err := delta.Open(t.Context(), store, "t")
		if err != nil {
			t.Fatal(err)
		}
		s = latest(t, tab)
	}
	ours := filepath.Join(t.TempDir(), "ours.arrow")
	if _, err := writeIPC(t, s, ours); err != nil {
		t.Fatal(err)
	}
	for _, readers := range otherReaders(t, []map[string]string{{"name": "t", "table": filepath.Join(root, "t"), "ours": ours, "expected": ""}}) {
		for reader, v := range readers {
			lacking := slices.ContainsFunc(lacks, func(l string) bool { return strings.HasPrefix(v, "cannot: ") && strings.Contains(v, l) })
			if v != "same" && !lacking {
				t.Errorf("%s: %s", reader, v)
			}
		}
	}
}
