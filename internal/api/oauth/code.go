package oauth

import (
	"context"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/token"
)

// The authorization code flow (RFC 6749, 7636, 8252):
//
//	/v1/authorize ─▶ /login ─▶ redirect to loopback with a code ─▶ /v1/token
//
// The first step leaves a row and, in the browser, a cookie; the page is served
// and answered only with that cookie, so a link somebody sends leads nowhere.

// VerifyAuthRequest names the client that asks; package op checks the rest.
func (s *server) VerifyAuthRequest(_ context.Context, r *op.Request[oidc.AuthRequest]) (*op.ClientRequest[oidc.AuthRequest], error) {
	if r.Data.RequestParam != "" {
		return nil, oidc.ErrRequestNotSupported()
	}
	if r.Data.RedirectURI == "" {
		return nil, oidc.ErrInvalidRequest().WithDescription("redirect_uri is missing")
	}
	c, ok := public(r.Data.ClientID)
	if !ok {
		return nil, oidc.ErrInvalidClient().WithDescription("client %q is not known here; public clients are %s and %s", r.Data.ClientID, DatabricksClient, TarnClient)
	}
	return &op.ClientRequest[oidc.AuthRequest]{Request: r, Client: c}, nil
}

// Authorize begins a sign-in.
func (s *server) Authorize(ctx context.Context, r *op.ClientRequest[oidc.AuthRequest]) (*op.Redirect, error) {
	in := r.Data
	switch {
	case in.CodeChallengeMethod != oidc.CodeChallengeMethodS256 || len(in.CodeChallenge) != 43:
		return nil, oidc.ErrInvalidRequest().WithDescription("code_challenge with code_challenge_method S256 is required")
	case len(in.State) > 1024:
		return nil, oidc.ErrInvalidRequest().WithDescription("state is longer than 1024 bytes")
	case in.ResponseMode != "" && in.ResponseMode != oidc.ResponseModeQuery:
		return nil, oidc.ErrInvalidRequest().WithDescription("response_mode can only be query")
	}
	want := scopes(in.Scopes)
	if !slices.Contains(want, token.ScopeAll) {
		return nil, badScope()
	}
	id, idHash := token.NewSecret("")
	secret, cookieHash := token.NewSecret("")
	err := controldb.InsertSignIn(ctx, s.c.DB, controldb.SignIn{
		ID: idHash, Cookie: cookieHash, Client: in.ClientID, RedirectURI: in.RedirectURI, Scopes: want,
		State: in.State, Challenge: in.CodeChallenge, Expires: time.Now().Add(signInLife),
	})
	if err != nil {
		return nil, s.broken("begin sign-in", err)
	}
	base := askedOf(ctx).base
	to := op.NewRedirect(base + Prefix + "/login?" + url.Values{"request": {id.Reveal()}}.Encode())
	to.Header.Add("Set-Cookie", (&http.Cookie{
		Name: cookieName(idHash), Value: secret.Reveal(), Path: Prefix, MaxAge: int(signInLife / time.Second),
		HttpOnly: true, Secure: strings.HasPrefix(base, "https:"), SameSite: http.SameSiteLaxMode,
	}).String())
	return to, nil
}

// cookieName differs for every sign-in, so that two tabs do not disturb each
// other.
func cookieName(id [32]byte) string { return "tarn_signin_" + hex.EncodeToString(id[:6]) }

// signIn finds the sign-in a browser is in, by its id and its cookie.
func (s *server) signIn(r *http.Request, id string) (controldb.SignIn, error) {
	in, err := controldb.GetSignIn(r.Context(), s.c.DB, token.HashSecret(id))
	if err != nil {
		return in, err
	}
	c, err := r.Cookie(cookieName(in.ID))
	if err != nil {
		return in, tarn.NotFound("the sign-in was begun in another browser")
	}
	got := token.HashSecret(c.Value)
	if subtle.ConstantTimeCompare(got[:], in.Cookie[:]) != 1 {
		return in, tarn.NotFound("the sign-in was begun in another browser")
	}
	return in, nil
}

func (s *server) loginPage(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Query().Get("request")
	in, err := s.signIn(r, id)
	if err != nil {
		s.lost(w, err)
		return
	}
	show(w, http.StatusOK, page{Request: id, Client: in.Client, Where: hostOf(in.RedirectURI)})
}

