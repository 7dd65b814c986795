package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/blob"
)

// One data directory at a time works with a store. Which one says an object
// that its supervisor replaces every few seconds. Nobody compares clocks: a
// holder is gone when its object did not change for a lease of whoever waits.
// Page store and control database have fences of their own below; this one is
// there to refuse at once, and to say who it is.
const (
	holderKey   = "holder.json"
	holderParts = 6 // signs of life in a lease
)

// holder is that object.
type holder struct {
	Node  string    `json:"node"` // "" = it was left in order
	Last  string    `json:"last"` // node that has or had it; "" = a Tarn of before this was noted
	Host  string    `json:"host"`
	Data  string    `json:"data"`
	Since time.Time `json:"since"`
	Seen  time.Time `json:"seen"` // by its own clock: for people
	Count uint64    `json:"count"`
}

func (h holder) String() string {
	return fmt.Sprintf("%s on %s since %s, last seen %s", h.Data, h.Host, h.Since.Format(time.RFC3339), h.Seen.Format(time.RFC3339))
}

// holding is the right to work with a store. nil is that to work without one.
type holding struct {
	store blob.Store
	lease time.Duration
	log   *slog.Logger

	mu   sync.Mutex // guards what follows; held while the object is replaced
	self holder
	etag string
}

// join opens the object store that was asked for, makes sure that it can be
// used and belongs to the data directory, and takes it.
func (c *serverConfig) join(ctx context.Context, tell func(string), log *slog.Logger) (*holding, error) {
	if c.storage.Place == "" {
		return nil, nil
	}
	b, err := c.storage.open(ctx)
	if err == nil {
		err = probe(ctx, b)
	}
	if tarn.KindOf(err) == tarn.KindUnavailable {
		return nil, tarn.Unavailable("%w; nothing was changed", err).WithHint(c.storage.again(c.Data, tarn.HintOf(err)))
	}
	if err != nil {
		return nil, err
	}
	m, err := c.joinStore(ctx, b)
	if err != nil {
		return nil, err
	}
	h := &holding{store: b, lease: c.storage.lease(), log: log}
	if err := h.take(ctx, c, m.Node, tell); err != nil {
		return nil, err
	}
	return h, nil
}

