package pagestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// made ends the making of a timeline, well or badly.
func (s *Store) made(t *timeline, man *manifest, err error) {
	defer t.pass()
	var cleanup error
	if err != nil {
		cleanup = s.removeDir(t.dir(&s.shelf)) // else the next Open does it
	}
	if cleanup != nil {
		s.slog.Warn("remove unfinished timeline", "timeline", t.id, "err", cleanup)
	}
	s.mu.Lock()
	if err == nil {
		t.man, t.parent = man, man.Parent
		t.enter(stateIdle)
		s.mu.Unlock()
		return
	}
	t.enter(stateGone)
	t.parent = tarn.Point{}
	delete(s.timelines, t.id)
	if p := s.timelines[man.Parent.Timeline]; p != nil {
		p.children--
	}
	s.mu.Unlock()
	s.reap(man.Parent.Timeline)
}

// Create makes an empty timeline with a root directory.
//
//  1. directory of the timeline        crash: without a manifest, removed by Open
//  2. log with the root's record       crash: the same
//  3. manifest, then the directory's   after it the timeline is there
//     name
func (s *Store) Create(ctx context.Context, id tarn.TimelineID, root layer.NewFile) error {
	t, err := s.reserveID(id, "")
	if err != nil {
		return fmt.Errorf("create timeline %s: %w", id, err)
	}
	man := &manifest{Timeline: id, Created: time.Now(), History: -1}
	ix := newIndex(s.cache)
	defer ix.release()
	var e end
	if err = ctx.Err(); err != nil {
		err = context.Cause(ctx)
	} else if err = s.files.Mkdir(t.dir(&s.shelf)); err == nil {
		e, err = s.writeRoot(t, ix, root)
	}
	if err == nil {
		man.Closed = closed{Head: e.seq, Segment: e.last.id.Number, Bytes: e.bytes()}
		s.count(t, man, ix)
		err = s.putManifest(man)
	}
	s.made(t, man, err)
	if err != nil {
		return fmt.Errorf("create timeline %s: %w", id, err)
	}
	return nil
}

// writeRoot begins the log of a timeline with its root directory.
func (s *Store) writeRoot(t *timeline, ix *index, root layer.NewFile) (end, error) {
	root.Mode = root.Mode&^unix.S_IFMT | unix.S_IFDIR
	r := layer.Record{Kind: layer.KindCreate, Ino: layer.RootIno, File: root, Time: time.Now().UnixNano()}
	l := s.newLog(t, ix, end{}, 1)
	defer l.release()
	if _, err := l.append(nil, &r); err != nil {
		return end{}, err
	}
	if err := ix.apply(&r, 0); err != nil {
		return end{}, err
	}
	if err := l.sync(); err != nil {
		return end{}, err
	}
	ix.seq = 1
	return l.finish()
}

// putManifest makes a timeline durable: its manifest, then its name.
func (s *Store) putManifest(man *manifest) error {
	if err := s.manifests.put(man); err != nil {
		return err
	}
	return s.files.SyncDir(s.manifests.dir)
}

// Fork makes child a timeline that begins with everything that parent holds
// now. The parent may be open and written meanwhile. No page is copied.
//
//  1. pin: copy the parent's index in memory     crash: nothing
//  2. sync the parent's log up to the pin        crash: nothing
//  3. the child's directory and manifest         crash: without a manifest,
//     removed by Open
//  4. hand the pinned index to the child, until it is opened
func (s *Store) Fork(ctx context.Context, parent, child tarn.TimelineID) (tarn.Point, error) {
	at := tarn.Point{Timeline: parent}
	t, err := s.reserveID(child, parent)
	if err != nil {
		return tarn.Point{}, fmt.Errorf("fork timeline %s as %s: %w", parent, child, err)
	}
	man := &manifest{Timeline: child, Parent: at, Created: time.Now(), History: -1}
	ix, seq, err := s.pin(ctx, parent, t)
	if err == nil {
		man.Parent.Seq, man.Closed.Head = seq, seq
		if err = s.files.Mkdir(t.dir(&s.shelf)); err == nil {
			err = s.putManifest(man)
		}
	}
	s.made(t, man, err)
	if err != nil {
		if ix != nil {
			ix.release()
		}
		return tarn.Point{}, fmt.Errorf("fork timeline %s as %s: %w", parent, child, err)
	}
	if ix != nil {
		s.hand(t, ix)
	}
	return man.Parent, nil
}

