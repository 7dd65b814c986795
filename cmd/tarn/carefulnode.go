package main

import (
	"context"

	"github.com/tarndb/tarn/internal/gateway"
	"github.com/tarndb/tarn/internal/node"
)

// carefulNode is the node as control speaks to it: before a compute is stopped
// the gateway asks its sessions what they need to go on with the next one.
type carefulNode struct {
	*node.Client
	gate *gateway.Server // nil until there is one, and then no session either
}

// Suspend stops a compute whose idle sessions are carried over.
func (n *carefulNode) Suspend(ctx context.Context, endpoint string) error {
	if n.gate == nil {
		return n.Client.Suspend(ctx, endpoint)
	}
	defer n.gate.Hold(ctx, endpoint)()
	return n.Client.Suspend(ctx, endpoint)
}
