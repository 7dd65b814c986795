package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/token"
)

// exchange gives a token for one of another issuer (RFC 8693), as policies say.
// It stands before package op, which wants an authenticated client: here the
// foreign token is the proof, and a service principal's client_id only says
// which policies are meant.
func (s *server) exchange(w http.ResponseWriter, r *http.Request) {
	f := r.PostForm
	switch t := oidc.TokenType(f.Get("subject_token_type")); {
	case f.Get("subject_token") == "":
		refuse(w, http.StatusBadRequest, "invalid_request", "subject_token is missing")
		return
	case t != oidc.JWTTokenType && t != oidc.IDTokenType && t != oidc.AccessTokenType:
		refuse(w, http.StatusBadRequest, "invalid_request", "subject_token_type must be "+string(oidc.JWTTokenType))
		return
	}
	want := []string{token.ScopeAll}
	if f.Get("scope") != "" {
		want = slices.DeleteFunc(scopes(strings.Fields(f.Get("scope"))), func(s string) bool { return s != token.ScopeAll })
	}
	if len(want) == 0 {
		refuse(w, http.StatusBadRequest, "invalid_scope", "the scope here is "+token.ScopeAll)
		return
	}
	key := guessKey(askedOf(r.Context()).from, clientOf(r))
	to, err := s.federated(r.Context(), f.Get("subject_token"), f.Get("client_id"))
	switch tarn.KindOf(err) {
	case tarn.KindDenied, tarn.KindInvalid, tarn.KindNotFound:
		if err != nil {
			s.guesses.Wrong(key)
			s.c.Log.Warn("token not exchanged", "err", err)
			refuse(w, http.StatusBadRequest, "invalid_grant", err.Error())
			return
		}
	}
	var out tokens
	if err == nil {
		s.guesses.Right(key)
		out, err = s.access(r.Context(), grant{to: to, client: f.Get("client_id"), scopes: want})
	}
	if err != nil {
		s.c.Log.Error("token not exchanged", "err", err)
		status := http.StatusInternalServerError
		if tarn.KindOf(err) == tarn.KindUnavailable {
			status = http.StatusServiceUnavailable
		}
		refuse(w, status, "server_error", "the token could not be checked: try again")
		return
	}
	out.IssuedTokenType = string(oidc.AccessTokenType)
	answer(w, http.StatusOK, out)
}

// federatedAlgorithms are what foreign tokens may be signed with.
var federatedAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.ES256, jose.ES384, jose.EdDSA}

const maxSubjectToken = 32 << 10

// federated tells whose a foreign token is here. KindDenied when no policy
// takes it.
func (s *server) federated(ctx context.Context, raw, clientID string) (tarn.Principal, error) {
	if len(raw) > maxSubjectToken {
		return tarn.Principal{}, tarn.Denied("subject_token is larger than %d bytes", maxSubjectToken)
	}
	t, err := jwt.ParseSigned(raw, federatedAlgorithms)
	if err != nil || len(t.Headers) != 1 {
		return tarn.Principal{}, tarn.Denied("subject_token is not a signed token of a kind that is taken here")
	}
	// Not to be believed yet: it only says whose keys to look at.
	var said jwt.Claims
	if err := t.UnsafeClaimsWithoutVerification(&said); err != nil || said.Issuer == "" {
		return tarn.Principal{}, tarn.Denied("subject_token names no issuer")
	}
	var of tarn.Principal
	if clientID != "" {
		of, err = s.c.Identity.Named(ctx, clientID)
		if err != nil || of.Type != tarn.PrincipalService {
			return tarn.Principal{}, tarn.Denied("no policy takes this token")
		}
	}
	policies, err := s.c.Identity.Policies(ctx, of.ID)
	if err != nil {
		return tarn.Principal{}, err
	}
	why := error(tarn.Denied("no policy takes tokens of issuer %q", said.Issuer))
	for _, p := range policies {
		if p.Issuer != said.Issuer {
			continue
		}
		subject, err := s.judge(ctx, t, p)
		if err != nil {
			why = err
			if tarn.KindOf(err) == tarn.KindUnavailable {
				return tarn.Principal{}, err
			}
			continue
		}
		if p.Principal != "" {
			return s.c.Identity.Active(ctx, p.Principal)
		}
		who, err := s.c.Identity.Named(ctx, subject)
		if err != nil || who.Type == tarn.PrincipalGroup {
			return tarn.Principal{}, tarn.Denied("%q of issuer %q is nobody in this workspace", subject, said.Issuer)
		}
		return s.c.Identity.Active(ctx, who.ID)
	}
	return tarn.Principal{}, why
}

// judge checks a foreign token against one policy and gives its subject.
func (s *server) judge(ctx context.Context, t *jwt.JSONWebToken, p tarn.FederationPolicy) (string, error) {
	key, err := s.issuers.key(ctx, p, t.Headers[0].KeyID)
	if err != nil {
		return "", err
	}
	var c jwt.Claims
	var all map[string]json.RawMessage
	if err := t.Claims(key, &c, &all); err != nil {
		return "", tarn.Denied("the signature of the token does not check")
	}
	audiences := p.Audiences
	if len(audiences) == 0 {
		audiences = []string{s.c.AccountID, askedOf(ctx).base + Prefix + "/v1/token"}
	}
	now := time.Now()
	switch {
	case c.Issuer != p.Issuer:
		return "", tarn.Denied("the token's issuer is %q, want %q", c.Issuer, p.Issuer)
	case !slices.ContainsFunc([]string(c.Audience), func(a string) bool { return a != "" && slices.Contains(audiences, a) }):
		return "", tarn.Denied("the token is for %q, want %q", []string(c.Audience), audiences)
	case c.Expiry == nil:
		return "", tarn.Denied("the token never expires: such a one is not taken")
	case !now.Before(c.Expiry.Time().Add(token.Leeway)):
		return "", tarn.Denied("the token expired at %s", c.Expiry.Time().UTC().Format(time.RFC3339))
	case c.NotBefore != nil && now.Add(token.Leeway).Before(c.NotBefore.Time()), c.IssuedAt != nil && now.Add(token.Leeway).Before(c.IssuedAt.Time()):
		return "", tarn.Denied("the token is not valid yet")
	}
	name := p.SubjectClaim
	if name == "" {
		name = "sub"
	}
	var subject string
	if err := json.Unmarshal(all[name], &subject); err != nil || subject == "" {
		return "", tarn.Denied("the token has no claim %q", name)
	}
	if p.Principal != "" && subject != p.Subject {
		return "", tarn.Denied("the token's %s is %q, want %q", name, subject, p.Subject)
	}
	return subject, nil
}

// errNoKey is a key id that an issuer does not have.
var errNoKey = errors.New("the issuer has no such key")

func noKey(p tarn.FederationPolicy, kid string) error {
	return tarn.Denied("%w: issuer %q, key %q", errNoKey, p.Issuer, kid)
}

func pick(set jose.JSONWebKeySet, kid string) (any, bool) {
	for _, k := range set.Keys {
		if (kid == "" && len(set.Keys) == 1 || k.KeyID == kid) && k.IsPublic() && k.Valid() {
			return k.Key, true
		}
	}
	return nil, false
}

func readKeys(b []byte) (set jose.JSONWebKeySet, err error) {
	if err := json.Unmarshal(b, &set); err != nil {
		return set, fmt.Errorf("read key set: %w", err)
	}
	return set, nil
}
