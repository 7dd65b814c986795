package gateway

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tarndb/tarn"
)

// backend is one Postgres session on a compute's socket.
type backend struct {
	conn   *net.UnixConn
	socket string
	pid    uint32 // of the real backend, and the key that cancels it
	secret []byte
	keyAt  [2]int // where BackendKeyData stands in what it said; see session.greeting
}

// awayError is a compute that starts or stops at this moment.
type awayError struct{ err error }

func (e *awayError) Error() string { return e.err.Error() }
func (e *awayError) Unwrap() error { return e.err }

const (
	maxStartupMessage = 64 << 10 // of one message before ReadyForQuery
	maxStartupTotal   = 1 << 20
)

// openBackend logs in as the client's role with the client's parameters, and
// returns everything the backend said up to ReadyForQuery. Nothing is passed
// on before that, so that a compute on its way down can still be replaced.
//
// watch is told of the connection before anything is said on it; whoever called
// may then interrupt it.
func openBackend(ctx context.Context, watch func(net.Conn) error, socket string, s *startup) (*backend, []byte, error) {
	b := &backend{socket: socket}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", b.socket)
	if err != nil {
		return nil, nil, err
	}
	b.conn = conn.(*net.UnixConn)
	first, err := b.start(ctx, watch, s)
	if err != nil {
		b.conn.Close()
		return nil, nil, err
	}
	return b, first, nil
}

// socketOf is where a compute is reached.
func socketOf(st tarn.ComputeStatus) string {
	return filepath.Join(st.SocketDir, ".s.PGSQL."+strconv.Itoa(st.Port))
}

func (b *backend) start(ctx context.Context, watch func(net.Conn) error, s *startup) ([]byte, error) {
	if end, ok := ctx.Deadline(); ok {
		if err := b.conn.SetDeadline(end); err != nil {
			return nil, err
		}
	}
	if err := watch(b.conn); err != nil { // after our deadline: that of end wins
		return nil, err
	}
	if _, err := b.conn.Write(startupMessage(s)); err != nil {
		return nil, err
	}
	r := bufio.NewReader(b.conn)
	var all []byte
	for {
		at := len(all)
		var head [5]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil, fmt.Errorf("read startup of the compute: %w", err)
		}
		n := binary.BigEndian.Uint32(head[1:])
		if n < 4 || n > maxStartupMessage || len(all) > maxStartupTotal {
			return nil, fmt.Errorf("read startup of the compute: message %q of %d bytes", head[0], n)
		}
		all = append(all, head[:]...)
		all = append(all, make([]byte, n-4)...)
		body := all[at+5:]
		if _, err := io.ReadFull(r, body); err != nil {
			return nil, fmt.Errorf("read startup of the compute: %w", err)
		}
		switch head[0] {
		case 'R':
			if len(body) != 4 || binary.BigEndian.Uint32(body) != 0 {
				return nil, errors.New("log in to the compute: its pg_hba.conf does not trust the socket")
			}
		case 'E':
			return nil, refusal(all[at:], body)
		case 'K':
			if len(body) < 8 {
				return nil, errors.New("read startup of the compute: short cancel key")
			}
			b.pid = binary.BigEndian.Uint32(body)
			b.secret = append([]byte(nil), body[4:]...)
			b.keyAt = [2]int{at, len(all)}
		case 'Z':
			// What came behind it, a notice perhaps, goes the same way.
			rest, err := r.Peek(r.Buffered())
			return append(all, rest...), err
		}
	}
}

// refusal passes Postgres's own error on, unless it only says that the compute
// is coming or going.
func refusal(message, body []byte) error {
	var e pgproto3.ErrorResponse
	if err := e.Decode(body); err != nil {
		return fmt.Errorf("read startup of the compute: %w", err)
	}
	err := fmt.Errorf("%s: %s (SQLSTATE %s)", e.Severity, e.Message, e.Code)
	if comingOrGoing(e.Code) {
		return &awayError{err}
	}
	return &fatal{code: e.Code, msg: e.Message, raw: append([]byte(nil), message...), err: err}
}

// startupMessage is written by hand because pgproto3 keeps parameters in a
// map: the client's order is kept here. Names and values came out of
// NUL-terminated strings, so they hold no NUL.
func startupMessage(s *startup) []byte {
	m := binary.BigEndian.AppendUint32(make([]byte, 4, 256), versionMajor<<16)
	add := func(v string) { m = append(append(m, v...), 0) }
	add("user")
	add(s.user)
	for _, p := range s.params {
		add(p.name)
		add(p.value)
	}
	m = append(m, 0)
	binary.BigEndian.PutUint32(m, uint32(len(m)))
	return m
}

// cancel asks the compute to cancel what the backend does, and waits
// until the request was taken: Postgres closes the connection then.
func (b *backend) cancel(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", b.socket)
	if err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	defer conn.Close()
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now().Add(10 * time.Second)
	}
	if err := conn.SetDeadline(end); err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	m := binary.BigEndian.AppendUint32(nil, uint32(12+len(b.secret)))
	m = binary.BigEndian.AppendUint32(m, requestCancel)
	m = binary.BigEndian.AppendUint32(m, b.pid)
	if _, err := conn.Write(append(m, b.secret...)); err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	return nil
}
