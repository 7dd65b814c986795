package pagestore

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/layer"
)

const (
	// maxSealed bounds what waits in memory to be written out: 8 batches of
	// 512 KiB with the one that fills. Beyond it appends wait for the disk.
	maxSealed = 7
	// reserveBytes is how much space is allocated ahead of the log, so that a
	// full disk is found by the write that it concerns and not by a sync.
	reserveBytes = 8 << 20
	// writebackBytes is how much is written out before the kernel is told to
	// start writing it to disk, so that syncs find little left to do.
	writebackBytes = 1 << 20
)

// log appends to the end of a timeline.
//
// A record goes into a batch in memory, and reads see it there. A full batch
// is sealed and written out by whoever filled it; a sync seals the batch that
// is filling, writes out all of them and syncs the file:
//
//	filling ──▶ sealed ──▶ written ──▶ durable
//	        seal      drain        sync
//
// Every page that a batch accepts has its space allocated beforehand.
type log struct {
	files    fileSystem
	dir      string // of all timelines
	timeline tarn.TimelineID
	epoch    uint64
	limit    uint32     // blocks a segment may have
	pool     *sync.Pool // of *layer.Batch
	ix       *index     // told of new segments
	slog     *slog.Logger

	appended atomic.Uint64 // seq of the next record
	synced   atomic.Uint64 // every record before it is durable
	written  atomic.Uint64 // place in the last segment: every page before it is in its file
	waiting  atomic.Int32  // len(sealed)

	beside besides

	syncing sync.Mutex // one fdatasync at a time; who waits for it finds its work done
	writing sync.Mutex // one writer of batches, one maker of room

	mu   sync.Mutex // guards what follows; never held across I/O
	fill filling
	tail tail
	dead error // set once by an error after which nothing may be called durable
}

// filling is the memory part of a log.
type filling struct {
	active *layer.Batch   // takes records; nil when none has begun
	sealed []*layer.Batch // to be written, in order
}

// tail is where a log ends. Changed under both log.writing and log.mu but for
// next, which every seal moves.
type tail struct {
	last     *segment // nil before the first
	line     int      // its number in the index
	next     uint32   // block where the next batch begins
	reserved uint32   // blocks that have space on disk
	closed   bool     // no batch may begin in it any more
	durable  uint32   // blocks before this are on disk
	unflag   uint32   // blocks before this were handed to writeback
}

// pageWrite is one page to be appended.
type pageWrite struct {
	ino  layer.Ino
	page uint32
	used uint32
	crc  uint32
	time int64
	data []byte
}

