package compute

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/postgres"
)

// Fleet is the computes and timelines of one computer. Open begins it, Run
// keeps it, Close ends it. Its parts: machine is what computes stand on, maker
// makes and removes timelines, a life runs one endpoint's compute.
type Fleet struct {
	*machine
	*past
	*inspector
	maker    *maker
	records  *records
	holds    *holds
	tasks    sync.WaitGroup // every life
	calls    sync.WaitGroup // every call in progress that enters
	resuming sync.WaitGroup // every life that was handed over, until it serves or has failed
	once     sync.Once      // of close
	closeErr error

	name        string        // of this fleet, among those this computer has had
	restart     chan struct{} // closed when Restart was asked for
	restartOnce sync.Once

	// mu guards what follows; it is never held across I/O or a wait.
	mu     sync.Mutex
	closed bool
	lives  map[string]*life              // by endpoint, from Wake to the end
	last   map[string]tarn.ComputeStatus // by endpoint, of lives that are over
	handed []HandedCompute               // by HandOver
}

// Open takes the data directory and puts right what a killed process left:
//
//  1. Open the page store, which lets in one process only and recovers.
//  2. Kill the Postgres processes that still run, remove dead mounts; but for
//     computes that were handed over.
//  3. Read records from the object store when there is none here: the data
//     directory is a new one, and what it had comes back.
//  4. Remove timelines that were never published, or were being deleted.
//  5. Note the timelines that are in the object store only (away).
//
// Computes that were handed over go on; nothing else is started: endpoints are
// woken on demand.
func Open(ctx context.Context, o Options) (*Fleet, error) {
	f, err := open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open fleet: %w", err)
	}
	return f, nil
}

func open(ctx context.Context, o Options) (*Fleet, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	m := &machine{o: o, log: o.Log, installs: make(map[int]postgres.Install), stuck: make(map[tarn.TimelineID]volume), rest: newAtRest()}
	for _, in := range o.Installs {
		if _, ok := m.installs[in.Major]; !ok {
			m.installs[in.Major] = in
		}
	}
	if len(m.installs) == 0 {
		return nil, tarn.Unavailable("no Postgres to run").WithHint("install Postgres 15 to 18, or name its directory with --pg-bin")
	}
	for _, sub := range [...]string{"", "timelines", "wal", "mnt", "run", "log"} {
		// Postgres's user passes through on its way to mnt, run and wal.
		if err := os.MkdirAll(m.path(sub), 0o755); err != nil {
			return nil, err
		}
	}
	var err error
	m.store, err = m.openStorage(ctx)
	if err != nil {
		return nil, err
	}
	name, err := newTimelineID() // as random as a name must be
	if err != nil {
		return nil, errors.Join(err, m.store.Close())
	}
	f := &Fleet{
		name:    string(name),
		restart: make(chan struct{}),
		machine: m,
		records: newRecords(m.path("timelines")),
		holds:   &holds{m: make(map[string]*hold)},
		lives:   make(map[string]*life),
		last:    make(map[string]tarn.ComputeStatus),
	}
	f.maker = &maker{machine: m, records: f.records, holds: f.holds, away: newAway(), serving: f.serving}
	if o.Remote.Store != nil {
		f.records.copied = true
		f.maker.copies = newRecordCopies(o.Remote.Store, f.records, o.Log)
	}
	f.past = &past{maker: f.maker, enter: f.enter}
	f.inspector = &inspector{of: m, records: f.records, enter: f.enter}
	if err := f.maker.reconcile(ctx); err != nil {
		return nil, errors.Join(err, m.store.Close())
	}
	m.openGroups()
	if err := (rebuilder{f.maker}).findAway(); err != nil {
		return nil, errors.Join(err, m.store.Close())
	}
	m.rest.add(f.records.ids()...)
	if o.Handed != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, c := range o.Handed.Computes {
			l := newLife(c.Spec)
			l.handed = &c
			f.resuming.Add(1)
			f.begin(ctx, l)
		}
	}
	return f, nil
}

// Run keeps the fleet until ctx ends: it makes the templates that are missing,
// prunes WAL, lets the store work, and then closes the fleet, every compute
// suspended cleanly. Idle suspends, marks and restarts are each life's own work.
// When Restart is asked for, Run ends with ErrRestart and the fleet goes on, for
// HandOver.
func (f *Fleet) Run(ctx context.Context) error {
	own, cancel := context.WithCancel(ctx)
	defer cancel()
	var work sync.WaitGroup
	work.Go(func() { f.maker.makeTemplates(own) })
	work.Go(func() { f.maker.pruneLoop(own) })
	work.Go(func() { copier{f.maker}.run(own) })
	work.Go(func() { f.maker.copies.run(own) })
	work.Go(func() { fence(own, f) })
	if s, ok := f.store.(interface{ Run(context.Context) error }); ok { // a store with work in the background
		work.Go(func() {
			// Until its volume is open again, the store does not know what a
			// running Postgres holds open without a name.
			f.resuming.Wait()
			if err := s.Run(own); err != nil {
				f.log.Error("work of the store ended", "err", err)
			}
		})
	}
	select {
	case <-ctx.Done():
		work.Wait()
		return f.Close()
	case <-f.restart:
		cancel()
		work.Wait()
		return ErrRestart
	}
}

// Close suspends every compute cleanly, waits for calls in progress and closes
// the page store.
func (f *Fleet) Close() error { return f.close(errClosing) }

func (f *Fleet) close(why error) error {
	f.once.Do(func() {
		f.mu.Lock()
		f.closed = true
		for _, l := range f.lives {
			l.cancel(why)
		}
		f.mu.Unlock()
		f.calls.Wait()
		f.inspector.stop(why)
		f.tasks.Wait()
		f.groups.close()
		f.closeErr = f.store.Close()
	})
	return f.closeErr
}

// errClosing is the answer while the node stops. Another may take its place:
// whoever asked can ask again.
var errClosing = again{tarn.Unavailable("the node stops")}

type again struct{ error }

func (e again) Unwrap() error { return e.error }

// Again tells a server of calls that the caller is to repeat this one.
func (again) Again() bool { return true }

// enter announces a call that Close must wait for.
func (f *Fleet) enter() (leave func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errClosing
	}
	f.calls.Add(1)
	return f.calls.Done, nil
}

// Versions lists the Postgres majors this computer can run, the preferred one
// first: the one that was named, else the newest.
func (f *Fleet) Versions(context.Context) ([]int, error) {
	v := make([]int, 0, len(f.o.Installs))
	for _, in := range f.o.Installs {
		if !slices.Contains(v, in.Major) {
			v = append(v, in.Major)
		}
	}
	return v, nil
}
