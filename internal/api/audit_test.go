package api

import (
	"context"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/tarndb/tarn/internal/blob"
	"github.com/tarndb/tarn/internal/blob/dir"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/delta"
)

// What changes something and what is refused is in system.access.audit, without
// secrets; what is only read is not.
func auditsWhatIsDone(t *testing.T, p *people) {
	store := func(_ context.Context, location string) (blob.Store, error) {
		u, err := url.Parse(location)
		if err != nil {
			return nil, err
		}
		return dir.Open(u.Path)
	}
	c := p.config
	c.Audit = catalog.NewAudit(c.Catalog, store, 0, slog.New(slog.DiscardHandler))
	c.OpenTable = func(ctx context.Context, location string) (*delta.Table, error) {
		s, err := store(ctx, location)
		if err != nil {
			return nil, err
		}
		return delta.Open(ctx, s, "")
	}
	h := New(c)
	made := request(h, "POST", "/api/2.0/token/create", `{"comment":"by the test"}`, p.bearers["other"])
	if made.Code != 200 {
		t.Fatalf("token: %d %s", made.Code, made.Body)
	}
	secret := decodeTo[struct {
		Value string `json:"token_value"`
	}](t, made.Body.String()).Value
	request(h, "GET", unityPath+"catalogs/lake", "", p.bearers["other"])   // refused
	request(h, "GET", unityPath+"catalogs/lake", "", p.bearers["admin"])   // read
	request(h, "GET", unityPath+"catalogs/nowhere", "", p.bearers["user"]) // not there
	request(h, "PATCH", unityPath+"permissions/catalog/lake", `{"changes":[{"principal":"team","add":["USE_CATALOG"],"remove":["MANAGE"]}]}`, p.bearers["admin"])
	for range 2 * strangersAMinute {
		request(h, "POST", "/api/2.0/token/create", "{}", "dapi-wrong-secret")
	}
	must(t, c.Audit.Flush(t.Context()))
	const head = "/api/2.0/tarn/tables/system.access.audit/head?limit=1000"
	if w := request(h, "GET", head, "", p.bearers["other"]); w.Code != 403 {
		t.Errorf("anybody reads the audit: %d", w.Code)
	}
	w := request(h, "GET", head, "", p.bearers["admin"])
	text := w.Body.String()
	for what, n := range map[string]int{
		`"token","create"`:                               1 + strangersAMinute,
		`"catalog","getCatalog"`:                         1,
		`lacks USE CATALOG on catalog lake`:              1,
		`"catalog","updateGrants"`:                       1,
		`grant USE_CATALOG revoke MANAGE principal team`: 1,
		`UNAUTHENTICATED`:                                strangersAMinute,
		`192.0.2.1`:                                      3 + strangersAMinute, // httptest's
		"nowhere":                                        0,
		"by the test":                                    0,
		"wrong-secret":                                   0,
		secret:                                           0,
	} {
		if got := strings.Count(text, what); got != n || secret == "" {
			t.Errorf("%q is %d times in the audit, want %d", what, got, n)
		}
	}
	if t.Failed() {
		t.Log(w.Code, text[:min(len(text), 3000)])
	}
}
