package compute

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tarndb/tarn"
)

// life is one endpoint's compute from the Wake that began it to its end. One
// goroutine lives it (Fleet.live); others ask it to end through cancel, and
// wait.
//
//	                      frozen
//	                       ▲ │
//	                       │ ▼
//	Wake ──▶ starting ──▶ active ──▶ stopping ──▶ stopped
//	           │  ▲         │ │
//	           │  └──crash──┘ └─ too many crashes ─▶ failed
//	           └────────────────────────────────────▶ failed
type life struct {
	cancel context.CancelCauseFunc // asks it to end; the cause says why
	done   chan struct{}           // closed when it is over
	thaw   chan struct{}           // holds a token when it is to thaw
	handed *HandedCompute          // what it begins with, if it was handed over; its own
	size   size                    // how large its compute is; its own

	// Guarded by Fleet.mu.
	spec   tarn.ComputeSpec
	status tarn.ComputeStatus
	engine *engine       // while active
	ready  chan struct{} // closed when it is no longer starting or frozen
	err    error         // why it is over, or what its waiters should hear
}

// transitions are the moves a compute may make.
var transitions = map[tarn.ComputeState][]tarn.ComputeState{
	tarn.ComputeStarting: {tarn.ComputeActive, tarn.ComputeFailed, tarn.ComputeStopped},
	tarn.ComputeActive:   {tarn.ComputeFrozen, tarn.ComputeStopping, tarn.ComputeStarting, tarn.ComputeFailed},
	tarn.ComputeFrozen:   {tarn.ComputeActive},
	tarn.ComputeStopping: {tarn.ComputeStopped},
}

// move changes the state of a life; the caller holds f.mu.
func (l *life) move(to tarn.ComputeState, message string) {
	if !slices.Contains(transitions[l.status.State], to) {
		panic(fmt.Sprintf("compute %s: %s to %s", l.spec.Endpoint, l.status.State, to))
	}
	from := l.status.State
	l.status.State, l.status.Message = to, message
	if to != tarn.ComputeActive && to != tarn.ComputeFrozen && to != tarn.ComputeStopping {
		l.status.PID = 0
	}
	switch {
	case to == tarn.ComputeStarting, to == tarn.ComputeFrozen:
		l.ready = make(chan struct{})
	case from == tarn.ComputeStarting, from == tarn.ComputeFrozen:
		close(l.ready)
	}
}

var (
	errSuspended = tarn.Unavailable("it was suspended while it started")
	errIdle      = errors.New("idle")
	errAsked     = errors.New("asked to suspend")
	errReplaced  = errors.New("its endpoint serves another timeline now")
	errDeleted   = errors.New("its timeline is being deleted")
	errHanding   = errors.New("left to the next node")
)

// Wake starts the endpoint's compute, or returns the running one, when it
// accepts connections. All who wait share one start, which goes on when one of
// them gives up. Suspend times and limits of a running compute change at once;
// settings and size when it starts next.
func (f *Fleet) Wake(ctx context.Context, s tarn.ComputeSpec) (tarn.ComputeStatus, error) {
	st, err := f.wake(ctx, s)
	if err != nil {
		return st, fmt.Errorf("wake endpoint %s: %w", s.Endpoint, err)
	}
	return st, nil
}

func (f *Fleet) wake(ctx context.Context, s tarn.ComputeSpec) (tarn.ComputeStatus, error) {
	// The name becomes a directory.
	if _, err := tarn.ParseID("endpoint", s.Endpoint); err != nil {
		return tarn.ComputeStatus{}, err
	}
	for {
		st, wait, l, err := f.look(ctx, s)
		if err != nil || wait == nil {
			return st, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return tarn.ComputeStatus{}, context.Cause(ctx)
		}
		f.mu.Lock()
		st, err, over := l.status, l.err, f.lives[s.Endpoint] != l
		f.mu.Unlock()
		if over && err != nil && st.Timeline == s.Timeline {
			return st, err
		}
	}
}

