package gateway

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
)

// mechanismBearer is OAUTHBEARER (RFC 7628), as clients of Postgres 18 know it.
const mechanismBearer = "OAUTHBEARER"

// A client does not say in its startup packet what it can do, and one that
// cannot do OAUTHBEARER would leave when it is offered. So it is offered to
// those only that ask for it with the option auth=oauth (libpq:
// options='auth=oauth' beside oauth_issuer and oauth_client_id).
const bearerOption = "oauth"

// proveBearer runs one exchange:
//
//	client: n,,^Aauth=Bearer <token>^A^A
//	we:     AuthenticationOk, or what is wrong as JSON
//	client: ^A
//	we:     an error
//
// A client without a token sends an empty auth to learn from the JSON where
// tokens come from, and connects again when it has one.
func (l *login) proveBearer(ctx context.Context) error {
	w := l.c.tls
	if err := send(w, &pgproto3.AuthenticationSASL{AuthMechanisms: []string{mechanismBearer}}); err != nil {
		return err
	}
	msg, err := l.c.answer(maxPassword)
	if err != nil {
		return err
	}
	mechanism, rest, ok := strings.Cut(msg, "\x00")
	if !ok || mechanism != mechanismBearer {
		return violation("client selected an invalid SASL authentication mechanism")
	}
	if len(rest) < 4 || int64(binary.BigEndian.Uint32([]byte(rest))) != int64(len(rest)-4) {
		return errBearer
	}
	raw, err := readBearer(rest[4:])
	if err != nil {
		return err
	}
	if raw != "" {
		if err = l.checkToken(ctx, raw); err == nil {
			return nil
		}
	}
	var refused *fatal
	if raw != "" && (!errors.As(err, &refused) || refused.code != codePassword) {
		return err
	}
	told, errTold := json.Marshal(bearerRefusal{
		Status: "invalid_token", Scope: "all-apis", Configuration: strings.TrimRight(l.c.s.c.Issuer, "/") + "/.well-known/openid-configuration",
	})
	if errTold != nil {
		return errTold
	}
	if err := send(w, &pgproto3.AuthenticationSASLContinue{Data: told}); err != nil {
		return err
	}
	if _, err := l.c.answer(maxSASL); err != nil { // its one byte says no more than that it has heard
		return err
	}
	if raw == "" {
		return &fatal{code: codePassword, msg: wrongPassword(l.st.user) + ": no token was sent", hint: tokenHint}
	}
	return err
}

// bearerRefusal is RFC 7628's error in JSON.
type bearerRefusal struct {
	Status        string `json:"status"`
	Scope         string `json:"scope"`
	Configuration string `json:"openid-configuration"`
}

var errBearer = violation("malformed OAUTHBEARER message")

// readBearer gives the token of a client's first message; "" = it has none.
func readBearer(msg string) (string, error) {
	header, rest, ok := strings.Cut(msg, "\x01")
	switch flag, authzid, _ := strings.Cut(header, ","); {
	case !ok || len(flag) != 1:
		return "", errBearer
	case flag == "p":
		return "", violation("OAUTHBEARER has no channel binding")
	case flag != "n" && flag != "y":
		return "", errBearer
	case authzid != ",":
		return "", &fatal{code: codeUnsupported, msg: "client uses authorization identity, but it is not supported"}
	}
	pairs, end, ok := cutLast(rest, "\x01")
	if !ok || end != "" {
		return "", errBearer
	}
	var raw string
	found := false
	for pair := range strings.SplitSeq(strings.TrimSuffix(pairs, "\x01"), "\x01") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return "", errBearer
		}
		if name != "auth" {
			continue // host and port, perhaps: we know where we are
		}
		if found {
			return "", errBearer
		}
		found = true
		if value == "" {
			continue
		}
		scheme, token, ok := strings.Cut(value, " ")
		if raw = strings.TrimLeft(token, " "); !ok || !strings.EqualFold(scheme, "Bearer") || raw == "" || !printable(raw) {
			return "", errBearer
		}
	}
	if !found {
		return "", errBearer
	}
	return raw, nil
}
