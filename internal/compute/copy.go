package compute

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
	"github.com/tarndb/tarn/internal/wal"
)

// WAL is copied to the object store by the compute that writes it, while it
// runs (copying), and for timelines at rest by the fleet (copier): forks that
// never ran, and what a crash or an unreachable store left behind.

// copying is the work of copying an engine's WAL. One goroutine does it from
// startCopying to stopCopying.
type copying struct {
	uploader *wal.Uploader
	cancel   context.CancelFunc
	done     chan struct{} // closed when the goroutine has ended
	ended    chan struct{} // closed when it ended unasked, for err
	err      error
}

// startCopying begins to copy the WAL of an engine that has started; without an
// object store it does nothing.
func (e *engine) startCopying(ctx context.Context) {
	if e.on.o.Remote.WAL == nil {
		return
	}
	e.on.rest.interrupt(e.timeline)
	// It outlives what began it, as the life does.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ask := &flushedAsk{e: e}
	source := e.on.sourceOf(e, e.control) // the TLI of an ordinary start never changes
	source.Flushed = ask.flushed
	w := &copying{uploader: e.on.o.Remote.WAL.Uploader(source), cancel: cancel, done: make(chan struct{}), ended: make(chan struct{})}
	e.copying = w
	e.on.rest.serve(e.timeline, w)
	go func() {
		defer close(w.done)
		defer ask.close(ctx)
		if w.err = w.uploader.Run(ctx); w.err != nil {
			close(w.ended)
		}
	}()
}

// readControl reads what startCopying must know, while the volume is not shown:
// a process that is killed while it reads through its own mount never ends. The
// volume that a template is made on has no control file yet.
func (e *engine) readControl() (err error) {
	if e.on.o.Remote.WAL == nil {
		return nil
	}
	if e.control, err = readControl(e.volume); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("copy WAL of timeline %s: %w", e.timeline, err)
	}
	return nil
}

func (m *machine) sourceOf(e *engine, c postgres.Control) wal.Source {
	s := wal.Source{Timeline: e.timeline, Log: e.wal, TLI: c.TLI, SegmentBytes: c.SegmentBytes}
	if v, ok := e.volume.(leased); ok {
		s.Lease = v.Lease().Epoch
	}
	return s
}

// flushedAsk asks an engine how far its WAL is on disk, over a connection of
// its own: the uploader must not wait for what else the fleet asks.
type flushedAsk struct {
	e       *engine
	session *session
	last    tarn.LSN // what it said last
}

func (a *flushedAsk) flushed(ctx context.Context) (lsn tarn.LSN, err error) {
	a.e.ice.asking.RLock()
	defer a.e.ice.asking.RUnlock()
	if a.e.ice.frozen.Load() && a.last != 0 {
		return a.last, nil // it writes nothing
	}
	if a.session == nil {
		if a.session, err = a.e.connect(ctx); err != nil {
			a.session = nil
			return 0, err
		}
	}
	if lsn, err = a.session.flushed(ctx); err != nil {
		a.close(ctx)
		return 0, err
	}
	a.last = lsn
	return lsn, nil
}

func (a *flushedAsk) close(ctx context.Context) {
	if a.session != nil {
		a.session.close(ctx)
		a.session = nil
	}
}

// stopCopying ends the goroutine; what it has not copied is due.
func (e *engine) stopCopying() *copying {
	w := e.copying
	if w == nil {
		return nil
	}
	w.cancel()
	<-w.done
	e.on.rest.leave(e.timeline)
	return w
}

// finishPatience is how long a suspend waits for the object store.
const finishPatience = 5 * time.Second

// finishCopying copies what is left after Postgres has stopped cleanly.
func (e *engine) finishCopying(ctx context.Context, w *copying, c postgres.Control) {
	if w == nil || w.err != nil || c.State != postgres.StateShutDown {
		return
	}
	end, err := e.wal.RecordEnd(c.TLI, c.Checkpoint, c.SegmentBytes)
	if err == nil {
		limit, cancel := context.WithTimeout(ctx, finishPatience)
		defer cancel()
		err = w.uploader.Finish(limit, end)
	}
	if err != nil {
		e.on.log.Warn("end of WAL not copied yet", "timeline", string(e.timeline), "err", err)
		return
	}
	e.on.rest.remove(e.timeline)
}

