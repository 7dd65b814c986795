package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/postgres"
)

// process is one line of the process record: a pid is only ever signalled when
// its start time still matches, so that a reused pid is never hit.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, field 22 of /proc/<pid>/stat
}

// processes is `<data>/processes.json`: who runs on this data directory.
type processes struct {
	Up      process `json:"up"`
	Control process `json:"control"`
	Node    process `json:"node"`
	API     string  `json:"api"` // address of the API and console
}

func processesFile(data string) string { return filepath.Join(data, "processes.json") }

func readProcesses(data string) (processes, error) {
	var p processes
	b, err := os.ReadFile(processesFile(data))
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("read %s: %w", processesFile(data), err)
	}
	return p, nil
}

func (p processes) write(data string) error {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	tmp := processesFile(data) + ".tmp"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, processesFile(data))
}

// processes lists what runs here beside the computes, for `tarn status`.
func (c *serverConfig) processes() []wire.Process {
	rec, err := readProcesses(c.Data)
	if err != nil {
		return nil // started by hand, without a supervisor
	}
	var list []wire.Process
	for role, p := range map[string]process{"up": rec.Up, "control": rec.Control, "node": rec.Node} {
		if p.alive() {
			list = append(list, wire.Process{Role: role, PID: p.PID})
		}
	}
	if r, err := postgres.ReadRecord(c.controlPIDFile()); err == nil && r.Alive() {
		list = append(list, wire.Process{Role: "control-postgres", PID: r.PID})
	}
	slices.SortFunc(list, func(a, b wire.Process) int { return strings.Compare(a.Role, b.Role) })
	return list
}

// identify reads the start time of a live process; a zero Start means it is gone.
func identify(pid int) process {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{PID: pid}
	}
	// The command's name stands in parentheses and may hold anything.
	_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 || fields[0] == "Z" {
		return process{PID: pid}
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return process{PID: pid}
	}
	return process{PID: pid, Start: start}
}

func (p process) alive() bool { return p.Start != 0 && identify(p.PID).Start == p.Start }

func (p process) signal(s syscall.Signal) {
	if p.alive() {
		// The process may end in between: nothing is left to signal then.
		_ = syscall.Kill(p.PID, s)
	}
}

// awaitEnd returns nil once p is gone.
func (p process) awaitEnd(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for p.alive() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

// stopProcesses ends what the record names, doors first, so that no request
// arrives at a node that is closing. It waits for each.
func stopProcesses(ctx context.Context, rec processes) error {
	for _, p := range []process{rec.Up, rec.Control, rec.Node} {
		p.signal(syscall.SIGTERM)
		if err := p.awaitEnd(ctx); err != nil {
			return fmt.Errorf("wait for process %d to end: %w", p.PID, err)
		}
	}
	return nil
}

// errHeld means another `tarn up` runs on the data directory.
var errHeld = errors.New("another tarn runs on this data directory")

// lockData takes the data directory for this supervisor's life.
func lockData(data string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(data, "up.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errHeld
		}
		return nil, err
	}
	return f, nil
}

// supervisor runs control and node as children and starts either again when
// it ends by itself. Neither needs the other to start: both wait for the
// node's socket.
type supervisor struct {
	data string
	args []string // arguments after `serve control` and `serve node`
	api  string
	log  *slog.Logger
}

// run blocks until ctx ends, then stops control, then node. One child's end
// never ends the other: that is the point of two processes.
func (s *supervisor) run(ctx context.Context) error {
	lock, err := lockData(s.data)
	if err != nil {
		return fmt.Errorf("lock %s: %w", s.data, err)
	}
	defer lock.Close()
	// A supervisor killed by SIGKILL leaves its children: end them first.
	if old, err := readProcesses(s.data); err == nil {
		stop, cancel := context.WithTimeout(ctx, time.Minute)
		err = stopProcesses(stop, processes{Control: old.Control, Node: old.Node})
		cancel()
		if err != nil {
			return fmt.Errorf("stop what an earlier tarn left: %w", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("process record is unreadable", "err", err)
	}

	rec := processes{Up: identify(os.Getpid()), API: s.api}
	started := make(chan func(*processes))
	nodeCtx, stopNode := context.WithCancel(context.WithoutCancel(ctx))
	defer stopNode()
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	var g errgroup.Group
	g.Go(func() error {
		defer stopNode() // only when control has ended
		return s.keep(ctx, "control", func(p process) { started <- func(r *processes) { r.Control = p } })
	})
	g.Go(func() error {
		defer giveUp() // without a node control is of no use
		return s.keep(nodeCtx, "node", func(p process) { started <- func(r *processes) { r.Node = p } })
	})
	var recorder errgroup.Group
	recorder.Go(func() error {
		for change := range started {
			change(&rec)
			if err := rec.write(s.data); err != nil {
				s.log.Error("process record not written", "err", err)
			}
		}
		return os.Remove(processesFile(s.data))
	})
	err = g.Wait()
	close(started)
	return errors.Join(err, recorder.Wait())
}

// keep runs `tarn serve <role>` until ctx ends, and then ends it by SIGTERM.
func (s *supervisor) keep(ctx context.Context, role string, started func(process)) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	backoff := 50 * time.Millisecond
	for {
		cmd := exec.Command(exe, append([]string{"serve", role}, s.args...)...)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		// Its own process group: Ctrl-C reaches the supervisor alone, which
		// stops the two in order.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("start %s: %w", role, err)
		}
		began := time.Now()
		started(identify(cmd.Process.Pid))
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err = <-ended:
		case <-ctx.Done():
			// ESRCH only says that it ended in between.
			_ = cmd.Process.Signal(syscall.SIGTERM)
			<-ended
			return nil
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == exitConfig {
			return fmt.Errorf("%s cannot run; its message stands above", role)
		}
		s.log.Warn("process ended, starting it again", "took", time.Since(began), "err", err, "path", role)
		if time.Since(began) > 10*time.Second {
			backoff = 50 * time.Millisecond
		}
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
			return nil
		}
		backoff = min(2*backoff, 5*time.Second)
	}
}
