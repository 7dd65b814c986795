package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn/bench/report"
)

// diskBytesPerSecond is the cap of tpcb-disk-limited, on reads and on writes:
// about what a small cloud volume gives.
const diskBytesPerSecond = 20 << 20

// limitedTPS runs TPC-B with everything that touches the disk, both databases
// and ourselves with the volume's server, in a control group of a slow disk.
// The checkpoint that writes what the run left dirty belongs to the time, or the
// side that puts writing off would win.
func (b *bench) limitedTPS(ctx context.Context, s side) (tps float64, err error) {
	if err := checkpoint(ctx, s); err != nil {
		return 0, err
	}
	release, err := limitDisk(b.dir, diskBytesPerSecond)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, release()) }()
	before, err := transactions(ctx, s)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if _, err := b.runPgbench(ctx, s, "-M", "prepared", "-n", "-c", strconv.Itoa(clients), "-j", "2", "-T", strconv.Itoa(b.seconds)); err != nil {
		return 0, err
	}
	if err := checkpoint(ctx, s); err != nil {
		return 0, err
	}
	took := time.Since(began)
	after, err := transactions(ctx, s)
	return float64(after-before) / took.Seconds(), err
}

func transactions(ctx context.Context, s side) (n int64, err error) {
	c, err := connect(ctx, s, database)
	if err != nil {
		return 0, err
	}
	defer c.Close(ctx)
	return n, c.QueryRow(ctx, "SELECT count(*) FROM pgbench_history").Scan(&n)
}

// limitDisk caps reads and writes of the device under dir for this process and
// all it started, until release. It needs root and a cgroup controller for I/O.
func limitDisk(dir string, bytesPerSecond int64) (release func() error, err error) {
	device, err := deviceOf(dir)
	if err != nil {
		return nil, err
	}
	g, err := newIOGroup()
	if err != nil {
		return nil, report.Skipped(fmt.Sprintf("no cgroup can limit the disk: %v", err))
	}
	for file, text := range g.limits(device, bytesPerSecond) {
		if err := os.WriteFile(filepath.Join(g.dir, file), []byte(text), 0); err != nil {
			return nil, report.Skipped(fmt.Sprintf("the disk under %s cannot be limited: %v", dir, errors.Join(err, g.remove())))
		}
	}
	family, err := familyOf(os.Getpid())
	if err != nil {
		return nil, errors.Join(err, g.remove())
	}
	if err := enter(g.dir, family); err != nil {
		return nil, errors.Join(err, g.remove())
	}
	return g.remove, nil
}

// deviceOf gives major:minor of the disk dir lies on. A partition has none of
// its own in a cgroup: its whole disk counts.
func deviceOf(dir string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", err
	}
	device := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	if _, err := os.Stat("/sys/dev/block/" + device); err != nil {
		return "", report.Skipped(dir + " lies on no disk")
	}
	if _, err := os.Stat("/sys/dev/block/" + device + "/partition"); err == nil {
		b, err := os.ReadFile("/sys/dev/block/" + device + "/../dev")
		if err != nil {
			return "", err
		}
		device = strings.TrimSpace(string(b))
	}
	return device, nil
}

// ioGroup is a control group of ours: of version 2, or of version 1's blkio.
type ioGroup struct {
	dir, parent string
	v1          bool
}

func newIOGroup() (ioGroup, error) {
	const v2, v1 = "/sys/fs/cgroup", "/sys/fs/cgroup/blkio"
	g := ioGroup{parent: v2}
	if b, err := os.ReadFile(filepath.Join(v2, "cgroup.controllers")); err == nil {
		if !strings.Contains(string(b), "io") {
			return g, errors.New("cgroup version 2 has no controller io here")
		}
		// Already there on most machines.
		if err := os.WriteFile(filepath.Join(v2, "cgroup.subtree_control"), []byte("+io"), 0); err != nil {
			return g, err
		}
	} else {
		g.parent, g.v1 = v1, true
	}
	g.dir = filepath.Join(g.parent, fmt.Sprintf("tarn-bench-%d", os.Getpid()))
	return g, os.Mkdir(g.dir, 0o755)
}

func (g ioGroup) limits(device string, bytesPerSecond int64) map[string]string {
	if g.v1 {
		line := fmt.Sprintf("%s %d", device, bytesPerSecond)
		return map[string]string{"blkio.throttle.read_bps_device": line, "blkio.throttle.write_bps_device": line}
	}
	return map[string]string{"io.max": fmt.Sprintf("%s rbps=%d wbps=%d", device, bytesPerSecond, bytesPerSecond)}
}

// remove puts processes back where everybody is, and ends the group. What they
// fork meanwhile is in the group too: they are listed until none is left.
func (g ioGroup) remove() error {
	for {
		b, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
		if err != nil {
			return err
		}
		if len(b) == 0 {
			return os.Remove(g.dir)
		}
		var pids []int
		for _, field := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				return err
			}
			pids = append(pids, pid)
		}
		if err := enter(g.parent, pids); err != nil {
			return err
		}
	}
}

// enter moves processes; those that have ended meanwhile do not matter.
func enter(dir string, pids []int) error {
	for _, pid := range pids {
		err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("move process %d to %s: %w", pid, dir, err)
		}
	}
	return nil
}

// familyOf lists a process and all that descend from it, parents first.
func familyOf(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// The name in parentheses may hold anything.
		text := string(b)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		own, err1 := strconv.Atoi(strings.Fields(text)[0])
		parent, err2 := strconv.Atoi(fields[1])
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		children[parent] = append(children[parent], own)
	}
	family := []int{pid}
	for i := 0; i < len(family); i++ {
		family = append(family, children[family[i]]...)
	}
	return family, nil
}
