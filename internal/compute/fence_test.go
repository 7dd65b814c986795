package compute

import (
	"context"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// The object store is not reached for longer than the lease. Commits wait before
// another computer could take over. When none did, they go on by themselves, on
// the same session; when one did, the compute ends, and nothing was acknowledged
// that the other does not have.
func TestOutageBeyondTheLease(t *testing.T) {
	if os.Getenv(volumesEnv) != "" {
		t.Skip("plain directories are not copied to an object store")
	}
	var out atomic.Bool
	under := memory.New()
	o := inBucket(t, pgtest.Dir(t), faulty.New(under, func(faulty.Call) faulty.Fault {
		if out.Load() {
			return faulty.Fail
		}
		return faulty.None
	}))
	o.Installs = o.Installs[:1]
	f := openFleet(t, o)
	keep(t, f)
	create(t, f, tarn.TimelineSpec{ID: victimID})
	c := connectTo(t, wake(t, f, spec("ep-1", victimID)), tarn.Superuser)
	run(t, c, `CREATE TABLE t (id int)`)

	// One session commits row after row.
	work, stop := context.WithCancel(context.Background())
	var acked atomic.Int64
	var writer sync.WaitGroup
	var ended error
	writer.Go(func() {
		for n := int64(1); work.Err() == nil; n++ {
			if _, ended = c.Exec(context.WithoutCancel(work), `INSERT INTO t VALUES ($1)`, n); ended != nil {
				return
			}
			acked.Store(n)
		}
	})
	t.Cleanup(func() { stop(); writer.Wait() })
	goesOn := func() {
		t.Helper()
		now := acked.Load()
		eventually(t, "commits go on", func() bool { return acked.Load() > now+10 })
	}
	silent := func() bool { left, _, _ := f.store.(living).Alive(); return left < 0 }
	// fenced cuts the store off and returns what was acknowledged in all.
	fenced := func() int64 {
		t.Helper()
		out.Store(true)
		eventually(t, "the computer counts itself as gone", silent)
		return acked.Load()
	}

	goesOn()
	before := fenced()
	eventually(t, "the lease is over", func() bool {
		left, lease, _ := f.store.(living).Alive()
		return left < -lease/3
	})
	if now := acked.Load(); now != before {
		t.Errorf("%d commits were acknowledged while another computer could take over", now-before)
	}
	out.Store(false)
	goesOn()
	if ended != nil {
		t.Fatalf("the session did not outlive the outage: %v", ended)
	}

	w := f.serving(victimID).copying
	if err := w.uploader.CatchUp(t.Context(), w.done); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its pages are in the object store", func() bool {
		return has(t, under, recordKey(victimID)) && has(t, under, "store/"+string(victimID)+"/MANIFEST")
	})
	before = fenced()
	o = inBucket(t, pgtest.Dir(t), under)
	o.Installs = o.Installs[:1]
	second := openFleet(t, o)
	keep(t, second)
	other := connectTo(t, takeOver(t, second), tarn.Superuser)
	if now := acked.Load(); now != before {
		t.Errorf("%d commits were acknowledged while another computer took over", now-before)
	}
	run(t, other, `INSERT INTO t VALUES (-1)`)
	out.Store(false)
	eventually(t, "the compute of the first computer ends", func() bool {
		all, err := f.Computes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all[0].State == tarn.ComputeFailed && strings.Contains(all[0].Message, "another computer took its branch over")
	})
	writer.Wait()
	if now := acked.Load(); ended == nil || now != before {
		t.Errorf("the session ended with %v after %d acknowledged commits, %d when it was fenced", ended, now, before)
	}
}
