package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"

	"github.com/tarndb/tarn"
)

const (
	// DefaultRotation is how long one key signs: long enough that few keys
	// pile up, short enough that a stolen one ends.
	DefaultRotation = 30 * 24 * time.Hour
	// MaxLife is the longest life of a token, as published.
	MaxLife = time.Hour
	// Leeway is how far the clocks of two computers may be apart.
	Leeway = 30 * time.Second

	// maxToken bounds what Verify looks at; ours are under 1 KiB.
	maxToken = 16 << 10
)

// Options of a Signer; the zero value is good.
type Options struct {
	Rotation time.Duration // how long one key signs; 0 = DefaultRotation
}

// Signer signs tokens with the newest key of a store and verifies them with
// any key that could have signed a token still alive.
type Signer struct {
	store    KeyStore
	issuer   string
	audience string
	rotation time.Duration

	reading chan struct{} // slot of the one caller that works with the store

	mu   sync.Mutex // not held across I/O
	ring ring
}

// NewSigner builds a Signer. Its first Sign makes a key when the store has
// none.
func NewSigner(ks KeyStore, issuer, audience string, o Options) *Signer {
	if o.Rotation <= 0 {
		o.Rotation = DefaultRotation
	}
	return &Signer{store: ks, issuer: issuer, audience: audience, rotation: o.Rotation, reading: make(chan struct{}, 1)}
}

// private is what our tokens say beside the registered claims.
type private struct {
	Type      tarn.PrincipalType `json:"type,omitempty"`
	Endpoints []string           `json:"endpoints,omitempty"`
	Scope     string             `json:"scope,omitempty"` // space-separated, as RFC 9068 has it
	Client    string             `json:"client_id,omitempty"`
	Family    string             `json:"sid,omitempty"`
}

// Sign makes a token. It refuses, as invalid, a life longer than MaxLife:
// keys are retired on the promise that no token lives longer.
func (s *Signer) Sign(ctx context.Context, c Claims) (tarn.Secret, error) {
	now := time.Now()
	if c.IssuedAt.IsZero() {
		c.IssuedAt = now
	}
	if c.Expiry.IsZero() {
		c.Expiry = c.IssuedAt.Add(MaxLife)
	}
	if c.ID == "" {
		c.ID = uuid.NewString()
	}
	switch {
	case c.Subject == "":
		return "", tarn.Invalid("sign token: no subject")
	case !c.Expiry.After(c.IssuedAt) || c.Expiry.Sub(c.IssuedAt) > MaxLife || c.Expiry.Sub(now) > MaxLife+Leeway:
		return "", tarn.Invalid("sign token for %s: a life of %s is not between 0 and %s", c.Subject, c.Expiry.Sub(c.IssuedAt), MaxLife)
	}
	k, err := s.signing(ctx)
	if err != nil {
		return "", fmt.Errorf("sign token for %s: %w", c.Subject, err)
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: k.private, KeyID: k.id}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("sign token for %s: %w", c.Subject, err)
	}
	raw, err := jwt.Signed(signer).Claims(jwt.Claims{
		Issuer:    s.issuer,
		Audience:  jwt.Audience{s.audience},
		Subject:   c.Subject,
		IssuedAt:  jwt.NewNumericDate(c.IssuedAt),
		NotBefore: jwt.NewNumericDate(c.IssuedAt),
		Expiry:    jwt.NewNumericDate(c.Expiry),
		ID:        c.ID,
	}).Claims(private{Type: c.Type, Endpoints: c.Endpoints, Scope: strings.Join(c.Scopes, " "), Client: c.Client, Family: c.Family}).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign token for %s: %w", c.Subject, err)
	}
	return tarn.Secret(raw), nil
}

