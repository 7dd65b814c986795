package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// pace is how often a teller makes a transfer: the soak looks for wrong
// answers, not for the limit.
const pace = 8 * time.Millisecond

// tellers make transfers on one branch until they are stopped, connecting again
// after every error.
type tellers struct {
	stop func() // cancels and waits
	// acked counts acknowledged transfers.
	acked *atomic.Int64
}

// startTellers lets n of them work. url gives a connection string.
func startTellers(ctx context.Context, b *branch, l *ledger, n int, r *rand.Rand, url func(context.Context) (string, error)) *tellers {
	ctx, cancel := context.WithCancel(ctx)
	t := &tellers{acked: new(atomic.Int64)}
	var done sync.WaitGroup
	for range n {
		stream := l.open()
		b.streams = append(b.streams, stream)
		own := rand.New(rand.NewPCG(r.Uint64(), uint64(stream)))
		done.Go(func() { t.work(ctx, l, stream, own, url) })
	}
	t.stop = func() {
		cancel()
		done.Wait()
	}
	return t
}

func (t *tellers) work(ctx context.Context, l *ledger, stream int32, r *rand.Rand, url func(context.Context) (string, error)) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for ctx.Err() == nil {
		if t.session(ctx, l, stream, r, url, tick.C) != nil {
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

// session makes transfers on one connection until an error. Errors are
// expected here: what matters is whether a transfer was acknowledged.
func (t *tellers) session(ctx context.Context, l *ledger, stream int32, r *rand.Rand, url func(context.Context) (string, error), tick <-chan time.Time) error {
	to, err := url(ctx)
	if err != nil {
		return err
	}
	connecting, cancel := context.WithTimeout(ctx, 45*time.Second)
	c, err := pgx.Connect(connecting, to)
	cancel()
	if err != nil {
		return err
	}
	// The connection is broken already when there is an error to tell.
	defer func() { _ = c.Close(context.WithoutCancel(ctx)) }()
	for ctx.Err() == nil {
		k := l.begin(stream)
		// A broken compute must not hold a teller for ever.
		one, cancel := context.WithTimeout(ctx, 30*time.Second)
		err := transfer(one, c, r, k)
		cancel()
		if err != nil {
			return err
		}
		l.ack(k)
		t.acked.Add(1)
		select {
		case <-tick:
		case <-ctx.Done():
		}
	}
	return nil
}
