package gateway

import (
	"bytes"
	"container/list"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// server is one connection of a pool to a compute. One goroutine, run, reads
// what Postgres says; who holds the connection writes.
//
//	idle ─▶ own (settings of the next client) ─▶ linked to a guest ─▶ idle
//	                                  linked ─▶ held (own: what is left behind?) ─▶ linked, pinned
//	                                                                          └─▶ idle
type server struct {
	lane    *lane
	backend *backend
	start   time.Time // of the compute it leads to
	dead    chan struct{}
	used    time.Time // when it last came back; guarded by pools.mu, as is counted
	counted bool

	mu    sync.Mutex // not held across I/O; guards the rest, and what a linked guest shares
	cond  *sync.Cond // a command ended, held ended, or the connection did
	guest *guest     // whom it serves
	link
	own      *own
	settings settings
	reported map[string]string // ParameterStatus, by name
	shelf
	first   [8]expected
	cancels int // cancel requests under way

	cut // of run alone
}

// link is how far a guest's commands are.
type link struct {
	queue    []expected
	status   byte // of the last ReadyForQuery
	skipping bool // Postgres skips everything up to a Sync that was not sent yet
	copyIn   bool // Postgres reads CopyData
	held     bool // the guest waits until Postgres said what it left behind
	suspect  bool // it may have left something behind
	unseen   bool // part of the text was not looked at
	pinned   string
	moved    map[string]string // what was reported before this guest
	lost     bool              // the guest is gone: what Postgres says is dropped
	failed   error             // Postgres said what no Postgres says
}

// cut is where in a message the reader stands.
type cut struct {
	rest int  // bytes of a message that is passed on in parts
	keep bool // pass on, or drop
	told bool // the last message was an error
	out  []byte
	buf  [bulkSize]byte
}

// expected is one answer that Postgres owes.
type expected struct {
	kind expect
	name string // of the client's statement
	text text
}

type expect uint8

const (
	expectQuery expect = iota
	expectSync
	expectParse    // a client's
	expectKnown    // a client's Parse of what the connection has: a Close of nothing was sent
	expectPrepare  // our own Parse
	expectBind     //
	expectDescribe //
	expectExecute  //
	expectClose    // a client's
	expectEvict    // our own Close
	expectRefusal  // an error that is replaced by ours
	expectCopyEnd  // no answer of its own: the end of CopyData
)

// own is a command of ours, whose answer no client sees.
type own struct {
	ready  int // ReadyForQuery still to come
	rows   [][]string
	err    error
	then   func(*own) // called by the reader, without the lock
	passes bool       // ParameterStatus goes to the guest
}

const maxPrepared = 256 // statements one server connection keeps

func newServer(l *lane, b *backend, first []byte, start time.Time) *server {
	s := &server{
		lane: l, backend: b, start: start, dead: make(chan struct{}), reported: make(map[string]string),
		shelf: shelf{stmts: make(map[text]*list.Element), lru: list.New()},
	}
	s.cond = sync.NewCond(&s.mu)
	s.status = 'I'
	for len(first) >= 5 { // whole messages, as start read them
		size := int(binary.BigEndian.Uint32(first[1:])) + 1
		if size > len(first) {
			break
		}
		if first[0] == 'S' {
			s.report(first[5:size])
		}
		first = first[size:]
	}
	return s
}

func (s *server) isDead() bool {
	select {
	case <-s.dead:
		return true
	default:
		return false
	}
}

// ending says whether Postgres has taken leave, or gone, on a connection that
// serves nobody, and its reader has not come to it yet.
func (s *server) ending() bool {
	raw, err := s.backend.conn.SyscallConn()
	if err != nil {
		return true
	}
	over := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		over = err == nil && (n == 0 || b[0] == 'E') || err != nil && err != syscall.EAGAIN && err != syscall.EINTR
	})
	return over || err != nil || s.isDead()
}

// report takes note of a ParameterStatus.
func (s *server) report(body []byte) (name, value string) {
	n, rest, ok := bytes.Cut(body, []byte{0})
	if !ok {
		return "", ""
	}
	name, value = string(n), string(bytes.TrimSuffix(rest, []byte{0}))
	s.reported[name] = value
	return name, value
}

// run reads until the connection ends.
func (s *server) run() {
	defer s.lane.pool.pools.joined.Done()
	have := 0
	for {
		n, err := s.backend.conn.Read(s.buf[have:])
		have += n
		used, fault := s.feed(s.buf[:have])
		have = copy(s.buf[:], s.buf[used:have])
		if err == nil {
			err = fault
		}
		if err == nil && have == len(s.buf) {
			err = errors.New("a message of the compute is too long")
		}
		if err != nil {
			s.end(err)
			return
		}
	}
}

