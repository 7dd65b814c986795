package scale_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tarndb/tarn/internal/compute/scale"
)

// load is what clients want of a compute at a second: CPUs, and bytes of
// working set; fixed is what of that cannot be given back.
type load struct {
	cpus           float64
	working, fixed int64
	scan           bool // all else of its memory is page cache that is read once
}

const gb = 1 << 30

// plant is a compute under load: what the kernel would count.
type plant struct {
	sample scale.Sample
}

func newPlant() *plant {
	return &plant{scale.Sample{At: time.Unix(1_800_000_000, 0), CPUStalled: -1, MemoryStalled: -1}}
}

// second lets a second of load pass on a compute of a size.
func (p *plant) second(l load, cu float64, r scale.Range) scale.Sample {
	s := &p.sample
	s.At = s.At.Add(time.Second)
	limit := cu * r.CPUs
	s.CPU += time.Duration(min(l.cpus, limit) * float64(time.Second))
	if l.cpus > limit {
		s.Throttled += time.Duration((1 - limit/l.cpus) * float64(time.Second))
	}
	s.Active = int(math.Ceil(l.cpus))
	memory := int64(cu * scale.CUBytes)
	s.Fixed = min(l.fixed, memory)
	s.Working = min(l.working, memory)
	if l.working > memory { // it reads again what it dropped
		s.Refaults += min((l.working-memory)/4096, 100_000)
	}
	return *s
}

// run lets a load go over a compute and returns its size at every second.
func run(r scale.Range, seconds int, at func(second int) load) []float64 {
	p := newPlant()
	st := scale.State{CU: r.Min}
	sizes := make([]float64, 0, seconds)
	for i := range seconds {
		st = scale.Decide(st, p.second(at(i), st.CU, r), r)
		sizes = append(sizes, st.CU)
	}
	return sizes
}

func changes(sizes []float64) (n int) {
	for i := 1; i < len(sizes); i++ {
		if sizes[i] != sizes[i-1] {
			n++
		}
	}
	return n
}

var usual = scale.Range{Min: 0.5, Max: 8, CPUs: 1}

// TestReaction: from idle to any load that fits within 4 s, and back to the
// least within 70 s, in one step.
func TestReaction(t *testing.T) {
	for _, cpus := range []float64{0.3, 0.9, 2, 3.7, 6} {
		sizes := run(usual, 200, func(s int) load {
			if s >= 10 && s < 100 {
				return load{cpus: cpus}
			}
			return load{}
		})
		if sizes[9] != usual.Min {
			t.Errorf("%g CPUs: %g CU when idle", cpus, sizes[9])
		}
		if sizes[14] < cpus {
			t.Errorf("%g CPUs: %g CU after 4 s: %v", cpus, sizes[14], sizes[8:20])
		}
		if most := max(2*cpus, 1); sizes[14] > most {
			t.Errorf("%g CPUs: %g CU, more than twice of what is wanted", cpus, sizes[14])
		}
		if end := sizes[99+70]; end != usual.Min {
			t.Errorf("%g CPUs: %g CU 70 s after the load", cpus, end)
		}
	}
}

// TestNeverBelowTheWorkingSet: once it has grown to a working set that fits, it
// is never smaller than it, whatever the CPU does.
func TestNeverBelowTheWorkingSet(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		working := int64(rnd.Float64() * 14 * gb)
		l := load{working: working, fixed: int64(float64(working) * rnd.Float64() * 0.8)}
		calm := 10 + rnd.IntN(200)
		sizes := run(usual, 1000, func(s int) load {
			l := l
			if s/calm%2 == 0 {
				l.cpus = rnd.Float64() * 10
			}
			return l
		})
		for s, cu := range sizes[30:] {
			if int64(cu*scale.CUBytes) < working {
				t.Fatalf("round %d, second %d: %g CU for a working set of %d MB", round, s+30, cu, working>>20)
			}
		}
	}
}

// TestDoesNotFlap: however its load swings, a compute changes its size a few
// times an hour only.
func TestDoesNotFlap(t *testing.T) {
	const hour = 3600
	curves := map[string]func(s int) load{}
	for _, period := range []int{2, 3, 10, 59, 60, 61, 62, 90, 119, 121, 130, 200, 250, 300, 500, 1000, 1900} {
		curves[fmt.Sprintf("square wave of %d s", period)] = func(s int) load {
			if s%period < period/2 {
				return load{cpus: 5}
			}
			return load{}
		}
		curves[fmt.Sprintf("a second in %d", period)] = func(s int) load {
			if s%period == 0 {
				return load{cpus: 7}
			}
			return load{cpus: 0.1}
		}
		curves[fmt.Sprintf("memory, square wave of %d s", period)] = func(s int) load {
			if s%period < period/2 {
				return load{working: 9 * gb, fixed: 5 * gb}
			}
			return load{working: gb}
		}
		curves[fmt.Sprintf("sine of %d s", period)] = func(s int) load {
			return load{cpus: 2 + 2*math.Sin(2*math.Pi*float64(s)/float64(period))}
		}
	}
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, seed))
		curves[fmt.Sprintf("noise %d", seed)] = func(int) load {
			return load{cpus: rnd.ExpFloat64(), working: int64(rnd.Float64() * 4 * gb)}
		}
	}
	for name, at := range curves {
		sizes := run(usual, 3*hour, at)
		// Learning takes some swings; after that there are few.
		if n := changes(sizes[:hour]); n > 40 {
			t.Errorf("%s: %d changes in the first hour", name, n)
		}
		if n := changes(sizes[2*hour:]); n > 30 {
			t.Errorf("%s: %d changes in the third hour", name, n)
		}
	}
}

