package feed

import (
	"context"
	"fmt"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/pgoutput"
)

// streamedMemory is what a transaction that comes before its end keeps in
// memory; there may be many, and they are large.
const streamedMemory = 1 << 20

// handle takes one event.
func (s *session) handle(ctx context.Context, e event) error {
	if e.payload == nil {
		return s.keepalive(ctx, e)
	}
	if len(e.payload) == 0 {
		return &pgoutput.CorruptError{Want: "a message type"}
	}
	switch e.payload[0] {
	case 'B', 'C', 'S', 'E', 'c', 'A':
		return s.boundary(ctx, e)
	}
	tx, xid := &s.tx, uint32(0)
	if s.streams.block != 0 {
		var err error
		tx = s.streams.open[s.streams.block]
		if xid, e.payload, err = pgoutput.Split(e.payload); err != nil {
			return err
		}
	}
	if e.payload[0] == 'M' {
		return keepNote(tx, xid, e.payload)
	}
	return tx.add(xid, e.lsn, e.payload)
}

// keepNote keeps a feed's own message; it holds for the whole transaction, whose
// rows may have come before it.
func keepNote(tx *transaction, xid uint32, payload []byte) error {
	var d pgoutput.Decoder
	msg, err := d.Decode(payload)
	if err != nil {
		return err
	}
	m := msg.(*pgoutput.Logical)
	if m.Transactional && m.Prefix == messagePrefix && tx.open {
		tx.notes = append(tx.notes, note{xid, string(m.Content)})
	}
	return nil
}

// boundary takes a beginning or an end of a transaction or of a block of one.
func (s *session) boundary(ctx context.Context, e event) error {
	var d pgoutput.Decoder
	msg, err := d.Decode(e.payload)
	if err != nil {
		return err
	}
	switch m := msg.(type) {
	case *pgoutput.Begin:
		return s.tx.begin(m)
	case *pgoutput.Commit:
		s.tx.end = m.EndLSN
		return s.apply(ctx, &s.tx)
	case *pgoutput.StreamStart:
		if s.streams.block != 0 || s.tx.open {
			return fmt.Errorf("a block of transaction %d began inside another transaction", m.XID)
		}
		s.streams.block = m.XID
		if s.streams.open[m.XID] == nil {
			s.streams.open[m.XID] = &transaction{dir: s.k.spoolDir, limit: streamedMemory, open: true, xid: m.XID, aborted: map[uint32]bool{}}
		}
	case *pgoutput.StreamStop:
		s.streams.block = 0
	case *pgoutput.StreamAbort:
		switch tx := s.streams.open[m.XID]; {
		case tx == nil: // it sent nothing
		case m.Sub == m.XID:
			tx.reset()
			delete(s.streams.open, m.XID)
		default:
			tx.aborted[m.Sub] = true
		}
	case *pgoutput.StreamCommit:
		tx := s.streams.open[m.XID]
		if tx == nil {
			return fmt.Errorf("transaction %d, which was not streamed, ends as if it had been", m.XID)
		}
		delete(s.streams.open, m.XID)
		tx.end, tx.time = m.EndLSN, m.CommitTime
		return s.apply(ctx, tx)
	}
	return nil
}

// keepalive takes the server's word for how far it has read its WAL. Every
// transaction that committed before has been sent to us; one that streams has
// not committed and will come whole, whatever is confirmed meanwhile.
func (s *session) keepalive(ctx context.Context, e event) error {
	if s.tx.open || s.streams.block != 0 {
		if e.reply {
			s.rx.confirm(0)
		}
		return nil
	}
	s.processed = max(s.processed, e.lsn)
	if e.reply {
		if err := s.flush(ctx); err != nil {
			return err
		}
		return s.acknowledge(ctx) // a stopping server waits for this
	}
	if !s.hasPending() {
		s.flushed = s.processed
	}
	return nil
}

// acknowledge records how far every table is and then tells the server so. No
// slot of ours is ever confirmed beyond what is on record, in the control
// database or in Delta: one that is was made by somebody else, and what lies
// between was never sent to us.
func (s *session) acknowledge(ctx context.Context) error {
	if err := s.record(ctx); err != nil {
		return err
	}
	if on, follows := s.onRecord(); follows {
		s.rx.confirm(min(s.flushed, on))
	} else {
		s.rx.confirm(s.flushed)
	}
	return nil
}

// onRecord is how far the slot may be confirmed while any table is followed.
func (s *session) onRecord() (lsn tarn.LSN, follows bool) {
	for _, t := range s.follower.tables {
		lsn = max(lsn, t.CommittedLSN)
	}
	lsn = max(lsn, inDelta(s))
	for _, t := range s.tables {
		follows = follows || t.known && !t.stopped() && s.recorded(t.name).State == tarn.FeedStreaming
	}
	return lsn, follows
}

// inDelta is how far the Delta table is that is farthest.
func inDelta(s *session) (lsn tarn.LSN) {
	for _, t := range s.tables {
		if t.known {
			lsn = max(lsn, t.base)
		}
	}
	return lsn
}
