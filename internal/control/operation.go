package control

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

func insertOperation(ctx context.Context, tx *controldb.Tx, verb, target string) (tarn.Operation, error) {
	return controldb.InsertOperation(ctx, tx, tarn.Operation{
		Name: target + "/operations/" + uuid.NewString(), Verb: verb, Target: target,
	})
}

// insertDeletion records a deletion, or finds the one that is being worked on.
func insertDeletion(ctx context.Context, tx *controldb.Tx, target string) (tarn.Operation, error) {
	op, err := controldb.GetOpenOperation(ctx, tx, "delete", target)
	if tarn.KindOf(err) == tarn.KindNotFound {
		return insertOperation(ctx, tx, "delete", target)
	}
	return op, err
}

// GetOperation reads an operation.
func (c *Control) GetOperation(ctx context.Context, name string) (tarn.Operation, error) {
	return controldb.GetOperation(ctx, c.cfg.DB, name)
}

// lookAgain is how often who waits reads an operation that another process may
// have finished.
const lookAgain = time.Second

// WaitOperation blocks until done or ctx ends.
func (c *Control) WaitOperation(ctx context.Context, name string) (tarn.Operation, error) {
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		finished := c.signals.finished.next()
		op, err := controldb.GetOperation(ctx, c.cfg.DB, name)
		switch {
		case err == nil && op.Done:
			return op, nil
		case ctx.Err() != nil:
			return op, context.Cause(ctx)
		case err != nil:
			return op, err
		}
		select {
		case <-finished:
		case <-again.C:
		case <-ctx.Done():
			return op, context.Cause(ctx)
		}
	}
}
