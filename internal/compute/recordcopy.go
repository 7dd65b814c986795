package compute

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
)

// recordCopies keeps the records of complete timelines in the object store too,
// as timelines/<id>.json, a moment behind the directory. What the directory says
// is right; only an empty one is filled from there. A copy goes when its record
// was withdrawn here (records.gone), never because there is none here: another
// computer may have made it. nil without a store.
type recordCopies struct {
	store   blob.Store
	records *records
	log     *slog.Logger

	turn chan struct{} // holds one token while a record is put: an older one must not arrive last

	mu   sync.Mutex // guards sent; not held across I/O
	sent map[tarn.TimelineID]timeline
}

func newRecordCopies(store blob.Store, r *records, log *slog.Logger) *recordCopies {
	return &recordCopies{store: store, records: r, log: log, turn: make(chan struct{}, 1), sent: map[tarn.TimelineID]timeline{}}
}

const (
	recordPrefix    = "timelines/"
	recordMost      = 1 << 16         // bytes of a record
	recordEvery     = 5 * time.Second // how often copies are tried again
	recordExtension = ".json"
)

// isCopied tells whether the object store has a timeline's record as it is.
func (c *recordCopies) isCopied(t timeline) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent, ok := c.sent[t.ID]
	return ok && sent == t
}

// run copies what changed until ctx ends.
func (c *recordCopies) run(ctx context.Context) {
	if c == nil {
		return
	}
	tick := time.NewTicker(recordEvery)
	defer tick.Stop()
	failed := false
	for {
		err := c.copy(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !failed {
			c.log.Warn("records of timelines not copied", "err", err)
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.records.changed:
		}
	}
}

// copyOne puts the record of a timeline as it is now, unless it is there so.
func (c *recordCopies) copyOne(ctx context.Context, id tarn.TimelineID) error {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-c.turn }()
	t, ok := c.records.known(id)
	if !ok || c.isCopied(t) {
		return nil
	}
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if err := c.store.Put(ctx, recordKey(id), bytes.NewReader(append(b, '\n'))); err != nil {
		return fmt.Errorf("copy record of timeline %s: %w", id, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent[id] = t
	return nil
}

// recordPatience is how long who makes a timeline waits for its record to be in
// the object store. One that is not reached stops nobody.
const recordPatience = 2 * time.Second

// copyAtOnce puts the record of a timeline that was just made. With it, the
// timeline can be made again when this computer is lost before its pages have
// followed (remake).
func (c *recordCopies) copyAtOnce(ctx context.Context, t timeline) {
	if c == nil {
		return
	}
	limit, cancel := context.WithTimeout(ctx, recordPatience)
	defer cancel()
	if err := c.copyOne(limit, t.ID); err != nil {
		c.log.Warn("record of a new timeline not copied yet", "timeline", string(t.ID), "err", err)
	}
}

func (c *recordCopies) list(ctx context.Context) (map[tarn.TimelineID]bool, error) {
	stored := map[tarn.TimelineID]bool{}
	for o, err := range c.store.List(ctx, recordPrefix, "") {
		if err != nil {
			return nil, err
		}
		if id, ok := parseRecordKey(o.Key); ok {
			stored[id] = true
		}
	}
	return stored, nil
}

func parseRecordKey(key string) (tarn.TimelineID, bool) {
	name, ok := strings.CutSuffix(strings.TrimPrefix(key, recordPrefix), recordExtension)
	id, err := tarn.ParseTimelineID(name)
	return id, ok && err == nil
}

func recordKey(id tarn.TimelineID) string { return recordPrefix + string(id) + recordExtension }

// copy makes the object store say what the directory says. A crash anywhere
// leaves it older than the directory, which the next run finds out.
func (c *recordCopies) copy(ctx context.Context) error {
	for _, id := range c.records.ids() {
		if err := c.copyOne(ctx, id); err != nil {
			return err
		}
	}
	gone, err := c.records.gone()
	if err != nil {
		return err
	}
	for _, id := range gone {
		if c.records.isRecorded(id) {
			continue // made anew
		}
		if err := c.store.Delete(ctx, recordKey(id)); err != nil {
			return fmt.Errorf("remove copied record of timeline %s: %w", id, err)
		}
		if err := c.records.forget(id); err != nil {
			return err
		}
		c.mu.Lock()
		delete(c.sent, id)
		c.mu.Unlock()
	}
	return nil
}

// fetch fills an empty directory with the records in the object store. It
// returns how many.
//
//  1. Write them to a directory of another name.  crash: litter, made anew
//  2. Remove the empty one.                       crash: Open makes it anew
//  3. Give the other its name.                    crash: all of them, or none
func (c *recordCopies) fetch(ctx context.Context) (int, error) {
	if c == nil {
		return 0, nil
	}
	n, err := c.fill(ctx)
	if err != nil {
		return 0, fmt.Errorf("read records of timelines in %s: %w", c.store.URL(), err)
	}
	return n, nil
}

func (c *recordCopies) fill(ctx context.Context) (int, error) {
	dir := c.records.dir
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		return 0, err
	}
	stored, err := c.list(ctx)
	if err != nil || len(stored) == 0 {
		return 0, err
	}
	fresh := dir + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.Mkdir(fresh, 0o755)); err != nil {
		return 0, err
	}
	for id := range stored {
		b, err := readSmall(ctx, c.store, recordKey(id))
		if errors.Is(err, blob.ErrNotExist) {
			continue
		}
		if err == nil {
			err = writeSynced(filepath.Join(fresh, string(id)+recordExtension), b)
		}
		if err != nil {
			return 0, err
		}
	}
	if err := errors.Join(syncDir(fresh), os.Remove(dir), os.Rename(fresh, dir)); err != nil {
		return 0, err
	}
	return len(stored), syncDir(filepath.Dir(dir))
}

func readSmall(ctx context.Context, s blob.Store, key string) (b []byte, err error) {
	r, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(io.LimitReader(r, recordMost))
}
