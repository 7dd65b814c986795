package wal

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tarndb/tarn"
)

// Source is a timeline's WAL as one run of Postgres writes it.
type Source struct {
	Timeline     tarn.TimelineID
	Log          *Log
	TLI          uint32
	SegmentBytes uint32
	// Lease is the epoch of the timeline's lease. A run under a higher one ends
	// this one, and nothing that this one writes afterwards counts. 0 where
	// there are no leases.
	Lease uint64
	// Flushed asks Postgres how far its WAL is on disk: not a byte behind that
	// is read. Only Run calls it.
	Flushed func(context.Context) (tarn.LSN, error)
}

// Lag is what is not in the store yet.
type Lag struct {
	Bytes int64
	// Age is how long ago everything that was on disk was in the store too: what
	// the loss of this computer would cost now.
	Age time.Duration
}

// Uploader copies the WAL of one run to the store, in order.
//
//	idle ──attach──▶ copying ──▶ fenced: a later run has begun
//	 ▲ └────error, backoff──┘
//
// Its work is done by one goroutine at a time: the one in Run, and when that has
// returned the one in Finish.
type Uploader struct {
	r    *Remote
	s    Source
	kick chan struct{} // holds a token when Flush wants a step at once

	// Of the goroutine that works.
	run       run
	attached  bool
	announced bool // the run's marker is in the store
	next      tarn.LSN
	block     []stretch // what the store holds of the block that next lies in
	histories map[string]bool
	complete  bool      // all histories are in the store: they come with the start of Postgres
	looked    time.Time // when runs were last listed

	mu      sync.Mutex    // guards what follows; not held across I/O
	done    tarn.LSN      // everything before it is in the store
	flushed tarn.LSN      // Postgres's last answer
	asOf    time.Time     // when the newest answer was given that is in the store
	moved   chan struct{} // closed and replaced when done or asOf moves
}

// Uploader copies a timeline's WAL as long as its Run goes on.
func (r *Remote) Uploader(s Source) *Uploader {
	return &Uploader{r: r, s: s, kick: make(chan struct{}, 1), histories: map[string]bool{}, asOf: time.Now(), moved: make(chan struct{})}
}

const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
	// lookEvery is how often an uploader asks whether a later run has begun.
	// Nothing depends on it but the news.
	lookEvery = 30 * time.Second
)

// Run copies until ctx ends, which is no error. What goes wrong is logged once,
// and tried again after pauses that double. KindConflict: a later run has begun,
// and whoever holds this timeline here must let go of it.
func (u *Uploader) Run(ctx context.Context) error {
	retry, failed := firstRetry, false
	for {
		err := u.step(ctx)
		wait := u.r.o.Every
		switch {
		case ctx.Err() != nil:
			return nil
		case tarn.KindOf(err) == tarn.KindConflict:
			return err
		case err != nil:
			if !failed {
				u.r.log.Warn("WAL not copied", "timeline", string(u.s.Timeline), "lsn", u.next.String(), "err", err)
			}
			failed, wait = true, retry/2+rand.N(retry/2)
			retry = min(2*retry, lastRetry)
		default:
			if failed {
				u.r.log.Info("WAL copied again", "timeline", string(u.s.Timeline), "lsn", u.next.String())
			}
			retry, failed = firstRetry, false
		}
		if err := u.await(ctx, wait, failed); err != nil {
			return nil
		}
	}
}

