package compute

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/volumefs"
)

// A node is restarted under running computes by executing its program again:
// the process stays, and with it the descriptors of the mounts. What the next
// program must know is Handed.
//
//	serving ──HandOver──▶ between ──Open──▶ serving
//	                         └──process ends──▶ as after a crash
//
// Between the two Postgres runs on its own: it commits to its WAL, and its
// file operations wait in the kernel. Nothing of this is on disk, so nothing can
// be out of date there.

// ErrRestart is how Run ends when Restart was asked for.
var ErrRestart = errors.New("the node restarts")

// Handed is what a fleet leaves to the next: its running computes.
type Handed struct {
	Computes []HandedCompute `json:"computes"`
}

// HandedCompute is a Postgres that runs without a fleet.
type HandedCompute struct {
	Spec      tarn.ComputeSpec   `json:"spec"`
	Status    tarn.ComputeStatus `json:"status"`
	Directory json.RawMessage    `json:"directory"` // the storage's own
}

// Devices are the descriptors that must stay open until the next Open.
func (h *Handed) Devices() ([]int, error) {
	var all []int
	for _, c := range h.Computes {
		var d volumefs.Handover
		if err := json.Unmarshal(c.Directory, &d); err != nil {
			return nil, fmt.Errorf("read what is handed over of compute %s: %w", c.Spec.Endpoint, err)
		}
		if d.Device != 0 { // a plain directory has none
			all = append(all, d.Device)
		}
	}
	return all, nil
}

// Restart makes Run end with ErrRestart, unless this is not the fleet that from
// names any more: then it was restarted. It returns the name of this one; with
// from "" nothing else happens.
func (f *Fleet) Restart(_ context.Context, from string) (string, error) {
	if from != f.name {
		return f.name, nil
	}
	f.restartOnce.Do(func() { close(f.restart) })
	return "", errClosing
}

// HandOver closes the fleet as Close does, but active computes go on. One that
// cannot is ended as by a crash.
//
//  1. No call begins any more; those in progress end. A fork must not find a
//     parent without its engine.
//  2. Every life ends, those of active computes with handLife.
//  3. The page store is closed.
func (f *Fleet) HandOver() (*Handed, error) {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.calls.Wait()
	err := f.close(errHanding)
	f.mu.Lock()
	defer f.mu.Unlock()
	return &Handed{Computes: f.handed}, err
}

// handLife leaves an active compute to the next fleet and ends the life. false:
// it is stopping, or cannot go on without us, and must be stopped.
//
//  1. The mount answers what it has and stops reading.
//  2. The volume is closed: everything is durable.
//  3. Postgres is watched no more.
//
// The process's death after any step is a crash of the compute: the mount dies
// with it, and Postgres recovers from its WAL. So is a step that fails.
func (f runner) handLife(ctx context.Context, l *life, e *engine) bool {
	began := time.Now()
	f.mu.Lock()
	c := HandedCompute{Spec: l.spec, Status: l.status}
	f.mu.Unlock()
	if c.Status.State != tarn.ComputeActive || e.replica { // nothing is lost with a replica
		return false
	}
	ctx = context.WithoutCancel(ctx)
	release, err := f.holds.take(ctx, string(e.timeline))
	if err != nil {
		return false
	}
	defer release()
	c.Directory, err = e.handOver(ctx)
	if tarn.KindOf(err) == tarn.KindConflict {
		f.log.Warn("compute not handed over", "endpoint", l.spec.Endpoint, "timeline", string(e.timeline), "err", err)
		return false
	}
	f.mu.Lock()
	l.move(tarn.ComputeStopping, "")
	l.engine = nil
	if err == nil {
		f.handed = append(f.handed, c)
	}
	f.mu.Unlock()
	if err != nil {
		f.log.Error("compute not handed over", "endpoint", l.spec.Endpoint, "timeline", string(e.timeline), "err", errors.Join(err, e.wreck(ctx)))
	} else {
		f.log.Info("compute handed over", "endpoint", l.spec.Endpoint, "timeline", string(e.timeline), "pid", c.Status.PID, "took", time.Since(began))
	}
	f.end(l, tarn.ComputeStopped, errHanding.Error(), errClosing)
	return true
}

// handOver leaves the engine to the next one. KindConflict: it cannot be left,
// and nothing has happened.
func (e *engine) handOver(ctx context.Context) (json.RawMessage, error) {
	limit, cancel := context.WithTimeout(ctx, cleanPatience)
	defer cancel()
	h, err := e.mount.HandOver(limit)
	if err != nil {
		return nil, err
	}
	e.stopCopying()
	if err := e.volume.Close(); err != nil {
		return nil, tarn.Unavailable("%w", err)
	}
	e.server.Release()
	return h, nil
}

// resumeLife takes a compute over that was handed over, or starts it anew.
func (f runner) resumeLife(ctx context.Context, l *life) (*engine, error) {
	c := l.handed
	l.handed = nil
	// Also when it is to end at once: it is ended as a compute that runs.
	running := context.WithoutCancel(ctx)
	var e *engine
	release, err := f.holds.take(running, string(c.Spec.Timeline))
	if err == nil {
		e, err = f.adopt(running, c)
		release()
	}
	if err != nil {
		f.log.Error("compute not taken over, starting it again", "endpoint", c.Spec.Endpoint, "timeline", string(c.Spec.Timeline), "err", err)
		return f.startLife(ctx, l)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	e.set = c.Spec.Settings
	e.ice.thaw = func(ctx context.Context) error { return f.awaken(ctx, l) }
	l.size.resume(e, c.Status)
	l.activate(e, c.Status.StartTime, c.Status.LastActive)
	return e, nil
}

// adopt opens the volume of a compute that was handed over, goes on serving its
// directory and watches its Postgres again. When it cannot, nothing of it is
// left. The caller holds the timeline.
func (m *machine) adopt(ctx context.Context, c *HandedCompute) (*engine, error) {
	began := time.Now()
	e := m.newEngine(c.Spec.Endpoint, c.Spec.Timeline)
	var err error
	e.volume, e.mount, err = m.store.Resume(ctx, e.timeline, e.dataDir(), c.Directory, m.log)
	if err != nil {
		return nil, errors.Join(err, m.clearEngine(e.name))
	}
	in, err := m.install(c.Spec.PGVersion)
	if err == nil {
		err = e.readControl()
	}
	if err == nil {
		limit, cancel := context.WithTimeout(ctx, cleanPatience)
		defer cancel()
		e.server, err = postgres.Adopt(limit, e.config(in, nil), 0)
	}
	if err == nil {
		err = setFence(e, false) // the object store was reached just now
	}
	if err != nil {
		return nil, errors.Join(err, postgres.KillOrphans(e.dataDir(), e.pidFile()), e.wreck(ctx))
	}
	if e.group, err = m.groups.group(e.name); err != nil {
		m.log.Warn("control group not taken over", "endpoint", e.name, "err", err)
	}
	e.startCopying(ctx)
	m.log.Info("compute taken over", "endpoint", c.Spec.Endpoint, "timeline", string(e.timeline), "pid", e.server.PID(), "took", time.Since(began))
	return e, nil
}
