package pagestore

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/layer"
)

// flip changes a byte in every layer of a kind below a directory, behind its
// header, and gives the number of files.
func flip(t *testing.T, dir, prefix string, off int64) (n int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "timelines", "*", prefix+"*"))
	must(t, err)
	for _, path := range files {
		b, err := os.ReadFile(path)
		must(t, err)
		if off >= int64(len(b)) {
			continue
		}
		b[off] ^= 0x10
		must(t, os.WriteFile(path, b, 0o600))
		n++
	}
	return n
}

func TestRemoteRepairsBitRot(t *testing.T) {
	ctx := context.Background()
	b, at := memory.New(), t.TempDir()
	o := remoteOptions(b)
	s, end := openRunning(t, at, o)
	must(t, s.Create(ctx, lineA, worldRoot))
	v := takeVolume(t, s, lineA)
	ino := plainFile(t, v, "f")
	writePages(t, v, ino, 0, 100, 1)
	must(t, s.mapVolume(ctx, v))
	writePages(t, v, ino, 100, 100, 1)
	must(t, v.Close())
	must(t, s.Upload(ctx, lineA))
	end()
	for _, off := range []int64{100, 2 * layer.BlockSize, 5000, 12*layer.BlockSize + 77} {
		damaged := flip(t, at, "log-", off) + flip(t, at, "map-", off)
		if damaged == 0 {
			t.Fatal("nothing to damage")
		}
		s, end = openRunning(t, at, o)
		v = takeVolume(t, s, lineA)
		checkPagesOf(t, v, ino, 0, 200, 1)
		must(t, v.Close())
		end()
	}
	// Without the bucket's copy it is an error, and never wrong data.
	o.Remote.Store = nil
	flip(t, at, "log-", 12*layer.BlockSize+77)
	s, err := Open(ctx, at, o)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	v, err = s.OpenVolume(ctx, lineA)
	for i := range 200 {
		got := make([]byte, layer.PageSize)
		if err == nil {
			if _, err = v.ReadAt(ino, got, uint64(i)*layer.PageSize); err == nil && !bytes.Equal(got, page(1+i)) {
				t.Fatalf("page %d is wrong", i)
			}
		}
	}
	if err == nil {
		t.Fatal("damage was not noticed")
	}
}

// Both copies are bad: an error that names the file, and no data.
func TestRemoteBothCopiesBad(t *testing.T) {
	ctx := context.Background()
	b, at := memory.New(), t.TempDir()
	s, end := openRunning(t, at, remoteOptions(b))
	must(t, s.Create(ctx, lineA, worldRoot))
	v := takeVolume(t, s, lineA)
	ino := plainFile(t, v, "f")
	writePages(t, v, ino, 0, 5, 1)
	must(t, v.Close())
	must(t, s.Upload(ctx, lineA))
	end()
	off := int64(4 * layer.BlockSize) // in a page
	flip(t, at, "log-", off)
	key := remoteStore + string(lineA) + "/log-00000002.00000001"
	if _, err := b.Head(ctx, key); err != nil {
		key = remoteStore + string(lineA) + "/log-00000001.00000001"
	}
	whole, err := (bucket{b}).readRange(ctx, key, 0, -1)
	must(t, err)
	whole[off] ^= 0x20
	must(t, b.Put(ctx, key, bytes.NewReader(whole)))
	s, _ = openRunning(t, at, remoteOptions(b))
	v = takeVolume(t, s, lineA)
	bad := 0
	for i := range 5 {
		got := make([]byte, layer.PageSize)
		if _, err := v.ReadAt(ino, got, uint64(i)*layer.PageSize); err != nil {
			if !strings.Contains(err.Error(), "log-0000000") {
				t.Fatalf("the error does not name the file: %v", err)
			}
			bad++
		} else if !bytes.Equal(got, page(1+i)) {
			t.Fatalf("page %d is wrong", i)
		}
	}
	if bad != 1 {
		t.Fatalf("%d pages could not be read, want 1", bad)
	}
}

