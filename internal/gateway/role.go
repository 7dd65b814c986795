package gateway

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// role is what Postgres knows of a role that matters at login.
type role struct {
	known     bool
	login     bool
	super     bool
	oauth     bool    // direct member of tarn.OAuthMarkerRole
	secret    string  // rolpassword
	goodUntil float64 // Unix time at which secret ends
}

// outdated says whether VALID UNTIL is past.
func (r role) outdated() bool { return float64(time.Now().UnixMicro())/1e6 >= r.goodUntil }

// sqlRole looks a role up by its exact name: $1 is text, because the type name
// would cut a long one and find somebody else. Membership must be direct: a
// role that was granted an OAuth role is not one.
const sqlRole = `
SELECT r.rolcanlogin, r.rolsuper, coalesce(r.rolpassword, ''),
       coalesce(extract(epoch FROM r.rolvaliduntil)::float8, 'Infinity'),
       EXISTS (SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles o ON o.oid = m.roleid
               WHERE m.member = r.oid AND o.rolname = $2::text)
FROM pg_catalog.pg_authid r WHERE r.rolname = $1::text`

const (
	lookupsAtOnce = 4               // connections as tarn_admin to one compute
	lookupIdle    = 2 * time.Second // how long one is kept: it hinders CREATE DATABASE … TEMPLATE postgres
	maxCached     = 256             // roles remembered of one endpoint
	absentFor     = 10 * time.Minute
)

// roleBook looks roles up in computes and remembers what it found, so that a
// suspended compute need not be woken to refuse a stranger.
type roleBook struct {
	mu    sync.Mutex // not held across I/O
	pools map[string]*lookupPool
	known map[string]map[string]found // endpoint UID → role name
}

// found is a role as it was at one moment.
type found struct {
	role
	at time.Time
}

// lookupPool is the connections to one compute.
type lookupPool struct {
	slots chan struct{}
	users int // callers between enter and exit; guarded by roleBook.mu
	idle  []idleConn
}

type idleConn struct {
	conn  *pgx.Conn
	dir   string // socket directory and start of the compute it leads to
	start time.Time
	since time.Time
}

func newRoleBook() *roleBook {
	return &roleBook{pools: make(map[string]*lookupPool), known: make(map[string]map[string]found)}
}

// cached is what was last found of a role.
func (b *roleBook) cached(uid, name string) (role, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, ok := b.known[uid][name]
	return f.role, ok
}

// doubt takes note that a login failed: the role may have changed since it was
// looked up, so the next attempt looks again. That a role is not there is
// believed for longer, because that is what scanners ask for, again and again,
// and each look would wake the compute.
func (b *roleBook) doubt(uid, name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.known[uid][name]; f.known || time.Since(f.at) > absentFor {
		delete(b.known[uid], name)
	}
}

func (b *roleBook) remember(uid, name string, r role) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.known[uid]
	if m == nil {
		m = make(map[string]found)
		if len(b.known) >= bookSize {
			for k := range b.known { // any one
				delete(b.known, k)
				break
			}
		}
		b.known[uid] = m
	}
	if _, ok := m[name]; !ok && len(m) >= maxCached {
		for k := range m { // any one
			delete(m, k)
			break
		}
	}
	m[name] = found{role: r, at: time.Now()}
}

// lookup asks the compute. An unknown role is no error.
func (b *roleBook) lookup(ctx context.Context, st tarn.ComputeStatus, name string) (role, error) {
	p := b.enter(st.Endpoint)
	defer b.exit(st.Endpoint, p)
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return role{}, fmt.Errorf("look up role: %w", context.Cause(ctx))
	}
	for {
		conn := b.reuse(p, st)
		fresh := conn == nil
		if fresh {
			var err error
			if conn, err = connect(ctx, st); err != nil {
				return role{}, fmt.Errorf("look up role: %w", err)
			}
		}
		r, err := query(ctx, conn, name)
		if err == nil {
			b.keep(p, st, conn)
			b.remember(st.Endpoint, name, r)
			return r, nil
		}
		conn.Close(ctx)
		if fresh { // a kept connection may be broken, a new one says what is
			return role{}, fmt.Errorf("look up role: %w", err)
		}
	}
}

func query(ctx context.Context, conn *pgx.Conn, name string) (role, error) {
	r := role{known: true}
	err := conn.QueryRow(ctx, sqlRole, name, tarn.OAuthMarkerRole).Scan(&r.login, &r.super, &r.secret, &r.goodUntil, &r.oauth)
	if errors.Is(err, pgx.ErrNoRows) {
		return role{goodUntil: math.Inf(1)}, nil
	}
	return r, err
}

// connect opens a superuser connection over the compute's socket. Nothing of
// it comes from our environment.
func connect(ctx context.Context, st tarn.ComputeStatus) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig("sslmode=disable")
	if err != nil {
		return nil, err
	}
	c.Host, c.Port = st.SocketDir, uint16(st.Port)
	c.User, c.Password, c.Database = tarn.Superuser, "", "postgres"
	c.TLSConfig, c.Fallbacks, c.ValidateConnect = nil, nil, nil
	c.RuntimeParams = map[string]string{"application_name": "tarn gateway", "search_path": "pg_catalog", "statement_timeout": "10s"}
	c.DefaultQueryExecMode = pgx.QueryExecModeExec // one round trip, nothing left prepared
	return pgx.ConnectConfig(ctx, c)
}

func (b *roleBook) enter(uid string) *lookupPool {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.pools[uid]
	if p == nil {
		p = &lookupPool{slots: make(chan struct{}, lookupsAtOnce)}
		b.pools[uid] = p
	}
	p.users++
	return p
}

func (b *roleBook) exit(uid string, p *lookupPool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.users--
	if p.users == 0 && len(p.idle) == 0 {
		delete(b.pools, uid)
	}
}

// reuse takes a kept connection to this very compute.
func (b *roleBook) reuse(p *lookupPool, st tarn.ComputeStatus) *pgx.Conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := len(p.idle) - 1; i >= 0; i-- {
		if k := p.idle[i]; k.dir == st.SocketDir && k.start.Equal(st.StartTime) {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			return k.conn
		}
	}
	return nil // sweep closes those of earlier computes
}

func (b *roleBook) keep(p *lookupPool, st tarn.ComputeStatus, conn *pgx.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.idle = append(p.idle, idleConn{conn: conn, dir: st.SocketDir, start: st.StartTime, since: time.Now()})
}

// sweep closes connections nobody used for a while.
func (b *roleBook) sweep() { b.closeIdle(lookupIdle) }

// close closes every connection; no lookup may be under way.
func (b *roleBook) close() { b.closeIdle(0) }

func (b *roleBook) closeIdle(age time.Duration) {
	var old []*pgx.Conn
	b.mu.Lock()
	for uid, p := range b.pools {
		var young []idleConn
		for _, k := range p.idle {
			if time.Since(k.since) < age {
				young = append(young, k)
			} else {
				old = append(old, k.conn)
			}
		}
		p.idle = young
		if p.users == 0 && len(young) == 0 {
			delete(b.pools, uid)
		}
	}
	b.mu.Unlock()
	if len(old) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, c := range old {
		c.Close(ctx) // it only says goodbye
	}
}
