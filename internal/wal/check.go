package wal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/layer"
)

// Checked is what Check has read.
type Checked struct {
	Objects int
	Bytes   int64
	Broken  []error // objects that are not what they must be; each names its key
}

// Check reads every object of a timeline and compares it with its checksums and
// its key. What is broken is told, not repaired; an error is that of the store.
// Objects that are merged or pruned meanwhile are passed over. Several are on
// their way at once.
func (r *Remote) Check(ctx context.Context, id tarn.TimelineID, segmentBytes uint32) (Checked, error) {
	var c Checked
	h, err := retried(ctx, func() (holdings, error) { return r.list(ctx, id, segmentBytes) })
	if err != nil {
		return c, err
	}
	for _, key := range h.Other {
		c.Broken = append(c.Broken, &layer.CorruptError{File: key, Expected: "the key of a stretch, run or history", Found: "another"})
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, cap(r.slots)-1)) // one is left to what is written
	var mu sync.Mutex                  // guards c from here on
	look := func(key string, says func(header) error) {
		g.Go(func() error {
			n, broken, err := r.checkObject(ctx, key, says)
			mu.Lock()
			defer mu.Unlock()
			if n >= 0 {
				c.Objects, c.Bytes = c.Objects+1, c.Bytes+n
			}
			if broken != nil {
				c.Broken = append(c.Broken, broken)
			}
			return err
		})
	}
	for _, s := range h.Stretches {
		key := r.dir(id) + segmentDir + s.key(segmentBytes)
		look(key, func(h header) error { return s.isSaidBy(key, h, id, segmentBytes) })
	}
	for _, m := range h.Runs {
		key := r.dir(id) + runDir + m.key()
		look(key, func(h header) error {
			if h.Kind == kindRun && h.Timeline == id && h.Run == m.ID && h.TLI == m.TLI && h.From == m.Begin {
				return nil
			}
			return &layer.CorruptError{File: key, Expected: "the run of its key", Found: fmt.Sprintf("run %s from %s", h.Run, h.From)}
		})
	}
	for _, name := range h.Histories {
		key := r.dir(id) + historyDir + name
		look(key, func(h header) error {
			if h.Kind == kindHistory && h.Timeline == id {
				return nil
			}
			return &layer.CorruptError{File: key, Expected: "a history of timeline " + string(id), Found: fmt.Sprintf("kind %d of %s", h.Kind, h.Timeline)}
		})
	}
	err = g.Wait()
	slices.SortFunc(c.Broken, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return c, err
}

// checkObject reads an object of n bytes, -1 when it is gone, and tells what is
// broken in it.
func (r *Remote) checkObject(ctx context.Context, key string, says func(header) error) (n int64, broken, err error) {
	release, err := r.slot(ctx)
	if err != nil {
		return -1, nil, err
	}
	defer release()
	b, err := retried(ctx, func() ([]byte, error) { return r.get(ctx, key, -1) })
	if errors.Is(err, blob.ErrNotExist) {
		return -1, nil, nil
	}
	if err == nil {
		n = int64(len(b))
		var h header
		if h, _, err = r.pack.parseObject(key, b); err == nil {
			err = says(h)
		}
	}
	if errors.Is(err, layer.ErrCorrupt) {
		return n, err, nil
	}
	return n, nil, err
}
