package cgroup

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// files writes the kernel's files of a group: its interface, which a computer
// without version 2 does not have.
func files(t *testing.T, dir string, more map[string]string) {
	t.Helper()
	all := map[string]string{
		"cgroup.controllers": "cpuset cpu io memory pids\n", "cgroup.subtree_control": "\n", "cgroup.procs": "0\n17\n23\n",
		"cgroup.freeze": "0\n", "cgroup.events": "populated 1\nfrozen 0\n", "cpu.max": "max 100000\n", "cpu.weight": "100\n",
		"cpu.stat":       "usage_usec 1500000\nuser_usec 1\nthrottled_usec 250000\n",
		"memory.current": "104857600\n", "memory.max": "max\n", "memory.reclaim": "",
		"memory.stat":     "anon 20971520\nfile 83886080\nshmem 10485760\ninactive_file 31457280\nworkingset_refault_file 40\nworkingset_refault_anon 2\n",
		"memory.events":   "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n",
		"memory.pressure": "some avg10=2.50 avg60=0.00 avg300=0.00 total=5\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=3\n",
	}
	maps.Copy(all, more)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range all {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func says(t *testing.T, want string, elem ...string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil || strings.TrimSpace(string(b)) != want {
		t.Fatalf("%s says %q, %v: want %q", filepath.Join(elem...), b, err, want)
	}
}

func TestUnifiedPlace(t *testing.T) {
	root := t.TempDir()
	files(t, root, nil)
	files(t, filepath.Join(root, "system.slice/tarn.service"), nil)
	v, err := findUnified(Options{Name: "tarn-1", Root: root}, map[string]string{"": "/system.slice/tarn.service"})
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(root, "system.slice/tarn.service/tarn-1"); v.dirs()[0] != want {
		t.Fatalf("groups in %s, want %s", v.dirs()[0], want)
	}
	// The kernel adds each word to those that are there; a file keeps the last.
	says(t, "+memory", root, "system.slice/tarn.service/cgroup.subtree_control")

	// Where our own group may not give its controllers on, the root may do.
	if err := os.RemoveAll(filepath.Join(root, "system.slice/tarn.service/cgroup.subtree_control")); err != nil {
		t.Fatal(err)
	}
	v, err = findUnified(Options{Name: "tarn-1", Root: root}, map[string]string{"": "/system.slice/tarn.service"})
	if err != nil || v.dirs()[0] != filepath.Join(root, "tarn-1") {
		t.Fatalf("groups in %v, %v: want the root", v, err)
	}
	files(t, root, map[string]string{"cgroup.controllers": "cpu pids"})
	if _, err = findUnified(Options{Name: "tarn-1", Root: root}, map[string]string{"": "/"}); err == nil || !strings.Contains(err.Error(), "memory") {
		t.Fatalf("without controller memory: %v", err)
	}
}

// TestWeight: a tree weighs by the computer's CPUs and a group by its claim, both
// within what the kernel takes.
func TestWeight(t *testing.T) {
	root := t.TempDir()
	files(t, filepath.Join(root, "tarn-1"), nil)
	u := &unified{root: root, parent: "/tarn-1"}
	h := &hierarchies{root: root, parent: map[string]string{"cpu": "/"}}
	files(t, filepath.Join(root, "cpu"), map[string]string{"cpu.shares": "1024\n"})
	for _, c := range []struct {
		cpus           float64
		weight, shares string
	}{{0, "400", "4096"}, {0.5, "200", "2048"}, {2, "800", "8192"}, {0.0001, "1", "2"}, {112, "10000", "262144"}} {
		if err := errors.Join(u.weigh(c.cpus), h.weigh(c.cpus)); err != nil {
			t.Fatal(err)
		}
		says(t, c.weight, root, "tarn-1/cpu.weight")
		says(t, c.shares, root, "cpu/cpu.shares")
	}
}

func TestUnifiedGroup(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "tarn-1", "ep-a")
	files(t, dir, nil)
	c, err := (&unified{root: root, parent: "/tarn-1"}).open("ep-a")
	if err != nil {
		t.Fatal(err)
	}
	u, err := c.usage()
	want := Usage{
		CPU: 1500 * time.Millisecond, Throttled: 250 * time.Millisecond, Memory: 100 << 20, Working: 70 << 20, Fixed: 30 << 20,
		Refaults: 42, OOMKills: 1, MemoryStalled: 0.025, CPUStalled: -1,
	}
	if err != nil || u != want {
		t.Fatalf("usage %+v, %v: want %+v", u, err, want)
	}
	if err := c.add(4711); err != nil {
		t.Fatal(err)
	}
	says(t, "4711", dir, "cgroup.procs")
	files(t, dir, nil)
	if pids, err := c.pids(); err != nil || len(pids) != 2 || pids[0] != 17 || pids[1] != 23 {
		t.Fatalf("processes %v, %v: want 17 and 23", pids, err)
	}
	if err := c.limit(Limits{MemoryBytes: 1 << 30, CPUs: 1.5, Claim: 0.5}); err != nil {
		t.Fatal(err)
	}
	says(t, "150000 100000", dir, "cpu.max")
	says(t, "200", dir, "cpu.weight")
	says(t, "1073741824", dir, "memory.max")
	// Memory beyond a smaller limit is asked back; when it does not come, the
	// limit stays: the kernel would kill.
	if err := c.limit(Limits{MemoryBytes: 60 << 20, CPUs: 0.25}); !errors.Is(err, ErrInUse) {
		t.Fatalf("limit below what is in use: %v", err)
	}
	says(t, "41943040", dir, "memory.reclaim")
	says(t, "1073741824", dir, "memory.max")
	says(t, "25000 100000", dir, "cpu.max")
	if err := c.limit(Limits{}); err != nil {
		t.Fatal(err)
	}
	says(t, "max 100000", dir, "cpu.max")
	says(t, "400", dir, "cpu.weight")
	says(t, "max", dir, "memory.max")

	if err := c.freeze(true); err != nil {
		t.Fatal(err)
	}
	says(t, "1", dir, "cgroup.freeze")
	if is, err := c.frozen(); is || err != nil {
		t.Fatalf("frozen %t, %v before the kernel says so", is, err)
	}
	files(t, dir, map[string]string{"cgroup.events": "populated 1\nfrozen 1\n"})
	if is, err := c.frozen(); !is || err != nil {
		t.Fatalf("frozen %t, %v", is, err)
	}
	if err := c.reclaim(); err != nil {
		t.Fatal(err)
	}
	says(t, "104857600", dir, "memory.reclaim")
	if err := left(dir).freeze(false); err != nil {
		t.Fatal(err)
	}
	says(t, "0", dir, "cgroup.freeze")
}
