package token_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/token"
)

// memory is a key store that lives as long as its test.
type memory struct {
	mu    sync.Mutex
	keys  []token.Key
	reads int
	err   error
}

func (m *memory) SigningKeys(context.Context) ([]token.Key, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	return append([]token.Key(nil), m.keys...), m.err
}

func (m *memory) AddSigningKey(_ context.Context, k token.Key) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys = append(m.keys, k)
	return m.err
}

const issuer, audience = "http://127.0.0.1:8181/oidc", "7405605519549535"

func signer(m *memory) *token.Signer { return token.NewSigner(m, issuer, audience, token.Options{}) }

func sign(t *testing.T, s *token.Signer, c token.Claims) string {
	t.Helper()
	raw, err := s.Sign(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return raw.Reveal()
}

func TestRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		want := token.Claims{
			Subject: "ada@example.com", Type: tarn.PrincipalUser, Endpoints: []string{"ep-a", "ep-b"},
			IssuedAt: time.Now().UTC(), Expiry: time.Now().Add(10 * time.Minute).UTC(), ID: "one",
		}
		raw := sign(t, signer(m), want)
		if !token.LooksLikeJWT(raw) {
			t.Errorf("%q does not look like a token", raw)
		}
		got, err := signer(m).Verify(t.Context(), raw) // another process, same store
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if !got.Opens("ep-b") || got.Opens("ep-c") || !(token.Claims{}).Opens("ep-c") {
			t.Error("Opens does not follow the endpoint claim")
		}
	})
}

func TestDefaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := signer(&memory{})
		c, err := s.Verify(t.Context(), sign(t, s, token.Claims{Subject: "ada"}))
		if err != nil {
			t.Fatal(err)
		}
		if c.ID == "" || c.Expiry.Sub(c.IssuedAt) != time.Hour || len(c.Endpoints) != 0 {
			t.Errorf("defaults: %+v", c)
		}
	})
}

func TestSignRefuses(t *testing.T) {
	s := signer(&memory{})
	now := time.Now()
	for name, c := range map[string]token.Claims{
		"no subject":   {},
		"too long":     {Subject: "ada", Expiry: now.Add(2 * time.Hour)},
		"over already": {Subject: "ada", Expiry: now.Add(-time.Hour)},
		"far future":   {Subject: "ada", IssuedAt: now.Add(24 * time.Hour)},
	} {
		if _, err := s.Sign(t.Context(), c); tarn.KindOf(err) != tarn.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		s := signer(m)
		raw := sign(t, s, token.Claims{Subject: "ada", Expiry: time.Now().Add(5 * time.Minute)})
		end := time.Now().Add(5 * time.Minute)

		wait(5*time.Minute + token.Leeway - time.Second)
		if _, err := s.Verify(t.Context(), raw); err != nil {
			t.Errorf("inside the leeway: %v", err)
		}
		for _, more := range []time.Duration{time.Second, 100 * 24 * time.Hour} { // then with a retired key
			wait(more)
			_, err := s.Verify(t.Context(), raw)
			var x *token.ExpiredError
			if !errors.As(err, &x) || !x.At.Equal(end) {
				t.Errorf("after the leeway: %v, want expired at %s", err, end)
			}
			if tarn.KindOf(err) != tarn.KindDenied {
				t.Errorf("kind of %v: %s", err, tarn.KindOf(err))
			}
		}
	})
}

// wait lets the bubble's clock run on.
func wait(d time.Duration) { <-time.After(d) }

func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		s, other := signer(m), signer(m)
		old := sign(t, s, token.Claims{Subject: "ada"})
		if _, err := other.Verify(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		wait(token.DefaultRotation - time.Minute)
		last := sign(t, s, token.Claims{Subject: "ada"})
		if len(m.keys) != 1 {
			t.Fatalf("%d keys before rotation", len(m.keys))
		}
		wait(time.Minute)
		fresh := sign(t, s, token.Claims{Subject: "ada"})
		if len(m.keys) != 2 {
			t.Fatalf("%d keys after rotation", len(m.keys))
		}
		// The other signer has not heard of the new key and must ask.
		for _, raw := range []string{last, fresh} {
			if _, err := other.Verify(t.Context(), raw); err != nil {
				t.Error(err)
			}
		}
		if n := len(jwks(t, s).Keys); n != 2 {
			t.Errorf("%d public keys right after rotation", n)
		}
		wait(token.MaxLife + token.Leeway)
		if n := len(jwks(t, s).Keys); n != 1 {
			t.Errorf("%d public keys when the old one is retired", n)
		}
	})
}

func jwks(t *testing.T, s *token.Signer) (set jose.JSONWebKeySet) {
	t.Helper()
	b, err := s.JWKS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &set); err != nil {
		t.Fatal(err)
	}
	for _, k := range set.Keys {
		if !k.IsPublic() || !k.Valid() || k.Algorithm != "ES256" || k.Use != "sig" {
			t.Errorf("published key %+v", k)
		}
	}
	return set
}

func TestUnknownKeysDoNotFloodTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		foreign := sign(t, signer(&memory{}), token.Claims{Subject: "ada"})
		s := signer(m)
		sign(t, s, token.Claims{Subject: "ada"})
		before := m.reads
		for range 1000 {
			if _, err := s.Verify(t.Context(), foreign); tarn.KindOf(err) != tarn.KindDenied {
				t.Fatal(err)
			}
		}
		if n := m.reads - before; n > 1 {
			t.Errorf("1000 unknown keys within a second made %d reads", n)
		}
	})
}

