package cache_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/internal/blob/cache"
	"github.com/tarndb/tarn/internal/blob/faulty"
	"github.com/tarndb/tarn/internal/blob/memory"
)

func TestFaultsOfTheStore(t *testing.T) {
	const size = 8 * step
	s := memory.New()
	put(t, s, "k", size)
	for _, fault := range []faulty.Fault{faulty.Fail, faulty.Torn} {
		f := faulty.New(s, faulty.At(0, fault))
		c := open(t, f, cache.Options{})
		// A read goes on where a fetch broke off after it had brought something.
		if err := check(t.Context(), c, "k", size, 0, size); errors.Is(err, faulty.ErrInjected) != (fault == faulty.Fail) {
			t.Errorf("fault %d: %v", fault, err)
		}
		must(t, check(t.Context(), c, "k", size, 0, size))
		if u := c.Usage(); u.Fetched != size {
			t.Errorf("fault %d: fetched %d bytes of %d", fault, u.Fetched, size)
		}
	}
	const readers = 6
	seed := rand.Uint64()
	f := faulty.New(s, faulty.Seeded(seed, 0.3, faulty.Fail, faulty.Torn, faulty.Short))
	c := open(t, f, cache.Options{Bytes: 3 * step})
	var wg sync.WaitGroup
	for r := range readers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(r)))
			for range 100 {
				off := rnd.Int64N(size)
				n := int(rnd.Int64N(min(2*step, size-off))) + 1
				if err := check(t.Context(), c, "k", size, off, n); err != nil && !errors.Is(err, faulty.ErrInjected) {
					t.Errorf("seed %d: %v", seed, err)
				}
			}
		})
	}
	wg.Wait()
}

// A disk without room serves, and keeps what it can once there is some.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: cannot mount a file system of a limited size")
	}
	d := t.TempDir()
	must(t, unix.Mount("tarn-cache", d, "tmpfs", 0, fmt.Sprintf("size=%d", 6*step)))
	t.Cleanup(func() {
		if err := unix.Unmount(d, 0); err != nil {
			t.Error(err)
		}
	})
	const size = 20*step + 5
	s := memory.New()
	put(t, s, "k", size)
	put(t, s, "l", size)
	c := open(t, s, cache.Options{Dir: d, Bytes: 100 * step, ReadAhead: -1})
	for range 2 {
		for _, key := range []string{"k", "l"} {
			must(t, check(t.Context(), c, key, size, 0, size))
		}
	}
	c.Rest()
	u := c.Usage()
	if u.Unkept == 0 || u.Bytes == 0 || u.Bytes > 6*step {
		t.Errorf("usage %+v", u)
	}
	must(t, c.Drop("k", "l"))
	must(t, check(t.Context(), c, "l", size, step, 3*step))
	must(t, c.Close()) // the last range is kept after its reader has it
	if v := c.Usage(); v.Bytes != 3*step {
		t.Errorf("after a drop %+v", v)
	}
	c = open(t, s, cache.Options{Dir: d})
	must(t, check(t.Context(), c, "l", size, 0, size))
	if v := c.Usage(); v.Unproven != 0 {
		t.Errorf("%d ranges of the full disk do not match", v.Unproven)
	}
}

// A directory that is gone is a disk without room.
func TestNoDirectory(t *testing.T) {
	s := memory.New()
	put(t, s, "k", 3*step)
	d := t.TempDir() + "/cache"
	c := open(t, s, cache.Options{Dir: d})
	must(t, os.RemoveAll(d))
	for range 3 {
		must(t, check(t.Context(), c, "k", 3*step, 0, 3*step))
		c.Rest()
	}
	if u := c.Usage(); u.Bytes != 0 || u.Objects != 0 || u.Unkept != 9 {
		t.Errorf("usage %+v", u)
	}
}
