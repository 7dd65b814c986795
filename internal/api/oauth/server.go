package oauth

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/token"
)

func discovery(base string) *oidc.DiscoveryConfiguration {
	at := base + Prefix
	return &oidc.DiscoveryConfiguration{
		Issuer:                      at,
		AuthorizationEndpoint:       at + "/v1/authorize",
		TokenEndpoint:               at + "/v1/token",
		IntrospectionEndpoint:       at + "/v1/introspect",
		UserinfoEndpoint:            at + "/v1/userinfo",
		RevocationEndpoint:          at + "/v1/revoke",
		DeviceAuthorizationEndpoint: at + "/v1/device",
		JwksURI:                     at + "/jwks.json",
		ScopesSupported:             []string{token.ScopeAll, oidc.ScopeOfflineAccess},
		ResponseTypesSupported:      []string{string(oidc.ResponseTypeCode)},
		ResponseModesSupported:      []string{string(oidc.ResponseModeQuery)},
		GrantTypesSupported: []oidc.GrantType{
			oidc.GrantTypeCode, oidc.GrantTypeRefreshToken, oidc.GrantTypeClientCredentials, oidc.GrantTypeDeviceCode, oidc.GrantTypeTokenExchange,
		},
		SubjectTypesSupported:                     []string{"public"},
		IDTokenSigningAlgValuesSupported:          []string{"ES256"},
		TokenEndpointAuthMethodsSupported:         []oidc.AuthMethod{oidc.AuthMethodBasic, oidc.AuthMethodPost, oidc.AuthMethodNone},
		IntrospectionEndpointAuthMethodsSupported: []oidc.AuthMethod{oidc.AuthMethodBasic, oidc.AuthMethodPost},
		CodeChallengeMethodsSupported:             []oidc.CodeChallengeMethod{oidc.CodeChallengeMethodS256},
	}
}

// Discovery is /.well-known/openid-configuration.
func (s *server) Discovery(ctx context.Context, _ *op.Request[struct{}]) (*op.Response, error) {
	return op.NewResponse(discovery(askedOf(ctx).base)), nil
}

// metadata is the same document where OAuth (RFC 8414) and the SDKs look.
func metadata(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, discovery(askedOf(r.Context()).base))
}

// Keys is the public half of every key a living token may be signed with.
func (s *server) Keys(ctx context.Context, _ *op.Request[struct{}]) (*op.Response, error) {
	b, err := s.c.Signer.JWKS(ctx)
	if err != nil {
		return nil, s.broken("publish keys", err)
	}
	return op.NewResponse(json.RawMessage(b)), nil
}

// tokens is the answer of the token endpoint.
type tokens struct {
	AccessToken     string `json:"access_token"`
	TokenType       string `json:"token_type"`
	ExpiresIn       int64  `json:"expires_in"` // seconds
	RefreshToken    string `json:"refresh_token,omitempty"`
	Scope           string `json:"scope,omitempty"`
	IssuedTokenType string `json:"issued_token_type,omitempty"`
}

// grant is what tokens are given for.
type grant struct {
	to     tarn.Principal
	client string
	scopes []string
	family string // "" = it cannot be refreshed or ended as a whole
}

// access signs an access token.
func (s *server) access(ctx context.Context, g grant) (tokens, error) {
	gave(ctx, g.to.Name)
	now := time.Now().UTC().Truncate(time.Second) // tokens count seconds
	raw, err := s.c.Signer.Sign(ctx, token.Claims{
		Subject: g.to.Name, Type: g.to.Type, Scopes: g.scopes, Client: g.client, Family: g.family,
		IssuedAt: now, Expiry: now.Add(s.c.AccessLife),
	})
	if err != nil {
		return tokens{}, err
	}
	return tokens{
		AccessToken: raw.Reveal(), TokenType: oidc.BearerToken, ExpiresIn: int64(s.c.AccessLife / time.Second), Scope: strings.Join(g.scopes, " "),
	}, nil
}