// WALLag tells, for every timeline that a compute serves, what of its WAL is
// not in the object store yet; nothing without one.
func (f *Fleet) WALLag() map[tarn.TimelineID]wal.Lag {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[tarn.TimelineID]wal.Lag{}
	for _, l := range f.lives {
		if l.engine != nil && l.engine.copying != nil {
			all[l.spec.Timeline] = l.engine.copying.uploader.Lag()
		}
	}
	return all
}

// WALCopied is the position before which a timeline's WAL is in the object
// store: pages that carry no later LSN may leave this computer too. It is 0 while
// nothing is known of it.
func (f *Fleet) WALCopied(ctx context.Context, id tarn.TimelineID) (tarn.LSN, error) {
	if f.o.Remote.WAL == nil {
		return 0, tarn.Unavailable("WAL of timeline %s is copied nowhere", id)
	}
	if e := f.serving(id); e != nil && e.copying != nil {
		return e.copying.uploader.Done(), nil
	}
	if !f.rest.isCopied(id) {
		return 0, nil
	}
	st, err := f.store.Stat(ctx, id)
	if err != nil {
		return 0, fmt.Errorf("look how far WAL of timeline %s is copied: %w", id, err)
	}
	end := tarn.LSN(0)
	for _, m := range st.Marks {
		end = max(end, m.LSN)
	}
	return end, nil
}

// copier copies WAL of timelines at rest.
type copier struct{ *maker }

// copyEvery is how often it looks by itself, and how long one timeline may take;
// what went wrong is tried again sooner.
const (
	copyEvery     = time.Minute
	copyRetry     = time.Second
	copyRetryMost = 30 * time.Second
)

// run copies the WAL of timelines at rest, trims what is here too, and
// removes copies of timelines that are no more. One goroutine does all of it,
// so that nothing is copied of what is being removed.
func (k copier) run(ctx context.Context) {
	if k.o.Remote.WAL == nil {
		return
	}
	tick := time.NewTicker(copyEvery)
	defer tick.Stop()
	pause := copyRetry
	for {
		failed := false
		for _, id := range k.rest.all() {
			err := k.copyAtRest(ctx, id)
			k.tell(ctx, id, "WAL at rest not copied", err)
			failed = failed || err != nil
		}
		k.removeAbandoned(ctx)
		var again <-chan time.Time
		if failed {
			again = time.After(pause)
			pause = min(2*pause, copyRetryMost)
		} else {
			pause = copyRetry
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
		case <-tick.C:
			for _, id := range k.records.ids() {
				k.tell(ctx, id, "WAL not trimmed", k.trim(ctx, id))
			}
		case <-k.rest.kick:
		}
	}
}

func (k copier) tell(ctx context.Context, id tarn.TimelineID, what string, err error) {
	if err != nil && ctx.Err() == nil {
		k.log.Warn(what, "timeline", string(id), "err", err)
	}
}

// copyAtRest copies the WAL of a timeline on which no Postgres runs up to its
// end. It is held only to find that out: a compute that starts meanwhile
// interrupts it, copies the same and goes on.
func (k copier) copyAtRest(ctx context.Context, id tarn.TimelineID) error {
	limit, cancel := context.WithCancel(ctx)
	defer cancel()
	source, end, err := k.restingSource(ctx, id, cancel)
	if err != nil || source.Log == nil {
		return err
	}
	late := time.AfterFunc(copyEvery, cancel)
	defer late.Stop()
	err = k.o.Remote.WAL.Uploader(source).Finish(limit, end)
	k.rest.end(err)
	return err
}

