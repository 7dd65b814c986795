package pagestore

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/layer"
)

// TestFullDiskAtEveryChange runs a script of everything that takes space: writes,
// marks, maps, forks, collection, compaction, uploads, packed copies, eviction and
// reads of ranges, opening and closing. From the n-th change of the file system on there
// is no space until the step has failed; then it is done again. What fails says
// ENOSPC and changes nothing, and in the end everything is there, also after a
// crash. TARN_FULL_EVERY=1 takes every n, in half a minute; without it every
// seventh.
func TestFullDiskAtEveryChange(t *testing.T) {
	every := 7
	if os.Getenv("TARN_FULL_EVERY") == "1" {
		every = 1
	}
	turned := map[string]int{}
	n := 1
	for ; ; n += every {
		f := newFullWorld(t, n)
		for _, s := range f.steps() {
			if f.step(s) {
				turned[s.name]++
			}
		}
		f.end()
		if f.fs.turned == 0 {
			break // the script has no n-th change
		}
	}
	t.Logf("%d changes; refused in %v", n, turned)
	for _, name := range []string{"write", "mark", "map", "fork", "collect", "compact", "close", "upload"} {
		if turned[name] == 0 && every == 1 {
			t.Errorf("no change of step %q was refused", name)
		}
	}
}

// fullWorld is a store with a bucket, and what must be in it.
type fullWorld struct {
	t     *testing.T
	n     int
	fs    *crashFS
	o     Options
	s     *Store
	v     map[tarn.TimelineID]*Volume
	ino   layer.Ino
	want  map[tarn.TimelineID][]int // seeds of pages
	rnd   *rand.Rand
	marks int
}

type fullStepOf struct {
	name string
	do   func() error
}

const fullPages = 48

func newFullWorld(t *testing.T, n int) *fullWorld {
	f := &fullWorld{t: t, n: n, fs: newCrashFS(), v: map[tarn.TimelineID]*Volume{}, want: map[tarn.TimelineID][]int{}, rnd: rand.New(rand.NewSource(5))}
	f.o = Options{SegmentBytes: 64 << 10, MapBytes: 48 << 10, CacheBytes: 1, CollectBytesPerSecond: 1 << 40, History: -1,
		Remote: Remote{Store: memory.New(), Node: fmt.Sprintf("%032x", 0xfade), CacheDir: t.TempDir(), Lease: 5 * time.Hour, SealEvery: time.Hour, LocalBytes: 1}}
	must(t, f.open())
	f.fs.fullFrom = f.fs.ops + n
	return f
}

func (f *fullWorld) open() (err error) {
	f.s, err = open(context.Background(), f.fs, "store", f.o)
	return err
}

// step does a step, and again when it found the disk full.
func (f *fullWorld) step(s fullStepOf) (full bool) {
	f.t.Helper()
	before := f.fs.turned
	err := s.do()
	full = f.fs.turned > before
	if full {
		f.fs.fullFrom = 0
	}
	if err != nil && (!full || !errors.Is(err, syscall.ENOSPC)) {
		f.t.Fatalf("change %d: %s: %v", f.n, s.name, err)
	}
	if err != nil {
		if err := s.do(); err != nil {
			f.t.Fatalf("change %d: %s, with space again: %v", f.n, s.name, err)
		}
	}
	f.check(s.name)
	return full
}

func (f *fullWorld) check(after string) {
	f.t.Helper()
	got := make([]byte, layer.PageSize)
	for id, v := range f.v {
		for i, seed := range f.want[id] {
			k, err := v.ReadAt(f.ino, got, uint64(i)*layer.PageSize)
			if err != nil || k != len(got) || string(got) != string(page(seed)) {
				f.t.Fatalf("change %d: after %s page %d of %s has %d bytes, %v, or others than written", f.n, after, i, id, k, err)
			}
		}
	}
}

