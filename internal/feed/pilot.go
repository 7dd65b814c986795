package feed

import (
	"context"
	"fmt"

	"github.com/tarndb/tarn"
)

// While a logical slot is made, Postgres (15 to 18) does not see what
// transactions do to its catalogs that began before it can decode (its
// snapbuild.c: state FULL_SNAPSHOT) and ended after. What others then write to
// such a table is decoded with the catalogs of before, until somebody changes
// them again: after a TRUNCATE it cannot be decoded at all ("could not map
// filenumber"), after an ADD COLUMN the column is missing and nobody is told.
//
// A slot that is consistent already sees all that, and leaves what it knows
// where a new one begins to decode. So each slot has a pilot, a temporary slot:
//
//  1. the pilot is made, and with it everything that began before it has ended
//  2. the slot is made
//  3. the pilot is moved over the slot's beginning   Postgres writes
//     pg_logical/snapshots/<LSN>.snap there, with which the slot's decoding starts
//
// The rejected alternative, locks that keep tables from being truncated, ends
// in a circle of waiting that Postgres does not see: the slot waits for the
// transaction that waits for the lock.

const (
	slotPointSQL = `SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1`
	advanceSQL   = `SELECT pg_replication_slot_advance($1, $2::text::pg_lsn)`
)

// makeSlot makes the feed's slot and exports the snapshot of its start on
// s.repl. A crash before the end leaves a slot under which no table is copied:
// openSlot makes another one.
func makeSlot(ctx context.Context, s *session) (exported, error) {
	if s.k.bare {
		return s.repl.createSlot(ctx, s.slot, durableSlot)
	}
	pilot, err := s.replicate(ctx)
	if err != nil {
		return exported{}, err
	}
	defer closeConn(pilot.conn) // ends it
	name := fmt.Sprintf("tarn_pilot_%d", pilot.conn.PgConn().PID())
	if _, err := pilot.createSlot(ctx, name, temporarySlot); err != nil {
		return exported{}, err
	}
	ex, err := s.repl.createSlot(ctx, s.slot, durableSlot)
	if err != nil {
		return exported{}, err
	}
	var text string
	if err := s.src.conn.QueryRow(ctx, slotPointSQL, s.slot).Scan(&text); err != nil {
		return exported{}, fmt.Errorf("look for slot %s: %w", s.slot, err)
	}
	if _, err := tarn.ParseLSN(text); err != nil {
		return exported{}, fmt.Errorf("slot %s: %w", s.slot, err)
	}
	if _, err := pilot.conn.Exec(ctx, advanceSQL, name, text); err != nil {
		return exported{}, fmt.Errorf("move slot %s to %s: %w", name, text, err)
	}
	return ex, nil
}
