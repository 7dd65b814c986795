package compute

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// gate refuses to change objects whose keys contain a part.
type gate struct {
	mu    sync.Mutex
	parts []string
}

func (g *gate) shut(parts ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.parts = append(g.parts, parts...)
}

func (g *gate) plan(c faulty.Call) faulty.Fault {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.Op == faulty.Head || c.Op == faulty.Get || c.Op == faulty.List {
		return faulty.None
	}
	for _, part := range g.parts {
		if strings.Contains(c.Key, part) {
			return faulty.Fail
		}
	}
	return faulty.None
}

// A computer is lost after each of the steps by which a fork reaches the object
// store. With its record and with what it began in it is there again; without, it
// says what was lost and how far its parent is.
func TestForksAreLostWithTheirComputer(t *testing.T) {
	if os.Getenv(volumesEnv) != "" {
		t.Skip("plain directories are not copied to an object store")
	}
	const parent = tarn.TimelineID("00000000000000000000000000000002")
	var g gate
	under := memory.New()
	o := inBucket(t, pgtest.Dir(t), faulty.New(under, g.plan))
	o.Installs = o.Installs[:1]
	f := openFleet(t, o)
	end := keep(t, f)
	create(t, f, tarn.TimelineSpec{ID: parent})
	pg := connectTo(t, wake(t, f, spec("ep-parent", parent)), tarn.Superuser)
	run(t, pg, `CREATE TABLE t (id int)`)
	store := f.store.(pages)
	w := f.serving(parent).copying
	catchUp := func() {
		t.Helper()
		if err := w.uploader.CatchUp(timeout(t, time.Minute), w.done); err != nil {
			t.Fatal(err)
		}
	}
	row := 0
	type made struct {
		id   tarn.TimelineID
		name string
		rows int    // that come back; 0 = none
		why  string // what is said then
	}
	var forks []made
	// fork makes a child that has all rows there are, and writes one to it.
	fork := func(name string, rows int, why string, stopped ...string) *pgx.Conn {
		t.Helper()
		row++
		run(t, pg, `INSERT INTO t VALUES ($1)`, row)
		c := made{tarn.TimelineID(fmt.Sprintf("%032x", 0x10+row)), name, rows, why}
		for _, dir := range stopped {
			g.shut(dir + "/" + string(c.id))
		}
		forks = append(forks, c)
		create(t, f, tarn.TimelineSpec{ID: c.id, Source: parent})
		own := connectTo(t, wake(t, f, spec("ep-"+string(c.id[30:]), c.id)), tarn.Superuser)
		run(t, own, `INSERT INTO t VALUES (100)`)
		return own
	}

	whole := fork("everything", 2, "")
	eventually(t, "the fork is in the object store", func() bool {
		st, err := f.Timeline(t.Context(), forks[0].id)
		if err != nil {
			t.Fatal(err)
		}
		return !st.Copy.Waiting
	})
	run(t, whole, `INSERT INTO t VALUES (101)`) // behind its pages, in its WAL
	forks[0].rows++
	own := f.serving(forks[0].id).copying
	if err := own.uploader.CatchUp(timeout(t, time.Minute), own.done); err != nil {
		t.Fatal(err)
	}
	fork("nothing", 0, "does not exist, nor did the object store have it", "timelines", "wal", "store")
	fork("record", 3, "", "wal", "store")
	fork("record and WAL", 4, "", "store")
	if err := store.Upload(timeout(t, time.Minute), parent); err != nil {
		t.Fatal(err)
	}
	g.shut("store/")
	fork("record, and the parent's WAL", 5, "", "wal")
	catchUp()
	g.shut("wal/")
	fork("record, and not where it began", 0, "the object store has what it was made from up to")
	g.shut("/") // what ends in order tells the object store nothing
	end()

	o = inBucket(t, pgtest.Dir(t), under)
	o.Installs = o.Installs[:1]
	f = openFleet(t, o)
	keep(t, f)
	eventually(t, "the first computer counts as gone", func() bool {
		_, err := f.Wake(t.Context(), spec("ep-parent", parent))
		if err != nil && tarn.KindOf(err) != tarn.KindConflict {
			t.Fatal(err)
		}
		return err == nil
	})
	for _, c := range forks {
		t.Run(c.name, func(t *testing.T) {
			if c.rows > 0 {
				cameBack(t, f, c.id, c.rows)
			} else {
				isLost(t, f, c.id, parent, c.why)
			}
		})
	}
}

func cameBack(t *testing.T, f *Fleet, id tarn.TimelineID, want int) {
	c := connectTo(t, wake(t, f, spec("ep-"+string(id[30:]), id)), tarn.Superuser)
	if got := rows(t, c); len(got) != want {
		t.Errorf("it came back with %v, want %d rows", got, want)
	}
	run(t, c, `INSERT INTO t VALUES (200)`)
	eventually(t, "it is in the object store", func() bool {
		st, err := f.Timeline(t.Context(), id)
		return err == nil && !st.Copy.Away && !st.Copy.Waiting && st.Copy.BackLSN != 0
	})
}

// isLost sees that a timeline says that it was lost, and can be given up and made
// again.
func isLost(t *testing.T, f *Fleet, id, parent tarn.TimelineID, why string) {
	s := spec("ep-"+string(id[30:]), id)
	if _, err := f.Wake(t.Context(), s); err == nil || !strings.Contains(err.Error(), why) || tarn.HintOf(err) == "" {
		t.Errorf("waking what was lost: %v (hint %q), want %q", err, tarn.HintOf(err), why)
	}
	if st, err := f.Timeline(t.Context(), id); err == nil && (!st.Copy.Away || !strings.Contains(st.Copy.Problem, why)) {
		t.Errorf("what was lost is %+v, want %q", st.Copy, why)
	}
	if err := f.DeleteTimeline(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	create(t, f, tarn.TimelineSpec{ID: id, Source: parent})
	wake(t, f, s)
}
