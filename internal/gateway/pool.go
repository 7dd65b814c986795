package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/tarndb/tarn"
)

// pools is every endpoint's pool of server connections.
type pools struct {
	s   *Server
	ctx context.Context // of Run: opening a server connection is nobody's errand

	mu     sync.Mutex // guards all pools and lanes; not held across I/O
	by     map[string]*pool
	closed bool
	joined sync.WaitGroup // openers and readers
}

// pool is the server connections of one endpoint, and who waits for one.
//
//	waiter ─▶ an idle connection of its lane
//	      └─▶ a new one, while there are fewer than the limits
//	      └─▶ the place of an idle one of another lane
//	      └─▶ the first that is given back, in order of arrival
type pool struct {
	pools    *pools
	endpoint tarn.Endpoint // its name and UID; the rest is as it was once
	servers  int           // open or being opened
	lanes    map[laneKey]*lane
	waiters  []*waiter // of all lanes, oldest first
}

// laneKey is what clients must have in common to share server connections.
type laneKey struct{ role, database string }

// lane is the connections of one role to one database.
type lane struct {
	pool    *pool
	key     laneKey
	guests  int
	idle    []*server // the one used last comes last
	servers int       // open or being opened
	opening int
	full    time.Time         // until then Postgres has no room for more
	welcome map[string][]byte // settings → ParameterStatus messages of a session that has them
	of      time.Time         // start of the compute that welcome is of
}

// waiter is a client in the queue.
type waiter struct {
	lane *lane
	want string       // key of its settings
	got  chan handout // capacity 1
}

type handout struct {
	server *server
	err    error
}

const (
	serverIdle  = time.Minute            // an unused server connection is closed
	queueNotice = 5 * time.Second        // a client is told that it waits
	touchAfter  = 250 * time.Millisecond // a compute nobody spoke to for so long may have gone to sleep
	peekAfter   = 2 * time.Millisecond   // Postgres may have said farewell on a connection unused for so long
	maxWelcomes = 64
	fullPause   = 2 * time.Second
)

func newPools(s *Server) *pools { return &pools{s: s, by: make(map[string]*pool)} }

// enter finds the lane of a client that stays until leave.
func (p *pools) enter(e tarn.Endpoint, k laneKey) *lane {
	p.mu.Lock()
	defer p.mu.Unlock()
	of := p.by[e.UID]
	if of == nil {
		of = &pool{pools: p, endpoint: e, lanes: make(map[laneKey]*lane)}
		p.by[e.UID] = of
	}
	l := of.lanes[k]
	if l == nil {
		l = &lane{pool: of, key: k, welcome: make(map[string][]byte)}
		of.lanes[k] = l
	}
	l.guests++
	return l
}

func (l *lane) leave() {
	p := l.pool.pools
	p.mu.Lock()
	defer p.mu.Unlock()
	l.guests--
	l.tidy()
}

// tidy forgets lanes and pools that nothing belongs to. pools.mu is held.
func (l *lane) tidy() {
	of := l.pool
	if l.guests == 0 && l.servers == 0 {
		delete(of.lanes, l.key)
	}
	if len(of.lanes) == 0 {
		delete(of.pools.by, of.endpoint.UID)
	}
}

// acquire takes a server connection, preferably one that has the settings
// already. told is called once when it takes long.
func (l *lane) acquire(ctx context.Context, want settings, told func()) (*server, error) {
	end := time.NewTimer(l.pool.pools.s.c.Pool.Queue)
	defer end.Stop()
	notice := time.NewTimer(queueNotice)
	defer notice.Stop()
	began := time.Now()
	defer func() { l.pool.pools.s.metrics.queue.Observe(time.Since(began).Seconds()) }()
	for {
		w := l.ask(want.key)
		var h handout
		for waiting := true; waiting; {
			waiting = false
			select {
			case h = <-w.got:
			case <-notice.C:
				told()
				waiting = true
			case <-end.C:
				l.withdraw(w)
				return nil, &fatal{code: codeTooMany, hint: "Give server connections back sooner (shorter transactions), or raise --pool-size.",
					msg: fmt.Sprintf("no server connection of the pool became free within %s", l.pool.pools.s.c.Pool.Queue)}
			case <-ctx.Done():
				l.withdraw(w)
				return nil, context.Cause(ctx)
			}
		}
		if h.err != nil {
			return nil, h.err
		}
		unused := time.Since(h.server.used)
		if (unused < peekAfter || !h.server.ending()) && (unused < touchAfter || l.awake(ctx, h.server)) {
			return h.server, nil
		}
		h.server.discard()
	}
}

