package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits are what a group may use at most.
type Limits struct {
	MemoryBytes int64   // page cache included; 0 = no limit
	CPUs        float64 // of one CPU's time; 0 = no limit
	// Claim is how many CPUs' worth of work the group is where there is not
	// enough for all: see weight. 0 = one.
	Claim float64
}

// weightPerCPU is the weight of a group, in that of a single process, for each
// CPU it claims. A group weighs as much as one process unless told otherwise,
// however many run in it: then each client on the same computer is let in
// before dozens of backends, and changing between them costs up to a quarter
// more processor time a transaction (docs/performance.md: select-only). With
// sixteen clients would wait while a CPU is idle.
const weightPerCPU = 4

// weight of a group that claims so many CPUs, when a process has one and the
// kernel takes from least to most.
func weight(cpus float64, one, least, most uint64) uint64 {
	if cpus <= 0 {
		cpus = 1
	}
	return min(max(uint64(cpus*float64(weightPerCPU*one)), least), most)
}

// Usage is what a group uses.
type Usage struct {
	CPU       time.Duration // since the group was made
	Throttled time.Duration // that it had to wait because of its CPU limit, since then
	Memory    int64         // bytes, page cache included
	// Working is the memory that the kernel would not take first: all but page
	// cache that was read once only. Fixed is that which it cannot take at all
	// (but for swap): anonymous and shared memory.
	Working, Fixed int64
	// Refaults counts pages (of 4 KiB) that were read again soon after they had
	// been dropped for want of memory.
	Refaults int64
	OOMKills int64 // processes the kernel killed because of the memory limit
	// Stalled is the part of the last 10 s in which at least one process
	// waited for memory, or for CPU: 0 to 1. Negative = the kernel does not say.
	MemoryStalled, CPUStalled float64
}

// ErrInUse is a memory limit below what cannot be given back.
var ErrInUse = errors.New("more memory is in use")

// Group is one control group.
type Group struct {
	name string
	c    control
}

// freezePoll is how often a group is looked at that is to stop. The kernel says
// nothing by itself in v1.
const freezePoll = 500 * time.Microsecond

// Add moves a process into the group; children it makes later are born there.
func (g *Group) Add(pid int) error {
	if err := g.c.add(pid); err != nil {
		return fmt.Errorf("put process %d into control group %s: %w", pid, g.name, err)
	}
	return nil
}

// Enters tells whether Enter works here. Version 2 has a group's threads together.
func (g *Group) Enters() bool {
	_, ok := g.c.(threaded)
	return ok
}

// threaded is a group that a thread can be in by itself.
type threaded interface {
	enter() error
	leave() error
}

// Enter moves the calling thread into the group, and leave moves it back: what it
// starts meanwhile is born there. To move a process that runs, as Add does, the
// kernel waits until no process of the computer is forking or ending, which
// takes 5 to 30 ms; a thread may move itself at once
// (kernel/cgroup/cgroup.c, cgroup_procs_write_start). The caller has locked the
// thread, and lets it end with its goroutine when leave returns an error.
func (g *Group) Enter() (leave func() error, err error) {
	t, ok := g.c.(threaded)
	if !ok {
		return nil, fmt.Errorf("enter control group %s: %w", g.name, errors.ErrUnsupported)
	}
	leave = func() error {
		if err := t.leave(); err != nil {
			return fmt.Errorf("leave control group %s: %w", g.name, err)
		}
		return nil
	}
	if err := t.enter(); err != nil {
		return nil, errors.Join(fmt.Errorf("enter control group %s: %w", g.name, err), leave())
	}
	return leave, nil
}

// Limit changes the limits at once. Memory in use beyond the new limit is given
// back first; where that is not possible nothing of memory changes and the error
// is ErrInUse: no process is killed for a limit that shrinks.
func (g *Group) Limit(l Limits) error {
	if err := g.c.limit(l); err != nil {
		return fmt.Errorf("limit control group %s to %d bytes and %.2f CPUs: %w", g.name, l.MemoryBytes, l.CPUs, err)
	}
	return nil
}

// Usage reads what the group uses now.
func (g *Group) Usage() (Usage, error) {
	u, err := g.c.usage()
	if err != nil {
		return u, fmt.Errorf("read control group %s: %w", g.name, err)
	}
	return u, nil
}

// Freeze stops every process and returns when all have stopped. When ctx ends
// before, they run again.
func (g *Group) Freeze(ctx context.Context) error { return g.turn(ctx, true) }

// Thaw lets them run again.
func (g *Group) Thaw(ctx context.Context) error { return g.turn(ctx, false) }

func (g *Group) turn(ctx context.Context, want bool) error {
	word := map[bool]string{true: "freeze", false: "thaw"}[want]
	tick := time.NewTicker(freezePoll)
	defer tick.Stop()
	for {
		err := g.c.freeze(want)
		is := !want
		if err == nil {
			is, err = g.c.frozen()
		}
		switch {
		case err != nil:
			return fmt.Errorf("%s control group %s: %w", word, g.name, err)
		case is == want:
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			err := context.Cause(ctx)
			if want {
				err = errors.Join(err, g.c.freeze(false))
			}
			return fmt.Errorf("%s control group %s: %w", word, g.name, err)
		}
	}
}

// Reclaim gives back what memory can be given back: page cache, and where there
// is swap the rest too.
func (g *Group) Reclaim() error {
	if err := g.c.reclaim(); err != nil {
		return fmt.Errorf("reclaim memory of control group %s: %w", g.name, err)
	}
	return nil
}

// Processes lists the processes in the group.
func (g *Group) Processes() ([]int, error) { return g.c.pids() }

// Clear kills what is in the group, frozen or not, and removes it; one that is
// gone is not an error.
func (g *Group) Clear(ctx context.Context) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		pids, err := g.c.pids()
		if err != nil {
			return fmt.Errorf("clear control group %s: %w", g.name, err)
		}
		for _, pid := range pids {
			if pid == os.Getpid() { // a thread of ours is about to leave
				continue
			}
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("clear control group %s: kill process %d: %w", g.name, pid, err)
			}
		}
		// A frozen process of v1 does not die before it is thawed.
		err = g.c.freeze(false)
		if len(pids) == 0 {
			if err = g.c.remove(); err == nil {
				return nil
			}
		}
		select {
		case <-tick.C: // the last of them may still be ending
		case <-ctx.Done():
			return fmt.Errorf("clear control group %s: %w", g.name, errors.Join(context.Cause(ctx), err))
		}
	}
}

// readPIDs reads cgroup.procs; a group that is gone has none.
func readPIDs(file string) ([]int, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, f := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("read %s: expected process ids, found %q", file, f)
		}
		if pid > 0 { // 0 stands for a process outside of our namespace
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// readNumber reads a file that holds one number; "max" is the largest.
func readNumber(file string) (int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	s := strings.TrimSpace(string(b))
	if s == "max" {
		return 1<<63 - 1, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: expected a number, found %q", file, s)
	}
	return n, nil
}

// readTable reads a file of lines "name number".
func readTable(file string) (map[string]int64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	table := map[string]int64{}
	for line := range strings.Lines(string(b)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseInt(value, 10, 64); ok && err == nil {
			table[name] = n
		}
	}
	return table, nil
}
