package feed

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/pgoutput"
)

const (
	// largeTransaction is when a transaction's rows are written ahead.
	largeTransaction = 50_000
	// writeAheadBytes bounds the rows of one table in memory; with spoolAfter
	// and the stream's 256 events it is the memory of a feed, whatever the
	// size of a transaction. A single row must fit.
	writeAheadBytes = 32 << 20
	// flushBytes commits early.
	flushBytes = 64 << 20
)

// apply turns the transaction that just committed into rows.
func (s *session) apply(ctx context.Context, tx *transaction) error {
	defer tx.reset()
	large := tx.spool != nil || tx.count > largeTransaction
	if large {
		// What is written ahead must be of this transaction only.
		if err := s.flush(ctx); err != nil {
			return err
		}
	}
	pos := position{epoch: s.epoch, xid: fullXID(tx.xid, s.near), time: tx.time, commitEnd: tx.end}
	s.near = max(s.near, pos.xid)
	a := applying{session: s, tx: tx, pos: pos, touched: map[uint32]*table{}}
	var born, moved []uint32
	var marks []uint64
	for content := range tx.said() {
		if oid, ok := birth(content, s.src.schema); ok {
			born = append(born, oid)
			s.todo.born[oid] = true
			delete(s.todo.waiting, oid)
		}
		if oid, ok := partsOf(content, s.src.schema); ok {
			moved = append(moved, oid)
		}
		if n, ok := markOf(content, s.src.publication); ok {
			marks = append(marks, n)
		}
	}
	var d pgoutput.Decoder
	if large {
		if err := a.foresee(ctx); err != nil {
			return err
		}
	}
	for m, err := range tx.all() {
		if err != nil {
			return err
		}
		msg, err := d.Decode(m.payload)
		if err != nil {
			return err
		}
		a.pos.lsn = m.lsn
		if err := a.message(ctx, msg); err != nil {
			return fmt.Errorf("transaction that ends at %s: %w", tx.end, err)
		}
		if large {
			if err := a.bound(ctx); err != nil {
				return err
			}
		}
	}
	total := 0
	for _, t := range a.touched {
		t.wholeTransaction(tx.end)
	}
	for _, t := range s.tables {
		total += t.bytes
	}
	s.processed = max(s.processed, tx.end)
	if err := s.births(ctx, born, &a.pos); err != nil {
		return err
	}
	for _, oid := range moved {
		// On record before the transaction is acknowledged, as in giveUp.
		if t := s.tables[oid]; t != nil && t.known && !t.stopped() && tx.end > t.base {
			s.todo.copy[oid] = true
			t.setState(tarn.FeedSnapshotting, "a partition was attached, detached, dropped or truncated: its rows are not in the stream")
		}
	}
	for _, n := range marks {
		s.arrived(n)
	}
	tx.reset()
	if len(s.todo.copy) > 0 {
		if err := s.flush(ctx); err != nil {
			return err
		}
		return s.copyDue(ctx)
	}
	if total > flushBytes || large {
		return s.flush(ctx)
	}
	return nil
}

