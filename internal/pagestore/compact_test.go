package pagestore

import (
	"bytes"
	"context"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/layer"
)

// anyStretch puts everything in order that is not, and by chance what is.
func anyStretch(p pick) choice {
	return func(st *stretch) bool {
		for i, r := range st.refs[1:st.n] {
			if r != 0 && st.refs[i] != 0 && st.refs[i].place()+layer.PageBlocks != r.place() {
				return true
			}
		}
		return p(3) == 0
	}
}

// stepCompact puts some or all of a line in order, open or closed. Nothing that
// it shows changes.
func (w *world) stepCompact(l *line, p pick) error {
	if p(4) == 0 && l.vol != nil {
		if err := w.stepClose(l); err != nil || w.fs.dark {
			return err
		}
	}
	t := w.store.timelines[l.id]
	for more := true; more; {
		var err error
		more, err = compact(context.Background(), w.store, t, anyStretch(p))
		w.dropTables()
		if w.fs.dark {
			return w.moved(l)
		}
		if err != nil {
			return err
		}
		w.images += len(t.man.images())
		more = more && p(4) != 0
	}
	return w.moved(l)
}

// moved notes that a line has a later seq and shows the same: any state between
// does too.
func (w *world) moved(l *line) error {
	if w.fs.dark {
		l.history = append(l.history, moment{unknownSeq, l.now.named(), []*model{l.now.named()}})
		return nil
	}
	if l.vol == nil {
		if err := w.open(l); err != nil {
			return err
		}
	}
	l.history = append(l.history, moment{l.vol.Head(), l.now.named(), []*model{l.now.named()}})
	return w.check(l)
}

// TestCompactBetweenEverything does random things, with compactions, collections,
// maps, forks, marks and crashes between them, and compares everything that can
// be seen with the model.
func TestCompactBetweenEverything(t *testing.T) {
	seeds := 24
	if testing.Short() {
		seeds = 6
	}
	images := 0
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
			if i%5 == 4 && len(w.lines) > 0 {
				l := w.lines[rnd.Intn(len(w.lines))]
				if err := w.stepCompact(l, rnd.Intn); err != nil {
					t.Fatalf("seed %d, compaction after step %d: %v", seed, i, err)
				}
			}
			if i%14 == 13 {
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
		images += w.images
	}
	t.Logf("%d images", images)
	if images < 20*seeds {
		t.Errorf("only %d images", images)
	}
}

