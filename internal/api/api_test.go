package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

// ask sends one request to a door that has no rooms behind it: what needs none
// must be answered without touching them.
func ask(t *testing.T, method, target, body string, header ...string) (*httptest.ResponseRecorder, wire.Error) {
	t.Helper()
	h := New(Config{Workspace: tarn.Workspace{ID: 1234567890, Owner: "me@example.com"}})
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var e wire.Error
	if w.Code >= 300 {
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
			t.Fatalf("%s %s: body %q is not JSON: %v", method, target, w.Body, err)
		}
	}
	return w, e
}

func TestHostConfigNeedsNoTokenAndNoRooms(t *testing.T) {
	w, _ := ask(t, "GET", "http://127.0.0.1:8181/.well-known/databricks-config", "")
	var c map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &c); err != nil || w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	// workspace_id is a string on the wire: Go's SDK cannot read a number there.
	want := map[string]any{"oidc_endpoint": "http://127.0.0.1:8181/oidc", "workspace_id": "1234567890", "cloud": "AWS", "host_type": "workspace"}
	for k, v := range want {
		if c[k] != v {
			t.Errorf("%s = %v, want %v", k, c[k], v)
		}
	}
	if c["account_id"] == "" {
		t.Error("account_id is empty")
	}
}

// The requests of wire-level transcripts of the public SDKs. Each must find
// its own route (a missing token is refused by a route, not by the catch-all).
func TestSDKRequestsFindARoute(t *testing.T) {
	for _, s := range []string{
		"GET /api/2.0/database/instances/inst?",
		"GET /api/2.0/database/instances/inst",
		"GET /api/2.0/database/instances",
		"GET /api/2.0/database/instances:findByUid?uid=x",
		"POST /api/2.0/database/instances",
		"PATCH /api/2.0/database/instances/inst?update_mask=stopped",
		"DELETE /api/2.0/database/instances/inst?purge=true",
		"POST /api/2.0/database/credentials",
		"POST /api/2.0/database/synced_tables",
		"GET /api/2.0/database/synced_tables/lakebase_catalog.schema.synced_table",
		"GET /api/2.0/preview/scim/v2/Me?excludedAttributes=entitlements",
		"GET /api/2.0/postgres/projects?page_token=n1",
		"POST /api/2.0/postgres/projects?project_id=p",
		"POST /api/2.0/postgres/projects/p/branches?branch_id=b",
		"PATCH /api/2.0/postgres/projects/p/branches/b?update_mask=spec.is_protected",
		"GET /api/2.0/postgres/projects/p/operations/op1",
		"GET /api/2.0/postgres/projects/p/branches/b/operations/op1?",
		"GET /api/2.0/postgres/projects/p/branches/b/endpoints/primary",
		"GET /api/2.0/postgres/projects/p/branches/b/endpoints/primary/operations/op1",
		"GET /api/2.0/postgres/projects/p/branches/b/databases/databricks-postgres/cdf-configs/public",
		"GET /api/2.0/postgres/projects/p/branches/b/databases/databricks-postgres/cdf-configs/public/cdf-statuses",
		"GET /api/2.0/postgres/projects/p/branches/b/databases/databricks-postgres/cdf-configs/public/operations/create-1",
		"GET /api/2.0/postgres/synced_tables/c.s.t/operations/create-1",
		"POST /api/2.0/postgres/synced_tables?synced_table_id=c.s.t",
		"POST /api/2.0/postgres/credentials",
		"POST /api/2.0/pipelines/abc/updates",
		"GET /api/2.1/unity-catalog/tables/c.s.t/exists",
		"POST /api/2.0/tarn/projects/p/branches/b/endpoints/primary:wake",
	} {
		method, target, _ := strings.Cut(s, " ")
		w, e := ask(t, method, target, "{}", "X-Databricks-Workspace-Id", "1234567890")
		if w.Code != http.StatusUnauthorized || e.ErrorCode != "UNAUTHENTICATED" {
			t.Errorf("%s: got %d %s, want 401 from its route", s, w.Code, e.ErrorCode)
		}
		if w.Header().Get(wire.RequestIDHeader) == "" {
			t.Errorf("%s: no request id", s)
		}
	}
}

func TestUnknownPathAndMethodAreJSON(t *testing.T) {
	for _, s := range []string{"GET /api/2.0/nothing", "PUT /api/2.0/postgres/projects/p", "GET /"} {
		method, target, _ := strings.Cut(s, " ")
		if w, e := ask(t, method, target, ""); w.Code != 404 || e.ErrorCode != "ENDPOINT_NOT_FOUND" {
			t.Errorf("%s: got %d %s", s, w.Code, w.Body)
		}
	}
}

func TestTokenMustBeBearer(t *testing.T) {
	for _, h := range []string{"", "Basic Zm9vOmJhcg==", "Bearer", "Bearer  "} {
		w, e := ask(t, "GET", "/api/2.0/preview/scim/v2/Me", "", "Authorization", h)
		if w.Code != 401 || e.ErrorCode != "UNAUTHENTICATED" || w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("Authorization %q: %d %s", h, w.Code, w.Body)
		}
	}
}
