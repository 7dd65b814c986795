package postgres

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// The probe looks often at first, when a wake is waited for, and then less: a
// long recovery needs its CPU more than our question.
const (
	probeEvery    = time.Millisecond
	probeBackoff  = 250 * time.Millisecond // after this long …
	probeLater    = 10 * time.Millisecond  // … look only so often
	probeDeadline = 10 * time.Second       // of one connection attempt
)

// sqlstateCannotConnectNow is what a server says that still starts, recovers or
// already stops.
const sqlstateCannotConnectNow = "57P03"

// noStatus is where a server stands that has not said anything.
const noStatus = "no status yet"

// awaitReady returns when the server answers on its socket. It looks at the
// status line of postmaster.pid, which costs the server nothing. Of a server we
// have just started, "ready" is enough: Postgres writes it when it lets clients
// in, and a first connection is what a wake has to wait for, since it makes the
// caches of the system catalog anew. An adopted one wrote it long ago, so it is
// asked. It ends early when the server is gone.
func (s *Server) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	began := time.Now()
	slow := false
	last := noStatus
	for {
		if status := s.statusLine(); status != "" {
			if last == noStatus {
				s.steps.Done("boot")
			}
			last = status
			if status == "ready" && s.child != nil {
				s.steps.Done("recover")
				return nil
			}
			if status == "ready" || status == "standby" {
				switch answer, err := s.probe(ctx); {
				case err != nil: // also when ctx ended meanwhile: no answer is not a good one
					last = err.Error()
				case answer == "":
					return nil
				case answer[:2] == "28":
					return fmt.Errorf("it refuses %s (SQLSTATE %s)", s.c.Superuser, answer)
				case answer != sqlstateCannotConnectNow:
					return nil // no such database, too many connections: it answers
				}
			}
		}
		if !slow && time.Since(began) > probeBackoff {
			slow = true
			tick.Reset(probeLater)
		}
		select {
		case <-s.done:
			return errEnded
		case <-ctx.Done():
			return fmt.Errorf("not ready (%s): %w", last, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// statusLine is the status in this server's own postmaster.pid; "" while the
// file is missing, half written or another server's.
func (s *Server) statusLine() string {
	const name = "postmaster.pid"
	read := s.c.ReadFile
	if read == nil {
		read = func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(s.c.DataDir, name)) }
	}
	b, err := read(name)
	if err != nil {
		return ""
	}
	// pid, data directory, start time, port, socket directory, listen
	// address, shared memory, status
	lines := strings.Split(string(b), "\n")
	if len(lines) < 8 || lines[0] != strconv.Itoa(s.proc.pid) {
		return ""
	}
	return strings.TrimSpace(lines[7])
}

// probe opens one connection and closes it. It returns the SQLSTATE the server
// refused it with, or "" when the session was ready. It speaks the protocol
// itself: no PG* variable of our environment may decide where it goes.
func (s *Server) probe(ctx context.Context) (sqlstate string, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeDeadline)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socketPath(s.c.SocketDir, s.c.Port))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	f := pgproto3.NewFrontend(conn, conn)
	f.Send(&pgproto3.StartupMessage{
		ProtocolVersion: pgproto3.ProtocolVersion30,
		Parameters:      map[string]string{"user": s.c.Superuser, "database": "postgres", "application_name": "tarn probe"},
	})
	if err := f.Flush(); err != nil {
		return "", err
	}
	for {
		m, err := f.Receive()
		if err != nil {
			return "", err
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			if len(m.Code) != 5 {
				return "", fmt.Errorf("server says %q with SQLSTATE %q", m.Message, m.Code)
			}
			return m.Code, nil
		case *pgproto3.ReadyForQuery:
			f.Send(&pgproto3.Terminate{})
			return "", f.Flush()
		case *pgproto3.AuthenticationOk, *pgproto3.ParameterStatus, *pgproto3.BackendKeyData, *pgproto3.NoticeResponse:
		default:
			// Any request for a password: this is not a server we set up.
			return "", fmt.Errorf("server asks for authentication (%T)", m)
		}
	}
}

// socketPath is where a server on this port listens.
func socketPath(dir string, port int) string {
	return filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(port))
}
