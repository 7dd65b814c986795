package delta

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/tarndb/tarn/internal/blob"
)

// segment is the part of a log that makes up one version: candidates for the
// checkpoint to start from, newest first, and the commits.
type segment struct {
	version     int64
	from        int64                 // the listing began here
	commits     map[int64]blob.Object // by version; may reach below the checkpoint
	checkpoints []checkpointFiles     // complete ones at or below version, newest first
	compacted   map[int64]compaction  // by their first version; the longest
}

// compaction is a file with the sum of several commits, which are also there.
type compaction struct {
	last   int64 // version
	object blob.Object
}

// checkpointFiles are the files of one checkpoint: one, or all of its parts.
type checkpointFiles struct {
	version int64
	files   []blob.Object
}

// last is the object that made the version: its commit, or the checkpoint when
// the commit is cleaned up.
func (g *segment) last() blob.Object {
	if o, ok := g.commits[g.version]; ok {
		return o
	}
	return g.checkpoints[0].files[0]
}

// latest asks for the newest version there is.
const latest = int64(-1)

// findSegment lists the log. _last_checkpoint only shortens the listing: when
// it is missing, wrong or damaged the whole folder is listed.
func (t *place) findSegment(ctx context.Context, version int64) (*segment, error) {
	if from, ok := t.lastCheckpointHint(ctx); ok && (version == latest || from <= version) {
		g, err := t.listSegment(ctx, version, from)
		if err == nil && len(g.checkpoints) > 0 {
			return g, nil
		}
		if err != nil && !errors.Is(err, ErrNoVersion) && !errors.Is(err, ErrNotTable) && !IsRefusal(err) {
			return nil, err
		}
	}
	return t.listSegment(ctx, version, 0)
}

// lastCheckpointHint reads the version in _last_checkpoint.
func (t *place) lastCheckpointHint(ctx context.Context) (int64, bool) {
	r, err := t.store.Get(ctx, t.key(logFolder+"_last_checkpoint"), 0, 64<<10)
	if err != nil {
		return 0, false
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	var hint struct {
		Version *int64 `json:"version"`
	}
	if err != nil || json.Unmarshal(b, &hint) != nil || hint.Version == nil || *hint.Version < 0 {
		return 0, false
	}
	return *hint.Version, true
}

// listSegment lists the log from version from on and puts together what makes
// version (or the latest).
func (t *place) listSegment(ctx context.Context, version, from int64) (*segment, error) {
	g := &segment{version: version, from: from, commits: map[int64]blob.Object{}, compacted: map[int64]compaction{}}
	folder := t.key(logFolder)
	parts := map[int64]map[int][]blob.Object{} // version → number of parts → those seen
	newest, found := latest, false
	for o, err := range t.store.List(ctx, folder, folder+fmt.Sprintf("%020d", from)) {
		if err != nil {
			return nil, fmt.Errorf("list log: %w", err)
		}
		name := strings.TrimPrefix(o.Key, folder)
		if name > "9~" {
			break // _last_checkpoint, _sidecars/…
		}
		n := parseLogName(name)
		if n.kind == logOther {
			continue
		}
		if n.kind == logCompacted {
			if n.last > g.compacted[n.version].last && (version == latest || n.last < version) {
				g.compacted[n.version] = compaction{n.last, o}
			}
			continue
		}
		found = true
		if version != latest && n.version > version {
			newest = max(newest, n.version)
			break
		}
		newest = max(newest, n.version)
		switch n.kind {
		case logCommit:
			g.commits[n.version] = o
		case logCheckpoint, logUUID:
			g.checkpoints = append(g.checkpoints, checkpointFiles{n.version, []blob.Object{o}})
		case logPart:
			if parts[n.version] == nil {
				parts[n.version] = map[int][]blob.Object{}
			}
			seen := append(parts[n.version][n.parts], o)
			parts[n.version][n.parts] = seen
			if len(seen) == n.parts {
				g.checkpoints = append(g.checkpoints, checkpointFiles{n.version, seen})
			}
		}
	}
	if !found {
		return nil, fmt.Errorf("%s: %w", t.name(), ErrNotTable)
	}
	if version != latest && newest < version {
		return nil, fmt.Errorf("version %d of %s, which ends at %d: %w", version, t.name(), newest, ErrNoVersion)
	}
	slices.SortStableFunc(g.checkpoints, func(a, b checkpointFiles) int { return cmp.Compare(b.version, a.version) })
	if version == latest {
		g.version = t.newestReadable(g, newest)
	}
	return g, t.checkSegment(g, version)
}

// newestReadable is the highest version that is a commit or a whole checkpoint:
// an unfinished multi-part checkpoint beyond the last commit counts for nothing.
func (t *place) newestReadable(g *segment, newest int64) int64 {
	best := int64(-1)
	if len(g.checkpoints) > 0 {
		best = g.checkpoints[0].version
	}
	for v := range g.commits {
		best = max(best, v)
	}
	if best < 0 {
		return newest
	}
	return best
}

// checkSegment makes sure that every commit behind the newest checkpoint is there.
func (t *place) checkSegment(g *segment, asked int64) error {
	start := int64(0)
	if len(g.checkpoints) > 0 {
		start = g.checkpoints[0].version + 1
	}
	missing, ok := g.firstGap(start)
	if !ok {
		return nil
	}
	if asked != latest && start == 0 && missing == 0 {
		return fmt.Errorf("version %d of %s: the log that leads to it is cleaned up: %w", asked, t.name(), ErrNoVersion)
	}
	return t.gap(missing)
}

// firstGap is the lowest version from start on whose commit is not there.
func (g *segment) firstGap(start int64) (int64, bool) {
	for v := start; v <= g.version; v++ {
		if _, ok := g.commits[v]; !ok {
			return v, true
		}
	}
	return 0, false
}

func (t *place) gap(version int64) error {
	return &DamagedError{Path: t.key(logFolder), Reason: fmt.Sprintf("commit %d is missing", version)}
}
