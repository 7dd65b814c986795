package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/google/uuid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

// hostDoor tells clients what kind of host this is and who they are.
type hostDoor struct {
	workspace tarn.Workspace
	keys      KeySet
}

// config touches nothing that could be slow: clients ask it first and an SDK
// may wait minutes for it.
func (d *hostDoor) config(_ context.Context, q *query) (any, error) {
	id := strconv.FormatInt(d.workspace.ID, 10)
	return wire.HostConfig{
		OIDCEndpoint: q.base + "/oidc",
		// An account has one workspace here; its id must only be stable.
		AccountID:   uuid.NewSHA1(uuid.NameSpaceOID, []byte("tarn account of workspace "+id)).String(),
		WorkspaceID: id,
		Cloud:       "AWS", // SDKs know AWS, Azure and GCP; only this one adds no login of its own
		HostType:    "workspace",
	}, nil
}

func (d *hostDoor) authorizationServer(_ context.Context, q *query) (any, error) {
	s := wire.AuthorizationServer{
		Issuer:                q.base + "/oidc",
		AuthorizationEndpoint: q.base + "/oidc/v1/authorize",
		TokenEndpoint:         q.base + "/oidc/v1/token",
	}
	if d.keys != nil {
		s.JWKSURI = q.base + "/oidc/jwks.json"
	}
	return s, nil
}

func (d *hostDoor) jwks(ctx context.Context, _ *query) (any, error) {
	if d.keys == nil {
		return nil, tarn.NotFound("this server publishes no keys")
	}
	b, err := d.keys.JWKS(ctx)
	return raw(b), err
}

// token and authorize answer as RFC 6749 asks: OAuth logins are not there yet,
// and a client must hear so instead of a page it cannot read.
func (d *hostDoor) token(_ context.Context, q *query) (any, error) {
	return nil, &oauthFailure{wire.OAuthError{
		Error:       "unsupported_grant_type",
		Description: "this Tarn issues no OAuth tokens yet; use a personal access token (`tarn token create`) in DATABRICKS_TOKEN",
	}}
}

func (d *hostDoor) authorize(_ context.Context, q *query) (any, error) {
	return nil, &oauthFailure{wire.OAuthError{
		Error:       "unsupported_response_type",
		Description: "this Tarn has no browser login yet; use a personal access token (`tarn token create`)",
	}}
}

// oauthFailure is a refusal in OAuth's own form.
type oauthFailure struct{ wire.OAuthError }

func (f *oauthFailure) Error() string { return f.Description }

// me is SCIM's answer to "who am I"; userName is also the Postgres role.
func (d *hostDoor) me(_ context.Context, q *query) (any, error) {
	return userOf(q.who), nil
}

func userOf(p tarn.Principal) wire.User {
	u := wire.User{
		Schemas:     []string{"urn:ietf:params:scim:schemas:core:2.0:User"},
		ID:          p.ID,
		UserName:    p.Name,
		DisplayName: p.Name,
		Active:      true,
	}
	if p.Type == tarn.PrincipalService {
		u.ApplicationID = p.Name
	} else {
		u.Emails = []wire.UserEmail{{Type: "work", Value: p.Name, Primary: true}}
	}
	if p.Admin {
		u.Groups = []wire.UserGroup{{Display: "admins", Type: "direct"}}
	}
	return u
}

// nowhere answers every path and method no route takes.
func (d *hostDoor) nowhere(_ context.Context, q *query) (any, error) {
	return nil, &failure{
		status: http.StatusNotFound, code: "ENDPOINT_NOT_FOUND",
		msg: "this Tarn has no API for " + q.r.Method + " " + q.r.URL.Path,
	}
}

// asOAuth finds an OAuth refusal in err.
func asOAuth(err error) (*oauthFailure, bool) {
	var f *oauthFailure
	ok := errors.As(err, &f)
	return f, ok
}
