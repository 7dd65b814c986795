package client

import (
	"context"
	"errors"
	"net/http"
	"net/url"
)

// Store is the page store of the server's node.
type Store struct{ c *Client }

// Store speaks of the page store.
func (c *Client) Store() *Store { return &Store{c} }

// Stats tells what the page store takes.
func (p *Store) Stats(ctx context.Context) (StoreStats, error) {
	var s StoreStats
	err := p.c.get(ctx, mine+"store/stats", nil, &s)
	return s, err
}

// CheckOptions say what a check of the page store does.
type CheckOptions struct {
	Local  bool // leave the object store out
	Repair bool // put objects again of which the node has a whole copy
}

func (o CheckOptions) query() url.Values {
	v := url.Values{}
	for name, on := range map[string]bool{"local": o.Local, "repair": o.Repair} {
		if on {
			v.Set(name, "true")
		}
	}
	return v
}

// Check verifies the page store and returns when that is done; it may take
// minutes. far hears how far it is, about once a second. A check that runs already
// is joined.
func (p *Store) Check(ctx context.Context, o CheckOptions, far func(StoreCheck)) (StoreCheck, error) {
	var s StoreCheck
	if err := p.c.do(ctx, http.MethodPost, mine+"store/checks", o.query(), nil, &s); err != nil {
		return s, err
	}
	for !s.Done {
		far(s)
		var next StoreCheck
		err := p.c.get(ctx, mine+"store/checks/"+url.PathEscape(s.ID), o.query(), &next)
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
