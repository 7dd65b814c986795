package client

import (
	"context"

	"github.com/tarndb/tarn/internal/api/wire"
)

// GatewaySessions is every open session of the Postgres gateway.
type GatewaySessions = wire.GatewaySessions

// Connections lists the open sessions of the Postgres gateway.
func Connections(ctx context.Context, c *Client) (GatewaySessions, error) {
	var s GatewaySessions
	err := c.get(ctx, mine+"connections", nil, &s)
	return s, err
}
