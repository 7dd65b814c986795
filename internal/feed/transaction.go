package feed

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/pgoutput"
)

// spoolAfter is how much of one transaction is kept in memory. What is beyond
// goes to a temporary file until its commit comes.
const spoolAfter = 16 << 20

// transaction keeps the messages of one transaction between Begin and Commit:
// where it ends, which every row of a history needs, comes last. The file needs
// no sync: after a crash the slot sends everything again.
//
// A transaction that Postgres streams before its end has the xid of each
// change's own subtransaction, so that aborted ones can be left out.
//
// A kept message is: xid (4, 0 = unknown) LSN of the change (8) length (4) bytes.
type transaction struct {
	dir   string // of temporary files; "" = the system's
	limit int    // bytes in memory; 0 = spoolAfter

	open  bool
	xid   uint32
	end   tarn.LSN // known after Commit
	time  time.Time
	count int
	notes []note // its own messages
	mem   []byte
	// aborted are the subtransactions that were rolled back.
	aborted map[uint32]bool
	spool   *os.File
	out     *bufio.Writer
}

// note is a feed's own message that a transaction wrote.
type note struct {
	xid     uint32
	content string
}

// said are the messages of what was not rolled back.
func (t *transaction) said() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, n := range t.notes {
			if !t.aborted[n.xid] && !yield(n.content) {
				return
			}
		}
	}
}

const keptHead = 16

func (t *transaction) begin(b *pgoutput.Begin) error {
	if t.open {
		return errors.New("a transaction began inside another")
	}
	t.open, t.xid, t.time, t.end = true, b.XID, b.CommitTime, 0
	return nil
}

func (t *transaction) add(xid uint32, lsn tarn.LSN, payload []byte) error {
	if !t.open {
		return errors.New("a change came outside of a transaction")
	}
	t.count++
	var head [keptHead]byte
	binary.BigEndian.PutUint32(head[:], xid)
	binary.BigEndian.PutUint64(head[4:], uint64(lsn))
	binary.BigEndian.PutUint32(head[12:], uint32(len(payload)))
	limit := t.limit
	if limit == 0 {
		limit = spoolAfter
	}
	if t.spool == nil && len(t.mem)+len(payload) <= limit {
		t.mem = append(append(t.mem, head[:]...), payload...)
		return nil
	}
	if t.spool == nil {
		f, err := os.CreateTemp(t.dir, "tarn-feed-*")
		if err != nil {
			return fmt.Errorf("spool a transaction: %w", err)
		}
		t.spool, t.out = f, bufio.NewWriterSize(f, 1<<18)
		// Unlinked at once: it ends with us, however we end.
		if err := os.Remove(f.Name()); err != nil {
			return fmt.Errorf("spool a transaction: %w", err)
		}
	}
	if _, err := t.out.Write(head[:]); err != nil {
		return fmt.Errorf("spool a transaction: %w", err)
	}
	if _, err := t.out.Write(payload); err != nil {
		return fmt.Errorf("spool a transaction: %w", err)
	}
	return nil
}

// kept is one message of a transaction.
type kept struct {
	lsn     tarn.LSN
	aborted bool   // its subtransaction was rolled back
	payload []byte // good until the next
}

func (t *transaction) kept(head []byte, payload []byte) kept {
	return kept{tarn.LSN(binary.BigEndian.Uint64(head[4:])), t.aborted[binary.BigEndian.Uint32(head)], payload}
}

// all yields the messages in order; it may be run more than once. Of a
// subtransaction that was rolled back only the descriptions of tables are
// there, and marked: later changes of others may rely on them.
func (t *transaction) all() iter.Seq2[kept, error] {
	return func(yield func(kept, error) bool) {
		for m := t.mem; len(m) > 0; {
			n := binary.BigEndian.Uint32(m[12:])
			if k := t.kept(m, m[keptHead:keptHead+n]); k.counts() && !yield(k, nil) {
				return
			}
			m = m[keptHead+n:]
		}
		if t.spool == nil {
			return
		}
		if err := t.out.Flush(); err != nil {
			yield(kept{}, fmt.Errorf("spool a transaction: %w", err))
			return
		}
		in := bufio.NewReaderSize(io.NewSectionReader(t.spool, 0, 1<<62), 1<<18)
		var buf []byte
		for {
			var head [keptHead]byte
			_, err := io.ReadFull(in, head[:])
			if err == io.EOF {
				return
			}
			n := int(binary.BigEndian.Uint32(head[12:]))
			if cap(buf) < n {
				buf = make([]byte, n)
			}
			if err == nil {
				_, err = io.ReadFull(in, buf[:n])
			}
			if err != nil {
				yield(kept{}, fmt.Errorf("read a spooled transaction: %w", err))
				return
			}
			if k := t.kept(head[:], buf[:n]); k.counts() && !yield(k, nil) {
				return
			}
		}
	}
}

// counts says whether anything comes of a message.
func (k kept) counts() bool {
	return !k.aborted || len(k.payload) > 0 && (k.payload[0] == 'R' || k.payload[0] == 'Y')
}

// reset forgets the messages and keeps the memory.
func (t *transaction) reset() {
	t.open, t.count, t.notes, t.aborted, t.mem = false, 0, nil, nil, t.mem[:0]
	if t.spool != nil {
		t.spool.Close() // read-only use is over; the file has no name any more
		t.spool, t.out = nil, nil
	}
}