// login takes what a person typed, and sends the browser back with a code or a
// refusal.
func (s *server) login(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil || !sameOrigin(r, askedOf(r.Context()).base) {
		s.lost(w, tarn.NotFound("the form came from another page"))
		return
	}
	id := r.PostForm.Get("request")
	in, err := s.signIn(r, id)
	if err != nil {
		s.lost(w, err)
		return
	}
	back := url.Values{}
	if in.State != "" {
		back.Set("state", in.State)
	}
	if r.PostForm.Get("answer") == "deny" {
		if err := controldb.DropSignIn(r.Context(), s.c.DB, in.ID); err != nil {
			s.lost(w, err)
			return
		}
		back.Set("error", "access_denied")
		sendBack(w, r, in.RedirectURI, back)
		return
	}
	who, again, ok := s.person(w, r)
	if !ok {
		if again.Error != "" {
			again.Request, again.Client, again.Where = id, in.Client, hostOf(in.RedirectURI)
			show(w, again.status, again)
		}
		return
	}
	code, hash := token.NewSecret("")
	if err := controldb.GrantSignIn(r.Context(), s.c.DB, in.ID, who.ID, hash, time.Now().Add(codeLife)); err != nil {
		s.lost(w, err)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: cookieName(in.ID), Path: Prefix, MaxAge: -1})
	s.c.Log.Info("signed in", "principal", who.Name, "client", in.Client)
	back.Set("code", code.Reveal())
	sendBack(w, r, in.RedirectURI, back)
}

// person checks the name and the secret of a form. Without success it has
// answered, or again says what to show.
func (s *server) person(w http.ResponseWriter, r *http.Request) (who tarn.Principal, again page, ok bool) {
	name := strings.TrimSpace(r.PostForm.Get("name"))
	key := guessKey(askedOf(r.Context()).from, name)
	if wait := s.guesses.Wait(key); wait > 0 {
		return who, page{Name: name, Error: "Too many wrong passwords. Try again in a minute.", status: http.StatusTooManyRequests}, false
	}
	who, err := s.c.Identity.SignIn(r.Context(), name, tarn.Secret(r.PostForm.Get("password")))
	switch {
	case tarn.KindOf(err) == tarn.KindDenied:
		s.guesses.Wrong(key)
		s.c.Log.Warn("sign-in refused", "err", err)
		s.tell(r, catalog.Event{Action: "signIn", Principal: name, Status: http.StatusUnauthorized, Error: err.Error()})
		return who, page{Name: name, Error: upper(err.Error()) + ".", status: http.StatusUnauthorized}, false
	case err != nil:
		s.lost(w, err)
		return who, page{}, false
	}
	s.guesses.Right(key)
	s.tell(r, catalog.Event{Action: "signIn", Principal: who.Name, Status: http.StatusOK})
	return who, page{}, true
}

func sendBack(w http.ResponseWriter, r *http.Request, to string, v url.Values) {
	sep := "?"
	if strings.Contains(to, "?") {
		sep = "&"
	}
	http.Redirect(w, r, to+sep+v.Encode(), http.StatusSeeOther)
}

// sameOrigin refuses forms of other pages; browsers that say where a form came
// from cannot be made to lie about it.
func sameOrigin(r *http.Request, base string) bool {
	o := r.Header.Get("Origin")
	return o == "" || o == "null" || strings.EqualFold(o, base) || hostOf(o) == r.Host
}

func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Host
}

// CodeExchange gives tokens for a code, once. A code that is used again was
// seen by somebody else: what it was exchanged for ends.
func (s *server) CodeExchange(ctx context.Context, r *op.ClientRequest[oidc.AccessTokenRequest]) (*op.Response, error) {
	var out tokens
	var refused error
	invalid := oidc.ErrInvalidGrant().WithDescription("the code is not known, was used or is over")
	hash := token.HashSecret(r.Data.Code)
	err := s.c.DB.InTx(ctx, func(tx *controldb.Tx) error {
		out, refused = tokens{}, nil
		in, err := controldb.LockCode(ctx, tx, hash)
		switch {
		case tarn.KindOf(err) == tarn.KindNotFound || err == nil && in.Client != r.Client.GetID():
			refused = invalid
			return nil
		case err != nil:
			return err
		case in.Family != "":
			s.c.Log.Warn("code used twice: its sign-in is ended", "client", in.Client)
			refused = invalid
			return controldb.EndFamily(ctx, tx, in.Family, time.Now().Add(token.MaxLife+token.Leeway))
		case !time.Now().Before(in.Expires):
			refused = invalid
			return nil
		case in.RedirectURI != r.Data.RedirectURI:
			refused = oidc.ErrInvalidGrant().WithDescription("redirect_uri is not the one the sign-in began with")
			return nil
		case subtle.ConstantTimeCompare([]byte(oidc.NewSHACodeChallenge(r.Data.CodeVerifier)), []byte(in.Challenge)) != 1:
			refused = oidc.ErrInvalidGrant().WithDescription("code_verifier does not belong to the sign-in")
			return nil
		}
		to, err := s.c.Identity.Active(ctx, in.Principal)
		if tarn.KindOf(err) == tarn.KindDenied {
			refused = invalid
			return nil
		}
		if err != nil {
			return err
		}
		family := newFamily()
		if err := controldb.UseCode(ctx, tx, hash, family); err != nil {
			return err
		}
		out, err = s.refreshable(ctx, tx, grant{to: to, client: in.Client, scopes: in.Scopes, family: family})
		return err
	})
	return s.given(out, refused, err)
}
