package tarn

import (
	"log/slog"
	"time"
)

// Step is a part of a longer work, and how long it took.
type Step struct {
	Name string        `json:"name"`
	Took time.Duration `json:"took"`
}

// Steps times a work whose parts follow one another. It is for one goroutine;
// a nil one times nothing.
type Steps struct {
	began, last time.Time
	all         []Step
}

// BeginSteps begins to time.
func BeginSteps() *Steps {
	now := time.Now()
	return &Steps{began: now, last: now}
}

// StepsOf are parts that were timed before.
func StepsOf(parts []Step) *Steps { return &Steps{all: parts} }

// Done ends a part, which began where the one before it ended.
func (s *Steps) Done(name string) {
	if s == nil {
		return
	}
	now := time.Now()
	s.all = append(s.all, Step{Name: name, Took: now.Sub(s.last)})
	s.last = now
}

// Add enters parts that somebody else has timed since the last one ended.
func (s *Steps) Add(parts ...Step) {
	if s == nil {
		return
	}
	s.all = append(s.all, parts...)
	s.last = time.Now()
}

// All are the parts so far.
func (s *Steps) All() []Step {
	if s == nil {
		return nil
	}
	return s.all
}

// Took is the time from the beginning to the end of the last part.
func (s *Steps) Took() time.Duration { return s.last.Sub(s.began) }

// LogValue groups the parts by their names, in milliseconds.
func (s *Steps) LogValue() slog.Value {
	var parts []slog.Attr
	for _, p := range s.All() {
		parts = append(parts, slog.Float64(p.Name, Milliseconds(p.Took)))
	}
	return slog.GroupValue(parts...)
}

// Milliseconds of a duration, to the hundredth.
func Milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond).Microseconds()) / 1000
}
