package delta

import (
	"context"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/tarndb/tarn/internal/blob"
)

// defaultLogRetention is delta.logRetentionDuration where it is not set.
const defaultLogRetention = 30 * 24 * time.Hour

// cleanLog deletes what of the log is older than delta.logRetentionDuration and
// lies below a checkpoint that is old enough itself, so that every version of
// the retention can still be read; unless delta.enableExpiredLogCleanup is
// false. The oldest goes first: what a crash leaves is a log that begins later.
// Sidecars go when no checkpoint names them any more.
func (t *Table) cleanLog(ctx context.Context, s *Snapshot, now time.Time) error {
	if strings.EqualFold(propertyOf(s.state.metadata.Configuration, "delta.enableExpiredLogCleanup"), "false") {
		return nil
	}
	// At midnight, as Delta does, so that it moves once a day.
	before := now.Add(-s.state.metadata.interval("delta.logRetentionDuration", defaultLogRetention)).UTC().Truncate(24 * time.Hour)
	g, err := t.listSegment(ctx, s.version, 0)
	if err != nil {
		return err
	}
	kept := int64(-1)
	for _, c := range g.checkpoints { // newest first
		o, ok := g.commits[c.version]
		if ok && !o.ModTime.After(before) && !c.files[0].ModTime.After(before) {
			kept = c.version
			break
		}
	}
	if kept < 0 {
		return nil
	}
	var doomed []string
	folder := t.key(logFolder)
	for o, err := range t.store.List(ctx, folder, "") {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(o.Key, folder)
		version, ok := digits(name[:min(len(name), 20)], 20)
		if !ok || version >= kept {
			break // names are in order, and _last_checkpoint behind all versions
		}
		if o.ModTime.After(before) {
			continue // written late
		}
		if n := parseLogName(name); n.kind != logOther && (n.kind != logCompacted || n.last < kept) || strings.HasSuffix(name, ".crc") {
			doomed = append(doomed, o.Key)
		}
	}
	for len(doomed) > 0 {
		n := min(len(doomed), vacuumBatch)
		if err := t.store.Delete(ctx, doomed[:n]...); err != nil {
			return err
		}
		doomed = doomed[n:]
	}
	return t.cleanSidecars(ctx, g, kept, before)
}

// cleanSidecars deletes old sidecars that no checkpoint from version kept on
// names. A younger one may belong to a checkpoint that is being written.
func (t *Table) cleanSidecars(ctx context.Context, g *segment, kept int64, before time.Time) error {
	var old []blob.Object
	for o, err := range t.store.List(ctx, t.key(sidecarFolder), "") {
		if err != nil {
			return err
		}
		if !o.ModTime.After(before) {
			old = append(old, o)
		}
	}
	if len(old) == 0 {
		return nil
	}
	named := map[string]bool{}
	for _, c := range g.checkpoints {
		if c.version < kept {
			continue
		}
		for _, o := range c.files {
			read := t.readParquetActions
			if strings.HasSuffix(o.Key, ".json") {
				read = t.readJSONActions
			}
			err := read(ctx, o, func(a action) error {
				if a.Sidecar != nil {
					named[path.Base(a.Sidecar.Path)] = true
				}
				return nil
			})
			if err != nil {
				return err // what cannot be read may name any of them
			}
		}
	}
	for _, o := range old {
		if !named[path.Base(o.Key)] {
			if err := t.store.Delete(ctx, o.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

// interval reads a property such as "interval 1 week". A form we cannot read
// means for ever.
func (m *metadataAction) interval(property string, otherwise time.Duration) time.Duration {
	v := propertyOf(m.Configuration, property)
	if v == "" {
		return otherwise
	}
	words := strings.Fields(strings.ToLower(v))
	if len(words) > 0 && words[0] == "interval" {
		words = words[1:]
	}
	const forever = 100 * 365 * 24 * time.Hour
	if len(words) != 2 {
		return forever
	}
	n, err := strconv.ParseInt(words[0], 10, 32)
	if err != nil || n < 0 {
		return forever
	}
	units := map[string]time.Duration{"week": 7 * 24 * time.Hour, "day": 24 * time.Hour, "hour": time.Hour, "minute": time.Minute, "second": time.Second, "millisecond": time.Millisecond}
	unit, ok := units[strings.TrimSuffix(words[1], "s")]
	if d := time.Duration(n) * unit; ok && d < forever && (n == 0 || d/time.Duration(n) == unit) {
		return d
	}
	return forever
}
