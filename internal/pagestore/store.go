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
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// Options of a store; the zero value is good.
type Options struct {
	// SegmentBytes is where a log goes on in a new file. 0 = 128 MiB, which is
	// also the most; at least 64 KiB.
	SegmentBytes int64
	// CacheBytes is how much memory the page tables of all open volumes may
	// take together, but for those that were changed since the last map of
	// their timeline. 0 = 32 MiB.
	CacheBytes int64
	// MapBytes is how much log a volume writes until a map of it is written, so
	// that opening it reads at most so much. 0 = 256 MiB.
	MapBytes int64
	// History is how far back points can be forked where a timeline says
	// nothing else. 0 = 7 days, negative = not at all.
	History time.Duration
	// CollectBytesPerSecond bounds what collections read and give back.
	// 0 = 128 MiB.
	CollectBytesPerSecond int64
	Remote                Remote       // what must outlive the directory
	Log                   *slog.Logger // nil = nowhere
}

// handedIndexes is how many new forks keep the index that they were pinned
// with until they are opened.
const handedIndexes = 4

// Store is a directory of timelines. One process holds it at a time.
type Store struct {
	shelf
	Lines
	lock       io.Closer
	collecting chan struct{} // holds one token while a collection runs
	kick       chan struct{} // makes Run look for work at once
}

// shelf is what the parts of a store have in common.
type shelf struct {
	files     fileSystem
	dir       string // holds LOCK and timelines/
	manifests manifests
	limit     uint32 // blocks of a segment
	options   Options
	cache     *tableCache
	slog      *slog.Logger
	batches   sync.Pool // of *layer.Batch
	scratch   sync.Pool // of *[layer.PageSize]byte

	remote *remote // nil without a bucket

	registry
	clock uint64 // counts handed indexes; guarded by mu
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
	if o.CacheBytes == 0 {
		o.CacheBytes = 32 << 20
	}
	if o.MapBytes == 0 {
		o.MapBytes = 256 << 20
	}
	if o.History == 0 {
		o.History = 7 * 24 * time.Hour
	}
	if o.CollectBytesPerSecond == 0 {
		o.CollectBytesPerSecond = 128 << 20
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{shelf: shelf{
		files: files, dir: dir, slog: o.Log,
		manifests: manifests{files: files, dir: filepath.Join(dir, "timelines")},
		limit:     uint32(o.SegmentBytes / layer.BlockSize),
		options:   o,
		cache:     newTableCache(o.CacheBytes),
		registry:  registry{timelines: map[tarn.TimelineID]*timeline{}},
	}, collecting: make(chan struct{}, 1), kick: make(chan struct{}, 1)}
	s.Lines.s = s
	s.cache.rebuild = rebuilder{&s.shelf}.rebuild
	s.batches.New = func() any { return layer.NewBatch() }
	s.scratch.New = func() any { return new([layer.PageSize]byte) }
	if err := s.hold(); err != nil {
		return nil, fmt.Errorf("open page store %s: %w", dir, err)
	}
	var err error
	if s.remote, err = openRemote(ctx, &s.shelf); err != nil {
		return nil, errors.Join(fmt.Errorf("open page store %s: %w", dir, err), s.lock.Close())
	}
	if err := s.readManifests(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open page store %s: %w", dir, err), s.remote.close(), s.lock.Close())
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
		t := &timeline{id: id, turn: make(chan struct{}, 1), parent: man.Parent, state: stateIdle, man: man, dead: man.Dead, loose: man.Loose, remote: s.remote.line(id)}
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
func (s *shelf) removeDir(dir string) error {
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
	errs = append(errs, s.remote.close())
	if err := errors.Join(append(errs, s.lock.Close())...); err != nil {
		return fmt.Errorf("close page store %s: %w", s.dir, err)
	}
	return nil
}

// hand keeps the index with which a new fork begins until it is opened, and
// drops the oldest when there are too many.
func (s *shelf) hand(t *timeline, ix *index) {
	s.mu.Lock()
	s.clock++
	t.index, t.used = ix, s.clock
	var handed []*timeline
	for _, o := range s.timelines {
		if o.index != nil {
			handed = append(handed, o)
		}
	}
	var dropped *index
	if s.closed || t.state != stateIdle {
		dropped, t.index = t.index, nil
	} else if len(handed) > handedIndexes {
		oldest := slices.MinFunc(handed, func(a, b *timeline) int { return cmp.Compare(a.used, b.used) })
		dropped, oldest.index = oldest.index, nil
	}
	s.mu.Unlock()
	if dropped != nil {
		dropped.release()
	}
}

// handed takes the index that a new fork was given, if it is still there.
func (s *shelf) handed(t *timeline) *index {
	s.mu.Lock()
	defer s.mu.Unlock()
	ix := t.index
	t.index = nil
	return ix
}
