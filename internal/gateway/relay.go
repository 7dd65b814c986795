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
	x.follow(first)
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
	defer x.hangUp()
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
		if err != nil && (!errors.Is(err, os.ErrDeadlineExceeded) || drop || !x.woken()) {
			return
		}
	}
}

// hangUp says that the client has nothing more to say.
func (x *session) hangUp() {
	x.carry.mute.Store(true)
	if b := x.attached(); b != nil {
		b.conn.CloseWrite()
	}
	x.carry.tell(news{end: true})
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
	c := x.carry
	if h := c.hold.Load(); h != nil { // its compute is about to stop: this statement is the next one's
		if q := x.inquire(); q != nil {
			h.keep(x, q)
		}
	}
	c.mid.Store(true)
	x.in.Add(uint64(len(p)))
	x.left.Store(bytes.HasSuffix(p, terminate))
	if c.over.Load() {
		return false
	}
	if at := c.speaks(); at != nil {
		if bytes.Equal(p, terminate) && c.speech.between() {
			c.tell(news{end: true})
			return false
		}
		if !x.resume(at) {
			return false
		}
	} else {
		x.touch(p)
	}
	c.speech.feed(p)
	c.mid.Store(!c.speech.between())
	_, err := x.backend.conn.Write(p)
	return err == nil
}

// fromBackend carries results. It is the only one that writes to the client,
// so it also says the last words.
func (x *session) fromBackend() {
	defer x.close()
	for x.hear() {
		if !x.park() {
			if words := x.lastWords(); len(words) > 0 && x.say(words) != nil {
				return
			}
			x.farewell("terminating connection because the endpoint's compute went away")
			return
		}
		if !x.wait() {
			return
		}
	}
}

// hear carries results until the backend is gone; false when the session is
// over.
func (x *session) hear() bool {
	defer x.carry.unanswered()
	conn := x.backend.conn
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
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
				x.farewell(endingFault)
				return false
			}
			if conn.SetReadDeadline(*x.until.Load()) != nil {
				return false
			}
		case errors.Is(err, errLost):
			return false
		default:
			return true
		}
	}
}

// lastWords is what Postgres said at its end and the client has not heard.
func (x *session) lastWords() []byte {
	c := x.carry
	if len(c.held) == 0 {
		return c.sieve.fault
	}
	return c.held
}

// errLost is a client that cannot be written to.
var errLost = errors.New("the client is lost")

const endingFault = "terminating connection because the gateway is shutting down"

// tell passes bytes to the client, but for what is the answer to a question of
// ours, and for a farewell that it may not need to hear.
func (x *session) tell(p []byte) error {
	c := x.carry
	if c.isAsking() {
		return x.sift(p)
	}
	if len(c.held) > 0 || p[0] == 'E' && x.frames.between() && c.known() {
		c.held = append(c.held, p...)
		if len(c.held) < maxStartupMessage {
			return nil
		}
		p, c.held = c.held, nil
	}
	return x.say(p)
}

// say passes bytes to the client.
func (x *session) say(p []byte) error {
	x.out.Add(uint64(len(p)))
	x.follow(p)
	if _, err := x.client.tls.Write(p); err != nil {
		return errLost
	}
	return nil
}

// follow takes account of what the client is told.
func (x *session) follow(p []byte) {
	f, c := &x.frames, x.carry
	before := f.readies
	f.feed(p)
	if f.copyIn {
		f.copyIn = false
		c.speech.copying.Store(true)
	}
	if f.readies != before {
		c.status.Store(uint32(f.status))
		c.readies.Store(f.readies)
		x.done.Store(f.done)
	}
}

// sift passes on what is not the answer to our question.
func (x *session) sift(p []byte) error {
	for !x.frames.between() { // in the middle of a notification
		n := min(x.frames.missing(), len(p))
		if n == 0 {
			return nil
		}
		if err := x.say(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	c := x.carry
	pass, rest, done := c.sieve.take(p)
	if len(pass) > 0 {
		if err := x.say(pass); err != nil {
			return err
		}
	}
	if !done && !c.sieve.odd {
		return nil
	}
	a := c.sieve
	c.sieve = sieve{}
	if !c.answer(&a) {
		x.farewell("terminating connection because the gateway lost track of it")
		return errLost
	}
	if len(rest) == 0 {
		return nil
	}
	return x.tell(rest)
}

// idle says whether the client waits for nothing, and Postgres for no more.
func (x *session) idle() bool {
	return x.carry.status.Load() == 'I' && x.carry.owed() == 0 && !x.carry.mid.Load()
}

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
	if x.carry.over.Swap(true) {
		return
	}
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
	if b := x.attached(); b != nil {
		b.conn.Close()
	}
	x.carry.unanswered()
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
	x.carry.mu.Lock()
	b, p := x.backend, x.carry.pier
	if p != nil && p.cancel != nil {
		p.cancel()
	}
	x.carry.mu.Unlock()
	b.conn.SetReadDeadline(time.Unix(1, 0))
	x.carry.tell(news{end: true})
}
