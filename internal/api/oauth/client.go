package oauth

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/token"
)

// The public clients: programs on people's own computers, which keep no secret
// and listen for the answer on loopback.
const (
	DatabricksClient = "databricks-cli" // what the published SDKs call themselves
	TarnClient       = "tarn-cli"
)

// client is a program that asks for tokens: a public one for a person, or a
// service principal for itself.
type client struct {
	id      string
	service tarn.Principal // zero for a public client
}

func public(id string) (*client, bool) {
	return &client{id: id}, id == DatabricksClient || id == TarnClient
}

func (c *client) public() bool { return c.service.ID == "" }

func (c *client) GetID() string { return c.id }

// RedirectURIs hold for every port and for every spelling of loopback.
func (c *client) RedirectURIs() []string {
	if !c.public() {
		return nil
	}
	return []string{"http://localhost", "http://localhost/", "http://localhost/callback"}
}

func (c *client) PostLogoutRedirectURIs() []string    { return nil }
func (c *client) ApplicationType() op.ApplicationType { return op.ApplicationTypeNative }
func (c *client) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (c *client) LoginURL(string) string                                       { return "" }
func (c *client) AccessTokenType() op.AccessTokenType                          { return op.AccessTokenTypeJWT }
func (c *client) IDTokenLifetime() time.Duration                               { return 0 }
func (c *client) DevMode() bool                                                { return false }
func (c *client) IsScopeAllowed(scope string) bool                             { return scope == token.ScopeAll }
func (c *client) IDTokenUserinfoClaimsAssertion() bool                         { return false }
func (c *client) ClockSkew() time.Duration                                     { return token.Leeway }
func keepAll(scopes []string) []string                                         { return scopes }
func (c *client) RestrictAdditionalIdTokenScopes() func([]string) []string     { return keepAll }
func (c *client) RestrictAdditionalAccessTokenScopes() func([]string) []string { return keepAll }

func (c *client) AuthMethod() oidc.AuthMethod {
	if c.public() {
		return oidc.AuthMethodNone
	}
	return oidc.AuthMethodBasic
}

func (c *client) GrantTypes() []oidc.GrantType {
	if c.public() {
		return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken, oidc.GrantTypeDeviceCode}
	}
	return []oidc.GrantType{oidc.GrantTypeClientCredentials}
}

// VerifyClient tells who asks for a token.
func (s *server) VerifyClient(ctx context.Context, r *op.Request[op.ClientCredentials]) (op.Client, error) {
	cc := r.Data
	if cc.ClientAssertion != "" {
		return nil, unknownClient("client assertions are not supported; send the secret, or exchange the token")
	}
	if c, ok := public(cc.ClientID); ok {
		return c, nil
	}
	key := guessKey(askedOf(ctx).from, cc.ClientID)
	p, err := s.c.Identity.CheckClient(ctx, cc.ClientID, tarn.Secret(cc.ClientSecret))
	switch {
	case tarn.KindOf(err) == tarn.KindDenied:
		s.guesses.Wrong(key)
		return nil, unknownClient(err.Error())
	case err != nil:
		return nil, s.broken("check client", err)
	}
	s.guesses.Right(key)
	return &client{id: p.Name, service: p}, nil
}

func unknownClient(why string) error {
	return op.NewStatusError(oidc.ErrInvalidClient().WithDescription("%s", why), http.StatusUnauthorized)
}

// broken is a failure of ours: its cause is for the log, not for the client.
func (s *server) broken(what string, err error) error {
	s.c.Log.Error("sign-in not served", "err", err, "path", what)
	if tarn.KindOf(err) == tarn.KindUnavailable {
		return op.NewStatusError(oidc.ErrServerError().WithDescription("the server is busy: try again"), http.StatusServiceUnavailable)
	}
	return oidc.ErrServerError().WithDescription("internal error")
}

// scopes keeps of what a client asked for what it may have.
func scopes(want []string) []string {
	var out []string
	for _, s := range want {
		if (s == token.ScopeAll || s == oidc.ScopeOfflineAccess) && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// badScope refuses a request whose token would be good for nothing.
func badScope() error {
	return oidc.ErrInvalidScope().WithDescription("the scopes here are %s, and %s for a refresh token", token.ScopeAll, oidc.ScopeOfflineAccess)
}
