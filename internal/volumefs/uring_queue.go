package volumefs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is used of FUSE over io_uring (linux/fuse.h).
const (
	cmdRegister       = 1
	cmdCommitAndFetch = 2
)

// ringHeaders is struct fuse_uring_req_header: everything of a request or an
// answer but its data.
//
//	header 128 │ arguments 128 │ flags u64 │ commit id u64 │ data length u32 │ 0 u32 │ 0 u64
type ringHeaders struct {
	header    [128]byte // the request's, replaced by the answer's
	arguments [128]byte
	_         uint64
	commit    uint64
	length    uint32
	_         uint32
	_         uint64
}

// queueDepth is how many requests of one processor can be with us at once. With
// so many reads waiting for a disk all else that the processor asks for waits
// too. The kernel uses the slot it used last: unused ones are address space
// only.
const queueDepth = 64

// slot is a place for one request of a queue.
//
//	          REGISTER                 completion
//	unused ─────────────▶ with kernel ────────────▶ answering ──┐
//	                          ▲      COMMIT_AND_FETCH           │
//	                          └─────────────────────────────────┘
//
// It is gone when the kernel completes it with an error.
type slot struct {
	headers *ringHeaders
	payload []byte
	iov     *[2]unix.Iovec // where the kernel puts the two; in memory that does not move

	inV  [3][]byte // spare slices for each request
	outV [2][]byte
}

// queue serves the requests that are made on one processor, on that processor.
type queue struct {
	c      *connection
	cpu    int
	memory []byte // what slots stand in
	slots  [queueDepth]slot
	wake   int // eventfd: tells the queue's thread that done is not empty
	woken  *[8]byte
	others sync.WaitGroup // requests answered by other goroutines
	stop   atomic.Bool    // serve ends at its next wake-up, whatever it has

	mu   sync.Mutex // guards done; nothing is called under it
	done []int      // slots whose requests other goroutines have answered
}

// wakeUser marks the completion of a read of wake.
const wakeUser = 1 << 32

