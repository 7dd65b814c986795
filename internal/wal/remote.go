package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/layer"
)

// RemoteOptions of a Remote.
type RemoteOptions struct {
	Prefix string        // of all its keys; "" = "wal"
	Every  time.Duration // how often a growing segment is copied; 0 = 1 s
	// Slots is how many objects are on their way at once, over all timelines;
	// each takes up to 8 MiB of memory. 0 = 4.
	Slots          int
	BytesPerSecond int64        // at most this much is uploaded, over all timelines; 0 = no limit
	Log            *slog.Logger // nil = none
}

// Remote keeps WAL of many timelines in an object store. It is safe for
// concurrent use. All it knows is in the store: nothing local is needed to go
// on after a crash.
type Remote struct {
	store blob.Store
	o     RemoteOptions
	log   *slog.Logger
	pack  *packer
	slots chan struct{}
	pace  pacer

	mu    sync.Mutex // guards began; not held across I/O
	began map[tarn.TimelineID]uint32
}

// nextRun numbers a run behind all that the store has under its lease, and all
// that this process began: what those have begun to write may arrive later than
// it was listed. For the same reason numbers are at least the seconds since
// 1970: a process that was killed may have something on its way, too. Runs under
// one lease are all of one computer, and of its clock.
func (r *Remote) nextRun(id tarn.TimelineID, listed uint32) uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	no := max(listed, r.began[id]) + 1
	no = max(no, uint32(time.Now().Unix()))
	r.began[id] = no
	return no
}

// NewRemote is the WAL kept in a store.
func NewRemote(store blob.Store, o RemoteOptions) (*Remote, error) {
	if o.Prefix == "" {
		o.Prefix = "wal"
	}
	if o.Every == 0 {
		o.Every = time.Second
	}
	if o.Slots == 0 {
		o.Slots = 4
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	pack, err := newPacker()
	if err != nil {
		return nil, fmt.Errorf("open remote WAL: %w", err)
	}
	return &Remote{store: store, o: o, log: o.Log, pack: pack, slots: make(chan struct{}, o.Slots), pace: pacer{rate: o.BytesPerSecond}, began: map[tarn.TimelineID]uint32{}}, nil
}

func (r *Remote) dir(id tarn.TimelineID) string { return r.o.Prefix + "/" + string(id) }

// holdings are the objects of one timeline.
type holdings struct {
	Runs      []run
	Stretches []stretch
	Histories []string // names of the files
	Other     []string // keys nobody understands
}

// list reads what there is of a timeline.
func (r *Remote) list(ctx context.Context, id tarn.TimelineID, size uint32) (holdings, error) {
	var h holdings
	dir := r.dir(id)
	for o, err := range r.store.List(ctx, dir+"/", "") {
		if err != nil {
			return h, fmt.Errorf("list WAL of timeline %s: %w", id, err)
		}
		rest := strings.TrimPrefix(o.Key, dir)
		if key, ok := strings.CutPrefix(rest, runDir); ok {
			if m, ok := parseRun(key); ok {
				h.Runs = append(h.Runs, m)
				continue
			}
		}
		if key, ok := strings.CutPrefix(rest, segmentDir); ok {
			if s, ok := parseStretch(key, size, o); ok {
				h.Stretches = append(h.Stretches, s)
				continue
			}
		}
		if name, ok := strings.CutPrefix(rest, historyDir); ok && isHistory(name) {
			h.Histories = append(h.Histories, name)
			continue
		}
		h.Other = append(h.Other, o.Key)
	}
	return h, nil
}

// runs reads the runs of a timeline only.
func (r *Remote) runs(ctx context.Context, id tarn.TimelineID) ([]run, error) {
	var all []run
	prefix := r.dir(id) + runDir
	for o, err := range r.store.List(ctx, prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list runs of timeline %s: %w", id, err)
		}
		if m, ok := parseRun(strings.TrimPrefix(o.Key, prefix)); ok {
			all = append(all, m)
		}
	}
	return all, nil
}

