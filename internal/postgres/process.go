package postgres

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

	"golang.org/x/sys/unix"
)

// process is one process as /proc shows it. Number and start time together
// name it: a number alone is used again.
type process struct {
	pid    int
	parent int
	start  uint64 // clock ticks since boot
	ended  bool   // a zombie: it runs no more, whoever forgot to reap it
	// stopped by a signal: it goes on with SIGCONT.
	stopped bool
}

// readProcess reads /proc/<pid>/stat; ok is false when there is no such
// process any more.
func readProcess(pid int) (p process, ok bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, false
	}
	// pid (comm) state ppid … starttime; comm may hold spaces and parentheses.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return process{}, false
	}
	f := bytes.Fields(b[i+1:])
	if len(f) < 20 {
		return process{}, false
	}
	parent, err1 := strconv.Atoi(string(f[1]))
	start, err2 := strconv.ParseUint(string(f[19]), 10, 64)
	if err1 != nil || err2 != nil {
		return process{}, false
	}
	state := f[0][0]
	return process{pid: pid, parent: parent, start: start, ended: state == 'Z' || state == 'X', stopped: state == 'T'}, true
}

// alive tells whether exactly this process still runs.
func (p process) alive() bool {
	now, ok := readProcess(p.pid)
	return ok && now.start == p.start && !now.ended
}

// kill sends a signal to exactly this process: the descriptor is opened first
// and the start time read after, so a number used again is never hit.
func (p process) kill(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", p.pid, err)
	}
	defer unix.Close(fd)
	if !p.alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.pid, err)
	}
	return nil
}

// pids lists the number of every process.
func pids() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	all := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			all = append(all, pid)
		}
	}
	return all, nil
}

// descendants lists root's children, their children and so on. Backends call
// setsid, so neither group nor session finds them.
func descendants(root int) ([]process, error) {
	all, err := pids()
	if err != nil {
		return nil, err
	}
	children := map[int][]process{}
	for _, pid := range all {
		if p, ok := readProcess(pid); ok {
			children[p.parent] = append(children[p.parent], p)
		}
	}
	found := slices.Clone(children[root])
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i].pid]...)
	}
	return found, nil
}

// serving lists the Postgres processes whose working directory is dataDir
// (symbolic links resolved): postmaster and backends alike, also those whose
// postmaster is gone. Reading the link touches no file of dataDir, so a dead
// mount does not hide them.
func serving(dataDir string) ([]process, error) {
	all, err := pids()
	if err != nil {
		return nil, err
	}
	var found []process
	for _, pid := range all {
		if !serves(pid, dataDir) {
			continue
		}
		if p, ok := readProcess(pid); ok && !p.ended {
			found = append(found, p)
		}
	}
	return found, nil
}

func serves(pid int, dataDir string) bool {
	proc := "/proc/" + strconv.Itoa(pid)
	if cwd, err := os.Readlink(proc + "/cwd"); err != nil || cwd != dataDir {
		return false
	}
	exe, err := os.Readlink(proc + "/exe")
	return err == nil && filepath.Base(strings.TrimSuffix(exe, " (deleted)")) == "postgres"
}

// killAll kills a postmaster, its descendants and whatever else serves
// dataDir, and returns when none of them runs any more. postmaster may be the
// zero process: then only what serves dataDir is killed.
//
//  1. Stop the postmaster, so that it forks no more.
//  2. List its descendants: once it is gone nobody's ancestry is known.
//  3. Kill them all, the postmaster too.
//  4. Look for others serving dataDir and kill them, until nobody is left.
func killAll(postmaster process, dataDir string) error {
	var doomed []process
	if postmaster.pid != 0 {
		if err := postmaster.kill(unix.SIGSTOP); err != nil {
			return err
		}
		children, err := descendants(postmaster.pid)
		if err != nil {
			return err
		}
		doomed = append(children, postmaster)
		for _, p := range doomed {
			if err := p.kill(unix.SIGKILL); err != nil {
				return err
			}
		}
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		live, err := serving(dataDir)
		if err != nil {
			return err
		}
		for _, p := range live {
			if err := p.kill(unix.SIGKILL); err != nil {
				return err
			}
			// While it ends it has no working directory any more, but may
			// still hold files: remember it.
			if !slices.ContainsFunc(doomed, func(o process) bool { return o.pid == p.pid && o.start == p.start }) {
				doomed = append(doomed, p)
			}
		}
		doomed = slices.DeleteFunc(doomed, func(p process) bool { return !p.alive() })
		if len(doomed) == 0 {
			return nil
		}
		<-tick.C
	}
}
