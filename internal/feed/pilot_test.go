package feed_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

const changingSchema = `CREATE SCHEMA s; CREATE TABLE s.other (id int); CREATE TABLE s.wider (id int); CREATE TABLE s.emptied (id int);
INSERT INTO s.emptied VALUES (0); INSERT INTO s.other VALUES (0)`

// changeWhileSlotIsMade runs a change in the step-th of the transactions that
// the feed waits for, one after the other, while it makes its slot. There are
// two of them for the pilot and two for the slot; what changes in the first of
// two is what decoding would not see.
func (w *world) changeWhileSlotIsMade(step int, change string) (slot string) {
	w.t.Helper()
	begin := func(sql string) *pgx.Conn {
		c := w.connect()
		_, err := c.Exec(w.t.Context(), `BEGIN; SELECT pg_current_xact_id(); `+sql)
		check(w.t, err)
		return c
	}
	commit := func(c *pgx.Conn) {
		_, err := c.Exec(context.Background(), `COMMIT`)
		check(w.t, err)
	}
	waits := func(open *pgx.Conn) (yes bool) {
		eventually(w.t, "the feed waits for a transaction, or has its slot", func() any { return w.feed("s") }, func() bool {
			check(w.t, w.conn.QueryRow(w.t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walsender'
				AND $1 = ANY (pg_blocking_pids(pid)))`, int32(open.PgConn().PID())).Scan(&yes))
			return yes || w.slot("confirmed_flush_lsn") != ""
		})
		return yes
	}
	last := begin(``)
	w.follow("s")
	n := 0
	for waits(last) {
		sql := `INSERT INTO s.other VALUES (1)`
		if n == step {
			sql = change
		}
		next := begin(sql)
		commit(last)
		last, n = next, n+1
	}
	if n <= step {
		w.t.Errorf("the slot was made after %d steps: the tables did not change meanwhile", n)
	}
	slot = w.slot("slot_name")
	commit(last)
	return slot
}

func changeWhilePilotIsMade(t *testing.T, w *world) { seesChange(t, w, 0) }

func changeWhileSlotIsMade(t *testing.T, w *world) { seesChange(t, w, 2) }

func seesChange(t *testing.T, w *world, step int) {
	w.exec(changingSchema)
	w.start()
	slot := w.changeWhileSlotIsMade(step, `ALTER TABLE s.wider ADD COLUMN c int; TRUNCATE s.emptied`)
	w.exec(`INSERT INTO s.wider VALUES (1, 2); INSERT INTO s.emptied VALUES (1)`)
	w.caughtUp("s", "wider", "emptied", "other")
	w.sameRows("s", "s", "wider", "id", "c")
	w.sameRows("s", "s", "emptied", "id")
	if now := w.slot("slot_name"); now != slot {
		t.Errorf("slot %s was given up for %s", slot, now)
	}
}

// A slot that Postgres cannot decode is replaced, whatever goes on meanwhile,
// and the histories go on behind a truncate row.
func undecodableSlot(t *testing.T, w *world) {
	w.exec(changingSchema)
	w.start()
	w.keeper.MakeBareSlots()
	slot := w.changeWhileSlotIsMade(0, `TRUNCATE s.emptied`)
	eventually(t, "a copy", func() any { return w.feed("s") }, func() bool { return w.table("s", "other").State == tarn.FeedStreaming })
	w.exec(`INSERT INTO s.other VALUES (2); INSERT INTO s.emptied VALUES (1)`)
	end := make(chan struct{})
	writer, done := w.connect(), make(chan error, 1)
	go func() {
		for i := 2; ; i++ {
			select {
			case <-end:
				done <- nil
				return
			default:
			}
			if _, err := writer.Exec(context.Background(), `INSERT INTO s.emptied SELECT i FROM generate_series($1, $1 + 9) i`, 10*i); err != nil {
				done <- err
				return
			}
		}
	}()
	eventually(t, "another slot", func() any { return w.feed("s") }, func() bool { now := w.slot("slot_name"); return now != "" && now != slot })
	eventually(t, "rows behind the new copy", func() any { return w.feed("s") }, func() bool {
		x := w.table("s", "emptied")
		return x.State == tarn.FeedStreaming && x.Rows > x.Copied+20
	})
	close(end)
	check(t, <-done)
	w.exec(`DELETE FROM s.emptied WHERE id % 3 = 0`)
	w.caughtUp("s", "wider", "emptied", "other")
	truncates := 0
	for _, c := range w.history("s", "other") {
		if c.kind() == "truncate" {
			truncates++
		}
	}
	if truncates != 1 {
		t.Errorf("the history of other has %d truncate rows, want the one before the new copy", truncates)
	}
	for _, table := range []string{"emptied", "other"} {
		w.sameRows("s", "s", table, "id")
	}
	w.verified("s", "wider", "emptied", "other")
}
