package wal

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// attach finds out where to go on: it lists what is there, and compares the end
// of it with this computer's WAL. They differ when another computer wrote, or
// when this one was brought back from an older copy of its disk. It writes
// nothing, and the run is announced with its first bytes; but for the first run
// under a lease, which is announced at once: from then on nothing counts that
// whoever had the lease before still writes.
func (u *Uploader) attach(ctx context.Context, flushed tarn.LSN) error {
	h, err := u.r.list(ctx, u.s.Timeline, u.s.SegmentBytes)
	if err != nil {
		return err
	}
	no := uint32(0)
	for _, r := range h.Runs {
		if r.ID.Lease > u.s.Lease {
			return u.overtaken(r)
		}
		if r.ID.Lease == u.s.Lease {
			no = max(no, r.ID.No)
		}
	}
	oldest, err := u.s.Log.oldest(u.s.TLI, flushed, u.s.SegmentBytes)
	if err != nil {
		return err
	}
	c := coverOf(u.s.TLI, h.Runs, h.Stretches)
	start := oldest
	if len(c) > 0 && c[0].Lo > start && c[0].Lo <= flushed {
		start = c[0].Lo // what was before has been pruned there
	}
	reach := c.reach(start)
	next, err := u.agreement(ctx, c.within(start, reach), min(reach, flushed), flushed)
	if err != nil {
		return fmt.Errorf("compare WAL with the object store's: %w", err)
	}
	if next < reach {
		u.r.log.Warn("the object store has other WAL of the timeline; it is overwritten",
			"timeline", string(u.s.Timeline), "lsn", next.String(), "count", int64(reach-next))
	}
	var nonce [4]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return err
	}
	u.run = run{ID: runID{Lease: u.s.Lease, No: u.r.nextRun(u.s.Timeline, no), Nonce: binary.LittleEndian.Uint32(nonce[:])}, TLI: u.s.TLI, Begin: next}
	for _, name := range h.Histories {
		u.histories[name] = true
	}
	u.dropVoid(ctx, c, h.Stretches)
	u.attached, u.next, u.looked, u.block = true, next, time.Now(), nil
	for _, p := range c.within(next/blockBytes*blockBytes, next) {
		if p.To <= next && p.Segment == SegmentAt(u.s.TLI, next, u.s.SegmentBytes).Name(u.s.SegmentBytes) {
			u.block = append(u.block, p.stretch)
		}
	}
	if slices.ContainsFunc(h.Runs, func(r run) bool { return r.ID.Lease < u.s.Lease }) && no == 0 {
		if err := u.announce(ctx); err != nil {
			u.attached = false
			return err
		}
	}
	u.progress(next, time.Time{})
	return nil
}

// dropVoid deletes stretches of which nothing is read: merged ones that a crash
// left, and those of a run that was overtaken. It may fail: they do no harm.
func (u *Uploader) dropVoid(ctx context.Context, c cover, all []stretch) {
	read := map[string]bool{}
	for _, p := range c {
		read[p.key(u.s.SegmentBytes)] = true
	}
	var void []stretch
	for _, s := range all {
		if s.TLI == u.s.TLI && !read[s.key(u.s.SegmentBytes)] {
			void = append(void, s)
		}
	}
	if err := u.r.deleteStretches(ctx, u.s.Timeline, void, u.s.SegmentBytes); err != nil {
		u.r.log.Warn("void WAL not deleted", "timeline", string(u.s.Timeline), "err", err)
	}
}

// enoughAgrees is two pages of WAL: headers and records.
const enoughAgrees = 16 << 10

// agreement is the position up to which the store says what this computer's WAL
// says. It looks at segments from the last one back, until enough of one agrees:
// every record carries the position of the one before it, so histories that have
// parted do not meet again. A few bytes may: a segment begins with a header that
// says nothing of what was before.
func (u *Uploader) agreement(ctx context.Context, c cover, end, flushed tarn.LSN) (tarn.LSN, error) {
	for len(c) > 0 {
		last := len(c) - 1
		first := last
		for first > 0 && c[first-1].Segment == c[last].Segment {
			first--
		}
		agreed, length := true, tarn.LSN(0)
		for _, p := range c[first:] {
			length += p.Hi - p.Lo
			same, err := u.same(ctx, p, flushed)
			if err != nil {
				return 0, err
			}
			if !same {
				end, agreed = min(end, p.Lo), false
				break
			}
		}
		if agreed && length >= enoughAgrees {
			return end, nil
		}
		c = c[:first]
	}
	return end, nil
}

// same compares a piece with local WAL. A piece that cannot be read whole any
// more is another one: it is written again.
func (u *Uploader) same(ctx context.Context, p piece, flushed tarn.LSN) (bool, error) {
	if p.Hi > flushed {
		return false, nil
	}
	local, err := u.s.Log.read(p.TLI, p.Lo, p.Hi, u.s.SegmentBytes)
	if err != nil {
		return false, err
	}
	key := u.r.dir(u.s.Timeline) + segmentDir + p.key(u.s.SegmentBytes)
	if p.Lo == p.From && p.Hi == p.To {
		b, err := u.r.get(ctx, key, headerBytes)
		if err != nil {
			return false, err
		}
		h, err := parseHeader(key, b)
		if err == nil {
			err = p.isSaidBy(key, h, u.s.Timeline, u.s.SegmentBytes)
		}
		if errors.Is(err, layer.ErrCorrupt) || err == nil && int64(h.stored)+headerBytes != p.Size {
			return false, nil
		}
		return err == nil && h.Sum == castagnoli(local), err
	}
	_, there, err := u.r.read(ctx, u.s.Timeline, p.stretch, u.s.SegmentBytes)
	if errors.Is(err, layer.ErrCorrupt) {
		return false, nil
	}
	return err == nil && bytes.Equal(there[p.Lo-p.From:p.Hi-p.From], local), err
}

// announce writes the run's marker.
func (u *Uploader) announce(ctx context.Context) error {
	if u.announced {
		return nil
	}
	h := header{
		Kind: kindRun, Timeline: u.s.Timeline, Run: u.run.ID, TLI: u.run.TLI, SegmentBytes: u.s.SegmentBytes,
		From: u.run.Begin, To: u.run.Begin, Time: time.Now(),
	}
	if err := u.r.put(ctx, u.r.dir(u.s.Timeline)+runDir+u.run.key(), u.r.pack.pack(h, nil)); err != nil {
		return fmt.Errorf("begin to copy WAL: %w", err)
	}
	u.announced = true
	return nil
}

// lookForLater refuses when a later run has begun.
func (u *Uploader) lookForLater(ctx context.Context) error {
	runs, err := u.r.runs(ctx, u.s.Timeline)
	if err != nil {
		return err
	}
	for _, r := range runs {
		if r.ID.compare(u.run.ID) > 0 {
			return u.overtaken(r)
		}
	}
	u.looked = time.Now()
	return nil
}

func (u *Uploader) overtaken(by run) error {
	return tarn.Conflict("another Postgres writes the WAL of timeline %s to the object store: its run %s began at %s", u.s.Timeline, by.ID, by.Begin)
}
