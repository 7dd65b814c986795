package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/client"
)

// signedIn is what a sign-in left in a profile.
type signedIn struct {
	Access       string `json:"access_token,omitempty"`
	Refresh      string `json:"refresh_token,omitempty"`
	Expiry       string `json:"expiry,omitempty"` // of Access, RFC 3339
	ClientID     string `json:"client_id,omitempty"`
	ClientSecret string `json:"client_secret,omitempty"`
}

// renewBefore is how long before its end an access token is renewed: longer
// than any one call.
const renewBefore = time.Minute

func (s signedIn) stale() bool {
	t, err := time.Parse(time.RFC3339, s.Expiry)
	return err != nil || time.Until(t) < renewBefore
}

// lockProfile keeps other commands from the profile until unlock: a refresh
// token that two of them use is taken for stolen.
func lockProfile(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock profile: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock profile: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil // closing lets go of the lock
}

// freshToken gives the profile's access token, renewed when it is about to end.
func freshToken(name string, p profile) (string, error) {
	if p.SignIn.Access == "" {
		return p.Token, nil
	}
	if !p.SignIn.stale() {
		return p.SignIn.Access, nil
	}
	path, err := profilePath(name)
	if err != nil {
		return "", err
	}
	unlock, err := lockProfile(path)
	if err != nil {
		return "", err
	}
	defer unlock()
	if p, err = loadProfile(name); err != nil { // another command may have renewed it
		return "", err
	}
	if p.SignIn.Access == "" || !p.SignIn.stale() {
		return first(p.SignIn.Access, p.Token), nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	c, err := client.New(client.Options{Host: p.Host, UserAgent: "tarn/" + version()})
	if err != nil {
		return "", err
	}
	next := p.SignIn
	switch {
	case next.ClientSecret != "":
		next, err = loginService(ctx, c, next.ClientID, tarn.Secret(next.ClientSecret))
	case next.Refresh != "":
		var t client.OAuthTokens
		t, err = client.OAuthOf(c).Refresh(ctx, tarn.Secret(next.Refresh))
		next = signedInOf(t)
	}
	var refused *client.OAuthError
	if errors.As(err, &refused) {
		return "", tarn.Denied("the sign-in at %s has ended: %w", p.Host, err).WithHint("sign in again: tarn login")
	}
	if err != nil {
		return "", err
	}
	p.SignIn = next
	_, err = saveProfile(name, p)
	return next.Access, err
}

// keepSignIn writes a sign-in into the profile. What the profile says of
// another server goes.
func keepSignIn(name, host string, s signedIn) (string, error) {
	path, err := profilePath(name)
	if err != nil {
		return "", err
	}
	unlock, err := lockProfile(path)
	if err != nil {
		return "", err
	}
	defer unlock()
	p, err := loadProfile(name)
	if err != nil {
		return "", err
	}
	if !sameHost(p.Host, host) {
		p = profile{}
	}
	p.Host, p.Token, p.SignIn = host, "", s
	return saveProfile(name, p)
}

// dropSignIn takes every token out of the profile and gives what was there.
func dropSignIn(name string) (host string, s signedIn, err error) {
	path, err := profilePath(name)
	if err != nil {
		return "", s, err
	}
	unlock, err := lockProfile(path)
	if err != nil {
		return "", s, err
	}
	defer unlock()
	p, err := loadProfile(name)
	if err != nil {
		return "", s, err
	}
	if p.Token == "" && p.SignIn == (signedIn{}) {
		return "", s, tarn.NotFound("the profile has no sign-in to end")
	}
	s = p.SignIn
	p.Token, p.SignIn = "", signedIn{}
	_, err = saveProfile(name, p)
	return p.Host, s, err
}

// host is the server meant, for commands that need no token.
func hostMeant(sh *shell) (string, error) {
	p, err := loadProfile(sh.flags.profile)
	if err != nil {
		return "", err
	}
	return first(sh.flags.host, os.Getenv("TARN_HOST"), os.Getenv("DATABRICKS_HOST"), p.Host, defaultHost), nil
}

// clientSecret is a service principal's secret, as --client-secret-file or the
// environment gives it.
func clientSecret(sh *shell, file string) (tarn.Secret, error) {
	var s string
	switch {
	case file == "-":
		line, err := readSecret(sh, "Client secret: ")
		if err != nil {
			return "", err
		}
		s = line
	case file != "":
		b, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("read client secret: %w", err)
		}
		s = string(b)
	default:
		s = first(os.Getenv("TARN_CLIENT_SECRET"), os.Getenv("DATABRICKS_CLIENT_SECRET"))
	}
	if s = strings.TrimSpace(s); s == "" {
		return "", tarn.Invalid("no client secret was given").WithHint("--client-secret-file FILE, or TARN_CLIENT_SECRET")
	}
	return tarn.Secret(s), nil
}
