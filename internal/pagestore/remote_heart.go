package pagestore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
)

// heart keeps this node alive in the bucket, and watches others. A node is
// alive while its object changes; how long it did not is measured by the clock
// of who watches, so that no two clocks are ever compared.
//
// A node counts itself alive for two thirds of a lease from before its last
// heartbeat was sent, others count it dead after a whole one from when they saw
// it: it has stopped before anybody takes over.
type heart struct {
	r     *remote
	slog  *slog.Logger
	began time.Time    // until counts from here, by the monotonic clock
	until atomic.Int64 // alive until
	boot  string       // tells this process from others with the node's name

	// prove, when set, makes sure that what this node holds is still its own;
	// it is asked when the heart stood still too long.
	prove func(context.Context) error

	beating chan struct{} // holds one token while a heartbeat is sent

	mu      sync.Mutex // guards what follows; never held across I/O
	etag    string
	count   uint64
	again   chan struct{} // closed at the next heartbeat
	watched map[string]sighting
}

// sighting is when another node's object was first seen as it is.
type sighting struct {
	etag  string
	since time.Time
}

func newHeart(r *remote, log *slog.Logger) *heart {
	return &heart{r: r, slog: log, began: time.Now(), boot: rand.Text(), beating: make(chan struct{}, 1),
		again: make(chan struct{}), watched: map[string]sighting{}}
}

func (h *heart) alive() bool { return time.Since(h.began) < time.Duration(h.until.Load()) }

// beat sends one heartbeat.
//
//  1. replace the node's object              others begin to count anew
//  2. when it stood still too long: read     what was taken meanwhile is lost
//     the manifests of what is held
//  3. count ourselves alive
func (h *heart) beat(ctx context.Context) error {
	select {
	case h.beating <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-h.beating }()
	ctx, cancel := context.WithTimeout(ctx, h.r.o.Lease)
	defer cancel()
	sent := time.Since(h.began)
	key := remoteNodes + h.r.node
	h.mu.Lock()
	etag, count := h.etag, h.count+1
	h.mu.Unlock()
	if etag == "" {
		o, err := h.r.blobs.Head(ctx, key)
		if err != nil && !errors.Is(err, blob.ErrNotExist) {
			return fmt.Errorf("look at own heartbeat: %w", err)
		}
		etag = o.ETag
	}
	etag, err := h.r.swap(ctx, key, etag, fmt.Appendf(nil, "tarn node 1\n%s\n%s\n%d\n", h.r.node, h.boot, count))
	h.mu.Lock()
	h.etag, h.count = etag, count // "" after an error: looked up again
	h.mu.Unlock()
	if err != nil {
		return fmt.Errorf("send heartbeat: %w", err)
	}
	if !h.alive() && h.prove != nil {
		if err := h.prove(ctx); err != nil {
			return fmt.Errorf("prove what is held: %w", err)
		}
	}
	h.until.Store(int64(sent + h.r.o.Lease*2/3))
	h.mu.Lock()
	close(h.again)
	h.again = make(chan struct{})
	h.mu.Unlock()
	return nil
}

// run beats until ctx ends.
func (h *heart) run(ctx context.Context) {
	tick := time.NewTicker(h.r.o.Lease / heartbeatParts)
	defer tick.Stop()
	for {
		if err := h.beat(ctx); err != nil && ctx.Err() == nil {
			h.slog.Warn("heartbeat", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// wait waits until the node counts itself alive, for as long as a lease.
func (h *heart) wait() error {
	if h.alive() {
		return nil
	}
	timer := time.NewTimer(h.r.o.Lease)
	defer timer.Stop()
	for {
		h.mu.Lock()
		again := h.again
		h.mu.Unlock()
		if h.alive() {
			return nil
		}
		select {
		case <-again:
		case <-timer.C:
			return tarn.Unavailable("no heartbeat reached %s", h.r.blobs.URL())
		}
	}
}

// sight notes another node's heartbeat. changed says that there was one since
// it was last seen.
func (h *heart) sight(ctx context.Context, node string) (seen sighting, changed bool, err error) {
	o, err := h.r.blobs.Head(ctx, remoteNodes+node)
	if err != nil && !errors.Is(err, blob.ErrNotExist) {
		return sighting{}, false, fmt.Errorf("look at node %s: %w", node, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	seen, known := h.watched[node]
	if !known || seen.etag != o.ETag {
		changed = known
		seen = sighting{o.ETag, time.Now()}
		h.watched[node] = seen
	}
	return seen, changed, nil
}

// silent waits until a node has been silent for a lease; KindConflict as soon
// as it is not.
func (h *heart) silent(ctx context.Context, node string) error {
	for {
		seen, changed, err := h.sight(ctx, node)
		if err != nil {
			return err
		}
		if changed {
			return tarn.Conflict("node %s holds it", node).WithHint("end it there, or wait until it is gone")
		}
		left := h.r.o.Lease - time.Since(seen.since)
		if left <= 0 {
			return nil
		}
		timer := time.NewTimer(max(min(left, h.r.o.Lease/heartbeatParts), remoteWaiting))
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
	}
}