// restingSource finds out where the WAL of a timeline ends, which is busy then; the
// source is empty when there is nothing to do.
func (k copier) restingSource(ctx context.Context, id tarn.TimelineID, cancel func()) (s wal.Source, end tarn.LSN, err error) {
	release, err := k.holds.take(ctx, string(id))
	if err != nil {
		return s, 0, err
	}
	defer release()
	t, ok := k.records.known(id)
	if !ok || !k.rest.isDue(id) || k.serving(id) != nil {
		k.rest.remove(id)
		return s, 0, nil
	}
	if err := k.present(ctx, id); err != nil {
		return s, 0, err
	}
	m, err := k.settle(ctx, t)
	if err != nil {
		return s, 0, err
	}
	e := &engine{on: k.machine, timeline: id, wal: k.walOf(id)}
	if e.volume, err = k.store.OpenVolume(ctx, id); err != nil {
		return s, 0, err
	}
	c, err := readControl(e.volume)
	s = k.sourceOf(e, c)
	if err := errors.Join(err, e.closeVolume()); err != nil {
		return wal.Source{}, 0, err
	}
	k.rest.begin(id, cancel)
	return s, m.LSN, nil
}

// trim removes local copies of copied segments beyond the limit.
func (k copier) trim(ctx context.Context, id tarn.TimelineID) error {
	release, err := k.holds.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer release()
	e := k.serving(id)
	if _, ok := k.records.known(id); !ok || e == nil || e.copying == nil {
		return nil
	}
	n, err := k.walOf(id).Trim(ctx, e.copying.uploader.Done(), segmentBytes, k.o.Remote.LocalWAL)
	if n > 0 {
		k.log.Info("WAL trimmed", "timeline", string(id), "count", n)
	}
	return err
}

// hasAgedWAL tells whether there is WAL from before old, here or in the object
// store.
func (m *machine) hasAgedWAL(ctx context.Context, id tarn.TimelineID, old time.Time) (bool, error) {
	aged, err := m.walOf(id).HasAged(segmentBytes, old)
	if err != nil || aged || m.o.Remote.WAL == nil {
		return aged, err
	}
	return m.o.Remote.WAL.HasAged(ctx, id, old)
}

// uploader is storage that brings what it has of a timeline to the object store.
type uploader interface {
	Upload(ctx context.Context, id tarn.TimelineID) error
}

// pruneCopy removes from the object store what no fork needs any more: what lies
// before the checkpoint c.
func (m *machine) pruneCopy(ctx context.Context, id tarn.TimelineID, c postgres.Control, old time.Time) (int, error) {
	if m.o.Remote.WAL == nil {
		return 0, nil
	}
	// What the object store has of the pages needs its WAL too, and may be older
	// than what is here. This also proves that the timeline is still ours.
	if s, ok := m.store.(uploader); ok {
		if err := s.Upload(ctx, id); err != nil {
			return 0, err
		}
	}
	return m.o.Remote.WAL.Prune(ctx, id, wal.Start{TLI: c.TLI, LSN: c.Redo, SegmentBytes: c.SegmentBytes}, old)
}

// abandonCopy notes that a timeline's copy is to be removed, before the rest of
// it is: wal-abandoned/<id> is a name without content, removed last.
func (m *machine) abandonCopy(id tarn.TimelineID) error {
	if m.o.Remote.WAL == nil {
		return nil
	}
	dir := m.path(abandonedDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(dir, string(id)), nil); err != nil {
		return err
	}
	m.rest.wake()
	return syncDir(dir)
}

const abandonedDir = "wal-abandoned"

// removeAbandoned removes the copies of timelines that are no more.
func (k copier) removeAbandoned(ctx context.Context) {
	entries, err := os.ReadDir(k.path(abandonedDir))
	if err != nil {
		return // there were never any
	}
	for _, e := range entries {
		id, err := tarn.ParseTimelineID(e.Name())
		if err == nil {
			k.tell(ctx, id, "abandoned WAL not removed", k.removeCopy(ctx, id))
		}
	}
}

// removeCopy holds the timeline, so that it is not made again meanwhile. As long
// as the storage has it, it is not deleted: another computer may have taken it.
func (k copier) removeCopy(ctx context.Context, id tarn.TimelineID) error {
	release, err := k.holds.take(ctx, string(id))
	if err != nil {
		return err
	}
	defer release()
	_, ok := k.records.known(id)
	if !ok {
		_, err := k.store.Stat(ctx, id)
		if err == nil {
			return nil // its deletion is not finished
		}
		if tarn.KindOf(err) != tarn.KindNotFound {
			return err
		}
		if err := k.o.Remote.WAL.Remove(ctx, id); err != nil {
			return err
		}
	}
	return removeFile(k.path(abandonedDir, string(id)))
}
