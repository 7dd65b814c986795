package postgres

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
)

// Start runs a server and returns when it answers, recovery included. When it
// does not, or ctx ends before, nothing is left running and the error holds
// the end of its log. The caller sees to it that only one Start at a time works
// on a data directory.
//
//  1. Refuse (KindConflict) when a Postgres still works in the data directory.
//  2. Remove lock files whose owner is gone: Postgres would only compare
//     process ids, and those are used again (and a fork of a running branch
//     holds its parent's).
//  3. Execute it.       crash: KillOrphans finds it by its working directory
//     and let Entered have it.
//  4. Write the record, and meanwhile
//     wait until it answers. crash: the next process adopts it or kills it
func Start(ctx context.Context, c Config) (*Server, error) {
	s, err := start(ctx, c)
	if err != nil {
		return nil, wrap("start Postgres on "+c.DataDir, err)
	}
	return s, nil
}

func start(ctx context.Context, c Config) (*Server, error) {
	began := time.Now()
	if err := c.normalize(); err != nil {
		return nil, err
	}
	real, err := resolve(c.DataDir)
	if err != nil {
		return nil, err
	}
	live, err := serving(real)
	if err != nil {
		return nil, err
	}
	if len(live) > 0 {
		return nil, tarn.Conflict("process %d still works in it", live[0].pid).
			WithHint("adopt the running server, or kill what was left with KillOrphans")
	}
	if err := c.RunAs.ownDir(c.SocketDir); err != nil {
		return nil, err
	}
	if err := clearLocks(c, real); err != nil {
		return nil, err
	}
	s := &Server{c: c, realDir: real, steps: tarn.BeginSteps(), done: make(chan struct{}), idle: make(chan struct{})}
	if err := s.launch(); err != nil {
		if why := c.RunAs.explain(c.Install.program("postgres")); why != nil {
			return nil, why
		}
		return nil, err
	}
	if c.Entered != nil {
		// One that has ended already says itself why, in its log.
		if err := c.Entered(s.proc.pid); err != nil && !errors.Is(err, unix.ESRCH) {
			s.Kill()
			return nil, err
		}
	}
	recorded := make(chan error, 1)
	go func() { recorded <- s.record() }() // syncs, meanwhile
	s.steps.Done("launch")
	err = s.awaitReady(ctx)
	if rerr := <-recorded; rerr != nil {
		s.Kill()
		return nil, errors.Join(rerr, err)
	}
	if err != nil {
		s.Kill()
		return nil, s.explainStart(err)
	}
	s.log(slog.LevelInfo, "postgres started", "version", c.Install.Version, "took", since(began))
	return s, nil
}

// launch executes the server and begins to watch it. Both happen on one
// goroutine, which keeps its thread when the server is bound to us: the kernel
// signals a bound child when the thread that made it ends.
func (s *Server) launch() error {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	log, err := os.OpenFile(s.c.LogFile, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	defer log.Close()
	st, err := log.Stat()
	if err != nil {
		return err
	}
	s.logFrom = st.Size()
	if s.wakefd, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return err
	}
	program := s.c.Install.program("postgres")
	attr := &os.ProcAttr{
		Dir:   "/", // ours may be closed to the user; Postgres goes to its data directory itself
		Env:   environment(s.c.Install.BinDir),
		Files: []*os.File{null, log, log},
		Sys: &syscall.SysProcAttr{
			Setsid:     true, // a signal to our terminal is not meant for it
			Credential: s.c.RunAs.credential(),
			PidFD:      &s.pidfd,
		},
	}
	if s.c.Bond == Bound {
		attr.Sys.Pdeathsig = syscall.SIGQUIT
	}
	launched := make(chan error)
	go func() {
		if s.c.Bond == Bound {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
		}
		err := s.enterAndExec(program, attr)
		launched <- err
		if err != nil {
			unix.Close(s.wakefd)
			return
		}
		s.watch()
	}()
	return <-launched
}

// enterAndExec executes the server where Enter leads.
func (s *Server) enterAndExec(program string, attr *os.ProcAttr) error {
	if s.c.Enter == nil {
		return s.exec(program, attr)
	}
	runtime.LockOSThread()
	leave, err := s.c.Enter()
	if err != nil {
		return err // the thread, wherever it is now, ends with this goroutine
	}
	err = s.exec(program, attr)
	if lerr := leave(); lerr != nil {
		if err == nil {
			killed := s.child.Kill()
			_, werr := s.child.Wait()
			err = errors.Join(killed, werr)
		}
		return errors.Join(err, lerr)
	}
	runtime.UnlockOSThread()
	return err
}

func (s *Server) exec(program string, attr *os.ProcAttr) error {
	child, err := os.StartProcess(program, append([]string{program}, s.c.arguments()...), attr)
	if err != nil {
		return err
	}
	p, ok := readProcess(child.Pid) // at worst a zombie: nobody has reaped it
	if !ok || s.pidfd < 0 {
		err := errors.Join(errors.New("the kernel gives no process descriptors or no /proc"), child.Kill())
		_, werr := child.Wait()
		return errors.Join(err, werr)
	}
	s.child, s.proc = child, p
	return nil
}

