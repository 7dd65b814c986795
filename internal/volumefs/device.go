package volumefs

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// How many goroutines read the device. A request is best answered by whoever
// read it: each handing over costs a wake-up. Two keep two processors busy;
// more than four only sleep in turn.
const (
	minReaders = 2
	maxReaders = 4
)

// device is the transport every kernel has: read(2) and write(2) on /dev/fuse.
//
//	read ──▶ answer ──▶ write ─┐      a fixed number of readers, each with its
//	  ▲────────────────────────┘      own buffers
//
// A request that may wait is answered by its reader too, unless every other
// reader has one already: then a goroutine takes it over. So one reader is
// always free for what memory can answer, however many wait for a disk.
type device struct {
	c       *connection
	readers int32
	waiting atomic.Int32 // readers that have a request that may wait
	spare   sync.Pool    // of *buffers, for requests taken over
	stopped atomic.Bool
	left    atomic.Int32 // readers that were stopped: the mount may go on
	work    sync.WaitGroup

	failOnce sync.Once
	fail     error // why reading ended, other than the mount's end
}

func newDevice(c *connection) *device {
	d := &device{c: c, readers: int32(min(max(runtime.GOMAXPROCS(0), minReaders), maxReaders))}
	d.spare.New = func() any { return c.buffers() }
	return d
}

func (d *device) serve() error {
	for range d.readers {
		d.work.Go(d.read)
	}
	d.work.Wait()
	if d.fail == nil && d.left.Load() > 0 {
		return errStopped
	}
	return d.fail
}

// stop makes every reader leave after the request it has, or is waiting for.
func (d *device) stop(dir string) error {
	poke, done, err := d.c.pokes(dir)
	if err != nil {
		return err
	}
	d.stopped.Store(true)
	var errs []error
	for range d.readers {
		errs = append(errs, poke())
	}
	return errors.Join(append(errs, done())...)
}

func (d *device) read() {
	b := d.c.buffers()
	for !d.stopped.Load() {
		n, err := readDevice(d.c.fd, b.in)
		if err != nil {
			if !errors.Is(err, unix.ENODEV) { // ENODEV: unmounted
				d.failOnce.Do(func() { d.fail = err })
			}
			return
		}
		if opcode(b.in) == opNotifyReply {
			continue
		}
		if !mayWait(opcode(b.in)) {
			d.serveOne(b, n)
			continue
		}
		if d.waiting.Add(1) < d.readers {
			d.serveOne(b, n)
		} else {
			other := d.spare.Get().(*buffers)
			copy(other.in, b.in[:n]) // a hundred bytes
			d.work.Go(func() {
				d.serveOne(other, n)
				d.spare.Put(other)
			})
		}
		d.waiting.Add(-1)
	}
	d.left.Add(1)
}

func (d *device) serveOne(b *buffers, n int) {
	if n = d.c.answer(b.request(n), b.answer()); n == 0 {
		return
	}
	_, err := unix.Write(d.c.fd, b.out[:n])
	switch {
	case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV): // nobody waits for it any more
	default:
		d.c.log.Error("answer refused by the kernel", "err", err)
	}
}
