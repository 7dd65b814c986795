// Package scale decides how large a compute should be, from what it uses. It is
// a pure function of samples: it reads nothing, limits nothing and has no clock
// of its own. It knows what a CU is and nothing of Postgres or control groups.
//
// # The rules
//
//  1. CPU: the size at which 80 % of its CPU would be in use. Neon's autoscaler
//     aims at 90 % of the load average of a minute (autoscaling-algorithm.md);
//     ours sees every second and keeps a little more in reserve.
//  2. A compute that is held back (it waited for CPU more than 10 % of the time,
//     or used 95 % of its limit) may want any amount: twice the size, or one CPU
//     for each backend that runs, up to four times the size.
//  3. Memory that cannot be given back (anonymous, shared) takes at most 75 % of
//     the memory: Neon's rule for the memory of a compute.
//  4. The working set takes at most 90 %. Page cache that was read once only is
//     not part of it (inactive_file in the kernel's memory.stat): a scan of a
//     large table makes nothing grow.
//  5. Pages read again right after they were dropped (workingset_refault of
//     memory.stat), more than 8 MB/s of them, or processes that wait for memory
//     more than 10 % of the time (pressure stall information): the working set
//     does not fit, and the size is half as large again.
//  6. A process killed for want of memory: twice the size.
//  7. The largest of these, rounded up to half a CU, within the endpoint's
//     limits. It grows at once. It shrinks when for a minute (calm) every goal
//     was smaller, to the largest of them. So it is never below the working set
//     where that fits the limits.
//  8. When it must grow again soon (8 × calm) after it shrank, calm doubles, up to 16
//     minutes; it halves when that took 16 × calm. Whatever the load
//     does, the size does not swing with it.
package scale

import (
	"math"
	"time"
)

// The figures of the rules.
const (
	Step    = 0.5     // CU
	CUBytes = 2 << 30 // memory of one CU

	cpuTarget     = 0.8
	heldBack      = 0.95 // of the limit in use
	waited        = 0.1  // of the time
	fixedTarget   = 0.75
	workingTarget = 0.9
	refaultRate   = 8 << 20 // bytes a second
	pageBytes     = 4096

	minCalm = time.Minute
	maxCalm = 16 * time.Minute
)

// Sample is what a compute used up to a moment. Counters begin anywhere.
type Sample struct {
	At        time.Time
	CPU       time.Duration // counter
	Throttled time.Duration // counter: held back by its CPU limit
	Working   int64         // bytes; see rule 4
	Fixed     int64         // bytes; see rule 3
	Refaults  int64         // counter, of pages of 4 KiB
	OOMKills  int64         // counter
	// Parts of the last 10 s that some process waited, 0 to 1; negative =
	// unknown.
	CPUStalled, MemoryStalled float64
	Active                    int // backends with a statement
	Waiting                   int // of those, waiting for something other than CPU: locks, clients
}

// Range is what an endpoint allows, in CU; both the same = a fixed size.
type Range struct {
	Min, Max float64
	CPUs     float64 // of one CU
}

// State is what is remembered from one decision to the next. The zero State with
// a CU begins.
type State struct {
	CU float64 // the size now

	last     Sample
	lowSince time.Time // since when every goal was below CU; zero = the last was not
	lowPeak  float64   // the largest of those goals
	calm     time.Duration
	shrunk   time.Time // when it last did
}

// Decide takes one sample and says which size the compute should have: CU of
// what it returns. Whoever could not bring that about puts the size that is into
// CU.
func Decide(s State, now Sample, r Range) State {
	last := s.last
	s.last = now
	s.CU = min(max(s.CU, r.Min), r.Max)
	if s.calm == 0 {
		s.calm = minCalm
	}
	took := now.At.Sub(last.At)
	if last.At.IsZero() || took <= 0 {
		return s
	}
	g := goal(s.CU, last, now, took, r)
	switch {
	case g > s.CU:
		s.grow(now.At, g)
	case g == s.CU:
		s.lowSince = time.Time{}
	case s.lowSince.IsZero():
		s.lowSince, s.lowPeak = now.At, g
	default:
		s.lowPeak = max(s.lowPeak, g)
		if now.At.Sub(s.lowSince) >= s.calm {
			s.CU, s.shrunk = s.lowPeak, now.At
			s.lowSince = time.Time{}
		}
	}
	return s
}

func (s *State) grow(at time.Time, to float64) {
	s.CU, s.lowSince = to, time.Time{}
	if s.shrunk.IsZero() {
		return
	}
	switch since := at.Sub(s.shrunk); {
	case since < 8*s.calm:
		s.calm = min(2*s.calm, maxCalm)
	case since > 16*s.calm:
		s.calm = max(s.calm/2, minCalm)
	}
	s.shrunk = time.Time{} // it counts once
}

// goal is the size that the rules 1 to 6 ask for, within the range.
func goal(cu float64, last, now Sample, took time.Duration, r Range) float64 {
	secs := took.Seconds()
	cpu := max(now.CPU-last.CPU, 0).Seconds() / secs
	held := max(now.Throttled-last.Throttled, 0).Seconds() / secs
	g := cpu / (cpuTarget * r.CPUs)
	limit := cu * r.CPUs
	if cpu >= heldBack*limit || held > waited && cpu > limit/2 {
		running := float64(max(now.Active-now.Waiting, 0)) / r.CPUs
		g = max(g, 2*cu, min(running, 4*cu))
	}
	g = max(g, float64(now.Fixed)/(fixedTarget*CUBytes), float64(now.Working)/(workingTarget*CUBytes))
	refaults := float64(max(now.Refaults-last.Refaults, 0)) * pageBytes / secs
	if refaults > refaultRate || now.MemoryStalled > waited {
		g = max(g, 1.5*cu)
	}
	if now.OOMKills > last.OOMKills {
		g = max(g, 2*cu)
	}
	return min(max(math.Ceil(g/Step-1e-9)*Step, r.Min), r.Max)
}
