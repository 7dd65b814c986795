package control

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// fleet is the node's computes as last seen.
type fleet struct {
	node Computes

	mu   sync.Mutex // guards what follows; not held while the node is asked
	seen []tarn.ComputeStatus
	at   time.Time // when seen was asked for
}

const (
	fleetAge  = time.Second     // how old what was seen may be
	fleetWait = 2 * time.Second // how long a listing waits for a node that does not answer
)

// computes lists the computes as seen at most fleetAge ago.
func (f *fleet) computes(ctx context.Context) ([]tarn.ComputeStatus, error) {
	f.mu.Lock()
	seen, at := f.seen, f.at
	f.mu.Unlock()
	if time.Since(at) < fleetAge {
		return seen, nil
	}
	return f.look(ctx)
}

// look lists the computes as they are now.
func (f *fleet) look(ctx context.Context) ([]tarn.ComputeStatus, error) {
	at := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, fleetWait, tarn.Unavailable("the node did not answer within %s", fleetWait))
	defer cancel()
	now, err := f.node.Computes(ctx)
	if err != nil {
		return nil, fmt.Errorf("list computes: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if at.After(f.at) {
		f.seen, f.at = now, at
	}
	return now, nil
}

// wake starts a compute and has it seen at once.
func (f *fleet) wake(ctx context.Context, s tarn.ComputeSpec) (tarn.ComputeStatus, error) {
	st, err := f.node.Wake(ctx, s)
	if err != nil {
		f.forget()
		return tarn.ComputeStatus{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// The list may be in a reader's hands: replace it, don't change it.
	i := slices.IndexFunc(f.seen, func(c tarn.ComputeStatus) bool { return c.Endpoint == st.Endpoint })
	switch {
	case i < 0:
		f.seen = append(slices.Clip(f.seen), st)
	case f.seen[i].State != st.State || f.seen[i].PID != st.PID:
		f.seen = slices.Clone(f.seen)
		f.seen[i] = st
	}
	return st, nil
}

func (f *fleet) suspend(ctx context.Context, endpoint string) error {
	defer f.forget()
	return f.node.Suspend(ctx, endpoint)
}

// forget has the next reader look for itself.
func (f *fleet) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = time.Time{}
}

// Fleet lists the node's computes as observed, without waking any.
func (c *Control) Fleet(ctx context.Context) ([]tarn.ComputeStatus, error) {
	return c.fleet.computes(ctx)
}

// ComputeOf reports the branch's read-write compute without waking it.
func (c *Control) ComputeOf(ctx context.Context, b tarn.BranchName) (tarn.ComputeStatus, error) {
	e, err := controldb.GetReadWriteEndpoint(ctx, c.cfg.DB, b)
	if err != nil {
		return tarn.ComputeStatus{}, err
	}
	all, err := c.fleet.computes(ctx)
	if err != nil {
		return tarn.ComputeStatus{}, err
	}
	for _, st := range all {
		if st.Endpoint == e.UID {
			return st, nil
		}
	}
	return tarn.ComputeStatus{Endpoint: e.UID, Branch: b, State: tarn.ComputeStopped}, nil
}

// stateOf publishes a compute's state as its endpoint's.
func stateOf(s tarn.ComputeState) tarn.EndpointState {
	switch s {
	case tarn.ComputeStarting:
		return tarn.EndpointInit
	case tarn.ComputeActive, tarn.ComputeStopping:
		return tarn.EndpointActive
	case tarn.ComputeFailed:
		return tarn.EndpointDegraded
	}
	return tarn.EndpointIdle
}

// observe fills in what is seen of endpoints and not recorded. While the node
// does not answer they are DEGRADED: nothing can keep them running.
func observe(ctx context.Context, cfg Config, f *fleet, es []tarn.Endpoint) {
	all, err := f.computes(ctx)
	if err != nil {
		cfg.Log.Warn("node not observed", "err", err)
	}
	computes := make(map[string]tarn.ComputeStatus, len(all))
	for _, st := range all {
		computes[st.Endpoint] = st
	}
	for i := range es {
		e := &es[i]
		e.Port, e.Domain = cfg.Port, cfg.Domain
		st := computes[e.UID]
		e.State = stateOf(st.State)
		if err != nil {
			e.State = tarn.EndpointDegraded
		}
		if st.LastActive.After(e.LastActive) {
			e.LastActive = st.LastActive
		}
	}
}