// write writes pages to a timeline, in random order.
func (f *fullWorld) write(id tarn.TimelineID, n int) fullStepOf {
	todo := make([]int, n)
	for i := range todo {
		todo[i] = f.rnd.Intn(fullPages)
	}
	return fullStepOf{"write", func() error {
		for ; len(todo) > 0; todo = todo[1:] {
			seed := f.rnd.Intn(1 << 20)
			if _, err := f.v[id].WriteAt(f.ino, page(seed), uint64(todo[0])*layer.PageSize); err != nil {
				return err
			}
			f.want[id][todo[0]] = seed
		}
		return f.v[id].Sync()
	}}
}

func (f *fullWorld) steps() []fullStepOf {
	ctx := context.Background()
	mark := fullStepOf{"mark", func() error {
		return f.v[lineA].Mark(ctx, tarn.Mark{Seq: f.v[lineA].Head(), LSN: tarn.LSN(0x1000 * (f.marks + 1)), Time: time.Unix(int64(1000+f.marks), 0).UTC()})
	}}
	mapped := fullStepOf{"map", func() error { return f.s.mapVolume(ctx, f.v[lineA]) }}
	collect := fullStepOf{"collect", func() error { _, err := f.s.collect(ctx, f.s.timelines[lineA]); return err }}
	upload := func(id tarn.TimelineID) fullStepOf {
		return fullStepOf{"upload", func() error { return f.s.Upload(ctx, id) }}
	}
	openLine := func(id tarn.TimelineID) fullStepOf {
		return fullStepOf{"open", func() (err error) {
			v, err := f.s.OpenVolume(ctx, id)
			if err == nil {
				f.v[id] = v
			}
			return err
		}}
	}
	closeLine := func(id tarn.TimelineID) fullStepOf {
		return fullStepOf{"close", func() error {
			err := f.v[id].Close()
			if err == nil {
				delete(f.v, id)
			}
			return err
		}}
	}
	return []fullStepOf{
		{"create", func() error { return f.s.Create(ctx, lineA, worldRoot) }},
		openLine(lineA),
		{"file", func() error {
			a, err := f.v[lineA].Create(layer.RootIno, "f", layer.NewFile{Mode: 0o100600})
			f.ino = a.Ino
			return err
		}},
		{"write", func() error {
			for len(f.want[lineA]) < fullPages {
				i := len(f.want[lineA])
				if _, err := f.v[lineA].WriteAt(f.ino, page(i), uint64(i)*layer.PageSize); err != nil {
					return err
				}
				f.want[lineA] = append(f.want[lineA], i)
			}
			return f.v[lineA].Sync()
		}},
		f.write(lineA, 60), mark, mapped, upload(lineA),
		{"fork", func() error { _, err := f.s.Fork(ctx, lineA, lineB); return err }},
		{"fork", func() error { f.want[lineB] = append([]int(nil), f.want[lineA]...); return nil }},
		openLine(lineB), f.write(lineB, 10),
		f.write(lineA, 90), mapped, mark, collect, upload(lineA), upload(lineB),
		{"compact", func() error { _, err := compact(ctx, f.s, f.s.timelines[lineA], (*stretch).worth); return err }},
		collect, mapped, upload(lineA),
		{"evict", func() error { return f.s.remote.evictLocal(ctx) }},
		f.write(lineA, 20), closeLine(lineB), closeLine(lineA),
		openLine(lineB), openLine(lineA), f.write(lineA, 5), collect, upload(lineA), upload(lineB),
	}
}

// end reopens the store after a crash that keeps only what was synced: all was.
func (f *fullWorld) end() {
	f.t.Helper()
	f.fs.fullFrom = 0
	f.s.remote.close()
	f.fs.crash(rand.New(rand.NewSource(int64(f.n))), 0)
	must(f.t, f.open())
	for id := range f.v {
		v, err := f.s.OpenVolume(context.Background(), id)
		if err != nil {
			f.t.Fatalf("change %d: open %s after a crash: %v", f.n, id, err)
		}
		f.v[id] = v
	}
	f.check("a crash")
	var found []string
	_, err := f.s.Check(context.Background(), func(d Finding) { found = append(found, d.Err.Error()) })
	if err != nil || len(found) > 0 {
		f.t.Fatalf("change %d: check: %v\n%s", f.n, err, strings.Join(found, "\n"))
	}
	must(f.t, f.s.Close())
}