// look returns the status of an active compute, or what to wait for; it begins
// a life where there is none.
func (f *Fleet) look(ctx context.Context, s tarn.ComputeSpec) (tarn.ComputeStatus, <-chan struct{}, *life, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return tarn.ComputeStatus{}, nil, nil, errClosing
	}
	t, ok := f.records.known(s.Timeline)
	switch {
	case !ok:
		return tarn.ComputeStatus{}, nil, nil, f.records.missing(s.Timeline)
	case t.Template:
		return tarn.ComputeStatus{}, nil, nil, tarn.Invalid("timeline %s is a template", s.Timeline)
	case s.PGVersion != 0 && s.PGVersion != t.PGVersion:
		return tarn.ComputeStatus{}, nil, nil, tarn.Invalid("timeline %s is of Postgres %d, not %d", s.Timeline, t.PGVersion, s.PGVersion)
	}
	s.PGVersion = t.PGVersion
	l := f.lives[s.Endpoint]
	if l == nil {
		l = f.begin(ctx, newLife(s))
		return l.status, l.ready, l, nil
	}
	if l.spec.Timeline != s.Timeline {
		l.cancel(errReplaced)
		return l.status, l.done, l, nil
	}
	l.spec = s
	switch l.status.State {
	case tarn.ComputeStarting:
		return l.status, l.ready, l, nil
	case tarn.ComputeActive:
		l.status.LastActive = time.Now().UTC()
		return l.status, nil, l, nil
	case tarn.ComputeFrozen:
		l.status.LastActive = time.Now().UTC()
		l.melt()
		return l.status, l.ready, l, nil
	}
	return l.status, l.done, l, nil
}

// melt asks for a thaw.
func (l *life) melt() {
	select {
	case l.thaw <- struct{}{}:
	default: // it was asked already
	}
}

// awaken thaws a compute for the fleet's own questions.
func (f *Fleet) awaken(ctx context.Context, l *life) error {
	for {
		f.mu.Lock()
		is, wait := l.status.State, l.ready
		if is == tarn.ComputeFrozen {
			l.status.LastActive = time.Now().UTC()
			l.melt()
		}
		f.mu.Unlock()
		if is != tarn.ComputeFrozen {
			return nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func newLife(s tarn.ComputeSpec) *life {
	return &life{
		done:  make(chan struct{}),
		thaw:  make(chan struct{}, 1),
		ready: make(chan struct{}),
		spec:  s,
		status: tarn.ComputeStatus{
			Endpoint:  s.Endpoint,
			Branch:    s.Branch,
			Timeline:  s.Timeline,
			State:     tarn.ComputeStarting,
			PGVersion: s.PGVersion,
			ReadOnly:  s.ReadOnly,
		},
	}
}

// begin begins to live l; the caller holds f.mu. It outlives the call that began
// it.
func (f *Fleet) begin(ctx context.Context, l *life) *life {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	l.cancel = cancel
	f.lives[l.spec.Endpoint] = l
	f.tasks.Go(func() {
		defer cancel(nil)
		runner{f}.live(ctx, l)
	})
	return l
}

// Asked tells whether a compute is stopped because Suspend was called.
func Asked(st tarn.ComputeStatus) bool {
	return st.State == tarn.ComputeStopped && st.Message == errAsked.Error()
}

// Suspend stops the endpoint's compute cleanly and returns when nothing of it
// is left; a stopped one is not an error.
func (f *Fleet) Suspend(ctx context.Context, endpoint string) error {
	return f.suspend(ctx, endpoint, errAsked)
}

func (f *Fleet) suspend(ctx context.Context, endpoint string, why error) error {
	f.mu.Lock()
	l := f.lives[endpoint]
	f.mu.Unlock()
	if l == nil {
		return nil
	}
	l.cancel(why)
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("suspend endpoint %s: %w", endpoint, context.Cause(ctx))
	}
}

// Computes tells of every compute since the node started, by endpoint.
func (f *Fleet) Computes(context.Context) ([]tarn.ComputeStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]tarn.ComputeStatus, 0, len(f.lives)+len(f.last))
	for _, l := range f.lives {
		all = append(all, l.status)
	}
	for endpoint, st := range f.last {
		if f.lives[endpoint] == nil {
			all = append(all, st)
		}
	}
	slices.SortFunc(all, func(a, b tarn.ComputeStatus) int { return cmp.Compare(a.Endpoint, b.Endpoint) })
	return all, nil
}

// serving is the engine of the compute that is active on a timeline; nil
// without one.
func (f *Fleet) serving(id tarn.TimelineID) *engine {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l := f.servingLife(id); l != nil {
		return l.engine
	}
	return nil
}