func TestRemoteEvictsAndReadsByRange(t *testing.T) {
	ctx := context.Background()
	gets := atomic.Int64{}
	b := faulty.New(memory.New(), func(c faulty.Call) faulty.Fault {
		if c.Op == faulty.Get && strings.Contains(c.Key, "/log-") {
			gets.Add(1)
		}
		return faulty.None
	})
	at := t.TempDir()
	o := remoteOptions(b)
	o.SegmentBytes, o.MapBytes = 8<<20, 16<<20
	o.Remote.LocalBytes = 1
	s, end := openRunning(t, at, o)
	must(t, s.Create(ctx, lineA, worldRoot))
	v := takeVolume(t, s, lineA)
	ino := plainFile(t, v, "f")
	const pages = 4000 // 32 MiB
	writePages(t, v, ino, 0, pages, 1)
	must(t, s.Upload(ctx, lineA))
	must(t, s.remote.evictLocal(ctx))
	if n := layersIn(t, at); n > 1 {
		t.Fatalf("%d layers are here after all were evicted", n)
	}
	checkPagesOf(t, v, ino, 0, pages, 1) // while it is open
	if n := gets.Load(); n > 100 {
		t.Errorf("%d requests for a scan of 32 MiB", n)
	}
	writePages(t, v, ino, 5, 5, 100)
	must(t, v.Close())
	must(t, s.Upload(ctx, lineA))
	wholeStore(t, s)
	end()
	gets.Store(0)
	s, _ = openRunning(t, t.TempDir(), o)
	v = takeVolume(t, s, lineA)
	buf := make([]byte, 128<<10)
	for off := uint64(0); off < pages*layer.PageSize; off += uint64(len(buf)) {
		if _, err := v.ReadAt(ino, buf, off); err != nil {
			t.Fatal(err)
		}
	}
	if n := gets.Load(); n == 0 || n > 60 {
		t.Errorf("%d requests for a cold scan of 32 MiB", n)
	}
	checkPagesOf(t, v, ino, 5, 5, 100)
}

func TestRemoteGarbage(t *testing.T) {
	ctx := context.Background()
	b := memory.New()
	o := remoteOptions(b)
	o.History = -1
	s, _ := openRunning(t, t.TempDir(), o)
	must(t, s.Create(ctx, lineA, worldRoot))
	v := takeVolume(t, s, lineA)
	ino := plainFile(t, v, "f")
	for round := range 6 {
		writePages(t, v, ino, 0, 40, 100*round)
	}
	must(t, s.Upload(ctx, lineA))
	sizes := func() (n int64) {
		for o, err := range b.List(ctx, remoteStore, "") {
			must(t, err)
			n += o.Size
		}
		return n
	}
	before := sizes()
	must(t, s.mapVolume(ctx, v))
	if _, err := s.collect(ctx, s.timelines[lineA]); err != nil {
		t.Fatal(err)
	}
	must(t, s.mapVolume(ctx, v))
	if _, err := s.collect(ctx, s.timelines[lineA]); err != nil {
		t.Fatal(err)
	}
	must(t, s.Upload(ctx, lineA))
	if after := sizes(); after > before/2 {
		t.Errorf("%d bytes in the bucket, %d before the collection\n%s", after, before, objectsOf(t, b))
	}
	checkPagesOf(t, v, ino, 0, 40, 500)

	// Objects that nobody lists go when they are old, and only then.
	orphan := remoteStore + string(lineA) + "/log-00000999.00000001"
	foreign := remoteStore + string(lineC) + "/log-00000001.00000001"
	for _, key := range []string{orphan, foreign} {
		must(t, b.Put(ctx, key, strings.NewReader("left by a crash")))
	}
	must(t, s.remote.sweepRemote(ctx))
	listed := objectsOf(t, b)
	if !strings.Contains(listed, orphan) || !strings.Contains(listed, foreign) {
		t.Fatal("young objects were deleted")
	}
	s.remote.linger = -time.Hour
	must(t, s.remote.sweepRemote(ctx))
	if got := objectsOf(t, b); strings.Contains(got, orphan) || strings.Contains(got, foreign) || strings.Count(got, "\n") != strings.Count(listed, "\n")-2 {
		t.Fatalf("after the sweep:\n%s", got)
	}
	must(t, v.Close())
	must(t, s.Release(ctx, lineA))
	s, _ = openRunning(t, t.TempDir(), o)
	v = takeVolume(t, s, lineA)
	checkPagesOf(t, v, ino, 0, 40, 500)
	if err := s.Delete(ctx, lineB); tarn.KindOf(err) != tarn.KindNotFound {
		t.Fatal(err)
	}
	wholeStore(t, s)
}
