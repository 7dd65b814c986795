package compute

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tarndb/tarn"
)

// timeline is what the fleet records of a complete timeline, in
// timelines/<id>.json. The file is the last thing written of a timeline and the
// first removed: without it the rest is litter that Open clears away.
type timeline struct {
	ID        tarn.TimelineID `json:"id"`
	PGVersion int             `json:"pg_version"`
	Template  bool            `json:"template,omitempty"`
	ForkLSN   tarn.LSN        `json:"fork_lsn"`
	ForkTime  time.Time       `json:"fork_time"`
}

func newTimelineID() (tarn.TimelineID, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return tarn.TimelineID(hex.EncodeToString(b[:])), nil
}

// records are the complete timelines: files of a directory, and in memory.
type records struct {
	dir string

	mu  sync.Mutex // guards all; not held across I/O
	all map[tarn.TimelineID]timeline
}

// load reads the records of complete timelines.
func (r *records) load() error {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(r.dir, e.Name())
		if filepath.Ext(path) != ".json" {
			if err := removeFile(path); err != nil {
				return err
			}
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var t timeline
		if err := json.Unmarshal(b, &t); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if _, err := tarn.ParseTimelineID(string(t.ID)); err != nil || r.path(t.ID) != path {
			return fmt.Errorf("read %s: it is about timeline %q", path, t.ID)
		}
		r.all[t.ID] = t
	}
	return nil
}

func (r *records) path(id tarn.TimelineID) string {
	return filepath.Join(r.dir, string(id)+".json")
}

// publish makes a timeline exist.
//
//  1. Write and sync a new file.         crash: nothing is published
//  2. Rename it to the timeline's name.  crash: published or not
//  3. Sync the directory.
func (r *records) publish(t timeline) error {
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	path := r.path(t.ID)
	if err := writeSynced(path+".new", append(b, '\n')); err != nil {
		return fmt.Errorf("publish timeline %s: %w", t.ID, err)
	}
	if err := errors.Join(os.Rename(path+".new", path), syncDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("publish timeline %s: %w", t.ID, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all[t.ID] = t
	return nil
}

// withdraw makes a timeline exist no more.
func (r *records) withdraw(id tarn.TimelineID) error {
	r.mu.Lock()
	delete(r.all, id)
	r.mu.Unlock()
	path := r.path(id)
	if err := errors.Join(removeFile(path), syncDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("withdraw timeline %s: %w", id, err)
	}
	return nil
}

// known is a complete timeline.
func (r *records) known(id tarn.TimelineID) (timeline, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.all[id]
	return t, ok
}

// template is the one of a Postgres version.
func (r *records) template(major int) (tarn.TimelineID, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, t := range r.all {
		if t.Template && t.PGVersion == major {
			return id, true
		}
	}
	return "", false
}

// ids are all complete timelines.
func (r *records) ids() []tarn.TimelineID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.all))
}

func writeSynced(path string, b []byte) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = file.Write(b)
	return errors.Join(err, file.Sync(), file.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
