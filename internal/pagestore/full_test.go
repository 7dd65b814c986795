package pagestore

import (
	"context"
	"errors"
	"math/rand"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

// TestFullDisk fills the disk again and again under random operations: what
// fails changes nothing, what was there stays, and it works again when space
// returns.
func TestFullDisk(t *testing.T) {
	for seed := range 5 {
		rnd := rand.New(rand.NewSource(int64(seed)))
		w, err := newWorld()
		if err != nil {
			t.Fatal(err)
		}
		l := w.lines[0]
		full := 0
		for range 12 {
			w.fs.capacity = w.fs.size() + int64(rnd.Intn(300<<10))
			for range 40 {
				full += fullStep(t, w, l, rnd)
				if err := w.check(l); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			if rnd.Intn(2) == 0 { // a crash while the disk is full
				if err := w.crash(rnd, 0.5); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			w.fs.capacity = 0
			if _, err := l.vol.Create(layer.RootIno, "probe", layer.NewFile{Mode: unix.S_IFREG | 0o600}); err != nil {
				t.Fatalf("seed %d: create with space again: %v", seed, err)
			}
			if err := l.vol.Unlink(layer.RootIno, "probe"); err != nil {
				t.Fatal(err)
			}
			l.now.next++
			if err := l.vol.Sync(); err != nil {
				t.Fatalf("seed %d: sync with space again: %v", seed, err)
			}
			l.synced = l.vol.Head()
			l.history = append(l.history, moment{seq: l.synced, state: l.now.named()})
			if err := w.check(l); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if full == 0 {
			t.Fatalf("seed %d: the disk was never full", seed)
		}
		if err := w.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// fullStep writes, truncates or syncs and counts how often the disk was full.
func fullStep(t *testing.T, w *world, l *line, rnd *rand.Rand) int {
	t.Helper()
	if rnd.Intn(8) == 0 {
		head := l.vol.Head()
		err := l.vol.Sync()
		if errors.Is(err, syscall.ENOSPC) {
			return 1
		} else if err != nil {
			t.Fatal(err)
		}
		l.synced = head
		return 0
	}
	ino := l.anyIno(rnd.Intn, isRegular)
	before, head := l.now, l.vol.Head()
	var err error
	if ino == 999 || rnd.Intn(6) == 0 {
		after := before.clone()
		f := layer.NewFile{Mode: unix.S_IFREG | 0o600}
		name := strings.Repeat("n", 1+rnd.Intn(200))
		want := after.create(layer.RootIno, name, f)
		_, err = l.vol.Create(layer.RootIno, name, f)
		if err == nil {
			l.now = after
		} else if errors.Is(err, want) {
			return 0
		}
	} else {
		data := make([]byte, (1+rnd.Intn(5))*layer.PageSize)
		fill(data, rnd.Intn(200)+1)
		off := rnd.Intn(20) * layer.PageSize
		var n int
		n, err = l.vol.WriteAt(ino, data, uint64(off))
		l.now = before.clone()
		for end := 0; end <= n; end += layer.PageSize { // a moment after each page
			part := before.clone()
			part.write(ino, data[:end], off)
			if end == 0 {
				part = before.clone()
			}
			l.history = append(l.history, moment{seq: head + tarn.Seq(end/layer.PageSize), state: part.named()})
			l.now = part
		}
	}
	if err == nil {
		l.history = append(l.history, moment{seq: l.vol.Head(), state: l.now.named()})
		return 0
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("with a full disk: %v", err)
	}
	return 1
}

func (c *crashFS) size() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.root.used()
}

// TestFullDiskLeavesTimelines checks the operations on timelines with no space.
func TestFullDiskLeavesTimelines(t *testing.T) {
	ctx := context.Background()
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	l := w.lines[0]
	if err := l.vol.Sync(); err != nil {
		t.Fatal(err)
	}
	w.fs.capacity = w.fs.size()
	if _, err := w.store.Fork(ctx, l.id, w.newID()); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fork without space: %v", err)
	}
	if err := w.store.Create(ctx, w.newID(), worldRoot); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("create without space: %v", err)
	}
	all, err := w.store.Timelines(ctx)
	if err != nil || len(all) != 1 {
		t.Fatalf("timelines %v, %v", all, err)
	}
	if err := l.vol.Close(); err != nil {
		t.Fatalf("close with nothing to write but the manifest: %v", err)
	}
	w.fs.capacity = 0
	l.vol = nil
	if err := w.checkAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Fork(ctx, l.id, w.newID()); err != nil {
		t.Fatal(err)
	}
}

// TestFailedSync checks that a sync that failed is never followed by one that
// says all is well, and that reopening finds what really is on disk.
func TestFailedSync(t *testing.T) {
	for _, then := range []string{"reopen", "crash"} {
		t.Run(then, func(t *testing.T) {
			w, err := newWorld()
			if err != nil {
				t.Fatal(err)
			}
			l := w.lines[0]
			rnd := rand.New(rand.NewSource(7))
			for range 10 {
				if err := w.stepWriteOrMake(l, rnd); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.stepSync(l); err != nil {
				t.Fatal(err)
			}
			for range 10 {
				if err := w.stepWriteOrMake(l, rnd); err != nil {
					t.Fatal(err)
				}
			}
			w.fs.failSync = 1
			for range 3 {
				if err := l.vol.Sync(); !errors.Is(err, syscall.EIO) {
					t.Fatalf("sync after a failed one: %v", err)
				}
			}
			if _, err := l.vol.Create(layer.RootIno, "late", layer.NewFile{Mode: unix.S_IFREG}); !errors.Is(err, syscall.EIO) {
				t.Fatalf("create after a failed sync: %v", err)
			}
			if _, err := w.store.Fork(context.Background(), l.id, w.newID()); !errors.Is(err, syscall.EIO) {
				t.Fatalf("fork after a failed sync: %v", err)
			}
			if err := w.check(l); err != nil {
				t.Fatalf("reads go on: %v", err)
			}
			if then == "reopen" {
				if err := l.vol.Close(); !errors.Is(err, syscall.EIO) {
					t.Fatalf("close after a failed sync: %v", err)
				}
				// What was read back may be called durable from now on, though
				// the kernel holds it as clean: it must survive a crash.
				if err := w.survive(l); err != nil {
					t.Fatal(err)
				}
				if err := w.stepSync(l); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.crash(rnd, 0); err != nil {
				t.Fatal(err)
			}
			if err := w.checkAll(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func (w *world) stepWriteOrMake(l *line, rnd *rand.Rand) error {
	if rnd.Intn(3) == 0 {
		return w.stepNames(l, rnd.Intn)
	}
	return w.stepWrite(l, rnd.Intn)
}

// TestFullInSpiteOfReservation has a file system that takes its word back:
// who syncs hears of it, nothing is lost, and it works when space returns.
func TestFullInSpiteOfReservation(t *testing.T) {
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	w.opts.SegmentBytes = 16 << 20
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.openStore(); err != nil {
		t.Fatal(err)
	}
	l := w.lines[0]
	if err := w.open(l); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewSource(3))
	fullStep(t, w, l, rnd) // a file
	w.fs.noSpace = 1 << 30
	full := false
	for i := 0; i < 5000 && !full; i++ {
		if i%100 == 50 {
			if err := l.vol.Sync(); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("sync without space: %v", err)
			}
		}
		full = fullStep(t, w, l, rnd) == 1 && l.vol.log.waiting.Load() == maxSealed
	}
	if !full {
		t.Fatal("what waits in memory was never too much")
	}
	if err := w.check(l); err != nil {
		t.Fatal(err)
	}
	w.fs.noSpace = 0
	if err := w.stepSync(l); err != nil {
		t.Fatalf("sync with space again: %v", err)
	}
	if err := w.crash(rnd, 0); err != nil {
		t.Fatal(err)
	}
	if err := w.checkAll(); err != nil {
		t.Fatal(err)
	}
}
