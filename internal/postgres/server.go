package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
)

// Config says which server to run.
type Config struct {
	Install   Install
	DataDir   string
	ReadFile  FileReader        `json:"-"` // nil = DataDir is a directory as any other
	SocketDir string            // made (0700) if missing; socket paths have 107 bytes at most
	Port      int               // names the socket .s.PGSQL.<port>; 0 = 5432
	Settings  map[string]string // passed as -c name=value; see CheckSetting
	RunAs     *RunAs            // nil = ourselves
	LogFile   string            // standard output and error are appended to it
	PIDFile   string            // where the Record is kept; "" = nowhere
	Superuser string            // whom the probe connects as; "" = tarn.Superuser
	Bond      Bond
	// Enter is called on the thread that executes the program, before it does, and
	// leave after: to have the server born in a control group. nil = nothing.
	Enter func() (leave func() error, err error) `json:"-"`
	// Entered is called with the process id as soon as the server runs, before
	// it has children: to put it into a control group. Its error ends the start.
	Entered func(pid int) error `json:"-"`
	Log     *slog.Logger        // nil = none
}

// FileReader reads a file of a data directory that this process itself serves.
// No file there is touched then: a process that is killed while it waits for its
// own answer never ends. The caller has removed postmaster.pid, and nobody else
// works in the directory.
type FileReader func(name string) ([]byte, error)

// Bond says what becomes of a server when the process that started it dies.
type Bond uint8

const (
	// Detached servers go on; the next process adopts or kills them.
	Detached Bond = iota
	// Bound servers shut down at once: scratch servers of tests.
	Bound
)

// StopMode is how a server is asked to end.
type StopMode uint8

// The stop modes, in Postgres's own words.
const (
	Smart     StopMode = iota // waits until every client has left
	Fast                      // ends every session, writes a checkpoint
	Immediate                 // writes nothing; the next start recovers
)

var stopSignals = [...]unix.Signal{Smart: unix.SIGTERM, Fast: unix.SIGINT, Immediate: unix.SIGQUIT}

// Server is a running Postgres.
//
//	Start ──▶ starting ──▶ running ──▶ gone
//	Adopt ───────────────────┘  │
//	                            └──Release──▶ no longer ours, still running
//
// Gone means that the postmaster and every child are gone; only then is Done
// closed. Only watch changes the state.
type Server struct {
	c       Config
	realDir string      // DataDir as /proc shows it
	proc    process     // the postmaster
	child   *os.Process // nil when adopted
	logFrom int64       // where this run begins in LogFile
	steps   *tarn.Steps // of Start; nil when adopted

	asked   atomic.Bool // somebody asked it to end
	release sync.Once

	// closing guards the descriptors: read-held while one is used, held by
	// watch to close them.
	closing sync.RWMutex
	closed  bool
	pidfd   int // of the postmaster
	wakefd  int // an eventfd that ends watch

	done chan struct{} // closed when gone
	idle chan struct{} // closed when watch has returned
	err  error         // set before done is closed
}

var errEnded = errors.New("it ended")

// PID is the postmaster's process id.
func (s *Server) PID() int { return s.proc.pid }

// Steps is what Start consisted of: launch (execute the program), boot (its
// shared memory and its socket) and recover (until it lets clients in); nil for
// an adopted server.
func (s *Server) Steps() []tarn.Step { return s.steps.All() }

// Done is closed when the postmaster and all its children are gone, for
// whatever reason.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err tells why the server is gone: nil while it runs and after an end that was
// asked for.
func (s *Server) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Stop asks the server to end and waits until it is gone. When ctx ends first
// the server is killed, and the error says so.
func (s *Server) Stop(ctx context.Context, how StopMode) error {
	s.asked.Store(true)
	if err := s.signal(stopSignals[how]); err != nil {
		return fmt.Errorf("stop Postgres %d: %w", s.proc.pid, err)
	}
	select {
	case <-s.done:
		return s.err
	case <-s.idle:
		return s.released()
	case <-ctx.Done():
		s.Kill()
		return fmt.Errorf("stop Postgres %d: killed: %w", s.proc.pid, context.Cause(ctx))
	}
}

// Kill ends the postmaster and every child with SIGKILL and waits until all
// are gone. Nothing acknowledged is lost; the next start recovers.
func (s *Server) Kill() {
	s.asked.Store(true)
	if err := killAll(s.proc, s.realDir); err != nil {
		s.log(slog.LevelError, "postgres kill", "err", err)
		return
	}
	select {
	case <-s.done:
	case <-s.idle:
	}
}

// Release stops watching and leaves the server running, for a process that
// ends and wants the next one to adopt it. The Server is of no use afterwards.
func (s *Server) Release() {
	s.release.Do(func() {
		s.closing.RLock()
		if !s.closed {
			one := [8]byte{1}
			if _, err := unix.Write(s.wakefd, one[:]); err != nil {
				s.log(slog.LevelError, "postgres release", "err", err)
			}
		}
		s.closing.RUnlock()
	})
	<-s.idle
}

// released is the answer to whoever waits for a server that Release gave up.
func (s *Server) released() error {
	select {
	case <-s.done:
		return s.err
	default:
		return tarn.Conflict("Postgres %d was released", s.proc.pid)
	}
}

