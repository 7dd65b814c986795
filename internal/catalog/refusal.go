package catalog

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
)

// refusals bounds what strangers can write into an audit: of refusals that are
// alike, the first of a minute is recorded at once and the others are counted,
// and so are all beyond refusalsAMinute.
type refusals struct {
	mu    sync.Mutex // not held across I/O
	since time.Time  // when the minute began
	by    map[Event]*refusal
}

type refusal struct {
	event Event
	more  int // that were counted, not recorded
	last  time.Time
}

// refusalsAMinute is how many refusals that differ are recorded in a minute.
const refusalsAMinute = 60

// Refused keeps a refusal at a door that everybody reaches. Those that are
// alike (all but their time) within a minute become two rows: the first, and one
// that says how many more there were, which is in memory until the minute is
// over.
func (a *Audit) Refused(ctx context.Context, e Event) error {
	e.bound()
	k := e
	k.Time, k.Date, k.ID, k.RequestID = time.Time{}, "", "", ""
	if !a.refusals.first(k, e) {
		return nil
	}
	return a.Record(ctx, e)
}

// first enters a refusal, and says whether it is to be recorded itself.
func (r *refusals) first(k, e Event) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by == nil {
		r.by, r.since = map[Event]*refusal{}, e.Time
	}
	one := r.by[k]
	if one == nil && len(r.by) < refusalsAMinute {
		r.by[k] = &refusal{event: e}
		return true
	}
	if one == nil {
		k = Event{Service: e.Service, Action: e.Action, Status: e.Status, Error: "other refusals of this minute"}
		if one = r.by[k]; one == nil {
			one = &refusal{event: k}
			r.by[k] = one
		}
	}
	one.more, one.last = one.more+1, e.Time
	return false
}

// count records how many refusals were not recorded, once their minute is over.
func (a *Audit) count(ctx context.Context, now time.Time) error {
	r := &a.refusals
	r.mu.Lock()
	if r.by == nil || now.Sub(r.since) < time.Minute {
		r.mu.Unlock()
		return nil
	}
	all, since := r.by, r.since
	r.by = nil
	r.mu.Unlock()
	for k, one := range all {
		if one.more == 0 {
			continue
		}
		e := one.event
		e.ID, e.Time, e.RequestID = uuid.NewString(), one.last, ""
		if e.Detail != "" {
			e.Detail += " "
		}
		e.Detail += fmt.Sprintf("count=%d since=%s", one.more, since.UTC().Format(time.RFC3339))
		if err := a.Record(ctx, e); err != nil {
			return fmt.Errorf("count of refusals of %s: %w", k.Action, err)
		}
	}
	return nil
}
