package pagestore

import (
	"context"
	"fmt"
	"math/rand"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// TestCollectBetweenEverything does random things, with collections, maps and
// crashes between them, and compares everything that can be seen with the model.
func TestCollectBetweenEverything(t *testing.T) {
	seeds := 30
	if testing.Short() {
		seeds = 8
	}
	punched, removed := 0, 0
	for seed := range seeds {
		w, err := newWorld()
		if err != nil {
			t.Fatal(err)
		}
		rnd := rand.New(rand.NewSource(int64(seed)))
		w.opts.History = []time.Duration{-1, 0, time.Hour}[seed%3]
		for i := range 160 {
			if err := w.step(rnd.Intn); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, i, err)
			}
			if i%7 == 6 {
				if err := w.stepCollect(rnd.Intn); err != nil {
					t.Fatalf("seed %d, collection after step %d: %v", seed, i, err)
				}
			}
			if rnd.Intn(60) == 0 {
				if err := w.crash(rnd, 0.5); err != nil {
					t.Fatalf("seed %d, step %d: %v", seed, i, err)
				}
			}
			if rnd.Intn(40) == 0 {
				if err := w.checkAll(); err != nil {
					t.Fatalf("seed %d, step %d: %v", seed, i, err)
				}
			}
		}
		if err := w.checkAll(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := w.store.Close(); err != nil {
			t.Fatal(err)
		}
		punched += w.fs.punched
		removed += w.fs.removed
	}
	t.Logf("%d holes, %d files removed", punched, removed)
	if punched < 10*seeds || removed < seeds {
		t.Errorf("only %d holes and %d files removed", punched, removed)
	}
}

// TestPowerCutInCollection cuts the power at every change that a collection
// makes.
func TestPowerCutInCollection(t *testing.T) {
	for seed := range 3 {
		cut := 0
		for n := 1; ; n++ {
			w, err := newWorld()
			if err != nil {
				t.Fatal(err)
			}
			rnd := rand.New(rand.NewSource(int64(seed)))
			for i := range 120 {
				if err := w.step(rnd.Intn); err != nil {
					t.Fatalf("seed %d, step %d: %v", seed, i, err)
				}
			}
			w.fs.cutAt = w.fs.ops + n
			if err := w.stepCollect(func(int) int { return 1 }); err != nil {
				t.Fatalf("seed %d, cut at %d: %v", seed, n, err)
			}
			if !w.fs.dark {
				break
			}
			cut++
			if err := w.crash(rnd, []float64{0, 1, 0.5, 0.9, 0.1}[n%5]); err != nil {
				t.Fatalf("seed %d, cut at %d: %v", seed, n, err)
			}
			if err := w.stepCollect(func(int) int { return 1 }); err != nil {
				t.Fatalf("seed %d, collection after the cut at %d: %v", seed, n, err)
			}
			if err := w.checkAll(); err != nil {
				t.Fatalf("seed %d, cut at %d: %v", seed, n, err)
			}
			if err := w.store.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if cut < 10 {
			t.Errorf("seed %d: only %d power cuts", seed, cut)
		}
	}
}

// diskBytes is what a timeline's own files take.
func diskBytes(t *testing.T, s *Store, id tarn.TimelineID) (sum int64) {
	t.Helper()
	dir := s.timelines[id].dir(&s.shelf)
	files, err := s.files.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		o, err := s.files.Open(dir+"/"+f.Name, openExisting)
		if err != nil {
			t.Fatal(err)
		}
		n, err := o.Used()
		if err != nil {
			t.Fatal(err)
		}
		sum += n
		o.Close()
	}
	return sum
}

