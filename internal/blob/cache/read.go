package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tarndb/tarn/internal/blob"
)

const maxAhead = 8 // fetches that only read ahead, at once

// fetching is one request to the store: neighbouring slots that are loading.
type fetching struct {
	e     *entry
	slots []*slot
	ahead bool // nobody waited for it when it began
}

// ReadAt reads at off of the object of size bytes under key, like io.ReaderAt.
// However many callers want a range, it is fetched once; that fetch goes on when
// the caller who began it is gone. An object shorter than size is an error.
func (c *Cache) ReadAt(ctx context.Context, key string, size int64, p []byte, off int64) (int, error) {
	if err := blob.CheckKey(key); err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	if off < 0 || size < 0 {
		return 0, fmt.Errorf("read %s at %d of %d bytes: negative", key, off, size)
	}
	want := int(min(int64(len(p)), max(size-off, 0)))
	n := 0
	held := map[int64]*load{}
	for n < want {
		m, err := c.readRange(ctx, key, size, p[n:want], off+int64(n), held)
		n += m
		if err != nil {
			return n, fmt.Errorf("read %s at %d: %w", key, off+int64(n), err)
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readRange reads what of p is in the range of off. It begins the fetches of all
// of p first, and holds them: where nothing can be kept, a range that came while
// its reader waited for the one before would have to be fetched again.
func (c *Cache) readRange(ctx context.Context, key string, size int64, p []byte, off int64, held map[int64]*load) (int, error) {
	if l := held[off]; l != nil {
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-l.ready:
		}
		if l.buf != nil {
			return copy(p, l.buf), nil
		}
	}
	for try := 1; ; try++ {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return 0, ErrClosed
		}
		e, replaced := c.entryOf(key, size)
		i, last := off/e.step, (off+int64(len(p))-1)/e.step
		own := c.begin(ctx, e, i, last)
		s := e.slots[i]
		for j := i + 1; j <= last && try == 1; j++ {
			if l := e.slots[j].load; l != nil {
				held[j*e.step] = l
			}
		}
		if s.state == unproven {
			own = true
			c.prove(ctx, s)
		}
		at := off - i*e.step
		p := p[:min(int64(len(p)), e.length(i)-at)]
		if s.state == kept {
			s.pins++
			c.recent.remove(s)
			c.recent.push(s)
			c.usage.Hits++
			c.mu.Unlock()
			n, err := c.readFile(e, p, off)
			c.unpin(s)
			if err != nil && try < 3 {
				c.Invalidate(key, off, 1) // the local disk is at fault: fetch it
				continue
			}
			return n, err
		}
		l := s.load
		if try == 1 {
			c.usage.Misses++
		}
		c.mu.Unlock()
		c.dir.discard(replaced)
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-l.ready:
		}
		switch {
		case l.buf != nil:
			return copy(p, l.buf[at:]), nil
		case l.err != nil && (own || try >= 3):
			return 0, l.err
		}
		// It was evicted, or somebody else's fetch failed: ours may do better.
	}
}

func (c *Cache) readFile(e *entry, p []byte, off int64) (int, error) {
	f, err := c.acquire(e)
	if err != nil {
		return 0, err
	}
	defer c.release(e)
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return n, nil
	}
	return 0, errors.Join(err, io.ErrUnexpectedEOF)
}

// entryOf gives key's entry and makes one when there is none; mu is held. What
// it replaces, because the size is another, must be discarded without mu.
func (c *Cache) entryOf(key string, size int64) (e *entry, replaced detached) {
	e = c.entries[key]
	if e != nil && e.size != size {
		replaced = c.detach(e)
		e = nil
	}
	if e == nil {
		c.serial++
		e = &entry{key: key, size: size, step: c.o.Range, name: fmt.Sprint(c.serial), slots: map[int64]*slot{}}
		c.entries[key] = e
	}
	return e, replaced
}

// begin starts the fetches of what is absent of ranges first to last, and of what
// a sequential reader will want next; mu is held. It says whether the first
// range was absent.
func (c *Cache) begin(ctx context.Context, e *entry, first, last int64) (own bool) {
	own = e.slots[first] == nil
	ahead := c.o.ReadAhead / e.step
	if c.full { // and would be fetched twice
		ahead = 0
	}
	from, until := e.advance(first, last, ahead)
	until = min(until, (e.size+e.step-1)/e.step)
	most := max(c.o.ReadAhead/e.step, 1) // ranges in one request
	var run []*slot
	flush := func() {
		if len(run) > 0 {
			f := &fetching{e: e, slots: run, ahead: run[0].index > last}
			c.run(ctx, f, func(ctx context.Context) { c.fetch(ctx, f) })
			run = nil
		}
	}
	want := func(i int64) {
		if e.slots[i] != nil {
			flush()
			return
		}
		s := &slot{e: e, index: i, load: newLoad()}
		e.slots[i] = s
		if run = append(run, s); int64(len(run)) >= most {
			flush()
		}
	}
	for i := first; i <= last; i++ {
		want(i)
	}
	if from != last+1 {
		flush()
	}
	for i := from; i < until && (len(run) > 0 || c.ahead < maxAhead); i++ {
		want(i)
	}
	flush()
	return own
}

