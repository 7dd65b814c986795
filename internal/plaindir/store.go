package plaindir

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
)

// Options of a store; the zero value is good but for First.
type Options struct {
	First First // what a copy begins with
	// BaseEvery is how often a base is kept while Postgres runs, at most. 0 = 5
	// minutes with reflinks, 6 hours without.
	BaseEvery time.Duration
	// History is how far back forks are wanted where a timeline says nothing
	// else; bases are kept and spaced accordingly. 0 = 7 days.
	History time.Duration
	// FirstBase is the size up to which the first base of a timeline is copied
	// before Postgres starts; a larger one is copied while it runs, and forks at a
	// past time are possible from then on. With reflinks it does not matter. 0 =
	// 256 MiB.
	FirstBase int64
	Log       *slog.Logger // nil = nowhere
}

// First is the file that a copy must begin with: pg_control.
type First struct {
	Path string // relative, at most one directory deep; "" = none
	// Check refuses contents that cannot begin a copy: half written, or of a
	// directory that cannot be copied at this moment. It is then read again.
	Check func(b []byte, from Activity) error
}

// Activity says who may write in a directory while it is copied.
type Activity uint8

// The two there are.
const (
	AtRest  Activity = iota // nobody
	Running                 // a Postgres
)

// Store is a directory of timelines. One process holds it at a time.
type Store struct {
	dir     string
	lock    *os.File
	reflink bool
	o       Options
	log     *slog.Logger

	mu        sync.Mutex // guards what follows and the state of every timeline; never held across I/O
	timelines map[tarn.TimelineID]*timeline
	closed    bool
}

// timeline is one timeline of the store.
//
//	making ──▶ idle ⇄ held
//	  │          │
//	  ▼          ▼
//	gone ◀── deleting
//
// Whoever changes the state, or reads or copies the data of an idle timeline,
// has its turn.
type timeline struct {
	id   tarn.TimelineID
	turn chan struct{} // holds one token while somebody has the turn

	// Guarded by Store.mu.
	state   state
	man     *manifest        // replaced, never changed
	forks   int              // that are being made from it
	volume  *Volume          // while held
	readers map[tarn.Seq]int // of bases that are being copied
	bytes   int64            // of its files, when last counted
	counted time.Time
}

type state uint8

const (
	stateMaking state = iota
	stateIdle
	stateHeld
	stateDeleting
	stateGone
)

// nextStates has the transitions there are; see timeline.
func nextStates(s state) []state {
	switch s {
	case stateMaking:
		return []state{stateIdle, stateGone}
	case stateIdle:
		return []state{stateHeld, stateDeleting}
	case stateHeld:
		return []state{stateIdle}
	case stateDeleting:
		return []state{stateGone, stateIdle} // back when the directory could not be renamed
	}
	return nil
}

// enter changes the state. The caller holds Store.mu.
func (t *timeline) enter(s state) {
	if !slices.Contains(nextStates(t.state), s) {
		panic(fmt.Sprintf("plaindir: timeline %s goes from state %d to %d", t.id, t.state, s))
	}
	t.state = s
}

func (s *Store) path(id tarn.TimelineID, elem ...string) string {
	return filepath.Join(append([]string{s.dir, string(id)}, elem...)...)
}

func (s *Store) basePath(id tarn.TimelineID, seq tarn.Seq) string {
	return s.path(id, "bases", seqName(seq))
}

// Open opens the store in dir, creating it when there is none, and clears away
// what a crash left half made or half deleted.
func Open(ctx context.Context, dir string, o Options) (*Store, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.History == 0 {
		o.History = 7 * 24 * time.Hour
	}
	if o.FirstBase == 0 {
		o.FirstBase = 256 << 20
	}
	s := &Store{dir: dir, o: o, log: o.Log, timelines: make(map[tarn.TimelineID]*timeline)}
	if err := s.hold(); err != nil {
		return nil, fmt.Errorf("open plain directories %s: %w", dir, err)
	}
	err := s.probe()
	if err == nil {
		err = s.load(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open plain directories %s: %w", dir, err), s.lock.Close())
	}
	if s.o.BaseEvery == 0 {
		s.o.BaseEvery = 6 * time.Hour
		if s.reflink {
			s.o.BaseEvery = 5 * time.Minute
		}
	}
	return s, nil
}

// hold makes the store's directory and takes its lock.
func (s *Store) hold() error {
	// Postgres's user passes through on its way to data.
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, "LOCK"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return tarn.Conflict("another process has it").WithHint("stop the other process that uses this data directory")
		}
		return err
	}
	s.lock = f
	return nil
}

// probe finds out whether the file system clones files.
func (s *Store) probe() (err error) {
	a, err := os.CreateTemp(s.dir, "probe-*"+making)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close(), os.Remove(a.Name())) }()
	b, err := os.CreateTemp(s.dir, "probe-*"+making)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close(), os.Remove(b.Name())) }()
	if _, err := a.Write(make([]byte, 1<<16)); err != nil {
		return err
	}
	err = unix.IoctlFileClone(int(b.Fd()), int(a.Fd()))
	if err != nil && !cannotClone(err) {
		return fmt.Errorf("try to clone a file: %w", err)
	}
	s.reflink = err == nil
	return nil
}

// Reflink tells whether copies share what is the same, and so take a moment and
// hardly any space.
func (s *Store) Reflink() bool { return s.reflink }

// load finds the timelines and clears away what is unfinished.
func (s *Store) load(ctx context.Context) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		name := e.Name()
		path := filepath.Join(s.dir, name)
		if unfinished(name) {
			if err := discard(path); err != nil {
				return err
			}
			continue
		}
		id, err := tarn.ParseTimelineID(strings.TrimSpace(name))
		if err != nil || !e.IsDir() {
			continue // not ours
		}
		man, err := readManifest(path, id)
		if err != nil {
			return err
		}
		if err := cleanBases(path, man); err != nil {
			return err
		}
		s.timelines[id] = &timeline{id: id, turn: make(chan struct{}, 1), state: stateIdle, man: man, readers: make(map[tarn.Seq]int)}
	}
	return nil
}

// Close closes every open volume and lets go of the store. Closing twice is no
// error.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	var volumes []*Volume
	for _, t := range s.timelines {
		if t.volume != nil {
			volumes = append(volumes, t.volume)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, v := range volumes {
		errs = append(errs, v.Close())
	}
	if err := errors.Join(append(errs, s.lock.Close())...); err != nil {
		return fmt.Errorf("close plain directories %s: %w", s.dir, err)
	}
	return nil
}

// take finds a timeline that exists and waits for its turn; the caller calls
// pass.
func (s *Store) take(ctx context.Context, id tarn.TimelineID) (*timeline, error) {
	s.mu.Lock()
	t, closed := s.timelines[id], s.closed
	there := t != nil && t.state != stateMaking && t.state != stateDeleting
	s.mu.Unlock()
	if closed {
		return nil, tarn.Unavailable("the store is closed")
	}
	if !there {
		return nil, tarn.NotFound("timeline %s does not exist", id)
	}
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.state == stateGone {
		<-t.turn
		return nil, tarn.NotFound("timeline %s does not exist", id)
	}
	return t, nil
}

func (t *timeline) pass() { <-t.turn }

// replace writes a changed manifest of a timeline and takes it over.
func (s *Store) replace(t *timeline, man *manifest) error {
	if err := man.write(s.path(t.id)); err != nil {
		return fmt.Errorf("write the manifest of timeline %s: %w", t.id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.man = man
	return nil
}

func (s *Store) manifest(t *timeline) *manifest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.man
}
