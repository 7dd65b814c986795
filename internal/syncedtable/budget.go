package syncedtable

import (
	"context"
	"sync"

	"github.com/tarndb/tarn"
)

// Connections that move rows. A synced table has at most maxConnections of
// them; so have all synced tables of one compute together, and who finds none
// free waits.
const (
	maxConnections    = 16
	computeConnection = 16
)

// budget counts the connections in use, by branch: a branch has one compute
// that writes.
type budget struct {
	mu    sync.Mutex // not held across I/O
	used  map[tarn.BranchName]int
	freed chan struct{} // closed, and made anew, when some are given back
}

func newBudget() *budget {
	return &budget{used: map[tarn.BranchName]int{}, freed: make(chan struct{})}
}

// take gives between one and want connections, waiting until one is free.
func (b *budget) take(ctx context.Context, branch tarn.BranchName, want int) (int, error) {
	want = max(1, min(want, maxConnections))
	for {
		b.mu.Lock()
		if free := computeConnection - b.used[branch]; free > 0 {
			n := min(want, free)
			b.used[branch] += n
			b.mu.Unlock()
			return n, nil
		}
		freed := b.freed
		b.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// give returns n connections.
func (b *budget) give(branch tarn.BranchName, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used[branch] -= n; b.used[branch] == 0 {
		delete(b.used, branch)
	}
	close(b.freed)
	b.freed = make(chan struct{})
}
