package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// period is over which CPU limits hold, in microseconds: the kernel's default.
const period = 100_000

// hierarchies are the directories of groups in the hierarchies of v1.
type hierarchies struct {
	root   string
	own    map[string]string // by controller: our own group, from its hierarchy's root
	parent map[string]string // by controller: of the groups, from its hierarchy's root
}

// needed are the controllers of v1, memory first: what has it has a limit.
var needed = [...]string{"memory", "cpu", "cpuacct", "freezer"}

func findHierarchies(o Options, self map[string]string) (version, error) {
	h := &hierarchies{root: o.Root, own: map[string]string{}, parent: map[string]string{}}
	for _, c := range needed {
		own, in := self[c]
		if !in || !exists(o.Root, c) {
			return nil, fmt.Errorf("version 1 has no controller %s", c)
		}
		// Below our own group, so that its limits hold for the computes too. In
		// a container our path may be one that is not shown there.
		if !exists(o.Root, c, own) {
			own = "/"
		}
		h.own[c] = own
		h.parent[c] = filepath.Join(own, o.Name)
	}
	return h, nil
}

func (h *hierarchies) dirs() []string {
	all := make([]string, 0, len(needed))
	for _, c := range needed {
		all = append(all, filepath.Join(h.root, c, h.parent[c]))
	}
	return all
}

func (h *hierarchies) weigh(cpus float64) error {
	file := filepath.Join(h.root, "cpu", h.parent["cpu"], "cpu.shares")
	return os.WriteFile(file, strconv.AppendUint(nil, shares(cpus), 10), 0)
}

// shares is the weight of a group in version 1.
func shares(cpus float64) uint64 { return weight(cpus, 1024, 2, 262144) }

func (h *hierarchies) open(name string) (control, error) {
	g := &hierarchyGroup{dir: map[string]string{}, home: map[string]string{}}
	for _, c := range needed {
		g.dir[c], g.home[c] = filepath.Join(h.root, c, h.parent[c], name), filepath.Join(h.root, c, h.own[c])
	}
	at := func(c cgroup1.Name) (string, error) { return filepath.Join(h.parent[string(c)], name), nil }
	all := func() ([]cgroup1.Subsystem, error) {
		return []cgroup1.Subsystem{cgroup1.NewMemory(h.root), cgroup1.NewCpu(h.root), cgroup1.NewCpuacct(h.root), cgroup1.NewFreezer(h.root)}, nil
	}
	var err error
	g.c, err = cgroup1.New(at, &specs.LinuxResources{}, cgroup1.WithHierarchy(all))
	return g, err
}

type hierarchyGroup struct {
	dir  map[string]string // by controller
	home map[string]string // by controller: where our own threads are
	c    cgroup1.Cgroup
}

func (g *hierarchyGroup) file(controller, name string) string {
	return filepath.Join(g.dir[controller], name)
}

func (g *hierarchyGroup) add(pid int) error { return g.c.AddProc(uint64(pid)) }

func (g *hierarchyGroup) enter() error { return moveThread(g.dir) }
func (g *hierarchyGroup) leave() error { return moveThread(g.home) }

// moveThread moves the calling thread.
func moveThread(to map[string]string) error {
	for _, dir := range to {
		if err := os.WriteFile(filepath.Join(dir, "tasks"), []byte("0"), 0); err != nil {
			return err
		}
	}
	return nil
}

func (g *hierarchyGroup) limit(l Limits) error {
	quota, memory, p := int64(-1), int64(-1), uint64(period)
	if l.CPUs > 0 {
		quota = int64(l.CPUs * period)
	}
	if l.MemoryBytes > 0 {
		memory = l.MemoryBytes
	}
	claim := shares(l.Claim)
	if err := g.c.Update(&specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: &claim, Quota: &quota, Period: &p}}); err != nil {
		return err
	}
	// The kernel gives back what it can and refuses what it cannot.
	err := g.c.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory}})
	if errors.Is(err, unix.EBUSY) {
		return ErrInUse
	}
	return err
}

func (g *hierarchyGroup) usage() (u Usage, err error) {
	ns, err := readNumber(g.file("cpuacct", "cpuacct.usage"))
	if err != nil {
		return u, err
	}
	cpu, err := readTable(g.file("cpu", "cpu.stat"))
	if err != nil {
		return u, err
	}
	memory, err := readTable(g.file("memory", "memory.stat"))
	if err != nil {
		return u, err
	}
	oom, err := readTable(g.file("memory", "memory.oom_control"))
	if err != nil {
		return u, err
	}
	if u.Memory, err = readNumber(g.file("memory", "memory.usage_in_bytes")); err != nil {
		return u, err
	}
	u.CPU, u.Throttled = time.Duration(ns), time.Duration(cpu["throttled_time"])
	u.Working = max(u.Memory-memory["total_inactive_file"], 0)
	u.Fixed = memory["total_rss"] + memory["total_shmem"]
	u.Refaults = memory["total_workingset_refault_file"] + memory["total_workingset_refault_anon"]
	u.OOMKills = oom["oom_kill"]
	u.MemoryStalled, u.CPUStalled = -1, -1
	return u, nil
}

func (g *hierarchyGroup) freeze(want bool) error {
	v := map[bool]string{true: "FROZEN", false: "THAWED"}[want]
	err := os.WriteFile(g.file("freezer", "freezer.state"), []byte(v), 0)
	if !want && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (g *hierarchyGroup) frozen() (bool, error) {
	b, err := os.ReadFile(g.file("freezer", "freezer.state"))
	return strings.TrimSpace(string(b)) == "FROZEN", err
}

func (g *hierarchyGroup) reclaim() error {
	return os.WriteFile(g.file("memory", "memory.force_empty"), []byte(strconv.Itoa(0)), 0)
}

func (g *hierarchyGroup) remove() error {
	var errs []error
	for _, c := range needed {
		errs = append(errs, removeDir(g.dir[c]))
	}
	return errors.Join(errs...)
}

// pids are those in any of the hierarchies: a process that could be moved only
// in some is among them.
func (g *hierarchyGroup) pids() ([]int, error) {
	seen := map[int]bool{}
	var all []int
	for _, c := range needed {
		pids, err := readPIDs(g.file(c, "cgroup.procs"))
		if err != nil {
			return nil, err
		}
		for _, pid := range pids {
			if !seen[pid] {
				seen[pid] = true
				all = append(all, pid)
			}
		}
	}
	return all, nil
}
