package control

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/token"
)

// Authenticate resolves what was shown at the API; see Identity.
func (c *Control) Authenticate(ctx context.Context, bearer string) (tarn.Principal, error) {
	return c.Identity.Authenticate(ctx, bearer)
}

// CreateToken makes a personal access token for p; life 0 = it never expires.
// The secret is shown only now.
func (c *Control) CreateToken(ctx context.Context, p tarn.Principal, comment string, life time.Duration) (tarn.Token, tarn.Secret, error) {
	switch {
	case life < 0:
		return tarn.Token{}, "", tarn.Invalid("create token: life %s is negative", life)
	case len(comment) > 256:
		return tarn.Token{}, "", tarn.Invalid("create token: comment has %d bytes, want at most 256", len(comment))
	}
	return insertToken(ctx, c.cfg.DB, p, comment, life)
}

func insertToken(ctx context.Context, db controldb.Conn, p tarn.Principal, comment string, life time.Duration) (tarn.Token, tarn.Secret, error) {
	secret, hash := token.NewPAT()
	t := tarn.Token{ID: uuid.NewString(), Comment: comment, Owner: p.Name}
	if life > 0 {
		t.ExpireTime = time.Now().Add(life)
	}
	t, err := controldb.InsertToken(ctx, db, t, hash)
	if err != nil {
		return tarn.Token{}, "", fmt.Errorf("create token: %w", err)
	}
	return t, secret, nil
}

// ListTokens gives p's tokens, oldest first.
func (c *Control) ListTokens(ctx context.Context, p tarn.Principal) ([]tarn.Token, error) {
	return controldb.ListTokens(ctx, c.cfg.DB, p.Name)
}

// RevokeToken ends one of p's tokens at once.
func (c *Control) RevokeToken(ctx context.Context, p tarn.Principal, id string) error {
	return controldb.DeleteToken(ctx, c.cfg.DB, p.Name, id)
}

// How long a Postgres password may live, as published.
const (
	minCredential = 5 * time.Minute
	maxCredential = time.Hour
)

// IssueCredential signs a Postgres password for p, good for the given endpoints
// (empty = every endpoint p may use) until the returned time. ttl 0 = 1 h.
func (c *Control) IssueCredential(ctx context.Context, p tarn.Principal, endpoints []tarn.EndpointName, ttl time.Duration) (tarn.Secret, time.Time, error) {
	if ttl == 0 {
		ttl = maxCredential
	}
	if ttl < minCredential || ttl > maxCredential {
		return "", time.Time{}, tarn.Invalid("issue credential: life %s: want %s to %s", ttl, minCredential, maxCredential)
	}
	now := time.Now().UTC().Truncate(time.Second) // tokens count seconds
	claims := token.Claims{Subject: p.Name, Type: p.Type, IssuedAt: now, Expiry: now.Add(ttl)}
	for _, n := range endpoints {
		e, err := controldb.GetEndpoint(ctx, c.cfg.DB, n)
		if err != nil {
			return "", time.Time{}, fmt.Errorf("issue credential: %w", err)
		}
		if err := c.Access.Need(ctx, p, n.Parent().Parent(), tarn.CanUse); err != nil {
			return "", time.Time{}, fmt.Errorf("issue credential: %w", err)
		}
		claims.Endpoints = append(claims.Endpoints, e.UID)
	}
	secret, err := c.cfg.Signer.Sign(ctx, claims)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("issue credential: %w", err)
	}
	return secret, claims.Expiry, nil
}
