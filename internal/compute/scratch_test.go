package compute

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// What a sort spills goes to this computer's own directory, not into the
// timeline; a fork has its own, and nothing of it is left when it ends.
func TestScratch(t *testing.T) {
	for _, in := range pgtest.Installs(t) {
		t.Run(fmt.Sprint(in.Major), func(t *testing.T) {
			o := options(t, pgtest.Dir(t))
			f := openFleet(t, o)
			parent := create(t, f, tarn.TimelineSpec{PGVersion: in.Major})
			st := wake(t, f, spec("ep-parent", parent.ID))
			spill(t, o, f, st, parent.ID)
			child := create(t, f, tarn.TimelineSpec{Source: parent.ID})
			other := wake(t, f, spec("ep-child", child.ID))
			spill(t, o, f, other, child.ID)
			places := map[string]bool{}
			for _, st := range []tarn.ComputeStatus{st, other} {
				at, err := os.Readlink(filepath.Join(st.Mount, "base", "pgsql_tmp"))
				if err != nil || places[at] {
					t.Errorf("scratch space at %q, %v", at, err)
				}
				places[at] = true
			}
			suspend(t, f, "ep-parent")
			suspend(t, f, "ep-child")
			if left, err := os.ReadDir(filepath.Join(o.Dir, "tmp")); err != nil || len(left) != 0 {
				t.Errorf("left of scratch space: %v, %v", left, err)
			}
		})
	}
}

// spill sorts 40 MB in little memory.
func spill(t *testing.T, o Options, f *Fleet, st tarn.ComputeStatus, id tarn.TimelineID) {
	t.Helper()
	before := ownBytes(t, f, id)
	c := connectTo(t, st, tarn.Superuser)
	defer c.Close(t.Context())
	run(t, c, `SET work_mem = '1MB'`)
	run(t, c, `BEGIN`)
	run(t, c, `DECLARE d CURSOR FOR SELECT md5(i::text) || md5((i + 1)::text) FROM generate_series(1, 400000) i ORDER BY 1`)
	run(t, c, `FETCH 1 FROM d`)
	var spilled int64
	err := filepath.Walk(filepath.Join(o.Dir, "tmp"), func(_ string, st os.FileInfo, err error) error {
		if err == nil && st.Mode().IsRegular() {
			spilled += st.Size()
		}
		return err
	})
	if err != nil || spilled < 10<<20 {
		t.Errorf("%d bytes in scratch space, %v", spilled, err)
	}
	run(t, c, `ROLLBACK`)
	if grown := ownBytes(t, f, id) - before; grown > 8<<20 {
		t.Errorf("the timeline grew by %d bytes", grown)
	}
}

func ownBytes(t *testing.T, f *Fleet, id tarn.TimelineID) int64 {
	t.Helper()
	all, err := f.Timelines(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range all {
		if st.ID == id {
			return st.Bytes
		}
	}
	t.Fatalf("no timeline %s", id)
	return 0
}
