package pagestore

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tarndb/tarn"
)

// registry finds timelines and keeps their states.
type registry struct {
	mu        sync.Mutex // guards what follows and the state of every timeline; never held across I/O
	timelines map[tarn.TimelineID]*timeline
	closed    bool
	inBucket  bool // timelines are in a bucket too
}

// timeline is one timeline of the store.
//
//	making ──▶ idle ⇄ held
//	  │         │  ╲
//	  │         │   ghost
//	  ▼         ▼  ╱
//	gone ◀── deleting
//
// A ghost is a timeline that was deleted while others began in it: nobody sees
// it any more, but its files stay until the last of those is gone.
//
// Whoever changes the state, or reads or rewrites the files of an idle
// timeline, has its turn. Turns are taken from a child to its parents.
type timeline struct {
	id     tarn.TimelineID
	turn   chan struct{} // holds one token while somebody has the turn
	remote *remoteLine   // nil without a bucket

	// Guarded by registry.mu.
	parent   tarn.Point // zero without; does not change once it is made
	state    timelineState
	man      *manifest // replaced, never changed
	children int
	volume   *Volume  // while held
	dead     int64    // what is garbage, about, while it is idle
	due      bool     // to be collected whatever the estimate says
	loose    int64    // what stands out of order, about, while it is idle
	order    progress // of putting it in order
	// notBefore is when the background looks at it again.
	notBefore time.Time
	nextMap   uint32 // at least; numbers are never used again
	nextImage uint32 // the same of images
	index     *index // of a new fork, at its beginning; until it is opened
	used      uint64 // shelf.clock when index was set
}

type timelineState uint8

const (
	stateMaking timelineState = iota
	stateIdle
	stateHeld
	stateGhost
	stateDeleting
	stateGone
)

// nextStates has the transitions there are; see timeline.
func nextStates(s timelineState) []timelineState {
	switch s {
	case stateMaking:
		return []timelineState{stateIdle, stateGone}
	case stateIdle:
		return []timelineState{stateHeld, stateGhost, stateDeleting}
	case stateHeld:
		return []timelineState{stateIdle}
	case stateGhost:
		return []timelineState{stateDeleting}
	case stateDeleting:
		return []timelineState{stateGone, stateIdle, stateGhost} // back when the files could not be renamed
	}
	return nil
}

// enter changes the state. The caller holds registry.mu.
func (t *timeline) enter(s timelineState) {
	if !slices.Contains(nextStates(t.state), s) {
		panic(fmt.Sprintf("pagestore: timeline %s goes from state %d to %d", t.id, t.state, s))
	}
	t.state = s
}

func (t *timeline) dir(s *shelf) string { return filepath.Join(s.manifests.dir, string(t.id)) }

// find gives a timeline that exists.
func (r *registry) find(id tarn.TimelineID) (*timeline, error) {
	t, err := r.findAny(id)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.state == stateGhost {
		return nil, tarn.NotFound("timeline %s does not exist", id)
	}
	return t, nil
}

// findAny gives a timeline that exists or is a ghost.
func (r *registry) findAny(id tarn.TimelineID) (*timeline, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, tarn.Unavailable("page store is closed")
	}
	t := r.timelines[id]
	if t == nil || t.state == stateMaking || t.state == stateDeleting {
		return nil, tarn.NotFound("timeline %s does not exist", id)
	}
	return t, nil
}

// floor is the highest seq of a timeline at which another began: its log once
// reached there.
func (r *registry) floor(id tarn.TimelineID) (seq tarn.Seq) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.timelines {
		if t.parent.Timeline == id {
			seq = max(seq, t.parent.Seq)
		}
	}
	return seq
}

// take finds a timeline and waits for its turn; the caller calls t.pass.
func (r *registry) take(ctx context.Context, id tarn.TimelineID) (*timeline, error) {
	t, err := r.find(id)
	if err != nil {
		return nil, err
	}
	if err := r.wait(ctx, t); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.state == stateGhost {
		<-t.turn
		return nil, tarn.NotFound("timeline %s does not exist", id)
	}
	return t, nil
}

// wait waits for the turn of a timeline or ghost; the caller calls t.pass.
func (r *registry) wait(ctx context.Context, t *timeline) error {
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.state == stateGone {
		<-t.turn
		return tarn.NotFound("timeline %s does not exist", t.id)
	}
	return nil
}

func (t *timeline) pass() { <-t.turn }

// beginAt says where a timeline that is being made will begin. The caller has
// the turn of who owns the point.
func (r *registry) beginAt(t *timeline, p tarn.Point) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.parent = p
}

// reserveID claims the id of a timeline to be made, and keeps its parent from
// being deleted meanwhile. The caller has the new timeline's turn.
func (r *registry) reserveID(id tarn.TimelineID, parent tarn.TimelineID) (*timeline, error) {
	if _, err := tarn.ParseTimelineID(string(id)); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, tarn.Unavailable("page store is closed")
	}
	if r.timelines[id] != nil {
		return nil, tarn.Conflict("timeline %s exists", id)
	}
	if parent != "" {
		p := r.timelines[parent]
		if p == nil || p.state != stateIdle && p.state != stateHeld {
			return nil, tarn.NotFound("timeline %s does not exist", parent)
		}
		p.children++
	}
	t := &timeline{id: id, turn: make(chan struct{}, 1), state: stateMaking}
	if r.inBucket {
		t.remote = newRemoteLine()
	}
	t.turn <- struct{}{}
	r.timelines[id] = t
	return t, nil
}
