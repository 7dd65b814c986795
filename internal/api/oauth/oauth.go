// Package oauth is the OAuth 2.0 authorization server at /oidc/: it signs
// people and programs in and gives them access tokens. It knows the protocol
// and its pages; who there is and what proves it is package control's, what a
// token looks like package token's.
//
// Parsing requests and spelling errors is package op's of zitadel/oidc, through
// its Server interface. Its own token endpoints are not used: they sign with
// keys and claims of their own, while the gateway checks ours offline.
package oauth

import (
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/control"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/token"
)

// Signer signs and checks access tokens; *token.Signer is one.
type Signer interface {
	Sign(ctx context.Context, c token.Claims) (tarn.Secret, error)
	Verify(ctx context.Context, raw string) (token.Claims, error)
	JWKS(ctx context.Context) ([]byte, error)
}

// Config is what the server stands on.
type Config struct {
	DB         *controldb.DB
	Identity   *control.Identity
	Signer     Signer
	PublicURL  string        // how clients reach the server, without /oidc; "" = as the request says
	AccountID  string        // an audience that every federated token may have
	AccessLife time.Duration // of access tokens; 0 = token.MaxLife, which is also the most
	Log        *slog.Logger  // nil = discard
	Audit      Audit         // nil = nothing is recorded
}

// How long the parts of a sign-in live.
const (
	signInLife  = 10 * time.Minute    // from the request to the password
	codeLife    = time.Minute         // of a code
	deviceLife  = 10 * time.Minute    // of a device code
	deviceEvery = 5 * time.Second     // how often a device may ask
	refreshLife = 30 * 24 * time.Hour // of a refresh token since it was made
)

// Prefix is where the server's paths begin.
const Prefix = "/oidc"

// server answers for package op.
type server struct {
	op.UnimplementedServer
	c       Config
	guesses token.Guesses
	issuers *issuers
}

// New builds the handler of everything under Prefix. It does no I/O.
func New(c Config) http.Handler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.AccessLife <= 0 || c.AccessLife > token.MaxLife {
		c.AccessLife = token.MaxLife
	}
	c.PublicURL = strings.TrimRight(c.PublicURL, "/")
	s := &server{c: c, issuers: newIssuers()}
	inner := op.RegisterServer(s, op.Endpoints{
		Authorization:       op.NewEndpoint("/v1/authorize"),
		Token:               op.NewEndpoint("/v1/token"),
		Introspection:       op.NewEndpoint("/v1/introspect"),
		Userinfo:            op.NewEndpoint("/v1/userinfo"),
		Revocation:          op.NewEndpoint("/v1/revoke"),
		JwksURI:             op.NewEndpoint("/jwks.json"),
		DeviceAuthorization: op.NewEndpoint("/v1/device"),
	},
		op.WithFallbackLogger(slog.New(slog.DiscardHandler)), // it logs every wrong password as an error of ours
		op.WithServerCORSOptions(nil),                        // no page of another origin signs anybody in
	)
	mux := http.NewServeMux()
	for _, path := range [...]string{
		oidc.DiscoveryEndpoint, "/jwks.json", "/v1/authorize", "/v1/token", "/v1/introspect", "/v1/userinfo", "/v1/revoke", "/v1/device",
	} {
		mux.Handle(path, inner)
	}
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", metadata)
	mux.HandleFunc("GET /login", s.loginPage)
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("GET /device", s.devicePage)
	mux.HandleFunc("POST /device", s.device)
	mux.HandleFunc("/", notFound)
	return http.StripPrefix(Prefix, audited(s, s.guard(mux)))
}

// asked is what of an HTTP request package op does not pass on.
type asked struct {
	base string // URL of this server without /oidc
	from string // client's address
}

type askedKey struct{}

func askedOf(ctx context.Context) asked {
	a, _ := ctx.Value(askedKey{}).(asked)
	return a
}

// maxForm is the largest request body read, in bytes.
const maxForm = 64 << 10

// guard is what holds for every request: bounded bodies, secrets in bodies
// only, and patience with those who guess.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		a := asked{base: baseOf(s.c.PublicURL, r), from: address(r)}
		r = r.WithContext(context.WithValue(r.Context(), askedKey{}, a))
		switch r.URL.Path {
		case "/v1/token", "/v1/introspect", "/v1/revoke", "/v1/device":
			if r.Method != http.MethodPost {
				h.Set("Allow", http.MethodPost)
				refuse(w, http.StatusMethodNotAllowed, "invalid_request", "use POST with a form as its body")
				return
			}
			// What stands in a URL ends in logs.
			if len(r.URL.RawQuery) > 0 {
				refuse(w, http.StatusBadRequest, "invalid_request", "parameters belong in the body, not in the URL")
				return
			}
			if err := r.ParseForm(); err != nil {
				refuse(w, http.StatusBadRequest, "invalid_request", "the body is not a form of at most 64 KiB")
				return
			}
			if wait := s.guesses.Wait(guessKey(a.from, clientOf(r))); wait > 0 {
				tooMany(w, wait)
				return
			}
			if r.URL.Path == "/v1/token" && oidc.GrantType(r.PostForm.Get("grant_type")) == oidc.GrantTypeTokenExchange {
				s.exchange(w, r)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// clientOf is the client a request names, right or wrong.
func clientOf(r *http.Request) string {
	if id, _, ok := r.BasicAuth(); ok {
		return id
	}
	return r.PostForm.Get("client_id")
}

func guessKey(from, name string) string { return from + "\x00" + name }

func address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func baseOf(publicURL string, r *http.Request) string {
	switch {
	case publicURL != "":
		return publicURL
	case r.TLS != nil:
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

func refuse(w http.ResponseWriter, status int, code, description string) {
	answer(w, status, map[string]string{"error": code, "error_description": description})
}

func tooMany(w http.ResponseWriter, wait time.Duration) {
	secs := strconv.Itoa(int(math.Ceil(wait.Seconds())))
	w.Header().Set("Retry-After", secs)
	refuse(w, http.StatusTooManyRequests, "slow_down", "too many wrong secrets: try again in "+secs+" s")
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a failed write means the client is gone
}

func notFound(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusNotFound, map[string]string{"error_code": "ENDPOINT_NOT_FOUND", "message": "this Tarn has no API for " + r.Method + " " + Prefix + r.URL.Path})
}
