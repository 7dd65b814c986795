package feed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

const (
	slotsSQL = `SELECT slot_name, coalesce(wal_status = 'lost', false), coalesce(confirmed_flush_lsn, '0/0')::text, coalesce(active_pid, 0),
	coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint
FROM pg_replication_slots WHERE NOT temporary AND starts_with(slot_name, $1) AND database = current_database() ORDER BY slot_name DESC`
	dropSlotSQL  = `SELECT pg_drop_replication_slot($1)`
	terminateSQL = `SELECT pg_terminate_backend($1, 5000)`
)

// slotState is a slot as Postgres shows it.
type slotState struct {
	name      string
	lost      bool // its WAL is gone
	confirmed tarn.LSN
	holder    int32 // process that streams from it; 0 = none
	held      int64 // bytes of WAL that it keeps Postgres from removing
}

// slots lists this feed's slots, the newest epoch first.
func (s *source) slots(ctx context.Context) ([]slotState, error) {
	rows, err := s.conn.Query(ctx, slotsSQL, s.publication+"_")
	if err != nil {
		return nil, fmt.Errorf("list slots: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (slotState, error) {
		var st slotState
		var lsn string
		if err := r.Scan(&st.name, &st.lost, &lsn, &st.holder, &st.held); err != nil {
			return st, err
		}
		st.confirmed, err = tarn.ParseLSN(lsn)
		return st, err
	})
	if err != nil {
		return nil, fmt.Errorf("list slots: %w", err)
	}
	return all, nil
}

// free ends a process that still streams from our slot: the connection of a
// keeper that was killed. There is never a second living one.
func (s *source) free(ctx context.Context, st slotState) error {
	if st.holder == 0 {
		return nil
	}
	if _, err := s.conn.Exec(ctx, terminateSQL, st.holder); err != nil {
		return fmt.Errorf("free slot %s: %w", st.name, err)
	}
	return nil
}

func (s *source) dropSlot(ctx context.Context, st slotState) error {
	if err := s.free(ctx, st); err != nil {
		return err
	}
	if _, err := s.conn.Exec(ctx, dropSlotSQL, st.name); err != nil && !isCode(err, codeUndefinedObject) {
		return fmt.Errorf("drop slot %s: %w", st.name, err)
	}
	return nil
}

// errHeldTooMuch ends a session whose slot is to be given up.
var errHeldTooMuch = errors.New("the slot holds back too much WAL")

// slotLook is how many polls lie between two looks at the slot's WAL.
const slotLook = 10

// maxWAL is what the slot may hold back.
func (f *follower) maxWAL() int64 {
	if f.row.MaxWAL > 0 {
		return f.row.MaxWAL
	}
	return tarn.DefaultFeedWAL
}

// alarmAt is the share of maxWAL, in percent, from which on the feed says so.
const alarmAt = 70

// weigh records what the slot holds back. A slot beyond the limit gives
// errHeldTooMuch: the disk of the branch is worth more than the slot, for which
// a new one and a new copy can be made.
func (f *follower) weigh(ctx context.Context, src *source) error {
	slots, err := src.slots(ctx)
	if err != nil {
		return err
	}
	var held int64
	for _, st := range slots {
		held = max(held, st.held)
	}
	if held != f.row.WALHeld {
		if err := controldb.SetFeedWAL(ctx, f.k.db, f.row.UID, held); err != nil {
			return fmt.Errorf("record the slot's WAL: %w", err)
		}
		f.row.WALHeld = held
	}
	if held > f.maxWAL() {
		return errHeldTooMuch
	}
	return nil
}

// wellMessage is what a feed that moves says: nothing, or that its slot's WAL
// comes near the limit.
func (f *follower) wellMessage() string {
	if limit := f.maxWAL(); f.row.WALHeld > limit/100*alarmAt {
		return fmt.Sprintf("its slot holds back %d MiB of WAL of at most %d: beyond that the tables are copied anew", f.row.WALHeld>>20, limit>>20)
	}
	return ""
}

// rest looks after the slot of a paused feed, whose compute it leaves asleep: a
// slot that holds back too much is dropped.
func (f *follower) rest(ctx context.Context) error {
	defer pause(ctx, f.k.poll*slotLook)
	st, err := f.k.computes.ComputeOf(ctx, f.row.Branch)
	if err != nil {
		return fmt.Errorf("look at the compute: %w", err)
	}
	if st.State != tarn.ComputeActive {
		f.say(ctx, "paused")
		return nil
	}
	f.status = st
	conn, err := f.dial(ctx, func(c *pgx.ConnConfig) { configure(c, "tarn feed "+f.row.ID) })
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer closeConn(conn)
	src := source{conn: conn, schema: f.row.PostgresSchema, publication: f.publication(), follows: f.row.Follows}
	err = f.weigh(ctx, &src)
	if errors.Is(err, errHeldTooMuch) {
		slots, err := src.slots(ctx)
		if err != nil {
			return err
		}
		for _, s := range slots {
			if err := src.dropSlot(ctx, s); err != nil {
				return err
			}
			f.log.Warn("drop slot of a paused feed", "lsn", s.confirmed, "bytes", s.held)
		}
		f.say(ctx, "paused; its slot held back too much WAL and was given up: when it goes on, the tables are copied anew")
		return nil
	}
	if err == nil && f.message == "" {
		f.say(ctx, "paused")
	}
	return err
}

// weighEvery calls weigh at every slotLook-th call.
func (s *session) weighEvery(ctx context.Context) error {
	if time.Since(s.weighed) < s.k.poll*slotLook {
		return nil
	}
	s.weighed = time.Now()
	if err := s.weigh(ctx, &s.src); err != nil {
		return err
	}
	s.say(ctx, s.wellMessage())
	return nil
}
