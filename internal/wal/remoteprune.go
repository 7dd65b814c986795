package wal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tarndb/tarn"
)

// deleteAtOnce is how many objects one request deletes.
const deleteAtOnce = 500

func (r *Remote) deleteStretches(ctx context.Context, id tarn.TimelineID, all []stretch, size uint32) error {
	keys := make([]string, 0, len(all))
	for _, s := range all {
		keys = append(keys, r.dir(id)+segmentDir+s.key(size))
	}
	return r.delete(ctx, keys)
}

func (r *Remote) delete(ctx context.Context, keys []string) error {
	for some := range slices.Chunk(keys, deleteAtOnce) {
		if err := r.store.Delete(ctx, some...); err != nil {
			return err
		}
	}
	return nil
}

// Prune removes what lies in segments that end at or before keep and was
// uploaded before old: the rule of Log.Prune. It returns how many objects.
//
//  1. Delete stretches, the oldest first. Crash: the rest begins later.
//  2. Delete markers of runs that void nothing any more. The last one stays: it
//     is what the next is later than.
func (r *Remote) Prune(ctx context.Context, id tarn.TimelineID, keep Start, old time.Time) (int, error) {
	h, err := r.list(ctx, id, keep.SegmentBytes)
	if err != nil {
		return 0, err
	}
	var gone, stay []stretch
	for _, s := range h.Stretches {
		if SegmentAt(s.TLI, s.From, keep.SegmentBytes).End(keep.SegmentBytes) <= keep.LSN && s.Uploaded.Before(old) {
			gone = append(gone, s)
		} else {
			stay = append(stay, s)
		}
	}
	slices.SortFunc(gone, func(a, b stretch) int { return cmp.Compare(a.From, b.From) })
	if err := r.deleteStretches(ctx, id, gone, keep.SegmentBytes); err != nil {
		return 0, fmt.Errorf("prune remote WAL of timeline %s: %w", id, err)
	}
	var markers []string
	for _, m := range h.Runs {
		if !m.isNeeded(h.Runs, stay) && m.Begin <= keep.LSN {
			markers = append(markers, r.dir(id)+runDir+m.key())
		}
	}
	if err := r.delete(ctx, markers); err != nil {
		return len(gone), fmt.Errorf("prune remote WAL of timeline %s: %w", id, err)
	}
	return len(gone) + len(markers), nil
}

// isNeeded tells whether a run's marker still says something: that it is the
// last, or that what an earlier run wrote is void.
func (m run) isNeeded(runs []run, stay []stretch) bool {
	last := !slices.ContainsFunc(runs, func(o run) bool { return o.ID.compare(m.ID) > 0 })
	return last || slices.ContainsFunc(stay, func(s stretch) bool {
		return s.TLI == m.TLI && s.Run.compare(m.ID) < 0 && s.To > m.Begin
	})
}

// HasAged tells whether the store holds WAL uploaded before old: only then is it
// worth finding out what may go.
func (r *Remote) HasAged(ctx context.Context, id tarn.TimelineID, old time.Time) (bool, error) {
	for o, err := range r.store.List(ctx, r.dir(id)+segmentDir, "") {
		if err != nil {
			return false, fmt.Errorf("look for old WAL of timeline %s: %w", id, err)
		}
		return o.ModTime.Before(old), nil // the first is the oldest segment
	}
	return false, nil
}

// Remove deletes everything of a timeline. It may be called again after a crash;
// nobody may be copying the timeline's WAL meanwhile.
func (r *Remote) Remove(ctx context.Context, id tarn.TimelineID) error {
	if _, err := tarn.ParseTimelineID(string(id)); err != nil {
		return err
	}
	var keys []string
	for o, err := range r.store.List(ctx, r.dir(id)+"/", "") {
		if err != nil {
			return fmt.Errorf("remove remote WAL of timeline %s: %w", id, err)
		}
		keys = append(keys, o.Key)
	}
	if err := r.delete(ctx, keys); err != nil {
		return fmt.Errorf("remove remote WAL of timeline %s: %w", id, err)
	}
	return nil
}

// Trim removes archived segments, the oldest first, until the archive has at
// most bytes; only such that end at or before copied, which are in an object
// store and come back with Remote.Fetch. It returns how many.
func (l *Log) Trim(ctx context.Context, copied tarn.LSN, size uint32, bytes int64) (int, error) {
	all, err := l.agedSegments(size, time.Now().Add(time.Hour))
	if err != nil {
		return 0, fmt.Errorf("trim WAL archive: %w", err)
	}
	n, over := 0, int64(len(all))*int64(size)-bytes
	for _, s := range all {
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		if over <= 0 || s.End(size) > copied {
			break
		}
		if err := os.Remove(filepath.Join(l.archive(), s.Name(size))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return n, fmt.Errorf("trim WAL archive: %w", err)
		}
		n, over = n+1, over-int64(size)
	}
	return n, nil
}

// isTemporary tells whether a file in the archive is one that a crash left while
// it was being fetched.
func isTemporary(name string) bool { return strings.HasPrefix(name, fetchPrefix) }
