package pagestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// TestConcurrentWritersReadersForks has writers that stamp whole pages,
// readers that must never see half a stamp or an older one than before, and
// forks whose children must stand still, while maps are written and collections
// run. Real files.
func TestConcurrentWritersReadersForks(t *testing.T) {
	const writers, pages, rounds = 3, 12, 150
	ctx := context.Background()
	s, err := Open(ctx, t.TempDir(), Options{SegmentBytes: 1 << 20, MapBytes: 512 << 10, CacheBytes: 1, History: -1, CollectBytesPerSecond: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	root := timelineNumber(1)
	if err := s.Create(ctx, root, worldRoot); err != nil {
		t.Fatal(err)
	}
	v, err := s.OpenVolume(ctx, root)
	if err != nil {
		t.Fatal(err)
	}
	var inos [writers]layer.Ino
	for i := range inos {
		a, err := v.Create(layer.RootIno, fmt.Sprint("f", i), layer.NewFile{Mode: unix.S_IFREG | 0o600})
		if err != nil {
			t.Fatal(err)
		}
		inos[i] = a.Ino
		if err := v.Allocate(a.Ino, 0, pages*layer.PageSize); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	var writing, rest errgroup.Group
	for w, ino := range inos {
		writing.Go(func() error {
			page := make([]byte, layer.PageSize)
			for round := uint64(1); round <= rounds; round++ {
				for p := range uint64(pages) {
					stamp(page, round)
					if _, err := v.WriteAt(ino, page, p*layer.PageSize); err != nil {
						return err
					}
				}
				name := fmt.Sprintf("t%d-%d", w, round)
				if _, err := v.Create(layer.RootIno, name, layer.NewFile{Mode: unix.S_IFREG | 0o600}); err != nil {
					return err
				}
				if round%10 == 0 {
					if err := v.Sync(); err != nil {
						return err
					}
				}
				if err := v.Rename(layer.RootIno, name, layer.RootIno, fmt.Sprint("last", w)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	for range 2 {
		rest.Go(func() error { return readStamps(v, inos[:], pages, done) })
	}
	rest.Go(func() error { return forkAgainAndAgain(ctx, s, root, inos[:], pages, done) })
	ctxRun, stop := context.WithCancel(ctx)
	rest.Go(func() error { return s.Run(ctxRun) })
	rest.Go(func() error { return collectAgainAndAgain(ctx, s, root, done) })
	if err := writing.Wait(); err != nil {
		t.Error(err)
	}
	close(done)
	stop()
	if err := rest.Wait(); err != nil {
		t.Error(err)
	}
}

// collectAgainAndAgain writes maps and collects the timeline and its children.
func collectAgainAndAgain(ctx context.Context, s *Store, id tarn.TimelineID, done <-chan struct{}) error {
	freed := int64(0)
	for {
		select {
		case <-done:
			if freed == 0 {
				return errors.New("nothing was ever collected")
			}
			return nil
		default:
		}
		s.mu.Lock()
		t, all := s.timelines[id], maps.Clone(s.timelines)
		s.mu.Unlock()
		if err := s.mapVolume(ctx, t.volume); err != nil {
			return err
		}
		for _, t := range all {
			s.mu.Lock()
			making := t.state == stateMaking
			s.mu.Unlock()
			if making {
				continue
			}
			n, err := s.collect(ctx, t)
			if err != nil && !errors.Is(err, errClosed) && tarn.KindOf(err) != tarn.KindNotFound {
				return err
			}
			freed += n
		}
	}
}

func timelineNumber(n int) tarn.TimelineID { return tarn.TimelineID(fmt.Sprintf("%032x", n)) }

func stamp(page []byte, round uint64) {
	for i := 0; i < len(page); i += 8 {
		binary.LittleEndian.PutUint64(page[i:], round)
	}
}

// stamped checks that a page is of one piece and gives its stamp.
func stamped(page []byte) (uint64, error) {
	first := binary.LittleEndian.Uint64(page)
	for i := 8; i < len(page); i += 8 {
		if got := binary.LittleEndian.Uint64(page[i:]); got != first {
			return 0, fmt.Errorf("page with stamps %d and %d", first, got)
		}
	}
	return first, nil
}

func readStamps(v *Volume, inos []layer.Ino, pages int, done <-chan struct{}) error {
	seen := map[string]uint64{}
	buf := make([]byte, pages*layer.PageSize)
	for {
		select {
		case <-done:
			return nil
		default:
		}
		for _, ino := range inos {
			if n, err := v.ReadAt(ino, buf, 0); err != nil || n != len(buf) {
				return fmt.Errorf("read %d bytes: %w", n, err)
			}
			for p := range pages {
				got, err := stamped(buf[p*layer.PageSize : (p+1)*layer.PageSize])
				key := fmt.Sprint(ino, p)
				if err != nil || got < seen[key] {
					return fmt.Errorf("inode %d page %d: stamp %d after %d: %v", ino, p, got, seen[key], err)
				}
				seen[key] = got
			}
			if a, err := v.Attr(ino); err != nil || a.Size != uint64(len(buf)) {
				return fmt.Errorf("attributes %+v: %w", a, err)
			}
		}
		if _, err := v.ReadDir(layer.RootIno, 0, 100); err != nil {
			return err
		}
	}
}

// forkAgainAndAgain forks, writes to the child, and sees that the child's other
// pages do not move. A page of a round never stands behind one of a later round
// in the same file by more than one.
func forkAgainAndAgain(ctx context.Context, s *Store, parent tarn.TimelineID, inos []layer.Ino, pages int, done <-chan struct{}) error {
	for n := 2; ; n++ {
		select {
		case <-done:
			return nil
		default:
		}
		id := timelineNumber(n)
		if _, err := s.Fork(ctx, parent, id); err != nil {
			return err
		}
		c, err := s.OpenVolume(ctx, id)
		if err != nil {
			return err
		}
		before, err := readFiles(c, inos, pages)
		if err != nil {
			return err
		}
		for _, b := range before {
			first, _ := stamped(b[:layer.PageSize])
			last, _ := stamped(b[len(b)-layer.PageSize:])
			if first < last || first > last+1 {
				return fmt.Errorf("child %s: first page of round %d, last of %d", id, first, last)
			}
		}
		page := make([]byte, layer.PageSize)
		stamp(page, 1<<40)
		if _, err := c.WriteAt(inos[0], page, 0); err != nil {
			return err
		}
		copy(before[0], page)
		after, err := readFiles(c, inos, pages)
		if err != nil {
			return err
		}
		for i := range before {
			if !bytes.Equal(before[i], after[i]) {
				return fmt.Errorf("child %s: file %d moved", id, i)
			}
		}
		if err := c.Close(); err != nil {
			return err
		}
		if err := s.Delete(ctx, id); err != nil {
			return err
		}
	}
}

func readFiles(v *Volume, inos []layer.Ino, pages int) ([][]byte, error) {
	var out [][]byte
	for _, ino := range inos {
		b := make([]byte, pages*layer.PageSize)
		if n, err := v.ReadAt(ino, b, 0); err != nil || n != len(b) {
			return nil, fmt.Errorf("read %d bytes: %w", n, err)
		}
		out = append(out, b)
	}
	return out, nil
}

// TestConcurrentSyncs has many callers share syncs: each must find its own
// write durable.
func TestConcurrentSyncs(t *testing.T) {
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	v := w.lines[0].vol
	var g errgroup.Group
	for i := range 8 {
		g.Go(func() error {
			a, err := v.Create(layer.RootIno, fmt.Sprint(i), layer.NewFile{Mode: unix.S_IFREG})
			if err != nil {
				return err
			}
			page := make([]byte, layer.PageSize)
			for round := range uint64(20) {
				stamp(page, round+1)
				if _, err := v.WriteAt(a.Ino, page, 0); err != nil {
					return err
				}
				head := v.Head()
				if err := v.Sync(); err != nil {
					return err
				}
				if got := v.log.synced.Load(); got < uint64(head) {
					return fmt.Errorf("synced up to %d, asked for %d", got, head)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	ops := w.fs.ops
	if err := v.Sync(); err != nil || w.fs.ops != ops {
		t.Fatalf("a sync with nothing to do made %d changes: %v", w.fs.ops-ops, err)
	}
}

// TestConcurrentParts has many write parts of the same page: none may undo
// another's, in memory or in the log.
func TestConcurrentParts(t *testing.T) {
	const writers, rounds = 4, 4000
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	l := w.lines[0]
	a, err := l.vol.Create(layer.RootIno, "f", layer.NewFile{Mode: unix.S_IFREG | 0o600})
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	part := layer.PageSize / writers
	for i := range writers {
		g.Go(func() error {
			mine, got := make([]byte, part), make([]byte, part)
			off := uint64(i * part)
			for round := range uint64(rounds) {
				if _, err := l.vol.ReadAt(a.Ino, got, off); err != nil || round > 0 && !bytes.Equal(mine, got) {
					return fmt.Errorf("writer %d reads something else than it wrote in round %d: %v", i, round, err)
				}
				stamp(mine, round+1)
				if _, err := l.vol.WriteAt(a.Ino, mine, off); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	before, err := viewOf(l.vol)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.vol.Sync(); err != nil {
		t.Fatal(err)
	}
	w.fs.crash(nil, 0)
	if err := w.openStore(); err != nil {
		t.Fatal(err)
	}
	if err := w.open(l); err != nil {
		t.Fatal(err)
	}
	after, err := viewOf(l.vol)
	if err != nil {
		t.Fatal(err)
	}
	if d := differ(after, before); d != "" {
		t.Fatalf("the log says otherwise:\n%s", d)
	}
}
