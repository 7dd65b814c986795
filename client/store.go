package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
)

// StoreStats tells what the page store takes.
func (c *Client) StoreStats(ctx context.Context) (StoreStats, error) {
	var s StoreStats
	err := c.get(ctx, mine+"store/stats", nil, &s)
	return s, err
}

// CheckStore verifies the page store and returns when that is done; it may take
// minutes. far hears how far it is, about once a second. A check that runs already
// is joined.
func (c *Client) CheckStore(ctx context.Context, far func(StoreCheck)) (StoreCheck, error) {
	var s StoreCheck
	if err := c.do(ctx, http.MethodPost, mine+"store/checks", nil, nil, &s); err != nil {
		return s, err
	}
	for !s.Done {
		far(s)
		var next StoreCheck
		err := c.get(ctx, mine+"store/checks/"+url.PathEscape(s.ID), nil, &next)
		var e *Error
		switch {
		case err == nil:
			s = next
		case errors.As(err, &e) && e.Status == http.StatusServiceUnavailable:
			// The server is coming up again, and checks again.
			if err := rest(ctx, lastPoll); err != nil {
				return s, err
			}
		default:
			return s, err
		}
	}
	return s, nil
}
