package api

import (
	"context"

	"github.com/tarndb/tarn/internal/api/wire"
)

// connections lists the gateway's open sessions with endpoints that who asks
// may see.
func (d *ownDoor) connections(ctx context.Context, q *query) (any, error) {
	out := wire.GatewaySessions{Connections: []wire.GatewaySession{}}
	es, err := d.control.AllEndpoints(ctx)
	if err != nil {
		return nil, err
	}
	if es, err = d.seen(ctx, q, es); err != nil {
		return nil, err
	}
	names := make(map[string]string, len(es)) // UID → name
	for _, e := range es {
		names[e.UID] = e.Name.String()
	}
	if d.sessions == nil {
		return out, nil
	}
	for _, s := range d.sessions() {
		if n := names[s.Endpoint]; n != "" {
			s.EndpointName = n
			out.Connections = append(out.Connections, s)
		}
	}
	return out, nil
}
