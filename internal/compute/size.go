package compute

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/compute/scale"
	"github.com/tarndb/tarn/internal/postgres/cgroup"
)

const (
	sampleEvery = time.Second // at most; see package scale
	// boost is how long a compute that starts has the CPU of its largest size:
	// starting, recovering and filling its cache is our work, not the client's.
	boost = 5 * time.Second
)

// size is how large a life's compute is, and was at the last start.
type size struct {
	state   scale.State
	limits  cgroup.Limits // what the group was given last
	sampled time.Time
	began   time.Time
	kills   int64 // processes killed for want of memory, that were told of
}

func (m *machine) rangeOf(s tarn.ComputeSpec) scale.Range {
	r := scale.Range{Min: max(s.MinCU, minCU), Max: max(s.MaxCU, minCU), CPUs: m.o.CPUsPerCU}
	r.Min = min(r.Min, r.Max)
	return r
}

// enter makes the control group that Postgres is to start in. A life that starts
// again after a crash has the size it had.
func (e *engine) enter(l *life, s tarn.ComputeSpec) error {
	r, z := e.on.rangeOf(s), &l.size
	var err error
	if e.group, err = e.on.groups.group(e.name); err != nil {
		return err
	}
	now := time.Now()
	z.state = scale.State{CU: min(max(z.state.CU, r.Min), r.Max)}
	z.began, z.sampled, z.kills = now, time.Time{}, 0
	if e.group == nil {
		z.state.CU = r.Max
		return nil
	}
	z.limits = cgroup.Limits{MemoryBytes: int64(z.state.CU * scale.CUBytes), CPUs: r.Max * r.CPUs, Claim: z.state.CU * r.CPUs}
	return e.group.Limit(z.limits)
}

// resume goes on with the size of a compute that was handed over.
func (z *size) resume(e *engine, st tarn.ComputeStatus) {
	z.state = scale.State{CU: st.CU}
	z.began = st.StartTime
	if e.group == nil {
		return
	}
	if u, err := e.group.Usage(); err == nil {
		z.kills = u.OOMKills
	}
}

// ungroup removes the control group, when Postgres has ended.
func (e *engine) ungroup(ctx context.Context) error {
	if e.group == nil {
		return nil
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanPatience)
	defer cancel()
	err := e.group.Clear(limit)
	e.group = nil
	return err
}

// explain says of a compute that ended whether it was for want of memory, and
// has the next start begin with more.
func (e *engine) explain(l *life, err error) error {
	if e.group == nil {
		return err
	}
	u, uerr := e.group.Usage()
	if uerr != nil || u.OOMKills <= l.size.kills {
		return err
	}
	l.size.kills = u.OOMKills
	was := l.size.state.CU
	l.size.state.CU = 2 * was // within its limits: see enter
	return fmt.Errorf("out of memory at %g CU (%s): %w", was, gigabytes(was), err)
}

func gigabytes(cu float64) string { return fmt.Sprintf("%g GB", cu*scale.CUBytes/(1<<30)) }

// resize gives the compute the size that what it uses asks for, once a second.
func (w *watcher) resize(now time.Time, a activity) {
	z := &w.l.size
	if now.Sub(z.sampled) < sampleEvery {
		return
	}
	z.sampled = now
	w.f.mu.Lock()
	r := w.f.rangeOf(w.l.spec)
	w.f.mu.Unlock()
	if w.e.group == nil {
		w.tell(r.Max, 0, "")
		return
	}
	u, err := w.e.group.Usage()
	if err != nil {
		w.f.log.Warn("compute not measured", "endpoint", w.l.spec.Endpoint, "err", err)
		return
	}
	before := z.state.CU
	z.state = scale.Decide(z.state, scale.Sample{
		At: now, CPU: u.CPU, Throttled: u.Throttled, Working: u.Working, Fixed: u.Fixed, Refaults: u.Refaults, OOMKills: u.OOMKills,
		CPUStalled: u.CPUStalled, MemoryStalled: u.MemoryStalled, Active: a.active, Waiting: a.waiting,
	}, r)
	want := cgroup.Limits{MemoryBytes: int64(z.state.CU * scale.CUBytes), CPUs: z.state.CU * r.CPUs, Claim: z.state.CU * r.CPUs}
	if now.Sub(z.began) < boost {
		want.CPUs = r.Max * r.CPUs
	}
	if want != z.limits {
		switch err := w.e.group.Limit(want); {
		case err == nil:
			z.limits = want
		case errors.Is(err, cgroup.ErrInUse):
			z.state.CU = before // it keeps its memory; the rules ask again
			z.limits = cgroup.Limits{}
		default:
			w.f.log.Warn("compute not resized", "endpoint", w.l.spec.Endpoint, "err", err)
			z.state.CU = before
		}
	}
	if z.state.CU != before {
		w.f.log.Info("compute resized", "endpoint", w.l.spec.Endpoint, "from", before, "to", z.state.CU)
	}
	problem := ""
	if u.OOMKills > z.kills {
		z.kills = u.OOMKills
		problem = fmt.Sprintf("out of memory at %g CU (%s) at %s: Postgres ended every session and recovered", before, gigabytes(before), now.UTC().Format(time.RFC3339))
		w.f.log.Error("compute out of memory", "endpoint", w.l.spec.Endpoint, "size", before)
	}
	w.tell(z.state.CU, u.Memory, problem)
}

// tell puts the size into the status.
func (w *watcher) tell(cu float64, memory int64, problem string) {
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	st := &w.l.status
	st.CU, st.MemoryBytes = cu, memory
	if problem != "" {
		st.Message = problem
	}
}
