package cache

import (
	"os"
	"slices"
)

// entry is one object, of which some ranges are on disk.
type entry struct {
	key    string
	size   int64
	step   int64  // length of a range; of an adopted file its whole size
	name   string // of its two files, without what tells them apart
	linked bool   // data is a hard link to somebody's file: never written to
	made   bool   // the files exist
	gone   bool   // no longer in the cache: nothing is kept any more

	data  *os.File // nil when closed
	users int      // of data
	slots map[int64]*slot
	flows [4]flow // sequential readers, the last one first
}

// length is that of the i-th range.
func (e *entry) length(i int64) int64 { return min(e.step, e.size-i*e.step) }

// A slot is one range of an entry that is on disk or on its way. A range without
// a slot is absent. setState alone changes its state.
//
//	          read               kept
//	absent ─────────▶ loading ─────────▶ kept ◀──┐
//	  ▲  ▲              │  ▲               │     │ proven
//	  │  └──not kept────┘  │ not proven    │     │
//	  │                 proving ◀──read── unproven ◀── restart
//	  │                                    │
//	  └────────── leaving ◀──evict─────────┘ (both)
type slot struct {
	e     *entry
	index int64
	state state
	load  *load  // what to wait for: while loading, proving or leaving
	sum   uint32 // of an unproven slot: what its bytes must add up to
	pins  int    // readers of the file: a kept slot that has any stays

	prev, next *slot // in Cache.recent, when kept or unproven
}

type state uint8

const (
	loading state = iota
	kept
	unproven
	proving
	leaving
)

func setState(s *slot, to state) {
	if !next[s.state][to] {
		panic("cache: a slot cannot change its state so")
	}
	s.state = to
}

var next = [...][leaving + 1]bool{
	loading:  {kept: true},
	kept:     {leaving: true},
	unproven: {proving: true, leaving: true},
	proving:  {kept: true, loading: true},
	leaving:  {},
}

// load is what readers of a slot wait for. It outlives the slot.
type load struct {
	ready chan struct{} // closed when the rest is there
	buf   []byte        // the range; nil with err, and when the slot only left
	err   error
}

func newLoad() *load { return &load{ready: make(chan struct{})} }

// list is a ring of slots around head.
type list struct{ head slot }

func (l *list) init() { l.head.prev, l.head.next = &l.head, &l.head }

func (l *list) push(s *slot) {
	s.prev, s.next = &l.head, l.head.next
	s.prev.next, s.next.prev = s, s
}

func (l *list) remove(s *slot) {
	s.prev.next, s.next.prev = s.next, s.prev
	s.prev, s.next = nil, nil
}

// order gives the names of entries, the least recently used first.
func (l *list) order() []string {
	var names []string
	seen := map[*entry]bool{}
	for s := l.head.next; s != &l.head; s = s.next {
		if !seen[s.e] && s.e.made {
			seen[s.e] = true
			names = append(names, s.e.name)
		}
	}
	slices.Reverse(names)
	return names
}

// flow is a sequential reader of an entry, told by the ranges it touches.
type flow struct {
	last   int64 // range it touched last
	window int64 // ranges to be ahead of it
	until  int64 // first range that was not asked for
}

// advance notes that ranges first to last are read. A sequential reader makes it
// give the ranges that are wanted soon; they are asked for half a window at a
// time, so that requests are long.
func (e *entry) advance(first, last, most int64) (from, until int64) {
	at := len(e.flows) - 1
	f := flow{last: last, until: last + 1}
	for i, g := range e.flows {
		if g.until > 0 && g.last+1 >= first && g.last <= last {
			at, f = i, g
			break
		}
	}
	if last > f.last { // it went on
		f.window = min(max(2*f.window, 1), most)
		f.last = last
	}
	from = max(f.until, last+1)
	until = from
	if f.window > 0 && from-last-1 <= f.window/2 {
		until = max(from, last+1+f.window)
	}
	f.until = until
	copy(e.flows[1:at+1], e.flows[:at])
	e.flows[0] = f
	return from, until
}
