package gateway

import (
	"context"
	"time"
)

// silence is how long a session has said nothing, in turns of the sweep, which
// are a second each.
type silence struct {
	moved    uint64 // bytes both ways at the last turn
	turns    int
	patience int // turns of silence before it is asked
	asked    bool
}

const (
	maxPatience = 8  // turns: who speaks again soon after it was asked is asked later
	soon        = 60 // turns
	askedATurn  = 50 // sessions of one endpoint that are asked at once: a question costs Postgres about a millisecond
)

// departure is a compute that went away.
type departure struct {
	born string
	seen time.Time
}

// silent finds the direct sessions that fell silent and have not been asked what
// state they have.
func (s *sessions) silent() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*session
	per := make(map[string]int)
	for _, x := range s.by {
		if x.carry == nil || x.what.Parked {
			continue
		}
		q := &x.carry.quiet
		if moved := x.in.Load() + x.out.Load(); moved != q.moved {
			if q.asked && q.turns < soon {
				q.patience = min(2*max(q.patience, 1), maxPatience)
			} else if q.asked {
				q.patience = 1
			}
			*q = silence{moved: moved, patience: max(q.patience, 1)}
			continue
		}
		if q.turns++; q.turns >= q.patience && !q.asked && per[x.what.Endpoint] < askedATurn {
			per[x.what.Endpoint]++
			q.asked = true
			all = append(all, x)
		}
	}
	for uid, d := range s.off {
		if time.Since(d.seen) > missedFor {
			delete(s.off, uid)
		}
	}
	return all
}

// missedFor is how long a compute that was found gone is not looked for again.
const missedFor = 2 * time.Second

func (s *sessions) missing(endpoint, born string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.off[endpoint]
	return d.born == born && time.Since(d.seen) < missedFor
}

func (s *sessions) miss(endpoint, born string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off[endpoint] = departure{born, time.Now()}
}

// detach counts a session as one without a backend.
func (s *sessions) detach(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.what.Parked = true
	s.less(x)
}

func (s *sessions) attach(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.what.Parked = false
	s.per[x.what.Endpoint]++
}

// of is the direct sessions of an endpoint that have a backend.
func (s *sessions) of(endpoint string) []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*session
	for _, x := range s.by {
		if x.carry != nil && !x.what.Parked && x.what.Endpoint == endpoint {
			all = append(all, x)
		}
	}
	return all
}

// hold keeps sessions from speaking while their compute is being stopped.
type hold struct {
	ctx  context.Context // until it is over
	held chan *session
}

// holdFor is how long Hold tries to find every session between two statements.
const (
	holdFor   = 2 * time.Second
	holdEvery = 20 * time.Millisecond
)

// Hold prepares an endpoint's direct sessions for the stop of its compute that
// the caller is about to ask for: those that are idle, or become idle within two
// seconds, are asked what state they have, and say nothing to it from then on.
// release, which must be called, lets them speak again: to the compute, or to the
// next one where it is gone.
func (s *Server) Hold(ctx context.Context, endpoint string) (release func()) {
	until, over := context.WithCancel(ctx)
	all := s.sessions.of(endpoint)
	h := &hold{ctx: until, held: make(chan *session, len(all))}
	waiting := make(map[*session]struct{}, len(all))
	for _, x := range all {
		if x.carry.carries() {
			x.carry.hold.Store(h)
			waiting[x] = struct{}{}
		}
	}
	end := time.NewTimer(holdFor)
	defer end.Stop()
	again := time.NewTicker(holdEvery)
	defer again.Stop()
	for first := true; len(waiting) > 0; first = false {
		if first {
			for x := range waiting {
				x.wake()
			}
		}
		select {
		case x := <-h.held:
			delete(waiting, x)
		case <-again.C:
			for x := range waiting {
				if x.carry.over.Load() {
					delete(waiting, x)
				} else if x.idle() {
					x.wake()
				}
			}
		case <-end.C:
			clear(waiting)
		case <-ctx.Done():
			clear(waiting)
		}
	}
	return func() {
		for _, x := range all {
			x.carry.hold.CompareAndSwap(h, nil)
		}
		over()
	}
}

// keep holds fromClient until the stop is over. q is the question it asked.
func (h *hold) keep(x *session, q *question) {
	select {
	case <-q.answered:
	case <-h.ctx.Done():
		return
	}
	x.carry.mu.Lock()
	keeps := x.carry.pier != nil || x.carry.state != nil && x.carry.state.why == ""
	x.carry.mu.Unlock()
	select {
	case h.held <- x:
	default: // it was held before
	}
	if keeps {
		<-h.ctx.Done()
	}
}
