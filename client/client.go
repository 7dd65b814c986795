// Package client speaks Tarn's HTTP API for Go programs and for Tarn's own
// command line. It knows paths, tokens and errors, and the JSON of package
// wire; it reads no environment and keeps nothing.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

// Options say where a server is and who asks.
type Options struct {
	Host      string       // e.g. http://127.0.0.1:8181; https:// is assumed without a scheme
	Token     tarn.Secret  // personal access token
	HTTP      *http.Client // nil = one without a time limit of its own; contexts end calls
	UserAgent string       // "" = tarn-client
}

// Client speaks to one server. It is safe for concurrent use.
type Client struct {
	base  string
	token tarn.Secret
	http  *http.Client
	agent string
}

// New builds a client; it does no I/O.
func New(o Options) (*Client, error) {
	host := strings.TrimSpace(o.Host)
	if host != "" && !strings.Contains(host, "://") {
		host = "https://" + host
	}
	u, err := url.Parse(host)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, tarn.Invalid("host %q: want a URL like http://127.0.0.1:8181", o.Host)
	}
	c := &Client{base: strings.TrimRight(host, "/"), token: o.Token, http: o.HTTP, agent: o.UserAgent}
	if c.http == nil {
		c.http = &http.Client{}
	}
	if c.agent == "" {
		c.agent = "tarn-client"
	}
	return c, nil
}

// Host is the server's URL.
func (c *Client) Host() string { return c.base }

// maxAnswer is the largest answer read, in bytes.
const maxAnswer = 64 << 20

// do sends one request and decodes the answer into out, which may be nil.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request %s %s: %w", method, path, err)
		}
		body = bytes.NewReader(b)
	}
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return fmt.Errorf("build request %s %s: %w", method, path, err)
	}
	req.Header.Set("User-Agent", c.agent)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return &UnreachableError{Host: c.base, Err: err}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read answer to %s %s: %w", method, path, err)
	}
	if res.StatusCode/100 != 2 {
		return errorOf(res, b)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("decode answer to %s %s: %w", method, path, err)
	}
	return nil
}

func (c *Client) get(ctx context.Context, path string, query url.Values, out any) error {
	return c.do(ctx, http.MethodGet, path, query, nil, out)
}

// UnreachableError means no answer came at all.
type UnreachableError struct {
	Host string
	Err  error
}

func (e *UnreachableError) Error() string {
	return "no answer from " + e.Host + ": " + e.Err.Error()
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// Error is a refusal by the server.
type Error struct {
	Status    int    // HTTP status; 0 when an operation ended so
	Code      string // published error_code
	Message   string
	Hint      string // what to type or change next; may be empty
	Feature   string // of Delta, when a table was refused for lack of it
	RequestID string // under which the server logged it
}

func (e *Error) Error() string { return e.Message }

// Unwrap gives the refusal in the words of the root package, so that
// tarn.KindOf and tarn.HintOf see through it.
func (e *Error) Unwrap() error {
	return &tarn.Error{Kind: e.kind(), Msg: e.Message, Hint: e.Hint}
}

func (e *Error) kind() tarn.Kind {
	switch e.Code {
	case "INVALID_STATE", "ABORTED":
		return tarn.KindConflict
	case "RESOURCE_DOES_NOT_EXIST":
		return tarn.KindNotFound
	}
	switch e.Status {
	case http.StatusBadRequest:
		return tarn.KindInvalid
	case http.StatusUnauthorized, http.StatusForbidden:
		return tarn.KindDenied
	case http.StatusNotFound:
		return tarn.KindNotFound
	case http.StatusConflict:
		return tarn.KindConflict
	case http.StatusServiceUnavailable:
		return tarn.KindUnavailable
	}
	return tarn.KindInternal
}

// NotFound says whether the named thing does not exist.
func (e *Error) NotFound() bool {
	return e.Status == http.StatusNotFound || e.Code == "RESOURCE_DOES_NOT_EXIST"
}

// Conflict says whether the thing exists already, or its state forbids it.
func (e *Error) Conflict() bool { return e.Status == http.StatusConflict }

// Unsupported says whether the server refused what it does not know how to do.
func (e *Error) Unsupported() bool {
	return e.Status == http.StatusNotImplemented || e.Code == "NOT_IMPLEMENTED"
}

func errorOf(res *http.Response, body []byte) *Error {
	var w wire.Error
	if err := json.Unmarshal(body, &w); err != nil || w.ErrorCode == "" {
		// Not our server, or a proxy before it.
		text := strings.TrimSpace(string(body[:min(len(body), 200)]))
		return &Error{Status: res.StatusCode, Message: strings.TrimSpace("the server answered " + res.Status + " " + text)}
	}
	e := fromWire(w)
	e.Status = res.StatusCode
	return e
}

func fromWire(w wire.Error) *Error {
	e := &Error{Code: w.ErrorCode, Message: w.Message}
	for _, d := range w.Details {
		switch d.Type {
		case wire.HelpType:
			if len(d.Links) > 0 {
				e.Hint = d.Links[0].Description
			}
		case wire.RequestInfoType:
			e.RequestID = d.RequestID
		case wire.ErrorInfoType:
			e.Feature = d.Metadata["feature"]
		}
	}
	return e
}

// Operation reads a long-running request by name.
func (c *Client) Operation(ctx context.Context, name string) (Operation, error) {
	var op Operation
	err := c.get(ctx, pg+name, nil, &op)
	return op, err
}

// The pace of WaitOperation.
const (
	firstPoll = 50 * time.Millisecond
	lastPoll  = time.Second
	outage    = 30 * time.Second // how long a server may be away while an operation is waited for
)

// WaitOperation polls until op is done and decodes its response into out,
// which may be nil. An operation that ended without success is an *Error. It
// survives a restart of the server, and so does the wait.
func (c *Client) WaitOperation(ctx context.Context, op Operation, out any) error {
	heard := time.Now()
	for pause := firstPoll; !op.Done; pause = min(2*pause, lastPoll) {
		if err := rest(ctx, pause); err != nil {
			return err
		}
		next, err := c.Operation(ctx, op.Name)
		var e *Error
		var lost *UnreachableError
		switch {
		case err == nil:
			op, heard = next, time.Now()
		case errors.As(err, &e) && e.Status == http.StatusServiceUnavailable:
			// The server is coming up again; the operation survives that.
		case errors.As(err, &lost) && time.Since(heard) < outage:
		default:
			return err
		}
	}
	if op.Error != nil {
		return fromWire(*op.Error)
	}
	if out == nil || len(op.Response) == 0 {
		return nil
	}
	if err := json.Unmarshal(op.Response, out); err != nil {
		return fmt.Errorf("decode response of %s: %w", op.Name, err)
	}
	return nil
}

// rest waits for d or the context's end.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// everyPage calls fetch with each page's token until there is none.
func everyPage(fetch func(token string) (next string, err error)) error {
	for token := ""; ; {
		next, err := fetch(token)
		if err != nil || next == "" {
			return err
		}
		token = next
	}
}

// query builds query parameters from pairs, leaving out empty values.
func query(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	return v
}

func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}
