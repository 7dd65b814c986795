// Package api is the HTTP/JSON door: the published control-plane API of
// Databricks' database, postgres, Unity Catalog, token and SCIM services, and
// Tarn's own under /api/2.0/tarn/. It knows names, spellings, status codes and
// who asks; it decides nothing about projects, tables or computes, which the
// rooms below keep. The JSON itself is in internal/api/wire.
package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/control"
	"github.com/tarndb/tarn/internal/delta"
	"github.com/tarndb/tarn/internal/feed"
	"github.com/tarndb/tarn/internal/syncedtable"
	"github.com/tarndb/tarn/internal/warehouse"
)

// Config is what the door stands on. Control, SyncedTables, Feeds and Catalog
// are needed; the rest has a good zero value.
type Config struct {
	Control      *control.Control
	SyncedTables *syncedtable.Keeper
	Feeds        *feed.Keeper
	Catalog      *catalog.Catalog
	Audit        *catalog.Audit // nil = nothing is recorded
	Workspace    tarn.Workspace
	// OpenTable opens the Delta table at a catalog location. nil = table
	// contents are answered with "not implemented".
	OpenTable func(ctx context.Context, location string) (*delta.Table, error)
	OAuth     http.Handler // of everything under /oidc/; nil = nothing there
	Rate      float64      // requests a second of one principal, with ten seconds' worth at once; 0 = no bound
	Backup
	PublicURL string                       // how clients reach the server; "" = as the request says
	CAFile    string                       // certificate authority of the gateway, shown to clients on this computer
	Version   string                       // of Tarn
	LakeURL   string                       // root of catalog lake, for programs on this computer
	PageStore PageStore                    // of the node; nil = nothing is told of it
	Processes func() []wire.Process        // of this Tarn, computes excepted; nil = none shown
	Sessions  func() []wire.GatewaySession // of the gateway; nil = none shown
	Volumes   func() string                // how branches are kept; nil = not shown
	Warehouse *warehouse.Warehouse         // runs SQL; nil = there is none
	Log       *slog.Logger                 // nil = discard
}

// Backup says where everything is copied to.
type Backup struct {
	Storage string               // URL of the object store; "" = none
	Copied  func() time.Duration // how long ago all of the control database was there; nil = it is not copied
}

// Prefixes are the path prefixes New answers, for a mux that also serves other
// doors.
func Prefixes() []string { return []string{"/api/", "/oidc/", "/.well-known/"} }

// maxBody is the largest request body read, in bytes.
const maxBody = 1 << 20

// New builds the handler. It does no I/O.
func New(c Config) http.Handler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	synced := &syncedDoor{control: c.Control, keeper: c.SyncedTables}
	d := &door{
		authenticate: c.Control.Authenticate,
		access:       accessOfControl(c.Control),
		projectOf:    synced.projectOf,
		child:        childrenOfControl(c.Control),
		publicURL:    strings.TrimSuffix(c.PublicURL, "/"),
		workspace:    strconv.FormatInt(c.Workspace.ID, 10),
		audit:        c.Audit,
		log:          c.Log,
		rates:        &rates{perSecond: c.Rate},
	}
	mux := http.NewServeMux()
	for _, r := range routes(c) {
		mux.Handle(r.pattern, d.handler(r))
	}
	if c.OAuth != nil {
		mux.Handle("/oidc/", c.OAuth)
	}
	return mux
}

// route is one row of the table in routes.go.
type route struct {
	pattern string // net/http pattern: method and path
	access  access
	answer  func(ctx context.Context, q *query) (any, error)
	about   about // what the API's document says of it
}

// raw is an answer whose bytes are sent as they are.
type raw []byte

// door turns a route into an http.Handler: identify, authenticate, answer.
type door struct {
	authenticate func(ctx context.Context, bearer string) (tarn.Principal, error)
	access       *control.Access
	projectOf    func(ctx context.Context, a access, q *query) (tarn.ProjectName, error)
	child        func(ctx context.Context, name string) (tarn.ChildInstance, error) // nil = there are none
	publicURL    string
	workspace    string         // decimal id
	audit        *catalog.Audit // nil = nothing is recorded
	strangers    strangers
	rates        *rates
	log          *slog.Logger
}

func (d *door) handler(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := requestID(r)
		w.Header().Set(wire.RequestIDHeader, id)
		w.Header().Set("X-Databricks-Org-Id", d.workspace)
		w.Header().Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		q := &query{r: r, base: d.baseURL(r), access: d.access}
		var answer any
		err := d.identify(rt.access, q)
		if err == nil {
			err = d.authorize(r.Context(), rt, q)
		}
		if err == nil {
			answer, err = rt.answer(r.Context(), q)
		}
		d.record(rt, q, id, err)
		if err != nil {
			d.refuse(w, r, id, err)
			return
		}
		d.send(w, r, http.StatusOK, answer)
	})
}

var givenID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// requestID is the id under which the request is logged: its client's, when that
// gave one that can be logged, else a new one.
func requestID(r *http.Request) string {
	if id := r.Header.Get(wire.RequestIDHeader); givenID.MatchString(id) {
		return id
	}
	return uuid.NewString()
}

// identify fills q.who from the bearer token.
func (d *door) identify(a access, q *query) error {
	if a == public {
		return nil
	}
	scheme, token, _ := strings.Cut(q.r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return unauthenticated("the request carries no token", "send the header Authorization: Bearer <token>; `tarn token create` makes one")
	}
	who, err := d.authenticate(q.r.Context(), token)
	if tarn.KindOf(err) == tarn.KindDenied {
		return unauthenticated(err.Error(), tarn.HintOf(err))
	}
	q.who = who
	if err != nil {
		return err
	}
	return d.rates.take(who.Name, time.Now())
}

func (d *door) refuse(w http.ResponseWriter, r *http.Request, id string, err error) {
	f := failureOf(err)
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		f = &failure{status: statusClientClosed, code: "CANCELLED", msg: "the request was cut off: its client went away, or Tarn stops"}
	}
	if f.status == http.StatusInternalServerError {
		d.log.ErrorContext(r.Context(), "request failed", "path", r.URL.Path, "err", errors.Join(errors.New("request "+id), err))
	}
	switch f.status {
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", strconv.Itoa(int(max(time.Second, f.after)/time.Second)))
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if strings.HasPrefix(r.URL.Path, scimPrefix) {
		d.send(w, r, f.status, scimBody(f, f.body(id)))
		return
	}
	d.send(w, r, f.status, f.body(id))
}

func (d *door) send(w http.ResponseWriter, r *http.Request, status int, v any) {
	b, ok := v.(raw)
	kind := ""
	if html, is := v.(page); is {
		b, ok, kind = raw(html), true, "text/html; charset=utf-8"
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	}
	if !ok {
		if v == nil {
			v = wire.Empty{}
		}
		var err error
		if b, err = json.Marshal(v); err != nil {
			d.log.ErrorContext(r.Context(), "answer cannot be encoded", "path", r.URL.Path, "err", err)
			status, b = http.StatusInternalServerError, raw(`{"error_code":"INTERNAL_ERROR","message":"internal error"}`)
		}
	}
	w.Header().Set("Content-Type", cmp.Or(kind, "application/json"))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	// A failed write means the client is gone; there is nobody left to tell.
	_, _ = w.Write(b)
}

func (d *door) baseURL(r *http.Request) string {
	switch {
	case d.publicURL != "":
		return d.publicURL
	case r.TLS != nil:
		return "https://" + r.Host
	}
	return "http://" + r.Host
}
