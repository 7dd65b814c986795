package pagestore

import (
	"context"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/layer"
)

// wholeStore fails when Check finds anything.
func wholeStore(t testing.TB, s *Store) {
	t.Helper()
	sum, err := s.Check(context.Background(), func(f Finding) { t.Errorf("check: timeline %s: %v", f.Timeline, f.Err) })
	must(t, err)
	if sum.Timelines == 0 {
		t.Error("check: nothing was checked")
	}
}

func TestRewind(t *testing.T) {
	ctx := context.Background()
	at := t.TempDir()
	s, err := Open(ctx, at, Options{SegmentBytes: 64 << 10, MapBytes: 100 << 10})
	must(t, err)
	must(t, s.Create(ctx, lineA, worldRoot))
	v := takeVolume(t, s, lineA)
	ino := plainFile(t, v, "f")
	writePages(t, v, ino, 0, 30, 1)
	must(t, s.mapVolume(ctx, v))
	writePages(t, v, ino, 5, 5, 100)
	m := tarn.Mark{Seq: v.Head(), LSN: 500, Time: time.Now().UTC()}
	must(t, v.Mark(ctx, m))
	writePages(t, v, ino, 0, 30, 900)
	plainFile(t, v, "new")
	later := tarn.Mark{Seq: v.Head(), LSN: 600, Time: time.Now().UTC()}
	must(t, v.Mark(ctx, later))
	_, err = s.Fork(ctx, lineA, lineB) // of what is given up
	must(t, err)
	if err := s.Rewind(ctx, lineA, m); tarn.KindOf(err) != tarn.KindConflict {
		t.Fatalf("rewound an open volume: %v", err)
	}
	must(t, v.Close())
	if err := s.Rewind(ctx, lineA, tarn.Mark{Seq: 3}); tarn.KindOf(err) != tarn.KindInvalid {
		t.Fatalf("rewound to what is no mark: %v", err)
	}
	before, err := s.Stat(ctx, lineA)
	must(t, err)
	must(t, s.Rewind(ctx, lineA, m))
	look := func(seed int) {
		t.Helper()
		st, err := s.Stat(ctx, lineA)
		must(t, err)
		if st.Head <= before.Head || len(st.Marks) != 1 || st.Marks[0] != m {
			t.Fatalf("status after rewinding: %+v, before %+v", st, before)
		}
		v := takeVolume(t, s, lineA)
		checkPagesOf(t, v, ino, 0, 5, seed)
		checkPagesOf(t, v, ino, 5, 5, 100)
		checkPagesOf(t, v, ino, 10, 20, 1)
		if _, err := v.Lookup(layer.RootIno, "new"); err == nil {
			t.Fatal("a file of after the mark is there")
		}
		writePages(t, v, ino, 0, 5, seed+1)
		must(t, v.Close())
		wholeStore(t, s)
	}
	look(1)
	must(t, s.Close())
	s, err = Open(ctx, at, Options{SegmentBytes: 64 << 10, MapBytes: 100 << 10})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	look(2)
	_, err = s.collect(ctx, s.timelines[lineA])
	must(t, err)
	look(3)
	w := takeVolume(t, s, lineB)
	checkPagesOf(t, w, ino, 0, 30, 900)
	must(t, s.ForkAt(ctx, tarn.Point{Timeline: lineA, Seq: m.Seq}, lineC))
	x := takeVolume(t, s, lineC)
	checkPagesOf(t, x, ino, 0, 5, 1)
}

func TestRewindWhatCameFromTheBucket(t *testing.T) {
	ctx := context.Background()
	b := memory.New()
	var ino layer.Ino
	m := tarn.Mark{LSN: 70, Time: time.Now().UTC()}
	abandon(t, t.TempDir(), remoteOptions(b), func(s *Store) {
		must(t, s.Create(ctx, lineA, worldRoot))
		v := takeVolume(t, s, lineA)
		ino = plainFile(t, v, "f")
		writePages(t, v, ino, 0, 40, 1)
		m.Seq = v.Head()
		must(t, v.Mark(ctx, m))
		writePages(t, v, ino, 10, 5, 1000)
		must(t, s.Upload(ctx, lineA))
		writePages(t, v, ino, 20, 5, 2000) // not uploaded
	})
	s, end := openRunning(t, t.TempDir(), remoteOptions(b))
	st, err := s.Stat(ctx, lineA)
	must(t, err)
	newest, ok := NewestMark(st.Marks, 100)
	if !ok || newest != m {
		t.Fatalf("marks %+v", st.Marks)
	}
	must(t, s.Rewind(ctx, lineA, newest))
	v := takeVolume(t, s, lineA)
	checkPagesOf(t, v, ino, 0, 40, 1)
	writePages(t, v, ino, 0, 1, 500)
	must(t, v.Close())
	must(t, s.Upload(ctx, lineA))
	wholeStore(t, s)
	end()
	s, _ = openRunning(t, t.TempDir(), remoteOptions(b))
	v = takeVolume(t, s, lineA)
	checkPagesOf(t, v, ino, 0, 1, 500)
	checkPagesOf(t, v, ino, 1, 39, 1)
	wholeStore(t, s)
}