// awake makes sure that the compute did not go to sleep under a server
// connection.
func (l *lane) awake(ctx context.Context, s *server) bool {
	g := l.pool.pools.s
	ctx, cancel := context.WithTimeout(ctx, g.c.Wake)
	defer cancel()
	st, err := g.c.Router.Wake(ctx, l.pool.endpoint.Name)
	return err == nil && st.StartTime.Equal(s.start) && !s.isDead()
}

// ask joins the queue, or is served at once.
func (l *lane) ask(want string) *waiter {
	p := l.pool.pools
	w := &waiter{lane: l, want: want, got: make(chan handout, 1)}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		w.got <- handout{err: errEnding}
		return w
	}
	if n := len(l.idle); n > 0 {
		at := n - 1
		for i := n - 1; i >= 0; i-- {
			if l.idle[i].settings.key == want {
				at = i
				break
			}
		}
		w.got <- handout{server: l.idle[at]}
		l.idle = slices.Delete(l.idle, at, at+1)
		return w
	}
	l.pool.waiters = append(l.pool.waiters, w)
	l.grow()
	return w
}

// withdraw leaves the queue; what was handed out in the same moment goes back.
func (l *lane) withdraw(w *waiter) {
	p := l.pool.pools
	p.mu.Lock()
	l.pool.waiters = slices.DeleteFunc(l.pool.waiters, func(o *waiter) bool { return o == w })
	p.mu.Unlock()
	select {
	case h := <-w.got:
		if h.server != nil {
			h.server.giveBack()
		}
	default:
	}
}

// grow opens server connections for clients that wait, within the limits.
// pools.mu is held.
func (l *lane) grow() {
	of, c := l.pool, l.pool.pools.s.c.Pool
	waiting := 0
	for _, w := range of.waiters {
		if w.lane == l {
			waiting++
		}
	}
	for l.opening < waiting && l.servers < c.PerRole && time.Now().After(l.full) && !of.pools.closed {
		if of.servers >= c.Servers && !of.makeRoom() {
			return
		}
		of.servers++
		l.servers++
		l.opening++
		of.pools.joined.Add(1)
		go l.open()
	}
}

// makeRoom closes an idle connection of some lane. pools.mu is held.
func (of *pool) makeRoom() bool {
	for _, l := range of.lanes {
		if len(l.idle) > 0 {
			s := l.idle[0]
			l.idle = slices.Delete(l.idle, 0, 1)
			of.drop(s)
			return true
		}
	}
	return false
}

// drop takes a connection out of the books and closes it. pools.mu is held;
// closing a socket does not wait.
func (of *pool) drop(s *server) {
	if s.counted {
		s.counted = false
		of.servers--
		s.lane.servers--
	}
	s.backend.conn.Close()
}

// open opens one server connection and hands it out.
func (l *lane) open() {
	p := l.pool.pools
	defer p.joined.Done()
	s, err := l.connect(p.ctx)
	p.mu.Lock()
	l.opening--
	if err == nil && p.closed {
		s.backend.conn.Close()
		err = errEnding
	}
	if err != nil {
		l.pool.servers--
		l.servers--
		l.failed(err)
		l.tidy()
		p.mu.Unlock()
		return
	}
	p.joined.Add(1)
	s.counted = true
	if !l.of.Equal(s.start) { // a compute started anew may answer otherwise
		l.of = s.start
		clear(l.welcome)
	}
	p.mu.Unlock()
	go s.run()
	s.giveBack()
}

