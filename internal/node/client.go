package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/tarndb/tarn"
)

// Client speaks to a node. Its methods return the kinds of error the node met.
// While the node restarts they wait, up to the context's end.
type Client struct {
	http *http.Client
}

// A node that restarts is looked for often at first: its socket appears within
// a moment.
const (
	retryFirst = 20 * time.Millisecond
	retryMost  = time.Second
)

// Dial builds a client for the socket; it connects when first used.
func Dial(socket string) *Client {
	var d net.Dialer
	return &Client{http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
	}}}
}

// Close gives the idle connections back.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// CreateTimeline is idempotent by spec.ID.
func (c *Client) CreateTimeline(ctx context.Context, s tarn.TimelineSpec) (tarn.TimelineStatus, error) {
	return call[tarn.TimelineStatus](ctx, c, methodCreateTimeline, s)
}

// DeleteTimeline stops its compute and removes it. One that does not exist is
// not an error.
func (c *Client) DeleteTimeline(ctx context.Context, id tarn.TimelineID) error {
	_, err := call[none](ctx, c, methodDeleteTimeline, timelineArg{id})
	return err
}

// Timeline tells of one timeline, all its marks included.
func (c *Client) Timeline(ctx context.Context, id tarn.TimelineID) (tarn.TimelineStatus, error) {
	return call[tarn.TimelineStatus](ctx, c, methodTimeline, timelineArg{id})
}

// Timelines tells of all timelines; of their marks only the first and the last.
func (c *Client) Timelines(ctx context.Context) ([]tarn.TimelineStatus, error) {
	return call[[]tarn.TimelineStatus](ctx, c, methodTimelines, none{})
}

// Window tells what of a timeline's past it can be forked at.
func (c *Client) Window(ctx context.Context, id tarn.TimelineID) (tarn.Window, error) {
	return call[tarn.Window](ctx, c, methodWindow, timelineArg{id})
}

// SetHistory changes how far back a timeline can be forked: 0 = the default,
// negative = not at all.
func (c *Client) SetHistory(ctx context.Context, id tarn.TimelineID, d time.Duration) error {
	_, err := call[none](ctx, c, methodSetHistory, historyArg{id, d})
	return err
}

// DropSlots removes what belongs to the consumers of a timeline on which no
// compute runs.
func (c *Client) DropSlots(ctx context.Context, id tarn.TimelineID) error {
	_, err := call[none](ctx, c, methodDropSlots, timelineArg{id})
	return err
}

// Wake starts the endpoint's compute, or returns the running one; returns when
// Postgres accepts connections.
func (c *Client) Wake(ctx context.Context, s tarn.ComputeSpec) (tarn.ComputeStatus, error) {
	return call[tarn.ComputeStatus](ctx, c, methodWake, s)
}

// Suspend stops it cleanly; a stopped one is not an error.
func (c *Client) Suspend(ctx context.Context, endpoint string) error {
	_, err := call[none](ctx, c, methodSuspend, endpointArg{endpoint})
	return err
}

// Computes tells of every compute the node knows, stopped ones included.
func (c *Client) Computes(ctx context.Context) ([]tarn.ComputeStatus, error) {
	return call[[]tarn.ComputeStatus](ctx, c, methodComputes, none{})
}

// Versions lists the Postgres majors the node can run, newest first.
func (c *Client) Versions(ctx context.Context) ([]int, error) {
	return call[[]int](ctx, c, methodVersions, none{})
}

// StoreStats tells what the node's page store takes.
func (c *Client) StoreStats(ctx context.Context) (tarn.StoreStats, error) {
	return call[tarn.StoreStats](ctx, c, methodStoreStats, none{})
}

// CheckStore begins a check of the page store under a name of the caller's, or
// tells how far it is; it returns after a moment. While another check runs it tells
// of that one. A node that restarts begins anew.
func (c *Client) CheckStore(ctx context.Context, s tarn.StoreCheckSpec) (tarn.StoreCheck, error) {
	return call[tarn.StoreCheck](ctx, c, methodCheckStore, s)
}

// Restart lets the node execute its program anew, under running computes, and
// returns when the new one answers. The same call may reach both: it names the
// one that is to end.
func (c *Client) Restart(ctx context.Context) error {
	before, err := call[restartResult](ctx, c, methodRestart, restartArg{})
	if err != nil {
		return err
	}
	_, err = call[restartResult](ctx, c, methodRestart, restartArg{From: before.Name})
	return err
}

// call repeats a call until the node has answered it or ctx ends.
func call[R any](ctx context.Context, c *Client, method string, arg any) (R, error) {
	var result R
	body, err := json.Marshal(arg)
	if err != nil {
		return result, fmt.Errorf("ask node to %s: %w", method, err)
	}
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		answer, err := c.once(ctx, method, body)
		switch {
		case err == nil:
			if err := json.Unmarshal(answer, &result); err != nil {
				return result, fmt.Errorf("ask node to %s: read its answer: %w", method, err)
			}
			return result, nil
		case !isLost(err):
			return result, err
		case ctx.Err() != nil:
			return result, unanswered(ctx, method, err)
		}
		pause := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			pause.Stop()
			return result, unanswered(ctx, method, err)
		case <-pause.C:
		}
	}
}

// lost is a call whose answer did not arrive: it may or may not have been done.
type lost struct{ err error }

func (e lost) Error() string { return e.err.Error() }
func (e lost) Unwrap() error { return e.err }

func isLost(err error) bool {
	_, ok := errors.AsType[lost](err)
	return ok
}

func unanswered(ctx context.Context, method string, last error) error {
	if errors.Is(last, context.Canceled) || errors.Is(last, context.DeadlineExceeded) {
		return tarn.Unavailable("ask node to %s: no answer in time: %w", method, context.Cause(ctx))
	}
	return tarn.Unavailable("ask node to %s: %w: %w", method, last, context.Cause(ctx)).
		WithHint("see whether the node runs; tarn up starts one")
}

func (c *Client) once(ctx context.Context, method string, body []byte) ([]byte, error) {
	// The host's name says nothing: DialContext goes to the socket.
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://node"+pathPrefix+method, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, lost{err}
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, lost{err}
	}
	if resp.StatusCode == http.StatusOK {
		return answer, nil
	}
	if resp.StatusCode == statusAgain {
		return nil, lost{fmt.Errorf("node answers %s", resp.Status)}
	}
	var f fault
	if err := json.Unmarshal(answer, &f); err != nil || f.Message == "" {
		return nil, fmt.Errorf("ask node to %s: it answers %s: %q", method, resp.Status, answer)
	}
	return nil, f.err()
}
