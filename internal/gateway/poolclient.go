package gateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
	"unique"

	"github.com/jackc/pgx/v5/pgproto3"
)

// guest is a client of the pooler. One goroutine reads what it says and writes
// to the server it is linked to; what that server answers is written by the
// server's own goroutine. A guest without a server costs its connection, a
// goroutine and a small buffer.
type guest struct {
	c    *client
	x    *session
	lane *lane
	ctx  context.Context
	base settings // of its startup packet

	server  atomic.Pointer[server] // nil between transactions
	leaving atomic.Bool

	// Of the goroutine of the guest while it has no server; guarded by the
	// server's lock while it has one.
	want    settings
	custom  []string // settings with a dot that it set
	forever string   // why it keeps its server until it leaves
	book    book

	intake
	out  []byte // for the server
	skip bool   // after an error of ours: everything up to Sync
}

const (
	lookedAt    = 24 << 10  // of a message in parts, how much is looked at
	maxText     = 256 << 10 // of a named statement
	maxTexts    = 8 << 20   // of all named statements of a client
	flushAt     = 16 << 10
	listenFault = "LISTEN cannot be used through the pooler: notifications arrive at a server connection, which other clients use too"
)

func appendListenRefusal(b []byte) []byte {
	e := pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: codeUnsupported, Message: listenFault, Hint: directHint}
	out, err := e.Encode(b)
	if err != nil {
		return b
	}
	return out
}

// pooled runs a session in the pool.
func (c *client) pooled(ctx context.Context, st *startup, route Route) error {
	base, err := startupSettings(st)
	if err != nil {
		return err
	}
	g := &guest{c: c, ctx: ctx, base: base, want: base}
	g.lane = c.s.pools.enter(route.Endpoint, laneKey{st.user, cmp.Or(st.param("database"), st.user)})
	defer g.lane.leave()
	hello, err := g.welcome()
	if err != nil {
		return err
	}
	x := c.s.sessions.open(&session{client: c, guest: g, allowed: route.Allowed, touched: c.s.touches.of(route.Endpoint)}, st, route.Endpoint.UID)
	g.x = x
	defer c.s.sessions.close(x)
	if err := c.begin(x); err != nil {
		return err
	}
	c.s.opened(x)
	defer c.s.closed(x)
	out := append(make([]byte, 0, 1024), 'R', 0, 0, 0, 8, 0, 0, 0, 0)
	out = x.appendKey(append(out, hello...))
	if _, err := c.tls.Write(append(out, 'Z', 0, 0, 0, 5, 'I')); err != nil {
		return err
	}
	g.run()
	return nil
}

// welcome finds what the session is told at its start. A server connection is
// needed only for settings that no client had before.
func (g *guest) welcome() ([]byte, error) {
	if hello, ok := g.lane.remembered(g.base.key); ok {
		return hello, nil
	}
	s, err := g.acquire(g.ctx, func() {})
	if err != nil {
		return nil, err
	}
	hello, err := s.welcome()
	if err == nil {
		g.lane.remember(g.base.key, hello)
	}
	s.giveBack()
	return hello, err
}

// acquire takes a server connection and gives it the guest's settings.
func (g *guest) acquire(ctx context.Context, told func()) (*server, error) {
	for {
		s, err := g.lane.acquire(ctx, g.want, told)
		if err != nil {
			return nil, err
		}
		if s.settings.key == g.want.key {
			return s, nil
		}
		m, n := appendSetup(nil, s.settings, g.want)
		err = s.do(m, n)
		var f *fatal
		switch {
		case err == nil:
			s.settings = g.want
			return s, nil
		case errors.As(err, &f) && !comingOrGoing(f.code):
			s.discard() // it is between two clients' settings
			return nil, &fatal{code: f.code, msg: f.msg, hint: cmp.Or(f.hint, "The pooler could not give a server connection this session's settings. "+directHint)}
		}
		s.discard() // it went away before the client's command reached it: another
	}
}

