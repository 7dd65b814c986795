package compute

import (
	"context"
	"sync"
)

// holds lets one at a time do something to a timeline that must not meet
// another: start or stop its compute, fork from it, delete it. Unlike a mutex a
// hold is kept across I/O and a wait for it ends with the context. A child's
// hold may be taken before its parent's, never the other way.
type holds struct {
	mu sync.Mutex
	m  map[string]*hold
}

type hold struct {
	turn  chan struct{} // holds one token
	users int           // holder and waiters; guarded by holds.mu
}

func (h *holds) take(ctx context.Context, key string) (release func(), err error) {
	h.mu.Lock()
	k := h.m[key]
	if k == nil {
		k = &hold{turn: make(chan struct{}, 1)}
		h.m[key] = k
	}
	k.users++
	h.mu.Unlock()
	leave := func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if k.users--; k.users == 0 {
			delete(h.m, key)
		}
	}
	select {
	case k.turn <- struct{}{}:
		return func() {
			<-k.turn
			leave()
		}, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