// pin gives a timeline's head, durable, and a copy of its index when it is
// open. The head is kept from collection for the child.
func (s *Store) pin(ctx context.Context, id tarn.TimelineID, child *timeline) (*index, tarn.Seq, error) {
	t, err := s.take(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	defer t.pass()
	s.mu.Lock()
	v := t.volume
	s.mu.Unlock()
	if v != nil {
		ix, err := v.pin()
		if err != nil {
			return nil, 0, err
		}
		if err := v.log.sync(); err != nil {
			ix.release()
			return nil, 0, err
		}
		s.beginAt(child, tarn.Point{Timeline: id, Seq: ix.seq})
		return ix, ix.seq, nil
	}
	if err := s.remote.own(ctx, t); err != nil {
		return nil, 0, err
	}
	seq, _, err := s.summary(ctx, t)
	if err == nil {
		s.beginAt(child, tarn.Point{Timeline: id, Seq: seq})
	}
	return nil, seq, err
}

// ForkAt makes child a timeline that begins with what parent held at a past
// seq of its line. Only a manifest is written; the log is read when the child
// is opened.
func (s *Store) ForkAt(ctx context.Context, parent tarn.Point, child tarn.TimelineID) error {
	t, err := s.reserveID(child, parent.Timeline)
	if err != nil {
		return fmt.Errorf("fork timeline %s as %s: %w", parent, child, err)
	}
	man := &manifest{Timeline: child, Parent: parent, Created: time.Now(), History: -1, Closed: closed{Head: parent.Seq}}
	if err = s.reach(ctx, parent, t); err == nil {
		if err = s.files.Mkdir(t.dir(&s.shelf)); err == nil {
			err = s.putManifest(man)
		}
	}
	s.made(t, man, err)
	if err != nil {
		return fmt.Errorf("fork timeline %s as %s: %w", parent, child, err)
	}
	return nil
}

// reach checks that a point exists and is kept, makes what stands before it
// durable and keeps it from collection for the child.
func (s *Store) reach(ctx context.Context, p tarn.Point, child *timeline) error {
	t, err := s.take(ctx, p.Timeline)
	if err != nil {
		return err
	}
	s.mu.Lock()
	v, owner := t.volume, s.owner(p)
	s.mu.Unlock()
	var head tarn.Seq
	if v != nil {
		head = v.Head()
		err = v.log.sync()
	} else if err = s.remote.own(ctx, t); err == nil {
		head, _, err = s.summary(ctx, t)
	}
	if err == nil && (p.Seq == 0 || p.Seq > head) {
		err = tarn.Invalid("seq %d is not on the timeline, which has seq 1 to %d", p.Seq, head)
	}
	if err == nil && owner == t {
		if err = s.reachable(t, p.Seq); err == nil {
			s.beginAt(child, p)
		}
	}
	t.pass()
	if err != nil || owner == t {
		return err
	}
	// The timeline stays for the child, and its ancestors for it.
	if err := s.wait(ctx, owner); err != nil {
		return err
	}
	defer owner.pass()
	if err := s.reachable(owner, p.Seq); err != nil {
		return err
	}
	s.beginAt(child, p)
	return nil
}

// Delete removes a timeline. It is refused while the timeline is open. While
// others began in it its files stay, though nobody sees it any more: it is a
// ghost, and goes with the last of those.
//
// With children:
//
//  1. manifest with the flag                         crash: either
//
// Without:
//
//  1. rename the directory to <id>.deleted, synced   crash: either; then Open
//     goes on with 2
//  2. remove it from the bucket                      crash: Open goes on
//  3. remove its files and itself                    crash: Open goes on
//  4. the same with a parent that is a ghost and     crash: Open goes on
//     has no other child
func (s *Store) Delete(ctx context.Context, id tarn.TimelineID) error {
	t, err := s.take(ctx, id)
	if err != nil {
		return fmt.Errorf("delete timeline %s: %w", id, err)
	}
	s.mu.Lock()
	if t.state != stateIdle {
		err = tarn.Conflict("it is open")
	}
	s.mu.Unlock()
	if err == nil {
		err = s.remote.own(ctx, t)
	}
	if err == nil {
		err = s.remove(t)
	}
	if errors.Is(err, errChildren) {
		err = s.haunt(t)
	}
	t.pass()
	if err != nil {
		return fmt.Errorf("delete timeline %s: %w", id, err)
	}
	s.reap(id)
	s.reap(t.parent.Timeline)
	return nil
}

// haunt makes an idle timeline a ghost. The caller has the turn.
func (s *Store) haunt(t *timeline) error {
	man := *t.man
	man.Deleted = true
	if err := s.manifests.replace(&man, t.man.Epoch); err != nil {
		return err
	}
	s.mu.Lock()
	t.man = &man
	t.due = true
	t.enter(stateGhost)
	ix := t.index
	t.index = nil
	s.mu.Unlock()
	if ix != nil {
		ix.release()
	}
	return nil
}

// reap removes a ghost without children, and its parent when that is one then.
func (s *Store) reap(id tarn.TimelineID) {
	for id != "" {
		s.mu.Lock()
		t := s.timelines[id]
		due := t != nil && t.state == stateGhost && t.children == 0
		s.mu.Unlock()
		if !due {
			return
		}
		t.turn <- struct{}{}
		s.mu.Lock()
		due = t.state == stateGhost && t.remote.writable() // else another node does it
		s.mu.Unlock()
		var err error
		if due {
			err = s.remove(t)
		}
		t.pass()
		if err != nil { // the next Open tries again
			s.slog.Warn("remove deleted timeline", "timeline", id, "err", err)
			return
		}
		id = t.parent.Timeline
	}
}

var errChildren = errors.New("timelines began in it")

// remove takes an idle timeline or a ghost away; errChildren when it must stay.
// The caller has the turn.
func (s *Store) remove(t *timeline) error {
	s.mu.Lock()
	before := t.state
	if t.children > 0 {
		defer s.mu.Unlock()
		return errChildren
	}
	t.enter(stateDeleting)
	s.mu.Unlock()
	deleted := t.dir(&s.shelf) + deletedSuffix
	if err := s.setAside(t.dir(&s.shelf), deleted); err != nil {
		s.mu.Lock()
		t.enter(before)
		s.mu.Unlock()
		return err
	}
	s.mu.Lock()
	t.enter(stateGone)
	if p := s.owner(t.parent); p != nil {
		p.due = true
	}
	delete(s.timelines, t.id)
	if p := s.timelines[t.parent.Timeline]; p != nil {
		p.children--
	}
	ix := t.index
	t.index = nil
	s.mu.Unlock()
	if ix != nil {
		ix.release()
	}
	if err := s.remote.forget(t); err != nil {
		// The renamed directory makes the next Open do it.
		s.slog.Warn("remove deleted timeline from the bucket", "timeline", t.id, "err", err)
		return nil
	}
	if err := s.removeDir(deleted); err != nil {
		// It is deleted for good; the rest goes at the next Open.
		s.slog.Warn("remove deleted timeline", "timeline", t.id, "err", err)
	}
	return nil
}

// setAside renames a timeline's directory durably, or leaves it as it was.
func (s *shelf) setAside(dir, deleted string) error {
	if err := s.removeDir(deleted); err != nil { // of an earlier timeline with that id
		return err
	}
	if err := s.files.Rename(dir, deleted); err != nil {
		return err
	}
	if err := s.files.SyncDir(s.manifests.dir); err != nil {
		return errors.Join(err, s.files.Rename(deleted, dir))
	}
	return nil
}

// Stat says what the store knows of a timeline. ForkLSN and ForkTime are not
// the store's to know.
func (s *Store) Stat(ctx context.Context, id tarn.TimelineID) (tarn.TimelineStatus, error) {
	t, err := s.take(ctx, id)
	if err != nil {
		return tarn.TimelineStatus{}, fmt.Errorf("look at timeline %s: %w", id, err)
	}
	defer t.pass()
	s.mu.Lock()
	v, man := t.volume, t.man
	s.mu.Unlock()
	st := tarn.TimelineStatus{ID: id, Parent: man.Parent}
	if v != nil {
		st.Head, st.Marks = v.Head(), v.marks()
	} else {
		var marks []tarn.Mark
		if st.Head, marks, err = s.summary(ctx, t); err != nil {
			return tarn.TimelineStatus{}, fmt.Errorf("look at timeline %s: %w", id, err)
		}
		st.Marks = slices.Clone(marks)
	}
	segments, err := s.ownSegments(t)
	if err != nil {
		return tarn.TimelineStatus{}, fmt.Errorf("look at timeline %s: %w", id, err)
	}
	for _, f := range segments {
		st.Bytes += f.size
	}
	return st, nil
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
	out := make([]tarn.TimelineStatus, 0, len(ids))
	for _, id := range ids {
		st, err := s.Stat(ctx, id)
		if tarn.KindOf(err) == tarn.KindNotFound {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("list timelines: %w", err)
		}
		out = append(out, st)
	}
	return out, nil
}

// OpenVolume makes the timeline's head writable. A timeline has one volume at
// a time.
func (s *Store) OpenVolume(ctx context.Context, id tarn.TimelineID) (*Volume, error) {
	return s.ReopenVolume(ctx, id, nil)
}

// ReopenVolume is OpenVolume for a mount that outlived the volume it had: of the
// files without a name those in held are still there, until Forget or Close.
func (s *Store) ReopenVolume(ctx context.Context, id tarn.TimelineID, held []layer.Ino) (*Volume, error) {
	t, err := s.take(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("open volume of timeline %s: %w", id, err)
	}
	defer t.pass()
	s.mu.Lock()
	idle := t.state == stateIdle
	s.mu.Unlock()
	if !idle {
		return nil, fmt.Errorf("open volume of timeline %s: %w", id, tarn.Conflict("it is open"))
	}
	if err := s.remote.own(ctx, t); err != nil {
		return nil, fmt.Errorf("open volume of timeline %s: %w", id, err)
	}
	ix, e, err := s.head(ctx, t, held...)
	if err != nil {
		return nil, fmt.Errorf("open volume of timeline %s: %w", id, err)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		ix.release()
		return nil, fmt.Errorf("open volume of timeline %s: %w", id, tarn.Unavailable("page store is closed"))
	}
	defer s.mu.Unlock()
	return s.newVolume(t, ix, e), nil
}

// newVolume makes ix the index of t's volume. The caller holds Store.mu.
func (s *Store) newVolume(t *timeline, ix *index, e end) *Volume {
	t.enter(stateHeld)
	ix.keep = keepOrphans
	l := s.newLog(t, ix, e, t.man.Epoch)
	t.volume = &Volume{store: s, of: t, ix: ix, log: l, contents: contents{ix: ix, log: l, scratch: &s.scratch}, loss: loss{lost: make(chan struct{}), line: t.remote}}
	t.volume.swept.Store(uint64(t.man.Swept.Head))
	if !t.remote.writable() { // somebody took it just now
		l.die(errClosed) //nolint:errcheck // the first operation will tell
		t.volume.loss.tell()
	}
	return t.volume
}

// newLog makes the log that goes on at e.
func (s *Store) newLog(t *timeline, ix *index, e end, epoch uint64) *log {
	l := &log{files: s.files, dir: s.manifests.dir, timeline: t.id, epoch: epoch, limit: s.limit, pool: &s.batches, ix: ix, slog: s.slog,
		beside: besides{kick: make(chan struct{}, 1), quit: make(chan struct{})}}
	l.appended.Store(uint64(e.seq))
	l.synced.Store(uint64(e.seq))
	if e.last == nil {
		l.written.Store(uint64(makePlace(len(*ix.segs.Load()), 0)))
		return l
	}
	e.last.retain()
	l.tail = tail{last: e.last, line: e.line, next: e.block, reserved: e.block, durable: e.block, unflag: e.block, closed: t.remote.sealed(e.last.id)}
	l.written.Store(uint64(makePlace(e.line, e.block)))
	return l
}

// closeVolume ends a volume.
//
//  1. stop changes, sync, cut what was reserved   crash: recovery reads the log
//  2. write a map when that is worth it           crash: litter
//  3. manifest with where the log ends            crash: either
func (s *Store) closeVolume(v *Volume) error {
	if v.closed.Load() {
		return nil
	}
	t := v.of
	t.turn <- struct{}{}
	defer t.pass()
	return closeTurn(s, v)
}

// closeTurn is closeVolume for who has the turn.
func closeTurn(s *Store, v *Volume) error {
	if v.closed.Load() {
		return nil
	}
	t := v.of
	e, err := v.shut()
	if err != nil && !v.closed.Load() {
		return fmt.Errorf("close volume of timeline %s: %w", t.id, err)
	}
	if err == nil {
		err = s.settle(v, e)
	}
	s.mu.Lock()
	t.volume = nil
	t.dead += v.ix.dead.Load()
	t.loose += v.ix.loose.Load()
	t.enter(stateIdle)
	s.mu.Unlock()
	v.ix.release()
	v.log.release()
	if err != nil {
		return fmt.Errorf("close volume of timeline %s: %w", t.id, err)
	}
	return nil
}

// settle writes down where a closed volume's log ends. The caller has the turn.
func (s *Store) settle(v *Volume, e end) error {
	t := v.of
	m := s.mapClosed(t, v.ix, e)
	s.mu.Lock()
	c := t.man.Closed
	s.mu.Unlock()
	if m == nil && c.Head == e.seq && c.Bytes == e.bytes() {
		return nil
	}
	err := s.putClosed(t, v.ix, e, m)
	if isFull(err) {
		// The log tells the same, only slower.
		s.slog.Warn("write manifest", "timeline", t.id, "err", err)
		err = nil
		if m != nil {
			err = ignoreMissing(s.files.Remove(m.file.path))
		}
	}
	return err
}
