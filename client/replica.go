package client

import (
	"context"
	"net/http"

	"github.com/tarndb/tarn"
)

// ReadEndpoint reads one endpoint.
func ReadEndpoint(ctx context.Context, c *Client, n tarn.EndpointName) (Endpoint, error) {
	var e Endpoint
	err := c.get(ctx, pg+n.String(), nil, &e)
	return e, err
}

// CreateReplica begins a READ_ONLY endpoint of a branch.
func CreateReplica(ctx context.Context, c *Client, n tarn.EndpointName, s EndpointSpec) (Operation, error) {
	var op Operation
	err := c.do(ctx, http.MethodPost, pg+n.Parent().String()+"/endpoints", query("endpoint_id", n.Endpoint), Endpoint{Spec: &s}, &op)
	return op, err
}

// DeleteReplica deletes a READ_ONLY endpoint.
func DeleteReplica(ctx context.Context, c *Client, n tarn.EndpointName) (Operation, error) {
	var op Operation
	err := c.do(ctx, http.MethodDelete, pg+n.String(), nil, nil, &op)
	return op, err
}
