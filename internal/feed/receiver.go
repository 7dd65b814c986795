package feed

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/tarndb/tarn"
)

// receiver reads the stream in one goroutine and answers the server in
// another, so that a slow Delta commit never looks like a dead client. What is
// acknowledged is only ever what confirm said.
type receiver struct {
	repl    *replication
	events  chan event
	flushed atomic.Uint64 // LSN
	answer  chan struct{} // a status is wanted now
	room    *semaphore.Weighted
}

// Events that wait are bounded by number and by bytes: rows may be large.
const (
	eventsAhead = 256
	bytesAhead  = 32 << 20
)

// weight is what an event takes of bytesAhead.
func weight(e event) int64 { return min(int64(len(e.payload)), bytesAhead) }

// statusEvery is well below wal_sender_timeout (60 s) and keeps the WAL that
// Postgres must hold short.
const statusEvery = 5 * time.Second

func newReceiver(r *replication) *receiver {
	return &receiver{repl: r, events: make(chan event, eventsAhead), answer: make(chan struct{}, 1),
		room: semaphore.NewWeighted(bytesAhead)}
}

// taken gives back the room of an event that came out of events.
func (r *receiver) taken(e event) { r.room.Release(weight(e)) }

// confirm says that everything up to lsn is in Delta and tells the server.
func (r *receiver) confirm(lsn tarn.LSN) {
	if uint64(lsn) > r.flushed.Load() {
		r.flushed.Store(uint64(lsn))
	}
	select {
	case r.answer <- struct{}{}:
	default:
	}
}

// run reads until ctx ends or the stream does, and closes events.
func (r *receiver) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	// Reads take no context: pgconn would set a deadline on the connection
	// per read, under the writer's feet. The end of ctx sets one for both.
	stop := context.AfterFunc(ctx, func() { r.repl.conn.PgConn().Conn().SetDeadline(time.Unix(1, 0)) })
	defer stop()
	g.Go(func() error {
		defer close(r.events)
		for {
			e, err := r.repl.next(context.Background())
			if err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				return err
			}
			if err := r.room.Acquire(ctx, weight(e)); err != nil {
				return context.Cause(ctx)
			}
			select {
			case r.events <- e:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
	g.Go(func() error {
		tick := time.NewTicker(statusEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-r.answer:
			case <-tick.C:
			}
			if err := r.repl.status(tarn.LSN(r.flushed.Load()), time.Now()); err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				return err
			}
		}
	})
	return g.Wait()
}