// await waits for the next step; a kick shortens it unless the last one failed.
func (u *Uploader) await(ctx context.Context, d time.Duration, failed bool) error {
	kick := u.kick
	if failed {
		kick = nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-kick:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

func (u *Uploader) step(ctx context.Context) error {
	asked := time.Now()
	to, err := u.s.Flushed(ctx)
	if err != nil {
		return err
	}
	return u.copyTo(ctx, to, asked)
}

// Flush waits until everything before to is in the store, while Run goes on.
func (u *Uploader) Flush(ctx context.Context, to tarn.LSN) error {
	for {
		u.mu.Lock()
		done, moved := u.done, u.moved
		u.mu.Unlock()
		if done >= to {
			return nil
		}
		select {
		case u.kick <- struct{}{}:
		default: // there is one already
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("copy WAL of timeline %s up to %s: %w", u.s.Timeline, to, context.Cause(ctx))
		}
	}
}

// CatchUp waits, while Run goes on, until everything that is on disk now is in
// the store: until Postgres was asked after now, and what it said was copied.
// KindUnavailable when Run ends before: ended is closed then.
func (u *Uploader) CatchUp(ctx context.Context, ended <-chan struct{}) error {
	now := time.Now()
	for {
		u.mu.Lock()
		asOf, moved := u.asOf, u.moved
		u.mu.Unlock()
		if asOf.After(now) {
			return nil
		}
		select {
		case u.kick <- struct{}{}:
		default: // there is one already
		}
		select {
		case <-moved:
		case <-ended:
			return tarn.Unavailable("the WAL of timeline %s is not copied any more", u.s.Timeline)
		case <-ctx.Done():
			return fmt.Errorf("copy WAL of timeline %s: %w", u.s.Timeline, context.Cause(ctx))
		}
	}
}

// Finish copies the rest, up to where the log ended, after Run has returned and
// Postgres has stopped. It tries until ctx ends.
func (u *Uploader) Finish(ctx context.Context, end tarn.LSN) error {
	for retry := firstRetry; ; retry = min(2*retry, lastRetry) {
		err := u.copyTo(ctx, end, time.Now())
		if err == nil {
			return nil
		}
		if tarn.KindOf(err) == tarn.KindConflict || pause(ctx, retry/2+rand.N(retry/2)) != nil {
			return fmt.Errorf("copy WAL of timeline %s up to %s: %w", u.s.Timeline, end, err)
		}
	}
}

// Done is the position before which everything is in the store; 0 before the
// first step.
func (u *Uploader) Done() tarn.LSN {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.done
}

// Lag tells what is not in the store yet.
func (u *Uploader) Lag() Lag {
	u.mu.Lock()
	defer u.mu.Unlock()
	l := Lag{Age: time.Since(u.asOf)}
	if u.done != 0 && u.flushed > u.done {
		l.Bytes = int64(u.flushed - u.done)
	}
	return l
}

// copyTo brings everything before to into the store. asked is when Postgres
// said that it is on disk.
func (u *Uploader) copyTo(ctx context.Context, to tarn.LSN, asked time.Time) error {
	u.mu.Lock()
	u.flushed = to
	u.mu.Unlock()
	if !u.attached {
		if err := u.attach(ctx, to); err != nil {
			return err
		}
	}
	if u.next < to && time.Since(u.looked) >= lookEvery {
		if err := u.lookForLater(ctx); err != nil {
			return err
		}
	}
	if err := u.copyHistories(ctx); err != nil {
		return err
	}
	for u.next < to {
		if err := u.copyBlock(ctx, to, asked); err != nil {
			return err
		}
		u.progress(u.next, time.Time{})
	}
	u.progress(max(u.next, to), asked)
	return nil
}

// progress tells whoever waits how far the store reaches.
func (u *Uploader) progress(done tarn.LSN, asOf time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !asOf.IsZero() {
		u.asOf = asOf
	}
	if done != u.done || !asOf.IsZero() {
		u.done = done
		close(u.moved)
		u.moved = make(chan struct{})
	}
}

// A block of the store that has this many stretches becomes one, and a complete
// block that has more than a few.
const (
	mostStretches = 32
	fewStretches  = 4
)

// copyBlock copies the next bytes, up to the end of their block at most.
//
//  1. Announce the run, once. Crash: earlier runs are void from its beginning
//     on, where this computer has other bytes, or none have been written yet.
//  2. Write the new stretch; when the block has many, one from the block's
//     beginning on. Crash: it is whole or not there. Where it overlaps others it
//     says the same.
//  3. Delete those it contains. Crash: the next attach deletes them.
func (u *Uploader) copyBlock(ctx context.Context, to tarn.LSN, asked time.Time) error {
	seg := SegmentAt(u.s.TLI, u.next, u.s.SegmentBytes)
	begin := max(u.next/blockBytes*blockBytes, seg.Start(u.s.SegmentBytes))
	end := min(begin/blockBytes*blockBytes+blockBytes, seg.End(u.s.SegmentBytes))
	full := to >= end
	end = min(end, to)
	s := stretch{Run: u.run.ID, Segment: seg.Name(u.s.SegmentBytes), TLI: u.s.TLI, From: u.next, To: end}
	if n := len(u.block) + 1; n > mostStretches || full && n > fewStretches {
		s.From = begin
	}
	if err := u.announce(ctx); err != nil {
		return err
	}
	if err := u.copyStretch(ctx, s, asked); err != nil {
		return fmt.Errorf("copy WAL %s to %s: %w", s.From, s.To, err)
	}
	if s.From < u.next {
		if err := u.r.deleteStretches(ctx, u.s.Timeline, u.block, u.s.SegmentBytes); err != nil {
			u.r.log.Warn("merged WAL not deleted", "timeline", string(u.s.Timeline), "lsn", s.From.String(), "err", err)
		}
		u.block = nil
	}
	u.next, u.block = end, append(u.block, s)
	if full {
		u.block = nil
	}
	return nil
}

func (u *Uploader) copyStretch(ctx context.Context, s stretch, asked time.Time) error {
	release, err := u.r.slot(ctx)
	if err != nil {
		return err
	}
	defer release()
	b, err := u.s.Log.read(s.TLI, s.From, s.To, u.s.SegmentBytes)
	if err != nil {
		return err
	}
	h := header{
		Kind: kindStretch, Timeline: u.s.Timeline, Run: s.Run, TLI: s.TLI, SegmentBytes: u.s.SegmentBytes,
		From: s.From, To: s.To, Time: asked,
	}
	return u.r.put(ctx, u.r.dir(u.s.Timeline)+segmentDir+s.key(u.s.SegmentBytes), u.r.pack.pack(h, b))
}

// copyHistories copies the histories of TLIs that are not in the store.
func (u *Uploader) copyHistories(ctx context.Context) error {
	if u.complete {
		return nil
	}
	local, err := u.s.Log.histories()
	if err != nil {
		return err
	}
	for name, b := range local {
		if u.histories[name] {
			continue
		}
		h := header{Kind: kindHistory, Timeline: u.s.Timeline, Run: u.run.ID, TLI: u.s.TLI, SegmentBytes: u.s.SegmentBytes, Time: time.Now()}
		if err := u.r.put(ctx, u.r.dir(u.s.Timeline)+historyDir+name, u.r.pack.pack(h, b)); err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
		u.histories[name] = true
	}
	u.complete = true
	return nil
}