// end takes leave of the guest, if there is one.
func (s *server) end(err error) {
	s.backend.conn.Close()
	s.mu.Lock()
	close(s.dead)
	g, o := s.guest, s.own
	s.own = nil
	between := s.rest == 0
	s.cond.Broadcast()
	s.mu.Unlock()
	s.lane.pool.lost(s)
	if o != nil {
		o.err = fmt.Errorf("the compute went away: %w", err)
		if g == nil {
			o.then(o)
		}
	}
	if g != nil {
		g.abandoned(between && !s.told)
	}
}

// feed works through what was read and says how much of it.
func (s *server) feed(p []byte) (int, error) {
	s.mu.Lock()
	g := s.guest
	s.out = s.out[:0]
	at, from := 0, 0
	var o *own
	var after verdict
	for at < len(p) && s.failed == nil {
		if s.rest > 0 {
			n := min(s.rest, len(p)-at)
			s.rest -= n
			at += n
			if !s.keep {
				s.out, from = append(s.out, p[from:at-n]...), at
			}
			continue
		}
		if len(p)-at < 5 {
			break
		}
		kind, size := p[at], int64(binary.BigEndian.Uint32(p[at+1:]))
		if size < 4 || size > 1<<30 {
			s.failed = fmt.Errorf("message %q of %d bytes", kind, size)
			break
		}
		end := at + 1 + int(size)
		if end > len(p) && (s.own != nil || readWhole(kind)) && size < bulkSize {
			break // the rest of it comes with the next read
		}
		body := p[at+5 : min(end, len(p))]
		v := verdictDrop
		switch {
		case s.own != nil:
			if v, o = s.ours(kind, body), s.ended(); o != nil {
				s.own = nil
			}
		case g != nil:
			v = s.message(kind, body, end <= len(p))
			s.told = kind == 'E'
		case kind == 'S':
			s.report(body)
		}
		stop := min(end, len(p))
		if v != verdictKeep {
			s.out, from = append(s.out, p[from:at]...), stop
			switch v {
			case verdictParsed:
				s.out = append(s.out, '1', 0, 0, 0, 4)
			case verdictRefused:
				s.out = appendListenRefusal(s.out)
			case verdictHold:
				after = v
			}
		} else if kind == 'Z' {
			after = v
		}
		s.rest, s.keep = end-stop, v == verdictKeep
		at = stop
	}
	say := p[from:at]
	if len(s.out) > 0 {
		s.out = append(s.out, say...)
		say = s.out
	}
	lost, fault := s.lost, s.failed
	s.mu.Unlock()

	if g != nil && len(say) > 0 && !lost {
		if err := g.tell(say); err != nil {
			g.hangUp(s)
		}
	}
	switch {
	case o != nil:
		o.then(o)
	case after == verdictHold:
		s.question(g)
	case after == verdictKeep && g != nil:
		s.settle(g)
	}
	return at, fault
}

// verdict is what becomes of a message.
type verdict uint8

const (
	verdictNone    verdict = iota
	verdictKeep            // passed on
	verdictDrop            //
	verdictParsed          // ParseComplete in its place
	verdictRefused         // our error in its place
	verdictHold            // the ReadyForQuery comes later
)

// readWhole says whether a message must be there as a whole to be understood.
func readWhole(kind byte) bool {
	switch kind {
	case 'Z', 'C', 'S', '1', '2', '3', 'E':
		return true
	}
	return false
}

// message judges what Postgres says to a guest. The lock is held.
func (s *server) message(kind byte, body []byte, whole bool) verdict {
	switch kind {
	case 'D', 'd', 'N', 'A', 't', 'H', 'c', 'V':
	case 'S':
		if whole {
			s.reportMoved(body)
		}
	case '1':
		if s.pop().kind == expectPrepare {
			return verdictDrop
		}
	case '3':
		switch s.pop().kind {
		case expectEvict:
			return verdictDrop
		case expectKnown:
			return verdictParsed
		}
	case '2':
		s.pop()
	case 'T', 'n':
		if s.head() == expectDescribe {
			s.pop()
		}
	case 'C':
		s.copyIn = false
		s.guest.x.done.Add(1)
		if s.unseen && (bytes.HasPrefix(body, []byte("DEALLOCATE ALL")) || bytes.HasPrefix(body, []byte("DISCARD ALL"))) {
			s.forget()
			s.guest.book.forget()
		}
		if s.head() == expectExecute {
			s.pop()
		}
	case 'I', 's':
		if s.head() == expectExecute {
			s.pop()
		}
	case 'G':
		s.copyIn = true
		s.ignoreSyncs()
	case 'E':
		return s.error()
	case 'Z':
		return s.ready(body)
	}
	return verdictKeep
}

