package plaindir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
)

// Volume is the writable head of a timeline: its data directory.
//
//	OpenVolume ──▶ hidden ⇄ shown
//	                 │
//	                 └─Close─▶ closed
type Volume struct {
	store *Store
	of    *timeline

	turn   chan struct{} // holds one token while somebody uses what follows
	link   string        // where it is shown; "" = hidden
	done   chan struct{} // of link
	base   *base         // being made, or made and not marked yet
	failed time.Time     // when a base could not be made
	// crowded: that there was no room for a base was said.
	crowded bool
	closed  bool
}

// OpenVolume opens a timeline's data directory. A timeline has one volume at a
// time.
func (s *Store) OpenVolume(ctx context.Context, id tarn.TimelineID) (*Volume, error) {
	t, err := s.take(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("open volume of timeline %s: %w", id, err)
	}
	defer t.pass()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, fmt.Errorf("open volume of timeline %s: %w", id, tarn.Unavailable("the store is closed"))
	case t.state != stateIdle:
		return nil, fmt.Errorf("open volume of timeline %s: %w", id, tarn.Conflict("it is open"))
	}
	t.enter(stateHeld)
	t.volume = &Volume{store: s, of: t, turn: make(chan struct{}, 1)}
	return t.volume, nil
}

var errClosed = errors.New("volume is closed")

// enter waits for the turn; leave ends it.
func (v *Volume) enter(ctx context.Context) error {
	select {
	case v.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if v.closed {
		v.leave()
		return errClosed
	}
	return nil
}

func (v *Volume) leave() { <-v.turn }

// Dir is the data directory itself.
func (v *Volume) Dir() string { return v.store.path(v.of.id, "data") }

// Head is the next seq.
func (v *Volume) Head() tarn.Seq { return v.store.manifest(v.of).Head }

// Show lets a Postgres work in the directory, through a symbolic link at link.
//
//  1. Keep a base of what was marked at the head, if it is the timeline's first
//     and small, or free: else it could be forked at that mark no more.
//     crash: the base is litter or it is not
//  2. Move the head, so that no mark stands there any more, and forget marks
//     without a base.  crash: the caller sees that the end is not marked, and
//     has Postgres recover, which finds nothing to do
//  3. Make the link. It need not survive a crash.
func (v *Volume) Show(ctx context.Context, link string) error {
	if err := v.enter(ctx); err != nil {
		return fmt.Errorf("show timeline %s at %s: %w", v.of.id, link, err)
	}
	defer v.leave()
	if err := v.show(ctx, link); err != nil {
		return fmt.Errorf("show timeline %s at %s: %w", v.of.id, link, err)
	}
	return nil
}

func (v *Volume) show(ctx context.Context, link string) error {
	if v.link != "" {
		return tarn.Conflict("it is shown at %s", v.link)
	}
	man := v.store.manifest(v.of).with()
	if err := v.firstBase(ctx, man); err != nil {
		return err
	}
	man.Marks = man.bases()
	man.Head++
	if err := v.store.replace(v.of, man); err != nil {
		return err
	}
	if err := os.Symlink(v.Dir(), link); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return tarn.Conflict("something is there: %w", err)
		}
		return err
	}
	v.link, v.done = link, make(chan struct{})
	return nil
}

