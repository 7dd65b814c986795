package delta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// HistoryEntry is one commit as DESCRIBE HISTORY shows it.
type HistoryEntry struct {
	Version   int64
	Time      time.Time
	Operation string
	Params    map[string]string
	Metrics   map[string]string
}

// errFound stops the reading of a commit once its commitInfo is known.
var errFound = errors.New("found")

// History lists commits, newest first, at most limit (0 = all). Versions whose
// commit is cleaned up are not listed.
func (t *Table) History(ctx context.Context, limit int) ([]HistoryEntry, error) {
	g, err := t.listSegment(ctx, latest, 0)
	if err != nil {
		return nil, fmt.Errorf("history of %s: %w", t.name(), err)
	}
	versions := make([]int64, 0, len(g.commits))
	for v := range g.commits {
		versions = append(versions, v)
	}
	slices.Sort(versions)
	slices.Reverse(versions)
	if limit > 0 && len(versions) > limit {
		versions = versions[:limit]
	}
	out := make([]HistoryEntry, 0, len(versions))
	for _, v := range versions {
		e := HistoryEntry{Version: v, Time: g.commits[v].ModTime.UTC()}
		err := t.readJSONActions(ctx, g.commits[v], func(a action) error {
			c := a.CommitInfo
			if c == nil {
				return nil
			}
			switch {
			case c.InCommitTimestamp != nil:
				e.Time = time.UnixMilli(*c.InCommitTimestamp).UTC()
			case c.Timestamp > 0:
				e.Time = time.UnixMilli(c.Timestamp).UTC()
			}
			e.Operation, e.Params, e.Metrics = c.Operation, texts(c.Parameters), texts(c.Metrics)
			return errFound
		})
		if err != nil && !errors.Is(err, errFound) {
			return nil, fmt.Errorf("history of %s: %w", t.name(), err)
		}
		out = append(out, e)
	}
	return out, nil
}

// texts shows loose values: strings as they are, the rest as JSON.
func texts(m map[string]any) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		if s, ok := v.(string); ok {
			out[k] = s
		} else if b, err := json.Marshal(v); err == nil {
			out[k] = string(b)
		}
	}
	return out
}