// append adds a page, a record or both, atomically and in that order, and
// returns the page's place. Nothing has happened when it fails: ENOSPC when
// there is no space, EIO when the log is dead.
func (l *log) append(w *pageWrite, r *layer.Record) (pageRef, error) {
	bytes, pages, records := 0, 0, 0
	if w != nil {
		bytes, pages, records = layer.PageEntryBytes, 1, 1
	}
	if r != nil {
		bytes += r.EntryBytes()
		records++
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.fit(bytes, pages); err != nil {
		return 0, err
	}
	var ref pageRef
	if w != nil {
		block := l.fill.active.AddPage(w.ino, w.page, w.used, w.time, w.crc, w.data)
		ref = makeRef(makePlace(l.tail.line, block), w.crc)
	}
	if r != nil {
		l.fill.active.Add(r)
	}
	l.appended.Add(uint64(records))
	return ref, nil
}

// fit makes the active batch one that has room. The caller holds mu, which is
// released while it waits.
func (l *log) fit(bytes, pages int) error {
	for {
		if l.dead != nil {
			return l.dead
		}
		if a := l.fill.active; a != nil && a.Fits(bytes, pages) {
			return nil
		}
		l.seal()
		head := layer.HeadBlocks(bytes)
		need := uint32(head + pages*layer.PageBlocks)
		var err error
		switch {
		case !l.roomFor(need):
			l.mu.Unlock()
			err = l.makeRoom(need)
			l.mu.Lock()
		case len(l.fill.sealed) >= maxSealed:
			l.mu.Unlock()
			err = l.flush()
			l.mu.Lock()
		default:
			b := l.pool.Get().(*layer.Batch)
			err = b.Begin(l.timeline, layer.Place{Segment: l.tail.last.id.Number, Block: l.tail.next,
				FirstSeq: tarn.Seq(l.appended.Load()), Durable: l.tail.durable},
				head, int(l.tail.reserved-l.tail.next-uint32(head))/layer.PageBlocks)
			if err == nil {
				l.fill.active = b
			}
		}
		if err != nil {
			return err
		}
	}
}

// roomFor reports whether a batch of so many blocks may begin. The caller
// holds mu.
func (l *log) roomFor(blocks uint32) bool {
	return l.tail.last != nil && !l.tail.closed && l.tail.next+blocks <= l.tail.reserved
}

// seal ends the active batch. The caller holds mu.
func (l *log) seal() {
	if a := l.fill.active; a != nil {
		l.tail.next = a.Place().Block + a.Blocks()
		l.ix.behind.Add(int64(a.Blocks()) * layer.BlockSize)
		l.ix.dead.Add(layer.BlockSize) // its head, when a map is written
		l.fill.sealed = append(l.fill.sealed, a)
		l.fill.active = nil
		l.waiting.Store(int32(len(l.fill.sealed)))
	}
}

// endBatch ends the active batch and says where the next one will begin, if not
// in a new segment.
func (l *log) endBatch() position {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seal()
	if l.tail.last == nil {
		return position{}
	}
	return position{l.tail.last.id.Number, l.tail.next}
}

// besides writes full batches out beside those who append: half a megabyte, and
// telling the kernel to start on it, is nothing that one request should wait for.
type besides struct {
	once sync.Once // starts it
	kick chan struct{}
	quit chan struct{}
	work sync.WaitGroup
}

// writeBehind has full batches written out. It is called after an append, before
// the volume can be closed; errors wait for who needs the space or the sync.
func (l *log) writeBehind() {
	if l.waiting.Load() == 0 {
		return
	}
	l.beside.once.Do(func() { l.beside.work.Go(l.writeBeside) })
	select {
	case l.beside.kick <- struct{}{}:
	default: // it will look once more
	}
}

// writeBeside writes batches out until the log is released.
func (l *log) writeBeside() {
	for {
		select {
		case <-l.beside.kick:
			l.flush() //nolint:errcheck // the batch stays, and with it the error
		case <-l.beside.quit:
			return
		}
	}
}

func (l *log) flush() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.drain()
}

// drain writes the sealed batches out in order. The caller holds writing. A
// batch that does not find space stays; it is written again as a whole.
func (l *log) drain() error {
	for {
		l.mu.Lock()
		if l.dead != nil || len(l.fill.sealed) == 0 {
			defer l.mu.Unlock()
			return l.dead
		}
		b, t := l.fill.sealed[0], l.tail
		l.mu.Unlock()

		f, err := t.last.open()
		if err == nil {
			_, err = f.WriteAt(b.Seal(), int64(b.Place().Block)*layer.BlockSize)
		}
		if err != nil {
			err = fmt.Errorf("write %s at block %d: %w", t.last.path, b.Place().Block, err)
			if isFull(err) {
				return err
			}
			return l.die(err)
		}

		end := b.Place().Block + b.Blocks()
		l.mu.Lock()
		l.written.Store(uint64(makePlace(t.line, end)))
		l.fill.sealed = append(l.fill.sealed[:0], l.fill.sealed[1:]...)
		l.waiting.Store(int32(len(l.fill.sealed)))
		from := l.tail.unflag
		start := int64(end-from)*layer.BlockSize >= writebackBytes
		if start {
			l.tail.unflag = end
		}
		l.mu.Unlock()
		l.pool.Put(b)
		if start {
			if err := f.StartWriteback(int64(from)*layer.BlockSize, int64(end-from)*layer.BlockSize); err != nil {
				l.slog.Debug("start writeback", "timeline", l.timeline, "err", err) // a hint; the sync will tell
			}
		}
	}
}

