package gateway

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tarndb/tarn"
)

// resume makes a parked session anew on a compute that runs, waking one. false:
// it is over; fromBackend knows why. Called by fromClient.
func (x *session) resume(p *pier) bool {
	c := x.carry
	<-p.decided
	if !p.parked {
		return false
	}
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	c.mu.Lock()
	p.cancel = cancel
	c.mu.Unlock()
	if x.ending.Load() {
		cancel()
	}
	began := time.Now()
	b, first, err := x.anew(ctx, p.state)
	c.mu.Lock()
	p.cancel = nil
	if err == nil && x.ending.Load() {
		err = errEnding
	}
	if err == nil {
		x.backend, c.pier = b, nil
	}
	c.mu.Unlock()
	if err != nil {
		if b != nil {
			b.conn.Close()
		}
		x.client.s.metrics.carried.WithLabelValues("failed").Inc()
		x.client.s.log.Info("gateway session not carried over", "endpoint", x.what.Endpoint, "err", err)
		c.tell(news{err: err})
		return false
	}
	x.client.s.sessions.attach(x)
	x.client.s.metrics.carried.WithLabelValues("resumed").Inc()
	x.client.s.log.Debug("gateway session carried over", "endpoint", x.what.Endpoint, "took", time.Since(began))
	c.tell(news{first: first, back: true})
	return true
}

// tell tells fromBackend something; it listens while the session is parked.
func (c *carry) tell(n news) {
	select {
	case c.news <- n:
	default: // it has enough to hear
	}
}

// wait is what fromBackend does while the session is parked; false when it is
// over.
func (x *session) wait() bool {
	for n := range x.carry.news {
		switch {
		case n.back:
			if len(n.first) > 0 && x.say(n.first) != nil {
				return false
			}
			return true
		case n.err != nil && x.ending.Load(), n.err == nil && x.ending.Load() && x.idle():
			x.farewell(endingFault)
			return false
		case n.err != nil:
			x.farewell("terminating connection because the session could not be carried over to a new compute: " + said(n.err))
			return false
		case x.left.Load() || x.carry.mute.Load():
			return false
		}
	}
	return false
}

// said is what a client is told of an error.
func said(err error) string {
	var f *fatal
	if errors.As(err, &f) {
		return f.msg
	}
	return "it is not available"
}

// attached is the session's backend; nil while it has none.
func (x *session) attached() *backend {
	x.carry.mu.Lock()
	defer x.carry.mu.Unlock()
	if x.carry.pier != nil {
		return nil
	}
	return x.backend
}

// anew opens a backend that has a session's state, and returns what the client
// is told of its settings.
func (x *session) anew(ctx context.Context, st *state) (b *backend, first []byte, err error) {
	c := x.carry
	err = x.client.s.useCompute(ctx, c.endpoint, func(ctx context.Context, at tarn.ComputeStatus) error {
		stop := func() bool { return true }
		watch := func(conn net.Conn) error {
			stop = context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
			return ctx.Err()
		}
		one, said, err := openBackend(ctx, watch, socketOf(at), c.st)
		if err == nil {
			if first, err = one.remake(said, st); err == nil {
				err = one.conn.SetDeadline(time.Time{})
			}
			if !stop() && err == nil {
				err = context.Cause(ctx)
			}
			if err != nil {
				one.conn.Close()
			}
		}
		b = one
		return err
	})
	return b, first, err
}

// remake gives a session that was just opened a state. said is what Postgres
// said at its start.
func (b *backend) remake(said []byte, st *state) ([]byte, error) {
	told := newTold(said)
	if m, n := appendSetup(nil, settings{}, st.settings); n > 0 {
		_, said, err := b.do(m, n)
		if err != nil {
			return nil, remakeError("its settings", err)
		}
		told.add(said)
	}
	if len(st.prepared) > 0 {
		var m []byte
		for _, p := range st.prepared {
			text := p.text.Value()
			m = appendHead(m, 'P', len(p.name)+1+len(text)+1+2+4*len(p.types))
			m = append(append(append(append(m, p.name...), 0), text...), 0)
			m = binary.BigEndian.AppendUint16(m, uint16(len(p.types)))
			for _, t := range p.types {
				m = binary.BigEndian.AppendUint32(m, t)
			}
		}
		_, said, err := b.do(append(m, 'S', 0, 0, 0, 4), 1)
		if err != nil {
			return nil, remakeError("its prepared statements", err)
		}
		told.add(said)
	}
	if st.unnamed != nil {
		m := append(appendHead(nil, 'P', len(st.unnamed)), st.unnamed...)
		_, said, err := b.do(append(m, 'S', 0, 0, 0, 4), 1)
		var f *fatal
		if err != nil && !errors.As(err, &f) { // it may have been one that Postgres refused
			return nil, err
		}
		told.add(said)
	}
	return told.message(), nil
}

func remakeError(what string, err error) error {
	var f *fatal
	if errors.As(err, &f) {
		return fmt.Errorf("%s could not be made anew: %w", what, f)
	}
	return err
}

// do runs commands on a backend nobody else reads, up to the given number of
// ReadyForQuery; said is what came that is no answer.
func (b *backend) do(message []byte, ready int) (rows [][]string, said []byte, err error) {
	if _, err := b.conn.Write(message); err != nil {
		return nil, nil, err
	}
	r := bufio.NewReader(b.conn)
	for ready > 0 {
		var head [5]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil, nil, err
		}
		n := binary.BigEndian.Uint32(head[1:])
		if n < 4 || n > maxStartupTotal {
			return nil, nil, fmt.Errorf("message %q of %d bytes", head[0], n)
		}
		body := make([]byte, n-4)
		if _, err := io.ReadFull(r, body); err != nil {
			return nil, nil, err
		}
		switch head[0] {
		case 'Z':
			ready--
		case 'D':
			if row, ok := dataRow(body); ok {
				rows = append(rows, row)
			}
		case 'E':
			var e pgproto3.ErrorResponse
			if err := e.Decode(body); err != nil {
				return nil, nil, err
			}
			f := &fatal{code: e.Code, msg: e.Message, hint: e.Hint}
			if comingOrGoing(e.Code) {
				return nil, nil, &awayError{f}
			}
			err = errors.Join(err, f)
		case 'S':
			said = append(append(said, head[:]...), body...)
		}
	}
	rest, peek := r.Peek(r.Buffered())
	return rows, append(said, rest...), errors.Join(err, peek)
}

// told is the last ParameterStatus of each name.
type told struct {
	names []string
	by    map[string][]byte
	rest  []byte // that is no ParameterStatus
}

func newTold(first []byte) *told {
	t := &told{by: make(map[string][]byte)}
	t.add(first)
	t.rest = nil // a session's start: the client has had its own
	return t
}

func (t *told) add(said []byte) {
	for len(said) >= 5 {
		size := int(be32(said[1:])) + 1
		if size < 5 || size > len(said) {
			break
		}
		m := said[:size]
		said = said[size:]
		if m[0] != 'S' {
			t.rest = append(t.rest, m...)
			continue
		}
		name := paramName(m[5:])
		if t.by[name] == nil {
			t.names = append(t.names, name)
		}
		t.by[name] = m
	}
	t.rest = append(t.rest, said...)
}

func (t *told) message() []byte {
	var b []byte
	for _, n := range t.names {
		b = append(b, t.by[n]...)
	}
	return append(b, t.rest...)
}
