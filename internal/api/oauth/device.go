package oauth

import (
	"context"
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/token"
)

// The device flow (RFC 8628): a program without a browser shows a short code,
// which a person types in elsewhere, and asks until that has happened.

// userLetters cannot be mistaken for each other and spell no words.
const userLetters = "BCDFGHJKLMNPQRSTVWXZ"

// newUserCode has 8 of 20 letters, 34 bits: enough for ten minutes in which
// wrong ones are counted.
func newUserCode() string {
	var out []byte
	for len(out) < 8 {
		var b [1]byte
		rand.Read(b[:]) // never fails
		if b[0] < 240 { // 240 = 12 × 20: every letter is as likely
			out = append(out, userLetters[int(b[0])%len(userLetters)])
		}
	}
	return string(out[:4]) + "-" + string(out[4:])
}

// readUserCode takes a code as people type it.
func readUserCode(s string) string {
	s = strings.Map(func(r rune) rune {
		if strings.ContainsRune(userLetters, r) {
			return r
		}
		return -1
	}, strings.ToUpper(s))
	if len(s) != 8 {
		return ""
	}
	return s[:4] + "-" + s[4:]
}

// DeviceAuthorization begins a sign-in on another device.
func (s *server) DeviceAuthorization(ctx context.Context, r *op.ClientRequest[oidc.DeviceAuthorizationRequest]) (*op.Response, error) {
	if c, ok := r.Client.(*client); !ok || !c.public() {
		return nil, oidc.ErrUnauthorizedClient().WithDescription("a service principal signs in with its secret")
	}
	want := scopes(r.Data.Scopes)
	if !slices.Contains(want, token.ScopeAll) {
		return nil, badScope()
	}
	code, hash := token.NewSecret("")
	d := controldb.Device{Code: hash, Client: r.Client.GetID(), Scopes: want, Expires: time.Now().Add(deviceLife)}
	var err error
	for range 4 { // a user code in use is unlikely, not impossible
		d.UserCode = newUserCode()
		if err = controldb.InsertDevice(ctx, s.c.DB, d); tarn.KindOf(err) != tarn.KindConflict {
			break
		}
	}
	if err != nil {
		return nil, s.broken("begin device sign-in", err)
	}
	at := askedOf(ctx).base + Prefix + "/device"
	return op.NewResponse(&oidc.DeviceAuthorizationResponse{
		DeviceCode: code.Reveal(), UserCode: d.UserCode, VerificationURI: at, VerificationURIComplete: at + "?user_code=" + d.UserCode,
		ExpiresIn: int(deviceLife / time.Second), Interval: int(deviceEvery / time.Second),
	}), nil
}

// DeviceToken answers a device that asks whether somebody signed in.
func (s *server) DeviceToken(ctx context.Context, r *op.ClientRequest[oidc.DeviceAccessTokenRequest]) (*op.Response, error) {
	var out tokens
	var refused error
	hash := token.HashSecret(r.Data.DeviceCode)
	err := s.c.DB.InTx(ctx, func(tx *controldb.Tx) error {
		out, refused = tokens{}, nil
		d, err := controldb.LockDevice(ctx, tx, hash)
		now := time.Now()
		switch {
		case tarn.KindOf(err) == tarn.KindNotFound || err == nil && d.Client != r.Client.GetID():
			refused = oidc.ErrInvalidGrant().WithDescription("the device code is not known or was used")
			return nil
		case err != nil:
			return err
		case !now.Before(d.Expires):
			refused = oidc.ErrExpiredDeviceCode()
			return nil
		case d.State == controldb.DeviceDenied:
			refused = oidc.ErrAccessDenied()
			return controldb.DropDevice(ctx, tx, hash)
		case d.State == controldb.DevicePending:
			refused = oidc.ErrAuthorizationPending()
			if now.Sub(d.Polled) < deviceEvery {
				refused = oidc.ErrSlowDown()
			}
			return controldb.PollDevice(ctx, tx, hash, now)
		}
		to, err := s.c.Identity.Active(ctx, d.Principal)
		if tarn.KindOf(err) == tarn.KindDenied {
			refused = oidc.ErrAccessDenied()
			return nil
		}
		if err != nil {
			return err
		}
		if err := controldb.DropDevice(ctx, tx, hash); err != nil {
			return err
		}
		out, err = s.refreshable(ctx, tx, grant{to: to, client: d.Client, scopes: d.Scopes, family: newFamily()})
		return err
	})
	return s.given(out, refused, err)
}

const deviceCookie = "tarn_device"

func (s *server) devicePage(w http.ResponseWriter, r *http.Request) {
	s.askDevice(w, r, page{UserCode: readUserCode(r.URL.Query().Get("user_code")), status: http.StatusOK})
}

// askDevice shows the form, with a value that must come back beside the same
// value in a cookie.
func (s *server) askDevice(w http.ResponseWriter, r *http.Request, p page) {
	secret, _ := token.NewSecret("")
	http.SetCookie(w, &http.Cookie{
		Name: deviceCookie, Value: secret.Reveal(), Path: Prefix + "/device", MaxAge: int(deviceLife / time.Second),
		HttpOnly: true, Secure: strings.HasPrefix(askedOf(r.Context()).base, "https:"), SameSite: http.SameSiteStrictMode,
	})
	p.Device, p.Request = true, secret.Reveal()
	show(w, p.status, p)
}

// device takes the code and the answer of a person.
func (s *server) device(w http.ResponseWriter, r *http.Request) {
	c, errCookie := r.Cookie(deviceCookie)
	if err := r.ParseForm(); err != nil || errCookie != nil || !sameOrigin(r, askedOf(r.Context()).base) ||
		token.HashSecret(c.Value) != token.HashSecret(r.PostForm.Get("request")) {
		s.lost(w, tarn.NotFound("the form came from another page"))
		return
	}
	typed := r.PostForm.Get("user_code")
	who, again, ok := s.person(w, r)
	if !ok {
		if again.Error != "" {
			again.UserCode = typed
			s.askDevice(w, r, again)
		}
		return
	}
	key := guessKey(askedOf(r.Context()).from, "device code")
	if s.guesses.Wait(key) > 0 {
		s.askDevice(w, r, page{UserCode: typed, Name: who.Name, Error: "Too many wrong codes. Try again in a minute.", status: http.StatusTooManyRequests})
		return
	}
	d, err := controldb.DeviceOfUserCode(r.Context(), s.c.DB, readUserCode(typed))
	if err == nil {
		state := controldb.DeviceGranted
		if r.PostForm.Get("answer") == "deny" {
			state = controldb.DeviceDenied
		}
		if err = controldb.DecideDevice(r.Context(), s.c.DB, d.UserCode, state, who.ID); err == nil {
			s.c.Log.Info("device answered", "principal", who.Name, "client", d.Client, "state", state)
			said := page{Title: "You are signed in", Text: "Go back to " + d.Client + ". This page can be closed."}
			if state == controldb.DeviceDenied {
				said = page{Title: "Refused", Text: d.Client + " was not signed in. This page can be closed."}
			}
			show(w, http.StatusOK, said)
			return
		}
	}
	if tarn.KindOf(err) == tarn.KindNotFound {
		s.guesses.Wrong(key)
		s.askDevice(w, r, page{UserCode: typed, Name: who.Name, Error: "No program waits with this code. Look at it again; it works for ten minutes.", status: http.StatusBadRequest})
		return
	}
	s.lost(w, err)
}
