// Package token makes and checks the secrets people and programs show at the
// doors: signed access tokens that also serve as Postgres passwords (ES256
// JSON Web Tokens) and personal access tokens. It keeps the signing keys
// fresh. It knows neither HTTP nor who may have a token, and it stores
// nothing: keys and hashes are kept by whoever calls it.
package token

import (
	"fmt"
	"slices"
	"time"

	"github.com/tarndb/tarn"
)

// Claims is what a token says of its bearer.
type Claims struct {
	Subject string             // principal's name, which is also the Postgres role
	Type    tarn.PrincipalType // what kind of principal the subject is
	// Endpoints are the UIDs of the endpoints the token opens; empty = every
	// endpoint of the workspace.
	Endpoints []string
	Scopes    []string  // what an access token may be used for; none = database passwords alone
	Client    string    // the program it was given to; "" = none in particular
	Family    string    // the sign-in it came of, which can be ended as a whole; "" = none
	IssuedAt  time.Time // Sign: zero = now
	Expiry    time.Time // Sign: zero = IssuedAt + the longest life
	ID        string    // Sign: "" = a fresh random one
}

// ScopeAll is the scope of tokens that may call the API.
const ScopeAll = "all-apis"

// CallsAPI says whether the token may be shown at the API. Database
// credentials may not: whoever gets one to read gets nothing else with it.
func (c Claims) CallsAPI() bool { return len(c.Endpoints) == 0 && slices.Contains(c.Scopes, ScopeAll) }

// Opens says whether the token may be used at the endpoint with that UID.
func (c Claims) Opens(endpoint string) bool {
	if len(c.Endpoints) == 0 {
		return true
	}
	for _, e := range c.Endpoints {
		if e == endpoint {
			return true
		}
	}
	return false
}

// ExpiredError is a token that was good until At. Its kind is
// tarn.KindDenied.
type ExpiredError struct{ At time.Time }

func (e *ExpiredError) Error() string {
	return fmt.Sprintf("token expired at %s", e.At.UTC().Format(time.RFC3339))
}

// Unwrap gives the error its kind.
func (e *ExpiredError) Unwrap() error {
	return tarn.Denied("token expired").WithHint("Get a new token; access tokens live at most one hour.")
}