// TestSpace updates pages at random for a long time at a window of zero, as the
// background would see it: the space stays near what is live. A child holds
// what it began with, and gives back its own bytes when it is deleted.
func TestSpace(t *testing.T) {
	ctx := context.Background()
	s, err := Open(ctx, t.TempDir(), Options{SegmentBytes: 8 << 20, MapBytes: 16 << 20, History: -1, CollectBytesPerSecond: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	const pages = 4096 // 32 MiB
	id, child := timelineNumber(1), timelineNumber(2)
	if err := s.Create(ctx, id, worldRoot); err != nil {
		t.Fatal(err)
	}
	v := openVolume(t, s, id)
	ino := makeFile(t, v, "f", pages)
	live := int64(pages * layer.PageSize)
	rnd := rand.New(rand.NewSource(1))
	now := make([]byte, pages)
	page := make([]byte, layer.PageSize)
	worst := 0.0
	update := func(v *Volume, n int) {
		t.Helper()
		for i := range n {
			p := rnd.Intn(pages)
			now[p]++
			for j := range page {
				page[j] = now[p] + 1
			}
			if _, err := v.WriteAt(ino, page, uint64(p)*layer.PageSize); err != nil {
				t.Fatal(err)
			}
			if i%10 == 0 { // like a commit: batches stay small
				v.log.mu.Lock()
				v.log.seal()
				v.log.mu.Unlock()
			}
			if i%1000 == 0 {
				if err := s.tend(ctx, s.timelines[v.of.id]); err != nil {
					t.Fatal(err)
				}
				worst = max(worst, float64(diskBytes(t, s, v.of.id))/float64(live))
			}
		}
	}
	update(v, 4*pages)
	t.Logf("at most %.2f × live", worst)
	if worst > 2.5 || worst < 1 {
		t.Errorf("%d updates of %d pages took %.2f × their space", 4*pages, pages, worst)
	}
	check := func(v *Volume, want func(i int) byte) {
		t.Helper()
		for i := range pages {
			if n, err := v.ReadAt(ino, page, uint64(i)*layer.PageSize); err != nil || n != len(page) || page[0] != want(i) || page[layer.PageSize-1] != want(i) {
				t.Fatalf("page %d is %d, want %d: %v", i, page[0], want(i), err)
			}
		}
	}
	first := slices.Clone(now)
	shows := func(m []byte) func(int) byte {
		return func(i int) byte {
			if m[i] == 0 {
				return byte(i + 1)
			}
			return m[i] + 1
		}
	}
	check(v, shows(now))
	// The child keeps the pages of its beginning alive, through its own changes.
	if _, err := s.Fork(ctx, id, child); err != nil {
		t.Fatal(err)
	}
	update(v, 2*pages)
	c := openVolume(t, s, child)
	check(c, shows(first))
	check(v, shows(now))
	with := diskBytes(t, s, id)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, child); err != nil {
		t.Fatal(err)
	}
	if err := s.tend(ctx, s.timelines[id]); err != nil {
		t.Fatal(err)
	}
	without := diskBytes(t, s, id)
	t.Logf("%.2f × live with a child, %.2f without", float64(with)/float64(live), float64(without)/float64(live))
	if with < live*3/2 || without > live*3/2 {
		t.Errorf("%d bytes with a child and %d without, %d are live", with, without, live)
	}
	// And it all is still there after closing, idle collection and opening.
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.collect(ctx, s.timelines[id]); err != nil {
		t.Fatal(err)
	}
	v = openVolume(t, s, id)
	check(v, shows(now))
}

// TestWindow checks which marks stay, and that only those can be forked.
func TestWindow(t *testing.T) {
	ctx := context.Background()
	s := openDir(t, t.TempDir(), Options{SegmentBytes: 64 << 10, MapBytes: 32 << 10, History: 3 * time.Hour, CollectBytesPerSecond: 1 << 40})
	id := timelineNumber(1)
	if err := s.Create(ctx, id, worldRoot); err != nil {
		t.Fatal(err)
	}
	v := openVolume(t, s, id)
	a, err := v.Create(layer.RootIno, "f", layer.NewFile{Mode: unix.S_IFREG | 0o600})
	if err != nil {
		t.Fatal(err)
	}
	page := make([]byte, layer.PageSize)
	start := time.Now().Add(-6 * time.Hour)
	var marks []tarn.Mark
	for i := range 300 { // a mark every 72 seconds
		page[0] = byte(i)
		page[1] = 1 + byte(i>>8)
		if _, err := v.WriteAt(a.Ino, page, uint64(i%20)*layer.PageSize); err != nil {
			t.Fatal(err)
		}
		m := tarn.Mark{Seq: v.Head(), LSN: tarn.LSN(i + 1), Time: start.Add(time.Duration(i) * 72 * time.Second).UTC()}
		if err := v.Mark(ctx, m); err != nil {
			t.Fatal(err)
		}
		marks = append(marks, m)
		if i%50 == 49 {
			if err := s.mapVolume(ctx, v); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := v.Head()
	if _, err := s.collect(ctx, s.timelines[id]); err != nil {
		t.Fatal(err)
	}
	if err := v.Mark(ctx, tarn.Mark{Seq: before - 1, Time: time.Now()}); tarn.KindOf(err) != tarn.KindConflict {
		t.Errorf("a mark before the last collection: %v", err)
	}
	st, err := s.Stat(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	// One behind the horizon, one in 5 minutes for two hours, all of the last.
	if n := len(st.Marks); n < 1+20+45 || n > 2+26+52 {
		t.Errorf("%d marks are kept", n)
	}
	if age := time.Since(st.Marks[0].Time); age < 3*time.Hour || age > 3*time.Hour+3*time.Minute {
		t.Errorf("the oldest mark is %s old", age)
	}
	tryMark := func(n int, m tarn.Mark, keptOne bool) {
		t.Helper()
		child := timelineNumber(1000 + n)
		err := s.ForkAt(ctx, tarn.Point{Timeline: id, Seq: m.Seq}, child)
		if !keptOne {
			if tarn.KindOf(err) != tarn.KindInvalid || tarn.HintOf(err) == "" {
				t.Errorf("fork at mark %d, which is not kept: %v", n, err)
			}
			return
		}
		if err != nil {
			t.Errorf("fork at mark %d: %v", n, err)
			return
		}
		c := openVolume(t, s, child)
		for j := max(0, n-19); j <= n; j++ {
			if _, err := c.ReadAt(a.Ino, page, uint64(j%20)*layer.PageSize); err != nil || int(page[0])+int(page[1]-1)<<8 != j {
				t.Fatalf("mark %d shows %d, %d in page %d: %v", n, page[0], page[1], j, err)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(ctx, child); err != nil {
			t.Fatal(err)
		}
	}
	for n, m := range marks {
		tryMark(n, m, slices.Contains(st.Marks, m))
	}
	if err := s.SetHistory(ctx, id, 0); err != nil {
		t.Fatal(err)
	}
	if _, collect := s.needs(s.timelines[id], time.Now()); !collect {
		t.Error("a shorter window is no reason to collect")
	}
	if err := s.tend(ctx, s.timelines[id]); err != nil {
		t.Fatal(err)
	}
	if st, err = s.Stat(ctx, id); err != nil || fmt.Sprint(st.Marks) != fmt.Sprint(marks[299:]) {
		t.Errorf("marks at a window of zero: %v, %v", st.Marks, err)
	}
	for n, m := range marks {
		tryMark(n, m, n == 299)
	}
}

func TestRun(t *testing.T) {
	s := openDir(t, t.TempDir(), Options{SegmentBytes: 64 << 10, MapBytes: 64 << 10, History: -1})
	id := timelineNumber(1)
	if err := s.Create(context.Background(), id, worldRoot); err != nil {
		t.Fatal(err)
	}
	v := openVolume(t, s, id)
	makeFile(t, v, "f", 40)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.kick <- struct{}{}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		s.mu.Lock()
		maps := len(s.timelines[id].man.maps())
		s.mu.Unlock()
		if maps > 0 {
			break
		}
		<-tick.C
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
