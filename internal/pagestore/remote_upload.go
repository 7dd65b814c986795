package pagestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// uploading brings one timeline's layers to the bucket and then a manifest that
// lists them. What is uploaded is the timeline as it stands at one seq; nothing
// of it is collected meanwhile.
type uploading struct {
	store *shelf
	of    *timeline
	line  *remoteLine
	pace  *pace

	man   *manifest // as it is to stand in the bucket
	from  *manifest // the local one that it was made from
	have  *remoteManifest
	next  *remoteManifest
	packs map[layer.FileID]*bitmap // objects to be packed, and their blocks that stay
}

// urgency says whether a log is sealed for an upload.
type urgency uint8

const (
	whenDue urgency = iota
	atOnce
)

// Lines is what a Store offers to move timelines as a whole.
type Lines struct{ s *Store }

// Upload brings everything that a timeline holds now to the bucket, with what
// it began in. Without a bucket it does nothing.
func (l Lines) Upload(ctx context.Context, id tarn.TimelineID) error {
	s := l.s
	if s.remote == nil {
		return nil
	}
	t, err := s.find(id)
	if err == nil {
		err = s.remote.upload(ctx, t, atOnce)
	}
	if err != nil {
		return fmt.Errorf("upload timeline %s: %w", id, err)
	}
	return nil
}

// Release brings everything that a timeline holds to the bucket and lets go of
// it, so that another node can open it without waiting. It is closed.
func (l Lines) Release(ctx context.Context, id tarn.TimelineID) error {
	s := l.s
	if s.remote == nil {
		return nil
	}
	t, err := s.find(id)
	if err == nil {
		if err = s.remote.upload(ctx, t, atOnce); err == nil {
			err = s.remote.release(ctx, t)
		}
	}
	if err != nil {
		return fmt.Errorf("release timeline %s: %w", id, err)
	}
	return nil
}

// Leave lets go of every closed timeline of which the bucket has all, so that
// other nodes need not wait for a lease. A store that is only closed holds what
// it held when it is opened again.
func (l Lines) Leave(ctx context.Context) error {
	if err := l.s.remote.releaseAll(ctx); err != nil {
		return fmt.Errorf("leave the bucket: %w", err)
	}
	return nil
}

// release makes nobody the holder of an idle timeline, when the bucket has all
// of it.
func (r *remote) release(ctx context.Context, t *timeline) error {
	if err := r.shelf.wait(ctx, t); err != nil {
		return err
	}
	defer t.pass()
	r.shelf.mu.Lock()
	open, man := t.volume != nil, t.man
	r.shelf.mu.Unlock()
	if open {
		return tarn.Conflict("it is open")
	}
	l := t.remote
	if err := l.wait(ctx); err != nil {
		return err
	}
	defer func() { <-l.turn }()
	l.mu.Lock()
	st, have, done := l.state, l.man, l.done
	l.mu.Unlock()
	if st != lineHeld {
		return nil
	}
	if done != man {
		return tarn.Conflict("the bucket does not have all of it")
	}
	next := *have
	next.Holder = ""
	next.Epoch++
	if err := r.putRemote(ctx, t, l, &next); err != nil {
		return err
	}
	l.mu.Lock()
	l.state = lineFree
	l.mu.Unlock()
	return nil
}

// upload uploads a timeline when there is something to upload.
//
//  0. the first time: wait until it is whole (Follow) crash: nothing
//  1. fix a seq: seal the log there when it is open   crash: nothing
//  2. put the layers that the bucket does not have    crash: orphans, or put again
//  3. wait for what its pages stand on (Follow)       crash: the same
//  4. replace the manifest in the bucket              crash: either
//  5. note it                                         crash: Open reads it
//  6. delete the objects it does not list any more    crash: orphans
//
// A timeline that began in another waits until the bucket has where it began.
func (r *remote) upload(ctx context.Context, t *timeline, urge urgency) error {
	l := t.remote
	if !l.writable() {
		st, m := l.now()
		if st == lineLost && urge == atOnce {
			return taken(m)
		}
		return nil
	}
	if p := t.parent; p.Timeline != "" {
		r.shelf.mu.Lock()
		parent, owner := r.shelf.timelines[p.Timeline], r.shelf.owner(p)
		r.shelf.mu.Unlock()
		for _, o := range []*timeline{parent, owner} {
			if err := r.reached(ctx, o, p); err != nil {
				return fmt.Errorf("upload timeline %s, where it began: %w", o.id, err)
			}
		}
	}
	if urge == whenDue && !r.heart.alive() {
		return nil
	}
	if err := r.heart.wait(); err != nil {
		return err
	}
	select {
	case l.tend <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-l.tend }()
	u := &uploading{store: r.shelf, of: t, line: l, pace: newPace(r.o.BytesPerSecond)}
	if _, have := l.now(); have == nil {
		// A timeline that is being made counts as lacking its WAL until it is
		// whole: a seq before, which its WAL will never lead on from, must not be
		// the one that is fixed.
		if err := u.follow(ctx); err != nil {
			return err
		}
	}
	if err := u.fix(ctx, urge); err != nil || u.man == nil {
		return err
	}
	if err := u.layers(ctx); err != nil {
		return err
	}
	if err := u.follow(ctx); err != nil {
		return err
	}
	return u.list(ctx)
}