func TestStoreDown(t *testing.T) {
	s := signer(&memory{err: errors.New("connection refused")})
	if _, err := s.Sign(t.Context(), token.Claims{Subject: "ada"}); tarn.KindOf(err) != tarn.KindUnavailable {
		t.Errorf("sign: %v", err)
	}
	good := sign(t, signer(&memory{}), token.Claims{Subject: "ada"})
	if _, err := s.Verify(t.Context(), good); tarn.KindOf(err) != tarn.KindUnavailable {
		t.Errorf("verify: %v", err)
	}
}

// TestForgeries tries what attackers try; every one must be denied, not fail
// some other way.
func TestForgeries(t *testing.T) {
	m := &memory{}
	s := signer(m)
	good := sign(t, s, token.Claims{Subject: "ada"})
	head, rest, _ := strings.Cut(good, ".")
	body, sig, _ := strings.Cut(rest, ".")
	kid := m.keys[0].ID
	b64 := base64.RawURLEncoding.EncodeToString
	mine, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	now := time.Now()
	claims := func(f func(map[string]any)) map[string]any {
		c := map[string]any{"iss": issuer, "aud": audience, "sub": "ada", "jti": "x",
			"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix()}
		if f != nil {
			f(c)
		}
		return c
	}
	with := func(key any, alg jose.SignatureAlgorithm, o *jose.SignerOptions, c map[string]any) string {
		k, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := jwt.Signed(k).Claims(c).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	stolen, err := token.ParseForTest(m.keys[0])
	if err != nil {
		t.Fatal(err)
	}
	real := jose.JSONWebKey{Key: stolen, KeyID: kid}
	if _, err := s.Verify(t.Context(), with(real, jose.ES256, nil, claims(nil))); err != nil {
		t.Fatalf("the well-made token of this test: %v", err)
	}
	for name, raw := range map[string]string{
		"empty":            "",
		"junk":             "eyJ.a.b",
		"huge":             strings.Repeat("a", 1<<20),
		"no signature":     head + "." + body + ".",
		"alg none":         b64([]byte(`{"alg":"none","kid":"`+kid+`"}`)) + "." + body + ".",
		"other body":       head + "." + b64([]byte(`{"sub":"root"}`)) + "." + sig,
		"HMAC with public": with(jose.JSONWebKey{Key: []byte(strings.Repeat("k", 32)), KeyID: kid}, jose.HS256, nil, claims(nil)),
		"my key, its kid":  with(jose.JSONWebKey{Key: mine, KeyID: kid}, jose.ES256, nil, claims(nil)),
		"embedded key":     with(jose.JSONWebKey{Key: mine, KeyID: kid}, jose.ES256, &jose.SignerOptions{EmbedJWK: true}, claims(nil)),
		"no kid":           with(stolen, jose.ES256, nil, claims(nil)),
		"issuer":           with(real, jose.ES256, nil, claims(func(c map[string]any) { c["iss"] = "http://evil" })),
		"audience":         with(real, jose.ES256, nil, claims(func(c map[string]any) { c["aud"] = "other" })),
		"two audiences":    with(real, jose.ES256, nil, claims(func(c map[string]any) { c["aud"] = []string{audience, "other"} })),
		"no subject":       with(real, jose.ES256, nil, claims(func(c map[string]any) { delete(c, "sub") })),
		"no expiry":        with(real, jose.ES256, nil, claims(func(c map[string]any) { delete(c, "exp") })),
		"no nbf":           with(real, jose.ES256, nil, claims(func(c map[string]any) { delete(c, "nbf") })),
		"no jti":           with(real, jose.ES256, nil, claims(func(c map[string]any) { delete(c, "jti") })),
		"not yet":          with(real, jose.ES256, nil, claims(func(c map[string]any) { c["nbf"] = now.Add(time.Minute).Unix() })),
		"critical header": with(real, jose.ES256,
			(&jose.SignerOptions{}).WithHeader("crit", []string{"tarn"}).WithHeader("tarn", 1), claims(nil)),
	} {
		if _, err := s.Verify(t.Context(), raw); tarn.KindOf(err) != tarn.KindDenied {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPAT(t *testing.T) {
	a, ha := token.NewPAT()
	b, hb := token.NewPAT()
	if len(a.Reveal()) != 36 || !strings.HasPrefix(a.Reveal(), "dapi") || a == b {
		t.Errorf("tokens %q and %q", a.Reveal(), b.Reveal())
	}
	if token.HashPAT(a.Reveal()) != ha || !token.SameHash(ha, ha) || token.SameHash(ha, hb) {
		t.Error("hashes do not tell tokens apart")
	}
	if fmt.Sprint(a) != "REDACTED" {
		t.Errorf("a token prints as %v", a)
	}
}

func TestLooksLikeJWT(t *testing.T) {
	for s, want := range map[string]bool{
		"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln": true,
		"": false, "secret": false, "eyJ": false, "a.b.c": false, "eyJ..": false, "eyJ.a.": false, "eyJ.a.b.c": false, "eyJ.a=.b": false,
	} {
		if token.LooksLikeJWT(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

func FuzzVerify(f *testing.F) {
	m := &memory{}
	s := signer(m)
	const id = "the one that was signed"
	raw, err := s.Sign(context.Background(), token.Claims{Subject: "ada", ID: id})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw.Reveal())
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, in string) {
		// The decoder is lax about spaces and spare bits, so the text may
		// differ; what it says may not.
		if c, err := s.Verify(t.Context(), in); err == nil && c.ID != id {
			t.Errorf("accepted %q", in)
		}
	})
}