// TestPowerCutInCompaction cuts the power at every change that a compaction
// makes, of an open line and of a closed one.
func TestPowerCutInCompaction(t *testing.T) {
	cuts := 0
	for seed := range 4 {
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
			l := w.lines[seed%len(w.lines)]
			if seed%2 == 1 && l.vol != nil {
				if err := w.stepClose(l); err != nil {
					t.Fatal(err)
				}
			} else if l.vol == nil {
				if err := w.open(l); err != nil {
					t.Fatal(err)
				}
			}
			w.fs.cutAt = w.fs.ops + n
			if err := w.stepCompact(l, func(n int) int { return n - 1 }); err != nil {
				t.Fatalf("seed %d, cut at %d: %v", seed, n, err)
			}
			if !w.fs.dark {
				break
			}
			cuts++
			if err := w.crash(rnd, []float64{0, 1, 0.5, 0.9, 0.1}[n%5]); err != nil {
				t.Fatalf("seed %d, cut at %d: %v", seed, n, err)
			}
			if err := w.stepCompact(l, func(n int) int { return n - 1 }); err != nil {
				t.Fatalf("seed %d, compaction after the cut at %d: %v", seed, n, err)
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
	}
	t.Logf("%d power cuts", cuts)
	if cuts < 40 {
		t.Errorf("only %d power cuts", cuts)
	}
}

// pageReads counts the reads of pages from layers.
type pageReads struct {
	fileSystem
	n, bytes atomic.Int64
}

func (f *pageReads) Open(path string, how openHow) (file, error) {
	o, err := f.fileSystem.Open(path, how)
	if err != nil || strings.Contains(filepath.Base(path), "map-") || !isLayer(path) {
		return o, err
	}
	return pageReadsFile{o, f}, nil
}

type pageReadsFile struct {
	file
	in *pageReads
}

func (f pageReadsFile) ReadAt(p []byte, off int64) (int, error) {
	f.in.n.Add(1)
	f.in.bytes.Add(int64(len(p)))
	return f.file.ReadAt(p, off)
}

// scan reads a file as a mount with read-ahead does, and gives the reads that
// took.
func scan(t *testing.T, fs *pageReads, v *Volume, ino layer.Ino, pages int, want func(i int) byte) int64 {
	t.Helper()
	before := fs.n.Load()
	buf := make([]byte, 1<<20)
	for i := 0; i < pages; {
		n, err := v.ReadAt(ino, buf, uint64(i)*layer.PageSize)
		if err != nil || n%layer.PageSize != 0 {
			t.Fatalf("read %d bytes at page %d: %v", n, i, err)
		}
		for j := 0; j < n; j += layer.PageSize {
			if buf[j] != want(i) || buf[j+layer.PageSize-1] != want(i) {
				t.Fatalf("page %d is %d, want %d", i, buf[j], want(i))
			}
			i++
		}
	}
	return fs.n.Load() - before
}

// TestOrderIsRestored updates every page of a file in random order, and reads it
// in order before and after a compaction, open and after opening again.
func TestOrderIsRestored(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	fs := &pageReads{fileSystem: osFiles{}}
	o := Options{SegmentBytes: 16 << 20, History: -1, CollectBytesPerSecond: 1 << 40}
	s, err := open(ctx, fs, dir, o)
	must(t, err)
	id := timelineNumber(1)
	must(t, s.Create(ctx, id, worldRoot))
	v := openVolume(t, s, id)
	const pages = 8192 // 64 MiB
	ino := makeFile(t, v, "f", pages)
	p := make([]byte, layer.PageSize)
	for n, i := range rand.New(rand.NewSource(1)).Perm(pages) {
		for j := range p {
			p[j] = byte(i%200) + 7
		}
		if _, err := v.WriteAt(ino, p, uint64(i)*layer.PageSize); err != nil {
			t.Fatal(err)
		}
		if n%1024 == 0 {
			must(t, v.Sync())
		}
	}
	must(t, v.Sync())
	want := func(i int) byte { return byte(i%200) + 7 }
	must(t, s.mapVolume(ctx, v))
	before := scan(t, fs, v, ino, pages, want)
	tl := s.timelines[id]
	if !s.unordered(tl, time.Now()) {
		t.Fatalf("%d bytes out of order are no reason to compact", v.ix.loose.Load())
	}
	images := 0
	for more := true; more; images++ {
		more, err = compact(ctx, s, tl, (*stretch).worth)
		must(t, err)
		if _, err := s.collect(ctx, tl); err != nil {
			t.Fatal(err)
		}
		if used := diskBytes(t, s, id); used > pages*layer.PageSize*5/2 {
			t.Errorf("%d bytes on disk between images", used)
		}
	}
	if s.unordered(tl, time.Now()) {
		t.Error("there is still something to put in order")
	}
	after := scan(t, fs, v, ino, pages, want)
	used := diskBytes(t, s, id)
	t.Logf("%d reads before, %d after %d images; %.2f × live", before, after, images, float64(used)/(pages*layer.PageSize))
	if before < pages/2 || after > pages/stretchPages+int64(images)+2 {
		t.Errorf("%d reads before, %d after", before, after)
	}
	if used > pages*layer.PageSize*11/10+reserveBytes {
		t.Errorf("%d bytes on disk for %d live ones", used, pages*layer.PageSize)
	}
	wholeStore(t, s)
	must(t, v.Close())
	must(t, s.Close())
	s, err = open(ctx, fs, dir, o)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	v = openVolume(t, s, id)
	if n := scan(t, fs, v, ino, pages, want); n > after {
		t.Errorf("%d reads after opening again, %d before", n, after)
	}
	st, err := s.Stats(ctx)
	must(t, err)
	if one := st.Timelines[0]; one.Images == 0 || one.ImageBytes < pages*layer.PageSize || one.Loose > looseLeast {
		t.Errorf("stats: %+v", one)
	}
	img := filepath.Join(dir, "timelines", string(id), fileName(layer.FileImage, 2))
	flipIn(t, img, 37)
	if found := findings(t, s); len(found) != 1 || !strings.Contains(found[0].Err.Error(), img) {
		t.Errorf("with a damaged image: %+v", found)
	}
	flipIn(t, img, 37)
	// What is in order stays where it is.
	if more, err := compact(ctx, s, s.timelines[id], (*stretch).worth); err != nil || more || len(s.timelines[id].man.images()) != st.Timelines[0].Images {
		t.Errorf("compacted again: %v, %v", more, err)
	}
}

// TestCompactKeepsThePast puts a timeline in order under a child and a mark: both
// show what they did, and a child whose pages are mostly its parent's is left as
// it is.
func TestCompactKeepsThePast(t *testing.T) {
	ctx := context.Background()
	s := openDir(t, t.TempDir(), Options{SegmentBytes: 1 << 20, CollectBytesPerSecond: 1 << 40})
	id, child, late := timelineNumber(1), timelineNumber(2), timelineNumber(3)
	must(t, s.Create(ctx, id, worldRoot))
	v := openVolume(t, s, id)
	const pages = 512
	ino := makeFile(t, v, "f", pages)
	rnd := rand.New(rand.NewSource(2))
	write := func(v *Volume, add byte, n int) {
		for _, i := range rnd.Perm(pages)[:n] {
			if _, err := v.WriteAt(ino, bytes.Repeat([]byte{byte(i) + add}, layer.PageSize), uint64(i)*layer.PageSize); err != nil {
				t.Fatal(err)
			}
		}
	}
	shows := func(v *Volume, add byte) {
		t.Helper()
		p := make([]byte, layer.PageSize)
		for i := range pages {
			if _, err := v.ReadAt(ino, p, uint64(i)*layer.PageSize); err != nil || p[0] != byte(i)+add || p[layer.PageSize-1] != byte(i)+add {
				t.Fatalf("page %d is %d, want %d: %v", i, p[0], byte(i)+add, err)
			}
		}
	}
	compact := func(id tarn.TimelineID) {
		t.Helper()
		for more := true; more; {
			var err error
			more, err = compact(ctx, s, s.timelines[id], (*stretch).worth)
			must(t, err)
			_, err = s.collect(ctx, s.timelines[id])
			must(t, err)
		}
	}
	write(v, 3, pages)
	mark := tarn.Mark{Seq: v.Head(), LSN: 5, Time: time.Now().UTC()}
	must(t, v.Mark(ctx, mark))
	_, err := s.Fork(ctx, id, child)
	must(t, err)
	write(v, 9, pages)
	compact(id)
	if len(s.timelines[id].man.images()) == 0 {
		t.Fatal("nothing was put in order")
	}
	shows(v, 9)
	c := openVolume(t, s, child)
	shows(c, 3)
	must(t, s.ForkAt(ctx, tarn.Point{Timeline: id, Seq: mark.Seq}, late))
	shows(openVolume(t, s, late), 3)
	write(c, 3, pages/8) // the same bytes, at other places
	must(t, s.mapVolume(ctx, c))
	compact(child)
	if n := len(s.timelines[child].man.images()); n != 0 {
		t.Errorf("%d images copy what is the parent's", n)
	}
	write(c, 4, pages)
	compact(child)
	shows(c, 4)
	if n := len(s.timelines[child].man.images()); n == 0 {
		t.Error("the child's own pages were not put in order")
	}
	shows(v, 9)
	wholeStore(t, s)
	must(t, v.Close())
	v = openVolume(t, s, id)
	shows(v, 9)
	shows(c, 4)
}

// TestCompactBesideWriters puts a volume in order again and again while it is
// written, forked and collected.
func TestCompactBesideWriters(t *testing.T) {
	ctx := context.Background()
	s := openDir(t, t.TempDir(), Options{SegmentBytes: 1 << 20, MapBytes: 2 << 20, History: -1, CollectBytesPerSecond: 1 << 40})
	id := timelineNumber(1)
	must(t, s.Create(ctx, id, worldRoot))
	v := openVolume(t, s, id)
	const pages = 600
	ino := makeFile(t, v, "f", pages)
	now := make([]byte, pages)
	for i := range now {
		now[i] = byte(i + 1)
	}
	done := make(chan error, 1)
	stop := make(chan struct{})
	tl := s.timelines[id]
	go func() {
		for rounds := 0; ; rounds++ {
			select {
			case <-stop:
				if rounds == 0 {
					done <- fmt.Errorf("no round was done")
				}
				close(done)
				return
			default:
			}
			_, err := compact(ctx, s, tl, func(*stretch) bool { return true })
			if err == nil && rounds%4 == 3 {
				_, err = s.collect(ctx, tl)
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	rnd := rand.New(rand.NewSource(3))
	p := make([]byte, layer.PageSize)
	for n := range 6000 {
		i := rnd.Intn(pages)
		if n%2 == 0 {
			now[i]++
			for j := range p {
				p[j] = now[i]
			}
			if _, err := v.WriteAt(ino, p, uint64(i)*layer.PageSize); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if _, err := v.ReadAt(ino, p, uint64(i)*layer.PageSize); err != nil || p[0] != now[i] || p[layer.PageSize-1] != now[i] {
			t.Fatalf("page %d is %d, want %d: %v", i, p[0], now[i], err)
		}
		if n%1500 == 1 {
			child := timelineNumber(10 + n)
			if _, err := s.Fork(ctx, id, child); err != nil {
				t.Fatal(err)
			}
			c := openVolume(t, s, child)
			for i := range pages {
				if _, err := c.ReadAt(ino, p, uint64(i)*layer.PageSize); err != nil || p[0] != now[i] {
					t.Fatalf("page %d of a child is %d, want %d: %v", i, p[0], now[i], err)
				}
			}
			must(t, c.Close())
			must(t, s.Delete(ctx, child))
		}
	}
	close(stop)
	must(t, <-done)
	wholeStore(t, s)
}

// TestRemoteImages puts a timeline in order that is in a bucket: images are
// uploaded and listed, read by range when the directory is gone, and repaired.
func TestRemoteImages(t *testing.T) {
	ctx := context.Background()
	b, at := memory.New(), t.TempDir()
	o := remoteOptions(b)
	o.SegmentBytes, o.MapBytes, o.History = 8<<20, 16<<20, -1
	s, end := openRunning(t, at, o)
	must(t, s.Create(ctx, lineA, worldRoot))
	v := takeVolume(t, s, lineA)
	ino := plainFile(t, v, "f")
	const pages = 1500
	for _, i := range rand.New(rand.NewSource(4)).Perm(pages) {
		writePages(t, v, ino, i, 1, 1)
	}
	for more := true; more; {
		var err error
		more, err = compact(ctx, s, s.timelines[lineA], (*stretch).worth)
		must(t, err)
	}
	must(t, s.mapVolume(ctx, v))
	if _, err := s.collect(ctx, s.timelines[lineA]); err != nil {
		t.Fatal(err)
	}
	must(t, v.Close())
	must(t, s.Upload(ctx, lineA))
	if got := objectsOf(t, b); !strings.Contains(got, "/img-00000001.") {
		t.Fatalf("no image in the bucket:\n%s", got)
	}
	o.Remote.LocalBytes = 1
	must(t, s.remote.evictLocal(ctx)) // no limit: nothing goes
	end()
	if flip(t, at, "img-", 50*layer.BlockSize+9) == 0 {
		t.Fatal("no image to damage")
	}
	s, end = openRunning(t, at, o)
	v = takeVolume(t, s, lineA)
	checkPagesOf(t, v, ino, 0, pages, 1)
	wholeStore(t, s)
	must(t, v.Close())
	must(t, s.Upload(ctx, lineA))
	must(t, s.remote.evictLocal(ctx))
	if n := layersIn(t, at); n > 1 {
		t.Errorf("%d layers are here after all were evicted", n)
	}
	must(t, s.Release(ctx, lineA))
	end()
	must(t, os.RemoveAll(at))
	s, _ = openRunning(t, t.TempDir(), o)
	v = takeVolume(t, s, lineA)
	checkPagesOf(t, v, ino, 0, pages, 1)
	wholeStore(t, s)
}