// failed tells those who wait why no connection can be opened, unless others
// are open: then it is only that there cannot be more. pools.mu is held.
func (l *lane) failed(err error) {
	if l.servers > 0 {
		l.full = time.Now().Add(fullPause)
		return
	}
	l.pool.waiters = slices.DeleteFunc(l.pool.waiters, func(w *waiter) bool {
		if w.lane == l {
			w.got <- handout{err: err}
		}
		return w.lane == l
	})
}

func (l *lane) connect(ctx context.Context) (*server, error) {
	of := l.pool
	var s *server
	st := &startup{user: l.key.role, params: []param{{"database", l.key.database}}}
	err := of.pools.s.useCompute(ctx, of.endpoint, func(ctx context.Context, cs tarn.ComputeStatus) error {
		stop := func() bool { return true }
		watch := func(c net.Conn) error {
			stop = context.AfterFunc(ctx, func() { c.Close() })
			return ctx.Err()
		}
		b, first, err := openBackend(ctx, watch, socketOf(cs), st)
		if !stop() && err == nil {
			b.conn.Close()
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		if err := b.conn.SetDeadline(time.Time{}); err != nil {
			return errors.Join(err, b.conn.Close())
		}
		s = newServer(l, b, first, cs.StartTime)
		return nil
	})
	return s, err
}

// release gives a connection that nobody uses to the next who waits.
func (of *pool) release(s *server) {
	p := of.pools
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || s.isDead() {
		of.drop(s)
		of.next()
		s.lane.tidy()
		return
	}
	s.used = time.Now()
	if len(of.waiters) == 0 {
		s.lane.idle = append(s.lane.idle, s)
		return
	}
	// The oldest of all whose lane has nothing gets this one's place.
	if w := of.waiters[0]; w.lane != s.lane && w.lane.servers == 0 {
		of.drop(s)
		w.lane.grow()
		return
	}
	for i, w := range of.waiters {
		if w.lane == s.lane {
			of.waiters = slices.Delete(of.waiters, i, i+1)
			w.got <- handout{server: s}
			return
		}
	}
	s.lane.idle = append(s.lane.idle, s)
	of.next()
}

// next uses a place that became free. pools.mu is held.
func (of *pool) next() {
	for _, w := range of.waiters {
		if of.servers >= of.pools.s.c.Pool.Servers {
			return
		}
		w.lane.grow()
	}
}

// lost takes a connection that ended out of the books.
func (of *pool) lost(s *server) {
	p := of.pools
	p.mu.Lock()
	defer p.mu.Unlock()
	l := s.lane
	l.idle = slices.DeleteFunc(l.idle, func(o *server) bool { return o == s })
	of.drop(s)
	of.next()
	l.tidy()
}

// sweep closes connections nobody used for a while.
func (p *pools) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, of := range p.by {
		for _, l := range of.lanes {
			n := 0
			for n < len(l.idle) && time.Since(l.idle[n].used) > serverIdle {
				of.drop(l.idle[n])
				n++
			}
			l.idle = slices.Delete(l.idle, 0, n)
			l.tidy()
		}
		of.next()
	}
}

// close closes every connection and waits; no client may be left.
func (p *pools) close() {
	p.mu.Lock()
	p.closed = true
	for _, of := range p.by {
		for _, l := range of.lanes {
			for _, s := range l.idle {
				of.drop(s)
			}
			l.idle = nil
		}
	}
	p.mu.Unlock()
	p.joined.Wait()
}

// remembered is what a session with the settings is told at its start.
func (l *lane) remembered(key string) ([]byte, bool) {
	l.pool.pools.mu.Lock()
	defer l.pool.pools.mu.Unlock()
	w, ok := l.welcome[key]
	return w, ok
}

func (l *lane) remember(key string, w []byte) {
	l.pool.pools.mu.Lock()
	defer l.pool.pools.mu.Unlock()
	if len(l.welcome) >= maxWelcomes {
		clear(l.welcome)
	}
	l.welcome[key] = w
}
