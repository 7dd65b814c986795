package client

import (
	"context"
	"net/http"
	"time"

	"github.com/tarndb/tarn/internal/api/wire"
)

// Tokens are the caller's personal access tokens.
type Tokens struct{ c *Client }

// Tokens speaks of the caller's tokens.
func (c *Client) Tokens() *Tokens { return &Tokens{c} }

// Create makes a token that lives for life; 0 = until revoked. The answer is
// the only place its secret is ever shown.
func (t *Tokens) Create(ctx context.Context, comment string, life time.Duration) (CreatedToken, error) {
	in := wire.CreateToken{Comment: comment}
	if life > 0 {
		s := int64(life / time.Second)
		in.LifetimeSeconds = &s
	}
	var out CreatedToken
	err := t.c.do(ctx, http.MethodPost, "/api/2.0/token/create", nil, in, &out)
	return out, err
}

// List lists the tokens without their secrets.
func (t *Tokens) List(ctx context.Context) ([]Token, error) {
	var out wire.ListTokens
	err := t.c.get(ctx, "/api/2.0/token/list", nil, &out)
	return out.TokenInfos, err
}

// Revoke ends a token.
func (t *Tokens) Revoke(ctx context.Context, id string) error {
	return t.c.do(ctx, http.MethodPost, "/api/2.0/token/delete", nil, wire.RevokeToken{TokenID: id}, nil)
}
