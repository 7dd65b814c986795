package gateway

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	bulkSize  = 32 << 10 // of a borrowed buffer: two TLS records
	smallSize = 1 << 10  // what a waiting client costs; most queries fit
)

// newBuffers lends out the buffers data flows through.
func newBuffers() *sync.Pool {
	return &sync.Pool{New: func() any { return new([bulkSize]byte) }}
}

// terminate is the message with which clients take leave.
var terminate = []byte{'X', 0, 0, 0, 4}

// run moves bytes until one side is gone. Two goroutines: this one carries
// what the backend says, the other what the client says.
func (x *session) run(first []byte) {
	first = x.greeting(first)
	x.frames.feed(first)
	if _, err := x.client.tls.Write(first); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		x.fromClient()
	}()
	x.fromBackend()
	<-done
}

// fromClient carries queries. When the client has nothing more to say the
// backend's input ends, and Postgres ends the session; when the backend is
// gone, what the client still sends is read and dropped, so that it sees our
// last words and not a reset.
func (x *session) fromClient() {
	defer x.backend.conn.CloseWrite()
	small := make([]byte, smallSize)
	for drop := false; ; {
		n, err := x.client.tls.Read(small)
		for {
			if n > 0 && !drop {
				drop = !x.ask(small[:n])
			}
			if n < len(small) || err != nil {
				break
			}
			// More than fits is under way: borrow room for as long as it
			// flows.
			n, err = x.bulk(&drop)
		}
		if err != nil {
			return
		}
	}
}

// bulk reads through a borrowed buffer until a read no longer fills a small
// one. TLS cannot say whether the next read would block, so a client that
// pauses in the middle of much data keeps its buffer meanwhile.
func (x *session) bulk(drop *bool) (int, error) {
	buffers := x.client.s.buffers
	buf := buffers.Get().(*[bulkSize]byte)
	defer buffers.Put(buf)
	for {
		n, err := x.client.tls.Read(buf[:])
		if n > 0 && !*drop {
			*drop = !x.ask(buf[:n])
		}
		if n < smallSize || err != nil {
			return 0, err // all that was read is passed on
		}
	}
}

// ask passes bytes to the backend; false when it is gone.
func (x *session) ask(p []byte) bool {
	x.asked.Store(true)
	x.in.Add(uint64(len(p)))
	x.left.Store(bytes.HasSuffix(p, terminate))
	x.touch(p)
	_, err := x.backend.conn.Write(p)
	return err == nil
}

// fromBackend carries results. It is the only one that writes to the client,
// so it also says the last words.
func (x *session) fromBackend() {
	defer x.close()
	raw, err := x.backend.conn.SyscallConn()
	if err != nil {
		return
	}
	buffers := x.client.s.buffers
	var buf *[bulkSize]byte
	var n int
	var readErr error
	read := func(fd uintptr) bool {
		// Called again when there may be something to read: a buffer is held
		// only while there is.
		buf = buffers.Get().(*[bulkSize]byte)
		for {
			if n, readErr = syscall.Read(int(fd), buf[:]); readErr != syscall.EINTR {
				break
			}
		}
		if readErr == syscall.EAGAIN {
			buffers.Put(buf)
			buf = nil
			return false
		}
		return true
	}
	for {
		n, readErr = 0, nil
		if err = raw.Read(read); err == nil {
			err = readErr
		}
		if err == nil && n <= 0 {
			err = io.EOF
		}
		if err == nil {
			err = x.tell(buf[:n])
		}
		if buf != nil {
			buffers.Put(buf)
			buf = nil
		}
		switch {
		case err == nil && !x.ending.Load():
		case err == nil || errors.Is(err, os.ErrDeadlineExceeded):
			if x.idle() || !time.Now().Before(*x.until.Load()) {
				x.farewell("terminating connection because the gateway is shutting down")
				return
			}
			if x.backend.conn.SetReadDeadline(*x.until.Load()) != nil {
				return
			}
		default:
			x.farewell("terminating connection because the endpoint's compute went away")
			return
		}
	}
}

// tell passes bytes to the client.
func (x *session) tell(p []byte) error {
	x.frames.feed(p)
	x.out.Add(uint64(len(p)))
	if x.frames.ready() {
		x.asked.Store(false)
		x.done.Store(x.frames.done)
	}
	_, err := x.client.tls.Write(p)
	return err
}

func (x *session) idle() bool { return x.frames.ready() && !x.asked.Load() }

// farewell tells the client why it ends, where a message can stand, and unless
// Postgres did or the client itself wanted to go.
func (x *session) farewell(why string) {
	if !x.frames.between() || x.frames.told() || x.left.Load() {
		return
	}
	f := &fatal{code: codeShutdown, msg: why, hint: "Connect again; a suspended endpoint wakes."}
	if x.client.raw.SetWriteDeadline(time.Now().Add(lingering)) != nil {
		return
	}
	send(x.client.tls, f.response()) // the client may be gone, which is as well
}

// close ends both connections. The client's reading half stays open for a
// moment; fromClient reads it.
func (x *session) close() {
	c := x.client
	now, pause := time.Now(), lingering
	if x.ending.Load() { // the client was idle, or had its time
		pause /= 10
	}
	// The deadlines are set whatever went wrong before, so that fromClient
	// comes to an end.
	c.raw.SetWriteDeadline(now.Add(pause))
	c.tls.CloseWrite()
	c.raw.CloseWrite()
	c.raw.SetReadDeadline(now.Add(pause))
	x.backend.conn.Close()
}

// end asks the session to finish: fromBackend, or the guest, wakes up and sees.
func (x *session) end(until time.Time) {
	x.until.Store(&until)
	x.ending.Store(true)
	x.client.raw.SetWriteDeadline(until)
	if x.guest != nil {
		x.guest.end()
		return
	}
	x.backend.conn.SetReadDeadline(time.Unix(1, 0))
}