// Timelines lists the timelines of which the store holds WAL.
func (r *Remote) Timelines(ctx context.Context) ([]tarn.TimelineID, error) {
	var all []tarn.TimelineID
	prefix, after := r.o.Prefix+"/", ""
	for {
		id, err := r.nextTimeline(ctx, prefix, after)
		if err != nil {
			return all, fmt.Errorf("list timelines with WAL: %w", err)
		}
		if id == "" {
			return all, nil
		}
		if t, err := tarn.ParseTimelineID(id); err == nil {
			all = append(all, t)
		}
		after = prefix + id + "/~" // behind every key of it
	}
}

func (r *Remote) nextTimeline(ctx context.Context, prefix, after string) (string, error) {
	for o, err := range r.store.List(ctx, prefix, after) {
		if err != nil {
			return "", err
		}
		id, _, _ := strings.Cut(strings.TrimPrefix(o.Key, prefix), "/")
		return id, nil
	}
	return "", nil
}

// put writes an object that nobody else writes: its key names the run. What a
// lost answer left there is read back; anything but these bytes is replaced.
func (r *Remote) put(ctx context.Context, key string, b []byte) error {
	if err := r.pace.wait(ctx, len(b)); err != nil {
		return err
	}
	err := r.store.PutIfAbsent(ctx, key, b)
	if err == nil || !errors.Is(err, blob.ErrAmbiguous) && !errors.Is(err, blob.ErrExists) {
		return err
	}
	there, rerr := r.get(ctx, key, -1)
	switch {
	case rerr == nil && bytes.Equal(there, b):
		return nil
	case rerr == nil:
		return r.store.Put(ctx, key, bytes.NewReader(b))
	case errors.Is(rerr, blob.ErrNotExist):
		return err // it did not happen; the next try writes it
	}
	return errors.Join(err, rerr)
}

// get reads the first n bytes of an object, or all of it.
func (r *Remote) get(ctx context.Context, key string, n int64) (b []byte, err error) {
	in, err := r.store.Get(ctx, key, 0, n)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	const most = headerBytes + maxPayload
	b, err = io.ReadAll(io.LimitReader(in, most+1))
	if err == nil && len(b) > most {
		return nil, &layer.CorruptError{File: key, Offset: most, Expected: "the end of the object", Found: "more"}
	}
	return b, err
}

// read reads a stretch and checks that it is what its key says.
func (r *Remote) read(ctx context.Context, id tarn.TimelineID, s stretch, size uint32) (header, []byte, error) {
	key := r.dir(id) + segmentDir + s.key(size)
	b, err := r.get(ctx, key, -1)
	if err != nil {
		return header{}, nil, err
	}
	h, payload, err := r.pack.parseObject(key, b)
	if err != nil {
		return h, nil, err
	}
	return h, payload, s.isSaidBy(key, h, id, size)
}

// isSaidBy refuses a header that tells of another stretch.
func (s stretch) isSaidBy(key string, h header, id tarn.TimelineID, size uint32) error {
	if h.Kind == kindStretch && h.Timeline == id && h.Run == s.Run && h.TLI == s.TLI && h.SegmentBytes == size && h.From == s.From && h.To == s.To {
		return nil
	}
	return &layer.CorruptError{
		File: key, Offset: 0, Expected: fmt.Sprintf("timeline %s TLI %d %s to %s of run %s", id, s.TLI, s.From, s.To, s.Run),
		Found: fmt.Sprintf("timeline %s TLI %d %s to %s of run %s", h.Timeline, h.TLI, h.From, h.To, h.Run),
	}
}

// slot takes one of the places for an object on its way.
func (r *Remote) slot(ctx context.Context) (release func(), err error) {
	select {
	case r.slots <- struct{}{}:
		return func() { <-r.slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
