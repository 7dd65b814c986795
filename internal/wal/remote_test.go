package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/layer"
)

const testTimeline = tarn.TimelineID("0123456789abcdef0123456789abcdef")

// writer plays a Postgres: a log that grows.
type writer struct {
	t    fataler
	log  *Log
	from tarn.LSN
	b    []byte // everything since from, which begins a segment
	rnd  *rand.Rand
}

type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func newWriter(t fataler, path string, seed uint64) *writer {
	t.Helper()
	w := &writer{t: t, log: New(path, nil), from: 3 * mib, rnd: rand.New(rand.NewPCG(seed, 1))}
	if err := w.log.Create(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *writer) end() tarn.LSN { return w.from + tarn.LSN(len(w.b)) }

// grow writes n more bytes, half of them compressible.
func (w *writer) grow(n int) {
	w.t.Helper()
	at := len(w.b)
	for range n {
		c := byte(w.rnd.Uint32())
		if len(w.b)/512%2 == 0 {
			c = 'x'
		}
		w.b = append(w.b, c)
	}
	w.store(at)
}

// store writes the segments from an offset on.
func (w *writer) store(at int) {
	w.t.Helper()
	for no := at / mib; no*mib < len(w.b); no++ {
		f, err := os.OpenFile(w.path(no), os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			w.t.Fatal(err)
		}
		from := max(at, no*mib)
		_, err = f.WriteAt(w.b[from:min(len(w.b), (no+1)*mib)], int64(from-no*mib))
		if err := errors.Join(err, f.Truncate(mib), f.Close()); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *writer) path(no int) string {
	return filepath.Join(w.log.Dir(), segment(uint64(w.from)/mib+uint64(no)))
}

// rewind goes back to what was written up to n bytes ago.
func (w *writer) rewind(n int) {
	w.t.Helper()
	keep := max(len(w.b)-n, 1)
	for no := keep/mib + 1; no*mib < len(w.b); no++ {
		if err := os.Remove(w.path(no)); err != nil {
			w.t.Fatal(err)
		}
	}
	w.b = w.b[:keep:keep]
	w.store(keep / mib * mib)
}

func (w *writer) source(lease uint64) Source {
	return Source{
		Timeline: testTimeline, Log: w.log, TLI: 1, SegmentBytes: mib, Lease: lease,
		Flushed: func(context.Context) (tarn.LSN, error) { return w.end(), nil },
	}
}

func newRemote(t fataler, s blob.Store) *Remote {
	t.Helper()
	r, err := NewRemote(s, RemoteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// mustHold fails unless the store brings back what w wrote up to a position.
func mustHold(t fataler, s blob.Store, w *writer, to tarn.LSN) {
	t.Helper()
	r := newRemote(t, s)
	p, err := r.Position(context.Background(), testTimeline, Start{TLI: 1, LSN: w.from, SegmentBytes: mib})
	if err != nil || p.To < to {
		t.Fatalf("the store reaches %s, want %s (gaps %v, %v)", p.To, to, p.Gaps, err)
	}
	if to == w.from {
		return
	}
	path, err := os.MkdirTemp("", "wal-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(path)
	back := New(filepath.Join(path, "back"), nil)
	if err := r.Rebuild(context.Background(), testTimeline, back, Range{TLI: 1, From: w.from, To: to, SegmentBytes: mib}); err != nil {
		t.Fatal(err)
	}
	want := append([]byte(nil), w.b[:to-w.from]...)
	want = append(want, make([]byte, (mib-len(want)%mib)%mib)...)
	for no := 0; no*mib < len(want); no++ {
		got, err := os.ReadFile(filepath.Join(back.Dir(), filepath.Base(w.path(no))))
		if err != nil || !bytes.Equal(got, want[no*mib:(no+1)*mib]) {
			t.Fatalf("segment %d is not what was written: %v", no, err)
		}
	}
}

// mustSay is mustHold without files.
func mustSay(t fataler, s blob.Store, w *writer, to tarn.LSN) {
	t.Helper()
	r := newRemote(t, s)
	h, err := r.list(context.Background(), testTimeline, mib)
	if err != nil {
		t.Fatal(err)
	}
	c := coverOf(1, h.Runs, h.Stretches).within(w.from, to)
	if reach := c.reach(w.from); reach < to {
		t.Fatalf("the store reaches %s, want %s (gaps %v)", reach, to, c.gaps(w.from))
	}
	for _, p := range c {
		_, b, err := r.read(context.Background(), testTimeline, p.stretch, mib)
		if err != nil || !bytes.Equal(b[p.Lo-p.From:p.Hi-p.From], w.b[p.Lo-w.from:p.Hi-w.from]) {
			t.Fatalf("%s to %s of run %s is not what was written: %v", p.Lo, p.Hi, p.Run, err)
		}
	}
}

func step(t fataler, u *Uploader) {
	t.Helper()
	if err := u.step(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestUploaderCopiesWhatGrew(t *testing.T) {
	files, err := dir.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]blob.Store{"memory": memory.New(), "dir": files} {
		t.Run(name, func(t *testing.T) {
			w := newWriter(t, filepath.Join(t.TempDir(), "l"), 1)
			if err := os.WriteFile(filepath.Join(w.log.archive(), "00000002.history"), []byte("1\t0/3000000\tno\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			u := newRemote(t, s).Uploader(w.source(0))
			for range 100 {
				w.grow(1000)
				step(t, u)
			}
			mustHold(t, s, w, w.end())
			w.grow(10 * mib)
			if l := u.Lag(); l.Bytes != 0 { // nobody asked yet
				t.Errorf("lag %+v", l)
			}
			step(t, u)
			mustHold(t, s, w, w.end())
			if l := u.Lag(); l.Bytes != 0 || u.Done() != w.end() {
				t.Errorf("lag %+v, done %s of %s", l, u.Done(), w.end())
			}
			var objects int
			for o, err := range s.List(t.Context(), "wal/"+string(testTimeline)+"/", "") {
				if err != nil {
					t.Fatal(err)
				}
				objects++
				if strings.Contains(o.Key, historyDir) {
					continue
				}
				if h, err := parseAt(t, s, o.Key); err != nil || h.Timeline != testTimeline {
					t.Errorf("%s: %v", o.Key, err)
				}
			}
			if objects > 40 {
				t.Errorf("%d objects: small stretches were not merged", objects)
			}
			back := New(filepath.Join(t.TempDir(), "back"), nil)
			r := newRemote(t, s)
			if err := r.Rebuild(t.Context(), testTimeline, back, Range{TLI: 1, From: w.from + 5, To: w.from + 6, SegmentBytes: mib}); err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(filepath.Join(back.Dir(), "00000002.history")); err != nil || string(b) != "1\t0/3000000\tno\n" {
				t.Errorf("history %q, %v", b, err)
			}
			ids, err := r.Timelines(t.Context())
			if err != nil || len(ids) != 1 || ids[0] != testTimeline {
				t.Errorf("timelines %v, %v", ids, err)
			}
			if err := r.Remove(t.Context(), testTimeline); err != nil {
				t.Fatal(err)
			}
			for o := range s.List(t.Context(), "", "") {
				t.Errorf("left after Remove: %s", o.Key)
			}
		})
	}
}

func parseAt(t *testing.T, s blob.Store, key string) (header, error) {
	t.Helper()
	r := newRemote(t, s)
	b, err := r.get(t.Context(), key, -1)
	if err != nil {
		t.Fatal(err)
	}
	h, _, err := r.pack.parseObject(key, b)
	return h, err
}

// What was reported as copied comes back, whatever happens between: kills at any
// call, refused calls, lost answers, disks brought back from older copies, another
// computer that takes over, and the old one that does not know it.
func TestWhatWasCopiedComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		root, err := os.MkdirTemp("", "wal-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(root)
		under := memory.New()
		seed := rapid.Uint64().Draw(t, "seed")
		store := func() blob.Store {
			share := []float64{0, 0, 0.1, 0.3}[rapid.IntRange(0, 3).Draw(t, "faults")]
			return faulty.New(under, faulty.Seeded(seed, share, faulty.Fail, faulty.Lost, faulty.Unsent, faulty.Torn, faulty.Short, faulty.DieBefore, faulty.DieAfter))
		}
		writers, lease := 0, uint64(0)
		start := func(copied []byte) *writer {
			writers++
			w := newWriter(t, filepath.Join(root, fmt.Sprint(writers)), seed+uint64(writers))
			w.b = bytes.Clone(copied)
			w.store(0)
			return w
		}
		w := start(nil)
		w.grow(100)
		u := newRemote(t, store()).Uploader(w.source(lease))
		held := w.from
		var stale []*Uploader
		var staleOf []*writer
		t.Repeat(map[string]func(*rapid.T){
			"":        func(t *rapid.T) { mustSay(t, under, w, held) },
			"rebuild": func(t *rapid.T) { mustHold(t, under, w, held) },
			"grow": func(t *rapid.T) {
				w.grow(rapid.SampledFrom([]int{1, 100, 8192, 100_000, mib, 2 * mib}).Draw(t, "n"))
			},
			"step": func(t *rapid.T) {
				if err := u.step(context.Background()); err == nil && u.Done() < w.end() {
					t.Fatalf("copied up to %s of %s without an error", u.Done(), w.end())
				}
				held = max(held, u.Done())
			},
			"steps": func(t *rapid.T) {
				for range 34 {
					w.grow(50)
					if u.step(context.Background()) == nil {
						held = w.end()
					}
				}
			},
			"restart": func(t *rapid.T) { u = newRemote(t, store()).Uploader(w.source(lease)) },
			"rewind": func(t *rapid.T) {
				w.rewind(rapid.SampledFrom([]int{1, 9000, mib}).Draw(t, "n"))
				held = min(held, w.end())
				w.grow(rapid.IntRange(1, 20_000).Draw(t, "more"))
				u = newRemote(t, store()).Uploader(w.source(lease))
				if u.step(context.Background()) != nil {
					// Until it has announced itself the store tells of the old history.
					u = newRemote(t, under).Uploader(w.source(lease))
					step(t, u)
				}
				held = w.end()
			},
			"take over": func(t *rapid.T) {
				stale, staleOf = append(stale, u), append(staleOf, w)
				lease++
				w = start(w.b[:held-w.from])
				w.grow(100)
				u = newRemote(t, under).Uploader(w.source(lease))
				step(t, u)
				held = w.end()
			},
			"stale": func(t *rapid.T) {
				if len(stale) == 0 {
					t.Skip("none")
				}
				i := rapid.IntRange(0, len(stale)-1).Draw(t, "which")
				staleOf[i].grow(rapid.SampledFrom([]int{10, 20_000, mib}).Draw(t, "n"))
				_ = stale[i].step(context.Background())
			},
		})
	})
}

// A kill at every single call of a run that merges, then a restart without
// faults.
func TestKillAtEveryCall(t *testing.T) {
	for n := 0; ; n++ {
		for _, f := range []faulty.Fault{faulty.DieBefore, faulty.DieAfter, faulty.Lost, faulty.Unsent, faulty.Fail} {
			under := memory.New()
			w := newWriter(t, filepath.Join(t.TempDir(), "l"), 7)
			s := faulty.New(under, faulty.At(n, f))
			u := newRemote(t, s).Uploader(w.source(0))
			done := w.from
			for range 36 {
				w.grow(300)
				_ = u.step(t.Context())
				done = max(done, u.Done())
				if f != faulty.DieBefore && f != faulty.DieAfter && s.Calls() > n {
					break
				}
			}
			mustHold(t, under, w, done)
			u = newRemote(t, under).Uploader(w.source(0))
			step(t, u)
			mustHold(t, under, w, w.end())
			if s.Calls() <= n {
				return
			}
		}
	}
}

func TestHigherLeaseEndsARun(t *testing.T) {
	s := memory.New()
	a, b := newWriter(t, filepath.Join(t.TempDir(), "a"), 1), newWriter(t, filepath.Join(t.TempDir(), "b"), 1)
	a.grow(1000)
	b.grow(1000)
	old, young := newRemote(t, s).Uploader(a.source(1)), newRemote(t, s).Uploader(b.source(2))
	step(t, old)
	b.rnd = rand.New(rand.NewPCG(9, 9))
	b.grow(10)
	step(t, young)
	a.grow(5000)
	step(t, old) // it does not know yet
	mustHold(t, s, b, b.end())
	old.looked = time.Time{}
	a.grow(1)
	if err := old.step(t.Context()); tarn.KindOf(err) != tarn.KindConflict {
		t.Errorf("an overtaken run goes on: %v", err)
	}
	if err := old.Run(t.Context()); tarn.KindOf(err) != tarn.KindConflict {
		t.Errorf("an overtaken run goes on: %v", err)
	}
	again := newRemote(t, s).Uploader(a.source(1))
	if err := again.step(t.Context()); tarn.KindOf(err) != tarn.KindConflict {
		t.Errorf("a run under a lower lease begins: %v", err)
	}
	mustHold(t, s, b, b.end())
}

func TestPositionNamesGapsAndFetchRefusesThem(t *testing.T) {
	s := memory.New()
	w := newWriter(t, filepath.Join(t.TempDir(), "l"), 1)
	w.grow(4*mib + 1000)
	step(t, newRemote(t, s).Uploader(w.source(0)))
	r := newRemote(t, s)
	h, err := r.list(t.Context(), testTimeline, mib)
	if err != nil {
		t.Fatal(err)
	}
	lost := h.Stretches[1]
	if err := s.Delete(t.Context(), r.dir(testTimeline)+segmentDir+lost.key(mib)); err != nil {
		t.Fatal(err)
	}
	p, err := r.Position(t.Context(), testTimeline, Start{TLI: 1, LSN: w.from + 8, SegmentBytes: mib})
	if err != nil || p.To != lost.From || len(p.Gaps) != 1 || p.Gaps[0] != (Gap{lost.From, lost.To}) || p.Time.IsZero() {
		t.Errorf("position %+v, %v", p, err)
	}
	err = r.Rebuild(t.Context(), testTimeline, New(filepath.Join(t.TempDir(), "b"), nil), Range{TLI: 1, From: w.from, To: w.end(), SegmentBytes: mib})
	if tarn.KindOf(err) != tarn.KindNotFound || !strings.Contains(err.Error(), lost.Segment) || !strings.Contains(err.Error(), lost.From.String()) {
		t.Errorf("fetching over a gap: %v", err)
	}
}

func TestBrokenObjectIsNeverTakenForWAL(t *testing.T) {
	s := memory.New()
	w := newWriter(t, filepath.Join(t.TempDir(), "l"), 1)
	w.grow(mib / 2)
	step(t, newRemote(t, s).Uploader(w.source(0)))
	r := newRemote(t, s)
	h, err := r.list(t.Context(), testTimeline, mib)
	if err != nil || len(h.Stretches) != 1 {
		t.Fatal(h, err)
	}
	key := r.dir(testTimeline) + segmentDir + h.Stretches[0].key(mib)
	whole, err := r.get(t.Context(), key, -1)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"short": whole[:len(whole)-1], "long": append(bytes.Clone(whole), 0), "flipped": append(bytes.Clone(whole[:len(whole)-1]), whole[len(whole)-1]^1), "empty": {},
		"header": append([]byte{whole[0] ^ 1}, whole[1:]...),
	} {
		if err := s.Put(t.Context(), key, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		err := r.Rebuild(t.Context(), testTimeline, New(filepath.Join(t.TempDir(), "b"), nil), Range{TLI: 1, From: w.from, To: w.end(), SegmentBytes: mib})
		if !errors.Is(err, layer.ErrCorrupt) || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if c, err := r.Check(t.Context(), testTimeline, mib); err != nil || c.Objects != 2 || len(c.Broken) != 1 || !strings.Contains(c.Broken[0].Error(), key) {
		t.Errorf("check says %+v, %v", c, err)
	}
	// A torn end is written again from the local bytes.
	if err := s.Put(t.Context(), key, bytes.NewReader(whole[:100])); err != nil {
		t.Fatal(err)
	}
	w.grow(10)
	step(t, newRemote(t, s).Uploader(w.source(0)))
	mustHold(t, s, w, w.end())
	step(t, newRemote(t, s).Uploader(w.source(0))) // the next run deletes what nobody reads any more
	if c, err := r.Check(t.Context(), testTimeline, mib); err != nil || c.Objects < 2 || len(c.Broken) != 0 {
		t.Errorf("check says %+v, %v", c, err)
	}
}

func TestTrimmedSegmentsComeBack(t *testing.T) {
	s := memory.New()
	w := newWriter(t, filepath.Join(t.TempDir(), "l"), 1)
	w.grow(6*mib + 1000)
	u := newRemote(t, s).Uploader(w.source(0))
	step(t, u)
	for no := range 6 {
		if err := os.Rename(w.path(no), filepath.Join(w.log.archive(), filepath.Base(w.path(no)))); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := w.log.Trim(t.Context(), w.from+3*mib+5, mib, 2*mib); err != nil || n != 3 {
		t.Fatalf("trimmed %d, %v", n, err) // 4 are too many, the fourth is not copied
	}
	if n, err := w.log.Trim(t.Context(), u.Done(), mib, 2*mib); err != nil || n != 1 {
		t.Fatalf("trimmed %d, %v", n, err)
	}
	r := newRemote(t, s)
	g := Range{TLI: 1, From: w.from + mib + 7, To: w.end(), SegmentBytes: mib}
	child := New(filepath.Join(t.TempDir(), "c"), nil)
	if err := w.log.Fork(t.Context(), child, g); tarn.KindOf(err) != tarn.KindNotFound {
		t.Fatalf("fork over trimmed segments: %v", err)
	}
	if err := w.log.Backed(r, testTimeline).Fork(t.Context(), child, g); err != nil {
		t.Fatal(err)
	}
	for no := 1; no < 6; no++ {
		got, err := os.ReadFile(filepath.Join(child.Dir(), filepath.Base(w.path(no))))
		if err != nil || !bytes.Equal(got, w.b[no*mib:(no+1)*mib]) {
			t.Errorf("segment %d: %v", no, err)
		}
	}
	if err := r.Fetch(t.Context(), testTimeline, w.log, g); err != nil { // nothing lacks
		t.Fatal(err)
	}
}

func TestRemotePrune(t *testing.T) {
	s := memory.New()
	w := newWriter(t, filepath.Join(t.TempDir(), "l"), 1)
	for range 3 {
		w.grow(2 * mib)
		step(t, newRemote(t, s).Uploader(w.source(0))) // a run each
	}
	r := newRemote(t, s)
	future := time.Now().Add(time.Hour)
	if aged, err := r.HasAged(t.Context(), testTimeline, future); err != nil || !aged {
		t.Errorf("aged: %v, %v", aged, err)
	}
	keep := Start{TLI: 1, LSN: w.from + 3*mib + 9, SegmentBytes: mib}
	if n, err := r.Prune(t.Context(), testTimeline, keep, time.Now().Add(-time.Hour)); err != nil || n != 2 {
		t.Errorf("pruned %d young ones, %v", n, err) // the two markers that say nothing any more
	}
	if n, err := r.Prune(t.Context(), testTimeline, keep, future); err != nil || n != 3 {
		t.Errorf("pruned %d, %v", n, err)
	}
	p, err := r.Position(t.Context(), testTimeline, keep)
	if err != nil || p.To != w.end() {
		t.Errorf("position %+v, %v", p, err)
	}
	h, err := r.list(t.Context(), testTimeline, mib)
	if err != nil || len(h.Runs) != 1 {
		t.Errorf("runs %v, %v", h.Runs, err)
	}
	// What is pruned there is not copied again while it is still here.
	w.grow(10)
	step(t, newRemote(t, s).Uploader(w.source(0)))
	if p, err = r.Position(t.Context(), testTimeline, Start{TLI: 1, LSN: w.from, SegmentBytes: mib}); err != nil || p.To != w.from {
		t.Errorf("pruned WAL was copied again: %+v, %v", p, err)
	}
}