// reached uploads a timeline until the bucket has it up to where another began.
// An upload may end without that: a volume that is being closed is uploaded when
// it is closed. The other waits then; listed before, it would begin in nothing.
func (r *remote) reached(ctx context.Context, t *timeline, p tarn.Point) error {
	if t.remote.reaches(t, p) {
		return nil
	}
	if err := r.upload(ctx, t, atOnce); err != nil {
		return err
	}
	if !t.remote.reaches(t, p) {
		return tarn.Unavailable("the bucket does not have it up to seq %d", p.Seq)
	}
	return nil
}

// reaches reports whether the bucket has what a point needs of t: the timeline
// that the point names, or the one further up that the point lies in.
func (l *remoteLine) reaches(t *timeline, p tarn.Point) bool {
	_, m := l.now()
	if m == nil {
		return false
	}
	return m.Man.Closed.Head >= p.Seq || t.id == p.Timeline && p.Seq <= t.parent.Seq
}

// fix decides what is uploaded; man stays nil when there is nothing.
func (u *uploading) fix(ctx context.Context, urge urgency) error {
	s, t, l := u.store, u.of, u.line
	if err := s.wait(ctx, t); err != nil {
		return err
	}
	defer t.pass()
	s.mu.Lock()
	v, ghost := t.volume, t.state == stateGhost
	s.mu.Unlock()
	l.mu.Lock()
	u.have = l.man
	done, last := l.done, l.cut
	l.mu.Unlock()
	c := closed{}
	switch {
	case v != nil:
		head := v.Head()
		dirty := u.have == nil || head > u.have.Man.Closed.Head
		due := urge == atOnce || u.have == nil || time.Since(last) >= s.remote.o.SealEvery || v.ix.behind.Load() >= 2*s.options.SegmentBytes && u.unsent(v)
		if !dirty && t.man == done || dirty && !due || v.closed.Load() {
			return nil
		}
		c.Marks = v.marks() // before the cut, so that it has their records
		var err error
		if c.Segment, c.Bytes, c.Head, err = v.log.cut(); err != nil {
			return err
		}
	case ghost:
		if t.man == done {
			return nil
		}
		c = t.man.Closed
	default:
		if t.man == done {
			return nil
		}
		head, marks, err := s.summary(ctx, t)
		if err != nil {
			return err
		}
		c = closed{Head: head, Marks: marks, Segment: t.man.Closed.Segment, Bytes: t.man.Closed.Bytes}
	}
	segments, err := s.ownSegments(t)
	if err != nil {
		return err
	}
	u.make(segments, c, ghost)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut, l.sent = time.Now(), max(l.sent, u.man.Closed.Segment)
	if same, err := u.next.same(u.have); same || err != nil {
		u.man, l.done = nil, u.from
		return err
	}
	return nil
}

// unsent reports whether segments wait that are full.
func (u *uploading) unsent(v *Volume) bool {
	v.log.mu.Lock()
	defer v.log.mu.Unlock()
	return v.log.tail.last != nil && v.log.tail.last.id.Number > u.have.Man.Closed.Segment+1
}

// make makes the manifests as they are to be.
func (u *uploading) make(segments []logFile, c closed, ghost bool) {
	u.store.mu.Lock()
	u.from = u.of.man
	u.store.mu.Unlock()
	man := *u.from
	man.Closed = c
	man.Layers = nil
	for _, f := range segments {
		if !ghost && f.number > c.Segment {
			break // begun since
		}
		size := f.size
		if f.number == c.Segment {
			size = c.Bytes
		}
		man.Layers = append(man.Layers, layerFile{Kind: layer.FileLog, Number: f.number, Bytes: size})
		man.Counted.Log = max(man.Counted.Log, f.number)
	}
	for _, f := range u.from.Layers {
		if f.Kind != layer.FileLog {
			man.Layers = append(man.Layers, f)
		}
	}
	u.man = &man
	u.next = &remoteManifest{Holder: u.store.remote.node, Man: u.man}
	if u.have != nil {
		u.next.Epoch = u.have.Epoch
	} else {
		u.next.Epoch = u.line.first + 1
	}
	u.line.mu.Lock()
	u.packs = u.line.wish
	u.line.mu.Unlock()
	for _, f := range man.Layers {
		o, ok := u.have.find(f.Kind, f.Number)
		if !ok {
			o = object{Kind: f.Kind, Number: f.Number, Epoch: u.next.Epoch, Bytes: f.Bytes}
		} else if u.packs[o.id(u.of.id)] != nil {
			o = object{Kind: f.Kind, Number: f.Number, Epoch: u.next.Epoch, Pack: newPackID()}
		}
		u.next.Objects = append(u.next.Objects, o)
	}
}

// follow waits until the pages of the seq that was fixed may be listed.
func (u *uploading) follow(ctx context.Context) error {
	if u.store.remote.o.Follow == nil {
		return nil
	}
	if err := u.store.remote.o.Follow(ctx, u.of.id); err != nil {
		return fmt.Errorf("wait for what its pages stand on: %w", err)
	}
	return nil
}

