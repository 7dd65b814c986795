package compute

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

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

// A slot that spills a large transaction leaves nothing of it in the timeline.
// After a SIGKILL while it spills, the slot gives every change once it is asked
// again, and what was spilled is gone.
func TestSpillStaysOutside(t *testing.T) {
	for _, in := range pgtest.Installs(t) {
		t.Run(fmt.Sprint(in.Major), func(t *testing.T) {
			o := options(t, pgtest.Dir(t))
			if VolumeKind(os.Getenv(volumesEnv)) == Directories {
				t.Skip("plain directories keep everything in one place")
			}
			f := openFleet(t, o)
			tl := create(t, f, tarn.TimelineSpec{PGVersion: in.Major})
			st := wake(t, f, spec("ep-1", tl.ID))
			c := connectTo(t, st, tarn.Superuser)
			run(t, c, `CREATE TABLE t (id int, v text)`)
			run(t, c, `SELECT pg_create_logical_replication_slot('s', 'test_decoding')`)
			const many = 60000
			run(t, c, `INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, $1::int) i`, many)
			before := ownBytes(t, f, tl.ID)
			decoding := make(chan error, 1)
			go func() { // it stands still at its first row, with everything spilled
				d, err := pgx.Connect(context.Background(), dsn(st, tarn.Superuser))
				if err == nil {
					defer d.Close(context.Background())
					_, err = d.Exec(context.Background(), `SET logical_decoding_work_mem = '64kB'`)
				}
				if err == nil {
					_, err = d.Exec(context.Background(), `SELECT data, pg_sleep(60) FROM pg_logical_slot_get_changes('s', NULL, NULL)`)
				}
				decoding <- err
			}()
			spilled := filepath.Join(o.Dir, "tmp", "ep-1", "spill")
			eventually(t, "the transaction is spilled", func() bool { return treeBytes(t, spilled) > many*100 })
			if names, err := os.ReadDir(filepath.Join(st.Mount, "pg_replslot", "s")); err != nil || len(names) < 2 {
				t.Errorf("the slot's directory shows %v, %v", names, err)
			}
			if grown := ownBytes(t, f, tl.ID) - before; grown > 4<<20 {
				t.Errorf("the timeline grew by %d bytes", grown)
			}
			f.serving(tl.ID).server.Kill()
			if err := <-decoding; err == nil {
				t.Error("decoding survived")
			}
			killed := st.PID
			eventually(t, "the compute is back", func() bool { st = wake(t, f, spec("ep-1", tl.ID)); return st.PID != killed })
			c = connectTo(t, st, tarn.Superuser)
			if n := treeBytes(t, spilled); n != 0 {
				t.Errorf("%d bytes left of what was spilled", n)
			}
			run(t, c, `SET logical_decoding_work_mem = '64kB'`)
			if n := query[int](t, c, `SELECT count(*) FROM pg_logical_slot_get_changes('s', NULL, NULL) WHERE data LIKE 'table%INSERT%'`); n != many {
				t.Errorf("%d changes, want %d", n, many)
			}
			run(t, c, `SELECT pg_drop_replication_slot('s')`)
			suspend(t, f, "ep-1")
		})
	}
}

func treeBytes(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.Walk(dir, func(_ string, st os.FileInfo, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && st.Mode().IsRegular() {
			n += st.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
