package plaindir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/tarndb/tarn"
)

// base is a copy of a running data directory that is being made.
type base struct {
	seq    tarn.Seq
	cancel context.CancelFunc
	done   chan struct{}
	err    error // set before done is closed
}

// ready tells whether it is made.
func (b *base) ready() bool {
	select {
	case <-b.done:
		return b.err == nil
	default:
		return false
	}
}

// Pin gives a point to mark. While the directory is shown that is a base, which
// is made meanwhile: Pin begins one when one is due, and a later Pin gives it.
// ok is false when there is none to mark now. The LSN and the time of the mark
// must be read after Pin returned.
func (v *Volume) Pin(ctx context.Context) (seq tarn.Seq, ok bool, err error) {
	if err := v.enter(ctx); err != nil {
		return 0, false, err
	}
	defer v.leave()
	s := v.store
	man := s.manifest(v.of)
	if v.link == "" {
		return man.Head, true, nil
	}
	if b := v.base; b != nil {
		select {
		case <-b.done:
		default:
			return 0, false, nil
		}
		if b.err == nil {
			return b.seq, true, nil
		}
		v.base, v.failed = nil, time.Now()
		s.log.Warn("base not kept; forks at a past time replay more WAL", "timeline", string(v.of.id), "err", b.err)
		return 0, false, nil
	}
	if due, err := v.baseDue(man, time.Now()); err != nil || !due {
		return 0, false, err
	}
	man = man.with()
	b := &base{seq: man.Head, done: make(chan struct{})}
	// So that neither a mark nor another base has its seq. It becomes durable
	// with the next mark; until then the base is litter anyhow.
	man.Head++
	s.mu.Lock()
	v.of.man = man
	s.mu.Unlock()
	// It outlives this call; Hide ends it and waits.
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b.cancel = cancel
	v.base = b
	go func() {
		defer close(b.done)
		defer cancel()
		b.err = s.keepBase(background, v.of, b.seq, Running)
	}()
	return 0, false, nil
}

// baseDue tells whether the running directory should be copied once more.
func (v *Volume) baseDue(man *manifest, now time.Time) (bool, error) {
	if v.store.history(man) <= 0 {
		return false, nil
	}
	bases := man.bases()
	every := v.store.o.BaseEvery
	if n := len(bases); n > 0 && now.Sub(bases[n-1].Time) < every || now.Sub(v.failed) < every {
		return false, nil
	}
	if v.store.reflink {
		return true, nil
	}
	size, err := diskUsage(v.Dir())
	if err != nil {
		return false, err
	}
	total, free, err := usage(v.store.dir)
	if err != nil {
		return false, err
	}
	if free-size >= max(total/10, size) {
		v.crowded = false
		return true, nil
	}
	if !v.crowded {
		v.crowded = true
		v.store.log.Warn("no room for another base; forks at a past time replay more WAL", "timeline", string(v.of.id))
	}
	return false, nil
}

// keepBase copies data to bases/<seq>. It belongs to the timeline once a mark
// in the manifest names it.
//
//  1. bases/<seq>.making, copied and synced   crash: Open removes it
//  2. rename to bases/<seq>, sync bases       crash: the same, without a mark
func (s *Store) keepBase(ctx context.Context, t *timeline, seq tarn.Seq, from Activity) error {
	began := time.Now()
	if err := os.Mkdir(s.path(t.id, "bases"), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	dir := s.basePath(t.id, seq)
	err := errors.Join(discard(dir+making), discard(dir))
	if err == nil {
		err = s.copyTree(ctx, s.path(t.id, "data"), dir+making, from, t.id)
	}
	if err == nil {
		err = settleName(dir)
	}
	if err == nil {
		err = syncDir(s.path(t.id))
	}
	if err != nil {
		return errors.Join(err, discard(dir+making), discard(dir))
	}
	s.log.Info("base kept", "timeline", string(t.id), "took", time.Since(began))
	return nil
}

// thin takes the bases out of a manifest that are older than any fork needs, or
// closer to their neighbours than is worth their space. It returns what it took
// out.
func (s *Store) thin(man *manifest) []tarn.Seq {
	drop := pace{s.o.BaseEvery, s.reflink}.surplus(man.bases(), time.Now(), s.history(man))
	return takeOut(man, func(k mark) bool { return drop[k.Seq] })
}

// history is how far back a timeline can be forked.
func (s *Store) history(man *manifest) time.Duration {
	if man.History != nil {
		return *man.History
	}
	return s.o.History
}

// takeOut removes bases from a manifest that is not in use yet.
func takeOut(man *manifest, drop func(mark) bool) []tarn.Seq {
	var dropped []tarn.Seq
	man.Marks = slices.DeleteFunc(man.Marks, func(k mark) bool {
		out := k.Base && drop(k)
		if out {
			dropped = append(dropped, k.Seq)
		}
		return out
	})
	return dropped
}

// pace is how often bases are kept and how.
type pace struct {
	every   time.Duration
	reflink bool
}

// gap is how far apart bases of an age should be. Copies are few: the oldest,
// the newest and two or three between.
func (p pace) gap(age, history time.Duration) time.Duration {
	switch {
	case !p.reflink:
		return max(history/2, p.every)
	case age < time.Hour:
		return p.every
	case age < 24*time.Hour:
		return max(time.Hour, p.every)
	}
	return max(24*time.Hour, p.every)
}

// surplus finds the bases, in the order of time, that nobody needs: those before
// the newest one that is as old as the history, and of the others those less
// than a gap behind the last one kept. The newest stays.
func (p pace) surplus(bases []mark, now time.Time, history time.Duration) map[tarn.Seq]bool {
	drop := make(map[tarn.Seq]bool)
	first := 0
	for i, k := range bases {
		if now.Sub(k.Time) >= history {
			first = i
		}
	}
	for i, last := 0, first; i < len(bases)-1; i++ {
		switch {
		case i < first, i > first && bases[i].Time.Sub(bases[last].Time) < p.gap(now.Sub(bases[i].Time), history):
			drop[bases[i].Seq] = true
		default:
			last = i
		}
	}
	return drop
}

// dropBases removes directories that the manifest does not name any more, those
// that are being copied when that has ended. What it cannot remove goes at the
// next Open.
func (s *Store) dropBases(t *timeline, seqs []tarn.Seq) {
	for _, seq := range seqs {
		s.mu.Lock()
		read := t.readers[seq] > 0
		if !read {
			delete(t.readers, seq)
		}
		s.mu.Unlock()
		if read {
			continue
		}
		if err := discard(s.basePath(t.id, seq)); err != nil {
			s.log.Warn("base not removed", "timeline", string(t.id), "path", s.basePath(t.id, seq), "err", err)
		}
	}
}

// SetHistory changes how far back a timeline is to be forked; 0 = not at all.
// Bases that only a longer history needs go.
func (s *Store) SetHistory(ctx context.Context, id tarn.TimelineID, d time.Duration) error {
	t, err := s.take(ctx, id)
	if err != nil {
		return fmt.Errorf("set the history of timeline %s: %w", id, err)
	}
	defer t.pass()
	s.mu.Lock()
	v := t.volume
	s.mu.Unlock()
	if v != nil {
		if err := v.enter(ctx); err != nil {
			return fmt.Errorf("set the history of timeline %s: %w", id, err)
		}
		defer v.leave()
	}
	man := s.manifest(t).with()
	if man.History != nil && *man.History == d {
		return nil
	}
	man.History = &d
	dropped := s.thin(man)
	if err := s.replace(t, man); err != nil {
		return err
	}
	s.dropBases(t, dropped)
	return nil
}