// take makes this data directory the holder, unless another one is.
func (h *holding) take(ctx context.Context, c *serverConfig, node string, tell func(string)) error {
	now, etag, err := h.read(ctx)
	if err != nil {
		return err
	}
	if now.Last != "" && now.Last != node && begun(c.Data) {
		return overtaken(c.Data, h.store.URL(), now)
	}
	if now.Node != "" && now.Node != node {
		if !c.storage.TakeOver {
			return tarn.Conflict("storage %s is held by %s", h.store.URL(), now).
				WithHint("stop it there with tarn down; if that computer is lost, start with --" + takeOverFlag)
		}
		tell(fmt.Sprintf("waiting %s for a sign of life of %s", h.lease, now))
		if err := h.awaitSilence(ctx, etag); err != nil {
			return err
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "a computer without a name"
	}
	began := time.Now().UTC().Truncate(time.Second)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.etag = etag
	h.self = holder{Node: node, Last: node, Host: host, Data: c.Data, Since: began, Seen: began, Count: now.Count}
	return h.replace(ctx)
}

// overtaken refuses a data directory that held the store until another one took
// it: its branches, its control database and its list of what exists are the
// past. Started again it would give out the past as the present, and clear away
// what was made since and it does not know.
func overtaken(data, store string, by holder) error {
	return tarn.Conflict("data directory %s was overtaken: storage %s belongs to %s", data, store, by).
		WithHint("to go on with what is in the storage, name an empty data directory with --data; what this one committed after it was overtaken is in its files only: keep them until nobody misses anything, then remove them")
}

func (h *holding) read(ctx context.Context) (now holder, etag string, err error) {
	text, etag, err := readTagged(ctx, h.store, holderKey)
	if errors.Is(err, blob.ErrNotExist) {
		return now, "", nil
	}
	if err == nil {
		err = json.Unmarshal(text, &now)
	}
	if err != nil {
		return now, "", fmt.Errorf("read who holds storage %s: %w", h.store.URL(), err)
	}
	return now, etag, nil
}

// awaitSilence waits for a lease in which the holder's object does not change.
func (h *holding) awaitSilence(ctx context.Context, etag string) error {
	limit := time.NewTimer(h.lease)
	defer limit.Stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		o, err := h.store.Head(ctx, holderKey)
		if err != nil && !errors.Is(err, blob.ErrNotExist) {
			return fmt.Errorf("look who holds storage %s: %w", h.store.URL(), err)
		}
		if o.ETag != etag {
			now, _, err := h.read(ctx)
			if err != nil {
				return err
			}
			if now.Node == "" {
				return nil // it ended in order just now; replace finds out that it changed
			}
			return tarn.Conflict("storage %s is held by %s, and it is alive", h.store.URL(), now).WithHint("stop it there with tarn down")
		}
		select {
		case <-limit.C:
			return nil
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// replace writes the object; KindConflict when it is another's by now. The
// caller has mu.
func (h *holding) replace(ctx context.Context) error {
	h.self.Count++
	h.self.Seen = time.Now().UTC().Truncate(time.Second)
	text, err := json.Marshal(h.self)
	if err != nil {
		return err
	}
	text = append(text, '\n')
	next := ""
	if h.etag == "" {
		err = h.store.PutIfAbsent(ctx, holderKey, text)
	} else {
		next, err = h.store.PutIfMatch(ctx, holderKey, h.etag, text)
	}
	if err == nil && next != "" {
		h.etag = next
		return nil
	}
	if err != nil && !errors.Is(err, blob.ErrMismatch) && !errors.Is(err, blob.ErrExists) && !errors.Is(err, blob.ErrAmbiguous) {
		return fmt.Errorf("take storage %s: %w", h.store.URL(), err)
	}
	// What was lost may be only the answer.
	there, etag, rerr := readTagged(ctx, h.store, holderKey)
	if rerr != nil {
		return errors.Join(err, rerr)
	}
	if string(there) == string(text) {
		h.etag = etag
		return nil
	}
	if errors.Is(err, blob.ErrAmbiguous) && etag == h.etag {
		return err // it did not happen
	}
	now, _, rerr := h.read(ctx)
	if rerr != nil {
		return rerr
	}
	if now.Node == h.self.Node { // an earlier try of ours, which arrived late
		h.etag = etag
		return err
	}
	return tarn.Conflict("storage %s is held by %s by now", h.store.URL(), now).
		WithHint("this data directory is the past: what it wrote since is not in the storage")
}

// keep says until ctx ends that the holder is alive. KindConflict: another has
// taken the store.
func (h *holding) keep(ctx context.Context) error {
	if h == nil {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(h.lease / holderParts)
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		limit, cancel := context.WithTimeout(ctx, h.lease)
		h.mu.Lock()
		err := h.replace(limit)
		h.mu.Unlock()
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case tarn.KindOf(err) == tarn.KindConflict:
			return err
		case err != nil && !failed:
			h.log.Warn("storage not reached; what is committed waits here", "err", err)
		case err == nil && failed:
			h.log.Info("storage reached again")
		}
		failed = err != nil
	}
}

// release lets another data directory take the store without waiting.
func (h *holding) release(ctx context.Context) {
	if h == nil {
		return
	}
	limit, cancel := context.WithTimeout(ctx, lastCopyPatience)
	defer cancel()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.self.Node = ""
	if err := h.replace(limit); err != nil && tarn.KindOf(err) != tarn.KindConflict {
		h.log.Warn("storage not left in order: another data directory needs --"+takeOverFlag, "err", err)
	}
}
