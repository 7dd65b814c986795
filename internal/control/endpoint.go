package control

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// GetEndpoint reads an endpoint and observes its state.
func (c *Control) GetEndpoint(ctx context.Context, n tarn.EndpointName) (tarn.Endpoint, error) {
	e, err := controldb.GetEndpoint(ctx, c.cfg.DB, n)
	if err != nil {
		return tarn.Endpoint{}, err
	}
	return Observe(ctx, c, e), nil
}

// ListEndpoints gives one page of a branch's endpoints, by id, and the next
// page's token.
func (c *Control) ListEndpoints(ctx context.Context, n tarn.BranchName, pg Page) ([]tarn.Endpoint, string, error) {
	after, size, err := pg.start()
	if err != nil {
		return nil, "", err
	}
	if _, err := controldb.GetBranch(ctx, c.cfg.DB, n); err != nil {
		return nil, "", err
	}
	rows, err := controldb.ListEndpoints(ctx, c.cfg.DB, n, after, size+1)
	if err != nil {
		return nil, "", err
	}
	rows, next := cut(rows, size, func(e tarn.Endpoint) string { return e.Name.Endpoint })
	observe(ctx, c.cfg, c.fleet, rows)
	return rows, next, nil
}

// Observe fills in what c sees of an endpoint and does not record.
func Observe(ctx context.Context, c *Control, e tarn.Endpoint) tarn.Endpoint {
	one := []tarn.Endpoint{e}
	observe(ctx, c.cfg, c.fleet, one)
	return one[0]
}

// AllEndpoints lists every endpoint of the workspace: the gateway listens on
// each one's address.
func (c *Control) AllEndpoints(ctx context.Context) ([]tarn.Endpoint, error) {
	rows, err := controldb.AllEndpoints(ctx, c.cfg.DB, "")
	if err != nil {
		return nil, err
	}
	observe(ctx, c.cfg, c.fleet, rows)
	return rows, nil
}

// EndpointsChanged is closed when what AllEndpoints lists may have changed; ask
// for it before the list, and again after.
func (c *Control) EndpointsChanged() <-chan struct{} { return c.signals.addresses.next() }

// UpdateEndpoint applies f to the recorded endpoint under a row lock and saves
// its limits, its settings and whether it is disabled. f may be called more
// than once and must change nothing else. A running compute takes a new
// suspend time at once, size and settings when it starts next.
func (c *Control) UpdateEndpoint(ctx context.Context, n tarn.EndpointName, f func(*tarn.Endpoint) error) (tarn.Operation, error) {
	var op tarn.Operation
	err := c.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		old, err := controldb.LockEndpoint(ctx, tx, n)
		if err != nil {
			return err
		}
		e := old
		e.Port, e.Settings = c.cfg.Port, maps.Clone(old.Settings)
		if err := f(&e); err != nil {
			return err
		}
		fillEndpoint(&e.EndpointSpec)
		if e.Name != old.Name || e.Type != old.Type || e.UID != old.UID || e.Host != old.Host || e.Port != c.cfg.Port {
			return tarn.Invalid("an endpoint's id, type, uid and address cannot change")
		}
		if err := checkEndpoint(e.EndpointSpec); err != nil {
			return err
		}
		if err := controldb.UpdateEndpoint(ctx, tx, e); err != nil {
			return err
		}
		op, err = insertOperation(ctx, tx, "update", n.String())
		return err
	})
	if err != nil {
		return tarn.Operation{}, fmt.Errorf("update endpoint %s: %w", n, err)
	}
	c.signals.recorded()
	return op, nil
}

// SuspendEndpoint stops the endpoint's compute; the next connection wakes it.
func (c *Control) SuspendEndpoint(ctx context.Context, n tarn.EndpointName) error {
	e, err := controldb.GetEndpoint(ctx, c.cfg.DB, n)
	if err != nil {
		return err
	}
	return c.fleet.suspend(ctx, e.UID)
}

// WakeEndpoint returns when the compute answers; many callers share one start.
// While the branch is put on another timeline, which takes a moment, it waits.
// KindUnavailable while it cannot start, KindConflict when disabled.
func (c *Control) WakeEndpoint(ctx context.Context, n tarn.EndpointName) (tarn.ComputeStatus, error) {
	w, err := settledWakeable(ctx, c.cfg.DB, n)
	if err == nil {
		err = refuseWake(w)
	}
	if err != nil {
		return tarn.ComputeStatus{}, fmt.Errorf("wake endpoint %s: %w", n, err)
	}
	st, err := c.fleet.wake(ctx, computeSpec(w))
	if err == nil {
		c.Directory.woke(st)
	}
	return st, err
}

const (
	resetPatience = 30 * time.Second
	resetPoll     = 50 * time.Millisecond
)

// settledWakeable reads what a start needs, and reads it again for a while as
// long as the branch is RESETTING.
func settledWakeable(ctx context.Context, db *controldb.DB, n tarn.EndpointName) (controldb.Wakeable, error) {
	limit, cancel := context.WithTimeout(ctx, resetPatience)
	defer cancel()
	again := time.NewTicker(resetPoll)
	defer again.Stop()
	for {
		w, err := controldb.GetWakeable(ctx, db, n)
		if err != nil || w.State != tarn.BranchResetting {
			return w, err
		}
		select {
		case <-limit.Done():
			return w, nil
		case <-again.C:
		}
	}
}

// refuseWake says why an endpoint must not run now; nil = it may.
func refuseWake(w controldb.Wakeable) error {
	switch w.State {
	case tarn.BranchReady:
	case tarn.BranchDeleted:
		return tarn.Conflict("its branch is deleted")
	default:
		if w.Message != "" {
			return tarn.Unavailable("its branch is in state %s: %s", w.State, w.Message)
		}
		return tarn.Unavailable("its branch is in state %s", w.State)
	}
	switch {
	case w.Stopped:
		return tarn.Conflict("instance %s is stopped", w.Endpoint.Name.Project).WithHint("Start the instance, then connect again.")
	case w.Endpoint.Disabled:
		return tarn.Conflict("it is disabled").WithHint("Enable the endpoint, then connect again.")
	}
	return nil
}

func computeSpec(w controldb.Wakeable) tarn.ComputeSpec {
	e := w.Endpoint
	if e.SuspendAfter < 0 { // it is to run
		e.FreezeAfter = -1
	}
	return tarn.ComputeSpec{
		Endpoint: e.UID, Branch: e.Name.Parent(), Timeline: w.Timeline, PGVersion: w.PGVersion,
		MinCU: e.MinCU, MaxCU: e.MaxCU, SuspendAfter: e.SuspendAfter, FreezeAfter: e.FreezeAfter,
		ReadOnly: e.Type == tarn.ReadOnly, Primary: w.Primary, Settings: e.Settings,
	}
}
