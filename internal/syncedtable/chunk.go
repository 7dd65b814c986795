package syncedtable

import (
	"bytes"
	"hash/maphash"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
)

// A chunk is closed at the end of the version in which it gets this large; a
// single version that is larger than the hard bounds is applied in another way.
const (
	chunkRows  = 50_000
	chunkBytes = 32 << 20
	hardTimes  = 4 // a hard bound is that many times the other
)

// chunk holds the changes of some whole versions, collapsed: of each key the
// last one. Two changes of one key in one version have no order: the row that
// is there after it wins over the one that is not, since an update of a key
// shows the old row, too, and a rewritten file shows all its rows going and
// coming.
//
// With a timeseries key rows that come are kept by that key, the greatest, and
// those that go are kept apart, unmerged: a row that goes away may not be the
// one in Postgres.
type chunk struct {
	layout  layout
	rows    int    // from how many slots on it is full
	arena   []byte // rows as appendStaged writes them
	slots   []slot
	table   []int32 // open addressing: 1 + slot, 0 = free; size a power of two
	letters map[int]letter
	lost    []letter // of rows without a key
	settled []string // JSON of rows without a key that are gone
	seed    maphash.Seed
}

type slot struct {
	off, keyEnd, end int
	hash             uint64
	version          int64
	gone, dead       bool // dead: another slot has the key now
}

func newChunk(l layout, rows int) *chunk {
	return &chunk{layout: l, rows: rows, table: make([]int32, 1<<12), letters: map[int]letter{}, seed: maphash.MakeSeed()}
}

func (c *chunk) full() bool { return len(c.slots) >= c.rows || len(c.arena) >= chunkBytes }

func (c *chunk) overfull() bool {
	return len(c.slots) >= hardTimes*c.rows || len(c.arena) >= hardTimes*chunkBytes
}

func (c *chunk) key(s *slot) []byte { return c.arena[s.off+opSize : s.keyEnd] }

// order is the timeseries key of a slot, made comparable; nil = NULL.
func (c *chunk) order(s *slot) []byte {
	at := s.off + opSize
	for i := 0; i < c.layout.ts; i++ {
		at += 4 + fieldSize(c.arena[at:])
	}
	n := fieldSize(c.arena[at:])
	if n == 0 {
		return nil
	}
	v := bytes.Clone(c.arena[at+4 : at+4+n])
	v[0] ^= 0x80 // signed
	return v
}

// fieldSize is the length of a field; NULL has none.
func fieldSize(d []byte) int {
	return max(0, int(int32(uint32(d[0])<<24|uint32(d[1])<<16|uint32(d[2])<<8|uint32(d[3]))))
}

// add takes in the rows of a change. stop is the fault of a row that cannot be
// stored.
func (c *chunk) add(rec arrow.RecordBatch, version int64, gone bool) (stop error) {
	for row := range int(rec.NumRows()) {
		at := len(c.arena)
		var keyEnd int
		var err error
		c.arena, keyEnd, err = c.layout.appendStaged(c.arena, rec, row, gone)
		if err == nil {
			c.enter(slot{off: at, keyEnd: keyEnd, end: len(c.arena), version: version, gone: gone}, nil)
			continue
		}
		c.arena = c.arena[:at]
		if gone { // its key cannot be stored, so it never was
			text, _ := c.layout.asJSON(rec, row)
			c.settled = append(c.settled, text)
			continue
		}
		if stop == nil {
			stop = err
		}
		l := c.layout.letterOf(rec, row, version, err)
		if l.key == nil {
			c.lost = append(c.lost, l)
			continue
		}
		// The row that Postgres has is not true any more: it goes.
		c.arena, keyEnd, err = c.layout.appendStaged(c.arena, rec, row, true)
		if err != nil { // only the timeseries key can be at fault
			c.arena = c.arena[:at]
			c.lost = append(c.lost, l)
			continue
		}
		c.enter(slot{off: at, keyEnd: keyEnd, end: len(c.arena), version: version, gone: true}, &l)
	}
	return stop
}

// enter puts a slot in, unless the one that has its key wins.
func (c *chunk) enter(s slot, l *letter) {
	s.hash = maphash.Bytes(c.seed, c.arena[s.off+opSize:s.keyEnd])
	if c.layout.ts >= 0 && s.gone {
		c.slots = append(c.slots, s)
		if l != nil {
			c.letters[len(c.slots)-1] = *l
		}
		return
	}
	if 2*len(c.slots) >= len(c.table) {
		c.grow()
	}
	i := s.hash & uint64(len(c.table)-1)
	for c.table[i] != 0 {
		at := int(c.table[i] - 1)
		have := &c.slots[at]
		if have.hash == s.hash && bytes.Equal(c.key(have), c.arena[s.off+opSize:s.keyEnd]) {
			if !c.wins(&s, have, l != nil) {
				c.arena = c.arena[:s.off] // it is the last one
				return
			}
			have.dead = true
			delete(c.letters, at)
			break
		}
		i = (i + 1) & uint64(len(c.table)-1)
	}
	c.slots = append(c.slots, s)
	c.table[i] = int32(len(c.slots))
	if l != nil {
		c.letters[len(c.slots)-1] = *l
	}
}

// wins tells whether a new change of a key takes the place of the one before.
// rejected: it stands for a row that cannot be stored, so it is a row.
func (c *chunk) wins(s, have *slot, rejected bool) bool {
	if c.layout.ts >= 0 {
		return bytes.Compare(c.order(s), c.order(have)) >= 0
	}
	return s.version > have.version || !s.gone || rejected
}

func (c *chunk) grow() {
	c.table = make([]int32, 2*len(c.table))
	for n := range c.slots {
		s := &c.slots[n]
		if s.dead || c.layout.ts >= 0 && s.gone {
			continue
		}
		i := s.hash & uint64(len(c.table)-1)
		for c.table[i] != 0 {
			i = (i + 1) & uint64(len(c.table)-1)
		}
		c.table[i] = int32(n + 1)
	}
}

// part gives the live slots whose key falls to one of n connections.
func (c *chunk) part(i, n int) []int {
	var out []int
	for at := range c.slots {
		if s := &c.slots[at]; !s.dead && s.hash>>32%uint64(n) == uint64(i) {
			out = append(out, at)
		}
	}
	return out
}

// staged reads slots in COPY's binary format.
type staged struct {
	c     *chunk
	slots []int
	rest  []byte
	state int // 0 = header to come, 1 = rows, 2 = trailer given
}

func (r *staged) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(r.rest) == 0 {
			switch {
			case r.state == 0:
				r.rest, r.state = []byte(copyHeader), 1
			case r.state == 1 && len(r.slots) > 0:
				s := &r.c.slots[r.slots[0]]
				r.rest, r.slots = r.c.arena[s.off:s.end], r.slots[1:]
			case r.state == 1:
				r.rest, r.state = []byte(copyTrailer), 2
			default:
				if n == 0 {
					return 0, io.EOF
				}
				return n, nil
			}
		}
		k := copy(p[n:], r.rest)
		n, r.rest = n+k, r.rest[k:]
	}
	return n, nil
}