// TestFollowsTheLoad: an adversary that knows the rules, and moves the load just
// after every decision against it, still gets no more swings than the calm time
// allows, and never a size that is too small for more than 5 s.
func TestFollowsTheLoad(t *testing.T) {
	p, st := newPlant(), scale.State{CU: usual.Min}
	small, changed := 0, 0
	for range 4 * 3600 {
		l := load{cpus: 0.05}
		if st.CU == usual.Min { // it shrank: now it is wanted
			l.cpus = 5
		}
		before := st.CU
		st = scale.Decide(st, p.second(l, st.CU, usual), usual)
		if st.CU != before {
			changed++
		}
		if small++; l.cpus <= st.CU {
			small = 0
		}
		if small > 5 {
			t.Fatalf("too small for %d s", small)
		}
	}
	if changed > 150 {
		t.Errorf("%d changes in four hours", changed)
	}
}

// TestDay is a working day as offices have it: busy from 9 to 17, a report at
// noon that scans, a nightly load. It must cost little more than its load.
func TestDay(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	at := func(s int) load {
		h := float64(s) / 3600
		switch {
		case h >= 2 && h < 2.5:
			return load{cpus: 7.5, working: 3 * gb, fixed: 2 * gb}
		case h >= 12 && h < 12.25:
			return load{cpus: 1, working: 2 * gb, scan: true}
		case h >= 9 && h < 17:
			return load{cpus: max(1.5+0.5*math.Sin(h)+0.4*rnd.NormFloat64(), 0), working: 2 * gb, fixed: gb / 2}
		}
		return load{cpus: 0.02}
	}
	sizes := run(usual, 24*3600, at)
	var sum float64
	var short int
	for s, cu := range sizes {
		sum += cu
		if at(s).cpus > cu*1.05 {
			short++
		}
	}
	if mean := sum / float64(len(sizes)); mean > 2.5 {
		t.Errorf("a day took %.2f CU on average", mean)
	}
	if short > 120 {
		t.Errorf("too small during %d seconds of a day", short)
	}
}

// TestScansDoNotGrow: page cache that is read once is not the working set.
func TestScansDoNotGrow(t *testing.T) {
	sizes := run(usual, 600, func(int) load { return load{cpus: 0.3, working: gb / 2, scan: true} })
	if end := sizes[599]; end != 0.5 {
		t.Errorf("a scan made it %g CU", end)
	}
}

func TestLimitsHold(t *testing.T) {
	fixed := scale.Range{Min: 2, Max: 2, CPUs: 1}
	for s, cu := range run(fixed, 300, func(s int) load { return load{cpus: float64(s % 9), working: int64(s) << 25} }) {
		if cu != 2 {
			t.Fatalf("second %d: %g CU of a fixed size of 2", s, cu)
		}
	}
	// Limits that change hold from the next second on.
	p, st := newPlant(), scale.State{CU: 8}
	smaller := scale.Range{Min: 0.5, Max: 3, CPUs: 1}
	if st = scale.Decide(st, p.second(load{cpus: 8}, 8, usual), smaller); st.CU != 3 {
		t.Errorf("%g CU, more than the new limit of 3", st.CU)
	}
}

// TestKilledForMemory: the next start must not meet the same end.
func TestKilledForMemory(t *testing.T) {
	p, st := newPlant(), scale.State{CU: 1}
	st = scale.Decide(st, p.second(load{}, 1, usual), usual)
	p.sample.OOMKills++
	if st = scale.Decide(st, p.second(load{}, 1, usual), usual); st.CU != 2 {
		t.Errorf("%g CU after it was killed at 1 CU, want 2", st.CU)
	}
}

// TestPressure: where the kernel says that processes wait for memory, it is
// believed.
func TestPressure(t *testing.T) {
	p, st := newPlant(), scale.State{CU: 2}
	st = scale.Decide(st, p.second(load{}, 2, usual), usual)
	p.sample.MemoryStalled = 0.3
	if st = scale.Decide(st, p.second(load{}, 2, usual), usual); st.CU != 3 {
		t.Errorf("%g CU under pressure at 2 CU, want 3", st.CU)
	}
}
