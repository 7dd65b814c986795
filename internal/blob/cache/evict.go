package cache

import (
	"errors"
	"fmt"
	"os"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
)

// reserve counts n bytes in, after it has evicted what was used least recently.
// False when readers hold all there is, or n is more than the limit.
func (c *Cache) reserve(n int64) bool {
	for {
		c.mu.Lock()
		if c.usage.Bytes+n <= c.o.Bytes {
			c.usage.Bytes += n
			c.mu.Unlock()
			return true
		}
		s := c.recent.head.prev
		for s != &c.recent.head && s.pins > 0 {
			s = s.prev
		}
		if n > c.o.Bytes || s == &c.recent.head {
			c.mu.Unlock()
			return false
		}
		c.leave(s)
		c.mu.Unlock()
		c.vacate(s)
	}
}

// leave begins the end of a slot: new readers wait; mu is held.
func (c *Cache) leave(s *slot) {
	setState(s, leaving)
	c.recent.remove(s)
	s.load = newLoad()
}

// vacate takes a leaving slot, which no reader holds, off the disk.
//
//  1. strike the record (crash: the bytes are there, absent)
//  2. give the blocks back
//
// The last range of an entry takes the files with it.
func (c *Cache) vacate(s *slot) {
	e := s.e
	c.mu.Lock()
	var d detached
	whole := len(e.slots) == 1 || e.linked
	if whole && !e.gone {
		d = c.detach(e)
	}
	c.mu.Unlock()
	if !whole && c.strike(s) != nil {
		// A file system without holes: only whole files give space back.
		c.mu.Lock()
		if whole = true; !e.gone {
			d = c.detach(e)
		}
		c.mu.Unlock()
	}
	c.dir.discard(d)
	c.mu.Lock()
	if !e.gone {
		c.usage.Bytes -= e.length(s.index)
		d = c.remove(s)
	}
	close(s.load.ready)
	c.mu.Unlock()
	if !whole {
		c.dir.discard(d)
	}
}

func (c *Cache) strike(s *slot) error {
	if err := c.dir.writeRecord(s.e, s.index, make([]byte, recordSize)); err != nil {
		return err
	}
	f, err := c.acquire(s.e)
	if err != nil {
		return err
	}
	defer c.release(s.e)
	return punch(f, s.index*s.e.step, s.e.length(s.index))
}

// remove makes a slot absent, and with the last one the entry; mu is held.
func (c *Cache) remove(s *slot) detached {
	if s.e.gone {
		return detached{}
	}
	delete(s.e.slots, s.index)
	if len(s.e.slots) > 0 {
		return detached{}
	}
	return c.detach(s.e)
}

// detach takes an entry out of the cache; mu is held. Readers of its file go on,
// fetches of it are served and not kept. What is returned must be discarded.
func (c *Cache) detach(e *entry) (d detached) {
	if c.entries[e.key] == e {
		delete(c.entries, e.key)
	}
	e.gone = true
	for i, s := range e.slots {
		if s.prev != nil {
			c.recent.remove(s)
		}
		if s.state != loading {
			c.usage.Bytes -= e.length(i)
		}
	}
	if e.made {
		d.name = e.name
	}
	if e.data != nil && e.users == 0 {
		d.file, e.data = e.data, nil
		c.open--
	}
	return d
}

// discard removes the files of what was detached.
func (in folder) discard(d detached) error {
	if d.file != nil {
		d.file.Close() // its bytes are of no more use
	}
	if d.name == "" {
		return nil
	}
	return in.removeFiles(d.name)
}

// Invalidate forgets ranges of key that a reader found wrong; the next read
// fetches them.
func (c *Cache) Invalidate(key string, off, n int64) {
	c.mu.Lock()
	e := c.entries[key]
	if e == nil || n <= 0 || off < 0 {
		c.mu.Unlock()
		return
	}
	var free []*slot
	var d detached
	if e.linked { // somebody else's file too: not to be written to
		d = c.detach(e)
	} else {
		for i := off / e.step; i <= (min(off+n, e.size)-1)/e.step; i++ {
			if s := e.slots[i]; s != nil && (s.state == kept || s.state == unproven) {
				c.leave(s)
				if s.pins == 0 { // else the last reader vacates it
					free = append(free, s)
				}
			}
		}
	}
	c.mu.Unlock()
	for _, s := range free {
		c.vacate(s)
	}
	c.dir.discard(d) // what cannot be removed fails its checksum after a restart, or is fetched beside
}

// Drop forgets objects: those that were deleted from the store, and those that
// nobody will read again.
func (c *Cache) Drop(keys ...string) error {
	c.mu.Lock()
	var all []detached
	for _, key := range keys {
		if e := c.entries[key]; e != nil {
			all = append(all, c.detach(e))
		}
	}
	c.mu.Unlock()
	var errs []error
	for _, d := range all {
		if err := c.dir.discard(d); err != nil {
			errs = append(errs, fmt.Errorf("drop from cache: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Adopt makes the file at path, which holds all of the object under key, the
// cached copy: a hard link, which no bytes are written to. The file must be
// durable and never change; it counts against the limit as a whole and is evicted
// as a whole. Path must be on the cache's file system.
//
//  1. make room, link the file (crash: a file without a map, removed by load)
//  2. write its map            (crash: adopted or not)
func (c *Cache) Adopt(key, path string) error {
	if err := c.adopt(key, path); err != nil {
		return fmt.Errorf("adopt %s as %s: %w", path, key, err)
	}
	return nil
}

func (c *Cache) adopt(key, path string) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	if len(key) > maxKey {
		return tarn.Invalid("the key is longer than %d bytes", maxKey)
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return tarn.Invalid("not a regular file")
	}
	if st.Size() == 0 {
		return nil // nothing of it is ever read
	}
	e := &entry{key: key, size: st.Size(), step: st.Size(), linked: true, made: true, slots: map[int64]*slot{}}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	c.serial++
	e.name = fmt.Sprint(c.serial)
	c.joined.Add(1) // Close waits
	c.mu.Unlock()
	defer c.joined.Done()
	if !c.reserve(e.size) {
		return fmt.Errorf("%d bytes: %w", e.size, errNoRoom)
	}
	if err = os.Link(path, c.dir.path(e.name, dataSuffix)); err == nil {
		err = os.WriteFile(c.dir.path(e.name, mapSuffix), e.header(), 0o600)
	}
	if err != nil {
		c.mu.Lock()
		c.usage.Bytes -= e.size
		c.mu.Unlock()
		return errors.Join(err, c.dir.removeFiles(e.name))
	}
	s := &slot{e: e, state: kept}
	e.slots[0] = s
	c.mu.Lock()
	var d detached
	if old := c.entries[key]; old != nil {
		d = c.detach(old)
	}
	c.entries[key] = e
	c.recent.push(s)
	c.mu.Unlock()
	return c.dir.discard(d)
}
