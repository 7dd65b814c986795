package gateway

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tarndb/tarn"
)

// touchEvery is how long a compute stays awake after it heard of its clients,
// at least: the node freezes one that heard nothing for twice as long.
const touchEvery = time.Second

// touches tell computes that their clients said something. A compute may be
// frozen under open sessions; it thaws when it hears of it. What was sent
// meanwhile waits in its sockets.
type touches struct {
	began time.Time // of the clock below

	mu sync.Mutex // not held across I/O
	by map[string]*touch
}

// touch is one endpoint's.
type touch struct {
	name tarn.EndpointName
	at   atomic.Int64 // when it was last told, on the clock of touches
}

func newTouches() *touches { return &touches{began: time.Now(), by: make(map[string]*touch)} }

// now is the time on a clock that only goes forward.
func (t *touches) now() int64 { return int64(time.Since(t.began)) }

// of is the endpoint's, which was woken just now.
func (t *touches) of(e tarn.Endpoint) *touch {
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.by[e.UID]
	if one == nil || one.name != e.Name {
		one = &touch{name: e.Name}
		t.by[e.UID] = one
	}
	one.at.Store(t.now())
	return one
}

// touch tells the session's compute that the client speaks, unless it heard of
// a client of the endpoint within touchEvery. It does not wait.
func (x *session) touch(p []byte) {
	t := x.touched
	if t == nil || len(p) == len(terminate) && p[0] == terminate[0] { // nobody waits for an answer
		return
	}
	s := x.client.s
	last, at := t.at.Load(), s.touches.now()
	if at-last < int64(touchEvery) || !t.at.CompareAndSwap(last, at) {
		return
	}
	s.joined.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.c.Wake)
		defer cancel()
		if _, err := s.c.Router.Wake(ctx, t.name); err != nil {
			t.at.CompareAndSwap(at, last) // whoever speaks next tries again
			s.log.Warn("gateway could not wake a compute under its sessions", "endpoint", x.what.Endpoint, "err", err)
		}
	})
}
