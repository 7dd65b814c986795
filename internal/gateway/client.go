package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/tarndb/tarn"
)

// client is one connection from outside.
//
//	greeting ─▶ finding ─▶ proving ─▶ opening ─▶ session ─▶ gone
//	    └─▶ cancel request ─▶ gone      (an error from any state: FATAL, gone)
type client struct {
	s             *Server
	raw           *net.TCPConn
	local, remote netip.AddrPort

	tls        *tls.Conn // nil until the handshake is done
	binding    []byte    // hash of the certificate it was done with
	serverName string
	arrived    time.Time
	woke       time.Duration // that its login waited for the compute
	steps      *tarn.Steps   // of its login; nil once its session is open
	started    []tarn.Step   // what the start of the compute it waited for consisted of

	mu      sync.Mutex // not held across I/O
	ending  bool
	opening net.Conn // to a compute, while its startup is not over
	session *session // from then on
}

func newClient(s *Server, raw *net.TCPConn) *client {
	return &client{s: s, raw: raw, arrived: time.Now(), steps: tarn.BeginSteps(), local: addrPort(raw.LocalAddr()), remote: addrPort(raw.RemoteAddr())}
}

func addrPort(a net.Addr) netip.AddrPort {
	p := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// end makes the connection finish: at once before its session is open, after
// that as soon as it is idle and by until at the latest.
func (c *client) end(until time.Time) {
	c.mu.Lock()
	c.ending = true
	x, opening := c.session, c.opening
	c.mu.Unlock()
	if x != nil {
		x.end(until)
		return
	}
	c.raw.SetDeadline(time.Unix(1, 0))
	if opening != nil {
		opening.SetDeadline(time.Unix(1, 0))
	}
}

// deadline bounds reading and writing before the session.
func (c *client) deadline(d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return errEnding
	}
	return c.raw.SetDeadline(time.Now().Add(d))
}

// watch lets end interrupt a connection being opened.
func (c *client) watch(conn net.Conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return errEnding
	}
	c.opening = conn
	return nil
}

// begin hands the connection over to its session.
func (c *client) begin(x *session) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return errEnding
	}
	c.opening, c.session = nil, x
	if x.backend == nil {
		return c.raw.SetDeadline(time.Time{})
	}
	return errors.Join(c.raw.SetDeadline(time.Time{}), x.backend.conn.SetDeadline(time.Time{}))
}

// serve leads the connection through its states and closes it.
func (c *client) serve(ctx context.Context) {
	defer c.raw.Close()
	err := c.handle(ctx)
	if err != nil {
		c.s.metrics.ended(err)
	}
	var f *fatal
	switch {
	case err == nil:
	case errors.As(err, &f):
		c.s.log.Info("gateway refused a client", "addr", c.remote.String(), "err", f)
		c.refuse(f)
	case quiet(err), errors.Is(err, errEnding):
		c.s.log.Debug("gateway client left", "addr", c.remote.String(), "err", err)
	default:
		c.s.log.Info("gateway client lost", "addr", c.remote.String(), "err", err)
	}
}

// refuse sends the error and closes so that it arrives.
func (c *client) refuse(f *fatal) {
	if c.deadline(lingering) != nil { // ending: nothing can be written any more
		return
	}
	var w io.Writer = c.raw
	if c.tls != nil {
		w = c.tls
	}
	var err error
	if f.raw != nil {
		_, err = w.Write(f.raw)
	} else {
		err = send(w, f.response())
	}
	if err != nil {
		return
	}
	if c.tls != nil && c.tls.CloseWrite() != nil {
		return
	}
	linger(c.raw)
}

// keepAlive finds clients that vanished within two minutes.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4}

func (c *client) handle(ctx context.Context) error {
	if err := c.raw.SetKeepAliveConfig(keepAlive); err != nil {
		return err
	}
	if err := c.deadline(c.s.c.Handshake); err != nil {
		return err
	}
	soon, cancel := context.WithTimeout(ctx, c.s.c.Handshake)
	defer cancel()
	p, err := c.greet(soon)
	if err != nil {
		return err
	}
	if p.code == requestCancel {
		c.s.metrics.connections.WithLabelValues("cancel").Inc()
		err := c.s.cancel(soon, c.remote.Addr(), p.body)
		if c.tls != nil { // libpq 17 takes an end without TLS's goodbye for a failure
			err = errors.Join(err, c.tls.CloseWrite())
		}
		return err
	}
	c.steps.Done("tls")
	st, err := parseStartup(p)
	if err != nil {
		return err
	}
	if st.older || len(st.unknown) > 0 {
		err := send(c.tls, &pgproto3.NegotiateProtocolVersion{
			NewestMinorProtocol: versionMajor<<16 | st.minor, // the whole version, as Postgres sends it
			UnrecognizedOptions: st.unknown,
		})
		if err != nil {
			return err
		}
	}
	l := &login{c: c, st: st}
	defer l.forgo()
	told := func() {}
	defer func() { told() }()
	route, err := c.find(soon, st.route)
	if err != nil {
		told = l.tell(ctx, err)
		return err
	}
	l.route = route
	if !tarn.Allows(route.Allowed, c.remote.Addr()) {
		err := &fatal{code: codeAuthSpec, msg: fmt.Sprintf("connections from %s to endpoint %s are not allowed", c.remote.Addr(), route.Endpoint.UID),
			hint: "Add the address with: tarn project update " + route.Endpoint.Name.Project + " --allow-ip …"}
		told = l.tell(ctx, err)
		return err
	}
	c.steps.Done("route")
	err = l.admit(ctx)
	told = sync.OnceFunc(l.tell(ctx, err))
	if err != nil {
		return err
	}
	if route.Pooled {
		told()
		return c.pooled(ctx, st, route)
	}
	b, first, err := l.open(ctx)
	told() // it was recorded meanwhile
	if err != nil {
		return err
	}
	x := c.s.sessions.open(&session{client: c, backend: b, carry: newCarry(ctx, st, route.Endpoint), allowed: route.Allowed, touched: c.s.touches.of(route.Endpoint)}, st, route.Endpoint.UID)
	defer c.s.sessions.close(x)
	defer x.close()
	if err := c.begin(x); err != nil {
		return err
	}
	c.s.opened(x)
	defer c.s.closed(x)
	x.run(first)
	return nil
}
