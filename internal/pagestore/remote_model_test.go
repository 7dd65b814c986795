package pagestore

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/blob/memory"
)

// remoteWorld is a world with a bucket, which can lose its directory.
type remoteWorld struct {
	*world
	t        *testing.T
	bucket   *memory.Store
	faults   bool // while true the bucket fails now and then
	nodes    int
	uploaded map[tarn.TimelineID]tarn.Seq // at least
	marked   map[tarn.TimelineID][]tarn.Mark
	lost     int
	kept     int // lines that were found again
	refused  int // uploads that ended with an error
}

func newRemoteWorld(t *testing.T, seed uint64) *remoteWorld {
	w := &remoteWorld{t: t, bucket: memory.New(), uploaded: map[tarn.TimelineID]tarn.Seq{}, marked: map[tarn.TimelineID][]tarn.Mark{}}
	random := faulty.Seeded(seed, 0.2, faulty.Fail, faulty.Lost, faulty.Unsent, faulty.Torn, faulty.Cut, faulty.Slow)
	plan := func(c faulty.Call) faulty.Fault {
		if !w.faults {
			return faulty.None
		}
		return random(c)
	}
	b := faulty.New(w.bucket, plan)
	b.Slowness = time.Microsecond
	w.world = &world{fs: newCrashFS(), dead: map[tarn.TimelineID]tarn.Point{}, opts: Options{SegmentBytes: 64 << 10, MapBytes: 48 << 10, CacheBytes: 1,
		CollectBytesPerSecond: 1 << 40, Remote: Remote{Store: b, Lease: 5 * time.Hour, SealEvery: time.Hour}}}
	w.newNode()
	must(t, w.openStore())
	must(t, w.createLine())
	must(t, w.open(w.lines[0]))
	return w
}

func (w *remoteWorld) newNode() {
	w.nodes++
	w.opts.Remote.Node = fmt.Sprintf("%032x", 0xfade0000+w.nodes)
	w.opts.Remote.CacheDir = w.t.TempDir()
}

// leave ends what the process would take with it.
func (w *remoteWorld) leave() { w.store.remote.close() }

func (w *remoteWorld) crash(rnd *rand.Rand) error {
	w.leave()
	return w.world.crash(rnd, 0.5)
}

// upload uploads a line, or perhaps not.
func (w *remoteWorld) upload(l *line) error {
	ctx := context.Background()
	head := tarn.Seq(0)
	if l.vol != nil {
		head = l.vol.Head()
	} else if st, err := w.store.Stat(ctx, l.id); err != nil {
		return err
	} else {
		head = st.Head
	}
	w.marked[l.id] = append(w.marked[l.id], l.marks...)
	err := w.store.Upload(ctx, l.id)
	if l.vol != nil {
		l.synced = max(l.synced, tarn.Seq(l.vol.log.synced.Load()))
	}
	if err != nil {
		w.refused++
		if !errors.Is(err, faulty.ErrInjected) && !errors.Is(err, blob.ErrAmbiguous) {
			return fmt.Errorf("upload %s: %w", l.id, err)
		}
		return nil
	}
	w.uploaded[l.id] = head
	return nil
}

// lose loses the directory and opens the bucket with another, as another node.
func (w *remoteWorld) lose() error {
	w.leave()
	old := w.opts.Remote.Node
	w.fs = newCrashFS()
	w.newNode()
	w.lost++
	if err := w.openStore(); err != nil {
		return fmt.Errorf("open from the bucket: %w", err)
	}
	h := w.store.remote.heart
	h.mu.Lock()
	seen := h.watched[old]
	seen.since = time.Now().Add(-2 * w.opts.Remote.Lease) // the old one is silent
	h.watched[old] = seen
	h.mu.Unlock()
	if o, err := w.bucket.Head(context.Background(), remoteNodes+old); err != nil {
		return err
	} else {
		h.mu.Lock()
		h.watched[old] = sighting{o.ETag, time.Now().Add(-2 * w.opts.Remote.Lease)}
		h.mu.Unlock()
	}
	all, err := w.store.Timelines(context.Background())
	if err != nil {
		return err
	}
	for _, l := range slices.Clone(w.lines) {
		if slices.ContainsFunc(all, func(st tarn.TimelineStatus) bool { return st.ID == l.id }) {
			continue
		}
		if at := w.uploaded[l.id]; at > 0 {
			return fmt.Errorf("timeline %s was uploaded up to seq %d and is gone", l.id, at)
		}
		w.dead[l.id] = l.parent
		w.lines = slices.DeleteFunc(w.lines, func(o *line) bool { return o == l })
	}
	if err := w.dropUnknown(); err != nil {
		return err
	}
	for _, l := range w.lines {
		l.vol, l.synced, l.thinned = nil, w.uploaded[l.id], true
		known := append(w.marked[l.id], l.marks...) // a collection since the upload is lost too
		for _, st := range all {
			if st.ID == l.id {
				l.marks = slices.DeleteFunc(slices.Clone(st.Marks), func(k tarn.Mark) bool { return !slices.Contains(known, k) })
			}
		}
		if err := w.survive(l); err != nil {
			return fmt.Errorf("after the loss of the directory: %w", err)
		}
		w.kept++
	}
	if len(w.lines) == 0 {
		return w.createLine()
	}
	return nil
}

