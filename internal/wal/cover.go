package wal

import (
	"cmp"
	"slices"

	"github.com/tarndb/tarn"
)

// piece is the part of a stretch that is right and to be read.
type piece struct {
	stretch
	Lo, Hi tarn.LSN
}

// cover is what the store holds of one TLI: pieces in order, without overlap.
// Two beside each other without a gap meet.
type cover []piece

// coverOf puts together what the runs have written of a TLI.
//
// A run is right about everything behind its beginning, and about what it
// wrote before that too: it compared. So a stretch is right up to where a later
// run begins, and where two overlap the later run is right; between two of one
// run, the longer saves a request.
func coverOf(tli uint32, runs []run, all []stretch) cover {
	limit := limits(tli, runs)
	blocks := map[uint64][]piece{}
	for _, s := range all {
		if s.TLI != tli {
			continue
		}
		if hi := min(s.To, limit(s.Run)); hi > s.From {
			no := uint64(s.From) / blockBytes
			blocks[no] = append(blocks[no], piece{stretch: s, Lo: s.From, Hi: hi})
		}
	}
	var c cover
	for _, block := range blocks {
		c = append(c, flatten(block)...)
	}
	slices.SortFunc(c, func(a, b piece) int { return cmp.Compare(a.Lo, b.Lo) })
	return c
}

// limits tells where what a run wrote ends to be right: where the first of all
// later ones begins.
func limits(tli uint32, runs []run) func(runID) tarn.LSN {
	runs = slices.DeleteFunc(slices.Clone(runs), func(r run) bool { return r.TLI != tli })
	slices.SortFunc(runs, func(a, b run) int { return a.ID.compare(b.ID) })
	for i := len(runs) - 2; i >= 0; i-- {
		runs[i].Begin = min(runs[i].Begin, runs[i+1].Begin)
	}
	return func(id runID) tarn.LSN {
		later, found := slices.BinarySearchFunc(runs, id, func(r run, id runID) int { return r.ID.compare(id) })
		if found {
			later++
		}
		if later == len(runs) {
			return ^tarn.LSN(0)
		}
		return runs[later].Begin
	}
}

// flatten lays pieces that overlap end to end.
func flatten(all []piece) []piece {
	slices.SortFunc(all, func(a, b piece) int {
		return cmp.Or(-a.Run.compare(b.Run), -cmp.Compare(a.Hi-a.Lo, b.Hi-b.Lo), cmp.Compare(a.Lo, b.Lo))
	})
	// The best first; each adds what those before it left open.
	var laid []piece
	for _, p := range all {
		open := []piece{p}
		for _, l := range laid {
			var rest []piece
			for _, o := range open {
				if left := (piece{o.stretch, o.Lo, min(o.Hi, l.Lo)}); left.Lo < left.Hi {
					rest = append(rest, left)
				}
				if right := (piece{o.stretch, max(o.Lo, l.Hi), o.Hi}); right.Lo < right.Hi {
					rest = append(rest, right)
				}
			}
			open = rest
		}
		laid = append(laid, open...)
	}
	return laid
}

// within cuts the cover to from..to.
func (c cover) within(from, to tarn.LSN) cover {
	var in cover
	for _, p := range c {
		if p.Lo, p.Hi = max(p.Lo, from), min(p.Hi, to); p.Lo < p.Hi {
			in = append(in, p)
		}
	}
	return in
}

// reach is the position up to which the cover has no gap from a start.
func (c cover) reach(from tarn.LSN) tarn.LSN {
	for _, p := range c {
		if p.Lo > from {
			break
		}
		from = max(from, p.Hi)
	}
	return from
}

// Gap is WAL that the store does not hold, though it holds some behind it.
type Gap struct{ From, To tarn.LSN }

// gaps are the holes between from and the end of the cover.
func (c cover) gaps(from tarn.LSN) []Gap {
	var all []Gap
	for _, p := range c {
		if p.Lo > from {
			all = append(all, Gap{from, p.Lo})
		}
		from = max(from, p.Hi)
	}
	return all
}
