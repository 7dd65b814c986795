package wal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/layer"
)

// fetchPrefix begins the names of files on their way; a crash leaves them.
const fetchPrefix = "fetch-"

// Fetch brings the segments of a range that log lacks into its archive, whole,
// so that log can be forked and replayed from as if they had never left. What
// is there already is not asked for. One Fetch at a time works on a log.
//
//  1. Write each to a file of another name, several at once. Crash: litter, which
//     the next Fetch removes.
//  2. Link it into the archive. Crash: it is there, or is fetched again.
func (r *Remote) Fetch(ctx context.Context, id tarn.TimelineID, log *Log, g Range) error {
	all, last, cut := g.segments()
	if cut > 0 {
		all = append(all, last)
	}
	var lacking []Segment
	for _, s := range all {
		_, err := log.find(s.Name(g.SegmentBytes))
		if tarn.KindOf(err) == tarn.KindNotFound {
			lacking = append(lacking, s)
		} else if err != nil {
			return fmt.Errorf("fetch WAL %s to %s: %w", g.From, g.To, err)
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	err := log.clearFetched()
	if err == nil {
		// All of a segment, or nothing: the archive holds finished ones only.
		err = r.fetch(ctx, id, log, lacking, ^tarn.LSN(0), g.SegmentBytes, log.archive())
	}
	if err != nil {
		return fmt.Errorf("fetch WAL %s to %s: %w", g.From, g.To, err)
	}
	return nil
}

// Rebuild makes an empty log what it was on a computer that is gone: g goes to
// pg_wal, and not one byte behind g.To, for an ordinary recovery. A crash
// leaves a log that nobody uses; remove it and begin again.
func (r *Remote) Rebuild(ctx context.Context, id tarn.TimelineID, log *Log, g Range) error {
	if err := r.rebuild(ctx, id, log, g); err != nil {
		return fmt.Errorf("rebuild WAL %s to %s of timeline %s: %w", g.From, g.To, id, err)
	}
	return nil
}

func (r *Remote) rebuild(ctx context.Context, id tarn.TimelineID, log *Log, g Range) error {
	if g.To < g.From || g.SegmentBytes == 0 {
		return tarn.Invalid("range %s to %s of segments of %d bytes is none", g.From, g.To, g.SegmentBytes)
	}
	if err := log.Create(); err != nil {
		return err
	}
	if have, err := log.segments(g.SegmentBytes); err != nil || len(have) > 0 {
		return errors.Join(err, tarn.Conflict("there is WAL already in %s", log.dir))
	}
	all, last, cut := g.segments()
	if cut > 0 {
		all = append(all, last)
	}
	if err := r.fetch(ctx, id, log, all, g.To, g.SegmentBytes, log.Dir()); err != nil {
		return err
	}
	if err := r.fetchHistories(ctx, id, log, g.SegmentBytes); err != nil {
		return err
	}
	return log.Sync()
}

// fetch writes segments, in parallel, with zeros behind to, into dir. Stretches
// may be merged by whoever copies the timeline meanwhile: then it looks again.
func (r *Remote) fetch(ctx context.Context, id tarn.TimelineID, log *Log, all []Segment, to tarn.LSN, size uint32, dir string) error {
	const looks = 4
	for look := 1; ; look++ {
		err := r.fetchListed(ctx, id, log, all, to, size, dir)
		if err == nil {
			return syncDir(dir)
		}
		if look == looks || !errors.Is(err, blob.ErrNotExist) {
			return err
		}
	}
}

func (r *Remote) fetchListed(ctx context.Context, id tarn.TimelineID, log *Log, all []Segment, to tarn.LSN, size uint32, dir string) error {
	h, err := r.list(ctx, id, size)
	if err != nil {
		return err
	}
	covers := map[uint32]cover{}
	for _, s := range all {
		if _, ok := covers[s.TLI]; !ok {
			covers[s.TLI] = coverOf(s.TLI, h.Runs, h.Stretches)
		}
	}
	for _, s := range all {
		if err := covers[s.TLI].check(id, s.upTo(to, size)); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(cap(r.slots))
	for _, s := range all {
		g := s.upTo(to, size)
		c := covers[s.TLI].within(g.From, g.To)
		group.Go(func() error { return r.fetchSegment(ctx, id, log, s, c, size, dir) })
	}
	return group.Wait()
}

// upTo is the segment's range up to a position at most.
func (s Segment) upTo(to tarn.LSN, size uint32) Range {
	return Range{TLI: s.TLI, From: s.Start(size), To: min(to, s.End(size)), SegmentBytes: size}
}

// fetchSegment writes one segment and gives it its name when it is whole.
func (r *Remote) fetchSegment(ctx context.Context, id tarn.TimelineID, log *Log, s Segment, c cover, size uint32, dir string) (err error) {
	tmp := filepath.Join(dir, fetchPrefix+s.Name(size))
	out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close(), removed(tmp)) }()
	if log.owner != nil {
		if err := out.Chown(log.owner.UID, log.owner.GID); err != nil {
			return err
		}
	}
	var uploaded time.Time
	for _, p := range c {
		if err := r.fetchPiece(ctx, id, out, p, s.Start(size), size); err != nil {
			return err
		}
		if p.Uploaded.After(uploaded) {
			uploaded = p.Uploaded
		}
	}
	if err := errors.Join(out.Truncate(int64(size)), out.Sync()); err != nil {
		return err
	}
	// Its age is that of what it holds, for Prune.
	if err := os.Chtimes(tmp, uploaded, uploaded); err != nil {
		return err
	}
	return linkOver(tmp, filepath.Join(dir, s.Name(size)))
}

func (r *Remote) fetchPiece(ctx context.Context, id tarn.TimelineID, out *os.File, p piece, start tarn.LSN, size uint32) error {
	release, err := r.slot(ctx)
	if err != nil {
		return err
	}
	defer release()
	b, err := retried(ctx, func() ([]byte, error) {
		_, b, err := r.read(ctx, id, p.stretch, size)
		return b, err
	})
	if err != nil {
		return fmt.Errorf("read WAL %s to %s: %w", p.From, p.To, err)
	}
	_, err = out.WriteAt(b[p.Lo-p.From:p.Hi-p.From], int64(p.Lo-start))
	return err
}

func (r *Remote) fetchHistories(ctx context.Context, id tarn.TimelineID, log *Log, size uint32) error {
	h, err := r.list(ctx, id, size)
	if err != nil {
		return err
	}
	for _, name := range h.Histories {
		key := r.dir(id) + historyDir + name
		b, err := retried(ctx, func() ([]byte, error) { return r.get(ctx, key, -1) })
		if err != nil {
			return err
		}
		_, text, err := r.pack.parseObject(key, b)
		if err != nil {
			return err
		}
		path := filepath.Join(log.Dir(), name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
		if log.owner != nil {
			if err := os.Chown(path, log.owner.UID, log.owner.GID); err != nil {
				return err
			}
		}
	}
	return nil
}

// retried reads a few times: a store may fail once. What is not there, or is
// broken, stays so.
func retried[T any](ctx context.Context, read func() (T, error)) (v T, err error) {
	wait := firstRetry / 10
	for range 4 {
		if v, err = read(); err == nil || ctx.Err() != nil || errors.Is(err, blob.ErrNotExist) || errors.Is(err, layer.ErrCorrupt) {
			return v, err
		}
		if pause(ctx, wait) != nil {
			return v, err
		}
		wait *= 3
	}
	return v, err
}

// clearFetched removes what a crash left of a Fetch.
func (l *Log) clearFetched() error {
	entries, err := os.ReadDir(l.archive())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if isTemporary(e.Name()) {
			if err := os.Remove(filepath.Join(l.archive(), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func removed(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
