package tarn

import (
	"fmt"
	"time"
)

// How far back a project's branches can be made from, unless it says
// otherwise, and at most.
const (
	DefaultHistory = 7 * 24 * time.Hour
	MaxHistory     = 35 * 24 * time.Hour
)

// NoHistory asks for no history at all: a branch is made from the present
// only. Any negative length means the same; zero means DefaultHistory.
const NoHistory = -time.Second

// HistoryOf is the length that was asked for: none is 0, and what was not said
// is DefaultHistory.
func HistoryOf(asked time.Duration) time.Duration {
	switch {
	case asked < 0:
		return 0
	case asked == 0:
		return DefaultHistory
	}
	return asked
}

// Window is the past of a timeline that can be had again: any commit from From
// to To.
type Window struct {
	From    Mark          `json:"from"`
	To      Mark          `json:"to"`              // the present
	History time.Duration `json:"history"`         // how far back it reaches at most; 0 = only the present
	Whole   bool          `json:"whole,omitempty"` // From is where the timeline began
}

func (w Window) String() string {
	return fmt.Sprintf("window [%s, %s] (LSN %s to %s)", clock(w.From.Time), clock(w.To.Time), w.From.LSN, w.To.LSN)
}

// clock prints a time as precisely as Postgres keeps it.
func clock(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.999999Z07:00") }

// Check refuses a time or an LSN outside the window, with an error that names
// it; neither means the present, which is always there.
func (w Window) Check(t time.Time, lsn LSN) error {
	const inside = "choose a time or an LSN inside the window"
	switch {
	case t.IsZero() && lsn == 0:
		return nil
	case lsn == 0 && t.After(w.To.Time):
		return Invalid("time %s is in the future: it is outside the %s", clock(t), w).WithHint(inside)
	case lsn > w.To.LSN:
		return Invalid("LSN %s was never reached: it is outside the %s", lsn, w).WithHint(inside)
	case w.History <= 0:
		return Invalid("the project keeps no history, so that a branch has no past: its %s is the present alone", w).
			WithHint("leave out the time or LSN, and keep history from now on: tarn project update PROJECT --history 7d")
	case lsn == 0 && t.Before(w.From.Time) && w.Whole:
		return Invalid("time %s is before the branch began: it is outside the %s", clock(t), w).WithHint(inside)
	case lsn == 0 && t.Before(w.From.Time):
		return Invalid("time %s is longer ago than the history of %s that is kept: it is outside the %s", clock(t), Span(w.History), w).WithHint(inside)
	case lsn != 0 && lsn < w.From.LSN && w.Whole:
		return Invalid("LSN %s is before the branch began: it is outside the %s", lsn, w).WithHint(inside)
	case lsn != 0 && lsn < w.From.LSN:
		return Invalid("LSN %s is longer ago than the history of %s that is kept: it is outside the %s", lsn, Span(w.History), w).WithHint(inside)
	}
	return nil
}

// Span prints a length of time in days where it has whole ones: 7d, 36h30m0s.
func Span(d time.Duration) string {
	const day = 24 * time.Hour
	if d > 0 && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return d.String()
}
