package pagestore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// rotten makes a store with a timeline of two maps and a log behind them, and a
// child of it, all closed.
func rotten(t *testing.T) (dir string, id, child tarn.TimelineID, ino layer.Ino) {
	t.Helper()
	ctx := context.Background()
	dir, id, child = t.TempDir(), timelineNumber(1), timelineNumber(2)
	s := openRotten(t, dir)
	if err := s.Create(ctx, id, worldRoot); err != nil {
		t.Fatal(err)
	}
	v := openVolume(t, s, id)
	for range 3 {
		if i := makeFile(t, v, "f"+string(rune('0'+ino)), 100); ino == 0 {
			ino = i
		}
		if err := s.mapVolume(ctx, v); err != nil {
			t.Fatal(err)
		}
		ino++
	}
	ino -= 3
	if _, err := s.Fork(ctx, id, child); err != nil {
		t.Fatal(err)
	}
	if _, err := v.WriteAt(ino, make([]byte, 100), 5); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, id, child, ino
}

func openRotten(t *testing.T, dir string) *Store {
	t.Helper()
	return openDir(t, dir, Options{SegmentBytes: 256 << 10, MapBytes: 1 << 30, CacheBytes: 1, CollectBytesPerSecond: 1 << 40})
}

// flipIn changes one bit of a file for the length of a test.
func flipIn(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func findings(t *testing.T, s *Store) (out []Finding) {
	t.Helper()
	sum, err := s.Check(context.Background(), func(f Finding) { out = append(out, f) })
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("checked %+v", sum)
	return out
}

// TestCheck has a whole store without findings, then bits that flip: each is
// reported with its file and place, and read by nobody.
func TestCheck(t *testing.T) {
	ctx := context.Background()
	dir, id, child, ino := rotten(t)
	s := openRotten(t, dir)
	sum, err := s.Check(ctx, func(f Finding) { t.Errorf("found in a whole store: %+v", f) })
	if err != nil || sum.Timelines != 2 || sum.Maps != 3 || sum.Pages < 300 || sum.Tables < 6 || sum.Heads == 0 || sum.Bytes != sum.Pages*layer.PageSize {
		t.Fatalf("checked %+v, %v", sum, err)
	}
	// A page that both see, while both are open.
	v, c := openVolume(t, s, id), openVolume(t, s, child)
	n := v.ix.inodes.get(ino)
	ref, err := v.ix.page(n, 7)
	if err != nil {
		t.Fatal(err)
	}
	path, at := v.ix.segment(ref.place()).path, int64(ref.place().block())*layer.BlockSize
	flipIn(t, path, at+4000)
	found := findings(t, s)
	var bad *layer.CorruptError
	if len(found) != 1 || found[0].Timeline != id || !errors.As(found[0].Err, &bad) || bad.File != path || bad.Offset != at {
		t.Errorf("found %+v, want page at %d of %s", found, at, path)
	}
	p := make([]byte, 3*layer.PageSize)
	for _, v := range []*Volume{v, c} {
		_, err := v.ReadAt(ino, p, 6*layer.PageSize)
		if !errors.Is(err, syscall.EIO) || !errors.As(err, &bad) || bad.File != path || bad.Offset != at {
			t.Errorf("read of a damaged page: %v", err)
		}
		if _, err := v.WriteAt(ino, []byte("x"), 7*layer.PageSize+9); !errors.Is(err, syscall.EIO) {
			t.Errorf("write to a part of a damaged page: %v", err)
		}
		for i := range uint64(3) {
			if _, err := v.ReadAt(ino, p[:layer.PageSize], (6+i)*layer.PageSize); (err != nil) != (i == 1) || err == nil && p[100] != byte(7+i) {
				t.Errorf("page %d beside a damaged one: %d, %v", 6+i, p[100], err)
			}
		}
	}
	// Written anew as a whole it is well again.
	if _, err := v.WriteAt(ino, p[:layer.PageSize], 7*layer.PageSize); err != nil {
		t.Fatal(err)
	}
	if _, err := v.ReadAt(ino, p, 6*layer.PageSize); err != nil {
		t.Error(err)
	}
	if found := findings(t, s); len(found) != 1 { // the child's beginning
		t.Errorf("found %+v", found)
	}
	flipIn(t, path, at+4000)
	if found := findings(t, s); len(found) != 0 {
		t.Errorf("found %+v", found)
	}
	// A hole where something is visible.
	f, err := osFiles{}.Open(path, openExisting)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Punch(at, layer.PageSize); err != nil {
		t.Fatal(err)
	}
	if found := findings(t, s); len(found) != 1 || !errors.As(found[0].Err, &bad) || bad.Offset != at {
		t.Errorf("found %+v", found)
	}
}

// TestDamagedMap damages the newest map: its catalog, and the timeline opens
// from the one before; a table of it, and it is made anew from the map before and the log; with the
// log between them damaged too, only what the table is for cannot be read.
func TestDamagedMap(t *testing.T) {
	ctx := context.Background()
	for _, what := range []string{"header", "catalog", "table", "checksum of a table", "table and log", "missing"} {
		t.Run(what, func(t *testing.T) {
			dir, id, child, ino := rotten(t)
			path := filepath.Join(dir, "timelines", string(id), fileName(layer.FileMap, 3))
			st, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			switch what {
			case "header":
				flipIn(t, path, 33)
			case "catalog":
				flipIn(t, path, st.Size()-100)
			case "table":
				flipIn(t, path, layer.BlockSize+60)
			case "checksum of a table":
				flipIn(t, path, layer.BlockSize+chunkPages*8+1)
			case "table and log": // the second file's, and the log between its map and the next
				h := mapHeader(t, dir, id, 2)
				flipIn(t, path, layer.BlockSize+60)
				flipIn(t, filepath.Join(dir, "timelines", string(id), fileName(layer.FileLog, h.Segment)), int64(h.Block)*layer.BlockSize+70)
			case "missing":
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			s := openRotten(t, dir)
			v, c := openVolume(t, s, id), openVolume(t, s, child)
			p := make([]byte, layer.PageSize)
			unread := 0
			for _, v := range []*Volume{v, c} {
				for f := range layer.Ino(3) {
					for i := range uint64(100) {
						_, err := v.ReadAt(ino+f, p, i*layer.PageSize)
						switch {
						case errors.Is(err, syscall.EIO) && errors.Is(err, layer.ErrCorrupt) && what == "table and log":
							unread++
						case err != nil:
							t.Fatalf("file %d page %d: %v", f, i, err)
						case p[200] != byte(i+1):
							t.Fatalf("file %d page %d is %d", f, i, p[200])
						}
					}
				}
			}
			if what == "table and log" && unread != 2*chunkPages-1 && unread != 2*chunkPages { // one page was written behind the map
				t.Errorf("%d pages could not be read", unread)
			}
			found := findings(t, s)
			if what == "table" || what == "checksum of a table" { // it was made anew
				if len(found) != 0 {
					t.Errorf("found %+v", found)
				}
				if _, err := s.collect(ctx, s.timelines[id]); err != nil {
					t.Error(err)
				}
				return
			}
			if !slices.ContainsFunc(found, func(f Finding) bool {
				var bad *layer.CorruptError
				return f.Timeline == id && (errors.As(f.Err, &bad) && bad.File == path || what == "missing" && strings.Contains(f.Err.Error(), path))
			}) {
				t.Errorf("found %+v", found)
			}
			if what == "table and log" {
				if _, err := s.collect(ctx, s.timelines[id]); err == nil {
					t.Error("a timeline with a table that cannot be read was collected")
				}
				return
			}
			// A new map makes it whole again.
			if err := s.mapVolume(ctx, v); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openRotten(t, dir)
			v = openVolume(t, s, id)
			if _, err := v.ReadAt(ino, p, 99*layer.PageSize); err != nil || p[0] != 100 {
				t.Errorf("after a new map: %d, %v", p[0], err)
			}
		})
	}
}

// mapHeader reads the header of a map.
func mapHeader(t *testing.T, dir string, id tarn.TimelineID, number uint32) layer.MapHeader {
	t.Helper()
	path := filepath.Join(dir, "timelines", string(id), fileName(layer.FileMap, number))
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	r, err := layer.OpenMap(f, path, st.Size(), id, number)
	if err != nil {
		t.Fatal(err)
	}
	return r.Header()
}

func TestStats(t *testing.T) {
	ctx := context.Background()
	dir, id, child, ino := rotten(t)
	s := openRotten(t, dir)
	v := openVolume(t, s, id)
	p := make([]byte, 100*layer.PageSize)
	if _, err := v.ReadAt(ino, p, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.mapVolume(ctx, v); err != nil {
		t.Fatal(err)
	}
	p[0]++
	if _, err := v.WriteAt(ino, p[:layer.PageSize], 0); err != nil {
		t.Fatal(err)
	}
	st, err := s.Stats(ctx)
	if err != nil || len(st.Timelines) != 2 || st.Free == 0 || st.Total < st.Free {
		t.Fatalf("%+v, %v", st, err)
	}
	a, b := st.Timelines[0], st.Timelines[1]
	if a.ID != id || !a.Open || a.Segments < 10 || a.Maps != 4 || a.LogBytes < 300*layer.PageSize || a.MapBytes == 0 ||
		a.Visible < 250*layer.PageSize || a.Visible > 350*layer.PageSize || a.Garbage == 0 || a.Index == 0 || a.History == 0 || !a.Collected.IsZero() {
		t.Errorf("parent %+v", a)
	}
	if b.ID != child || b.Parent.Timeline != id || b.Open || b.LogBytes != 0 || b.Index != 0 {
		t.Errorf("child %+v", b)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, id); err != nil {
		t.Fatal(err)
	}
	if st, err = s.Stats(ctx); err != nil || len(st.Timelines) != 2 || !st.Timelines[0].Ghost {
		t.Errorf("with a ghost: %+v, %v", st, err)
	}
}
