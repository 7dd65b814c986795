package plaindir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tarndb/tarn"
)

// reserve claims the id of a timeline to be made, and keeps the one it is copied
// from from being deleted meanwhile.
func (s *Store) reserve(id, parent tarn.TimelineID) (*timeline, error) {
	if _, err := tarn.ParseTimelineID(string(id)); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, tarn.Unavailable("the store is closed")
	}
	if s.timelines[id] != nil {
		return nil, tarn.Conflict("timeline %s exists", id)
	}
	if parent != "" {
		p := s.timelines[parent]
		if p == nil || p.state == stateMaking || p.state == stateDeleting {
			return nil, tarn.NotFound("timeline %s does not exist", parent)
		}
		p.forks++
	}
	t := &timeline{id: id, turn: make(chan struct{}, 1), state: stateMaking, readers: make(map[tarn.Seq]int)}
	t.turn <- struct{}{}
	s.timelines[id] = t
	return t, nil
}

// make makes a reserved timeline; fill makes its data directory at a path that
// is not there yet.
//
//  1. <id>.making                          crash: Open removes it
//  2. data, copied and synced              crash: the same
//  3. manifest, synced                     crash: the same
//  4. rename to <id>, sync the store's     after it the timeline is there
//     directory
func (s *Store) make(t *timeline, man *manifest, fill func(data string) error) error {
	defer t.pass()
	dir := s.path(t.id)
	err := discard(dir + making)
	if err == nil {
		err = os.Mkdir(dir+making, 0o755)
	}
	if err == nil {
		err = fill(filepath.Join(dir+making, "data"))
	}
	if err == nil {
		err = man.write(dir + making)
	}
	if err == nil {
		err = settleName(dir)
	}
	if err != nil {
		if cleanup := errors.Join(discard(dir+making), discard(dir)); cleanup != nil { // else the next Open does it
			s.log.Warn("remove unfinished timeline", "timeline", string(t.id), "err", cleanup)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.timelines[man.Parent.Timeline]; p != nil {
		p.forks--
	}
	if err == nil {
		t.man = man
		t.enter(stateIdle)
		return nil
	}
	t.enter(stateGone)
	delete(s.timelines, t.id)
	return err
}

// Root is the empty data directory of a new timeline.
type Root struct {
	Mode     os.FileMode
	UID, GID int
}

// Create makes an empty timeline.
func (s *Store) Create(ctx context.Context, id tarn.TimelineID, root Root) error {
	if ctx.Err() != nil {
		return fmt.Errorf("create timeline %s: %w", id, context.Cause(ctx))
	}
	t, err := s.reserve(id, "")
	if err == nil {
		err = s.make(t, &manifest{Timeline: id, Created: time.Now().UTC(), Head: 1}, func(data string) error {
			if err := os.Mkdir(data, root.Mode.Perm()); err != nil {
				return err
			}
			if os.Geteuid() == 0 {
				return os.Chown(data, root.UID, root.GID)
			}
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("create timeline %s: %w", id, err)
	}
	return nil
}

// Fork makes child a copy of what parent's directory holds now. A Postgres may
// work there: the copy is then right together with WAL from the redo position in
// its pg_control up to an LSN that was flushed after Fork returned. The package
// doc says why.
func (s *Store) Fork(ctx context.Context, parent, child tarn.TimelineID) (tarn.Point, error) {
	at := tarn.Point{Timeline: parent}
	t, err := s.reserve(child, parent)
	if err == nil {
		man := &manifest{Timeline: child, Parent: at, Created: time.Now().UTC(), Head: 1}
		err = s.make(t, man, func(data string) error {
			head, from, release, err := s.holdData(ctx, parent)
			if err != nil {
				return err
			}
			defer release()
			at.Seq, man.Parent.Seq = head, head
			return s.copyTree(ctx, s.path(parent, "data"), data, from, child)
		})
	}
	if err != nil {
		return tarn.Point{}, fmt.Errorf("fork timeline %s as %s: %w", parent, child, err)
	}
	return at, nil
}

// holdData makes a timeline's data ready to be copied. While no Postgres works
// there none can begin before release; one that works there goes on.
func (s *Store) holdData(ctx context.Context, id tarn.TimelineID) (head tarn.Seq, from Activity, release func(), err error) {
	for {
		t, err := s.take(ctx, id)
		if err != nil {
			return 0, 0, nil, err
		}
		s.mu.Lock()
		v := t.volume
		s.mu.Unlock()
		if v == nil {
			return s.manifest(t).Head, AtRest, t.pass, nil
		}
		t.pass()
		switch err := v.enter(ctx); {
		case errors.Is(err, errClosed): // meanwhile
		case err != nil:
			return 0, 0, nil, err
		case v.link == "":
			return s.manifest(t).Head, AtRest, v.leave, nil
		default:
			v.leave()
			return s.manifest(t).Head, Running, func() {}, nil
		}
	}
}

// ForkAt makes child a copy of what parent's directory held at a marked point.
func (s *Store) ForkAt(ctx context.Context, parent tarn.Point, child tarn.TimelineID) error {
	t, err := s.reserve(child, parent.Timeline)
	if err == nil {
		man := &manifest{Timeline: child, Parent: parent, Created: time.Now().UTC(), Head: 1}
		err = s.make(t, man, func(data string) error {
			dir, release, err := s.holdPoint(ctx, parent)
			if err != nil {
				return err
			}
			defer release()
			return s.copyTree(ctx, dir, data, AtRest, child)
		})
	}
	if err != nil {
		return fmt.Errorf("fork %s as %s: %w", parent, child, err)
	}
	return nil
}

// holdPoint finds the directory that holds what stood at a point, and keeps it
// as it is until release.
func (s *Store) holdPoint(ctx context.Context, p tarn.Point) (dir string, release func(), err error) {
	t, err := s.take(ctx, p.Timeline)
	if err != nil {
		return "", nil, err
	}
	s.mu.Lock()
	if t.man.hasBase(p.Seq) {
		t.readers[p.Seq]++
		s.mu.Unlock()
		t.pass()
		return s.basePath(t.id, p.Seq), func() {
			s.mu.Lock()
			t.readers[p.Seq]--
			over := !t.man.hasBase(p.Seq)
			s.mu.Unlock()
			if over {
				s.dropBases(t, []tarn.Seq{p.Seq})
			}
		}, nil
	}
	s.mu.Unlock()
	t.pass()
	head, from, release, err := s.holdData(ctx, p.Timeline)
	if err != nil {
		return "", nil, err
	}
	if from == Running || !s.manifest(t).atHead(p.Seq) {
		release()
		return "", nil, tarn.Invalid("no copy is kept of %s; the timeline is at seq %d", p, head)
	}
	return s.path(p.Timeline, "data"), release, nil
}

// ReadFileAt reads a file as it was at a marked point. The name is relative.
func (s *Store) ReadFileAt(ctx context.Context, p tarn.Point, name string) ([]byte, error) {
	dir, release, err := s.holdPoint(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("read %s at %s: %w", name, p, err)
	}
	defer release()
	b, err := readIn(dir, name)
	if err != nil {
		return nil, fmt.Errorf("read %s at %s: %w", name, p, err)
	}
	return b, nil
}

// Delete removes a timeline. It is refused while the timeline is open or being
// forked. Those that were forked from it share nothing with it but extents.
func (s *Store) Delete(ctx context.Context, id tarn.TimelineID) error {
	t, err := s.take(ctx, id)
	if err != nil {
		return fmt.Errorf("delete timeline %s: %w", id, err)
	}
	defer t.pass()
	s.mu.Lock()
	switch {
	case t.state != stateIdle:
		err = tarn.Conflict("it is open")
	case t.forks > 0:
		err = tarn.Conflict("it is being forked")
	default:
		t.enter(stateDeleting)
	}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("delete timeline %s: %w", id, err)
	}
	err = setAside(s.path(id), s.log)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		t.enter(stateIdle)
		return fmt.Errorf("delete timeline %s: %w", id, err)
	}
	t.enter(stateGone)
	delete(s.timelines, id)
	return nil
}

// countEvery is how old the size of a timeline's files may be.
const countEvery = 10 * time.Second

// Stat says what the store knows of a timeline. Its marks are those it can be
// forked at, its bytes those of its data directory and, without reflinks, of its
// bases.
func (s *Store) Stat(_ context.Context, id tarn.TimelineID) (tarn.TimelineStatus, error) {
	s.mu.Lock()
	t := s.timelines[id]
	if t == nil || t.state == stateMaking || t.state == stateDeleting {
		s.mu.Unlock()
		return tarn.TimelineStatus{}, fmt.Errorf("look at timeline %s: %w", id, tarn.NotFound("timeline %s does not exist", id))
	}
	man, bytes, counted := t.man, t.bytes, t.counted
	s.mu.Unlock()
	if now := time.Now(); now.Sub(counted) > countEvery {
		dir := s.path(id)
		if s.reflink {
			dir = s.path(id, "data")
		}
		var err error
		if bytes, err = diskUsage(dir); err != nil {
			return tarn.TimelineStatus{}, fmt.Errorf("look at timeline %s: %w", id, err)
		}
		s.mu.Lock()
		t.bytes, t.counted = bytes, now
		s.mu.Unlock()
	}
	return tarn.TimelineStatus{ID: id, Parent: man.Parent, Head: man.Head, Bytes: bytes, Marks: man.reachable()}, nil
}

// Timelines gives the status of every timeline in the order of ids.
func (s *Store) Timelines(ctx context.Context) ([]tarn.TimelineStatus, error) {
	s.mu.Lock()
	var ids []tarn.TimelineID
	for id, t := range s.timelines {
		if t.state == stateIdle || t.state == stateHeld {
			ids = append(ids, id)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(ids, cmp.Compare[tarn.TimelineID])
	all := make([]tarn.TimelineStatus, 0, len(ids))
	for _, id := range ids {
		st, err := s.Stat(ctx, id)
		if tarn.KindOf(err) == tarn.KindNotFound {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("list timelines: %w", err)
		}
		all = append(all, st)
	}
	return all, nil
}
