package token_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/token"
)

func TestSecrets(t *testing.T) {
	a, ha := token.NewSecret("dose")
	b, hb := token.NewSecret("dose")
	if len(a.Reveal()) != 47 || !strings.HasPrefix(a.Reveal(), "dose") || a == b || ha == hb || token.HashSecret(a.Reveal()) != ha {
		t.Errorf("secrets %q and %q", a.Reveal(), b.Reveal())
	}
	if fmt.Sprint(a) != "REDACTED" {
		t.Errorf("a secret prints as %v", a)
	}
}

func TestPasswords(t *testing.T) {
	const good = "correct horse battery staple"
	h, err := token.HashPassword(good)
	if err != nil || strings.Contains(h, good) || !strings.HasPrefix(h, "$argon2id$") {
		t.Fatalf("%q %v", h, err)
	}
	if again, _ := token.HashPassword(good); again == h {
		t.Error("two hashes of one password are the same: no salt")
	}
	if !token.SamePassword(h, good) {
		t.Error("the right password is refused")
	}
	for hash, password := range map[string]string{h: good + "x", "": good, "$argon2id$v=19$m=1,t=1,p=1$AAAA$AAAA": good, h[:len(h)-4]: good} {
		if token.SamePassword(hash, password) {
			t.Errorf("%q opens %q", password, hash)
		}
	}
	if token.SamePassword("", strings.Repeat("\x00", 32)) { // the key that stands in for a missing one
		t.Error("a user without a password has one")
	}
	for _, bad := range []string{"", "short", strings.Repeat("x", 1025)} {
		if _, err := token.HashPassword(bad); tarn.KindOf(err) != tarn.KindInvalid {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
}

func TestGuesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g token.Guesses
		for range 5 {
			if g.Wait("a") != 0 {
				t.Fatal("a free guess waits")
			}
			g.Wrong("a")
		}
		if d := g.Wait("a"); d != time.Second {
			t.Errorf("after five: %s", d)
		}
		wait(time.Second)
		if g.Wait("a") != 0 {
			t.Error("waiting did not help")
		}
		for range 20 {
			g.Wrong("a")
		}
		if d := g.Wait("a"); d != time.Minute {
			t.Errorf("after many: %s", d)
		}
		if g.Wait("b") != 0 {
			t.Error("somebody else waits")
		}
		g.Right("a")
		if g.Wait("a") != 0 {
			t.Error("a right one is not forgiven")
		}
		for i := range 20000 { // an attacker's names do not grow without end, nor forget one that goes on
			g.Wrong(fmt.Sprint(i))
		}
	})
}

func TestClaimsOfAccessTokens(t *testing.T) {
	s := signer(&memory{})
	access := token.Claims{Subject: "ada", Scopes: []string{token.ScopeAll, "offline_access"}, Client: "cli", Family: "f"}
	c, err := s.Verify(t.Context(), sign(t, s, access))
	if err != nil || !c.CallsAPI() || c.Client != "cli" || c.Family != "f" || len(c.Scopes) != 2 {
		t.Errorf("%+v %v", c, err)
	}
	for _, c := range []token.Claims{{Subject: "ada"}, {Subject: "ada", Scopes: []string{"sql"}}, {Subject: "ada", Scopes: []string{token.ScopeAll}, Endpoints: []string{"ep"}}} {
		if got, err := s.Verify(t.Context(), sign(t, s, c)); err != nil || got.CallsAPI() {
			t.Errorf("%+v calls the API (%v)", got, err)
		}
	}
}
