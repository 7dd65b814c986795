// Package cache keeps ranges of immutable objects of a blob store in a local
// directory of bounded size, and fetches what is missing. It knows ranges, what
// of them is on disk, and who waits for which; it knows nothing of what the bytes
// mean, and takes an object that changes under its key for one that does not.
//
// A range survives a restart together with a checksum, and is compared with it
// before it is used again: a crash of the machine may have lost either. So nothing
// is ever synced, and what is lost is fetched again. FORMAT.md draws the files.
package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
)

// Options say where the cache is and how much it may take. All but Dir may stay
// zero.
type Options struct {
	Dir       string // made when missing; one cache at a time
	Bytes     int64  // ranges on disk are at most so many bytes; default 16 GiB
	Range     int64  // what is fetched and evicted at once, aligned; default 1 MiB, a multiple of 4 KiB
	ReadAhead int64  // most bytes fetched ahead of a sequential reader; default 16 MiB, negative: none
}

const (
	defaultBytes     = 16 << 30
	defaultRange     = 1 << 20
	defaultReadAhead = 16 << 20
	block            = 4096 // of file systems; holes are punched in these
	maxRange         = 1 << 30
	openFiles        = 256 // kept open while idle
)

// Cache is open until Close. Its methods may be called from many goroutines.
type Cache struct {
	store  blob.Store
	o      Options
	dir    folder
	lock   *os.File           // held while open
	opens  singleflight.Group // of files, by their names
	joined sync.WaitGroup     // fetches

	mu      sync.Mutex // guards all below, every entry and every slot; held across no I/O
	entries map[string]*entry
	recent  list // slots on disk, most recently used first
	open    int  // entries with an open file
	serial  uint64
	closed  bool
	running map[*fetching]context.CancelCauseFunc
	ahead   int  // fetches that nobody waits for yet
	full    bool // the last range that came could not be kept
	usage   Usage
}

// Usage says what a cache holds and what came of its reads since it was opened.
type Usage struct {
	Bytes   int64 // of ranges on disk
	Limit   int64
	Objects int // of which there is at least one range, on disk or on its way

	Hits     int64 // reads of a range that was on disk
	Misses   int64 // reads of a range that had to be waited for
	Fetched  int64 // bytes from the store
	Unkept   int64 // ranges that were served and not kept: disk full, or nothing to evict
	Unproven int64 // ranges of before a restart that did not match their checksum
}

// ErrClosed ends reads of a closed cache.
var ErrClosed = errors.New("cache is closed")

// Open gives the cache of store in o.Dir with what an earlier one left there.
func Open(store blob.Store, o Options) (*Cache, error) {
	o.Bytes = cmp.Or(o.Bytes, defaultBytes)
	o.Range = cmp.Or(o.Range, defaultRange)
	o.ReadAhead = max(cmp.Or(o.ReadAhead, defaultReadAhead), 0)
	if o.Dir == "" || o.Bytes < 0 || o.Range < block || o.Range%block != 0 || o.Range > maxRange {
		return nil, tarn.Invalid("open cache %q of %d bytes in ranges of %d: a range is a multiple of %d", o.Dir, o.Bytes, o.Range, block)
	}
	// More ahead than fits would throw out what was just fetched.
	o.ReadAhead = min(o.ReadAhead, o.Bytes/8)
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("open cache %s: %w", o.Dir, err)
	}
	c := &Cache{
		store: store, o: o, dir: folder(o.Dir), lock: lock,
		entries: map[string]*entry{}, running: map[*fetching]context.CancelCauseFunc{},
	}
	c.recent.init()
	c.usage.Limit = o.Bytes
	if err := c.load(); err != nil {
		lock.Close()
		return nil, fmt.Errorf("open cache %s: %w", o.Dir, err)
	}
	c.reserve(0) // the limit may have been lowered
	return c, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, tarn.Conflict("another process has it open")
		}
		return nil, err
	}
	return f, nil
}

// Close ends fetches and waits for them. What is on disk stays.
func (c *Cache) Close() error {
	c.mu.Lock()
	again := c.closed
	c.closed = true
	for _, cancel := range c.running {
		cancel(ErrClosed)
	}
	c.mu.Unlock()
	c.joined.Wait()
	if again {
		return nil
	}
	c.mu.Lock()
	var files []*os.File
	for _, e := range c.entries {
		if e.data != nil && e.users == 0 {
			files = append(files, e.data)
			e.data = nil
			c.open--
		}
		e.gone = true // a reader that still has the file closes it
	}
	order := c.recent.order()
	c.mu.Unlock()
	for _, f := range files {
		f.Close() // was written through WriteAt, whose errors are known
	}
	c.dir.remember(order)
	return c.lock.Close()
}

// Usage says what there is now.
func (c *Cache) Usage() Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.usage
	u.Objects = len(c.entries)
	return u
}
