package wal

import (
	"context"
	"errors"
	"fmt"

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
// Objects that are merged or pruned meanwhile are passed over.
func (r *Remote) Check(ctx context.Context, id tarn.TimelineID, segmentBytes uint32) (Checked, error) {
	var c Checked
	h, err := retried(ctx, func() (holdings, error) { return r.list(ctx, id, segmentBytes) })
	if err != nil {
		return c, err
	}
	for _, key := range h.Other {
		c.Broken = append(c.Broken, &layer.CorruptError{File: key, Expected: "the key of a stretch, run or history", Found: "another"})
	}
	for _, s := range h.Stretches {
		key := r.dir(id) + segmentDir + s.key(segmentBytes)
		if err := r.checkObject(ctx, &c, key, func(h header) error { return s.isSaidBy(key, h, id, segmentBytes) }); err != nil {
			return c, err
		}
	}
	for _, m := range h.Runs {
		key := r.dir(id) + runDir + m.key()
		err := r.checkObject(ctx, &c, key, func(h header) error {
			if h.Kind == kindRun && h.Timeline == id && h.Run == m.ID && h.TLI == m.TLI && h.From == m.Begin {
				return nil
			}
			return &layer.CorruptError{File: key, Expected: "the run of its key", Found: fmt.Sprintf("run %s from %s", h.Run, h.From)}
		})
		if err != nil {
			return c, err
		}
	}
	for _, name := range h.Histories {
		key := r.dir(id) + historyDir + name
		err := r.checkObject(ctx, &c, key, func(h header) error {
			if h.Kind == kindHistory && h.Timeline == id {
				return nil
			}
			return &layer.CorruptError{File: key, Expected: "a history of timeline " + string(id), Found: fmt.Sprintf("kind %d of %s", h.Kind, h.Timeline)}
		})
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

func (r *Remote) checkObject(ctx context.Context, c *Checked, key string, says func(header) error) error {
	release, err := r.slot(ctx)
	if err != nil {
		return err
	}
	defer release()
	b, err := retried(ctx, func() ([]byte, error) { return r.get(ctx, key, -1) })
	if errors.Is(err, blob.ErrNotExist) {
		return nil
	}
	if err == nil {
		c.Objects, c.Bytes = c.Objects+1, c.Bytes+int64(len(b))
		var h header
		if h, _, err = r.pack.parseObject(key, b); err == nil {
			err = says(h)
		}
	}
	if errors.Is(err, layer.ErrCorrupt) {
		c.Broken = append(c.Broken, err)
		return nil
	}
	return err
}