// run reads what the client says until it leaves.
func (g *guest) run() {
	g.intake.open(g.c.tls, g.c.s.buffers)
	defer g.shrink()
	err := g.messages()
	if errors.Is(err, errGone) { // the server's goroutine says the last words
		io.Copy(io.Discard, io.LimitReader(g.c.tls, 1<<20))
	}
	g.leave(errors.Is(err, errGoodbye))
	if g.x.ending.Load() && (errors.Is(err, context.Canceled) || errors.Is(err, os.ErrDeadlineExceeded)) {
		f := &fatal{code: codeShutdown, msg: "terminating connection because the gateway is shutting down", hint: "Connect again; a suspended endpoint wakes."}
		g.c.raw.SetWriteDeadline(time.Now().Add(lingering / 10))
		send(g.c.tls, f.response())
	}
	g.c.raw.SetWriteDeadline(time.Now().Add(lingering / 10))
	g.c.tls.CloseWrite()
}

// errGoodbye is a client that took leave.
var errGoodbye = errors.New("the client said goodbye")

// messages works through what the client says.
func (g *guest) messages() error {
	for {
		if err := g.need(5); err != nil {
			return err
		}
		kind := g.buf[g.r]
		size := int64(binary.BigEndian.Uint32(g.buf[g.r+1:])) - 4
		if size < 0 || size > 1<<30 {
			return g.fault("invalid message length")
		}
		g.x.in.Add(uint64(size) + 5)
		if err := g.message(kind, int(size)); err != nil {
			return err
		}
	}
}

func (g *guest) fault(msg string) error {
	g.flush()
	if g.server.Load() == nil {
		send(g.c.tls, (&fatal{code: codeProtocol, msg: msg}).response())
	}
	return errors.New(msg)
}

// message handles one message of which the head is in the buffer.
func (g *guest) message(kind byte, n int) error {
	switch kind {
	case 'X':
		return errGoodbye
	case 'Q':
		return g.query(n)
	case 'P':
		return g.parse(n)
	case 'B', 'D', 'C':
		return g.named(kind, n)
	case 'E':
		return g.plain(kind, n, expected{kind: expectExecute})
	case 'F':
		return g.plain(kind, n, expected{kind: expectQuery})
	case 'S':
		return g.sync(n)
	case 'H':
		if g.server.Load() == nil {
			return g.pass(nil, n+5)
		}
		return g.loose(kind, n)
	case 'd', 'c', 'f':
		return g.loose(kind, n)
	}
	return g.fault(fmt.Sprintf("invalid frontend message type %d", kind))
}

// lock returns the guest's server, locked, taking one when there is none. nil
// without an error: the message is to be dropped.
func (g *guest) lock() (*server, error) {
	for {
		s := g.server.Load()
		if s == nil {
			if g.skip {
				return nil, nil
			}
			var err error
			if s, err = g.acquire(g.ctx, g.waits); err != nil {
				return nil, err
			}
			s.mu.Lock()
			if s.isDead() { // nothing was sent on it yet
				s.mu.Unlock()
				continue
			}
			s.guest, s.link = g, s.fresh()
			g.server.Store(s)
			return s, nil
		}
		s.mu.Lock()
		for s.held && g.server.Load() == s && !s.isDead() {
			s.cond.Wait()
		}
		switch {
		case s.isDead():
			s.mu.Unlock()
			return nil, errGone
		case g.server.Load() == s:
			return s, nil
		}
		s.mu.Unlock()
	}
}

// waits tells the client that it stands in the queue.
func (g *guest) waits() {
	send(g.c.tls, &pgproto3.NoticeResponse{Severity: "NOTICE", SeverityUnlocalized: "NOTICE", Code: "00000",
		Message: "all server connections of the pool are in use; waiting for one"})
}

// begin locks the server for a message of the extended protocol; when there is
// none, or Postgres skips it, the message is dropped.
func (g *guest) begin(kind byte, n int) (*server, error) {
	s, err := g.lock()
	if err == nil && s != nil && s.skipping {
		s.mu.Unlock()
		s = nil
	}
	if err != nil {
		return nil, g.unserved(kind, n, err)
	}
	if s == nil {
		return nil, g.pass(nil, n+5)
	}
	return s, nil
}

