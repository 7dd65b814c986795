package syncedtable

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/delta"
)

// watch is what Run remembers of a table at rest. It is lost with the process,
// and nothing hangs on it.
type watch struct {
	mu       sync.Mutex // not held across I/O
	looked   time.Time  // when the source was last looked at
	opened   time.Time  // when table was opened
	table    *delta.Table
	ran      time.Time // when a schedule's run was last asked for
	flow     time.Time // when changes were last told in an event
	lagging  bool      // an alert of the lag is out
	verified bool      // the position was read since the process began
}

func (k *Keeper) watchOf(uid string) *watch {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.watched[uid]
	if w == nil {
		w = &watch{}
		k.watched[uid] = w
	}
	return w
}

// hurry makes the next look come at once.
func (w *watch) hurry() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looked = time.Time{}
}

func (w *watch) mayFlow(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.flow) < flowEvery {
		return false
	}
	w.flow = now
	return true
}

// due tells whether a table has work to do now, and asks for the update when its
// schedule has come.
func (k *Keeper) due(ctx context.Context, t tarn.SyncedTable) bool {
	switch {
	case t.State.Due():
		return true
	case t.State == tarn.SyncContinuing:
		return k.behind(ctx, t)
	case t.Schedule.Cron != "" && (t.State == tarn.SyncOnline || t.State.Failed()):
		k.followSchedule(ctx, t)
	}
	return false
}

// followSchedule asks for the run whose time has come. One that was missed
// while nothing ran here is made up for, once.
func (k *Keeper) followSchedule(ctx context.Context, t tarn.SyncedTable) {
	w := k.watchOf(t.UID)
	w.mu.Lock()
	now := time.Now()
	if w.ran.IsZero() {
		if w.ran = t.SyncEnd; w.ran.IsZero() {
			w.ran = now
		}
	}
	next := t.Schedule.Next(w.ran)
	come := !next.IsZero() && !next.After(now)
	if come {
		w.ran = now
	}
	w.mu.Unlock()
	if !come {
		return
	}
	if _, err := k.refresh(ctx, t.Name, tarn.CauseSchedule, tarn.RefreshNew); err != nil && ctx.Err() == nil {
		k.log.Warn("scheduled refresh", "path", t.Name.String(), "err", err)
	}
}

// reopenEvery bounds how long a source that was made anew in the same folder
// can pass for the old one.
const reopenEvery = time.Minute

// behind looks at the source of a CONTINUOUS table, once an interval, without
// its compute: an idle source lets it sleep.
func (k *Keeper) behind(ctx context.Context, t tarn.SyncedTable) bool {
	w := k.watchOf(t.UID)
	w.mu.Lock()
	now := time.Now()
	every := t.Interval
	if every == 0 {
		every = tarn.DefaultSyncInterval
	}
	idle := now.Sub(w.looked) < every
	if !idle {
		w.looked = now
	}
	table := w.table
	if now.Sub(w.opened) > reopenEvery {
		table = nil
	}
	verified := w.verified
	w.verified = true
	w.mu.Unlock()
	if !verified { // the first time the position itself is looked at, if the compute is up
		if c, err := k.computes.ComputeOf(ctx, t.Branch); err == nil && c.State == tarn.ComputeActive {
			return true
		}
	}
	if idle {
		return false
	}
	snap, err := w.look(ctx, k, table, t)
	if err != nil {
		return true // the worker finds out, and says so
	}
	w.watchLag(ctx, k, t, snap)
	return snap.Version() != t.Version
}

// look gives the newest version of the source; table is what was opened before.
func (w *watch) look(ctx context.Context, k *Keeper, table *delta.Table, t tarn.SyncedTable) (*delta.Snapshot, error) {
	if table != nil {
		if snap, err := table.Latest(ctx); err == nil {
			return snap, nil
		}
	}
	table, snap, err := k.source(ctx, t.SyncedTableSpec.Source)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.table, w.opened = table, time.Now()
	return snap, nil
}

// watchLag tells when a table is further behind than it should be, once until
// it has caught up.
func (w *watch) watchLag(ctx context.Context, k *Keeper, t tarn.SyncedTable, snap *delta.Snapshot) {
	if snap.Version() > t.Newest.Version {
		t.Newest = tarn.SourcePosition{Version: snap.Version(), Time: snap.Time()}
	}
	lag := t.Lag(time.Now())
	w.mu.Lock()
	told := w.lagging
	w.lagging = t.Alerts.Lag > 0 && lag > t.Alerts.Lag
	tell := w.lagging && !told
	w.mu.Unlock()
	if tell {
		k.alert(ctx, t, "lag", fmt.Sprintf("version %d has been waiting for %s", snap.Version(), lag.Round(time.Second)))
	}
}

const trimEvery = time.Hour

// trim removes old records of pipelines, now and then, and forgets tables that
// are gone.
func (k *Keeper) trim(ctx context.Context) {
	k.mu.Lock()
	due := time.Since(k.trimmed) > trimEvery
	if due {
		k.trimmed = time.Now()
		clear(k.watched)
	}
	k.mu.Unlock()
	if !due {
		return
	}
	if err := controldb.TrimPipelines(ctx, k.db, time.Now()); err != nil && ctx.Err() == nil {
		k.log.Error("trim pipelines", "err", err)
	}
}