// mayBuffer reports whether a page may still be in memory only: those of the
// last segment that were not written out. No other segment has such.
func (l *log) mayBuffer(p place) bool {
	w := place(l.written.Load())
	return p.segment() == w.segment() && p.block() >= w.block()
}

// buffered copies a page that is not in its file yet; false when it is.
func (l *log) buffered(p place, dst []byte) bool {
	if !l.mayBuffer(p) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.mayBuffer(p) {
		return false
	}
	// Batches in memory always belong to the last segment.
	if a := l.fill.active; a != nil {
		if d := a.Page(p.block()); d != nil {
			copy(dst, d)
			return true
		}
	}
	for _, b := range l.fill.sealed {
		if d := b.Page(p.block()); d != nil {
			copy(dst, d)
			return true
		}
	}
	return false
}

// sync makes every record appended before it durable. It costs nothing when
// there is none, and callers at the same time share one fdatasync.
func (l *log) sync() error {
	want := l.appended.Load()
	if l.synced.Load() >= want {
		return l.death()
	}
	l.syncing.Lock()
	defer l.syncing.Unlock()
	if l.synced.Load() >= want {
		return l.death()
	}
	l.writing.Lock()
	l.mu.Lock()
	l.seal()
	have, t := l.appended.Load(), l.tail
	l.mu.Unlock()
	err := l.drain()
	l.writing.Unlock()
	if err != nil {
		return err
	}
	return l.syncFile(t, have)
}

