package api

import (
	"context"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

// computeDoor answers …/endpoints/{endpoint}/compute-instances. An endpoint has
// one compute, whose id is the endpoint's uid.
type computeDoor struct{ control *control.Control }

func (d *computeDoor) read(ctx context.Context, q *query) (wire.ComputeInstance, error) {
	n, err := q.endpoint()
	if err != nil {
		return wire.ComputeInstance{}, err
	}
	e, err := d.control.GetEndpoint(ctx, n)
	if err != nil {
		return wire.ComputeInstance{}, err
	}
	st, err := d.control.Published.ComputeOf(ctx, e)
	if err != nil {
		return wire.ComputeInstance{}, err
	}
	out := wire.ComputeInstance{
		Name: n.String() + "/compute-instances/" + e.UID, ComputeInstanceID: e.UID, ComputeHost: e.Address(),
		CurrentState: string(tarn.EndpointIdle), Role: "READ_WRITE", StartTime: wire.Time(st.StartTime),
	}
	if e.Type == tarn.ReadOnly {
		out.Role = "READ_ONLY"
	}
	switch st.State {
	case tarn.ComputeActive, tarn.ComputeFrozen:
		out.CurrentState = string(tarn.EndpointActive)
	case tarn.ComputeStarting:
		out.CurrentState, out.PendingState = string(tarn.EndpointInit), string(tarn.EndpointActive)
	case tarn.ComputeStopping:
		out.PendingState = string(tarn.EndpointIdle)
	}
	return out, nil
}

func (d *computeDoor) list(ctx context.Context, q *query) (any, error) {
	if _, err := q.page("page_size"); err != nil {
		return nil, err
	}
	one, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	return wire.ListComputeInstances{ComputeInstances: []wire.ComputeInstance{one}}, nil
}

func (d *computeDoor) get(ctx context.Context, q *query) (any, error) {
	one, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	if id := q.r.PathValue("instance"); id != one.ComputeInstanceID {
		return nil, tarn.NotFound("no compute of it is called %q", id)
	}
	return one, nil
}
