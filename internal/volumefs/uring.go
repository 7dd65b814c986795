package volumefs

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is used of the kernel's io_uring interface (linux/io_uring.h).
const (
	ringSetupCoopTaskrun  = 1 << 8  // no interrupt of our thread for each request
	ringSetupSQE128       = 1 << 10 // FUSE's commands need the long form
	ringSetupSingleIssuer = 1 << 12
	ringSetupDeferTaskrun = 1 << 13 // the kernel's part of a request is done when we ask for it

	ringEnterGetEvents = 1 << 0

	ringOffSQ   = 0
	ringOffSQEs = 0x10000000

	ringOpRead = 22
	ringOpCmd  = 46 // IORING_OP_URING_CMD

	submissionBytes = 128
	completionBytes = 16
)

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sq                                                                     struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

// submission is struct io_uring_sqe in its long form, as commands use it.
type submission struct {
	opcode uint8
	_      [3]byte
	fd     int32
	off    uint64 // the command's number, for a command
	addr   uint64
	length uint32
	_      uint32
	user   uint64 // comes back with the completion
	_      [8]byte
	cmd    [80]byte // what the driver reads
}

// completion is struct io_uring_cqe.
type completion struct {
	user   uint64
	result int32
	_      uint32
}

// ring is one io_uring. It belongs to one thread, the one that opens it: no
// other may use it.
type ring struct {
	fd          int
	rings, sqes []byte // shared with the kernel

	sqTail, cqHead, cqTail *atomic.Uint32
	sqMask, cqMask         uint32
	array                  []uint32
	submissions            []submission
	completions            []completion

	pending uint32 // submissions that the kernel has not been told of
}

// openRing makes a ring with room for so many submissions, a power of two.
func openRing(entries uint32) (*ring, error) {
	p := ringParams{flags: ringSetupSQE128 | ringSetupSingleIssuer | ringSetupDeferTaskrun | ringSetupCoopTaskrun}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring: %w", errno)
	}
	r := &ring{fd: int(fd)}
	unix.CloseOnExec(r.fd)
	bytes := max(p.sq.array+p.sqEntries*4, p.cq.cqes+p.cqEntries*completionBytes)
	var err error
	if r.rings, err = mapRing(r.fd, ringOffSQ, bytes); err == nil {
		r.sqes, err = mapRing(r.fd, ringOffSQEs, p.sqEntries*submissionBytes)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("io_uring: map: %w", err), r.close())
	}
	at := func(offset uint32) unsafe.Pointer { return unsafe.Pointer(&r.rings[offset]) }
	r.sqTail = (*atomic.Uint32)(at(p.sq.tail))
	r.cqHead, r.cqTail = (*atomic.Uint32)(at(p.cq.head)), (*atomic.Uint32)(at(p.cq.tail))
	r.sqMask, r.cqMask = *(*uint32)(at(p.sq.mask)), *(*uint32)(at(p.cq.mask))
	r.array = unsafe.Slice((*uint32)(at(p.sq.array)), p.sqEntries)
	r.submissions = unsafe.Slice((*submission)(unsafe.Pointer(&r.sqes[0])), p.sqEntries)
	r.completions = unsafe.Slice((*completion)(at(p.cq.cqes)), p.cqEntries)
	return r, nil
}

func mapRing(fd int, off int64, n uint32) ([]byte, error) {
	return unix.Mmap(fd, off, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
}

// next gives a cleared submission to fill; the next enter passes it on. There
// are never more between two enters than the ring has room for.
func (r *ring) next() *submission {
	i := (r.sqTail.Load() + r.pending) & r.sqMask
	r.array[i] = i
	r.pending++
	s := &r.submissions[i]
	*s = submission{}
	return s
}

// enter passes on what next gave out and waits for so many completions.
func (r *ring) enter(wait uint32) error {
	r.sqTail.Add(r.pending)
	for {
		n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(r.pending), uintptr(wait), ringEnterGetEvents, 0, 0)
		switch {
		case errno == 0:
			r.pending -= min(r.pending, uint32(n))
		case errno != unix.EINTR && errno != unix.EAGAIN && errno != unix.EBUSY:
			return os.NewSyscallError("io_uring_enter", errno)
		}
		if r.pending == 0 && (errno == 0 || wait == 0 || r.cqTail.Load() != r.cqHead.Load()) {
			return nil
		}
	}
}

// peek gives the oldest completion, if there is one.
func (r *ring) peek() (completion, bool) {
	head := r.cqHead.Load()
	if head == r.cqTail.Load() {
		return completion{}, false
	}
	return r.completions[head&r.cqMask], true
}

// reap takes the oldest completion, if there is one.
func (r *ring) reap() (completion, bool) {
	c, ok := r.peek()
	if ok {
		r.cqHead.Add(1)
	}
	return c, ok
}

func (r *ring) close() error {
	var err error
	for _, m := range [][]byte{r.rings, r.sqes} {
		if m != nil {
			err = errors.Join(err, unix.Munmap(m))
		}
	}
	return errors.Join(err, unix.Close(r.fd))
}

// pin keeps the calling thread on one processor, where it may run there.
func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	err := unix.SchedSetaffinity(0, &set)
	if errors.Is(err, syscall.EINVAL) { // not ours, or switched off
		return nil
	}
	return err
}
