package gateway

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tarndb/tarn"
)

// Session is one open session as Sessions lists it.
type Session struct {
	Endpoint        string // UID
	Role            string
	Database        string
	ApplicationName string // as the client last set it
	ClientAddr      netip.AddrPort
	PID             uint32 // what the client takes for its backend's process id
	Pooled          bool   // it has a server connection only within transactions
	Started         time.Time
	Wake            time.Duration // that the login waited for the compute to start; 0 = it ran
	BytesIn         uint64        // from the client
	BytesOut        uint64
	Statements      uint64 // completed
	Busy            bool   // in a statement or a transaction
	Parked          bool   // its compute went away; the next statement wakes it and finds the session as it was
}

// sessions is every open session, found by the key that cancels it.
type sessions struct {
	mu  sync.Mutex // not held across I/O
	by  map[uint32]*session
	per map[string]int       // by endpoint, of those that have a backend
	off map[string]departure // computes known to be gone, by endpoint
}

// session is a client and its backend, or a client of the pooler.
type session struct {
	what    Session // ApplicationName is in name
	client  *client
	backend *backend       // nil when pooled; guarded by carry.mu, of the two goroutines while attached
	guest   *guest         // nil when not
	allowed []netip.Prefix // where cancel requests may come from
	secret  []byte         // of the cancel key we gave the client
	touched *touch
	name    atomic.Pointer[string]
	in, out atomic.Uint64 // bytes
	done    atomic.Uint64 // statements

	frames frames      // of fromBackend alone
	carry  *carry      // nil when pooled
	left   atomic.Bool // the client said goodbye
	ending atomic.Bool
	until  atomic.Pointer[time.Time] // set before ending
}

func newSessions() *sessions {
	return &sessions{by: make(map[uint32]*session), per: make(map[string]int), off: make(map[string]departure)}
}

// open enters a session under a new random key. The key is ours, not
// Postgres's: whoever learns it can cancel through the gateway only, and a
// process id tells nothing of the compute.
func (s *sessions) open(x *session, st *startup, endpoint string) *session {
	size := 4
	if st.minor >= 2 {
		size = 32
	}
	x.secret = make([]byte, size)
	rand.Read(x.secret) // never fails: crypto/rand ends the program instead
	app := st.param("application_name")
	x.name.Store(&app)
	x.frames.name = func(n string) { x.name.Store(&n) }
	s.mu.Lock()
	defer s.mu.Unlock()
	var pid uint32
	for pid == 0 || s.by[pid] != nil {
		var b [4]byte
		rand.Read(b[:])
		pid = binary.BigEndian.Uint32(b[:]) >> 1 // clients keep it in a signed int
	}
	x.what = Session{
		Endpoint: endpoint, Role: st.user, Database: cmp.Or(st.param("database"), st.user),
		ClientAddr: x.client.remote, PID: pid, Started: time.Now().UTC(), Pooled: x.guest != nil, Wake: x.client.woke,
	}
	s.by[pid] = x
	if !x.what.Pooled {
		s.per[endpoint]++
	}
	return x
}

func (s *sessions) close(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.by, x.what.PID)
	if !x.what.Pooled && !x.what.Parked {
		s.less(x)
	}
}

// less counts a session less that has a backend. s.mu is held.
func (s *sessions) less(x *session) {
	if s.per[x.what.Endpoint]--; s.per[x.what.Endpoint] == 0 {
		delete(s.per, x.what.Endpoint)
	}
}

// any says whether an endpoint has a session, and so a running compute.
func (s *sessions) any(endpoint string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.per[endpoint] > 0
}

// Sessions lists the open sessions, oldest first.
func (s *Server) Sessions() []Session {
	s.sessions.mu.Lock()
	all := make([]Session, 0, len(s.sessions.by))
	for _, x := range s.sessions.by {
		all = append(all, x.snapshot())
	}
	s.sessions.mu.Unlock()
	slices.SortFunc(all, func(a, b Session) int { return a.Started.Compare(b.Started) })
	return all
}

// snapshot is the session as it is now.
func (x *session) snapshot() Session {
	w := x.what
	w.ApplicationName = *x.name.Load()
	w.BytesIn, w.BytesOut, w.Statements = x.in.Load(), x.out.Load(), x.done.Load()
	if x.guest != nil {
		w.Busy = x.guest.server.Load() != nil
	} else {
		w.Busy = !x.idle()
	}
	return w
}

// cancel serves a cancel request. Whatever it finds, the client is told
// nothing: the connection closes.
func (s *Server) cancel(ctx context.Context, from netip.Addr, body []byte) error {
	if len(body) < 5 || len(body) > 4+256 {
		return nil
	}
	s.sessions.mu.Lock()
	x := s.sessions.by[binary.BigEndian.Uint32(body)]
	s.sessions.mu.Unlock()
	if x == nil || subtle.ConstantTimeCompare(x.secret, body[4:]) != 1 || !tarn.Allows(x.allowed, from) {
		return nil
	}
	if x.guest == nil {
		if b := x.attached(); b != nil {
			return b.cancel(ctx)
		}
		return nil
	}
	if on := x.guest.server.Load(); on != nil {
		return on.cancel(ctx, x.guest)
	}
	return nil
}

// greeting is what the backend said at its start with our cancel key in place
// of its own.
func (x *session) greeting(first []byte) []byte {
	from, to := x.backend.keyAt[0], x.backend.keyAt[1]
	if to == 0 { // it gave none; then there is nothing to hide or to cancel
		return first
	}
	out := x.appendKey(append([]byte(nil), first[:from]...))
	return append(out, first[to:]...)
}

// appendKey appends BackendKeyData.
func (x *session) appendKey(out []byte) []byte {
	out = append(out, 'K')
	out = binary.BigEndian.AppendUint32(out, uint32(8+len(x.secret)))
	out = binary.BigEndian.AppendUint32(out, x.what.PID)
	return append(out, x.secret...)
}
