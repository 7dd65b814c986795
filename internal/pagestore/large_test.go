package pagestore

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// countingFiles are real files that count what is read of logs and of maps.
type countingFiles struct {
	osFiles
	logs, maps atomic.Int64
}

func (c *countingFiles) Open(path string, how openHow) (file, error) {
	f, err := c.osFiles.Open(path, how)
	if err != nil {
		return nil, err
	}
	n := &c.maps
	if strings.HasPrefix(filepath.Base(path), "log-") {
		n = &c.logs
	}
	return countedFile{f, n}, nil
}

type countedFile struct {
	file
	n *atomic.Int64
}

func (f countedFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.file.ReadAt(p, off)
	f.n.Add(int64(n))
	return n, err
}

// largeTimeline writes a timeline of so many files of 1 GiB, every page of
// which stands somewhere in sparse segments, through the codec.
func largeTimeline(t *testing.T, dir string, id tarn.TimelineID, files int) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	s, err := Open(ctx, dir, Options{})
	must(err)
	must(s.Create(ctx, id, worldRoot))
	man := s.timelines[id].man
	must(s.Close())

	own := filepath.Join(dir, "timelines", string(id))
	const pagesPerFile = 1 << 30 / layer.PageSize
	const pagesPerSegment = (layer.MaxSegmentBytes - layer.BlockSize) / layer.PageSize
	segments := files*pagesPerFile/pagesPerSegment + 1
	for i := range segments {
		path := filepath.Join(own, fileName(layer.FileLog, uint32(i+2)))
		must(os.WriteFile(path, nil, 0o600))
		must(os.Truncate(path, layer.MaxSegmentBytes))
		man.Layers = append(man.Layers, layerFile{Kind: layer.FileLog, Number: uint32(i + 2), Bytes: layer.MaxSegmentBytes})
	}
	f, err := os.Create(filepath.Join(own, fileName(layer.FileMap, 1)))
	must(err)
	w, err := layer.NewMapWriter(f, id, 1, 0)
	must(err)
	crc := layer.Checksum(zeroPage[:])
	words := make([][]layer.TableRef, files)
	page := 0
	for i := range words {
		for table := range uint32(pagesPerFile / layer.TablePages) {
			var refs [layer.TablePages]uint64
			for j := range refs {
				at := (page*1_000_003 + j) % (segments * pagesPerSegment)
				refs[j] = uint64(makeRef(makePlace(1+at/pagesPerSegment, uint32(1+at%pagesPerSegment*layer.PageBlocks)), crc))
				page++
			}
			r, err := w.Table(layer.Ino(i+2), table, &refs)
			must(err)
			words[i] = append(words[i], r)
		}
	}
	must(w.File(0, layer.FileID{Timeline: id, Kind: layer.FileMap, Number: 1}))
	for i := range segments + 1 {
		must(w.File(i, layer.FileID{Timeline: id, Kind: layer.FileLog, Number: uint32(i + 1)}))
	}
	must(w.Inode(&layer.MapInode{Attr: layer.Attr{Ino: 1, Mode: unix.S_IFDIR | 0o700, Nlink: 2}, Cookie: uint64(files)}))
	for i := range words {
		must(w.Name(fmt.Sprint(i), layer.Ino(i+2), uint64(i+1)))
	}
	for i, refs := range words {
		must(w.Inode(&layer.MapInode{Attr: layer.Attr{Ino: layer.Ino(i + 2), Mode: unix.S_IFREG | 0o600, Nlink: 1, Size: 1 << 30}}))
		must(w.Tables(0, refs))
	}
	last := uint32(segments + 1)
	head := man.Closed.Head + 1<<40
	h, size, err := w.Finish(layer.MapHeader{Seq: head, Generation: 1, Segment: last, Block: layer.MaxSegmentBytes / layer.BlockSize, NextIno: layer.Ino(files + 2)})
	must(err)
	must(f.Close())
	man.Layers = append(man.Layers, layerFile{Kind: layer.FileMap, Number: 1, First: h.Seq, Last: h.Seq, Bytes: size, Generation: 1})
	man.Counted = counted{Log: last, Map: 1}
	man.Closed = closed{Head: head, Segment: last, Bytes: layer.MaxSegmentBytes}
	must((manifests{osFiles{}, filepath.Join(dir, "timelines")}).replace(man, man.Epoch))
	t.Logf("%d GiB: %d tables in a map of %d MB", files, h.Tables, size>>20)
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestLargeTimeline opens a timeline of 500 GB: it takes a few bytes for each
// 512 KiB of it and the cache, however much is read and written; opening reads
// none of the log and a small part of the map; idle, it takes nothing.
func TestLargeTimeline(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a map of half a gigabyte")
	}
	const files, cache = 466, 8 << 20 // GiB
	ctx, dir, id := context.Background(), t.TempDir(), timelineNumber(1)
	largeTimeline(t, dir, id, files)
	counts := &countingFiles{}
	s, err := open(ctx, counts, dir, Options{CacheBytes: cache})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	before := heap()
	began := time.Now()
	v, err := s.OpenVolume(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	opened := heap() - before
	t.Logf("opened in %s with %d MB of memory, %d KB of maps and %d KB of logs read", took, opened>>20, counts.maps.Load()>>10, counts.logs.Load()>>10)
	if counts.logs.Load() > 0 || counts.maps.Load() > 12<<20 {
		t.Errorf("opening read %d bytes of logs, %d of maps", counts.logs.Load(), counts.maps.Load())
	}
	const directory = 20 << 20
	if opened > directory {
		t.Errorf("open it takes %d bytes", opened)
	}
	rnd := rand.New(rand.NewSource(1))
	p := make([]byte, layer.PageSize)
	for range 40_000 {
		n, err := v.ReadAt(layer.Ino(2+rnd.Intn(files)), p, uint64(rnd.Intn(1<<30/layer.PageSize))*layer.PageSize)
		if err != nil || n != len(p) || !isZero(p) {
			t.Fatalf("read %d bytes: %v", n, err)
		}
	}
	if read := heap() - before; read > directory+cache*3/2 {
		t.Errorf("after reading it takes %d bytes", read)
	}
	const written = 5_000
	p[0] = 1
	for range written {
		if _, err := v.WriteAt(layer.Ino(2+rnd.Intn(files)), p, uint64(rnd.Intn(1<<30/layer.PageSize))*layer.PageSize); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.mapVolume(ctx, v); err != nil {
		t.Fatal(err)
	}
	m := s.timelines[id].man.maps()
	if len(m) != 2 || m[1].Generation != 1 || m[1].Bytes > 12<<20+written*600 {
		t.Errorf("maps after %d pages were written: %+v", written, m)
	}
	if wrote := heap() - before; wrote > directory*2+cache*3/2 {
		t.Errorf("after writing it takes %d bytes", wrote)
	}
	t.Logf("after reading and writing %d MB", (heap()-before)>>20)
	if _, err := s.Fork(ctx, id, timelineNumber(2)); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	c := openVolume(t, s, timelineNumber(2))
	if _, err := c.ReadAt(2, p, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	v, c = nil, nil
	if idle := heap() - before; idle > 3<<20 {
		t.Errorf("idle it takes %d bytes", idle)
	}
}
