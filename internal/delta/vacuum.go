package delta

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tarndb/tarn"
)

// MinRetention is the least age at which Vacuum deletes files without Force:
// younger ones may belong to commits under way, and readers of older versions
// may still read them.
const MinRetention = 7 * 24 * time.Hour

// VacuumOptions say what Vacuum deletes.
type VacuumOptions struct {
	Retention time.Duration // 0 = delta.deletedFileRetentionDuration, else a week
	Force     bool          // allow less than MinRetention: nobody else may use the table
	DryRun    bool          // only count
	Progress  func(VacuumCounts)
}

// VacuumCounts tells what Vacuum deleted, or would.
type VacuumCounts struct {
	Files, Kept int
	Bytes       int64
	Retention   time.Duration
}

// vacuumBatch is how many files are deleted with one call.
const vacuumBatch = 500

// Vacuum deletes the files in the table's folder that no version of the
// retention needs: those removed longer ago, and those that no commit names and
// that are older. Files and folders whose names begin with _ or . stay, but for
// change files. Versions older than the retention cannot be read afterwards.
func (t *Table) Vacuum(ctx context.Context, o VacuumOptions) (VacuumCounts, error) {
	n, err := t.vacuum(ctx, o)
	if err != nil {
		return n, fmt.Errorf("vacuum %s: %w", t.name(), err)
	}
	return n, nil
}

func (t *Table) vacuum(ctx context.Context, o VacuumOptions) (n VacuumCounts, err error) {
	// The time is taken first: what is written from here on is young.
	now := time.Now()
	s, err := t.Latest(ctx)
	if err != nil {
		return n, err
	}
	if err := s.checkWritable(); err != nil {
		return n, err
	}
	n.Retention = o.Retention
	if n.Retention == 0 {
		n.Retention = s.tombRetention()
	}
	if n.Retention < 0 {
		return n, tarn.Invalid("a retention of %v", n.Retention)
	}
	if n.Retention < MinRetention && !o.Force {
		return n, tarn.Invalid("a retention of %v is less than %v: files of readers and of commits under way would be deleted; force it only when nobody else uses the table", n.Retention, MinRetention)
	}
	before := now.Add(-n.Retention)
	needed, err := neededKeys(s, before)
	if err != nil {
		return n, err
	}
	var doomed []string
	flush := func() error {
		if len(doomed) > 0 && !o.DryRun {
			if err := t.store.Delete(ctx, doomed...); err != nil {
				return err
			}
		}
		doomed = doomed[:0]
		if o.Progress != nil {
			o.Progress(n)
		}
		return nil
	}
	for f, err := range t.store.List(ctx, t.prefix, "") {
		if err != nil {
			return n, err
		}
		path := strings.TrimPrefix(f.Key, t.prefix)
		if !vacuumable(path) {
			continue
		}
		if needed[f.Key] || f.ModTime.After(before) {
			n.Kept++
			continue
		}
		n.Files++
		n.Bytes += f.Size
		if doomed = append(doomed, f.Key); len(doomed) == vacuumBatch {
			if err := flush(); err != nil {
				return n, err
			}
		}
	}
	return n, flush()
}

// vacuumable tells files of the table from hidden ones. Folders of partitions
// may begin with an underscore.
func vacuumable(path string) bool {
	segments := strings.Split(path, "/")
	for i, seg := range segments {
		hidden := strings.HasPrefix(seg, "_") || strings.HasPrefix(seg, ".")
		if hidden && !(i == 0 && seg+"/" == changeFolder) && !(i < len(segments)-1 && strings.Contains(seg, "=")) {
			return false
		}
	}
	return true
}

// neededKeys are the files of the snapshot, and those removed since a time.
func neededKeys(s *Snapshot, since time.Time) (map[string]bool, error) {
	needed := map[string]bool{}
	need := func(path string, d *dvDescriptor) error {
		key, err := s.table.dataKey(path)
		if err != nil {
			if u, ok := err.(*UnsupportedError); ok && strings.Contains(u.Feature, "outside the store") {
				return nil // not in the folder
			}
			return err
		}
		needed[key] = true
		if d == nil || d.StorageType == "i" {
			return nil
		}
		key, err = s.table.dvKey(d)
		if err != nil {
			return err
		}
		needed[key] = true
		return nil
	}
	for _, a := range s.state.files {
		if err := need(a.Path, a.DV); err != nil {
			return nil, err
		}
	}
	for _, r := range s.state.tombs {
		if r.DeletionTimestamp == nil || time.UnixMilli(*r.DeletionTimestamp).After(since) {
			if err := need(r.Path, r.DV); err != nil {
				return nil, err
			}
		}
	}
	return needed, nil
}
