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
// A kept message is: LSN of the change (8) length (4) bytes.
type transaction struct {
	dir   string // of temporary files; "" = the system's
	limit int    // bytes in memory; 0 = spoolAfter

	open  bool
	xid   uint32
	end   tarn.LSN // known after Commit
	time  time.Time
	count int
	born  []uint32 // tables it created
	marks []uint64 // marks it wrote
	mem   []byte
	spool *os.File
	out   *bufio.Writer
}

func (t *transaction) begin(b *pgoutput.Begin) error {
	if t.open {
		return errors.New("a transaction began inside another")
	}
	t.open, t.xid, t.time, t.end = true, b.XID, b.CommitTime, 0
	return nil
}

func (t *transaction) add(lsn tarn.LSN, payload []byte) error {
	if !t.open {
		return errors.New("a change came outside of a transaction")
	}
	t.count++
	var head [12]byte
	binary.BigEndian.PutUint64(head[:], uint64(lsn))
	binary.BigEndian.PutUint32(head[8:], uint32(len(payload)))
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
	payload []byte // good until the next
}

// all yields the messages in order; it may be run more than once.
func (t *transaction) all() iter.Seq2[kept, error] {
	return func(yield func(kept, error) bool) {
		for m := t.mem; len(m) > 0; {
			n := binary.BigEndian.Uint32(m[8:])
			if !yield(kept{tarn.LSN(binary.BigEndian.Uint64(m)), m[12 : 12+n]}, nil) {
				return
			}
			m = m[12+n:]
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
			var head [12]byte
			_, err := io.ReadFull(in, head[:])
			if err == io.EOF {
				return
			}
			n := int(binary.BigEndian.Uint32(head[8:]))
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
			if !yield(kept{tarn.LSN(binary.BigEndian.Uint64(head[:])), buf[:n]}, nil) {
				return
			}
		}
	}
}

// reset forgets the messages and keeps the memory.
func (t *transaction) reset() {
	t.open, t.count, t.born, t.marks, t.mem = false, 0, nil, nil, t.mem[:0]
	if t.spool != nil {
		t.spool.Close() // read-only use is over; the file has no name any more
		t.spool, t.out = nil, nil
	}
}
