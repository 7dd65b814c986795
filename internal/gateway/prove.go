package gateway

import (
	"context"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/token"
)

// proof is how a client proved who it is.
type proof uint8

const (
	byPassword proof = iota
	byToken
)

// tokenHint tells where tokens come from; the gateway cannot make one.
const tokenHint = "Get a new one from your workspace (POST /api/2.0/database/credentials) and use it as the password."

// prove has the client prove that it may use the role. A role of an OAuth
// principal is asked for a token in clear, which TLS hides from everybody
// else. Every other name, known or not, gets the same SCRAM exchange.
func (l *login) prove(ctx context.Context, r role) (proof, error) {
	if r.known && r.oauth && !r.super {
		if l.st.route.auth == bearerOption {
			return byToken, l.proveBearer(ctx)
		}
		return l.proveInClear(ctx, r)
	}
	v, ok := parseVerifier(r.secret)
	if !ok || r.super {
		v = fakeVerifier(l.c.s.authority.fake, l.route.Endpoint.UID, l.st.user)
	}
	right, err := l.proveSCRAM(v)
	switch {
	case err != nil:
		return 0, err
	case !right || !ok || r.super || r.outdated():
		return 0, l.wrong("")
	}
	return byPassword, nil
}

// proveInClear takes a token, or the password of a role that has one beside.
func (l *login) proveInClear(ctx context.Context, r role) (proof, error) {
	if err := send(l.c.tls, &pgproto3.AuthenticationCleartextPassword{}); err != nil {
		return 0, err
	}
	p, err := l.c.password()
	if err != nil {
		return 0, err
	}
	if token.LooksLikeJWT(p) {
		return byToken, l.checkToken(ctx, p)
	}
	v, ok := parseVerifier(r.secret)
	if !ok || r.outdated() || !v.accepts(p) {
		return 0, l.wrong("The password of this role is an OAuth token. " + tokenHint)
	}
	return byPassword, nil
}

// checkToken checks that the token is good, the role's own, and for this
// endpoint.
func (l *login) checkToken(ctx context.Context, raw string) error {
	claims, err := l.c.s.c.Verifier.Verify(ctx, raw)
	var expired *token.ExpiredError
	switch {
	case errors.As(err, &expired):
		l.wrong("") // for the count only
		return &fatal{
			code: codePassword,
			msg:  wrongPassword(l.st.user) + ": the token has expired",
			hint: fmt.Sprintf("The token expired at %s. %s", expired.At.UTC().Format(time.RFC3339), tokenHint),
			err:  err,
		}
	case tarn.KindOf(err) == tarn.KindDenied:
		f := l.wrong("The token is not one of this workspace. " + tokenHint)
		f.err = err
		return f
	case err != nil:
		return translate("verify token", err)
	case !claims.Opens(l.route.Endpoint.UID):
		return l.wrong(fmt.Sprintf("The token was issued for other endpoints (%s), not for %s.",
			strings.Join(claims.Endpoints, ", "), l.route.Endpoint.UID))
	}
	l.subject = claims.Subject
	mine, err := l.mayBe(ctx, claims.Subject)
	switch {
	case err != nil:
		return translate("look up group", err)
	case !mine:
		return l.wrong(fmt.Sprintf("The token belongs to %q, which is not in a group %q; log in as that role.", claims.Subject, l.st.user))
	}
	return nil
}

// mayBe says whether a principal may log in as the role asked for: its own, or
// that of a group it is in.
func (l *login) mayBe(ctx context.Context, subject string) (bool, error) {
	if subtle.ConstantTimeCompare([]byte(subject), []byte(l.st.user)) == 1 {
		return true, nil
	}
	if l.c.s.c.Groups == nil {
		return false, nil
	}
	return l.c.s.c.Groups.MemberOf(ctx, subject, l.st.user)
}

// proveSCRAM runs one exchange against v. With the right password the client
// has our own proof before this returns.
func (l *login) proveSCRAM(v verifier) (right bool, err error) {
	w := l.c.tls
	if err := send(w, &pgproto3.AuthenticationSASL{AuthMechanisms: []string{mechanismPlus, mechanismPlain}}); err != nil {
		return false, err
	}
	msg, err := l.c.answer(maxSASL)
	if err != nil {
		return false, err
	}
	mechanism, rest, ok := strings.Cut(msg, "\x00")
	if !ok || len(rest) < 4 || int64(binary.BigEndian.Uint32([]byte(rest))) != int64(len(rest)-4) || strings.Contains(rest[4:], "\x00") {
		return false, errSCRAM
	}
	x := scram{v: v, binding: l.c.binding}
	first, err := x.begin(mechanism, rest[4:])
	if err != nil {
		return false, err
	}
	if err := send(w, &pgproto3.AuthenticationSASLContinue{Data: []byte(first)}); err != nil {
		return false, err
	}
	if msg, err = l.c.answer(maxSASL); err != nil {
		return false, err
	}
	final, right, err := x.finish(msg)
	if err != nil || !right {
		return false, err
	}
	return true, send(w, &pgproto3.AuthenticationSASLFinal{Data: []byte(final)})
}
