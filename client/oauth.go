package client

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tarndb/tarn"
)

// OAuthClient is what this program calls itself when it signs somebody in.
const OAuthClient = "tarn-cli"

const oauthScopes = "all-apis offline_access"

// OAuth signs people and service principals in.
type OAuth struct{ c *Client }

// OAuthOf speaks with the authorization server; it needs no token.
func OAuthOf(c *Client) *OAuth { return &OAuth{c} }

// OAuthTokens is what a sign-in gives.
type OAuthTokens struct {
	Access  tarn.Secret
	Refresh tarn.Secret // "" = it cannot be renewed
	Expiry  time.Time   // of Access
}

// OAuthError is a refusal in OAuth's own form.
type OAuthError struct {
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

func (e *OAuthError) Error() string {
	if e.Description == "" {
		return "sign in: " + e.Code
	}
	return "sign in: " + e.Description
}

// form posts a form, with the client's secret in its header when there is one.
func (o *OAuth) form(ctx context.Context, path string, f url.Values, id string, secret tarn.Secret, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.c.base+"/oidc"+path, strings.NewReader(f.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("User-Agent", o.c.agent)
	if secret != "" {
		req.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret.Reveal()))
	}
	res, err := o.c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return &UnreachableError{Host: o.c.base, Err: err}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read answer to %s: %w", path, err)
	}
	if res.StatusCode/100 != 2 {
		var e OAuthError
		if json.Unmarshal(b, &e) == nil && e.Code != "" {
			return &e
		}
		return errorOf(res, b)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("decode answer to %s: %w", path, err)
	}
	return nil
}

func (o *OAuth) tokens(ctx context.Context, f url.Values, id string, secret tarn.Secret) (OAuthTokens, error) {
	var out struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
		Life    int64  `json:"expires_in"`
	}
	asked := time.Now()
	if err := o.form(ctx, "/v1/token", f, id, secret, &out); err != nil {
		return OAuthTokens{}, err
	}
	return OAuthTokens{Access: tarn.Secret(out.Access), Refresh: tarn.Secret(out.Refresh), Expiry: asked.Add(time.Duration(out.Life) * time.Second).UTC()}, nil
}

// SignIn is a sign-in in a browser, begun.
type SignIn struct {
	URL      string // to open
	State    string // must come back
	redirect string
	verifier string
}

// Begin prepares a sign-in that comes back to redirect, an address on loopback.
func (o *OAuth) Begin(redirect string) SignIn {
	s := SignIn{State: rand.Text(), redirect: redirect, verifier: rand.Text() + rand.Text()}
	sum := sha256.Sum256([]byte(s.verifier))
	s.URL = o.c.base + "/oidc/v1/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {OAuthClient}, "redirect_uri": {redirect}, "scope": {oauthScopes}, "state": {s.State},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}.Encode()
	return s
}

// Finish exchanges the code that came back.
func (o *OAuth) Finish(ctx context.Context, s SignIn, code string) (OAuthTokens, error) {
	return o.tokens(ctx, url.Values{
		"grant_type": {"authorization_code"}, "client_id": {OAuthClient}, "redirect_uri": {s.redirect}, "code": {code}, "code_verifier": {s.verifier},
	}, "", "")
}

// Device is a sign-in on another device, begun.
type Device struct {
	Code     string `json:"device_code"`
	UserCode string `json:"user_code"`
	URL      string `json:"verification_uri"`
	FullURL  string `json:"verification_uri_complete"`
	Life     int64  `json:"expires_in"` // seconds
	Interval int64  `json:"interval"`   // seconds
}

// BeginDevice begins a sign-in on another device.
func (o *OAuth) BeginDevice(ctx context.Context) (Device, error) {
	var d Device
	err := o.form(ctx, "/v1/device", url.Values{"client_id": {OAuthClient}, "scope": {oauthScopes}}, "", "", &d)
	return d, err
}

// AwaitDevice asks until somebody has answered on the other device.
func (o *OAuth) AwaitDevice(ctx context.Context, d Device) (OAuthTokens, error) {
	every := max(time.Duration(d.Interval)*time.Second, time.Second)
	for {
		if err := rest(ctx, every); err != nil {
			return OAuthTokens{}, err
		}
		t, err := o.tokens(ctx, url.Values{
			"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_id": {OAuthClient}, "device_code": {d.Code},
		}, "", "")
		refused, ok := err.(*OAuthError)
		switch {
		case ok && refused.Code == "authorization_pending":
		case ok && refused.Code == "slow_down":
			every += 5 * time.Second // RFC 8628, 3.5
		default:
			return t, err
		}
	}
}

// Refresh gives the next tokens. The refresh token is used up by it, so two
// programs must not do it with one.
func (o *OAuth) Refresh(ctx context.Context, refresh tarn.Secret) (OAuthTokens, error) {
	return o.tokens(ctx, url.Values{"grant_type": {"refresh_token"}, "client_id": {OAuthClient}, "refresh_token": {refresh.Reveal()}}, "", "")
}

// Service signs a service principal in.
func (o *OAuth) Service(ctx context.Context, id string, secret tarn.Secret) (OAuthTokens, error) {
	return o.tokens(ctx, url.Values{"grant_type": {"client_credentials"}, "scope": {"all-apis"}}, id, secret)
}

// Revoke ends a sign-in by its refresh token.
func (o *OAuth) Revoke(ctx context.Context, refresh tarn.Secret) error {
	var none struct{}
	return o.form(ctx, "/v1/revoke", url.Values{"client_id": {OAuthClient}, "token": {refresh.Reveal()}}, "", "", &none)
}
