package compute

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/tarndb/tarn"
)

// While the object store is not reached, another computer may take the branches of
// this one over, a lease after the last heartbeat. What would be acknowledged here
// after that would be lost. So computes stop acknowledging commits before: after
// half a lease of silence they wait for a standby that does not exist, as Postgres
// waits for a synchronous one. They read on. When the store is reached again and
// nobody took over, those that wait are acknowledged and sessions go on; when
// somebody did, they end with their compute (overtaken), unacknowledged.
//
//	last heartbeat        1/2                 2/3                     1 of the lease
//	──────┼────────────────┼───────────────────┼───────────────────────┼──▶
//	    commits         they wait     the page store takes    another may have it
//	                                       no changes
//
// What a session commits with synchronous_commit off or local waits for nothing.

// fenceConf is what a fenced compute has in a file of its own.
const fenceConf = "# Written by Tarn while the object store is not reached.\nsynchronous_standby_names = 'object_store'\n"

// fencer fences the computes of a fleet that shares its storage.
type fencer struct{ *Fleet }

// living is storage that other computers take over when it is silent.
type living interface {
	Alive() (left, lease time.Duration, ok bool)
}

// fenceLooks is how often a lease the storage's heart is looked at.
const fenceLooks = 30

// fence fences computes and lifts fences until ctx ends.
func fence(ctx context.Context, f *Fleet) {
	store, ok := f.machine.store.(living)
	if !ok {
		return
	}
	_, lease, ok := store.Alive()
	if !ok {
		return
	}
	k := fencer{f}
	tick := time.NewTicker(lease / fenceLooks)
	defer tick.Stop()
	fenced := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		left, _, _ := store.Alive()
		now := left < lease/6 // two thirds of it less a half
		if now && !fenced {
			f.log.Warn("object store not reached: commits wait", "took", lease*2/3-left)
		} else if !now && fenced {
			f.log.Info("object store reached again: commits go on")
		}
		if now || fenced {
			k.all(now)
		}
		fenced = now
	}
}

// all fences every active compute, or lifts its fence; those it finds so are left
// alone.
func (k fencer) all(on bool) {
	k.mu.Lock()
	var engines []*engine
	for _, l := range k.lives {
		if l.engine != nil && !l.engine.replica && l.status.State != tarn.ComputeStopping {
			engines = append(engines, l.engine)
		}
	}
	k.mu.Unlock()
	for _, e := range engines {
		if e.fenced.Load() == on {
			continue
		}
		if err := setFence(e, on); err != nil {
			k.log.Error("compute not fenced", "timeline", string(e.timeline), "err", err) // tried again
			continue
		}
		e.fenced.Store(on)
	}
}

func fenceFile(e *engine) string { return e.on.path("run", e.name+".fence") }

// setFence has commits wait, or go on. Postgres reads the file when it is told to.
func setFence(e *engine, on bool) error {
	text := ""
	if on {
		text = fenceConf
	}
	path := fenceFile(e)
	err := os.WriteFile(path+".new", []byte(text), 0o644)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = e.server.Reload()
	}
	if err != nil {
		return fmt.Errorf("have commits wait on timeline %s (%t): %w", e.timeline, on, err)
	}
	return nil
}

// unfence makes the file of a compute that is to start.
func unfence(e *engine) error {
	e.fenced.Store(false)
	return os.WriteFile(fenceFile(e), nil, 0o644)
}
