package control

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/token"
)

// Authenticate resolves what was shown at the API: a personal access token or
// an OAuth access token. KindDenied.
func (i *Identity) Authenticate(ctx context.Context, bearer string) (tarn.Principal, error) {
	name, err := i.bearer(ctx, bearer)
	if err != nil {
		return tarn.Principal{}, err
	}
	p, err := controldb.Identify(ctx, i.cfg.DB, name)
	switch {
	case tarn.KindOf(err) == tarn.KindNotFound:
		return tarn.Principal{}, errStranger
	case err != nil:
		return tarn.Principal{}, err
	case p.Disabled:
		return tarn.Principal{}, errDisabled(p)
	}
	return p, nil
}

var errStranger = tarn.Denied("the token belongs to nobody in this workspace")

func errDisabled(p tarn.Principal) error {
	return tarn.Denied("%s is disabled", p.Name).WithHint("An admin can enable it: tarn principal enable " + p.Name)
}

// bearer gives the name of who the token belongs to.
func (i *Identity) bearer(ctx context.Context, bearer string) (string, error) {
	if !token.LooksLikeJWT(bearer) {
		p, err := controldb.PrincipalOfToken(ctx, i.cfg.DB, token.HashPAT(bearer))
		if tarn.KindOf(err) == tarn.KindNotFound {
			return "", tarn.Denied("token is not known, has expired or was revoked").
				WithHint("Use the token that tarn up wrote into the CLI's profile, sign in with tarn login, or make another token.")
		}
		return p.Name, err
	}
	c, err := i.verify(ctx, bearer)
	var expired *token.ExpiredError
	switch {
	case errors.As(err, &expired):
		return "", tarn.Denied("%w", err).WithHint("Sign in again: tarn login")
	case err != nil:
		return "", err
	case !c.CallsAPI():
		return "", tarn.Denied("the token is a database credential: it opens databases and nothing else").WithHint("Use an access token: tarn login, or tarn token create")
	}
	return c.Subject, nil
}

// verify checks a signed token by itself, then whether it was revoked.
func (i *Identity) verify(ctx context.Context, raw string) (token.Claims, error) {
	c, err := i.cfg.Verifier.Verify(ctx, raw)
	if err != nil {
		return token.Claims{}, err
	}
	ids := []string{c.ID}
	if c.Family != "" {
		ids = append(ids, c.Family)
	}
	gone, err := controldb.Revoked(ctx, i.cfg.DB, ids...)
	switch {
	case err != nil:
		return token.Claims{}, err
	case gone:
		return token.Claims{}, tarn.Denied("verify token: it was revoked")
	}
	return c, nil
}

// Verify checks a Postgres password: a database credential or an OAuth access
// token, of a principal that is still there and may sign in. KindDenied.
func (i *Identity) Verify(ctx context.Context, raw string) (token.Claims, error) {
	c, err := i.verify(ctx, raw)
	if err != nil {
		return token.Claims{}, err
	}
	p, err := controldb.GetPrincipal(ctx, i.cfg.DB, c.Subject)
	switch {
	case tarn.KindOf(err) == tarn.KindNotFound:
		return token.Claims{}, errStranger
	case err != nil:
		return token.Claims{}, err
	case p.Disabled:
		return token.Claims{}, errDisabled(p)
	}
	return c, nil
}

// SignIn checks what a person typed into the sign-in page: its name, and its
// password or one of its personal access tokens. KindDenied, the same for a
// name that is not there and a wrong secret.
func (i *Identity) SignIn(ctx context.Context, name string, secret tarn.Secret) (tarn.Principal, error) {
	wrong := tarn.Denied("the name or the password is wrong")
	p, err := controldb.GetPrincipal(ctx, i.cfg.DB, name)
	there := err == nil && p.Type == tarn.PrincipalUser
	if err != nil && tarn.KindOf(err) != tarn.KindNotFound {
		return tarn.Principal{}, err
	}
	var hash string
	if there {
		if hash, err = controldb.Password(ctx, i.cfg.DB, p.ID); err != nil {
			return tarn.Principal{}, err
		}
	}
	ok := token.SamePassword(hash, secret.Reveal())
	if !ok && there {
		owner, err := controldb.PrincipalOfToken(ctx, i.cfg.DB, token.HashPAT(secret.Reveal()))
		if err != nil && tarn.KindOf(err) != tarn.KindNotFound {
			return tarn.Principal{}, err
		}
		ok = err == nil && owner.ID == p.ID
	}
	switch {
	case !ok:
		return tarn.Principal{}, wrong
	case p.Disabled:
		return tarn.Principal{}, errDisabled(p)
	}
	return p, nil
}

// CheckClient checks a service principal's id and secret. KindDenied.
func (i *Identity) CheckClient(ctx context.Context, id string, secret tarn.Secret) (tarn.Principal, error) {
	p, err := controldb.PrincipalOfSecret(ctx, i.cfg.DB, token.HashSecret(secret.Reveal()))
	if err != nil && tarn.KindOf(err) != tarn.KindNotFound {
		return tarn.Principal{}, err
	}
	if err != nil || subtle.ConstantTimeCompare([]byte(p.Name), []byte(id)) != 1 {
		return tarn.Principal{}, tarn.Denied("the client id or its secret is wrong")
	}
	if p.Disabled {
		return tarn.Principal{}, errDisabled(p)
	}
	return p, nil
}

// Active reads a principal by its id, as one that may be given a token.
func (i *Identity) Active(ctx context.Context, id string) (tarn.Principal, error) {
	p, err := controldb.PrincipalByID(ctx, i.cfg.DB, id)
	if err != nil {
		return tarn.Principal{}, fmt.Errorf("sign in: %w", err)
	}
	if p.Disabled {
		return tarn.Principal{}, errDisabled(p)
	}
	return p, nil
}
