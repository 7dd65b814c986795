package control_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/control"
)

// tripwire is a node on whose nth call something happens: its caller dies
// before the call or after it, or the call fails.
type tripwire struct {
	control.Node
	at   int
	how  outcome
	die  context.CancelFunc // ends the control that calls
	mu   sync.Mutex         // guards what follows
	n    int
	call string // on which it happened; "" = not yet
}

type outcome int

const (
	diesBefore outcome = iota
	diesAfter
	fails
)

func (o outcome) String() string { return [...]string{"dies before", "dies after", "fails at"}[o] }

var errWire = errors.New("the wire was cut")

func (w *tripwire) do(ctx context.Context, call string, f func() error) error {
	w.mu.Lock()
	w.n++
	mine := w.n == w.at
	if mine {
		w.call = call
	}
	w.mu.Unlock()
	switch {
	case !mine:
		return f()
	case w.how == fails:
		return errWire
	case w.how == diesAfter:
		if err := f(); err != nil {
			return err
		}
	}
	w.die()
	<-ctx.Done()
	return context.Cause(ctx)
}

func (w *tripwire) tripped() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.call
}

func (w *tripwire) CreateTimeline(ctx context.Context, s tarn.TimelineSpec) (st tarn.TimelineStatus, err error) {
	err = w.do(ctx, "create", func() error {
		st, err = w.Node.CreateTimeline(ctx, s)
		return err
	})
	return st, err
}

func (w *tripwire) DeleteTimeline(ctx context.Context, id tarn.TimelineID) error {
	return w.do(ctx, "delete", func() error { return w.Node.DeleteTimeline(ctx, id) })
}

func (w *tripwire) Suspend(ctx context.Context, endpoint string) error {
	return w.do(ctx, "suspend", func() error { return w.Node.Suspend(ctx, endpoint) })
}

func (w *tripwire) DropSlots(ctx context.Context, id tarn.TimelineID) error {
	return w.do(ctx, "drop slots", func() error { return w.Node.DropSlots(ctx, id) })
}

// A control that dies between any two steps of a restore or a reset leaves an
// operation that the next one ends well.
func TestKilledControl(t *testing.T) {
	h, ctx := openIdle(t), t.Context()
	stop := h.work(h.Control)
	p, prod := h.project("shop", 0)
	h.exec(prod, `CREATE TABLE t (id int)`)
	h.exec(prod, `INSERT INTO t VALUES (1)`)
	dev := p.Branch("dev")
	h.end(h.CreateBranch(ctx, h.begin.Owner, tarn.BranchSpec{Name: dev}))
	work := p.Branch("work")
	h.end(h.CreateBranch(ctx, h.begin.Owner, tarn.BranchSpec{Name: work}))
	stop()
	timelines := len(must(h.fleet.Timelines(ctx))(t))

	// round asks for one operation on b, kills, goes on, and looks.
	round := func(at int, how outcome, b tarn.BranchName, ask func(*control.Control) (tarn.Operation, error), look func(failed bool)) (call string) {
		t.Helper()
		dying, die := context.WithCancel(context.WithoutCancel(ctx))
		defer die()
		wire := &tripwire{Node: h.fleet, at: at, how: how, die: die}
		c := h.on(wire)
		done := make(chan error, 1)
		go func() { done <- c.Run(dying) }()
		op, err := ask(c)
		ok(t, err)
		limit, cancel := context.WithTimeout(dying, time.Minute)
		defer cancel()
		ended, err := c.WaitOperation(limit, op.Name)
		if err != nil && wire.tripped() == "" {
			t.Fatal(err)
		}
		die()
		ok(t, <-done)
		call = wire.tripped()
		stop := h.work(h.Control)
		defer stop()
		if call != "" && how == fails && call != "drop slots" && ended.Error != "" {
			look(true)
		} else {
			h.end(op, nil)
			look(false)
		}
		if got := h.branch(b); got.State != tarn.BranchReady {
			t.Errorf("%s %d (%s): branch %+v", how, at, call, got)
		}
		for _, other := range h.branches(p) {
			if strings.HasPrefix(other.Name.Branch, "was") {
				if other.State != tarn.BranchReady {
					t.Errorf("%s %d (%s): kept branch %+v", how, at, call, other)
				}
				h.end(h.DeleteBranch(ctx, other.Name))
			}
		}
		if n := len(must(h.fleet.Timelines(ctx))(t)); n != timelines {
			t.Errorf("%s %d (%s): %d timelines, want %d", how, at, call, n, timelines)
		}
		return call
	}

	const calls = 3 // that either makes on the node
	var met []string
	n := 0
	for _, how := range []outcome{diesBefore, diesAfter, fails} {
		for at := 1; at <= calls; at++ {
			n++
			keep := fmt.Sprintf("was-%d", n)
			before := h.ids(work)
			then := h.moment(work)
			h.exec(work, fmt.Sprintf(`INSERT INTO t VALUES (%d)`, 1000+n))
			call := round(at, how, work, func(c *control.Control) (tarn.Operation, error) {
				return c.Pasts.Restore(ctx, h.begin.Owner, work, tarn.RestoreSpec{Time: then, KeepAs: keep})
			}, func(failed bool) {
				t.Helper()
				all := append(slices.Clone(before), int32(1000+n))
				if failed {
					h.holds(work, all...)
					if _, err := h.GetBranch(ctx, p.Branch(keep)); tarn.KindOf(err) != tarn.KindNotFound {
						t.Errorf("a restore that failed left branch %s: %v", keep, err)
					}
					return
				}
				h.holds(work, before...)
				h.holds(p.Branch(keep), all...)
			})
			met = append(met, call)
		}
		for at := 1; at <= calls; at++ {
			h.exec(dev, `INSERT INTO t VALUES (7)`)
			want := h.ids(prod)
			call := round(at, how, dev, func(c *control.Control) (tarn.Operation, error) {
				return c.Pasts.Reset(ctx, h.begin.Owner, dev, "")
			}, func(failed bool) {
				t.Helper()
				if got := h.ids(dev); failed == slices.Equal(got, want) {
					t.Errorf("reset %s %d: rows %v, its parent has %v", how, at, got, want)
				}
			})
			met = append(met, call)
		}
	}
	want := []string{"create", "suspend", "drop slots", "create", "suspend", "delete"}
	if !slices.Equal(met, slices.Concat(want, want, want)) {
		t.Errorf("the wire was cut at %q", met)
	}
}