// unserved answers a command for which there is no server connection.
func (g *guest) unserved(kind byte, n int, err error) error {
	var f *fatal
	if !errors.As(err, &f) {
		return err
	}
	e := f.response()
	e.Severity, e.SeverityUnlocalized = "ERROR", "ERROR"
	msgs := []pgproto3.BackendMessage{e}
	if kind == 'Q' || kind == 'F' {
		msgs = append(msgs, &pgproto3.ReadyForQuery{TxStatus: 'I'})
	} else {
		g.skip = true
	}
	g.c.s.log.Info("gateway served no connection of the pool", "addr", g.c.remote.String(), "endpoint", g.x.what.Endpoint, "err", f)
	if err := send(g.c.tls, msgs...); err != nil {
		return err
	}
	return g.pass(nil, n+5)
}

// plain passes a message on as it is.
func (g *guest) plain(kind byte, n int, e expected) error {
	s, err := g.begin(kind, n)
	if s == nil {
		return err
	}
	s.queue = append(s.queue, e)
	s.mu.Unlock()
	return g.pass(s, n+5)
}

// loose passes a message on that has no answer, if there is somebody to read it.
func (g *guest) loose(kind byte, n int) error {
	s := g.server.Load()
	if s != nil {
		s.mu.Lock()
		if g.server.Load() != s || s.skipping || s.held || len(s.queue) == 0 {
			s.mu.Unlock()
			return g.pass(nil, n+5)
		}
		if kind == 'c' || kind == 'f' {
			s.queue = append(s.queue, expected{kind: expectCopyEnd})
		}
		s.mu.Unlock()
	}
	return g.pass(s, n+5)
}

func (g *guest) sync(n int) error {
	s := g.server.Load()
	if s == nil {
		g.skip = false
		if _, err := g.c.tls.Write([]byte{'Z', 0, 0, 0, 5, 'I'}); err != nil {
			return err
		}
		return g.pass(nil, n+5)
	}
	s, err := g.lock()
	if err != nil {
		return g.unserved('Q', n, err)
	}
	if !s.copyIn || s.queue[len(s.queue)-1].kind == expectCopyEnd {
		s.queue = append(s.queue, expected{kind: expectSync})
	}
	s.mu.Unlock()
	return g.pass(s, n+5)
}

// query passes a simple query on.
func (g *guest) query(n int) error {
	seen := min(n, lookedAt)
	if err := g.need(5 + seen); err != nil {
		return err
	}
	sql := bytes.TrimSuffix(g.buf[g.r+5:g.r+5+seen], []byte{0})
	v := look(sql)
	s, err := g.begin('Q', n)
	if s == nil {
		return err
	}
	if v.listen {
		s.queue = append(s.queue, expected{kind: expectQuery, name: refusedName})
		s.mu.Unlock()
		g.out = appendQuery(g.out, refusedSQL)
		return g.pass(nil, n+5)
	}
	if st, ok := g.book.by[v.drop]; ok && v.drop != "" {
		// The client's name for a statement is not Postgres's.
		name := g.prepareOn(s, st)
		s.remove(st.text)
		g.book.remove(v.drop)
		s.queue = append(s.queue, expected{kind: expectQuery})
		s.mu.Unlock()
		g.out = appendQuery(g.out, "DEALLOCATE "+name)
		return g.pass(nil, n+5)
	}
	s.note(v)
	if seen < n {
		s.unseen, s.suspect = true, true
	}
	s.queue = append(s.queue, expected{kind: expectQuery})
	s.mu.Unlock()
	return g.pass(s, n+5)
}

// refusedSQL makes Postgres answer with an error, and abort the transaction,
// as it would have for a statement that failed.
const refusedSQL = `"tarn pooler: LISTEN was refused"`

// note takes account of what a statement may leave behind. The lock is held.
func (s *server) note(v sight) {
	g := s.guest
	s.suspect = s.suspect || v.suspect || v.pin || v.drops && s.pinned != ""
	if v.pin && g.forever == "" {
		g.forever = "LOAD, or settings whose names the pooler cannot read"
	}
	for _, n := range v.custom {
		if !slices.Contains(g.custom, n) && len(g.custom) < 256 {
			g.custom = append(g.custom, n)
		}
	}
	if v.forgets {
		s.forget()
		g.book.forget()
	}
}

