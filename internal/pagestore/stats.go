package pagestore

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// Stats is what a store takes.
type Stats struct {
	Total     uint64          `json:"total"` // bytes of the file system
	Free      uint64          `json:"free"`
	Tables    int64           `json:"tables"` // bytes of page tables in memory that maps have too, about
	Timelines []TimelineStats `json:"timelines"`
}

// TimelineStats is what one timeline takes, itself and not its parent.
type TimelineStats struct {
	ID         tarn.TimelineID `json:"id"`
	Parent     tarn.Point      `json:"parent,omitzero"`
	Ghost      bool            `json:"ghost,omitempty"` // deleted, kept for its children
	Open       bool            `json:"open,omitempty"`
	Segments   int             `json:"segments"`
	Maps       int             `json:"maps"`
	Images     int             `json:"images"`
	LogBytes   int64           `json:"log_bytes"` // on disk, without holes
	MapBytes   int64           `json:"map_bytes"`
	ImageBytes int64           `json:"image_bytes"` // on disk, without holes
	Loose      int64           `json:"loose"`       // bytes of pages written out of order since the last compaction, about
	Visible    int64           `json:"visible"`     // bytes at the newest map, the parent's too, about
	Behind     int64           `json:"behind"`      // bytes of log behind it, of an open one
	Garbage    int64           `json:"garbage"`     // bytes that a collection would give back, about
	Index      int64           `json:"index"`       // bytes in memory, about
	Marks      int             `json:"marks"`
	History    time.Duration   `json:"history"`            // how far back points are kept
	Collected  time.Time       `json:"collected,omitzero"` // last time
}

// Stats looks at every timeline, the deleted ones too that others need.
func (s *Store) Stats(ctx context.Context) (Stats, error) {
	var st Stats
	var err error
	if st.Total, st.Free, err = s.files.Usage(s.dir); err != nil {
		return st, fmt.Errorf("look at page store: %w", err)
	}
	st.Tables = s.cache.loaded.Load() * chunkBytes
	s.mu.Lock()
	var all []*timeline
	for _, t := range s.timelines {
		if t.state == stateIdle || t.state == stateHeld || t.state == stateGhost {
			all = append(all, t)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b *timeline) int { return cmp.Compare(a.id, b.id) })
	for _, t := range all {
		one, err := s.statsOf(ctx, t)
		if tarn.KindOf(err) == tarn.KindNotFound {
			continue
		}
		if err != nil {
			return st, fmt.Errorf("look at timeline %s: %w", t.id, err)
		}
		st.Timelines = append(st.Timelines, one)
	}
	return st, nil
}

func (s *shelf) statsOf(ctx context.Context, t *timeline) (TimelineStats, error) {
	if err := s.wait(ctx, t); err != nil {
		return TimelineStats{}, err
	}
	defer t.pass()
	s.mu.Lock()
	v, man := t.volume, t.man
	st := TimelineStats{ID: t.id, Parent: man.Parent, Ghost: t.state == stateGhost, Open: v != nil, Garbage: t.dead, Loose: t.loose,
		Marks: len(man.Closed.Marks), History: s.window(man), Collected: man.Swept.Time}
	ix := t.index
	s.mu.Unlock()
	if v != nil {
		ix = v.ix
		st.Garbage += ix.dead.Load()
		st.Loose += ix.loose.Load()
		st.Behind = ix.behind.Load()
		st.Marks = len(v.marks())
	}
	if ix != nil {
		st.Index = ix.memory()
	}
	files, err := s.files.ReadDir(t.dir(s))
	if err != nil {
		return st, err
	}
	for _, f := range files {
		count, bytes := &st.Segments, &st.LogBytes
		switch {
		case fileNumber(layer.FileLog, f.Name) > 0:
		case fileNumber(layer.FileMap, f.Name) > 0:
			count, bytes = &st.Maps, &st.MapBytes
		case fileNumber(layer.FileImage, f.Name) > 0:
			count, bytes = &st.Images, &st.ImageBytes
		default:
			continue
		}
		used, err := s.used(filepath.Join(t.dir(s), f.Name))
		if err != nil {
			return st, err
		}
		*count++
		*bytes += used
	}
	if maps := man.maps(); len(maps) > 0 {
		st.Visible, err = s.visible(t.id, maps[len(maps)-1].Number)
	}
	return st, err
}

// used is the space that a file takes.
func (s *shelf) used(path string) (int64, error) {
	f, err := s.files.Open(path, openExisting)
	if err != nil {
		return 0, ignoreMissing(err)
	}
	defer f.Close()
	return f.Used()
}

// visible says about how many bytes a map shows, from its header.
func (s *shelf) visible(id tarn.TimelineID, number uint32) (int64, error) {
	m := newSegment(s.files, s.manifests.dir, layer.FileID{Timeline: id, Kind: layer.FileMap, Number: number})
	m.retain()
	defer m.release()
	f, err := m.open()
	if err != nil {
		return 0, err
	}
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	r, err := layer.OpenMap(f, m.path, size, id, number)
	if err != nil {
		return 0, err
	}
	h := r.Header()
	return int64(h.TableBytes) / 8 * layer.PageSize, nil
}

// memory is about how many bytes an index takes.
func (ix *index) memory() int64 {
	const nodeBytes, slotBytes, nameBytes = 256, 16, 128
	sum := int64(0)
	for n := range ix.inodes.all() {
		sum += nodeBytes
		t := n.pages.Load()
		if t == nil {
			continue
		}
		sum += int64(len(t.slots)) * slotBytes
		for i := range t.slots {
			if t.slots[i].chunk.Load() != nil {
				sum += chunkBytes
			}
		}
	}
	ix.tree.RLock()
	defer ix.tree.RUnlock()
	for n := range ix.inodes.all() {
		if n.dir != nil {
			sum += int64(len(n.dir.order)) * nameBytes
		}
	}
	return sum
}