func newQueue(c *connection, cpu int) (*queue, error) {
	const perSlot = unix.SizeofPtr*4 + int(unsafe.Sizeof(ringHeaders{}))
	const head = (perSlot*queueDepth + 8 + pageBytes - 1) / pageBytes * pageBytes
	memory, err := unix.Mmap(-1, 0, head+queueDepth*maxRequest, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("buffers: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(memory))
	}
	q := &queue{c: c, cpu: cpu, memory: memory, wake: wake, woken: (*[8]byte)(memory)}
	for i := range q.slots {
		s := &q.slots[i]
		at := 8 + i*perSlot
		s.headers = (*ringHeaders)(unsafe.Pointer(&memory[at]))
		s.iov = (*[2]unix.Iovec)(unsafe.Pointer(&memory[at+int(unsafe.Sizeof(ringHeaders{}))]))
		s.payload = memory[head+i*maxRequest:][:maxRequest:maxRequest]
		s.iov[0].Base = (*byte)(unsafe.Pointer(s.headers))
		s.iov[0].SetLen(int(unsafe.Sizeof(ringHeaders{})))
		s.iov[1].Base = &s.payload[0]
		s.iov[1].SetLen(maxRequest)
	}
	return q, nil
}

// run answers requests on the calling goroutine's thread until the kernel
// sends no more. It says once that it is ready, or why not, and once more when
// it has begun, which it does when start brings something; when start is
// closed it returns.
//
// The thread answers what memory can answer. What may wait goes to another
// goroutine: a thread that blocked would stall everything that its processor
// asks for.
func (q *queue) run(start <-chan struct{}, said chan<- error) error {
	// Not unlocked: a thread bound to one processor is of no use to others and
	// ends with this goroutine.
	runtime.LockOSThread()
	err := pin(q.cpu)
	var r *ring
	if err == nil {
		r, err = openRing(2 * queueDepth)
	}
	said <- err
	if err != nil {
		return nil // who waits for it knows
	}
	defer r.close()
	if _, ok := <-start; !ok {
		return nil
	}
	for i := range q.slots {
		q.submit(r, i, cmdRegister)
	}
	q.listen(r)
	// What the kernel refuses it completes at once, before enter returns.
	if err = r.enter(0); err == nil {
		if e, ok := r.peek(); ok && e.result < 0 {
			err = fmt.Errorf("register processor %d: %w", q.cpu, unix.Errno(-e.result))
		}
	}
	said <- err
	if err != nil {
		return nil
	}
	return q.serve(r)
}

func (q *queue) serve(r *ring) (err error) {
	alive := queueDepth
	for alive > 0 && !q.stop.Load() {
		if err := r.enter(1); err != nil {
			return err
		}
		for e, ok := r.reap(); ok; e, ok = r.reap() {
			switch {
			case e.user == wakeUser:
				q.commitDone(r)
				q.listen(r)
			case e.result < 0:
				alive--
				if errno := unix.Errno(-e.result); !ended(errno) {
					err = fmt.Errorf("processor %d: %w", q.cpu, errno)
				}
			default:
				q.take(r, int(e.user))
			}
		}
	}
	return err
}

// ended tells whether a command failed because the mount is over.
func ended(errno unix.Errno) bool {
	return errno == unix.ENOTCONN || errno == unix.ECONNABORTED || errno == unix.ECANCELED || errno == unix.ENODEV
}

// close gives everything back, after serve has returned.
func (q *queue) close() error {
	q.others.Wait()
	return errors.Join(unix.Close(q.wake), unix.Munmap(q.memory))
}

// submit prepares a command for a slot.
func (q *queue) submit(r *ring, i int, command uint64) {
	s, slot := r.next(), &q.slots[i]
	s.opcode, s.fd, s.off, s.user = ringOpCmd, int32(q.c.fd), command, uint64(i)
	if command == cmdRegister {
		s.addr, s.length = uint64(uintptr(unsafe.Pointer(slot.iov))), 2
	}
	// flags u64 │ commit id u64 │ queue u16 │ 0
	binary.NativeEndian.PutUint64(s.cmd[8:], slot.headers.commit)
	binary.NativeEndian.PutUint16(s.cmd[16:], uint16(q.cpu))
}

// listen asks for the next wake-up.
func (q *queue) listen(r *ring) {
	s := r.next()
	s.opcode, s.fd, s.user = ringOpRead, int32(q.wake), wakeUser
	s.addr, s.length = uint64(uintptr(unsafe.Pointer(q.woken))), 8
}

// take answers the request in a slot, or has it answered.
func (q *queue) take(r *ring, i int) {
	if !mayWait(opcode(q.slots[i].headers.header[:])) {
		q.answer(i)
		q.submit(r, i, cmdCommitAndFetch)
		return
	}
	q.others.Go(func() {
		q.answer(i)
		q.mu.Lock()
		q.done = append(q.done, i)
		first := len(q.done) == 1
		q.mu.Unlock()
		if first {
			q.rouse()
		}
	})
}

// rouse wakes the queue's thread.
func (q *queue) rouse() {
	one := [8]byte{}
	binary.NativeEndian.PutUint64(one[:], 1)
	if _, err := unix.Write(q.wake, one[:]); err != nil {
		q.c.log.Error("wake a queue", "err", err)
	}
}

// commitDone sends what other goroutines have answered.
func (q *queue) commitDone(r *ring) {
	q.mu.Lock()
	done := q.done
	q.done = nil
	q.mu.Unlock()
	for _, i := range done {
		q.submit(r, i, cmdCommitAndFetch)
	}
}

// answer replaces the request in a slot by its answer.
func (q *queue) answer(i int) {
	s := &q.slots[i]
	h := s.headers
	total := int(binary.NativeEndian.Uint32(h.header[0:]))
	arguments := total - requestHeader - int(h.length)
	var unique [8]byte
	copy(unique[:], h.header[8:])
	s.inV = [3][]byte{h.header[:requestHeader], h.arguments[:arguments], s.payload[:h.length]}
	var head [answerHeader]byte
	s.outV = [2][]byte{head[:], s.payload}
	n := q.c.answer(s.inV[:], s.outV[:])
	copy(h.header[:answerHeader], head[:])
	h.length = uint32(max(n-answerHeader, 0))
}
