package delta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/tarndb/tarn/internal/blob"
)

// AtTime gives the snapshot that was the latest at a time: the newest version
// committed at or before it. Times are the in-commit timestamps where the table
// keeps them, and those of the log's files where not. ErrNoVersion when the
// first version that can be read is younger.
func (t *Table) AtTime(ctx context.Context, at time.Time) (*Snapshot, error) {
	newest, err := t.Latest(ctx)
	if err != nil {
		return nil, err
	}
	version, err := t.versionAt(ctx, newest, at)
	if err != nil {
		return nil, fmt.Errorf("%s at %s: %w", t.name(), at.UTC().Format(time.RFC3339Nano), err)
	}
	if version == newest.version {
		return newest, nil
	}
	return t.At(ctx, version)
}

func (t *Table) versionAt(ctx context.Context, newest *Snapshot, at time.Time) (int64, error) {
	if !newest.Time().After(at) {
		return newest.version, nil
	}
	g, err := t.listSegment(ctx, newest.version, 0)
	if err != nil {
		return 0, err
	}
	versions := make([]int64, 0, len(g.commits))
	for v := range g.commits {
		versions = append(versions, v)
	}
	slices.Sort(versions)
	if len(versions) == 0 {
		return 0, fmt.Errorf("no commit is left: %w", ErrNoVersion)
	}
	// Commits from which on the log itself tells the time.
	first := int64(-1)
	if newest.truth("delta.enableInCommitTimestamps") {
		first = 0
		if n, err := strconv.ParseInt(propertyOf(newest.state.metadata.Configuration, "delta.inCommitTimestampEnablementVersion"), 10, 64); err == nil {
			first = n
		}
	}
	// Files of the log may have been copied out of order: as Delta does, a
	// version is never older than the one before.
	stamps := make(map[int64]time.Time, len(versions))
	var last time.Time
	for _, v := range versions {
		stamp := g.commits[v].ModTime.UTC()
		if !stamp.After(last) {
			stamp = last.Add(time.Millisecond)
		}
		stamps[v], last = stamp, stamp
	}
	var bad error
	i, exact := slices.BinarySearchFunc(versions, at, func(v int64, at time.Time) int {
		if first < 0 || v < first {
			return cmp.Compare(stamps[v].UnixMicro(), at.UnixMicro())
		}
		stamp, err := t.inCommitTime(ctx, v)
		if err != nil && bad == nil {
			bad = err
		}
		return cmp.Compare(stamp.UnixMicro(), at.UnixMicro())
	})
	switch {
	case bad != nil:
		return 0, bad
	case exact:
		return versions[i], nil
	case i == 0:
		return 0, fmt.Errorf("the oldest version left is %d: %w", versions[0], ErrNoVersion)
	}
	return versions[i-1], nil
}

// inCommitTime is when a version was committed, by its own word.
func (t *place) inCommitTime(ctx context.Context, version int64) (time.Time, error) {
	o, err := t.store.Head(ctx, t.key(commitName(version)))
	if err != nil {
		return time.Time{}, err
	}
	at, err := t.timeIn(ctx, o)
	if err == nil && at == nil {
		err = &DamagedError{Path: o.Key, Reason: "no inCommitTimestamp"}
	}
	if err != nil {
		return time.Time{}, err
	}
	return time.UnixMilli(*at).UTC(), nil
}

// timeIn reads the in-commit timestamp from a commit's commitInfo, which comes
// first; nil when it has none.
func (t *place) timeIn(ctx context.Context, o blob.Object) (at *int64, err error) {
	err = t.readJSONActions(ctx, o, func(a action) error {
		if a.CommitInfo != nil {
			at = a.CommitInfo.InCommitTimestamp
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return at, err
}
