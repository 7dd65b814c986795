package compute

import (
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
	"github.com/tarndb/tarn/internal/wal"
)

// A compute starts while the WAL of its timeline is copied at rest: that ends, and
// what the compute acknowledges is in the object store.
func TestComputeInterruptsCopyingAtRest(t *testing.T) {
	if os.Getenv(volumesEnv) != "" {
		t.Skip("copying WAL does not depend on the kind of volumes")
	}
	const id = tarn.TimelineID("00000000000000000000000000000004")
	begun := make(chan struct{})
	var seen atomic.Bool
	store := memory.New()
	o := withRemote(t, pgtest.Dir(t), faulty.New(store, func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.PutIfAbsent && strings.HasPrefix(c.Key, "wal/"+string(id)) && seen.CompareAndSwap(false, true) {
			close(begun)
			return faulty.HangAfter // the first run is announced, and nothing of it follows
		}
		return faulty.None
	}))
	o.Installs = o.Installs[:1]
	f := openFleet(t, o)
	keep(t, f)
	create(t, f, tarn.TimelineSpec{ID: id})
	select {
	case <-begun:
	case <-time.After(time.Minute):
		t.Fatal("the WAL of the new timeline is not copied")
	}
	c := connectTo(t, wake(t, f, spec("ep-1", id)), tarn.Superuser)
	run(t, c, `CREATE TABLE t AS SELECT generate_series(1, 1000) AS id`)
	end, err := tarn.ParseLSN(query[string](t, c, `SELECT pg_current_wal_flush_lsn()::text`))
	if err != nil {
		t.Fatal(err)
	}
	e := f.serving(id)
	if err := e.copying.uploader.CatchUp(timeout(t, time.Minute), e.copying.done); err != nil {
		t.Fatal(err)
	}
	p, err := f.o.Remote.WAL.Position(t.Context(), id, wal.Start{TLI: e.control.TLI, LSN: e.control.Redo, SegmentBytes: e.control.SegmentBytes})
	if err != nil || p.To < end {
		t.Errorf("the object store has it up to %s of %s, %v", p.To, end, err)
	}
}
