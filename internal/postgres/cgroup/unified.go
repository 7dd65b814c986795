package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/cgroups/v3/cgroup2"
	"golang.org/x/sys/unix"
)

// unified is a directory of groups in the one hierarchy of v2.
type unified struct {
	root   string // where it is mounted
	parent string // of the groups, from root, with a slash before it
}

var wanted = [...]string{"cpu", "memory"}

// findUnified finds a directory that may have groups with limits below it: our
// own group, where its processes are in leaves already (Delegate=yes with
// DelegateSubgroup= of systemd) or it is the root; else the root itself, for
// who may write there.
func findUnified(o Options, self map[string]string) (version, error) {
	b, err := os.ReadFile(filepath.Join(o.Root, "cgroup.controllers"))
	if err != nil {
		return nil, fmt.Errorf("no version 2: %w", err)
	}
	for _, c := range wanted {
		if !slices.Contains(strings.Fields(string(b)), c) {
			return nil, fmt.Errorf("version 2 has no controller %s", c)
		}
	}
	var errs []error
	for _, above := range [...]string{self[""], "/"} {
		if above == "" {
			continue
		}
		if err := delegate(filepath.Join(o.Root, above)); err != nil {
			errs = append(errs, err)
			continue
		}
		return &unified{root: o.Root, parent: filepath.Join(above, o.Name)}, nil
	}
	return nil, errors.Join(errs...)
}

// delegate has a directory give the controllers to its children.
func delegate(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	for _, c := range wanted {
		if slices.Contains(strings.Fields(string(b)), c) {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
			return fmt.Errorf("give controller %s to groups in %s: %w", c, dir, err)
		}
	}
	return nil
}

func (u *unified) dirs() []string { return []string{filepath.Join(u.root, u.parent)} }

func (u *unified) weigh(cpus float64) error {
	file := filepath.Join(u.root, u.parent, "cpu.weight")
	return os.WriteFile(file, strconv.AppendUint(nil, unifiedWeight(cpus), 10), 0)
}

// unifiedWeight is the weight of a group in version 2.
func unifiedWeight(cpus float64) uint64 { return weight(cpus, 100, 1, 10000) }

func (u *unified) open(name string) (control, error) {
	group := filepath.Join(u.parent, name)
	if exists(u.root, group) {
		m, err := cgroup2.Load(group, cgroup2.WithMountpoint(u.root))
		return &unifiedGroup{dir: filepath.Join(u.root, group), m: m}, err
	}
	// Its controllers are enabled in the directories above.
	m, err := cgroup2.NewManager(u.root, group, &cgroup2.Resources{CPU: &cgroup2.CPU{}, Memory: &cgroup2.Memory{}})
	return &unifiedGroup{dir: filepath.Join(u.root, group), m: m}, err
}

type unifiedGroup struct {
	dir string
	m   *cgroup2.Manager
}

func (g *unifiedGroup) file(name string) string { return filepath.Join(g.dir, name) }

func (g *unifiedGroup) add(pid int) error { return g.m.AddProc(uint64(pid)) }

func (g *unifiedGroup) limit(l Limits) error {
	var quota *int64
	if l.CPUs > 0 {
		q := int64(l.CPUs * period)
		quota = &q
	}
	p := uint64(period)
	claim := unifiedWeight(l.Claim)
	if err := g.m.Update(&cgroup2.Resources{CPU: &cgroup2.CPU{Weight: &claim, Max: cgroup2.NewCPUMax(quota, &p)}}); err != nil {
		return err
	}
	if l.MemoryBytes == 0 {
		return os.WriteFile(g.file("memory.max"), []byte("max"), 0)
	}
	now, err := readNumber(g.file("memory.current"))
	if err != nil {
		return err
	}
	// The kernel would kill for a limit below what is in use: give back first.
	if now > l.MemoryBytes {
		err := os.WriteFile(g.file("memory.reclaim"), []byte(strconv.FormatInt(now-l.MemoryBytes, 10)), 0)
		if errors.Is(err, unix.EAGAIN) {
			return ErrInUse
		}
		if err != nil {
			return fmt.Errorf("shrink: %w", err) // a kernel before 5.19
		}
		if now, err = readNumber(g.file("memory.current")); err != nil {
			return err
		}
		if now > l.MemoryBytes {
			return ErrInUse
		}
	}
	return g.m.Update(&cgroup2.Resources{Memory: &cgroup2.Memory{Max: &l.MemoryBytes}})
}

func (g *unifiedGroup) usage() (u Usage, err error) {
	cpu, err := readTable(g.file("cpu.stat"))
	if err != nil {
		return u, err
	}
	memory, err := readTable(g.file("memory.stat"))
	if err != nil {
		return u, err
	}
	events, err := readTable(g.file("memory.events"))
	if err != nil {
		return u, err
	}
	if u.Memory, err = readNumber(g.file("memory.current")); err != nil {
		return u, err
	}
	u.CPU = time.Duration(cpu["usage_usec"]) * time.Microsecond
	u.Throttled = time.Duration(cpu["throttled_usec"]) * time.Microsecond
	u.Working = max(u.Memory-memory["inactive_file"], 0)
	u.Fixed = memory["anon"] + memory["shmem"]
	u.Refaults = memory["workingset_refault_file"] + memory["workingset_refault_anon"]
	u.OOMKills = events["oom_kill"]
	u.MemoryStalled, u.CPUStalled = stalled(g.file("memory.pressure")), stalled(g.file("cpu.pressure"))
	return u, nil
}

// stalled reads the share of the last 10 s from a line of pressure stall
// information: some avg10=1.20 avg60=0.50 avg300=0.10 total=123456.
func stalled(file string) float64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return -1 // not every kernel has it
	}
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) < 2 || f[0] != "some" {
			continue
		}
		if v, err := strconv.ParseFloat(strings.TrimPrefix(f[1], "avg10="), 64); err == nil {
			return v / 100
		}
	}
	return -1
}

func (g *unifiedGroup) freeze(want bool) error {
	v := map[bool]string{true: "1", false: "0"}[want]
	err := os.WriteFile(g.file("cgroup.freeze"), []byte(v), 0)
	if !want && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

func (g *unifiedGroup) frozen() (bool, error) {
	events, err := readTable(g.file("cgroup.events"))
	return events["frozen"] == 1, err
}

func (g *unifiedGroup) reclaim() error {
	now, err := readNumber(g.file("memory.current"))
	if err != nil || now == 0 {
		return err
	}
	err = os.WriteFile(g.file("memory.reclaim"), []byte(strconv.FormatInt(now, 10)), 0)
	if errors.Is(err, unix.EAGAIN) { // not all of it, as was to be expected
		return nil
	}
	return err
}

func (g *unifiedGroup) remove() error { return removeDir(g.dir) }

func (g *unifiedGroup) pids() ([]int, error) { return readPIDs(g.file("cgroup.procs")) }

// removeDir removes a group without processes. The kernel's files in it go with
// it.
func removeDir(dir string) error {
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}