// reportMoved takes note of a ParameterStatus that a guest's command caused.
func (s *server) reportMoved(body []byte) {
	n, _, _ := bytes.Cut(body, []byte{0})
	old := s.reported[string(n)]
	name, value := s.report(body)
	if _, ok := s.moved[name]; !ok && name != "" && old != value {
		if s.moved == nil {
			s.moved = make(map[string]string)
		}
		s.moved[name] = old
	}
	if name == "application_name" {
		s.guest.x.name.Store(&value)
	}
}

func (l *link) head() expect {
	if len(l.queue) == 0 {
		return expectCopyEnd // nothing any message is compared with
	}
	return l.queue[0].kind
}

// pop takes the answered command off the queue, and the ends of copying that
// belong to it.
func (l *link) pop() expected {
	if len(l.queue) == 0 {
		l.failed = errors.New("an answer that nobody waits for")
		return expected{}
	}
	e := l.queue[0]
	n := 1
	for n < len(l.queue) && l.queue[n].kind == expectCopyEnd {
		n++
	}
	l.queue = l.queue[n:]
	return e
}

// ignoreSyncs takes the Syncs off that Postgres ignores because they came
// before the end of CopyData.
func (l *link) ignoreSyncs() {
	for i := 1; i < len(l.queue) && l.queue[i].kind != expectCopyEnd; {
		if l.queue[i].kind == expectSync {
			l.queue = append(l.queue[:i:i], l.queue[i+1:]...)
		} else {
			i++
		}
	}
}

// error judges an ErrorResponse. After one in the extended protocol Postgres
// skips what came up to the next Sync: none of it happened.
func (s *server) error() verdict {
	s.copyIn = false
	v := verdictKeep
	switch s.head() {
	case expectQuery, expectSync: // ReadyForQuery comes in any case
		if s.queue[0].name == refusedName {
			v = verdictRefused
		}
		return v
	case expectRefusal:
		v = verdictRefused
	}
	for len(s.queue) > 0 && s.queue[0].kind != expectSync {
		s.undo(s.queue[0])
		s.queue = s.queue[1:]
	}
	s.skipping = len(s.queue) == 0
	return v
}

// refusedName marks a Query that is refused.
const refusedName = "\x00refused"

// undo takes back what was noted when a command was sent that did not happen.
func (s *server) undo(e expected) {
	g := s.guest
	switch e.kind {
	case expectParse, expectKnown:
		if e.name == "" {
			g.book.unnamed = statement{}
			s.unnamed = text{}
		} else if g.book.by[e.name].text == e.text {
			g.book.remove(e.name)
		}
		if e.kind == expectParse {
			s.remove(e.text)
		}
	case expectPrepare:
		s.remove(e.text)
		s.unnamed = text{}
	case expectClose:
		if _, ok := g.book.by[e.name]; !ok && e.text != (text{}) {
			g.book.add(e.name, newStatement(e.text))
		}
	}
}

// ready judges a ReadyForQuery.
func (s *server) ready(body []byte) verdict {
	if len(body) == 1 {
		s.status = body[0]
	}
	s.pop()
	s.skipping, s.copyIn = false, false
	s.cond.Broadcast()
	if s.status != 'I' || len(s.queue) > 0 {
		return verdictKeep
	}
	s.queue = s.first[:0]
	s.unseen = false
	for name, old := range s.moved {
		if s.reported[name] != old {
			s.suspect = true
		}
	}
	clear(s.moved)
	if s.suspect && !s.lost {
		s.held = true
		return verdictHold
	}
	return verdictKeep
}

// ours takes an answer to a command of our own.
func (s *server) ours(kind byte, body []byte) verdict {
	switch kind {
	case 'D':
		if row, ok := dataRow(body); ok {
			s.own.rows = append(s.own.rows, row)
		}
	case 'S':
		if s.own.passes {
			s.reportMoved(body)
			return verdictKeep
		}
		s.report(body)
	case 'E':
		var e pgproto3.ErrorResponse
		if err := e.Decode(body); err != nil {
			s.own.err = err
		} else {
			s.own.err = &fatal{code: e.Code, msg: e.Message, hint: e.Hint}
		}
	case 'Z':
		if len(body) == 1 {
			s.status = body[0]
		}
		s.own.ready--
	}
	return verdictDrop
}

