package pagestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
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

	mu        sync.Mutex // guards what follows and the state of every timeline; never held across I/O
	timelines map[tarn.TimelineID]*timeline
	closed    bool
	clock     uint64 // counts uses of kept indexes
}

// timeline is one timeline of the store.
//
//	making ──▶ idle ⇄ held
//	  │          │
//	  ▼          ▼
//	gone ◀── deleting
//
// Whoever changes the state, or reads or rewrites the files of an idle
// timeline, has its turn. Turns are taken from a child to its parents.
type timeline struct {
	id   tarn.TimelineID
	turn chan struct{} // holds one token while somebody has the turn

	// Guarded by Store.mu.
	parent   tarn.Point // zero without; does not change once it is made
	state    timelineState
	man      *manifest // replaced, never changed
	children int
	volume   *Volume // while held
	index    *index  // at the head; kept while idle, nil = must be read
	end      end     // of the log, when index is not nil
	used     uint64  // Store.clock at the last use of index
}

type timelineState uint8

const (
	stateMaking timelineState = iota
	stateIdle
	stateHeld
	stateDeleting
	stateGone
)

// nextStates has the transitions there are; see timeline.
func nextStates(s timelineState) []timelineState {
	switch s {
	case stateMaking:
		return []timelineState{stateIdle, stateGone}
	case stateIdle:
		return []timelineState{stateHeld, stateDeleting}
	case stateHeld:
		return []timelineState{stateIdle}
	case stateDeleting:
		return []timelineState{stateGone, stateIdle} // back when the files could not be renamed
	}
	return nil
}

// enter changes the state. The caller holds Store.mu.
func (t *timeline) enter(s timelineState) {
	if !slices.Contains(nextStates(t.state), s) {
		panic(fmt.Sprintf("pagestore: timeline %s goes from state %d to %d", t.id, t.state, s))
	}
	t.state = s
}

func (t *timeline) dir(s *Store) string { return filepath.Join(s.manifests.dir, string(t.id)) }

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
		timelines: map[tarn.TimelineID]*timeline{},
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
		s.timelines[id] = &timeline{id: id, turn: make(chan struct{}, 1), parent: man.Parent, state: stateIdle, man: man}
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

// find gives a timeline that exists.
func (s *Store) find(id tarn.TimelineID) (*timeline, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, tarn.Unavailable("page store is closed")
	}
	t := s.timelines[id]
	if t == nil || t.state == stateMaking || t.state == stateDeleting {
		return nil, tarn.NotFound("timeline %s does not exist", id)
	}
	return t, nil
}

// floor is the highest seq of a timeline at which another began: its log once
// reached there.
func (s *Store) floor(id tarn.TimelineID) (seq tarn.Seq) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.timelines {
		if t.parent.Timeline == id {
			seq = max(seq, t.parent.Seq)
		}
	}
	return seq
}

// take finds a timeline and waits for its turn; the caller calls t.pass.
func (s *Store) take(ctx context.Context, id tarn.TimelineID) (*timeline, error) {
	t, err := s.find(id)
	if err != nil {
		return nil, err
	}
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.state == stateGone {
		<-t.turn
		return nil, tarn.NotFound("timeline %s does not exist", id)
	}
	return t, nil
}

func (t *timeline) pass() { <-t.turn }

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
