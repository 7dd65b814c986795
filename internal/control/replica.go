package control

import (
	"context"
	"fmt"
	"maps"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Replicas makes and removes READ_ONLY endpoints.
type Replicas struct {
	cfg     Config
	signals *signals
}

// maxReplicas is how many READ_ONLY endpoints a branch may have.
const maxReplicas = 10

// Create records a READ_ONLY endpoint of a branch. f may change what it
// begins with, the project's defaults; it may be called more than once.
func (c *Replicas) Create(ctx context.Context, n tarn.EndpointName, f func(*tarn.Endpoint) error) (tarn.Operation, error) {
	var op tarn.Operation
	err := c.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		p, err := controldb.LockProject(ctx, tx, n.Parent().Parent())
		if err != nil {
			return err
		}
		b, err := controldb.LockBranch(ctx, tx, n.Parent())
		if err != nil {
			return err
		}
		if b.State == tarn.BranchDeleted {
			return tarn.Conflict("branch %q is being deleted", b.Name.Branch)
		}
		all, err := controldb.ListEndpoints(ctx, tx, n.Parent(), "", maxReplicas+2)
		if err != nil {
			return err
		}
		if len(all) > maxReplicas {
			return tarn.Conflict("branch %q has %d replicas, which is the most", b.Name.Branch, maxReplicas)
		}
		e := tarn.Endpoint{EndpointSpec: p.Endpoint, UID: newUID("ep-")}
		e.Name, e.Type, e.Settings = n, tarn.ReadOnly, maps.Clone(p.Endpoint.Settings)
		if err := f(&e); err != nil {
			return err
		}
		fillEndpoint(&e.EndpointSpec)
		if e.Name != n || e.Type != tarn.ReadOnly {
			return tarn.Invalid("an endpoint's id and type cannot change")
		}
		if err := checkEndpoint(e.EndpointSpec); err != nil {
			return err
		}
		if e.Host, err = takeAddress(ctx, tx); err != nil {
			return err
		}
		if _, err := controldb.InsertEndpoint(ctx, tx, e); err != nil {
			return err
		}
		op, err = insertOperation(ctx, tx, "create", n.String())
		return err
	})
	if err != nil {
		return tarn.Operation{}, fmt.Errorf("create endpoint %s: %w", n, err)
	}
	c.signals.recorded()
	return op, nil
}

// Delete removes a READ_ONLY endpoint; a READ_WRITE one goes with its
// branch only (KindConflict). Until it is gone nothing wakes it.
func (c *Replicas) Delete(ctx context.Context, n tarn.EndpointName) (tarn.Operation, error) {
	var op tarn.Operation
	err := c.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		e, err := controldb.LockEndpoint(ctx, tx, n)
		if err != nil {
			return err
		}
		if e.Type != tarn.ReadOnly {
			return tarn.Conflict("it belongs to its branch and goes with it").WithHint("Delete the branch, or disable the endpoint.")
		}
		e.Disabled = true
		if err := controldb.UpdateEndpoint(ctx, tx, e); err != nil {
			return err
		}
		op, err = insertOperation(ctx, tx, "delete", n.String())
		return err
	})
	if err != nil {
		return tarn.Operation{}, fmt.Errorf("delete endpoint %s: %w", n, err)
	}
	c.signals.recorded()
	return op, nil
}