func (s *server) ended() *own {
	if s.own.ready > 0 {
		return nil
	}
	return s.own
}

// settle lets the guest go when it is between transactions.
func (s *server) settle(g *guest) {
	s.mu.Lock()
	free := s.guest == g && len(s.queue) == 0 && !s.skipping && !s.held && s.status == 'I' && s.pinned == "" && !g.leaving.Load()
	if free {
		s.unlink(g)
	}
	s.mu.Unlock()
	if free {
		s.giveBack()
		g.freed()
	}
}

// fresh is a link on which nothing was said. The lock is held.
func (s *server) fresh() link { return link{queue: s.first[:0], status: s.status, moved: s.moved} }

// unlink parts guest and server. The lock is held.
func (s *server) unlink(g *guest) {
	s.guest = nil
	s.link = s.fresh()
	g.server.Store(nil)
}

// giveBack puts a connection back that serves nobody, once no cancel request
// can hit whoever is next.
func (s *server) giveBack() {
	s.mu.Lock()
	for s.cancels > 0 && !s.isDead() {
		s.cond.Wait()
	}
	s.mu.Unlock()
	s.lane.pool.release(s)
}

// discard closes a connection that is not fit for another client; its reader
// takes it out of the books.
func (s *server) discard() { s.backend.conn.Close() }

// question asks what the guest left behind; it waits meanwhile.
func (s *server) question(g *guest) {
	s.ask(&own{ready: 1, then: func(o *own) { s.judge(g, o) }}, appendCall(nil, sqlState, g.custom))
}

// ask sends a command of our own. Its end is the reader's to see, so a failing
// write needs no answer.
func (s *server) ask(o *own, message []byte) {
	s.mu.Lock()
	s.own = o
	s.unnamed = text{}
	s.mu.Unlock()
	s.backend.conn.Write(message)
}

// judge takes what Postgres says of the session: settings go with the client,
// anything else pins it to this connection.
func (s *server) judge(g *guest, o *own) {
	s.mu.Lock()
	var list []param
	why := ""
	for _, row := range o.rows {
		switch {
		case len(row) != 2:
		case row[0] != "":
			list = append(list, param{row[0], row[1]})
		case why == "":
			why = row[1]
		default:
			why += ", " + row[1]
		}
	}
	s.suspect = false
	if o.err != nil {
		why = "a state it cannot tell"
	} else {
		s.settings = newSettings(list)
		g.want = s.settings.over(g.base)
	}
	s.pinned = why
	if g.forever != "" {
		s.pinned = g.forever
	}
	had, want := s.settings, g.want
	again := o.err == nil && had.key != want.key
	if again {
		s.settings = want
	}
	s.mu.Unlock()
	if again { // RESET brought the server's defaults back, not the client's
		m, n := appendSetup(nil, had, want)
		s.ask(&own{ready: n, passes: true, then: func(*own) { s.unhold(g) }}, m)
		return
	}
	s.unhold(g)
}

// unhold lets the guest go on.
func (s *server) unhold(g *guest) {
	if err := g.tell([]byte{'Z', 0, 0, 0, 5, 'I'}); err != nil {
		g.hangUp(s)
	}
	s.mu.Lock()
	clear(s.moved)
	s.held = false
	s.cond.Broadcast()
	s.mu.Unlock()
	s.settle(g)
}

// do runs commands of our own on a connection that serves nobody, and waits.
func (s *server) do(message []byte, ready int) error {
	done := make(chan error, 1)
	s.ask(&own{ready: ready, then: func(o *own) { done <- o.err }}, message)
	select {
	case err := <-done:
		return err
	case <-s.dead:
		select {
		case err := <-done:
			return err
		default:
			return errGone
		}
	}
}

var errGone = errors.New("the compute went away")

// welcome is the ParameterStatus messages a new session gets.
func (s *server) welcome() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b []byte
	for n, v := range s.reported {
		var err error
		if b, err = (&pgproto3.ParameterStatus{Name: n, Value: v}).Encode(b); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (s *server) cancel(ctx context.Context, g *guest) error {
	s.mu.Lock()
	if s.guest != g || len(s.queue) == 0 {
		s.mu.Unlock()
		return nil
	}
	s.cancels++
	s.mu.Unlock()
	err := s.backend.cancel(ctx)
	s.mu.Lock()
	s.cancels--
	s.cond.Broadcast()
	s.mu.Unlock()
	return err
}
