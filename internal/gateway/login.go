package gateway

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tarndb/tarn"
)

// login is one client's way from its startup packet to an open backend.
//
//	role known, compute suspended:  prove ─▶ wake ─▶ look again, open meanwhile
//	otherwise:                      wake ─▶ look up ─▶ prove ─▶ open
type login struct {
	c     *client
	st    *startup
	route Route

	how     proof    // once it is proved
	subject string   // of the token; "" = a password
	permit  *permit  // to wake a compute unproved; nil when none was needed
	early   *opening // nil unless the backend is opened while the role is looked up
}

func (l *login) key() failKey {
	return failKey{endpoint: l.route.Endpoint.UID, role: l.st.user, from: network(l.c.remote.Addr())}
}

// admit has the client prove that it may log in.
func (l *login) admit(ctx context.Context) error {
	s := l.c.s
	if err := wait(ctx, s.failures.delay(l.key())); err != nil {
		return err
	}
	r, remembered, err := l.role(ctx)
	if err != nil {
		return err
	}
	if err := l.c.deadline(s.c.Handshake); err != nil { // waking took its time
		return err
	}
	l.how, err = l.prove(ctx, r)
	if err != nil {
		return err
	}
	l.c.steps.Done("prove")
	if remembered {
		// The proof was against what the role was when the compute last ran.
		// What was changed after we had looked must count.
		l.anticipate(ctx)
		now, err := l.lookup(ctx)
		if err != nil {
			return err
		}
		if now != r {
			return l.wrong("")
		}
	}
	s.failures.forget(l.key())
	if l.permit != nil {
		l.permit.refund()
	}
	switch {
	case !r.login:
		return &fatal{code: codeAuthSpec, msg: fmt.Sprintf(`role "%s" is not permitted to log in`, l.st.user)}
	case l.how == byPassword && l.route.Logins == TokensOnly:
		return &fatal{code: codeAuthSpec, msg: "password logins are switched off for this endpoint",
			hint: "Log in with a role of your own and an OAuth token as its password."}
	}
	return nil
}

// role finds the role, waking the compute when nothing is known of it.
func (l *login) role(ctx context.Context) (r role, remembered bool, err error) {
	s, e := l.c.s, l.route.Endpoint
	if e.State != tarn.EndpointActive && !s.sessions.any(e.UID) {
		if r, ok := s.roles.cached(e.UID, l.st.user); ok {
			return r, true, nil
		}
		soon, cancel := context.WithTimeout(ctx, s.c.Wake)
		defer cancel()
		if l.permit, err = s.wakes.take(soon, l.c.remote.Addr(), e.UID); err != nil {
			return role{}, false, &fatal{code: codeStarting, hint: retryHint, err: err,
				msg: fmt.Sprintf("endpoint %s is suspended and was woken too often from your address", e.UID)}
		}
		defer l.permit.woken()
	}
	r, err = l.lookup(ctx)
	return r, false, err
}

func (l *login) lookup(ctx context.Context) (role, error) {
	var r role
	began := time.Now()
	err := l.c.s.useCompute(ctx, l.route.Endpoint, func(ctx context.Context, st tarn.ComputeStatus) (err error) {
		l.c.steps.Done("wake")
		if st.StartTime.After(l.c.arrived) { // it was not there when the client came
			l.c.woke, l.c.started = time.Since(began), st.Start
			l.c.s.metrics.wakes.Observe(l.c.woke.Seconds())
		}
		if !utf8.ValidString(l.st.user) { // no such role, and no text Postgres takes
			return nil
		}
		r, err = l.c.s.roles.lookup(ctx, st, l.st.user)
		l.c.steps.Done("role")
		return err
	})
	return r, err
}

// open logs in to the compute as the proved role.
func (l *login) open(ctx context.Context) (*backend, []byte, error) {
	if o := l.early; o != nil {
		l.early = nil
		<-o.done
		return o.b, o.first, o.err
	}
	return l.openBy(ctx, l.c.watch)
}

func (l *login) openBy(ctx context.Context, watch func(net.Conn) error) (b *backend, first []byte, err error) {
	err = l.c.s.useCompute(ctx, l.route.Endpoint, func(ctx context.Context, st tarn.ComputeStatus) (err error) {
		b, first, err = openBackend(ctx, watch, socketOf(st), l.st)
		return err
	})
	return b, first, err
}

// opening is a backend that is being opened before it is known to be wanted.
type opening struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when it is open, or will not be

	b     *backend
	first []byte
	err   error
}

// anticipate opens the backend while the role is looked up once more: the first
// sessions of a compute that has just started are slow, each in its database.
// Nothing of the client reaches it, and nothing of it the client, before open;
// forgo closes it when it comes to nothing.
func (l *login) anticipate(ctx context.Context) {
	if l.route.Pooled {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	o := &opening{cancel: cancel, done: make(chan struct{})}
	l.early = o
	go func() {
		defer close(o.done)
		var ends []func() bool // what interrupts its connections
		o.b, o.first, o.err = l.openBy(ctx, func(conn net.Conn) error {
			ends = append(ends, context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) }))
			return l.c.watch(conn)
		})
		for _, stop := range ends {
			stop()
		}
	}()
}

// forgo ends what anticipate began and nobody took.
func (l *login) forgo() {
	o := l.early
	if o == nil {
		return
	}
	o.cancel()
	<-o.done
	if o.b != nil {
		o.b.conn.Close()
	}
}

// wrong is the one answer to a proof that failed; with an empty hint it is
// byte for byte Postgres's.
func (l *login) wrong(hint string) *fatal {
	l.c.s.failures.add(l.key())
	l.c.s.roles.doubt(l.route.Endpoint.UID, l.st.user)
	return &fatal{code: codePassword, msg: wrongPassword(l.st.user), hint: hint}
}

// wrongPassword is Postgres's text; the name is quoted as Postgres quotes it.
func wrongPassword(user string) string {
	return `password authentication failed for user "` + user + `"`
}

// answer reads one password or SASL message from the client. Its length is
// checked before its body is allocated.
func (c *client) answer(max uint32) (string, error) {
	var head [5]byte
	if _, err := io.ReadFull(c.tls, head[:]); err != nil {
		return "", err
	}
	if head[0] != 'p' {
		return "", violation("expected password response, got message type %d", head[0])
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n-4 > max {
		return "", violation("invalid length of password response")
	}
	body := make([]byte, n-4)
	_, err := io.ReadFull(c.tls, body)
	return string(body), err
}

// password reads a password in clear.
func (c *client) password() (string, error) {
	body, err := c.answer(maxPassword)
	if err != nil {
		return "", err
	}
	p, rest, ok := strings.Cut(body, "\x00")
	switch {
	case !ok || rest != "":
		return "", violation("invalid password packet size")
	case p == "":
		return "", &fatal{code: codePassword, msg: "empty password returned by client"}
	}
	return p, nil
}

// maxPassword is Postgres's own limit of an authentication token; OAuth tokens
// need far more than the 1 KiB some servers give a password.
const maxPassword = 65535