func (s *Server) signal(sig unix.Signal) error {
	s.closing.RLock()
	defer s.closing.RUnlock()
	if s.closed {
		return nil // gone: whoever waits for that sees it at once
	}
	if err := unix.PidfdSendSignal(s.pidfd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// watch waits for the postmaster's end, then sweeps its children and its
// record, and says so. It is the one goroutine of a Server.
func (s *Server) watch() {
	defer close(s.idle)
	fds := []unix.PollFd{{Fd: int32(s.pidfd), Events: unix.POLLIN}, {Fd: int32(s.wakefd), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			s.log(slog.LevelError, "postgres watch", "err", err)
		}
		break
	}
	s.closing.Lock()
	s.closed = true
	unix.Close(s.pidfd)
	unix.Close(s.wakefd)
	s.closing.Unlock()
	if fds[0].Revents == 0 {
		if s.child != nil {
			if err := s.child.Release(); err != nil {
				s.log(slog.LevelError, "postgres release", "err", err)
			}
		}
		return // released
	}
	s.err = s.reap()
	// A postmaster that was killed leaves backends that may still write: no
	// new one may meet them.
	if err := killAll(process{}, s.realDir); err != nil {
		s.err = errors.Join(s.err, fmt.Errorf("end the backends of Postgres %d: %w", s.proc.pid, err))
	}
	if err := removeRecord(s.c.PIDFile); err != nil {
		s.log(slog.LevelError, "postgres record", "err", err)
	}
	s.log(slog.LevelInfo, "postgres ended", "err", s.err)
	close(s.done)
}

// reap learns how the postmaster ended.
func (s *Server) reap() error {
	if s.child == nil {
		// A process that executed its program anew is still the parent of what
		// it had started, and must reap it.
		var status unix.WaitStatus
		pid, err := unix.Wait4(s.proc.pid, &status, unix.WNOHANG, nil)
		switch known := err == nil && pid == s.proc.pid; {
		case s.asked.Load(), known && status.Exited() && status.ExitStatus() == 0:
			return nil
		case known:
			return fmt.Errorf("Postgres %d ended: exit status %d, signal %d", s.proc.pid, status.ExitStatus(), status.Signal())
		}
		return fmt.Errorf("Postgres %d ended unasked", s.proc.pid)
	}
	state, err := s.child.Wait()
	switch {
	case err != nil:
		return fmt.Errorf("wait for Postgres %d: %w", s.proc.pid, err)
	case state.Success(), s.asked.Load() && !state.Exited():
		return nil
	}
	return fmt.Errorf("Postgres %d: %s", s.proc.pid, state)
}

func (s *Server) log(level slog.Level, event string, args ...any) {
	if s.c.Log != nil {
		s.c.Log.Log(context.Background(), level, event, append(args, "pid", s.proc.pid, "path", s.c.DataDir)...)
	}
}

// logTail is the end of what this run wrote to its log, without the lines that
// only tell of our own knocking: many a millisecond, they would push the reason
// of a failed start out.
func (s *Server) logTail() string {
	f, err := os.Open(s.c.LogFile)
	if err != nil {
		return ""
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return ""
	}
	const most = 256 << 10
	from := max(s.logFrom, st.Size()-most)
	b := make([]byte, max(st.Size()-from, 0))
	n, err := f.ReadAt(b, from)
	if n == 0 && err != nil {
		return ""
	}
	return lastLines(withoutKnocks(string(b[:n])))
}

// withoutKnocks leaves out what Postgres says to who connects too early.
func withoutKnocks(log string) string {
	var b strings.Builder
	knock := false
	for line := range strings.Lines(log) {
		if !strings.Contains(line, " DETAIL:  ") {
			knock = strings.Contains(line, "FATAL:  the database system is ")
		}
		if !knock {
			b.WriteString(line)
		}
	}
	return b.String()
}

// normalize fills the defaults in and checks what can be checked without
// starting anything.
func (c *Config) normalize() error {
	if c.Port == 0 {
		c.Port = 5432
	}
	if c.Superuser == "" {
		c.Superuser = tarn.Superuser
	}
	if err := c.RunAs.checkIdentity(); err != nil {
		return err
	}
	for name, value := range c.Settings {
		if err := CheckSetting(name, value); err != nil {
			return err
		}
	}
	for _, path := range [...]*string{&c.DataDir, &c.SocketDir, &c.LogFile, &c.Install.BinDir} {
		if *path == "" {
			return tarn.Invalid("want a data directory, a socket directory, a log file and an install")
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
	}
	// Linux holds 107 bytes of a socket's path; Postgres reads the setting as
	// a list.
	if p := socketPath(c.SocketDir, c.Port); len(p) > 107 {
		return tarn.Invalid("socket path %s has %d bytes: at most 107 are possible", p, len(p)).
			WithHint("choose a shorter data directory")
	}
	if strings.ContainsAny(c.SocketDir, `,"`) {
		return tarn.Invalid("socket directory %s: it may hold neither comma nor quotation mark", c.SocketDir)
	}
	return nil
}

func since(t time.Time) time.Duration { return time.Since(t).Round(10 * time.Microsecond) }
