package pagestore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/layer"
)

// remoteLine is a timeline's manifest in the bucket as this store knows it, and
// the right to replace it.
//
//	fresh ──▶ held ⇄ free
//	            │      ▲
//	            ▼      │
//	          lost ────┘
//
// Fresh is a timeline that the bucket does not have: nobody else knows it. Lost
// is one that somebody took while we were silent: what the volume holds beyond
// the bucket is no part of it any more. Whoever takes a turn of the line has
// the timeline's or does not want it.
type remoteLine struct {
	turn chan struct{} // holds one token while the manifest is read or replaced in the bucket
	tend chan struct{} // holds one token while layers are uploaded or collected

	mu    sync.Mutex // guards what follows; never held across I/O
	state lineState
	man   *remoteManifest // as it is in the bucket; nil while fresh
	etag  string
	first uint64    // epoch of the first manifest while fresh, less one
	ours  bool      // the directory goes on from man, and is no other's past
	done  *manifest // the local one that the bucket has all of
	// unsure says that the last put of the manifest ended without an answer.
	unsure bool
	cut    time.Time                // when the log was last sealed for an upload
	wish   map[layer.FileID]*bitmap // objects to be packed, and their blocks that stay
	sent   uint32                   // segments up to this one were uploaded or are being: nothing is appended to them
}

type lineState uint8

const (
	lineFresh lineState = iota
	lineHeld
	lineFree
	lineLost
)

func newRemoteLine() *remoteLine {
	return &remoteLine{turn: make(chan struct{}, 1), tend: make(chan struct{}, 1)}
}

func (l *remoteLine) now() (lineState, *remoteManifest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state, l.man
}

// writable reports whether this node may change the timeline's layers.
func (l *remoteLine) writable() bool {
	if l == nil {
		return true
	}
	st, _ := l.now()
	return st == lineFresh || st == lineHeld
}

