package pagestore

import (
	"time"

	"github.com/tarndb/tarn"
)

// Lease is what a store has of a timeline in the bucket.
type Lease struct {
	// Epoch grows whenever a node takes the timeline, and orders what several
	// nodes write of it elsewhere. 0 = there is no bucket.
	Epoch uint64
	// Held says that the timeline is this store's to change.
	Held bool
	// Alone says that nobody else knows the timeline: the bucket does not have it.
	Alone bool
}

// Lease tells what this store has of a timeline, without asking the bucket;
// nothing of one that it does not know.
func (l Lines) Lease(id tarn.TimelineID) Lease {
	l.s.mu.Lock()
	t := l.s.timelines[id]
	l.s.mu.Unlock()
	if t == nil {
		return Lease{}
	}
	return t.remote.lease()
}

func (l *remoteLine) lease() Lease {
	if l == nil {
		return Lease{Held: true, Alone: true}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := Lease{Held: l.state == lineFresh || l.state == lineHeld, Alone: l.man == nil}
	if n.Alone {
		n.Epoch = l.first + 1
	} else {
		n.Epoch = l.man.Epoch
	}
	return n
}

// Alive is how long this store may still count itself alive in the bucket when no
// heartbeat reaches it any more, and the lease that others wait; false without a
// bucket. It is negative once volumes take no changes.
func (l Lines) Alive() (left, lease time.Duration, ok bool) {
	if l.s.remote == nil {
		return 0, 0, false
	}
	h := l.s.remote.heart
	return time.Duration(h.until.Load()) - time.Since(h.began), l.s.remote.o.Lease, true
}
