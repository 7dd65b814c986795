package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

const (
	workers     = 4
	idleTime    = 500 * time.Millisecond // how often a worker looks by itself
	attemptTime = 5 * time.Minute        // for one attempt
	forkTime    = time.Hour              // for one that makes a timeline: it may replay much WAL
	giveUpAfter = 10 * time.Minute       // since it was asked, while it meets KindUnavailable
)

// Run works until ctx ends: it performs operations, also those that an earlier
// process left undone, and keeps the fleet to what is recorded.
func (c *Control) Run(ctx context.Context) error {
	var g errgroup.Group
	for range workers {
		w := worker{cfg: c.cfg, fleet: c.fleet, signals: c.signals}
		g.Go(func() error { w.run(ctx); return nil })
	}
	g.Go(func() error { (&sweeper{c: c}).run(ctx); return nil })
	g.Go(func() error { c.Directory.run(ctx); return nil })
	return g.Wait()
}

func (w worker) run(ctx context.Context) {
	tick := time.NewTicker(idleTime)
	defer tick.Stop()
	for ctx.Err() == nil {
		asked := w.signals.asked.next()
		worked, err := w.workOne(ctx)
		if err != nil && ctx.Err() == nil {
			w.cfg.Log.Error("operation interrupted", "err", err)
		}
		if worked {
			continue
		}
		select {
		case <-asked:
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// workOne performs one operation, if one is waiting:
//
//  1. Claim it by a lock on its row. A crash lets go of the lock and leaves the
//     operation as it was; every step below may be done again.
//  2. Do it, with the lock held.
//  3. Record, in the transaction that holds the lock, the last change of the
//     rows together with the operation's end. So a deletion that is performed
//     again can never meet a newer thing of the same name.
//
// It is done, or to be tried again later, or recorded as ended without success.
func (w worker) workOne(ctx context.Context) (worked bool, err error) {
	err = w.cfg.DB.InTx(ctx, func(tx *controldb.Tx) error {
		op, attempt, ok, err := controldb.ClaimOperation(ctx, tx)
		if err != nil || !ok {
			return err
		}
		worked = true
		return w.perform(ctx, tx, op, attempt)
	})
	if worked && err == nil {
		w.signals.performed()
	}
	return worked && err == nil, err
}

// later is an operation that waits for something other than an error.
type later struct {
	after time.Duration
	err   error // what it waits for
}

func (e later) Error() string { return e.err.Error() }
func (e later) Unwrap() error { return e.err }

func (w worker) perform(ctx context.Context, tx *controldb.Tx, op tarn.Operation, attempt int) error {
	start := time.Now()
	longest := attemptTime
	if op.Verb == "create" || op.Verb == "restore" || op.Verb == "reset" {
		longest = forkTime
	}
	limit, cancel := context.WithTimeoutCause(ctx, longest, tarn.Unavailable("no end within %s", longest))
	defer cancel()
	finish, err := w.do(limit, op)
	log := w.cfg.Log.With("path", op.Name, "took", time.Since(start))
	var wait later
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx) // the next process goes on
	case err == nil:
		if finish != nil {
			if err := finish(tx); err != nil {
				return err
			}
		}
		log.Info(op.Verb + " done")
		return controldb.FinishOperation(ctx, tx, op.Name, 0, "")
	case errors.As(err, &wait):
		return controldb.DeferOperation(ctx, tx, op.Name, wait.after)
	case passes(limit, err) && time.Since(op.CreateTime) < giveUpAfter:
		log.Warn(op.Verb+" put off", "err", err)
		return controldb.DeferOperation(ctx, tx, op.Name, backoff(attempt))
	}
	log.Warn(op.Verb+" failed", "err", err)
	if rerr := w.recover(ctx, tx, op, err); rerr != nil {
		return rerr
	}
	return controldb.FinishOperation(ctx, tx, op.Name, tarn.KindOf(err), err.Error())
}

// passes says whether trying again may help.
func passes(limit context.Context, err error) bool {
	return tarn.KindOf(err) == tarn.KindUnavailable || limit.Err() != nil
}

func backoff(attempt int) time.Duration {
	const first, most = 250 * time.Millisecond, 10 * time.Second
	return min(first<<min(attempt, 10), most)
}

// explain records on the branch why what was asked of it did not happen.
func explain(ctx context.Context, tx *controldb.Tx, op tarn.Operation, why error) error {
	if op.Verb == "update" {
		return nil
	}
	n, err := tarn.ParseBranchName(op.Target)
	if p, perr := tarn.ParseProjectName(op.Target); perr == nil {
		n, err = p.Branch(tarn.DefaultBranch), nil
	}
	if err != nil {
		return err
	}
	return controldb.SetBranchMessage(ctx, tx, n, fmt.Sprintf("%s: %v", op.Verb, why))
}
