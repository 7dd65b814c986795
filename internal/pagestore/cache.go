package pagestore

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tarndb/tarn/internal/layer"
)

// chunkBytes is what a chunk takes in memory.
const chunkBytes = 576

// tableCache bounds the page tables that are in memory and in a map too, in all
// indexes of a store together. When there are too many, it goes over all of
// them and drops those that nobody looked at since it came by.
type tableCache struct {
	limit  int64        // tables
	loaded atomic.Int64 // about so many there are

	// rebuild makes a damaged table anew.
	rebuild func(ix *index, m *segment, r layer.TableRef, ino layer.Ino, i uint32, refs *[chunkPages]uint64) error

	sweeping sync.Mutex // held by who sweeps
	buffers  sync.Pool  // of *layer.TableBuffer

	mu      sync.Mutex // guards indexes; not held across I/O
	indexes map[*index]struct{}
}

func newTableCache(bytes int64) *tableCache {
	c := &tableCache{limit: max(bytes/chunkBytes, 4), indexes: map[*index]struct{}{}}
	c.buffers.New = func() any { return new(layer.TableBuffer) }
	return c
}

func (c *tableCache) add(ix *index) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.indexes[ix] = struct{}{}
}

func (c *tableCache) remove(ix *index) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.indexes, ix)
}

// all gives the indexes there are.
func (c *tableCache) all() []*index {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*index, 0, len(c.indexes))
	for ix := range c.indexes {
		all = append(all, ix)
	}
	return all
}

// trim drops tables when there are too many. The caller holds no node.write.
func (c *tableCache) trim() {
	if c.loaded.Load() <= c.limit || !c.sweeping.TryLock() {
		return
	}
	defer c.sweeping.Unlock()
	left := int64(0)
	for _, also := range []spare{spareHot, spareNone} {
		left = 0
		for _, ix := range c.all() {
			for n := range ix.inodes.all() {
				if !n.write.TryLock() {
					continue
				}
				left += n.drop(also)
				n.write.Unlock()
			}
		}
		if left <= c.limit*3/4 {
			break
		}
	}
	c.loaded.Store(left)
}

// spare says which tables a sweep leaves.
type spare uint8

const (
	spareHot  spare = iota // those looked at since the last sweep
	spareNone              // every second one
)

// drop drops tables that a map has too, and gives the number of those left.
// The caller holds n.write.
func (n *node) drop(sp spare) (left int64) {
	t := n.pages.Load()
	if t == nil {
		return 0
	}
	for i := range t.slots {
		s := &t.slots[i]
		c := s.chunk.Load()
		if c == nil || s.where.Load()&dirtyBit != 0 {
			continue
		}
		if sp == spareHot && c.hot.Load() || sp == spareNone && i%2 == 0 {
			c.hot.Store(false)
			left++
			continue
		}
		s.chunk.Store(nil)
	}
	return left
}

// readTable reads a page table from its map.
func (ix *index) readTable(ino layer.Ino, i uint32, r layer.TableRef, refs *[chunkPages]uint64) error {
	maps := *ix.maps.Load()
	if r.Slot() >= len(maps) || maps[r.Slot()] == nil {
		return fmt.Errorf("page table %d of inode %d: %w", i, ino, errNoFile)
	}
	m := maps[r.Slot()]
	f, err := m.open()
	if err != nil {
		return fmt.Errorf("read page table %d of inode %d: %w", i, ino, err)
	}
	buf := ix.cache.buffers.Get().(*layer.TableBuffer)
	defer ix.cache.buffers.Put(buf)
	err = layer.ReadTable(f, m.path, r, ino, i, buf, refs)
	if err == nil {
		return nil
	}
	b := make([]byte, r.Bytes())
	err = reread(f, b, r.Offset(), err, func() error {
		return layer.ReadTable(rangeAt{b, r.Offset()}, m.path, r, ino, i, buf, refs)
	})
	if errors.Is(err, layer.ErrCorrupt) && ix.cache.rebuild != nil {
		if e := ix.cache.rebuild(ix, m, r, ino, i, refs); e != nil {
			return fmt.Errorf("%w; it cannot be rebuilt: %w", err, e)
		}
		return nil
	}
	return err
}
