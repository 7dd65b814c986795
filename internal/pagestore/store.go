package pagestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// Options of a store; the zero value is good.
type Options struct {
	// SegmentBytes is where a log goes on in a new file. 0 = 128 MiB, which is
	// also the most; at least 64 KiB.
	SegmentBytes int64
	Log          *slog.Logger // nil = nowhere
}

// keptIndexes is how many closed timelines keep their index in memory, so that
// opening or forking them reads no log.
const keptIndexes = 16

// Store is a directory of timelines. One process holds it at a time.
type Store struct {
	files     fileSystem
	dir       string // holds LOCK and timelines/
	manifests manifests
	limit     uint32 // blocks of a segment
	slog      *slog.Logger
	lock      io.Closer
	batches   sync.Pool // of *layer.Batch
	scratch   sync.Pool // of *[layer.PageSize]byte

	registry
	clock uint64 // counts uses of kept indexes; guarded by mu
}

// deletedSuffix marks the directory of a timeline whose deletion is decided.
const deletedSuffix = ".deleted"

// Open opens the store in dir, creating it when there is none.
func Open(ctx context.Context, dir string, o Options) (*Store, error) {
	return open(ctx, osFiles{}, dir, o)
}

func open(ctx context.Context, files fileSystem, dir string, o Options) (*Store, error) {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = layer.MaxSegmentBytes
	}
	if o.SegmentBytes < 64<<10 || o.SegmentBytes > layer.MaxSegmentBytes {
		return nil, tarn.Invalid("open page store %s: segments of %d bytes, not 64 KiB to 128 MiB", dir, o.SegmentBytes)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		files: files, dir: dir, slog: o.Log,
		manifests: manifests{files: files, dir: filepath.Join(dir, "timelines")},
		limit:     uint32(o.SegmentBytes / layer.BlockSize),
		registry:  registry{timelines: map[tarn.TimelineID]*timeline{}},
	}
	s.batches.New = func() any { return layer.NewBatch() }
	s.scratch.New = func() any { return new([layer.PageSize]byte) }
	if err := s.hold(); err != nil {
		return nil, fmt.Errorf("open page store %s: %w", dir, err)
	}
	if err := s.readManifests(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open page store %s: %w", dir, err), s.lock.Close())
	}
	return s, nil
}

// hold makes the store's directories and takes its lock.
func (s *Store) hold() error {
	if err := s.files.Mkdir(s.dir); err != nil {
		return err
	}
	// A parent that may not be read was not made for us either.
	if err := s.files.SyncDir(filepath.Dir(s.dir)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	lock, err := s.files.Lock(filepath.Join(s.dir, "LOCK"))
	if errors.Is(err, errLocked) {
		return tarn.Conflict("%w", err).WithHint("stop the other process that uses this data directory")
	} else if err != nil {
		return err
	}
	err = s.files.Mkdir(s.manifests.dir)
	if err == nil {
		err = s.files.SyncDir(s.dir)
	}
	if err != nil {
		return errors.Join(err, lock.Close())
	}
	s.lock = lock
	return nil
}

// readManifests finds the timelines and removes what a crash left of ones that
// were being made or deleted.
func (s *Store) readManifests(ctx context.Context) error {
	dirs, err := s.files.ReadDir(s.manifests.dir)
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		id, err := tarn.ParseTimelineID(strings.TrimSuffix(d.Name, deletedSuffix))
		if err != nil || !d.Dir {
			continue // not ours
		}
		man, err := (*manifest)(nil), fs.ErrNotExist
		if d.Name == string(id) {
			man, err = s.manifests.load(id)
		}
		if errors.Is(err, fs.ErrNotExist) {
			if err := s.removeDir(filepath.Join(s.manifests.dir, d.Name)); err != nil {
				return fmt.Errorf("remove unfinished timeline %s: %w", d.Name, err)
			}
			continue
		} else if err != nil {
			return err
		}
		t := &timeline{id: id, turn: make(chan struct{}, 1), parent: man.Parent, state: stateIdle, man: man}
		if man.Deleted {
			t.state = stateGhost
		}
		s.timelines[id] = t
	}
	for _, t := range s.timelines {
		if t.parent.Timeline == "" {
			continue
		}
		p := s.timelines[t.parent.Timeline]
		if p == nil {
			return &layer.CorruptError{File: s.manifests.path(t.id), Offset: 40, Expected: "the parent " + t.parent.String(), Found: "no such timeline"}
		}
		p.children++
	}
	for id := range maps.Clone(s.timelines) {
		s.reap(id)
	}
	return nil
}

// removeDir removes a directory of files. A second attempt finishes a first.
func (s *Store) removeDir(dir string) error {
	files, err := s.files.ReadDir(dir)
	if err != nil {
		return ignoreMissing(err)
	}
	for _, f := range files {
		if err := ignoreMissing(s.files.Remove(filepath.Join(dir, f.Name))); err != nil {
			return err
		}
	}
	return ignoreMissing(s.files.Remove(dir))
}

// Close closes every open volume and lets go of the store. Closing twice is
// no error.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	var volumes []*Volume
	for _, t := range s.timelines {
		if t.volume != nil {
			volumes = append(volumes, t.volume)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, v := range volumes {
		errs = append(errs, v.Close())
	}
	s.mu.Lock()
	var kept []*index
	for _, t := range s.timelines {
		if t.index != nil {
			kept = append(kept, t.index)
			t.index = nil
		}
	}
	s.mu.Unlock()
	for _, ix := range kept {
		ix.release()
	}
	if err := errors.Join(append(errs, s.lock.Close())...); err != nil {
		return fmt.Errorf("close page store %s: %w", s.dir, err)
	}
	return nil
}

// keep stores the index of an idle timeline and drops the one that was unused
// the longest when there are too many.
func (s *Store) keep(t *timeline, ix *index, e end) {
	s.mu.Lock()
	s.clock++
	t.index, t.end, t.used = ix, e, s.clock
	var kept []*timeline
	for _, o := range s.timelines {
		if o.index != nil {
			kept = append(kept, o)
		}
	}
	var dropped *index
	if s.closed {
		dropped, t.index = t.index, nil
	} else if len(kept) > keptIndexes {
		oldest := slices.MinFunc(kept, func(a, b *timeline) int { return cmp.Compare(a.used, b.used) })
		dropped, oldest.index = oldest.index, nil
	}
	s.mu.Unlock()
	if dropped != nil {
		dropped.release()
	}
}