// refreshable signs an access token and, where that was asked for, makes the
// family's next refresh token beside it.
func (s *server) refreshable(ctx context.Context, tx *controldb.Tx, g grant) (tokens, error) {
	out, err := s.access(ctx, g)
	if err != nil || !slices.Contains(g.scopes, oidc.ScopeOfflineAccess) {
		return out, err
	}
	value, hash := token.NewSecret("tarnr_")
	out.RefreshToken = value.Reveal()
	return out, controldb.InsertRefresh(ctx, tx, controldb.Refresh{
		Hash: hash, Family: g.family, Principal: g.to.ID, Client: g.client, Scopes: g.scopes, Expires: time.Now().Add(refreshLife),
	})
}

func newFamily() string { return "family:" + uuid.NewString() }

// ClientCredentialsExchange gives a service principal a token of its own.
func (s *server) ClientCredentialsExchange(ctx context.Context, r *op.ClientRequest[oidc.ClientCredentialsRequest]) (*op.Response, error) {
	c, ok := r.Client.(*client)
	if !ok || c.public() {
		return nil, unknownClient("the client must be a service principal")
	}
	want := scopes(strings.Fields(r.Form.Get("scope")))
	if r.Form.Get("scope") == "" {
		want = []string{token.ScopeAll}
	}
	want = slices.DeleteFunc(want, func(s string) bool { return s == oidc.ScopeOfflineAccess }) // it has its secret
	if len(want) == 0 {
		return nil, badScope()
	}
	out, err := s.access(ctx, grant{to: c.service, client: c.id, scopes: want})
	if err != nil {
		return nil, s.broken("give token", err)
	}
	return op.NewResponse(out), nil
}

// RefreshToken gives the next tokens of a family. A token that was used before
// was copied by somebody: then nobody has the family any longer.
func (s *server) RefreshToken(ctx context.Context, r *op.ClientRequest[oidc.RefreshTokenRequest]) (*op.Response, error) {
	var out tokens
	var refused error
	invalid := oidc.ErrInvalidGrant().WithDescription("Refresh token is invalid") // the SDKs look for this text
	hash := token.HashSecret(r.Data.RefreshToken)
	err := s.c.DB.InTx(ctx, func(tx *controldb.Tx) error {
		out, refused = tokens{}, nil
		have, err := controldb.LockRefresh(ctx, tx, hash)
		switch {
		case tarn.KindOf(err) == tarn.KindNotFound || err == nil && have.Client != r.Client.GetID():
			refused = invalid
			return nil
		case err != nil:
			return err
		case have.Used:
			s.c.Log.Warn("refresh token used twice: its sign-in is ended", "client", have.Client)
			refused = invalid
			return controldb.EndFamily(ctx, tx, have.Family, time.Now().Add(token.MaxLife+token.Leeway))
		}
		want := have.Scopes
		if len(r.Data.Scopes) > 0 { // fewer may be asked for, never more
			want = slices.DeleteFunc(scopes(r.Data.Scopes), func(s string) bool { return !slices.Contains(have.Scopes, s) })
			if !slices.Contains(want, token.ScopeAll) {
				refused = badScope()
				return nil
			}
		}
		to, err := s.c.Identity.Active(ctx, have.Principal)
		if tarn.KindOf(err) == tarn.KindDenied {
			refused = invalid
			return nil
		}
		if err != nil {
			return err
		}
		if err := controldb.UseRefresh(ctx, tx, hash); err != nil {
			return err
		}
		if !slices.Contains(want, oidc.ScopeOfflineAccess) && slices.Contains(have.Scopes, oidc.ScopeOfflineAccess) {
			want = append(want, oidc.ScopeOfflineAccess) // the family goes on
		}
		out, err = s.refreshable(ctx, tx, grant{to: to, client: have.Client, scopes: want, family: have.Family})
		return err
	})
	return s.given(out, refused, err)
}

func (s *server) given(out tokens, refused, err error) (*op.Response, error) {
	switch {
	case err != nil:
		return nil, s.broken("give token", err)
	case refused != nil:
		return nil, refused
	}
	return op.NewResponse(out), nil
}

