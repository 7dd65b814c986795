package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
)

// connectFunc opens a connection through the gateway, as any application would.
type connectFunc func(ctx context.Context) (*pgx.Conn, error)

// bookingChange is one row the app changed: before is nil for an insert, after
// is nil for a delete.
type bookingChange struct {
	id            int64
	before, after *booking
}

type booking struct {
	id, flight, txNo int64
	seats            int32
	origin, dest     string
}

// bookingTx is one committed transaction of the app. No is its place in commit
// order: every transaction takes it from a counter row whose lock it holds
// until it commits.
type bookingTx struct {
	no, xid int64
	changes []bookingChange
}

// ledger is what the app knows it committed: the truth that history and
// branches are checked against.
type ledger struct {
	// mu guards the fields below; never held across a query.
	mu       sync.Mutex
	txs      []bookingTx
	before   map[int64]booking // what earlier runs left, by booking id
	startLSN tarn.LSN          // nothing the app did stands before it
	endLSN   tarn.LSN          // nothing the app did stands after it
}

const bookingTables = `
CREATE TABLE IF NOT EXISTS public.bookings (
	booking_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	flight_id   bigint NOT NULL,
	origin      text NOT NULL,
	destination text NOT NULL,
	seats       integer NOT NULL CHECK (seats > 0),
	tx_no       bigint NOT NULL,
	changed_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE IF NOT EXISTS public.booking_counter (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	tx_no    bigint NOT NULL
);
INSERT INTO public.booking_counter (tx_no) VALUES (0) ON CONFLICT DO NOTHING;`

const (
	bookers       = 4 // concurrent connections
	bookingTxs    = 200
	changeTxs     = 100
	cancelTxs     = 60
	maxSeats      = 6
	rollbackEvery = 10
)

// makeBookings runs the first half of the app: bookings, and changes of them.
func (l *ledger) makeBookings(ctx context.Context, connect connectFunc, flightCount int) error {
	if err := l.onOneConnection(ctx, connect, func(c *pgx.Conn) error {
		if err := l.load(ctx, c); err != nil {
			return err
		}
		return c.QueryRow(ctx, "SELECT pg_current_wal_lsn()::text").Scan(lsnText{&l.startLSN})
	}); err != nil {
		return fmt.Errorf("read bookings: %w", err)
	}
	if err := l.concurrently(ctx, connect, bookingTxs, func(ctx context.Context, tx pgx.Tx, no int64, r *rand.Rand) ([]bookingChange, error) {
		return book(ctx, tx, no, r, flightCount)
	}); err != nil {
		return fmt.Errorf("make bookings: %w", err)
	}
	if err := l.concurrently(ctx, connect, changeTxs, l.change); err != nil {
		return fmt.Errorf("change bookings: %w", err)
	}
	return nil
}

// cancelBookings runs the second half.
func (l *ledger) cancelBookings(ctx context.Context, connect connectFunc) error {
	if err := l.concurrently(ctx, connect, cancelTxs, l.cancel); err != nil {
		return fmt.Errorf("cancel bookings: %w", err)
	}
	return l.onOneConnection(ctx, connect, func(c *pgx.Conn) error {
		return c.QueryRow(ctx, "SELECT pg_current_wal_lsn()::text").Scan(lsnText{&l.endLSN})
	})
}

// lsnText scans Postgres's text form of an LSN.
type lsnText struct{ to *tarn.LSN }

func (t lsnText) ScanText(v string) (err error) {
	*t.to, err = tarn.ParseLSN(v)
	return err
}

// Scan implements sql.Scanner, which pgx uses for text columns.
func (t lsnText) Scan(src any) error {
	s, ok := src.(string)
	if !ok {
		return fmt.Errorf("LSN arrived as %T", src)
	}
	return t.ScanText(s)
}

func (l *ledger) onOneConnection(ctx context.Context, connect connectFunc, f func(*pgx.Conn) error) error {
	c, err := connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	return f(c)
}

// load reads the bookings an earlier run left.
func (l *ledger) load(ctx context.Context, c *pgx.Conn) error {
	rows, err := readBookings(ctx, c)
	if err != nil {
		return err
	}
	l.before = rows
	return nil
}

const selectBookings = "SELECT booking_id, flight_id, tx_no, seats, origin, destination FROM public.bookings"

func readBookings(ctx context.Context, c *pgx.Conn) (map[int64]booking, error) {
	rows, err := c.Query(ctx, selectBookings)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (b booking, err error) {
		err = r.Scan(&b.id, &b.flight, &b.txNo, &b.seats, &b.origin, &b.dest)
		return b, err
	})
	m := make(map[int64]booking, len(list))
	for _, b := range list {
		m[b.id] = b
	}
	return m, err
}

type work func(ctx context.Context, tx pgx.Tx, no int64, r *rand.Rand) ([]bookingChange, error)

// errTakeBack makes a transaction roll back on purpose.
var errTakeBack = errors.New("rolled back on purpose")