// firstBase keeps the data as the base of the marks at the head where the
// timeline has none yet.
func (v *Volume) firstBase(ctx context.Context, man *manifest) error {
	n := len(man.Marks)
	if n == 0 || v.store.history(man) <= 0 || len(man.bases()) > 0 || !man.atHead(man.Marks[n-1].Seq) {
		return nil
	}
	if !v.store.reflink {
		if size, err := diskUsage(v.Dir()); err != nil || size > v.store.o.FirstBase {
			return err
		}
	}
	seq := man.Marks[n-1].Seq
	err := v.store.keepBase(ctx, v.of, seq, AtRest)
	if errors.Is(err, unix.ENOSPC) {
		v.store.log.Warn("no room for a base; forks at a past time begin later", "timeline", string(v.of.id), "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	for i := range man.Marks {
		man.Marks[i].Base = man.Marks[i].Seq == seq
	}
	return nil
}

// Hide ends Show. The caller has ended every Postgres in the directory. A base
// that is still being made is given up.
func (v *Volume) Hide() error {
	if err := v.enter(context.Background()); err != nil {
		if errors.Is(err, errClosed) {
			return nil
		}
		return err
	}
	defer v.leave()
	return v.hide()
}

func (v *Volume) hide() error {
	if v.link == "" {
		return nil
	}
	if b := v.base; b != nil {
		b.cancel()
		<-b.done
		if b.err != nil {
			v.base = nil
		}
	}
	if to, err := os.Readlink(v.link); err == nil && to == v.Dir() {
		if err := os.Remove(v.link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("hide timeline %s: %w", v.of.id, err)
		}
	}
	v.link = ""
	close(v.done)
	return nil
}

// Leave ends Show for this process alone: the link stays, and the Postgres in the
// directory goes on, until Resume. Close does not touch either then. A base that
// is still being made is given up.
func (v *Volume) Leave() error {
	if err := v.enter(context.Background()); err != nil {
		return err
	}
	defer v.leave()
	if v.link == "" {
		return tarn.Conflict("leave timeline %s: it is not shown", v.of.id)
	}
	if b := v.base; b != nil {
		b.cancel()
		<-b.done
		v.store.dropBases(v.of, []tarn.Seq{b.seq})
		v.base = nil
	}
	v.link = ""
	close(v.done)
	return nil
}

// Resume goes on with a directory that was left at link, or by a process that
// ended there.
func (v *Volume) Resume(ctx context.Context, link string) error {
	if err := v.enter(ctx); err != nil {
		return fmt.Errorf("resume timeline %s at %s: %w", v.of.id, link, err)
	}
	defer v.leave()
	to, err := os.Readlink(link)
	switch {
	case v.link != "":
		return tarn.Conflict("resume timeline %s: it is shown at %s", v.of.id, v.link)
	case err != nil:
		return fmt.Errorf("resume timeline %s: %w", v.of.id, err)
	case to != v.Dir():
		return tarn.Conflict("resume timeline %s: %s leads to %s", v.of.id, link, to)
	}
	// Show has moved the head and dropped the marks that stood there.
	v.link, v.done = link, make(chan struct{})
	return nil
}

// Hidden is closed when the current Show has ended; nil without one.
func (v *Volume) Hidden() <-chan struct{} {
	v.turn <- struct{}{}
	defer v.leave()
	return v.done
}

// Mark makes m durable. While the directory is shown m names a point that Pin
// gave; of another nothing was kept, so that it is not marked either. While it
// is hidden m names the head. A base that was pinned and never marked is marked
// too: m's LSN and time are after it.
func (v *Volume) Mark(ctx context.Context, m tarn.Mark) error {
	if err := v.enter(ctx); err != nil {
		return fmt.Errorf("mark timeline %s: %w", v.of.id, err)
	}
	defer v.leave()
	if err := v.mark(m); err != nil {
		return fmt.Errorf("mark timeline %s: %w", v.of.id, err)
	}
	return nil
}

func (v *Volume) mark(m tarn.Mark) error {
	man := v.store.manifest(v.of).with()
	if m.Seq > man.Head {
		return tarn.Invalid("seq %d: it is at %d", m.Seq, man.Head)
	}
	b := v.base
	switch {
	case v.link != "" && (b == nil || b.seq != m.Seq || !b.ready()):
		return nil
	case v.link == "" && m.Seq < man.Head:
		return tarn.Invalid("seq %d: nothing was kept of it", m.Seq)
	}
	if b != nil {
		kept := m
		kept.Seq = b.seq
		man.Marks = append(man.Marks, mark{Mark: kept, Base: true})
	}
	if v.link == "" {
		man.Marks = append(man.Marks, mark{Mark: m})
	}
	man.Head++
	slices.SortStableFunc(man.Marks, func(a, b mark) int { return int(int64(a.Seq) - int64(b.Seq)) })
	dropped := v.store.thin(man)
	if err := v.store.replace(v.of, man); err != nil {
		return err
	}
	v.base = nil
	v.store.dropBases(v.of, dropped)
	return nil
}

// Close ends the volume, hiding it first. Closing twice is no error.
func (v *Volume) Close() error {
	if err := v.enter(context.Background()); err != nil {
		if errors.Is(err, errClosed) {
			return nil
		}
		return err
	}
	defer v.leave()
	if err := v.hide(); err != nil {
		return err
	}
	if v.base != nil {
		v.store.dropBases(v.of, []tarn.Seq{v.base.seq})
		v.base = nil
	}
	v.closed = true
	s := v.store
	s.mu.Lock()
	defer s.mu.Unlock()
	v.of.volume = nil
	v.of.enter(stateIdle)
	return nil
}

// ReadFile reads a file of the directory, which must be hidden.
func (v *Volume) ReadFile(name string) ([]byte, error) { return readIn(v.Dir(), name) }

// EmptyDir removes everything in a directory, durably.
func (v *Volume) EmptyDir(name string) error {
	root, err := os.OpenRoot(v.Dir())
	if err != nil {
		return err
	}
	defer root.Close()
	d, err := root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil || len(names) == 0 {
		return err
	}
	for _, n := range names {
		if err := root.RemoveAll(name + "/" + n); err != nil {
			return err
		}
	}
	return d.Sync()
}

// readIn reads a file below a directory that belongs to Postgres: no link there
// leads us out.
func readIn(dir, name string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.ReadFile(name)
}