// wait takes the line's turn; the caller receives from it.
func (l *remoteLine) wait(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// bucketFile is the copy of the bucket's manifest beside the local one: what
// the directory goes on from.
const bucketFile = "BUCKET"

// record notes the bucket's manifest, in memory and beside the local one.
func (r *remote) record(t tarn.TimelineID, l *remoteLine, m *remoteManifest, etag string) error {
	l.mu.Lock()
	l.man, l.etag = m, etag
	l.mu.Unlock()
	r.files.list(t, m)
	b, err := m.encode()
	if err == nil {
		err = writeFile(r.shelf.files, filepath.Join(r.shelf.manifests.dir, string(t), bucketFile), b)
	}
	if err != nil {
		return fmt.Errorf("note the bucket's manifest: %w", err)
	}
	return nil
}

// own makes this node the holder of a timeline, unless another one is alive
// that is. The caller has the timeline's turn and it is not open.
//
//  1. wait until the holder, if any, has been silent for a lease
//  2. put the manifest with the next epoch and us      crash: ours, with an old
//     as the holder, if it is still the same           directory: as in 3
//  3. when the directory is another past: replace it   crash: the same at Open
//  4. note the manifest                                crash: the same at Open
func (r *remote) own(ctx context.Context, t *timeline) error {
	if r == nil {
		return nil
	}
	l := t.remote
	if l.writable() {
		if err := r.heart.wait(); err != nil || l.writable() {
			return err
		} // it was taken while the heart stood still
	}
	if err := l.wait(ctx); err != nil {
		return err
	}
	defer func() { <-l.turn }()
	for {
		have, etag, err := r.readRemote(ctx, t.id)
		if err != nil {
			return err
		}
		if have.Holder != "" && have.Holder != r.node {
			if err := r.heart.silent(ctx, have.Holder); err != nil {
				return err
			}
		}
		next := *have
		next.Epoch, next.Holder = have.Epoch+1, r.node
		b, err := next.encode()
		if err != nil {
			return err
		}
		etag, err = r.swap(ctx, manifestKey(t.id), etag, b)
		if errors.Is(err, blob.ErrMismatch) {
			continue // its holder wrote it, or somebody else took it
		}
		if err != nil {
			return err
		}
		return r.taken(ctx, t, l, have, &next, etag)
	}
}

// taken does steps 3 and 4 of own.
func (r *remote) taken(ctx context.Context, t *timeline, l *remoteLine, had, m *remoteManifest, etag string) error {
	l.mu.Lock()
	same := l.ours && l.state == lineFree && l.man.Epoch == had.Epoch
	l.ours = false // until the directory is right
	l.mu.Unlock()
	if !same {
		if err := r.replaceLocal(t.id, m); err != nil {
			return err
		}
		r.shelf.mu.Lock()
		t.man, t.dead, t.loose, t.nextMap = m.Man, m.Man.Dead, m.Man.Loose, 0
		ix := t.index
		t.index = nil
		r.shelf.mu.Unlock()
		if ix != nil {
			ix.release()
		}
	}
	if err := r.record(t.id, l, m, etag); err != nil {
		return err
	}
	if !same {
		if err := r.meet(ctx); err != nil { // children that the last holder made
			return err
		}
	}
	l.mu.Lock()
	l.state, l.ours = lineHeld, true
	l.mu.Unlock()
	r.slog.Info("timeline taken", "timeline", t.id, "seq", m.Man.Closed.Head)
	return nil
}

// readRemote reads a timeline's manifest in the bucket.
func (r *remote) readRemote(ctx context.Context, id tarn.TimelineID) (*remoteManifest, string, error) {
	key := manifestKey(id)
	b, etag, err := r.readObject(ctx, key)
	if errors.Is(err, blob.ErrNotExist) {
		return nil, "", tarn.NotFound("timeline %s does not exist in %s any more", id, r.blobs.URL())
	}
	if err != nil {
		return nil, "", tarn.Unavailable("%w", err)
	}
	m, err := decodeRemote(key, b, id)
	if err == nil && m.Gone {
		err = tarn.NotFound("timeline %s is deleted", id)
	}
	return m, etag, err
}

// lose says that somebody took the timeline: what is open of it is dead.
func (r *remote) lose(t *timeline, l *remoteLine, cause error) {
	l.mu.Lock()
	if l.state != lineHeld && l.state != lineFresh {
		l.mu.Unlock()
		return
	}
	l.state, l.ours = lineLost, false
	l.mu.Unlock()
	r.shelf.mu.Lock()
	v := t.volume
	r.shelf.mu.Unlock()
	r.slog.Error("timeline lost", "timeline", t.id, "err", cause)
	if v != nil {
		v.log.die(cause) //nolint:errcheck // it is what we say
		v.loss.tell()
	}
}

// proveLines reads the manifests of all timelines held, and loses those that
// somebody took.
func (r *remote) proveLines(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for _, t := range r.shelf.all() {
		if st, _ := t.remote.now(); st == lineHeld {
			g.Go(func() error { return r.proveLine(ctx, t, t.remote) })
		}
	}
	return g.Wait()
}

func (r *remote) proveLine(ctx context.Context, t *timeline, l *remoteLine) error {
	if err := l.wait(ctx); err != nil {
		return err
	}
	defer func() { <-l.turn }()
	st, mine := l.now()
	if st != lineHeld {
		return nil
	}
	m, _, err := r.readRemote(ctx, t.id)
	if tarn.KindOf(err) == tarn.KindNotFound {
		r.lose(t, l, err)
		return nil
	}
	if err != nil {
		return err
	}
	if m.Epoch != mine.Epoch || m.Holder != r.node {
		r.lose(t, l, taken(m))
	}
	return nil
}

// swapUnsure replaces a manifest that is not what we thought: when our last put
// of it ended without a clear answer it may be that one, which nobody else puts
// under our epoch. Otherwise the timeline is lost.
func (r *remote) swapUnsure(ctx context.Context, t *timeline, l *remoteLine, b []byte, mismatch error) (string, error) {
	have, etag, err := r.readRemote(ctx, t.id)
	if err != nil && tarn.KindOf(err) != tarn.KindNotFound {
		return "", err
	}
	l.mu.Lock()
	mine := l.first + 1
	if l.man != nil {
		mine = l.man.Epoch
	}
	ours := l.unsure && err == nil && have.Holder == r.node && have.Epoch == mine
	l.mu.Unlock()
	if ours {
		if etag, err = r.swap(ctx, manifestKey(t.id), etag, b); !errors.Is(err, blob.ErrMismatch) {
			return etag, err
		}
	}
	r.lose(t, l, mismatch)
	return "", mismatch
}

func taken(m *remoteManifest) error {
	if m == nil {
		return tarn.Conflict("another node made it")
	}
	return tarn.Conflict("node %s took it with epoch %d", m.Holder, m.Epoch)
}

// putRemote replaces the manifest of a timeline that is held, or makes it; the
// caller has the line's turn. When somebody took the timeline it is lost.
func (r *remote) putRemote(ctx context.Context, t *timeline, l *remoteLine, m *remoteManifest) error {
	l.mu.Lock()
	etag, st := l.etag, l.state
	l.mu.Unlock()
	if st != lineHeld && st != lineFresh {
		return errClosed
	}
	b, err := m.encode()
	if err != nil {
		return err
	}
	etag, err = r.swap(ctx, manifestKey(t.id), etag, b)
	if errors.Is(err, blob.ErrMismatch) {
		etag, err = r.swapUnsure(ctx, t, l, b, err)
	}
	l.mu.Lock()
	l.unsure = err != nil
	if err == nil {
		l.state, l.ours = lineHeld, true
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	return r.record(t.id, l, m, etag)
}

// sealed reports whether nothing may be appended to a segment any more.
func (l *remoteLine) sealed(id layer.FileID) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, there := l.man.find(id.Kind, id.Number)
	return there || id.Number <= l.sent
}

// all gives every timeline there is, parents before their children.
func (s *shelf) all() []*timeline {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*timeline
	depth := func(t *timeline) (n int) {
		for ; t != nil && t.parent.Timeline != ""; t = s.timelines[t.parent.Timeline] {
			n++
		}
		return n
	}
	for _, t := range s.timelines {
		if t.state == stateIdle || t.state == stateHeld || t.state == stateGhost {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b *timeline) int { return depth(a) - depth(b) })
	return out
}

// mayWrite says whether a volume may take changes: while its node is alive in
// the bucket. It waits for a late heartbeat, at most for a lease.
func (r *remote) mayWrite(v *Volume) error {
	if r == nil || r.heart.alive() {
		return nil
	}
	if err := r.heart.wait(); err != nil {
		return fmt.Errorf("%w: %w", syscall.EIO, err)
	}
	return v.log.death()
}

// loss tells who runs on a volume that it is another's now.
type loss struct {
	lost chan struct{}
	once sync.Once
	line *remoteLine // nil without a bucket
}

// Lease is what the store has of the timeline in the bucket.
func (l *loss) Lease() Lease { return l.line.lease() }

func (l *loss) tell() { l.once.Do(func() { close(l.lost) }) }

// Lost is closed when another node took the timeline. Nothing that the volume
// was told since counts; whoever runs on it must end.
func (l *loss) Lost() <-chan struct{} { return l.lost }
