package pagestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tarndb/tarn"
)

const (
	// lookEvery is how often the background looks for work.
	lookEvery = time.Second
	// collectLeast is how much garbage is worth a collection, however small the
	// timeline is.
	collectLeast = 8 << 20
	// expireEvery is how often marks may leave the window for that alone to be
	// worth a collection.
	expireEvery = time.Hour
	// compactRound is how many images of a timeline are written before others
	// have their turn.
	compactRound = 8
)

// Run does the work of the background until ctx ends: it writes maps of volumes
// whose log has grown, and collects and compacts timelines, open or idle. An error of one
// timeline is logged; the others go on.
func (s *Store) Run(ctx context.Context) error {
	if s.remote != nil {
		var both sync.WaitGroup
		defer both.Wait()
		both.Go(func() { s.remote.heart.run(ctx) })
		both.Go(func() { s.remote.run(ctx) })
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.kick:
		case <-tick.C:
		}
		s.mu.Lock()
		all := make([]*timeline, 0, len(s.timelines))
		for _, t := range s.timelines {
			all = append(all, t)
		}
		s.mu.Unlock()
		slices.SortFunc(all, func(a, b *timeline) int { return cmp.Compare(a.id, b.id) })
		for _, t := range all {
			err := s.tend(ctx, t)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil && !errors.Is(err, errClosed) && tarn.KindOf(err) != tarn.KindNotFound {
				s.slog.Warn("background work", "timeline", t.id, "err", err)
				s.later(t)
			}
		}
	}
}

// tend does what a timeline needs now.
func (s *Store) tend(ctx context.Context, t *timeline) error {
	v, collect := s.needs(t, time.Now())
	if v != nil && v.ix.behind.Load() >= s.options.MapBytes {
		if err := s.mapVolume(ctx, v); err != nil {
			return err
		}
	}
	if collect {
		if _, err := s.collect(ctx, t); err != nil {
			return err
		}
	}
	for range compactRound {
		if !s.unordered(t, time.Now()) {
			return nil
		}
		if _, err := compact(ctx, s, t, (*stretch).worth); err != nil {
			return err
		}
		if _, collect := s.needs(t, time.Now()); collect { // what that left behind
			if _, err := s.collect(ctx, t); err != nil {
				return err
			}
		}
	}
	return nil
}

// needs says whether a timeline is open, and whether to collect it.
func (s *shelf) needs(t *timeline, now time.Time) (v *Volume, collect bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !t.remote.writable() || t.state != stateIdle && t.state != stateHeld && t.state != stateGhost || now.Before(t.notBefore) {
		return nil, false
	}
	v = t.volume
	dead, bytes := t.dead, int64(0)
	for _, l := range t.man.Layers {
		bytes += l.Bytes
	}
	if v != nil {
		dead += v.ix.dead.Load()
		bytes += v.ix.behind.Load()
	}
	switch {
	case t.due:
		return v, true
	case dead >= collectLeast && dead >= bytes/4:
		return v, true
	case now.Sub(t.man.Swept.Time) < expireEvery || t.state == stateGhost:
		return v, false
	}
	// Marks that have left the window since the last collection hold pages.
	old := retained(t.man.Swept.Marks, now, s.window(t.man))
	return v, len(old) < len(t.man.Swept.Marks)
}

// later keeps a timeline that made trouble from making it every second.
func (s *shelf) later(t *timeline) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.notBefore = time.Now().Add(time.Minute)
}

// SetHistory says how far back points of a timeline can be forked; negative is
// what the store's options say. What falls out of the window is collected.
func (s *Store) SetHistory(ctx context.Context, id tarn.TimelineID, d time.Duration) error {
	t, err := s.take(ctx, id)
	if err != nil {
		return fmt.Errorf("set history of timeline %s: %w", id, err)
	}
	defer t.pass()
	s.mu.Lock()
	same, open := t.man.History == max(d, -1), t.volume != nil
	s.mu.Unlock()
	if same {
		return nil
	}
	if !open {
		if err := s.remote.own(ctx, t); err != nil {
			return fmt.Errorf("set history of timeline %s: %w", id, err)
		}
	}
	if err := s.amend(t, func(m *manifest) { m.History = max(d, -1) }); err != nil {
		return fmt.Errorf("set history of timeline %s: %w", id, err)
	}
	s.mu.Lock()
	t.due = true
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default:
	}
	return nil
}
