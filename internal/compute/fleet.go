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
	maker    *maker
	records  *records
	holds    *holds
	tasks    sync.WaitGroup // every life and every call in progress
	once     sync.Once      // of Close
	closeErr error

	// mu guards what follows; it is never held across I/O or a wait.
	mu     sync.Mutex
	closed bool
	lives  map[string]*life              // by endpoint, from Wake to the end
	last   map[string]tarn.ComputeStatus // by endpoint, of lives that are over
}

// Open takes the data directory and puts right what a killed process left:
//
//  1. Open the page store, which lets in one process only and recovers.
//  2. Kill the Postgres processes that still run, remove dead mounts.
//  3. Remove timelines that were never published, or were being deleted.
//
// Nothing is started: endpoints are woken on demand.
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
	m := &machine{o: o, log: o.Log, installs: make(map[int]postgres.Install), stuck: make(map[tarn.TimelineID]volume)}
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
	f := &Fleet{
		machine: m,
		records: &records{dir: m.path("timelines"), all: make(map[tarn.TimelineID]timeline)},
		holds:   &holds{m: make(map[string]*hold)},
		lives:   make(map[string]*life),
		last:    make(map[string]tarn.ComputeStatus),
	}
	f.maker = &maker{machine: m, records: f.records, holds: f.holds, serving: f.serving}
	if err := f.maker.reconcile(ctx); err != nil {
		return nil, errors.Join(err, m.store.Close())
	}
	return f, nil
}

// Run keeps the fleet until ctx ends: it makes the templates that are missing,
// prunes WAL, and then closes the fleet, every compute suspended cleanly. Idle
// suspends, marks and restarts are each life's own work.
func (f *Fleet) Run(ctx context.Context) error {
	var work sync.WaitGroup
	work.Go(func() { f.maker.makeTemplates(ctx) })
	work.Go(func() { f.maker.pruneLoop(ctx) })
	<-ctx.Done()
	work.Wait()
	return f.Close()
}

// Close suspends every compute cleanly, waits for calls in progress and closes
// the page store.
func (f *Fleet) Close() error {
	f.once.Do(func() {
		f.mu.Lock()
		f.closed = true
		for _, l := range f.lives {
			l.cancel(errClosing)
		}
		f.mu.Unlock()
		f.tasks.Wait()
		f.closeErr = f.store.Close()
	})
	return f.closeErr
}

var errClosing = tarn.Unavailable("the node stops")

// enter announces a call that Close must wait for.
func (f *Fleet) enter() (leave func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errClosing
	}
	f.tasks.Add(1)
	return f.tasks.Done, nil
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
