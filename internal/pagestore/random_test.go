package pagestore

import (
	"math/rand"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/tarndb/tarn/internal/layer"
)

// TestAgainstModel does random things and compares with a model that copies
// everything, through crashes, power cuts and reopening.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w, err := newWorld()
		if err != nil {
			rt.Fatal(err)
		}
		choose := func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "pick") }
		must := func(err error) {
			if err != nil {
				rt.Fatal(err)
			}
		}
		step := func(*rapid.T) {
			must(w.step(choose))
			if w.fs.dark {
				must(w.crash(rand.New(rand.NewSource(int64(choose(1<<30)))), float64(choose(11))/10))
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"step1": step, "step2": step, "step3": step, "step4": step, "step5": step, "step6": step,
			"power cut soon": func(*rapid.T) { w.fs.cutAt = w.fs.ops + 1 + choose(12) },
			"crash": func(*rapid.T) {
				must(w.crash(rand.New(rand.NewSource(int64(choose(1<<30)))), float64(choose(11))/10))
			},
			"reopen": func(*rapid.T) {
				w.fs.cutAt = 0
				for _, l := range w.lines {
					if l.vol != nil {
						l.synced = l.vol.Head()
						l.vol, l.now = nil, l.now.named()
					}
				}
				must(w.store.Close())
				must(w.openStore())
				must(w.checkAll())
			},
		})
		if w.fs.dark {
			return
		}
		w.fs.cutAt = 0
		must(w.checkAll())
		must(w.store.Close())
	})
}

// TestPowerCutAtEveryChange runs the same operations again and again, with the
// power cut one change of the file system later each time, and checks the
// whole store each time.
func TestPowerCutAtEveryChange(t *testing.T) {
	seeds := 2
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		cut := 0
		for n := 1; ; n++ {
			w, err := newWorld()
			if err != nil {
				t.Fatal(err)
			}
			rnd := rand.New(rand.NewSource(int64(seed)))
			w.fs.cutAt = w.fs.ops + n
			for i := 0; i < 150 && !w.fs.dark; i++ {
				if err := w.step(rnd.Intn); err != nil {
					t.Fatalf("seed %d, cut at %d, step %d: %v", seed, n, i, err)
				}
			}
			if !w.fs.dark {
				break
			}
			cut++
			keep := []float64{0, 1, 0.5, 0.9, 0.1}[n%5]
			if err := w.crash(rand.New(rand.NewSource(int64(n))), keep); err != nil {
				t.Fatalf("seed %d, cut at %d: %v", seed, n, err)
			}
			for i := range 20 { // it goes on
				if err := w.step(rnd.Intn); err != nil {
					t.Fatalf("seed %d, cut at %d, step %d after it: %v", seed, n, i, err)
				}
			}
			if err := w.checkAll(); err != nil {
				t.Fatalf("seed %d, cut at %d: %v", seed, n, err)
			}
			if err := w.store.Close(); err != nil {
				t.Fatalf("seed %d, cut at %d: %v", seed, n, err)
			}
		}
		if cut < 20 {
			t.Fatalf("seed %d: only %d power cuts", seed, cut)
		}
		t.Logf("seed %d: %d power cuts", seed, cut)
	}
}

// TestLostBatchStaysLost has a disk that wrote the second of two unsynced
// batches and not the first. When the first is written anew in the same shape,
// the second must not come back behind it.
func TestLostBatchStaysLost(t *testing.T) {
	w, err := newWorld()
	if err != nil {
		t.Fatal(err)
	}
	l := w.lines[0]
	create := func(name string) {
		t.Helper()
		if _, err := l.vol.Create(layer.RootIno, name, layer.NewFile{Mode: unix.S_IFREG | 0o600}); err != nil {
			t.Fatal(err)
		}
		l.vol.log.mu.Lock()
		l.vol.log.seal()
		l.vol.log.mu.Unlock()
		if err := l.vol.log.flush(); err != nil {
			t.Fatal(err)
		}
	}
	create("base")
	if err := l.vol.Sync(); err != nil {
		t.Fatal(err)
	}
	create("lost")
	create("stale")
	f, err := w.fs.walk("store/timelines/" + string(l.id) + "/" + fileName(layer.FileLog, 1))
	if err != nil {
		t.Fatal(err)
	}
	n := len(f.pending)
	f.pending = f.pending[n-1:]
	w.fs.crash(rand.New(rand.NewSource(1)), 2) // all that is left of it
	for _, want := range []string{"base", "base,anew"} {
		if err := w.openStore(); err != nil {
			t.Fatal(err)
		}
		if err := w.open(l); err != nil {
			t.Fatal(err)
		}
		v, err := viewOf(l.vol)
		if err != nil || !strings.HasSuffix(v[""], "names="+want) {
			t.Fatalf("names are not %s: %v, %v", want, v, err)
		}
		if want == "base" {
			create("anew")
			if err := l.vol.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		w.fs.crash(rand.New(rand.NewSource(1)), 0)
	}
}
