package api

import (
	"context"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

// tokenDoor answers /api/2.0/token: the caller's personal access tokens.
type tokenDoor struct{ control *control.Control }

func (d *tokenDoor) create(ctx context.Context, q *query) (any, error) {
	var in wire.CreateToken
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	life, err := readTokenLife(in)
	if err != nil {
		return nil, err
	}
	t, secret, err := d.control.CreateToken(ctx, q.who, in.Comment, life)
	if err != nil {
		return nil, err
	}
	info := tokenOf(t)
	return wire.CreateTokenResponse{TokenValue: secret.Reveal(), TokenInfo: &info}, nil
}

// readTokenLife reads how long a token lives; 0 = for ever.
func readTokenLife(in wire.CreateToken) (time.Duration, error) {
	switch s := in.LifetimeSeconds; {
	case s == nil, *s == -1:
		return 0, nil
	case *s <= 0 || *s > int64(100*365*day/time.Second):
		return 0, badField("lifetime_seconds", "got %d, want a number of seconds above 0; leave it out for a token that does not expire", *s)
	default:
		return time.Duration(*s) * time.Second, nil
	}
}

func (d *tokenDoor) list(ctx context.Context, q *query) (any, error) {
	ts, err := d.control.ListTokens(ctx, q.who)
	if err != nil {
		return nil, err
	}
	out := wire.ListTokens{TokenInfos: []wire.TokenInfo{}}
	for _, t := range ts {
		out.TokenInfos = append(out.TokenInfos, tokenOf(t))
	}
	return out, nil
}

func (d *tokenDoor) revoke(ctx context.Context, q *query) (any, error) {
	var in wire.RevokeToken
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	if in.TokenID == "" {
		return nil, badField("token_id", "is missing")
	}
	return nil, d.control.RevokeToken(ctx, q.who, in.TokenID)
}

func tokenOf(t tarn.Token) wire.TokenInfo {
	i := wire.TokenInfo{TokenID: t.ID, Comment: t.Comment, CreationTime: t.CreateTime.UnixMilli(), ExpiryTime: -1}
	if !t.ExpireTime.IsZero() {
		i.ExpiryTime = t.ExpireTime.UnixMilli()
	}
	return i
}