// foresee adds the columns that a large transaction itself adds before its first
// row: written-ahead files cannot change their schema in the middle.
func (a *applying) foresee(ctx context.Context) error {
	var d pgoutput.Decoder
	for m, err := range a.tx.all() {
		if err != nil {
			return err
		}
		if m.payload[0] != 'R' || m.aborted {
			continue
		}
		msg, err := d.Decode(m.payload)
		if err != nil {
			return err
		}
		rel := msg.(*pgoutput.Relation)
		t := a.tables[rel.ID]
		if t == nil || t.stopped() || a.pos.commitEnd <= t.base {
			continue
		}
		err = a.refilled(ctx, t, rel)
		if err == nil {
			err = t.adopt(ctx, a.types, rel)
		}
		if err != nil {
			if err := a.giveUp(ctx, t, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// applying is one transaction on its way into the tables.
type applying struct {
	*session
	tx      *transaction
	pos     position
	touched map[uint32]*table
	last    *table
	skip    map[uint32]bool // tables given up in this transaction
}

func (a *applying) message(ctx context.Context, m pgoutput.Message) error {
	switch m := m.(type) {
	case *pgoutput.Relation:
		a.rels[m.ID] = m
	case *pgoutput.Insert:
		return a.rows(ctx, m.Relation, row{kind: changeInsert, values: m.New})
	case *pgoutput.Update:
		return a.update(ctx, m)
	case *pgoutput.Delete:
		r := row{kind: changeDelete, values: m.Old}
		if m.OldKind == pgoutput.OldKey {
			r.part = keyOnly
		}
		return a.rows(ctx, m.Relation, r)
	case *pgoutput.Truncate:
		for _, oid := range m.Relations {
			if err := a.rows(ctx, oid, row{kind: changeTruncate}); err != nil {
				return err
			}
		}
	}
	return nil
}

// update writes two rows. Without full replica identity the old one has only
// the key's columns; without any key there is nothing to say of it.
func (a *applying) update(ctx context.Context, m *pgoutput.Update) error {
	post := row{kind: changePostimage, values: m.New}
	switch m.OldKind {
	case pgoutput.OldFull:
		post.fill = m.Old
		return a.rows(ctx, m.Relation, row{kind: changePreimage, values: m.Old}, post)
	case pgoutput.OldKey:
		return a.rows(ctx, m.Relation, row{kind: changePreimage, values: m.Old, part: keyOnly}, post)
	}
	if rel := a.rels[m.Relation]; rel != nil && hasKey(rel) {
		return a.rows(ctx, m.Relation, row{kind: changePreimage, values: m.New, part: keyOnly}, post)
	}
	return a.rows(ctx, m.Relation, post)
}

func hasKey(r *pgoutput.Relation) bool {
	for _, c := range r.Columns {
		if c.Key {
			return true
		}
	}
	return false
}

// rows writes the rows of one change to its table, unless the Delta table has
// the transaction already or the table is stopped.
func (a *applying) rows(ctx context.Context, oid uint32, rows ...row) error {
	t, err := a.table(ctx, oid)
	if err != nil || t == nil {
		return err
	}
	if a.pos.commitEnd <= t.base || t.stopped() || a.skip[oid] {
		return nil
	}
	if rel := a.rels[oid]; t.rel != rel {
		if rel == nil {
			return fmt.Errorf("change of table %d, which the stream has not described", oid)
		}
		if rel.Name != t.name {
			return a.giveUp(ctx, t, &renamedError{rel.Name})
		}
		err := a.refilled(ctx, t, rel)
		if err == nil {
			err = t.adopt(ctx, a.types, rel)
		}
		if err != nil {
			return a.giveUp(ctx, t, err)
		}
	}
	if err := t.succeed(&a.pos); err != nil {
		return err
	}
	for _, r := range rows {
		if a.pos.ordinal == math.MaxUint32 {
			return errors.New("transaction has more than 4294967295 rows")
		}
		if err := t.write(r, a.pos); err != nil {
			return a.giveUp(ctx, t, err)
		}
		a.pos.ordinal++
	}
	a.touched[oid], a.last = t, t
	return nil
}

// table finds or opens the table of a change; nil = drop the change, because a
// copy that shows it will be made.
func (a *applying) table(ctx context.Context, oid uint32) (*table, error) {
	if t := a.tables[oid]; t != nil {
		return t, nil
	}
	rel := a.rels[oid]
	if rel == nil {
		return nil, fmt.Errorf("change of table %d, which the stream has not described", oid)
	}
	if !a.src.follows(rel.Name) {
		return nil, nil
	}
	if !a.todo.born[oid] {
		if t, err := a.departed(ctx, rel); err != nil || t != nil {
			return t, err
		}
		if _, waits := a.todo.waiting[oid]; !waits && rel.Namespace == a.src.schema {
			a.todo.copy[oid] = true
		}
		return nil, nil
	}
	return a.openTable(ctx, rel, createMissing)
}

// errRefilled asks for a new copy of the table: every row has a value that no
// change of the stream gave it.
var errRefilled = errors.New("a column was added with a value for the rows that were there")

const refilledSQL = `SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid IN (SELECT relid FROM pg_partition_tree($1) UNION SELECT $1)
AND attname = ANY ($2) AND atthasmissing)`

// refilled is errRefilled when rel brings such a column to a table with rows.
func (a *applying) refilled(ctx context.Context, t *table, rel *pgoutput.Relation) error {
	if !t.used && t.rows == 0 || t.succeeds {
		return nil
	}
	var fresh []string
	for _, c := range rel.Columns {
		if len(fieldsOf(t.schema, c.Name)) == 0 {
			fresh = append(fresh, c.Name)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := a.src.settled(ctx, a.pos.xid); err != nil {
		return err
	}
	var yes bool
	if err := a.src.conn.QueryRow(ctx, refilledSQL, t.oid, fresh).Scan(&yes); err != nil {
		return fmt.Errorf("look at the new columns of %s: %w", t.name, err)
	}
	if yes {
		return errRefilled
	}
	return nil
}

const settledSQL = `SELECT pg_visible_in_snapshot($1::text::xid8, pg_current_snapshot())`

// settled waits until the catalogs show what a transaction did to them: its
// commit is sent from the WAL before other sessions see it.
func (s *source) settled(ctx context.Context, xid uint64) error {
	for {
		var seen bool
		if err := s.conn.QueryRow(ctx, settledSQL, strconv.FormatUint(xid, 10)).Scan(&seen); err != nil {
			return fmt.Errorf("wait for transaction %d to be seen: %w", xid, err)
		}
		if seen {
			return nil
		}
		if pause(ctx, time.Millisecond); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// departed opens the table of a change that is no longer in the database: what
// it did before it went belongs to its history, if that was followed.
func (a *applying) departed(ctx context.Context, rel *pgoutput.Relation) (*table, error) {
	if rel.Namespace != a.src.schema || a.src.conn.IsClosed() || a.lost[rel.ID] {
		return nil, nil
	}
	tables, err := a.src.tables(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(tables, func(l listed) bool { return l.oid == rel.ID }) {
		t, err := a.openTable(ctx, rel, onlyExisting)
		if err != nil {
			return nil, err
		}
		if t != nil && t.known && !t.stopped() {
			return t, nil
		}
		if t != nil {
			delete(a.tables, rel.ID)
			t.close(ctx)
		}
	}
	a.lost[rel.ID] = true
	return nil, nil
}

// giveUp stops a table whose change cannot be stored, or asks for a new copy.
// Its rows of earlier transactions are kept.
func (a *applying) giveUp(ctx context.Context, t *table, err error) error {
	var stop *stopError
	var renamed *renamedError
	switch {
	case errors.As(err, &renamed):
		a.todo.copy[t.oid] = true
		t.setState(tarn.FeedTerminated, renamed.Error())
	case errors.Is(err, errRefilled):
		a.todo.copy[t.oid] = true
		t.setState(tarn.FeedSnapshotting, errRefilled.Error())
	case errors.Is(err, errUnknownOld):
		// On record before the change is acknowledged, so that a crash does
		// not forget the copy.
		a.todo.copy[t.oid] = true
		t.setState(tarn.FeedSnapshotting, errUnknownOld.Error()+": set REPLICA IDENTITY FULL")
	case errors.As(err, &stop):
		a.log.Warn("stop table", "path", t.name, "err", err)
		t.setState(tarn.FeedTerminated, stop.detail)
	default:
		return err
	}
	t.dropOpen(ctx)
	delete(a.touched, t.oid)
	if a.skip == nil {
		a.skip = map[uint32]bool{}
	}
	a.skip[t.oid] = true
	return nil
}

// bound writes ahead of a large transaction, so that its rows in memory stay
// below writeAheadBytes in one table and twice that in all.
func (a *applying) bound(ctx context.Context) error {
	if a.last == nil {
		return nil
	}
	if a.last.bytes > writeAheadBytes {
		return a.last.writeAhead(ctx)
	}
	if a.last.bytes < writeAheadBytes/16 {
		return nil // many small ones are looked at when one is not small
	}
	total, largest := 0, a.last
	for _, t := range a.touched {
		total += t.bytes
		if t.bytes > largest.bytes {
			largest = t
		}
	}
	if total > 2*writeAheadBytes {
		return largest.writeAhead(ctx)
	}
	return nil
}

// births opens the tables that the transaction created and makes them known:
// their next commit says that no copy is needed. pos is behind its last row.
func (s *session) births(ctx context.Context, oids []uint32, pos *position) error {
	if len(oids) == 0 {
		return nil
	}
	if err := s.src.settled(ctx, pos.xid); err != nil {
		return err
	}
	tables, err := s.src.tables(ctx)
	if err != nil {
		return err
	}
	for _, l := range tables {
		if !s.todo.born[l.oid] || s.tables[l.oid] != nil {
			continue
		}
		rel, err := relation(ctx, s.src.conn, s.src.schema, l)
		if err != nil {
			return err
		}
		t, err := s.openTable(ctx, rel, createMissing)
		if err != nil {
			return err
		}
		if err := s.born(ctx, t, rel, pos); err != nil {
			return err
		}
	}
	for _, oid := range oids {
		if t := s.tables[oid]; t != nil && !t.known && t.pending == 0 && !t.stopped() {
			t.pending = s.processed
		}
	}
	return nil
}

// born ends what the Delta table has of another table, for one that was made
// without rows.
func (s *session) born(ctx context.Context, t *table, rel *pgoutput.Relation, pos *position) error {
	if t == nil || t.stopped() || !t.succeeds {
		return nil
	}
	err := t.adopt(ctx, s.types, rel)
	var stop *stopError
	if errors.As(err, &stop) {
		s.log.Warn("stop table", "path", t.name, "err", err)
		t.setState(tarn.FeedTerminated, stop.detail)
		return nil
	}
	if err != nil {
		return err
	}
	pos.lsn = max(pos.lsn, pos.commitEnd) // there may have been no row at all
	if err := t.succeed(pos); err != nil {
		return err
	}
	t.wholeTransaction(pos.commitEnd)
	return nil
}

// arrived handles a mark that came out of the stream: what still waits for it
// was not born in the stream and needs a copy.
func (s *session) arrived(mark uint64) {
	for oid, w := range s.todo.waiting {
		if w.mark <= mark {
			delete(s.todo.waiting, oid)
			if s.tables[oid] == nil {
				s.todo.copy[oid] = true
			}
		}
	}
	for _, t := range s.tables {
		switch {
		case t.gone == 0 || t.gone > mark || t.stopped():
		case t.called != "":
			s.todo.copy[t.oid] = true
			t.setState(tarn.FeedTerminated, (&renamedError{t.called}).Error())
		default:
			t.setState(tarn.FeedTerminated, goneDetail)
		}
	}
}
