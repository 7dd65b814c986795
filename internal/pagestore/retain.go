package pagestore

import (
	"slices"
	"time"

	"github.com/tarndb/tarn"
)

// Marks thin out as they grow old: all of an hour stay, then one in 5 minutes
// for a day, then one an hour.
const (
	markKeepAll   = time.Hour
	markKeepDense = 24 * time.Hour
	markDense     = 5 * time.Minute
	markSparse    = time.Hour
)

// spaced drops the marks that have grown old and stand close to an older one.
// Marks come in any order of seq but in order of writing.
func spaced(marks []tarn.Mark, now time.Time) []tarn.Mark {
	kept := make([]tarn.Mark, 0, len(marks))
	for _, m := range marks {
		if age := now.Sub(m.Time); len(kept) > 0 && age > markKeepAll {
			space := markDense
			if age > markKeepDense {
				space = markSparse
			}
			if d := m.Time.Sub(kept[len(kept)-1].Time); d >= 0 && d < space {
				continue
			}
		}
		kept = append(kept, m)
	}
	return kept
}

// thin bounds a growing list of marks. It counts time from the newest, so that
// a replay keeps the same ones whenever it happens.
func thin(marks []tarn.Mark) []tarn.Mark {
	if len(marks)%64 != 0 {
		return marks
	}
	return spaced(marks, marks[len(marks)-1].Time)
}

// retained gives the marks that a collection keeps: those inside the window,
// thinned out, and the newest one that is older, from which a moment between it
// and the next can be reached. The newest of all always stays.
func retained(marks []tarn.Mark, now time.Time, window time.Duration) []tarn.Mark {
	horizon := now.Add(-window)
	oldest := -1 // the newest one behind the horizon
	for i, m := range marks {
		if m.Time.Before(horizon) && (oldest < 0 || !m.Time.Before(marks[oldest].Time)) {
			oldest = i
		}
	}
	inside := make([]tarn.Mark, 0, len(marks))
	for i, m := range marks {
		if i == oldest || !m.Time.Before(horizon) {
			inside = append(inside, m)
		}
	}
	kept := spaced(inside, now)
	if n := len(marks); n > 0 && !slices.Contains(kept, marks[n-1]) {
		kept = append(kept, marks[n-1])
	}
	return kept
}

// window is how far back points of a timeline are kept.
func (s *shelf) window(man *manifest) time.Duration {
	switch {
	case man.History >= 0:
		return man.History
	case s.options.History > 0:
		return s.options.History
	}
	return 0
}

// owner gives the timeline whose own records a point follows: the point's, or
// an ancestor's when it stands before its timeline's beginning. The caller
// holds mu.
func (r *registry) owner(p tarn.Point) *timeline {
	t := r.timelines[p.Timeline]
	for t != nil && t.parent.Timeline != "" && p.Seq <= t.parent.Seq {
		t = r.timelines[t.parent.Timeline]
	}
	return t
}

// beginnings gives the seqs of a timeline at which others begin, in order. The
// caller holds mu.
func (r *registry) beginnings(t *timeline) []tarn.Seq {
	var out []tarn.Seq
	for _, c := range r.timelines {
		if c.parent.Timeline != "" && r.owner(c.parent) == t {
			out = append(out, c.parent.Seq)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// reachable checks that what stood at a seq of a timeline's own records is kept
// and goes on being kept when child begins there. The caller has the turn.
func (s *shelf) reachable(t *timeline, seq tarn.Seq) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	man := t.man
	if seq >= man.Swept.Head || slices.ContainsFunc(man.Swept.Marks, func(m tarn.Mark) bool { return m.Seq == seq }) ||
		slices.Contains(s.beginnings(t), seq) {
		return nil
	}
	err := tarn.Invalid("what stood at seq %d of timeline %s is not kept any more", seq, t.id)
	if marks := man.Swept.Marks; len(marks) > 0 {
		return err.WithHint("the window begins at " + marks[0].Time.Format(time.RFC3339) + "; choose a mark inside it")
	}
	return err.WithHint("the timeline keeps no history")
}