// layers puts what the bucket does not have.
func (u *uploading) layers(ctx context.Context) error {
	for i := range u.next.Objects {
		o := &u.next.Objects[i]
		had, ok := u.have.find(o.Kind, o.Number)
		if ok && had == *o {
			continue
		}
		if !u.line.writable() || !u.store.remote.heart.alive() {
			return errClosed
		}
		if keep := u.packs[o.id(u.of.id)]; ok && keep != nil {
			if err := u.pack(ctx, o, keep); err != nil {
				u.store.slog.Warn("pack layer", "timeline", u.of.id, "err", err)
				*o = had // as it is; another time
			}
			continue
		}
		if err := u.put(ctx, o); err != nil {
			return fmt.Errorf("upload %s: %w", fileName(o.Kind, o.Number), err)
		}
	}
	return nil
}

// put uploads one layer. The key has the epoch of our lease in it: nobody else
// writes it.
func (u *uploading) put(ctx context.Context, o *object) error {
	f := newSegment(u.store.files, u.store.manifests.dir, o.id(u.of.id))
	f.retain()
	defer f.release()
	h, err := f.open()
	if err != nil {
		return err
	}
	size, err := h.Size()
	if err != nil {
		return err
	}
	if o.Kind != layer.FileLog {
		o.Bytes = size
	} else if size < o.Bytes {
		return &layer.CorruptError{File: f.path, Offset: size, Expected: fmt.Sprintf("%d bytes", o.Bytes), Found: "the end of the file"}
	}
	src := io.NewSectionReader(h, 0, o.Bytes)
	r := readFunc(func(b []byte) (int, error) {
		n, err := src.Read(b[:min(len(b), 1<<20)])
		u.pace.add(int64(n))
		if e := u.pace.wait(ctx); e != nil {
			return n, e
		}
		return n, err
	})
	if err := u.store.remote.blobs.Put(ctx, objectKey(u.of.id, *o), r); err != nil {
		return err
	}
	u.store.slog.Debug("layer uploaded", "timeline", u.of.id, "path", f.path, "count", o.Bytes)
	return nil
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(b []byte) (int, error) { return f(b) }

// list puts the manifest, and deletes what it does not list.
func (u *uploading) list(ctx context.Context) error {
	s, l := u.store, u.line
	if err := l.wait(ctx); err != nil {
		return err
	}
	defer func() { <-l.turn }()
	for i, f := range u.man.Layers {
		if o, _ := u.next.find(f.Kind, f.Number); o.Pack == 0 {
			u.man.Layers[i].Bytes = o.Bytes
		}
	}
	if err := s.remote.putRemote(ctx, u.of, l, u.next); err != nil {
		return err
	}
	l.mu.Lock()
	l.done, l.wish = u.from, nil
	l.mu.Unlock()
	s.slog.Debug("timeline uploaded", "timeline", u.of.id, "seq", u.man.Closed.Head)
	if u.have == nil {
		return nil
	}
	var gone []string
	for _, o := range u.have.Objects {
		if now, ok := u.next.find(o.Kind, o.Number); !ok || now.Epoch != o.Epoch || now.Pack != o.Pack {
			gone = append(gone, objectKey(u.of.id, o))
		}
	}
	if err := s.remote.discard(ctx, gone); err != nil {
		s.slog.Warn("delete collected objects", "timeline", u.of.id, "err", err) // orphans, swept later
	}
	return nil
}

// delay is how long a timeline that could not be uploaded waits. What a new one
// lacks comes within moments; what else is wrong lasts.
type delay struct {
	until time.Time
	pause time.Duration
}

const longestDelay = 10 * time.Second

// run keeps the node alive and the bucket up to date until ctx ends.
func (r *remote) run(ctx context.Context) {
	tick := time.NewTicker(min(lookEvery, r.o.SealEvery))
	defer tick.Stop()
	swept, evicted := time.Now(), time.Now()
	later := map[tarn.TimelineID]delay{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, t := range r.shelf.all() {
			if time.Now().Before(later[t.id].until) {
				continue
			}
			err := r.upload(ctx, t, whenDue)
			if ctx.Err() != nil {
				return
			}
			if err == nil || errors.Is(err, errClosed) || tarn.KindOf(err) == tarn.KindNotFound {
				delete(later, t.id)
				continue
			}
			r.slog.Warn("upload", "timeline", t.id, "err", err)
			d := later[t.id]
			d.pause = min(max(2*d.pause, lookEvery), longestDelay, r.o.SealEvery)
			d.until = time.Now().Add(d.pause)
			later[t.id] = d
		}
		if time.Since(evicted) >= evictEvery {
			evicted = time.Now()
			if err := r.evictLocal(ctx); err != nil && ctx.Err() == nil {
				r.slog.Warn("evict local layers", "err", err)
			}
		}
		if time.Since(swept) >= r.linger/24 {
			swept = time.Now()
			if err := r.sweepRemote(ctx); err != nil && ctx.Err() == nil {
				r.slog.Warn("sweep bucket", "err", err)
			}
		}
	}
}
