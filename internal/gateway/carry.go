package gateway

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tarndb/tarn"
)

// carry is how a direct session goes on when its compute goes away under it.
// A session that fell silent outside a transaction is asked what state it has,
// on its own connection; the answer holds until the client speaks again. When
// the connection ends meanwhile because the compute does, the client is not
// told: its next statement finds a new connection that was given the state.
//
//	attached ──compute gone, state known──▶ parked ──the client speaks──▶ attached
//	    └──compute gone otherwise──▶ over       └──cannot be made anew──▶ over
//
// Two goroutines share it: fromClient asks and makes anew, fromBackend takes
// the answer and parks.
type carry struct {
	st       *startup
	endpoint tarn.Endpoint
	ctx      context.Context // of the client: Run's

	speech speech  // of fromClient
	sieve  sieve   // of fromBackend
	held   []byte  // Postgres's farewell, not passed on yet; of fromBackend
	quiet  silence // of the sweep, under sessions.mu

	readies atomic.Uint64 // ReadyForQuery that Postgres sent the client
	status  atomic.Uint32 // of the last of them: I, T or E
	mid     atomic.Bool   // the client is in the middle of a message or a pipeline
	wanted  atomic.Bool   // fromClient is to ask, and was woken for it
	mute    atomic.Bool   // the client has nothing more to say
	over    atomic.Bool   // the session ends
	hold    atomic.Pointer[hold]
	news    chan news // to fromBackend while parked

	mu     sync.Mutex // not held across I/O
	asking *question  // asked and not answered
	state  *state     // what the session has; nil once the client speaks
	pier   *pier      // while parked, or about to be
}

// pier is where a session waits without a compute.
type pier struct {
	state   *state
	decided chan struct{}      // closed when it is known whether the compute is gone
	parked  bool               // it is; set before
	cancel  context.CancelFunc // of making it anew, while that goes on; guarded by carry.mu
}

// news is what fromBackend is told while it has nothing to read.
type news struct {
	back  bool   // there is a new connection
	first []byte // of it, for the client
	err   error  // there is none
	end   bool   // look at session.ending, and whether the client is there
}

// state is what a session has beyond what its login gives it.
type state struct {
	born     string // when its postmaster started
	settings settings
	prepared []preparedText
	unnamed  []byte // body of Parse; nil = none
	why      string // it cannot be carried over; "" = it can
}

// preparedText is a statement prepared by the protocol.
type preparedText struct {
	name  string
	text  unique.Handle[string] // equal texts of all sessions are one in memory
	types []uint32
}

const (
	maxCarried = 4 << 20 // bytes of a session's prepared statements
	carryName  = "tarn carry"

	// sqlCarry lists what a session has, by kind: b its birth and $2, s a
	// setting, p a prepared statement, w why it cannot be carried over. Settings
	// with a dot are in no list: $1 names those that were set.
	sqlCarry = `/* tarn: what this session must be given if its compute goes away */
SELECT 'b', ($2::pg_catalog.text[])[1], pg_catalog.pg_postmaster_start_time()::pg_catalog.text, NULL
UNION ALL SELECT 's', name, setting, NULL FROM pg_catalog.pg_settings WHERE source = 'session' AND name NOT LIKE 'transaction\_%'
UNION ALL SELECT 's', 'role', pg_catalog.current_setting('role'), NULL WHERE pg_catalog.current_setting('role') <> 'none'
UNION ALL SELECT 's', n, pg_catalog.current_setting(n, true), NULL FROM pg_catalog.unnest($1::pg_catalog.text[]) AS c(n)
          WHERE pg_catalog.current_setting(n, true) <> ''
UNION ALL SELECT 'p', name, statement, parameter_types::pg_catalog.oid[]::pg_catalog.text FROM pg_catalog.pg_prepared_statements
          WHERE NOT from_sql AND name <> ($2::pg_catalog.text[])[2]
UNION ALL SELECT 'w', what, NULL, NULL FROM (VALUES
  ('another session authorization', session_user <> ($2::pg_catalog.text[])[3]),
  ('temporary objects', EXISTS (SELECT FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
                                AND refobjid = pg_catalog.pg_my_temp_schema())),
  ('a cursor WITH HOLD', EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)),
  ('statements of SQL PREPARE', EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)),
  ('LISTEN', EXISTS (SELECT FROM pg_catalog.pg_listening_channels())),
  ('advisory locks', EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()))
) AS s(what, there) WHERE there`
)

// question is one asking for the state.
type question struct {
	nonce    string
	stale    bool // the client has spoken since; guarded by carry.mu
	unnamed  []byte
	answered chan struct{} // closed when it was, or never will be
}

func newCarry(ctx context.Context, st *startup, e tarn.Endpoint) *carry {
	c := &carry{st: st, endpoint: e, ctx: ctx, news: make(chan news, 4)}
	c.speech.asked.Store(1) // the session's start ends with ReadyForQuery too
	return c
}

// carries says whether the session is one that may be carried over at all.
func (c *carry) carries() bool {
	switch strings.ToLower(c.st.param("replication")) {
	case "", "false", "off", "no", "0":
		return true
	}
	return false
}

// owed is how many ReadyForQuery Postgres still owes the client.
func (c *carry) owed() int64 { return int64(c.speech.asked.Load() - c.readies.Load()) }

// wake has fromClient ask for the session's state.
func (x *session) wake() {
	x.carry.wanted.Store(true)
	x.client.raw.SetReadDeadline(time.Unix(1, 0))
}