// prepareOn has a statement prepared on the server and returns its name there.
// The lock is held.
func (g *guest) prepareOn(s *server, st statement) string {
	name, known := s.use(st.text)
	if !known {
		s.queue = append(s.queue, expected{kind: expectPrepare, text: st.text})
		g.out = appendParse(g.out, name, st.text.Value())
		if old, ok := s.evict(); ok {
			s.queue = append(s.queue, expected{kind: expectEvict})
			g.out = appendClose(g.out, old)
		}
	}
	return name
}

func appendParse(b []byte, name, rest string) []byte {
	b = appendHead(b, 'P', len(name)+1+len(rest))
	b = append(append(b, name...), 0)
	return append(b, rest...)
}

func appendClose(b []byte, name string) []byte {
	b = append(appendHead(b, 'C', 1+len(name)+1), 'S')
	return append(append(b, name...), 0)
}

// nothing is a statement that does not exist: to close it is no error.
const nothing = "tarn nothing"

// parse handles Parse: statements are known by their text, under names of ours.
func (g *guest) parse(n int) error {
	seen := min(n, lookedAt)
	if err := g.need(5 + seen); err != nil {
		return err
	}
	body := g.buf[g.r+5 : g.r+5+seen]
	end := bytes.IndexByte(body, 0)
	if end < 0 {
		return g.fault("invalid Parse message")
	}
	name := string(body[:end])
	if seen < n && n <= maxText {
		whole := make([]byte, n)
		if err := g.read(whole); err != nil {
			return err
		}
		return g.parsed(name, whole[end+1:], 0, n)
	}
	return g.parsed(name, body[end+1:], n-seen, n)
}

// parsed handles a Parse of which rest was read, and more is still to come.
func (g *guest) parsed(name string, rest []byte, more, n int) error {
	left := 0 // of the message, in the buffer or behind it
	if more > 0 || n <= lookedAt {
		left = n + 5
	}
	s, err := g.begin('P', left-5)
	if s == nil {
		return err
	}
	if last := g.book.unnamed; name == "" && more == 0 && last.text != (text{}) && last.text.Value() == string(rest) {
		s.unnamed = last.text // the same again, as drivers do that prepare nothing
		s.queue = append(s.queue, expected{kind: expectParse, text: last.text})
		g.out = appendParse(g.out, "", last.text.Value())
		s.mu.Unlock()
		return g.pass(nil, left)
	}
	sql, _, _ := bytes.Cut(rest, []byte{0})
	v := look(sql)
	refuse := func(what *expected) error {
		s.queue = append(s.queue, *what)
		s.mu.Unlock()
		g.out = appendParse(g.out, "", refusedSQL+"\x00\x00\x00")
		return g.pass(nil, left)
	}
	switch {
	case v.listen:
		return refuse(&expected{kind: expectRefusal})
	case more > 0 && name != "" || g.book.bytes > maxTexts:
		s.mu.Unlock()
		return g.fault(fmt.Sprintf("the pooler keeps prepared statements of up to %d bytes, and %d bytes of a client; close some, or leave large ones unnamed", maxText, maxTexts))
	case more > 0: // too large to be remembered: good for this connection only
		t := unique.Make("\x00large " + strconv.FormatUint(large.Add(1), 10))
		g.book.unnamed, s.unnamed = statement{text: t, sight: sight{suspect: true}}, t
		s.unseen = true
		s.queue = append(s.queue, expected{kind: expectParse, text: t})
		s.mu.Unlock()
		return g.pass(s, left)
	}
	t := unique.Make(string(rest))
	st := statement{text: t, sight: v}
	if old, ok := g.book.by[v.drop]; ok && v.drop != "" {
		to := g.prepareOn(s, old)
		s.remove(old.text)
		g.book.remove(v.drop)
		t = unique.Make("DEALLOCATE " + to + "\x00\x00\x00")
		st = statement{text: t}
	}
	switch _, taken := g.book.by[name]; {
	case name == "":
		g.book.unnamed, s.unnamed = st, t
		s.queue = append(s.queue, expected{kind: expectParse, text: t})
		g.out = appendParse(g.out, "", t.Value())
	case taken: // Postgres says so
		to := g.prepareOn(s, g.book.by[name])
		s.queue = append(s.queue, expected{kind: expectPrepare})
		g.out = appendParse(g.out, to, t.Value())
	default:
		to, known := s.use(t)
		g.book.add(name, st)
		if known {
			s.queue = append(s.queue, expected{kind: expectKnown, name: name, text: t})
			g.out = appendClose(g.out, nothing)
			break
		}
		s.queue = append(s.queue, expected{kind: expectParse, name: name, text: t})
		g.out = appendParse(g.out, to, t.Value())
		if old, ok := s.evict(); ok {
			s.queue = append(s.queue, expected{kind: expectEvict})
			g.out = appendClose(g.out, old)
		}
	}
	s.mu.Unlock()
	return g.pass(nil, left)
}