// concurrently runs n transactions of w on several connections, and takes some
// back, whose changes must be seen nowhere.
func (l *ledger) concurrently(ctx context.Context, connect connectFunc, n int, w work) error {
	g, ctx := errgroup.WithContext(ctx)
	for k := range bookers {
		g.Go(func() error {
			r := rand.New(rand.NewPCG(uint64(k), uint64(n)))
			return l.onOneConnection(ctx, connect, func(c *pgx.Conn) error {
				for i := k; i < n; i += bookers {
					if err := l.transact(ctx, c, w, r, (i+1)%rollbackEvery == 0); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	return g.Wait()
}

func (l *ledger) transact(ctx context.Context, c *pgx.Conn, w work, r *rand.Rand, takeBack bool) error {
	var t bookingTx
	err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, "UPDATE public.booking_counter SET tx_no = tx_no + 1 RETURNING tx_no, pg_current_xact_id()::text::bigint").Scan(&t.no, &t.xid); err != nil {
			return err
		}
		changes, err := w(ctx, tx, t.no, r)
		if err != nil {
			return err
		}
		t.changes = changes
		if takeBack {
			return errTakeBack
		}
		return nil
	})
	if errors.Is(err, errTakeBack) {
		return nil
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.txs = append(l.txs, t)
	return nil
}

// book reserves seats on one to four flights of the synced table.
func book(ctx context.Context, tx pgx.Tx, no int64, r *rand.Rand, flightCount int) ([]bookingChange, error) {
	var changes []bookingChange
	for range 1 + r.IntN(4) {
		b := booking{flight: 1 + r.Int64N(int64(flightCount)), seats: 1 + r.Int32N(maxSeats), txNo: no}
		err := tx.QueryRow(ctx, `
INSERT INTO public.bookings (flight_id, origin, destination, seats, tx_no)
SELECT f.flight_id, o.iata, d.iata, $2, $3
FROM aviation.flights f
JOIN aviation.airports o ON o.iata = f.origin
JOIN aviation.airports d ON d.iata = f.destination
WHERE f.flight_id = $1
RETURNING booking_id, origin, destination`, b.flight, b.seats, no).Scan(&b.id, &b.origin, &b.dest)
		if err != nil {
			return nil, fmt.Errorf("book flight %d: %w", b.flight, err)
		}
		changes = append(changes, bookingChange{id: b.id, after: &b})
	}
	return changes, nil
}

// change gives one booking another number of seats.
func (l *ledger) change(ctx context.Context, tx pgx.Tx, no int64, r *rand.Rand) ([]bookingChange, error) {
	before, ok, err := lockAny(ctx, tx, r)
	if err != nil || !ok {
		return nil, err
	}
	after := before
	after.seats, after.txNo = before.seats%maxSeats+1, no
	_, err = tx.Exec(ctx, "UPDATE public.bookings SET seats = $2, tx_no = $3, changed_at = clock_timestamp() WHERE booking_id = $1", after.id, after.seats, no)
	return []bookingChange{{id: before.id, before: &before, after: &after}}, err
}

// cancel deletes one booking.
func (l *ledger) cancel(ctx context.Context, tx pgx.Tx, _ int64, r *rand.Rand) ([]bookingChange, error) {
	before, ok, err := lockAny(ctx, tx, r)
	if err != nil || !ok {
		return nil, err
	}
	_, err = tx.Exec(ctx, "DELETE FROM public.bookings WHERE booking_id = $1", before.id)
	return []bookingChange{{id: before.id, before: &before}}, err
}

// lockAny picks a booking and locks it; ok is false when there is none.
func lockAny(ctx context.Context, tx pgx.Tx, r *rand.Rand) (b booking, ok bool, err error) {
	err = tx.QueryRow(ctx, selectBookings+`
WHERE booking_id >= (SELECT min(booking_id) + floor($1 * (max(booking_id) - min(booking_id) + 1))::bigint FROM public.bookings)
ORDER BY booking_id LIMIT 1 FOR UPDATE`, r.Float64()).Scan(&b.id, &b.flight, &b.txNo, &b.seats, &b.origin, &b.dest)
	if errors.Is(err, pgx.ErrNoRows) {
		return b, false, nil
	}
	return b, err == nil, err
}

// inOrder gives the committed transactions in commit order.
func (l *ledger) inOrder() []bookingTx {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.SortedFunc(slices.Values(l.txs), func(a, b bookingTx) int { return int(a.no - b.no) })
}

// bookings replays what was committed so far, in commit order.
func (l *ledger) bookings() map[int64]booking {
	m := maps.Clone(l.before)
	for _, t := range l.inOrder() {
		for _, ch := range t.changes {
			delete(m, ch.id)
			if ch.after != nil {
				m[ch.id] = *ch.after
			}
		}
	}
	return m
}

func sameBookings(got, want map[int64]booking) error {
	for id, w := range want {
		if g, ok := got[id]; !ok {
			return fmt.Errorf("booking %d is missing", id)
		} else if g != w {
			return fmt.Errorf("booking %d is %+v, committed was %+v", id, g, w)
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d bookings, committed were %d", len(got), len(want))
	}
	return nil
}

// serverNow is the database's clock: a time to branch from.
func serverNow(ctx context.Context, c *pgx.Conn) (t time.Time, err error) {
	err = c.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&t)
	return t, err
}
