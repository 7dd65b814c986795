package pagestore

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/layer"
)

const (
	lineA = tarn.TimelineID("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	lineB = tarn.TimelineID("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")
	lineC = tarn.TimelineID("cccccccccccccccccccccccccccccccc")
)

// buckets are the stores that the tests of this file run on.
func buckets(t *testing.T, test func(t *testing.T, b blob.Store)) {
	t.Run("memory", func(t *testing.T) { test(t, memory.New()) })
	t.Run("dir", func(t *testing.T) {
		b, err := dir.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		test(t, b)
	})
}

// remoteOptions are those of a store with a bucket and a short lease.
func remoteOptions(b blob.Store) Options {
	return Options{SegmentBytes: 64 << 10, MapBytes: 128 << 10, Remote: Remote{Store: b, Lease: time.Second, SealEvery: time.Hour}}
}

// openRunning opens a store and runs its background until the test ends, or
// until the returned function is called, which closes it.
func openRunning(t testing.TB, dir string, o Options) (*Store, func()) {
	t.Helper()
	s, err := Open(context.Background(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	end := func() {
		cancel()
		<-done
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(end)
	return s, end
}

// abandon ends a store's background and leaves it as a process that died would,
// but for the lock of its directory.
func abandon(t testing.TB, dir string, o Options, do func(*Store)) {
	t.Helper()
	s, err := Open(context.Background(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	do(s)
	cancel()
	<-done
	s.lock.Close()
	s.remote.close()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// plainFile gives a new file in the root.
func plainFile(t testing.TB, v *Volume, name string) layer.Ino {
	t.Helper()
	a, err := v.Create(layer.RootIno, name, layer.NewFile{Mode: unix.S_IFREG | 0o600})
	must(t, err)
	return a.Ino
}

func page(seed int) []byte {
	p := make([]byte, layer.PageSize)
	for i := range p {
		p[i] = byte(seed*31 + i*7 + i>>8 + 1)
	}
	return p
}

// writePages writes pages whose contents follow from their numbers and a seed.
func writePages(t testing.TB, v *Volume, ino layer.Ino, first, n, seed int) {
	t.Helper()
	for i := first; i < first+n; i++ {
		if _, err := v.WriteAt(ino, page(seed+i), uint64(i)*layer.PageSize); err != nil {
			t.Fatal(err)
		}
	}
}

func checkPagesOf(t testing.TB, v *Volume, ino layer.Ino, first, n, seed int) {
	t.Helper()
	got := make([]byte, layer.PageSize)
	for i := first; i < first+n; i++ {
		k, err := v.ReadAt(ino, got, uint64(i)*layer.PageSize)
		if err != nil || k != len(got) || !bytes.Equal(got, page(seed+i)) {
			t.Fatalf("page %d of inode %d: %d bytes, %v, or others than written", i, ino, k, err)
		}
	}
}

func takeVolume(t testing.TB, s *Store, id tarn.TimelineID) *Volume {
	t.Helper()
	v, err := s.OpenVolume(context.Background(), id)
	must(t, err)
	return v
}

// layersIn counts the layers in the directories of timelines.
func layersIn(t testing.TB, dir string) (n int) {
	t.Helper()
	must(t, filepath.WalkDir(filepath.Join(dir, "timelines"), func(path string, d os.DirEntry, err error) error {
		if err == nil && isLayer(path) {
			n++
		}
		return err
	}))
	return n
}

func TestRemoteStartsFromBucket(t *testing.T) {
	buckets(t, func(t *testing.T, b blob.Store) {
		ctx := context.Background()
		var ino layer.Ino
		var head tarn.Seq
		abandon(t, t.TempDir(), remoteOptions(b), func(s *Store) {
			must(t, s.Create(ctx, lineA, worldRoot))
			v := takeVolume(t, s, lineA)
			ino = plainFile(t, v, "f")
			writePages(t, v, ino, 0, 40, 1)
			must(t, v.Mark(ctx, tarn.Mark{Seq: v.Head(), LSN: 77, Time: time.Now().UTC()}))
			_, err := s.Fork(ctx, lineA, lineB)
			must(t, err)
			writePages(t, v, ino, 10, 5, 1000)
			must(t, s.Upload(ctx, lineB))
			must(t, s.Upload(ctx, lineA))
			head = v.Head()
			writePages(t, v, ino, 20, 5, 2000) // not uploaded
			must(t, v.Sync())
		})
		at := t.TempDir()
		s, end := openRunning(t, at, remoteOptions(b))
		st, err := s.Stat(ctx, lineA)
		must(t, err)
		if st.Head != head || len(st.Marks) != 1 || st.Marks[0].LSN != 77 {
			t.Fatalf("status of what the bucket has: %+v, want head %d and a mark", st, head)
		}
		if n := layersIn(t, at); n != 0 {
			t.Fatalf("%d layers were fetched though nobody read", n)
		}
		v := takeVolume(t, s, lineA)
		checkPagesOf(t, v, ino, 0, 10, 1)
		checkPagesOf(t, v, ino, 10, 5, 1000)
		checkPagesOf(t, v, ino, 15, 25, 1)
		w := takeVolume(t, s, lineB)
		checkPagesOf(t, w, ino, 0, 40, 1)
		writePages(t, v, ino, 0, 3, 3000)
		must(t, v.Close())
		must(t, s.Upload(ctx, lineA))
		must(t, w.Close())
		must(t, s.Leave(ctx))
		if _, m := s.timelines[lineA].remote.now(); m.Holder != "" {
			t.Fatalf("%s holds what was left", m.Holder)
		}
		end()
		// Released: the next one opens it at once, from nothing.
		s, _ = openRunning(t, t.TempDir(), remoteOptions(b))
		v = takeVolume(t, s, lineA)
		checkPagesOf(t, v, ino, 0, 3, 3000)
		checkPagesOf(t, v, ino, 3, 7, 1)
	})
}

func TestRemoteRestartGoesOn(t *testing.T) {
	ctx := context.Background()
	b, at := memory.New(), t.TempDir()
	var ino layer.Ino
	abandon(t, at, remoteOptions(b), func(s *Store) {
		must(t, s.Create(ctx, lineA, worldRoot))
		v := takeVolume(t, s, lineA)
		ino = plainFile(t, v, "f")
		writePages(t, v, ino, 0, 20, 1)
		must(t, s.Upload(ctx, lineA))
		writePages(t, v, ino, 20, 20, 1)
		must(t, v.Sync())
	})
	for round := range 3 {
		abandon(t, at, remoteOptions(b), func(s *Store) {
			v := takeVolume(t, s, lineA)
			checkPagesOf(t, v, ino, 0, 40+round, 1)
			writePages(t, v, ino, 40+round, 1, 1)
			must(t, v.Sync())
			if round == 1 {
				must(t, s.Upload(ctx, lineA))
			}
		})
	}
	s, _ := openRunning(t, t.TempDir(), remoteOptions(b))
	v := takeVolume(t, s, lineA)
	checkPagesOf(t, v, ino, 0, 42, 1)
	if a, err := v.Attr(ino); err != nil || a.Size != 42*layer.PageSize {
		t.Fatalf("%+v, %v", a, err)
	}
}

func TestRemoteOtherNodeIsRefused(t *testing.T) {
	buckets(t, func(t *testing.T, b blob.Store) {
		ctx := context.Background()
		o := remoteOptions(b)
		o.Remote.Lease = 6 * time.Second // no heartbeat is so late
		s, _ := openRunning(t, t.TempDir(), o)
		must(t, s.Create(ctx, lineA, worldRoot))
		v := takeVolume(t, s, lineA)
		ino := plainFile(t, v, "f")
		writePages(t, v, ino, 0, 3, 1)
		must(t, s.Upload(ctx, lineA))
		other, _ := openRunning(t, t.TempDir(), o)
		if _, err := other.OpenVolume(ctx, lineA); tarn.KindOf(err) != tarn.KindConflict {
			t.Fatalf("opened a volume that another node holds: %v", err)
		}
		if err := other.Delete(ctx, lineA); tarn.KindOf(err) != tarn.KindConflict {
			t.Fatalf("deleted a timeline that another node holds: %v", err)
		}
		must(t, v.Close())
		must(t, s.Release(ctx, lineA))
		w := takeVolume(t, other, lineA)
		checkPagesOf(t, w, ino, 0, 3, 1)
		if _, err := s.OpenVolume(ctx, lineA); tarn.KindOf(err) != tarn.KindConflict {
			t.Fatalf("opened a volume that was released and taken: %v", err)
		}
		writePages(t, w, ino, 0, 3, 100)
		must(t, w.Close())
		must(t, other.Release(ctx, lineA))
		v = takeVolume(t, s, lineA)
		checkPagesOf(t, v, ino, 0, 3, 100)
	})
}

// A store without heartbeats loses what it holds.
func TestRemoteStaleNodeWritesNothing(t *testing.T) {
	ctx := context.Background()
	b := memory.New()
	o := remoteOptions(b)
	o.Remote.Lease = 3 * time.Second
	s, err := Open(ctx, t.TempDir(), o) // its background does not run: it is silent
	must(t, err)
	t.Cleanup(func() { s.Close() })
	must(t, s.Create(ctx, lineA, worldRoot))
	v := takeVolume(t, s, lineA)
	ino := plainFile(t, v, "f")
	writePages(t, v, ino, 0, 3, 1)
	must(t, s.Upload(ctx, lineA))
	other, _ := openRunning(t, t.TempDir(), o)
	w := takeVolume(t, other, lineA) // after the lease
	checkPagesOf(t, w, ino, 0, 3, 1)
	writePages(t, w, ino, 0, 3, 100)
	must(t, other.Upload(ctx, lineA))
	before := objectsOf(t, b)
	if _, err := v.WriteAt(ino, page(1), 0); err == nil {
		t.Fatal("a node whose lease ran out wrote")
	}
	must(t, s.remote.heart.beat(ctx))
	select {
	case <-v.Lost():
	default:
		t.Fatal("the volume was not told that it is lost")
	}
	if _, err := v.WriteAt(ino, page(1), 0); err == nil {
		t.Fatal("a node whose timeline was taken wrote")
	}
	if err := s.Upload(ctx, lineA); err == nil {
		t.Fatal("a node whose timeline was taken uploaded")
	}
	if after := objectsOf(t, b); after != before {
		t.Fatalf("the bucket changed from\n%s to\n%s", before, after)
	}
	v.Close()
	must(t, w.Close())
	must(t, other.Release(ctx, lineA))
	v = takeVolume(t, s, lineA)
	checkPagesOf(t, v, ino, 0, 3, 100)
}

// objectsOf lists a bucket's objects of timelines.
func objectsOf(t testing.TB, b blob.Store) string {
	t.Helper()
	var out strings.Builder
	for o, err := range b.List(context.Background(), remoteStore, "") {
		must(t, err)
		fmt.Fprintln(&out, o.Key, o.Size, o.ETag)
	}
	return out.String()
}

func TestRemoteDelete(t *testing.T) {
	ctx := context.Background()
	b, at := memory.New(), t.TempDir()
	s, end := openRunning(t, at, remoteOptions(b))
	must(t, s.Create(ctx, lineA, worldRoot))
	_, err := s.Fork(ctx, lineA, lineB)
	must(t, err)
	must(t, s.Upload(ctx, lineB))
	must(t, s.Delete(ctx, lineA)) // a ghost
	must(t, s.remote.upload(ctx, s.timelines[lineA], atOnce))
	end()
	at = t.TempDir()
	s, _ = openRunning(t, at, remoteOptions(b))
	if _, err := s.Stat(ctx, lineA); tarn.KindOf(err) != tarn.KindNotFound {
		t.Fatalf("status of a ghost: %v", err)
	}
	v := takeVolume(t, s, lineB)
	must(t, v.Close())
	must(t, s.Delete(ctx, lineB))
	if got := objectsOf(t, b); strings.Contains(got, string(lineB)) {
		t.Fatalf("objects of a deleted timeline:\n%s", got)
	}
}