// Revocation ends an access token, or with a refresh token the whole sign-in.
// A token that is not the client's, or nobody's, is answered the same.
func (s *server) Revocation(ctx context.Context, r *op.ClientRequest[oidc.RevocationRequest]) (*op.Response, error) {
	done := op.NewResponse(struct{}{})
	until := time.Now().Add(token.MaxLife + token.Leeway)
	if token.LooksLikeJWT(r.Data.Token) {
		c, err := s.c.Signer.Verify(ctx, r.Data.Token)
		switch {
		case tarn.KindOf(err) == tarn.KindDenied || err == nil && c.Client != r.Client.GetID():
			return done, nil
		case err != nil:
			return nil, s.broken("revoke token", err)
		}
		if err := controldb.Revoke(ctx, s.c.DB, c.ID, until); err != nil {
			return nil, s.broken("revoke token", err)
		}
		return done, nil
	}
	family, err := controldb.FamilyOf(ctx, s.c.DB, token.HashSecret(r.Data.Token), r.Client.GetID())
	if err == nil {
		err = controldb.EndFamily(ctx, s.c.DB, family, until)
	}
	if err != nil && tarn.KindOf(err) != tarn.KindNotFound {
		return nil, s.broken("revoke token", err)
	}
	return done, nil
}

// introspected is RFC 7662's answer.
type introspected struct {
	Active    bool   `json:"active"`
	Scope     string `json:"scope,omitempty"`
	ClientID  string `json:"client_id,omitempty"`
	TokenType string `json:"token_type,omitempty"`
	Subject   string `json:"sub,omitempty"`
	Username  string `json:"username,omitempty"`
	ID        string `json:"jti,omitempty"`
	Expiry    int64  `json:"exp,omitempty"`
	IssuedAt  int64  `json:"iat,omitempty"`
}

// Introspect tells a service principal what a token says: its own tokens, and
// an admin's service principal every token.
func (s *server) Introspect(ctx context.Context, r *op.Request[op.IntrospectionRequest]) (*op.Response, error) {
	found, err := s.VerifyClient(ctx, &op.Request[op.ClientCredentials]{Method: r.Method, URL: r.URL, Header: r.Header, Form: r.Form, Data: r.Data.ClientCredentials})
	if err != nil {
		return nil, err
	}
	c, ok := found.(*client)
	if !ok || c.public() {
		return nil, unknownClient("the client must be a service principal")
	}
	claims, err := s.c.Identity.Verify(ctx, r.Data.Token)
	switch {
	case tarn.KindOf(err) == tarn.KindDenied:
		return op.NewResponse(introspected{}), nil
	case err != nil:
		return nil, s.broken("introspect token", err)
	}
	if claims.Subject != c.id && claims.Client != c.id {
		asks, err := controldb.Identify(ctx, s.c.DB, c.id)
		if err != nil {
			return nil, s.broken("introspect token", err)
		}
		if !asks.Admin {
			return op.NewResponse(introspected{}), nil
		}
	}
	return op.NewResponse(introspected{
		Active: true, Scope: strings.Join(claims.Scopes, " "), ClientID: claims.Client, TokenType: oidc.BearerToken,
		Subject: claims.Subject, Username: claims.Subject, ID: claims.ID, Expiry: claims.Expiry.Unix(), IssuedAt: claims.IssuedAt.Unix(),
	}), nil
}

// UserInfo tells who an access token belongs to.
func (s *server) UserInfo(ctx context.Context, r *op.Request[oidc.UserInfoRequest]) (*op.Response, error) {
	p, err := s.c.Identity.Authenticate(ctx, r.Data.AccessToken)
	switch {
	case tarn.KindOf(err) == tarn.KindDenied:
		return nil, op.NewStatusError(oidc.ErrAccessDenied().WithDescription("%s", err), http.StatusUnauthorized)
	case err != nil:
		return nil, s.broken("tell user", err)
	}
	out := map[string]any{"sub": p.Name, "preferred_username": p.Name, "groups": p.Groups}
	if p.Type == tarn.PrincipalUser {
		out["email"] = p.Name
	}
	return op.NewResponse(out), nil
}
