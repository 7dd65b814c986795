package wal

import (
	"context"
	"sync"
	"time"
)

// pacer lets bytes pass at a rate. What is asked for at once is paid for
// afterwards, by whoever comes next.
type pacer struct {
	rate int64 // bytes a second; 0 = no limit

	mu   sync.Mutex // guards free; not held while waiting
	free time.Time  // when all that passed so far is paid for
}

func (p *pacer) wait(ctx context.Context, n int) error {
	if p.rate <= 0 {
		return nil
	}
	now := time.Now()
	p.mu.Lock()
	at := p.free
	if at.Before(now) {
		at = now
	}
	p.free = at.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	p.mu.Unlock()
	return pause(ctx, at.Sub(now))
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
