package wal

import (
	"context"
	"fmt"
	"time"

	"github.com/tarndb/tarn"
)

// Position is how far the store's WAL of a timeline reaches without a gap.
type Position struct {
	From, To tarn.LSN
	Time     time.Time // when the last of it was uploaded; zero when From is To
	Bytes    int64     // of all objects of the timeline
	Gaps     []Gap     // what is missing between From and the end of all there is
}

// Start is where WAL is needed from: the redo point of the oldest checkpoint
// that a recovery may begin with.
type Start struct {
	TLI          uint32
	LSN          tarn.LSN
	SegmentBytes uint32
}

// Position tells how far the WAL of a timeline reaches from a start on. A gap
// is not an error: To stops before it and Gaps names it.
func (r *Remote) Position(ctx context.Context, id tarn.TimelineID, from Start) (Position, error) {
	p := Position{From: from.LSN, To: from.LSN}
	if from.SegmentBytes == 0 {
		return p, tarn.Invalid("position of WAL of timeline %s: no segment size", id)
	}
	h, err := r.list(ctx, id, from.SegmentBytes)
	if err != nil {
		return p, err
	}
	for _, s := range h.Stretches {
		p.Bytes += s.Size
	}
	c := coverOf(from.TLI, h.Runs, h.Stretches).within(from.LSN, ^tarn.LSN(0))
	p.To, p.Gaps = c.reach(from.LSN), c.gaps(from.LSN)
	for _, piece := range c {
		if piece.Lo < p.To && piece.Uploaded.After(p.Time) {
			p.Time = piece.Uploaded
		}
	}
	return p, nil
}

// check refuses a range that the cover does not hold whole.
func (c cover) check(id tarn.TimelineID, g Range) error {
	if to := c.reach(g.From); to < g.To {
		missing := Gap{to, g.To}
		if gaps := c.gaps(g.From); len(gaps) > 0 {
			missing = gaps[0]
		}
		return tarn.NotFound("the object store has no WAL of timeline %s from %s to %s (TLI %d, segment %s)",
			id, missing.From, missing.To, g.TLI, SegmentAt(g.TLI, missing.From, g.SegmentBytes).Name(g.SegmentBytes))
	}
	return nil
}

func (g Gap) String() string { return fmt.Sprintf("%s to %s", g.From, g.To) }
