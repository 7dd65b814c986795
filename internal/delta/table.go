package delta

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/tarndb/tarn/internal/blob"
)

// Table is a Delta table in a folder of a store. It may be used by many
// goroutines.
type Table struct {
	place

	mu     sync.Mutex // guards newest; not held across calls to the store
	newest *Snapshot  // the newest snapshot seen; nil before the first
}

// place is the folder of a table in a store.
type place struct {
	store  blob.Store
	prefix string // "" or ends with a slash
}

func newTable(s blob.Store, prefix string) (*Table, error) {
	if prefix != "" {
		if err := blob.CheckPrefix(prefix); err != nil {
			return nil, err
		}
		prefix = strings.TrimSuffix(prefix, "/") + "/"
	}
	return &Table{place: place{s, prefix}}, nil
}

// Open opens the table at prefix ("" = the store's root). ErrNotTable.
func Open(ctx context.Context, s blob.Store, prefix string) (*Table, error) {
	t, err := newTable(s, prefix)
	if err != nil {
		return nil, fmt.Errorf("open table: %w", err)
	}
	// Finding the log is enough: a damaged table opens, so that the caller
	// learns what is wrong from the version it asks for.
	for o, err := range s.List(ctx, t.key(logFolder), "") {
		if err != nil {
			return nil, fmt.Errorf("open table %s: %w", t.name(), err)
		}
		if parseLogName(strings.TrimPrefix(o.Key, t.key(logFolder))).kind != logOther {
			return t, nil
		}
	}
	return nil, fmt.Errorf("open table %s: %w", t.name(), ErrNotTable)
}

// key gives the store's key of a path in the table's folder.
func (t *place) key(path string) string { return t.prefix + path }

// name is how errors call the table.
func (t *place) name() string {
	return strings.TrimSuffix(strings.TrimSuffix(t.store.URL(), "/")+"/"+t.prefix, "/")
}

// Latest gives the newest snapshot. What did not change since the last call is
// not read again.
func (t *Table) Latest(ctx context.Context) (*Snapshot, error) {
	t.mu.Lock()
	have := t.newest
	t.mu.Unlock()
	if have != nil {
		s, err := t.advance(ctx, have)
		if err != nil {
			return nil, fmt.Errorf("latest version of %s: %w", t.name(), err)
		}
		if s != nil {
			return t.remember(s), nil
		}
	}
	s, err := t.load(ctx, latest)
	if err != nil {
		return nil, fmt.Errorf("latest version of %s: %w", t.name(), err)
	}
	return t.remember(s), nil
}

// remember keeps s for the next call of Latest.
func (t *Table) remember(s *Snapshot) *Snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.newest = s
	return s
}

// At gives the snapshot of a version. ErrNoVersion.
func (t *Table) At(ctx context.Context, version int64) (*Snapshot, error) {
	if version < 0 {
		return nil, fmt.Errorf("version %d of %s: %w", version, t.name(), ErrNoVersion)
	}
	s, err := t.load(ctx, version)
	if err != nil {
		return nil, fmt.Errorf("version %d of %s: %w", version, t.name(), err)
	}
	return s, nil
}

// load reads a version (or the latest) from the log.
func (t *Table) load(ctx context.Context, version int64) (*Snapshot, error) {
	g, err := t.findSegment(ctx, version)
	if err != nil {
		return nil, err
	}
	s, err := t.replay(ctx, g)
	var d *DamagedError
	if errors.As(err, &d) && g.from > 0 {
		// A bad checkpoint: an older one, or the commits alone, may do.
		if g, err := t.listSegment(ctx, version, 0); err == nil {
			return t.replay(ctx, g)
		}
	}
	return s, err
}

// replay adds up a segment from its newest readable checkpoint.
func (t *Table) replay(ctx context.Context, g *segment) (*Snapshot, error) {
	var bad error // of the newest checkpoint
	for _, c := range g.checkpoints {
		if _, gap := g.firstGap(c.version + 1); gap {
			continue
		}
		st, err := t.readCheckpoint(ctx, c)
		if err == nil {
			return t.replayCommits(ctx, g, c.version, st)
		}
		var d *DamagedError
		if !errors.As(err, &d) {
			return nil, err
		}
		if bad == nil {
			bad = err
		}
	}
	if missing, gap := g.firstGap(0); !gap {
		return t.replayCommits(ctx, g, -1, newState())
	} else if bad == nil {
		bad = t.gap(missing)
	}
	return nil, bad
}

// replayCommits applies the commits behind version done to st, which it takes.
func (t *Table) replayCommits(ctx context.Context, g *segment, done int64, st *state) (*Snapshot, error) {
	s := &Snapshot{table: t, version: g.version, state: st, checkpoint: done, last: g.last()}
	for v := done + 1; v <= g.version; v++ {
		// Only commits tell the time, so the last one is always read. A
		// compaction that is damaged is passed by: its commits say the same.
		if c, ok := g.compacted[v]; ok && c.last < g.version {
			err := t.readJSONActions(ctx, c.object, func(a action) error { st.apply(a); return nil })
			if err == nil {
				v = c.last
				continue
			}
			if !IsRefusal(err) {
				return nil, err
			}
		}
		s.inCommit = nil
		err := t.readJSONActions(ctx, g.commits[v], func(a action) error {
			if a.CommitInfo != nil && a.CommitInfo.InCommitTimestamp != nil {
				s.inCommit = a.CommitInfo.InCommitTimestamp
			}
			st.apply(a)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if err := s.finish(); err != nil {
		return nil, err
	}
	if o, ok := g.commits[g.version]; ok && s.inCommit == nil && s.truth("delta.enableInCommitTimestamps") {
		// The version came from its checkpoint, which does not tell the time.
		at, err := t.timeIn(ctx, o)
		if err != nil {
			return nil, err
		}
		s.inCommit = at
	}
	return s, nil
}

// advance applies the commits that came since have. It gives nil when have is
// not a beginning of the log any more: the table was made anew, or the log was
// cleaned up.
func (t *Table) advance(ctx context.Context, have *Snapshot) (*Snapshot, error) {
	folder := t.key(logFolder)
	g := &segment{version: have.version, commits: map[int64]blob.Object{}}
	same, checkpoint := false, have.checkpoint
	for o, err := range t.store.List(ctx, folder, fmt.Sprintf("%s%020d", folder, have.version)) {
		if err != nil {
			return nil, fmt.Errorf("list log: %w", err)
		}
		name := strings.TrimPrefix(o.Key, folder)
		if name > "9~" {
			break
		}
		switch n := parseLogName(name); {
		case o.Key == have.last.Key:
			same = o == have.last
		case n.kind == logCommit:
			g.commits[n.version] = o
			g.version = max(g.version, n.version)
		case n.kind == logCheckpoint:
			checkpoint = max(checkpoint, n.version)
		}
	}
	if !same {
		return nil, nil
	}
	if g.version == have.version {
		if checkpoint == have.checkpoint {
			return have, nil
		}
		s := *have
		s.checkpoint = checkpoint
		return &s, nil
	}
	if _, gap := g.firstGap(have.version + 1); gap {
		return nil, nil
	}
	s, err := t.replayCommits(ctx, g, have.version, have.state.clone())
	if err != nil {
		return nil, err
	}
	s.checkpoint = checkpoint
	return s, nil
}