// rewind rewinds a line to one of its marks.
func (w *remoteWorld) rewind(l *line, p pick) error {
	if len(l.marks) == 0 {
		return nil
	}
	k := l.marks[p(len(l.marks))]
	i := slices.IndexFunc(l.history, func(m moment) bool { return m.seq == k.Seq })
	if i < 0 {
		return nil // inside an operation, or before a crash
	}
	if l.vol != nil {
		if err := w.stepClose(l); err != nil {
			return err
		}
	}
	if l.history[len(l.history)-1].seq == k.Seq {
		return nil // an operation that logged nothing may have changed the model
	}
	ctx := context.Background()
	if err := w.store.Rewind(ctx, l.id, k); err != nil {
		return fmt.Errorf("rewind %s to %+v: %w", l.id, k, err)
	}
	st, err := w.store.Stat(ctx, l.id)
	if err != nil {
		return err
	}
	next := l.now.next // inode numbers are never used again
	l.now = l.history[i].state.clone()
	l.now.next = next
	l.history = append(l.history, moment{seq: st.Head, state: l.now.named()})
	l.synced, l.marks = st.Head, st.Marks
	if err := w.open(l); err != nil {
		return err
	}
	return w.check(l)
}

// Random work with uploads, crashes, collections and losses of the whole
// directory: after a loss every line is at or behind what was last uploaded of
// it, in a state that it once had.
func TestRemoteModel(t *testing.T) {
	seeds := 12
	if testing.Short() {
		seeds = 3
	}
	kept, lost, refused, packed := 0, 0, 0, 0
	for seed := range seeds {
		w := newRemoteWorld(t, uint64(seed))
		rnd := rand.New(rand.NewSource(int64(seed)))
		w.opts.History = []time.Duration{-1, 0, time.Hour}[seed%3]
		fail := func(i int, what string, err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("seed %d, step %d, %s: %v", seed, i, what, err)
			}
		}
		for i := range 150 {
			fail(i, "step", w.step(rnd.Intn))
			if len(w.lines) == 0 {
				continue
			}
			l := w.lines[rnd.Intn(len(w.lines))]
			switch rnd.Intn(20) {
			case 0, 1, 2:
				w.faults = rnd.Intn(2) == 0
				err := w.upload(l)
				w.faults = false
				fail(i, "upload", err)
			case 3:
				fail(i, "collection", w.stepCollect(rnd.Intn))
			case 4:
				fail(i, "rewinding", w.rewind(l, rnd.Intn))
			case 5:
				if rnd.Intn(2) == 0 {
					fail(i, "crash", w.crash(rnd))
				}
			case 6:
				if rnd.Intn(2) == 0 {
					fail(i, "loss", w.lose())
				}
			}
			if rnd.Intn(40) == 0 {
				fail(i, "check", w.checkAll())
			}
			if rnd.Intn(10) == 0 {
				w.store.remote.o.LocalBytes = 1
				fail(i, "eviction", w.store.remote.evictLocal(context.Background()))
				for _, t := range w.store.all() {
					if _, m := t.remote.now(); m != nil {
						for _, o := range m.Objects {
							if o.Pack != 0 {
								packed++
							}
						}
					}
				}
			}
		}
		for _, l := range w.lines {
			fail(-1, "upload", w.upload(l))
		}
		fail(-1, "check", w.checkAll())
		fail(-1, "loss", w.lose())
		fail(-1, "check", w.checkAll())
		must(t, w.store.Close())
		kept, lost, refused = kept+w.kept, lost+w.lost, refused+w.refused
	}
	if kept == 0 || lost == 0 || refused == 0 || packed == 0 {
		t.Fatalf("%d losses, after which %d lines were there; %d uploads refused, %d packed objects seen: nothing was tried", lost, kept, refused, packed)
	}
	t.Logf("%d losses, after which %d lines were there; %d uploads refused, %d packed objects seen", lost, kept, refused, packed)
}