// Verify checks a token that came from outside. It fails with an
// *ExpiredError when the token was ours and is over, with tarn.KindDenied
// when it is not ours, and with tarn.KindUnavailable when the keys cannot be
// read.
func (s *Signer) Verify(ctx context.Context, raw string) (Claims, error) {
	if len(raw) > maxToken {
		return Claims{}, tarn.Denied("verify token: %d bytes are too many", len(raw))
	}
	// The algorithm is pinned here: whatever the header says, only ES256 is
	// parsed.
	t, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return Claims{}, denied(errors.New("not a signed token"))
	}
	if len(t.Headers) != 1 || t.Headers[0].KeyID == "" {
		return Claims{}, denied(errors.New("it names no signing key"))
	}
	k, err := s.key(ctx, t.Headers[0].KeyID)
	if err != nil {
		return Claims{}, err
	}
	var std jwt.Claims
	var own private
	// Which key is decided by us from our store; a key inside the header
	// ("jwk", "x5c") is never looked at.
	if err := t.Claims(&k.private.PublicKey, &std, &own); err != nil {
		return Claims{}, denied(errors.New("its signature or claims do not check"))
	}
	if err := s.check(std, k); err != nil {
		return Claims{}, err
	}
	return Claims{
		Subject:   std.Subject,
		Type:      own.Type,
		Endpoints: own.Endpoints,
		Scopes:    strings.Fields(own.Scope),
		Client:    own.Client,
		Family:    own.Family,
		IssuedAt:  std.IssuedAt.Time().UTC(),
		Expiry:    std.Expiry.Time().UTC(),
		ID:        std.ID,
	}, nil
}

// check judges the registered claims of a token whose signature is good. Every
// one of them must be there.
func (s *Signer) check(c jwt.Claims, k signingKey) error {
	now := time.Now()
	switch {
	case c.Issuer != s.issuer:
		return denied(fmt.Errorf("issuer %q is not %q", c.Issuer, s.issuer))
	case len(c.Audience) != 1 || c.Audience[0] != s.audience:
		return denied(fmt.Errorf("audience %q is not %q", []string(c.Audience), s.audience))
	case c.Subject == "" || c.Expiry == nil || c.IssuedAt == nil || c.NotBefore == nil || c.ID == "":
		return denied(errors.New("a claim is missing"))
	case !now.Before(c.Expiry.Time().Add(Leeway)):
		return &ExpiredError{At: c.Expiry.Time().UTC()}
	case now.Add(Leeway).Before(c.NotBefore.Time()), now.Add(Leeway).Before(c.IssuedAt.Time()):
		return denied(errors.New("it is not valid yet"))
	case !now.Before(k.created.Add(s.rotation + MaxLife + Leeway)):
		// No honest token reaches this: the key stopped signing more than the
		// longest life ago.
		return denied(errors.New("its signing key is retired"))
	}
	return nil
}

// key finds the key a token names; an unknown one makes us look in the store
// again, because another process may have rotated.
func (s *Signer) key(ctx context.Context, id string) (signingKey, error) {
	r, err := s.current(ctx, ringAge)
	if err != nil {
		return signingKey{}, fmt.Errorf("verify token: %w", err)
	}
	if k, ok := r.find(id); ok {
		return k, nil
	}
	if r, err = s.current(ctx, reread); err != nil {
		return signingKey{}, fmt.Errorf("verify token: %w", err)
	}
	if k, ok := r.find(id); ok {
		return k, nil
	}
	return signingKey{}, denied(errors.New("its signing key is not known here"))
}

func denied(err error) error { return tarn.Denied("verify token: %w", err) }

// JWKS is the public half of every key that may verify a token, as the JSON
// document other services read.
func (s *Signer) JWKS(ctx context.Context) ([]byte, error) {
	if _, err := s.signing(ctx); err != nil { // an empty set would refuse everybody
		return nil, fmt.Errorf("publish keys: %w", err)
	}
	r, err := s.current(ctx, ringAge)
	if err != nil {
		return nil, fmt.Errorf("publish keys: %w", err)
	}
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, k := range r.keys {
		if time.Since(k.created) < s.rotation+MaxLife+Leeway {
			set.Keys = append(set.Keys, jose.JSONWebKey{
				Key: &k.private.PublicKey, KeyID: k.id, Algorithm: string(jose.ES256), Use: "sig",
			})
		}
	}
	b, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("publish keys: %w", err)
	}
	return b, nil
}
