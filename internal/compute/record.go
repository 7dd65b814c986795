package compute

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	// Source is the timeline that it began in, at ForkLSN; "" = none, or it was
	// made before that was recorded.
	Source   tarn.TimelineID `json:"source,omitempty"`
	ForkLSN  tarn.LSN        `json:"fork_lsn"`
	ForkTime time.Time       `json:"fork_time"`
	// History is how far back it can be forked: 0 = the default, which is what
	// records of old mean that do not say; negative = not at all.
	History time.Duration `json:"history,omitempty"`
	// Since is before when the past may be gone, whatever History says: it was
	// shorter once. Zero = it never was.
	Since time.Time `json:"since,omitzero"`
	// BackLSN and BackTime are how far it came back from the object store, when
	// the data directory had been lost; zero = it never was.
	BackLSN  tarn.LSN  `json:"back_lsn,omitempty"`
	BackTime time.Time `json:"back_time,omitzero"`
	// Short is how far Source came back when this one was to be made again from
	// it (remake): not to where this one began. 0 = far enough.
	Short tarn.LSN `json:"short,omitempty"`
}

// history is how far back the timeline can be forked; 0 = not at all.
func (t timeline) history() time.Duration { return tarn.HistoryOf(t.History) }

// withHistory is the timeline with another history from now on. Whether it
// grows or shrinks, the past before the shorter of the two is not to be had.
func (t timeline) withHistory(d time.Duration, now time.Time) timeline {
	gone := now.Add(-min(t.history(), tarn.HistoryOf(d)))
	t.History = d
	if gone.After(t.Since) {
		t.Since = gone.UTC()
	}
	return t
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
	dir     string
	copied  bool          // an object store has copies: see gone
	fetched bool          // the directory was filled from there when it was opened
	changed chan struct{} // holds a token when there was a change

	mu   sync.Mutex // guards what follows; not held across I/O
	all  map[tarn.TimelineID]timeline
	lost map[tarn.TimelineID]timeline // those whose pages did not come back
	// unmade are those of all that are still to be made: see remake.
	unmade map[tarn.TimelineID]bool
}

func newRecords(dir string) *records {
	return &records{dir: dir, changed: make(chan struct{}, 1), all: map[tarn.TimelineID]timeline{}, lost: map[tarn.TimelineID]timeline{}, unmade: map[tarn.TimelineID]bool{}}
}

func (r *records) tell() {
	select {
	case r.changed <- struct{}{}:
	default: // there is one already
	}
}

// lose takes a timeline out of sight whose pages did not come back. Its record
// stays, here and in the object store.
func (r *records) lose(id tarn.TimelineID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost[id] = r.all[id]
	delete(r.all, id)
}

// isLost tells whether a timeline is complete, and its pages did not come back.
func (r *records) isLost(id tarn.TimelineID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.lost[id]
	return ok
}

func (r *records) lostIDs() []tarn.TimelineID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.lost))
}

// lostHint tells what can be done about a branch that did not come back.
const lostHint = "it was lost with the computer that it was made on; tarn branch show tells why. Delete it, and make it again from what it was made from"

// missing is why a timeline is not known.
func (r *records) missing(id tarn.TimelineID) error {
	r.mu.Lock()
	t, lost := r.lost[id]
	r.mu.Unlock()
	switch {
	case lost && t.Short != 0:
		return tarn.Unavailable("timeline %s did not come back: the object store has what it was made from up to %s only, and it began at %s", id, t.Short, t.ForkLSN).WithHint(lostHint)
	case lost:
		return tarn.Unavailable("timeline %s did not come back: the object store does not have its pages", id).WithHint(lostHint)
	case r.fetched:
		return tarn.NotFound("timeline %s does not exist, nor did the object store have it when the data directory began", id).WithHint(lostHint)
	}
	return tarn.NotFound("timeline %s does not exist", id)
}

// isRecorded tells whether there is a record of a timeline.
func (r *records) isRecorded(id tarn.TimelineID) bool {
	_, ok := r.known(id)
	return ok || r.isLost(id)
}

// load reads the records of complete timelines.
func (r *records) load() error {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(r.dir, e.Name())
		if ext := filepath.Ext(path); r.copied && (ext == goneExtension || ext == unmadeExtension) {
			continue
		}
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
		if err := r.loadUnmade(t.ID); err != nil {
			return err
		}
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
	defer r.tell()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all[t.ID] = t
	return nil
}

// withdraw makes a timeline exist no more. Where there are copies of records, a
// file <id>.gone takes its place until the copy is removed.
//
//  1. Rename the record, or remove it.  crash: it exists or not
//  2. Sync the directory.
func (r *records) withdraw(id tarn.TimelineID) error {
	defer r.tell()
	r.mu.Lock()
	delete(r.all, id)
	delete(r.lost, id)
	delete(r.unmade, id)
	r.mu.Unlock()
	path := r.path(id)
	err := error(nil)
	if r.copied {
		if err = os.Rename(path, r.gonePath(id)); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err := errors.Join(err, removeFile(path), removeFile(r.unmadePath(id)), syncDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("withdraw timeline %s: %w", id, err)
	}
	return nil
}

const goneExtension = ".gone"

func (r *records) gonePath(id tarn.TimelineID) string {
	return filepath.Join(r.dir, string(id)+goneExtension)
}

// gone are the timelines that were withdrawn here and whose copied record may
// still be there.
func (r *records) gone() (ids []tarn.TimelineID, err error) {
	entries, err := os.ReadDir(r.dir)
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), goneExtension)
		if id, perr := tarn.ParseTimelineID(name); ok && perr == nil {
			ids = append(ids, id)
		}
	}
	return ids, err
}

// forget notes that a copied record is removed.
func (r *records) forget(id tarn.TimelineID) error { return removeFile(r.gonePath(id)) }

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
