package pagestore

import (
	"context"
	"math/rand"
	"strings"
	"testing"

	"github.com/tarndb/tarn/internal/blob/memory"
	"github.com/tarndb/tarn/internal/layer"
)

// TestSpaceInTheBucket updates pages at random for a long time at a window of
// zero, with uploads as the background makes them: the space in the bucket stays
// near what is live, and all of it can be read from there.
func TestSpaceInTheBucket(t *testing.T) {
	ctx := context.Background()
	b, at := memory.New(), t.TempDir()
	o := Options{SegmentBytes: 2 << 20, MapBytes: 4 << 20, History: -1, CollectBytesPerSecond: 1 << 40}
	o.Remote = remoteOptions(b).Remote
	o.Remote.BytesPerSecond = 1 << 40
	s, end := openRunning(t, at, o)
	must(t, s.Create(ctx, lineA, worldRoot))
	v := takeVolume(t, s, lineA)
	ino := plainFile(t, v, "f")
	const pages = 2048 // 16 MiB
	const live = pages * layer.PageSize
	writePages(t, v, ino, 0, pages, 0)
	rnd := rand.New(rand.NewSource(1))
	now := make([]int, pages)
	inBucket := func() (n int64) {
		for o, err := range b.List(ctx, remoteStore, "") {
			must(t, err)
			n += o.Size
		}
		return n
	}
	worst, packed := 0.0, 0
	for n := range 6 * pages {
		p := rnd.Intn(pages)
		if n%3 > 0 {
			p = p / 16 * 16 // some are written more often: what else stands in a segment stays
		}
		now[p]++
		writePages(t, v, ino, p, 1, 1000*now[p])
		if n%10 == 0 { // like a commit: batches stay small
			v.log.mu.Lock()
			v.log.seal()
			v.log.mu.Unlock()
		}
		if n%500 != 499 {
			continue
		}
		must(t, s.tend(ctx, s.timelines[lineA]))
		must(t, s.Upload(ctx, lineA))
		packed = strings.Count(objectsOf(t, b), ".00000001.")
		worst = max(worst, float64(inBucket())/live)
	}
	t.Logf("at most %.2f × live, %d packed objects at the end", worst, packed)
	if worst > 2.5 || packed == 0 {
		t.Errorf("%.2f × the live bytes in the bucket, %d packed objects", worst, packed)
	}
	check := func(v *Volume) {
		t.Helper()
		for i := range pages {
			checkPagesOf(t, v, ino, i, 1, 1000*now[i])
		}
	}
	check(v)
	must(t, v.Close())
	must(t, s.Upload(ctx, lineA))
	end()
	// What rotted here comes from packed objects.
	if flip(t, at, "log-", 9*layer.BlockSize)+flip(t, at, "img-", 9*layer.BlockSize)+flip(t, at, "log-", 300) == 0 {
		t.Fatal("nothing to damage")
	}
	s, end = openRunning(t, at, o)
	v = takeVolume(t, s, lineA)
	check(v)
	wholeStore(t, s)
	// So does what is not here any more, also for who has it open.
	s.remote.o.LocalBytes = 1
	must(t, s.remote.evictLocal(ctx))
	check(v)
	must(t, v.Close())
	must(t, s.Upload(ctx, lineA))
	must(t, s.Release(ctx, lineA))
	end()
	s, _ = openRunning(t, t.TempDir(), o)
	v = takeVolume(t, s, lineA)
	check(v)
	wholeStore(t, s)
	// And an evicted layer is packed too, while it is open.
	for i := range pages / 2 {
		now[2*i]++
		writePages(t, v, ino, 2*i, 1, 1000*now[2*i])
	}
	must(t, s.mapVolume(ctx, v))
	must(t, s.Upload(ctx, lineA))
	if _, err := s.collect(ctx, s.timelines[lineA]); err != nil {
		t.Fatal(err)
	}
	before := inBucket()
	must(t, s.Upload(ctx, lineA))
	if after := inBucket(); after >= before {
		t.Errorf("%d bytes in the bucket, %d before", after, before)
	}
	check(v)
}