func (s *Server) record() error {
	if s.c.PIDFile == "" {
		return nil
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	return writeRecord(s.c.PIDFile, Record{PID: s.proc.pid, Start: s.proc.start, Boot: boot, DataDir: s.c.DataDir})
}

// explainStart turns "it did not come up" into why.
func (s *Server) explainStart(err error) error {
	dataDir := filepath.Join(s.c.DataDir, "x")
	if s.c.ReadFile != nil {
		dataDir = s.c.DataDir
	}
	if why := s.c.RunAs.explain(dataDir, filepath.Join(s.c.SocketDir, "x")); why != nil {
		return why
	}
	tail := s.logTail()
	if errors.Is(err, errEnded) && s.err != nil {
		err = s.err
	}
	if tail != "" {
		err = fmt.Errorf("%w; its log ends: %s", err, tail)
	}
	for _, sign := range [...]string{"unrecognized configuration parameter", "invalid value for parameter", "is outside the valid range for parameter", "cannot be changed"} {
		if strings.Contains(tail, sign) {
			return tarn.Invalid("%w", err).WithHint("change or remove the setting its log names")
		}
	}
	return err
}

// Adopt takes over the server with this postmaster pid that an earlier process
// of ours started on c.DataDir, and returns when it answers. pid 0 means the
// one recorded in c.PIDFile. KindNotFound: it does not run.
func Adopt(ctx context.Context, c Config, pid int) (*Server, error) {
	s, err := adopt(ctx, c, pid)
	if err != nil {
		return nil, wrap("adopt Postgres on "+c.DataDir, err)
	}
	return s, nil
}

func adopt(ctx context.Context, c Config, pid int) (*Server, error) {
	if err := c.normalize(); err != nil {
		return nil, err
	}
	real, err := resolve(c.DataDir)
	if err != nil {
		return nil, err
	}
	if c.PIDFile != "" {
		switch r, err := ReadRecord(c.PIDFile); {
		case tarn.KindOf(err) == tarn.KindNotFound:
		case err != nil:
			return nil, err
		case !r.Alive():
			return nil, tarn.NotFound("recorded process %d is gone", r.PID)
		case pid == 0:
			pid = r.PID
		case pid != r.PID:
			return nil, tarn.Conflict("process %d is not the recorded one, %d", pid, r.PID)
		}
	}
	if pid <= 0 {
		return nil, tarn.NotFound("no process is recorded")
	}
	// The descriptor first: what is then read of the process is read of the
	// one it holds.
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, tarn.NotFound("process %d is gone", pid)
	}
	if err != nil {
		return nil, err
	}
	p, ok := readProcess(pid)
	if !ok || p.ended || !serves(pid, real) {
		unix.Close(fd)
		return nil, tarn.NotFound("process %d does not serve it", pid)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	s := &Server{c: c, realDir: real, proc: p, pidfd: fd, wakefd: wake, done: make(chan struct{}), idle: make(chan struct{})}
	if st, err := os.Stat(c.LogFile); err == nil {
		s.logFrom = st.Size()
	}
	go s.watch()
	if err := s.awaitReady(ctx); err != nil {
		s.Release()
		return nil, err
	}
	s.log(slog.LevelInfo, "postgres adopted")
	return s, nil
}

// clearLocks removes the lock files of postmasters that are gone.
func clearLocks(c Config, realDir string) error {
	// Nothing works in the data directory (checked before), so its own lock
	// file is stale whatever process now has that number.
	if c.ReadFile == nil {
		if err := removeFile(filepath.Join(c.DataDir, "postmaster.pid")); err != nil {
			return err
		}
	}
	socket := socketPath(c.SocketDir, c.Port)
	pid, dir, err := readLock(socket + ".lock")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if p, ok := readProcess(pid); ok && !p.ended && dir != realDir {
		if real, err := resolve(dir); err == nil && serves(pid, real) {
			return tarn.Conflict("socket %s is used by process %d on %s", socket, pid, dir)
		}
	}
	if err := removeFile(socket); err != nil {
		return err
	}
	return removeFile(socket + ".lock")
}

// readLock reads the process id and data directory that a lock file begins
// with.
func readLock(path string) (pid int, dataDir string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	if lines.Scan() {
		// A damaged number is nobody's.
		pid, _ = strconv.Atoi(strings.TrimSpace(lines.Text()))
	}
	if lines.Scan() {
		dataDir = lines.Text()
	}
	return pid, dataDir, lines.Err()
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// wrap says what we were doing and keeps kind and hint.
func wrap(doing string, err error) error {
	return fmt.Errorf("%s: %w", doing, err)
}
