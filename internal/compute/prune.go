package compute

import (
	"context"
	"fmt"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
)

const (
	pruneEvery   = time.Hour
	segmentBytes = 16 << 20 // what initdb makes unless told otherwise
)

// pruneLoop removes WAL older than each timeline's history, now and then.
func (k *maker) pruneLoop(ctx context.Context) {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.prune(ctx)
		}
	}
}

func (k *maker) prune(ctx context.Context) {
	for _, id := range k.records.ids() {
		n, err := k.pruneTimeline(ctx, id)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			k.log.Warn("WAL not pruned", "timeline", string(id), "err", err)
		case n > 0:
			k.log.Info("WAL pruned", "timeline", string(id), "count", n)
		}
	}
}

// pruneTimeline removes the archived segments that no fork inside the timeline's
// history needs: those before the redo point of the newest mark that is as old
// as the history. Younger forks begin at that mark or a later one.
func (k *maker) pruneTimeline(ctx context.Context, id tarn.TimelineID) (int, error) {
	t, ok := k.records.known(id)
	if !ok {
		return 0, nil
	}
	horizon := time.Now().Add(-t.history())
	log := k.walOf(id)
	if aged, err := k.hasAgedWAL(ctx, id, horizon); err != nil || !aged {
		return 0, err
	}
	release, err := k.holds.take(ctx, string(id))
	if err != nil {
		return 0, err
	}
	defer release()
	if _, ok := k.records.known(id); !ok {
		return 0, nil
	}
	if _, ok := k.away.has(id); ok {
		return 0, nil
	}
	st, err := k.store.Stat(ctx, id)
	if err != nil {
		return 0, err
	}
	m, ok := chooseMark(st.Marks, target{time: horizon})
	if !ok {
		return 0, nil
	}
	c, err := k.controlAt(ctx, tarn.Point{Timeline: id, Seq: m.Seq})
	if err != nil {
		return 0, err
	}
	n, err := log.Prune(ctx, c.Redo, c.SegmentBytes, horizon)
	if err != nil {
		return n, err
	}
	copies, err := k.pruneCopy(ctx, id, c, horizon)
	return n + copies, err
}

// controlAt reads pg_control as it was at a point.
func (k *maker) controlAt(ctx context.Context, p tarn.Point) (postgres.Control, error) {
	b, err := k.store.ReadFileAt(ctx, p, controlFile)
	if err != nil {
		return postgres.Control{}, fmt.Errorf("look at %s: %w", p, err)
	}
	return postgres.ParseControl(b)
}