var large atomic.Uint64

// named handles the messages that name a statement: Bind (portal, statement),
// Describe and Close ('S' statement or 'P' portal).
func (g *guest) named(kind byte, n int) error {
	seen := min(n, lookedAt)
	if err := g.need(5 + seen); err != nil {
		return err
	}
	body := g.buf[g.r+5 : g.r+5+seen]
	from := 1 // of the statement's name
	if kind == 'B' {
		from = bytes.IndexByte(body, 0) + 1
	}
	end := -1
	if from > 0 && from <= len(body) {
		end = bytes.IndexByte(body[from:], 0)
	}
	if end < 0 {
		return g.fault("invalid Bind, Describe or Close message")
	}
	end += from
	s, err := g.begin(kind, n)
	if s == nil {
		return err
	}
	name := string(body[from:end])
	switch {
	case kind != 'B' && body[0] == 'P':
		e := expected{kind: expectDescribe}
		if kind == 'C' {
			e.kind, e.name = expectClose, ""
		}
		s.queue = append(s.queue, e)
		s.mu.Unlock()
		return g.pass(s, n+5)
	case kind == 'C':
		st := g.book.by[name]
		if name == "" {
			g.book.unnamed = statement{}
		}
		g.book.remove(name)
		s.queue = append(s.queue, expected{kind: expectClose, name: name, text: st.text})
		s.mu.Unlock()
		g.out = appendClose(g.out, nothing) // other clients may use it
		return g.pass(nil, n+5)
	}
	to := g.target(s, name, kind == 'B')
	e := expectDescribe
	if kind == 'B' {
		e = expectBind
	}
	s.queue = append(s.queue, expected{kind: e})
	s.mu.Unlock()
	g.out = appendHead(g.out, kind, n-len(name)+len(to))
	g.out = append(g.out, body[:from]...)
	g.out = append(g.out, to...)
	g.r += 5 + end
	return g.pass(s, n-end)
}

// target returns Postgres's name of a client's statement, which is prepared
// when the server has it not. The lock is held.
func (g *guest) target(s *server, name string, executes bool) string {
	st, ok := g.book.by[name]
	if name == "" {
		st, ok = g.book.unnamed, g.book.unnamed.text != (text{})
	}
	if ok && executes {
		s.note(st.sight)
	}
	switch {
	case !ok && name == "":
		return "the unnamed one" // of another client, if any: Postgres says it does not exist
	case !ok:
		return name // does not exist, or is one of SQL PREPARE
	case name != "":
		return g.prepareOn(s, st)
	case s.unnamed == st.text:
		return ""
	case st.text.Value()[0] == 0:
		return "an unnamed one of an earlier transaction"
	}
	s.unnamed = st.text
	s.queue = append(s.queue, expected{kind: expectPrepare, text: st.text})
	g.out = appendParse(g.out, "", st.text.Value())
	return ""
}

// tell writes to the client. Called by the server's goroutine.
func (g *guest) tell(p []byte) error {
	g.x.out.Add(uint64(len(p)))
	_, err := g.c.tls.Write(p)
	return err
}

// hangUp takes note that the client cannot be reached any more.
func (g *guest) hangUp(s *server) {
	s.mu.Lock()
	s.lost = true
	s.mu.Unlock()
	g.c.raw.SetReadDeadline(time.Unix(1, 0)) // its goroutine wakes and leaves
}

