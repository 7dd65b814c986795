package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/compute"
	"github.com/tarndb/tarn/internal/postgres"
)

// errHeld means another `tarn up` runs on the data directory.
var errHeld = errors.New("another tarn runs on this data directory")

// lockData takes the data directory for this supervisor's life.
func lockData(data string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(data, "up.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", data, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errHeld
		}
		return nil, fmt.Errorf("lock %s: %w", data, err)
	}
	return f, nil
}

// supervisor runs control and node as children and starts either again when
// it ends by itself. Neither needs the other to start: both wait for the
// node's socket.
type supervisor struct {
	c    serverConfig
	tell func(string) // what takes long, for people
	log  *slog.Logger
}

// run blocks until ctx ends, then stops control, then node. One child's end
// never ends the other: that is the point of two processes. Whatever it
// returns, nothing runs on the data directory any more.
func (s *supervisor) run(ctx context.Context) (err error) {
	lock, err := lockData(s.c.Data)
	if err != nil {
		return err
	}
	defer lock.Close()
	// A supervisor killed by SIGKILL leaves its children: a node that is as it
	// should be goes on, under its running databases; what else there is ends.
	old, err := readProcesses(s.c.Data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("process record is unreadable", "err", err)
	}
	node := process{}
	if old.Node.runs(s.c.command("node")) {
		node, old.Node = old.Node, process{}
	}
	if err := stopProcesses(ctx, s.c.Data, processes{Control: old.Control, Node: old.Node}, s.tell); err != nil {
		return fmt.Errorf("stop what an earlier tarn left: %w", err)
	}
	defer func() { err = errors.Join(err, s.c.sweep(s.log)) }()
	err = preflight(ctx, s.c)
	var held *holding
	if err == nil {
		held, err = s.c.join(ctx, s.tell, s.log)
		defer func() { held.release(context.WithoutCancel(ctx)) }()
	}
	if err != nil {
		return errors.Join(err, stopProcesses(context.WithoutCancel(ctx), s.c.Data, processes{Node: node}, s.tell))
	}

	rec := processes{Up: identify(os.Getpid()), API: s.c.API}
	started := make(chan func(*processes))
	nodeCtx, stopNode := context.WithCancel(context.WithoutCancel(ctx))
	defer stopNode()
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	var g errgroup.Group
	g.Go(func() error {
		defer stopNode() // only when control has ended
		return s.keep(ctx, child{"control", controlGrace + s.c.gate.Drain, noRelief}, process{}, func(p process) { started <- func(r *processes) { r.Control = p } })
	})
	g.Go(func() error {
		defer giveUp() // without a node control is of no use
		return s.keep(nodeCtx, child{"node", nodeGrace, nodeRelief(s.c.Data)}, node, func(p process) { started <- func(r *processes) { r.Node = p } })
	})
	g.Go(func() error {
		defer giveUp() // what belongs to another is not written any more
		return held.keep(ctx)
	})
	var recorder errgroup.Group
	recorder.Go(func() error {
		for change := range started {
			change(&rec)
			if err := rec.write(s.c.Data); err != nil {
				s.log.Error("process record not written", "err", err)
			}
		}
		return nil
	})
	err = g.Wait()
	close(started)
	return errors.Join(err, recorder.Wait())
}

// sweep ends what killed processes left, when none of them runs any more:
// computes with their mounts, the control plane's Postgres, the record.
func (c *serverConfig) sweep(log *slog.Logger) error {
	err := compute.Clear(c.Data, log)
	if _, record := postgres.ReadRecord(c.controlPIDFile()); tarn.KindOf(record) != tarn.KindNotFound {
		err = errors.Join(err, postgres.KillOrphans(filepath.Join(c.Data, "control", "pgdata"), c.controlPIDFile()))
	}
	if e := os.Remove(processesFile(c.Data)); !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

// A role that fails from the start is given up after so many attempts; one
// that has run is started again without end.
const (
	attempts  = 6
	runsAfter = 10 * time.Second
)

// doesNotStart ends the message about a role that was given up.
const doesNotStart = " does not start; its message stands above"

// child is one of the two processes that a supervisor keeps.
type child struct {
	role  string
	grace time.Duration // how long it may take to end when it is asked to
	help  relief
}

// keep runs `tarn serve <role>` until ctx ends, and then ends it by SIGTERM,
// and by SIGKILL after grace. It begins with the one that runs already, if any.
func (s *supervisor) keep(ctx context.Context, c child, running process, started func(process)) error {
	role := c.role
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	if running.alive() {
		s.log.Info("process goes on", "path", role, "pid", running.PID)
		started(running)
		if !running.watch(ctx, c.help) {
			_, err := running.end(context.WithoutCancel(ctx), c.grace, c.help)
			return err
		}
		s.log.Warn("process ended, starting it again", "path", role, "pid", running.PID)
	}
	failures, proven := 0, false
	backoff := 50 * time.Millisecond
	for {
		cmd := exec.Command(exe, s.c.command(role)...)
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
		asked := false
		if asked, err = c.await(ctx, cmd, ended); asked {
			s.endChild(cmd, c, ended)
			return nil
		}
		if time.Since(began) > runsAfter {
			proven, backoff = true, 50*time.Millisecond
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.Exited() && !proven {
			failures++
			if exit.ExitCode() == exitUsage || failures == attempts {
				return errors.New(role + doesNotStart)
			}
		}
		s.log.Warn("process ended, starting it again", "took", time.Since(began), "err", err, "path", role)
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
			return nil
		}
		backoff = min(2*backoff, 5*time.Second)
	}
}

// await waits until the child has ended by itself, and says how, or until it is
// asked to end.
func (c child) await(ctx context.Context, cmd *exec.Cmd, ended <-chan error) (asked bool, err error) {
	p := identify(cmd.Process.Pid)
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case err := <-ended:
			return false, err
		case <-ctx.Done():
			return true, nil
		case <-look.C:
			c.help(p)
		}
	}
}

// endChild ends a child that runs; ended says when it has. A child that executes
// its program anew just then does not hear a signal: it is sent again.
func (s *supervisor) endChild(cmd *exec.Cmd, c child, ended <-chan error) {
	again := time.NewTicker(time.Second)
	defer again.Stop()
	patient := time.NewTimer(c.grace)
	defer patient.Stop()
	for {
		// ESRCH only says that it ended in between.
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
			return
		case <-again.C:
			continue
		case <-patient.C:
		}
		break
	}
	s.log.Error("process does not end: killed", "path", c.role, "pid", cmd.Process.Pid, "took", c.grace)
	_ = cmd.Process.Kill()
	// Nobody asks it any more: it ends, if only after help.
	_, _ = c.await(context.Background(), cmd, ended)
}