// woken is what fromClient does when its read timed out; false when it was not
// woken to ask.
func (x *session) woken() bool {
	c := x.carry
	if !c.wanted.Swap(false) {
		return false
	}
	if q := x.inquire(); q != nil {
		if h := c.hold.Load(); h != nil {
			h.keep(x, q)
		}
	}
	x.client.raw.SetReadDeadline(time.Time{})
	if c.over.Load() { // close may have set its deadline before us
		x.client.raw.SetReadDeadline(time.Now().Add(lingering))
	}
	return true
}

// inquire asks Postgres for the session's state when it is idle; nil when it
// is not, or cannot be carried over. Called by fromClient: nobody else writes
// to the backend.
func (x *session) inquire() *question {
	c := x.carry
	if !c.carries() || c.speech.opaque != "" || !c.speech.between() || x.carry.owed() != 0 || c.status.Load() != 'I' {
		return nil
	}
	c.mu.Lock()
	switch {
	case c.pier != nil || c.over.Load():
		c.mu.Unlock()
		return nil
	case c.asking != nil || c.state != nil: // asked already
		q := c.asking
		c.mu.Unlock()
		if q == nil {
			q = &question{answered: make(chan struct{})}
			close(q.answered)
		}
		return q
	}
	var b [8]byte
	rand.Read(b[:])
	q := &question{nonce: hex.EncodeToString(b[:]), unnamed: c.speech.unnamed, answered: make(chan struct{})}
	c.asking = q
	c.mu.Unlock()
	// Named, so that the client's unnamed statement stays.
	m := appendNamedCall(nil, carryName, sqlCarry, c.speech.custom, []string{q.nonce, carryName, x.what.Role})
	x.backend.conn.Write(m) // whether it arrived, fromBackend sees
	return q
}

// speaks takes note that the client speaks: what was known of the session does
// not count any more. With a pier, it has no backend.
func (c *carry) speaks() *pier {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = nil
	if c.asking != nil {
		c.asking.stale = true
	}
	return c.pier
}

// answer takes Postgres's answer to the question; false: it was one to
// something else.
func (c *carry) answer(a *sieve) bool {
	st := newState(a.rows)
	c.mu.Lock()
	q := c.asking
	c.asking = nil
	right := a.fault == nil && !a.odd && st.nonce == q.nonce
	if right && !q.stale {
		st.unnamed = q.unnamed
		c.state = &st.state
	}
	c.mu.Unlock()
	close(q.answered)
	return right || a.fault != nil
}

// unanswered ends waiting for an answer that will not come.
func (c *carry) unanswered() {
	c.mu.Lock()
	q := c.asking
	c.asking = nil
	c.mu.Unlock()
	if q != nil {
		close(q.answered)
	}
}

// known says whether the session is idle and its state known: the client has
// said nothing since it was asked.
func (c *carry) known() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state != nil
}

func (c *carry) isAsking() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asking != nil
}

type answered struct {
	state
	nonce string
}

func newState(rows [][]string) answered {
	var a answered
	var list []param
	bytes := 0
	for _, row := range rows {
		if len(row) != 4 {
			continue
		}
		switch row[0] {
		case "b":
			a.nonce, a.born = row[1], row[2]
		case "s":
			list = append(list, param{row[1], row[2]})
		case "p":
			types, ok := oids(row[3])
			if bytes += len(row[1]) + len(row[2]); bytes > maxCarried || !ok {
				a.why = "prepared statements of more than 4 MB"
				continue
			}
			a.prepared = append(a.prepared, preparedText{name: row[1], text: unique.Make(row[2]), types: types})
		case "w":
			a.why = row[1]
		}
	}
	if bytes > maxCarried {
		a.prepared = nil
	}
	a.settings = newSettings(list)
	return a
}

// park gives up a backend that is gone. true: the session goes on without one.
func (x *session) park() bool {
	c := x.carry
	c.mu.Lock()
	st := c.state
	if st == nil || st.why != "" || x.ending.Load() || c.over.Load() || c.mute.Load() {
		c.mu.Unlock()
		return false
	}
	p := &pier{state: st, decided: make(chan struct{})}
	c.pier = p
	c.mu.Unlock()
	p.parked = x.vanished(st)
	if p.parked {
		x.backend.conn.Close()
		c.held, c.sieve = nil, sieve{}
		x.frames.rewind()
		x.client.s.sessions.detach(x)
		x.client.s.metrics.carried.WithLabelValues("parked").Inc()
	}
	close(p.decided)
	return p.parked
}

// vanished says whether the compute went away, and not only this session by
// somebody's order: then Postgres is still there, and is asked how old it is.
func (x *session) vanished(st *state) bool {
	c := x.carry
	if code := farewellCode(c.held); code != "" && code != "57P01" && code != "57P02" {
		return false
	}
	s := x.client.s.sessions
	if s.missing(x.what.Endpoint, st.born) {
		return true
	}
	ctx, cancel := context.WithTimeout(c.ctx, 5*time.Second)
	defer cancel()
	b, _, err := openBackend(ctx, noWatch, x.backend.socket, c.st)
	if err == nil {
		defer b.conn.Close()
		var rows [][]string
		if rows, _, err = b.do(appendQuery(nil, `SELECT pg_catalog.pg_postmaster_start_time()::pg_catalog.text`), 1); err == nil {
			return len(rows) == 1 && len(rows[0]) == 1 && rows[0][0] != st.born
		}
	}
	if !gone(err) {
		return false
	}
	s.miss(x.what.Endpoint, st.born)
	return true
}

// farewellCode is the SQLSTATE of Postgres's last words; "" when it said none.
func farewellCode(held []byte) string {
	if len(held) == 0 {
		return ""
	}
	var e pgproto3.ErrorResponse
	if len(held) < 5 || held[0] != 'E' || int(be32(held[1:]))+1 > len(held) || e.Decode(held[5:be32(held[1:])+1]) != nil {
		return "unknown"
	}
	return e.Code
}

func noWatch(net.Conn) error { return nil }