// abandoned ends a session whose server went away. Called by the server's
// goroutine.
func (g *guest) abandoned(say bool) {
	if say {
		f := &fatal{code: codeShutdown, msg: "terminating connection because the endpoint's compute went away", hint: "Connect again; a suspended endpoint wakes."}
		if g.c.raw.SetWriteDeadline(time.Now().Add(lingering)) == nil {
			send(g.c.tls, f.response())
		}
	}
	g.leaving.Store(true)
	g.c.tls.CloseWrite()
	g.c.raw.CloseWrite()
	g.c.raw.SetReadDeadline(time.Now().Add(lingering / 4))
}

// freed is called when the guest has no server any more.
func (g *guest) freed() {
	if g.x.ending.Load() {
		g.c.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// end asks the session to finish: at once between transactions.
func (g *guest) end() { g.c.raw.SetReadDeadline(time.Unix(1, 0)) }

// leave gives up the server. After a goodbye Postgres finishes what it was
// asked; it is told of it by nobody.
func (g *guest) leave(goodbye bool) {
	g.flush()
	g.leaving.Store(true)
	s := g.server.Load()
	if s == nil {
		return
	}
	s.mu.Lock()
	for goodbye && g.server.Load() == s && !s.isDead() && (s.held || len(s.queue) > 0 && !s.copyIn && s.last()) {
		s.cond.Wait()
	}
	if g.server.Load() != s || s.isDead() {
		s.mu.Unlock()
		return
	}
	fit := len(s.queue) == 0 && s.status == 'I' && !s.held && !s.skipping
	dirty := s.pinned != "" || s.suspect
	if fit {
		s.unlink(g)
	}
	s.mu.Unlock()
	if fit && dirty {
		s.forgetLocked()
		if fit = s.do(appendQuery(nil, sqlDiscard), 1) == nil; fit {
			s.settings = settings{}
		}
	}
	if fit {
		s.giveBack()
	} else {
		s.discard()
	}
}

// last says whether the last command is one that Postgres ends by itself.
func (s *server) last() bool {
	k := s.queue[len(s.queue)-1].kind
	return k == expectQuery || k == expectSync
}

func (s *server) forgetLocked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
}

// pass takes n bytes off the input and writes them to the server, or drops
// them when it is nil.
func (g *guest) pass(to *server, n int) error {
	for {
		k := min(n, g.w-g.r)
		if to != nil {
			g.out = append(g.out, g.buf[g.r:g.r+k]...)
		}
		g.r += k
		n -= k
		if len(g.out) >= flushAt {
			g.flush()
		}
		if n == 0 {
			return nil
		}
		if err := g.need(1); err != nil {
			return err
		}
	}
}

// flush writes what is collected. When the server is gone its own goroutine
// says so.
func (g *guest) flush() {
	if len(g.out) == 0 {
		return
	}
	if s := g.server.Load(); s != nil {
		g.x.touch(g.out) // one that is pinned may find its compute frozen
		s.backend.conn.Write(g.out)
	}
	if cap(g.out) > bulkSize {
		g.out = nil
	}
	g.out = g.out[:0]
}

// busy says whether a session that is to end has its time still: it is in a
// transaction.
func (g *guest) busy() bool {
	until := g.x.until.Load()
	if !g.x.ending.Load() || g.leaving.Load() || g.server.Load() == nil || !time.Now().Before(*until) {
		return false
	}
	return g.c.raw.SetReadDeadline(*until) == nil
}

// need reads until n bytes are there. What was collected for the server goes
// out before waiting.
func (g *guest) need(n int) error {
	return g.intake.need(n, func() {
		g.flush()
		if g.w == 0 && g.server.Load() == nil {
			g.out = nil
		}
	}, g.busy)
}

// read takes a whole message's body off the input, its head included.
func (g *guest) read(body []byte) error {
	g.r += 5
	for n := 0; n < len(body); {
		if g.r == g.w {
			if err := g.need(1); err != nil {
				return err
			}
		}
		k := copy(body[n:], g.buf[g.r:g.w])
		g.r += k
		n += k
	}
	return nil
}
