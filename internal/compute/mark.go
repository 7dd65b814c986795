package compute

import (
	"slices"
	"time"

	"github.com/tarndb/tarn"
)

// target is where a fork shall begin: a past time, or an LSN, or now.
type target struct {
	time time.Time
	lsn  tarn.LSN
}

func (t target) isNow() bool { return t.time.IsZero() && t.lsn == 0 }

// covers tells whether everything before a mark belongs to the target.
func (t target) covers(m tarn.Mark) bool {
	if t.lsn != 0 {
		return m.LSN <= t.lsn
	}
	return !m.Time.After(t.time)
}

// chooseMark picks the newest mark that the target covers: where a replay to
// the target begins. ok is false when the target is older than all marks.
func chooseMark(marks []tarn.Mark, t target) (m tarn.Mark, ok bool) {
	for _, c := range marks {
		if t.covers(c) && (!ok || c.Seq >= m.Seq) {
			m, ok = c, true
		}
	}
	return m, ok
}

// retained leaves out the marks whose WAL may be pruned: those before the newest
// one that is as old as the horizon.
func retained(marks []tarn.Mark, horizon time.Time) []tarn.Mark {
	first, ok := chooseMark(marks, target{time: horizon})
	if !ok {
		return marks
	}
	kept := slices.Clone(marks)
	return slices.DeleteFunc(kept, func(m tarn.Mark) bool { return m.Seq < first.Seq })
}

// endMark is the mark at a timeline's very end, if there is one: nothing but
// marks was written after it. A mark is a record itself and counts in head. It
// says nothing of WAL: see Fleet.settled.
func endMark(marks []tarn.Mark, head tarn.Seq) (m tarn.Mark, ok bool) {
	for _, c := range marks {
		if c.Seq >= m.Seq {
			m = c
		}
	}
	behind := 0
	for _, c := range marks {
		if c.Seq == m.Seq {
			behind++
		}
	}
	return m, behind > 0 && uint64(head-m.Seq) == uint64(behind)
}
