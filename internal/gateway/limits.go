package gateway

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// bookSize bounds how many keys each of the limits remembers.
const bookSize = 8192

// failures remembers wrong passwords, so that guessing becomes slow: after a
// few free ones every attempt on the same role from the same address waits,
// twice as long each time.
type failures struct {
	mu sync.Mutex
	by map[failKey]failCount
}

type failKey struct {
	endpoint, role string
	from           netip.Addr
}

type failCount struct {
	n    int
	last time.Time
}

const (
	freeFailures = 5
	firstDelay   = 250 * time.Millisecond
	maxDelay     = 4 * time.Second
	failMemory   = 5 * time.Minute
)

func newFailures() *failures { return &failures{by: make(map[failKey]failCount)} }

// delay is how long an attempt must wait now.
func (f *failures) delay(k failKey) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.by[k]
	if c.n < freeFailures || time.Since(c.last) > failMemory {
		return 0
	}
	return min(firstDelay<<min(c.n-freeFailures, 10), maxDelay)
}

func (f *failures) add(k failKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	c := f.by[k]
	if now.Sub(c.last) > failMemory {
		c.n = 0
	}
	if len(f.by) >= bookSize && c.n == 0 {
		makeRoom(f.by, func(c failCount) bool { return now.Sub(c.last) > failMemory })
	}
	f.by[k] = failCount{n: c.n + 1, last: now}
}

func (f *failures) forget(k failKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.by, k)
}

// makeRoom drops the entries that are over, and when there are none, any
// eighth of all: what an attacker fills cannot grow, and honest keys are only
// slowed less.
func makeRoom[K comparable, V any](m map[K]V, over func(V) bool) {
	for k, v := range m {
		if over(v) {
			delete(m, k)
		}
	}
	for k := range m {
		if len(m) < bookSize*7/8 {
			return
		}
		delete(m, k)
	}
}

// wakeLimit bounds how often one address can have suspended computes woken
// before it has proved who it is. A proof gives the allowance back, and
// whoever comes while a compute is being woken already costs nothing.
type wakeLimit struct {
	mu     sync.Mutex
	by     map[netip.Addr]bucket
	waking map[string]int // clients waiting for an endpoint, by its UID
}

type bucket struct {
	tokens float64
	at     time.Time
}

const (
	wakeBurst  = 20
	wakeRefill = time.Minute // one wake
)

func newWakeLimit() *wakeLimit {
	return &wakeLimit{by: make(map[netip.Addr]bucket), waking: make(map[string]int)}
}

func (b bucket) now(t time.Time) float64 {
	return min(wakeBurst, b.tokens+float64(t.Sub(b.at))/float64(wakeRefill))
}

// permit is one allowed wake.
type permit struct {
	w    *wakeLimit
	from netip.Addr
	uid  string
	paid bool
}

// take waits until the address may have the endpoint woken.
func (w *wakeLimit) take(ctx context.Context, from netip.Addr, uid string) (*permit, error) {
	p := &permit{w: w, from: network(from), uid: uid}
	w.mu.Lock()
	p.paid = w.waking[uid] == 0
	w.waking[uid]++
	w.mu.Unlock()
	if !p.paid {
		return p, nil
	}
	if err := wait(ctx, w.add(p.from, -1)); err != nil {
		p.woken()
		p.refund()
		return nil, err
	}
	return p, nil
}

// woken says that the wake is over, well or not.
func (p *permit) woken() {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if p.w.waking[p.uid]--; p.w.waking[p.uid] == 0 {
		delete(p.w.waking, p.uid)
	}
}

// refund gives the allowance back.
func (p *permit) refund() {
	if p.paid {
		p.paid = false
		p.w.add(p.from, 1)
	}
}

// add changes the allowance and returns how long it stays below zero.
func (w *wakeLimit) add(from netip.Addr, n float64) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	b, ok := w.by[from]
	if !ok {
		b = bucket{tokens: wakeBurst, at: now}
		if len(w.by) >= bookSize {
			makeRoom(w.by, func(b bucket) bool { return b.now(now) >= wakeBurst })
		}
	}
	b = bucket{tokens: min(wakeBurst, b.now(now)+n), at: now}
	w.by[from] = b
	return max(0, time.Duration(-b.tokens*float64(wakeRefill)))
}

// network is what one client can easily vary: an IPv4 address, an IPv6 /64.
func network(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if a.Is6() {
		p, _ := a.WithZone("").Prefix(64) // 64 is always a valid length of IPv6
		return p.Addr()
	}
	return a
}