// run does a fetch apart from its caller's end; mu is held.
func (c *Cache) run(ctx context.Context, f *fetching, do func(context.Context)) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	c.running[f] = cancel
	if f.ahead {
		c.ahead++
	}
	c.joined.Go(func() {
		do(ctx)
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.running, f)
		if f.ahead {
			c.ahead--
		}
		cancel(nil)
	})
}

// fetch asks the store once for all of f, and hands over each range as it comes.
func (c *Cache) fetch(ctx context.Context, f *fetching) {
	off, n := f.slots[0].index*f.e.step, int64(0)
	for _, s := range f.slots {
		n += f.e.length(s.index)
	}
	r, err := c.store.Get(ctx, f.e.key, off, n)
	if err == nil {
		defer r.Close()
	}
	for _, s := range f.slots {
		var buf []byte
		if err == nil {
			buf = make([]byte, f.e.length(s.index))
			_, err = io.ReadFull(r, buf)
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				err = fmt.Errorf("%s ends before its %d bytes: %w", f.e.key, f.e.size, io.ErrUnexpectedEOF)
			}
		}
		if err != nil {
			c.forget(s, err)
			continue
		}
		c.mu.Lock()
		c.usage.Fetched += int64(len(buf))
		s.load.buf = buf
		close(s.load.ready)
		c.mu.Unlock()
		c.keep(s, buf)
	}
}

// forget makes a loading slot absent and tells those who wait why.
func (c *Cache) forget(s *slot, err error) {
	c.mu.Lock()
	s.load.err = err
	close(s.load.ready)
	d := c.remove(s)
	c.mu.Unlock()
	c.dir.discard(d)
}

// keep puts a range on disk:
//
//  1. make room under the limit
//  2. write the bytes             (crash: bytes without a record, which are absent)
//  3. write the record            (crash: either may be lost; the record's checksum tells)
//
// Where that fails the range has been served, and that is all.
func (c *Cache) keep(s *slot, buf []byte) {
	e, n := s.e, int64(len(buf))
	err := errNoRoom
	room := c.reserve(n)
	if room {
		err = c.write(e, s.index, buf)
	}
	c.mu.Lock()
	var d detached
	switch {
	case err == nil && !e.gone:
		setState(s, kept)
		s.load = nil
		c.recent.push(s)
		c.full = false
	default:
		if room {
			c.usage.Bytes -= n
		}
		if !e.gone {
			c.full = true
			c.usage.Unkept++
			d = c.remove(s)
		}
	}
	c.mu.Unlock()
	c.dir.discard(d)
}

var errNoRoom = errors.New("nothing can be evicted")

func (c *Cache) write(e *entry, i int64, buf []byte) error {
	f, err := c.acquire(e)
	if err != nil {
		return err
	}
	defer c.release(e)
	if _, err = f.WriteAt(buf, i*e.step); err == nil {
		err = c.dir.writeRecord(e, i, record(checksum(buf), i))
	}
	if err != nil { // of a full disk: give back what was taken
		return errors.Join(err, punch(f, i*e.step, int64(len(buf))))
	}
	return nil
}

// prove compares a range of before a restart with its checksum, and fetches it
// when it is not what it was; mu is held.
func (c *Cache) prove(ctx context.Context, s *slot) {
	setState(s, proving)
	c.recent.remove(s)
	s.load = newLoad()
	f := &fetching{e: s.e, slots: []*slot{s}}
	c.run(ctx, f, func(ctx context.Context) {
		buf := make([]byte, s.e.length(s.index))
		_, err := c.readFile(s.e, buf, s.index*s.e.step)
		good := err == nil && checksum(buf) == s.sum
		c.mu.Lock()
		if good {
			s.load.buf = buf
			close(s.load.ready)
			setState(s, kept)
			s.load = nil
			if !s.e.gone {
				c.recent.push(s)
			}
			c.mu.Unlock()
			return
		}
		setState(s, loading)
		c.usage.Unproven++
		if !s.e.gone {
			c.usage.Bytes -= int64(len(buf))
		}
		c.mu.Unlock()
		c.fetch(ctx, f)
	})
}

// unpin ends the reading of a slot's file.
func (c *Cache) unpin(s *slot) {
	c.mu.Lock()
	s.pins--
	last := s.pins == 0 && s.state == leaving && !s.e.gone
	c.mu.Unlock()
	if last {
		c.vacate(s)
	}
}

// detached is what is left of an entry that has been taken out: for discard.
type detached struct {
	name string // of files to remove; "" for none
	file *os.File
}