// syncFile syncs the segment that was last when t was taken. have is the seq
// up to which the records were written out then.
func (l *log) syncFile(t tail, have uint64) error {
	f, err := t.last.open()
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		// The kernel may have dropped what it could not write and would call
		// the next sync a success: nothing after this can be trusted.
		return l.die(fmt.Errorf("sync %s: %w", t.last.path, err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead != nil {
		return l.dead
	}
	if l.synced.Load() < have {
		l.synced.Store(have)
	}
	if l.tail.last == t.last {
		l.tail.durable = max(l.tail.durable, t.next)
	}
	return nil
}

// makeRoom lets a batch of so many blocks begin: in the last segment while it
// is not full, else in a new one.
func (l *log) makeRoom(need uint32) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	if l.dead != nil || l.roomFor(need) { // somebody made it while we waited
		defer l.mu.Unlock()
		return l.dead
	}
	t := l.tail
	if t.last != nil && !t.closed && t.next+need <= l.limit {
		l.mu.Unlock()
		return l.reserve(t, need)
	}
	l.seal()
	l.tail.closed = true
	l.mu.Unlock()
	return l.roll(need)
}

// cut ends the last segment where it is, so that it can be uploaded; the next
// record begins another. It says which segment that is, 0 without any, and how
// far it reaches.
//
//  1. write out what is in memory and sync    crash: as at any sync
//  2. cut off what was reserved               crash: zeros at its end, never read
func (l *log) cut() (number uint32, bytes int64, head tarn.Seq, err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	l.seal()
	l.tail.closed = true
	t, have := l.tail, l.appended.Load()
	l.mu.Unlock()
	if err := l.drain(); err != nil {
		return 0, 0, 0, err
	}
	if t.last == nil {
		return 0, 0, tarn.Seq(have), nil
	}
	if err := l.syncFile(t, have); err != nil {
		return 0, 0, 0, err
	}
	if t.reserved > t.next {
		f, err := t.last.open()
		if err == nil {
			err = f.Truncate(int64(t.next) * layer.BlockSize)
		}
		if err != nil {
			return 0, 0, 0, fmt.Errorf("cut %s: %w", t.last.path, err)
		}
		l.mu.Lock()
		if l.tail.last == t.last {
			l.tail.reserved = t.next
		}
		l.mu.Unlock()
	}
	return t.last.id.Number, int64(t.next) * layer.BlockSize, tarn.Seq(have), nil
}

// reserve allocates space in the last segment: as much as is good, or else as
// much as is needed.
func (l *log) reserve(t tail, need uint32) error {
	f, err := t.last.open()
	if err != nil {
		return fmt.Errorf("allocate log space: %w", err)
	}
	for _, step := range []uint32{reserveBytes / layer.BlockSize, layer.MaxBatchBytes / layer.BlockSize, need} {
		end := min(max(t.next+need, t.reserved+step), l.limit)
		err = f.Allocate(int64(t.reserved)*layer.BlockSize, int64(end-t.reserved)*layer.BlockSize)
		if err == nil {
			l.mu.Lock()
			l.tail.reserved = end
			l.mu.Unlock()
			return nil
		}
		if !isFull(err) {
			break
		}
	}
	return fmt.Errorf("allocate log space: %w", err)
}

// roll begins a new segment. The caller holds writing and has closed the last.
//
//  1. write out and sync the last segment   crash: it is the last, as before
//  2. cut off what it reserved              crash: zeros at its end, never read
//  3. create the next, header and name      crash: a segment without records,
//     synced                                or without a whole header: dropped
//  4. let batches begin in it
//
// So a segment that has a successor is whole. Every step may be tried again.
func (l *log) roll(need uint32) error {
	if err := l.drain(); err != nil {
		return err
	}
	l.mu.Lock()
	t, have := l.tail, l.appended.Load()
	l.mu.Unlock()
	number := uint32(1)
	if t.last != nil {
		number = t.last.id.Number + 1
		if err := l.syncFile(t, have); err != nil {
			return err
		}
		if f, err := t.last.open(); err == nil {
			if err := f.Truncate(int64(t.next) * layer.BlockSize); err != nil {
				l.slog.Warn("cut segment", "timeline", l.timeline, "err", err)
			}
		}
	}
	if segs := *l.ix.segs.Load(); len(segs) >= maxSegments && !slices.Contains(segs, nil) {
		return fmt.Errorf("begin segment %d: the line has %d files, the most there can be: %w", number, maxSegments, syscall.ENOSPC)
	}
	next := newSegment(l.files, l.dir, layer.FileID{Timeline: l.timeline, Kind: layer.FileLog, Number: number})
	header, err := layer.Header{Timeline: l.timeline, Segment: number, FirstSeq: tarn.Seq(have), Epoch: l.epoch}.Encode()
	if err == nil {
		err = next.create(header)
	}
	if err != nil {
		return fmt.Errorf("begin segment %d: %w", number, err)
	}
	line := l.ix.addSegment(next)
	next.retain()
	l.mu.Lock()
	l.tail = tail{last: next, line: line, next: 1, reserved: 1, durable: 1, unflag: 1}
	l.written.Store(uint64(makePlace(line, 1)))
	t = l.tail
	l.mu.Unlock()
	return l.reserve(t, need)
}

// die makes err the end of the log and gives what to report, which unwraps to
// EIO whatever the cause.
func (l *log) die(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead == nil {
		l.dead = fmt.Errorf("%w: %v", syscall.EIO, err)
		l.slog.Error("log dead until reopened", "timeline", l.timeline, "err", err)
	}
	return l.dead
}

func (l *log) death() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// end is where the log of a closed timeline ends: what a log needs to go on.
type end struct {
	seq   tarn.Seq
	last  *segment // nil when the timeline has no records of its own
	line  int      // last's number in the index
	block uint32   // after the last batch
}

// bytes is the length of the last segment without its reservation.
func (e end) bytes() int64 { return int64(e.block) * layer.BlockSize }

// finish gives back what was reserved and says where the log ends. Everything
// has been synced and nobody appends any more.
func (l *log) finish() (end, error) {
	l.mu.Lock()
	t := l.tail
	e := end{seq: tarn.Seq(l.appended.Load()), last: t.last, line: t.line, block: t.next}
	l.mu.Unlock()
	if t.last == nil {
		return end{seq: e.seq}, nil
	}
	f, err := t.last.open()
	if err == nil && t.reserved > t.next {
		err = f.Truncate(e.bytes())
	}
	if err != nil {
		return end{}, fmt.Errorf("end log: %w", err)
	}
	return e, nil
}

// release lets go of the last segment. Nobody appends any more.
func (l *log) release() {
	close(l.beside.quit)
	l.beside.work.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tail.last != nil {
		l.tail.last.release()
	}
}
