package oauth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/jackc/pgx/v5"
	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/control"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
	"github.com/tarndb/tarn/internal/token"
)

// world is a workspace with its authorization server.
type world struct {
	t      *testing.T
	url    string
	ctl    *control.Control
	db     *controldb.DB
	conn   string
	signer *token.Signer
	pat    string // of the owner
	owner  tarn.Principal
}

const password = "correct horse battery"

func TestServer(t *testing.T) {
	_, conn := pgtest.Start(t, pgtest.Newest(t))
	db, err := controldb.Open(t.Context(), conn)
	ok(t, err)
	t.Cleanup(db.Close)
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	w := &world{t: t, url: srv.URL, db: db, conn: conn, signer: token.NewSigner(db, srv.URL+Prefix, "tarn", token.Options{})}
	w.ctl = control.New(control.Config{DB: db, Signer: w.signer, Verifier: w.signer, Owner: "ada@example.com"})
	b, err := w.ctl.Bootstrap(t.Context())
	ok(t, err)
	w.pat, w.owner = b.Token.Reveal(), b.Owner
	ok(t, w.ctl.Identity.SetPassword(t.Context(), b.Owner.ID, password))
	audit := catalog.NewAudit(catalog.New(db), nil, 0, slog.New(slog.DiscardHandler))
	mux.Handle(Prefix+"/", New(Config{Audit: audit, DB: db, Identity: w.ctl.Identity, Signer: w.signer, PublicURL: srv.URL, AccountID: "acc"}))
	for _, c := range []struct {
		name string
		f    func(*testing.T, *world)
	}{
		{"Discovery", discovers}, {"ClientCredentials", clientCredentials}, {"CodeFlow", codeFlow}, {"CodeIsUsedOnce", codeOnce},
		{"SignInIsBoundToItsBrowser", boundToBrowser}, {"AuthorizeRefuses", authorizeRefuses}, {"RefreshRotates", refreshRotates}, {"Disabled", disabled},
		{"Device", deviceFlow}, {"Exchange", exchanges}, {"RevokeAndIntrospect", revokes}, {"GuessingIsSlow", guessing}, {"NothingIsKeptInClear", hashed},
		{"Audited", auditedOnce},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := *w
			in.t = t
			c.f(t, &in)
		})
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v (%s)", err, tarn.HintOf(err))
	}
}

// post sends a form and reads the JSON it is answered with.
func (w *world) post(path string, f url.Values, basic ...string) (int, map[string]any) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), "POST", w.url+Prefix+path, strings.NewReader(f.Encode()))
	ok(w.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if len(basic) == 2 {
		r.SetBasicAuth(basic[0], basic[1])
	}
	res, err := http.DefaultClient.Do(r)
	ok(w.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	ok(w.t, err)
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		w.t.Fatalf("%s answered %d %q", path, res.StatusCode, b)
	}
	return res.StatusCode, m
}

func form(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	return v
}

// refused wants an OAuth error.
func (w *world) refused(status int, m map[string]any, wantStatus int, code string) {
	w.t.Helper()
	if status != wantStatus || m["error"] != code {
		w.t.Fatalf("answered %d %v, want %d %s", status, m, wantStatus, code)
	}
}

// given wants tokens and gives what the access token says.
func (w *world) given(status int, m map[string]any) token.Claims {
	w.t.Helper()
	raw, _ := m["access_token"].(string)
	if status != 200 || m["token_type"] != "Bearer" || raw == "" {
		w.t.Fatalf("answered %d %v, want a token", status, m)
	}
	c, err := w.ctl.Identity.Verify(w.t.Context(), raw)
	ok(w.t, err)
	return c
}

// api asks as the API does.
func (w *world) api(raw any) (tarn.Principal, error) {
	s, _ := raw.(string)
	return w.ctl.Identity.Authenticate(w.t.Context(), s)
}

func (w *world) service() (p tarn.Principal, secret string) {
	w.t.Helper()
	p, err := w.ctl.Identity.CreatePrincipal(w.t.Context(), tarn.Principal{Type: tarn.PrincipalService, DisplayName: "job"})
	ok(w.t, err)
	_, s, err := w.ctl.Identity.CreateSecret(w.t.Context(), p.ID, 0)
	ok(w.t, err)
	return p, s.Reveal()
}

func discovers(t *testing.T, w *world) {
	for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"} {
		res, err := http.Get(w.url + Prefix + path)
		ok(t, err)
		var d oidc.DiscoveryConfiguration
		ok(t, json.NewDecoder(res.Body).Decode(&d))
		res.Body.Close()
		if d.Issuer != w.url+"/oidc" || d.TokenEndpoint != w.url+"/oidc/v1/token" || d.AuthorizationEndpoint != w.url+"/oidc/v1/authorize" {
			t.Errorf("%s: %+v", path, d)
		}
	}
	_, secret := w.service()
	p, _ := w.ctl.Identity.Principals(t.Context(), tarn.PrincipalService)
	_, m := w.post("/v1/token", form("grant_type", "client_credentials"), p[len(p)-1].Name, secret)
	res, err := http.Get(w.url + Prefix + "/jwks.json")
	ok(t, err)
	defer res.Body.Close()
	var set jose.JSONWebKeySet
	ok(t, json.NewDecoder(res.Body).Decode(&set))
	// Anybody can check our tokens with the published keys.
	parsed, err := jwt.ParseSigned(m["access_token"].(string), []jose.SignatureAlgorithm{jose.ES256})
	ok(t, err)
	var c jwt.Claims
	ok(t, parsed.Claims(&set, &c))
	if c.Issuer != w.url+"/oidc" {
		t.Errorf("issuer %q is not the document's", c.Issuer)
	}
}

func clientCredentials(t *testing.T, w *world) {
	p, secret := w.service()
	f := form("grant_type", "client_credentials", "scope", "all-apis")
	c := w.given(w.post("/v1/token", f, p.Name, secret))
	if c.Subject != p.Name || c.Type != tarn.PrincipalService || !c.CallsAPI() {
		t.Errorf("claims %+v", c)
	}
	f2 := form("grant_type", "client_credentials", "client_id", p.Name, "client_secret", secret)
	status, m := w.post("/v1/token", f2)
	w.given(status, m)
	if who, err := w.api(m["access_token"]); err != nil || who.Name != p.Name {
		t.Errorf("at the API: %v %v", who, err)
	}
	if m["refresh_token"] != nil || m["expires_in"].(float64) != 3600 {
		t.Errorf("%v", m)
	}
	status, m = w.post("/v1/token", f, p.Name, secret+"x")
	w.refused(status, m, 401, "invalid_client")
	status, m = w.post("/v1/token", form("grant_type", "client_credentials"), DatabricksClient, "")
	w.refused(status, m, 400, "unauthorized_client")
	status, m = w.post("/v1/token", form("grant_type", "client_credentials", "scope", "sql"), p.Name, secret)
	w.refused(status, m, 400, "invalid_scope")
	status, m = w.post("/v1/token", form("grant_type", "password"), p.Name, secret)
	w.refused(status, m, 400, "unsupported_grant_type")
	status, m = w.post("/v1/token?client_secret="+secret, f, p.Name, secret)
	w.refused(status, m, 400, "invalid_request")
	// A secret that has ended ends.
	other, late, err := w.ctl.Identity.CreateSecret(t.Context(), p.ID, time.Nanosecond)
	ok(t, err)
	status, m = w.post("/v1/token", f, p.Name, late.Reveal())
	w.refused(status, m, 401, "invalid_client")
	ok(t, w.ctl.Identity.DeleteSecret(t.Context(), p.ID, other.ID))
}

// browser is a person's browser, which does not follow to loopback.
func (w *world) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	ok(w.t, err)
	return &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if !strings.HasPrefix(r.URL.String(), w.url) {
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

const (
	verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	back     = "http://localhost:8020"
)

func authorizeForm(change ...string) url.Values {
	f := form("response_type", "code", "client_id", DatabricksClient, "redirect_uri", back, "scope", "all-apis offline_access",
		"state", "xyz", "code_challenge", oidc.NewSHACodeChallenge(verifier), "code_challenge_method", "S256")
	for i := 0; i < len(change); i += 2 {
		f.Set(change[i], change[i+1])
	}
	return f
}

var requestField = regexp.MustCompile(`name="request" value="([^"]+)"`)

// open begins a sign-in and returns the id in its page.
func (w *world) open(b *http.Client, f url.Values) string {
	w.t.Helper()
	res, err := b.Get(w.url + Prefix + "/v1/authorize?" + f.Encode())
	ok(w.t, err)
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	ok(w.t, err)
	m := requestField.FindSubmatch(page)
	if res.StatusCode != 200 || m == nil {
		w.t.Fatalf("sign-in page: %d %s", res.StatusCode, page)
	}
	if csp := res.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "frame-ancestors 'none'") || res.Header.Get("X-Frame-Options") != "DENY" {
		w.t.Errorf("the page can be framed: %q", csp)
	}
	return string(m[1])
}

// submit answers the page and returns where the browser is sent.
func (w *world) submit(b *http.Client, f url.Values, header ...string) (int, url.Values) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), "POST", w.url+Prefix+"/login", strings.NewReader(f.Encode()))
	ok(w.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := b.Do(r)
	ok(w.t, err)
	defer res.Body.Close()
	to, err := url.Parse(res.Header.Get("Location"))
	ok(w.t, err)
	return res.StatusCode, to.Query()
}

// signIn does the browser's part and returns the code.
func (w *world) signIn(secret string) string {
	w.t.Helper()
	b := w.browser()
	id := w.open(b, authorizeForm())
	status, q := w.submit(b, form("request", id, "name", w.owner.Name, "password", secret, "answer", "allow"))
	if status != 303 || q.Get("state") != "xyz" || q.Get("code") == "" {
		w.t.Fatalf("sign-in ended with %d %v", status, q)
	}
	return q.Get("code")
}

func codeForm(code string, change ...string) url.Values {
	f := form("grant_type", "authorization_code", "client_id", DatabricksClient, "redirect_uri", back, "code", code, "code_verifier", verifier)
	for i := 0; i < len(change); i += 2 {
		f.Set(change[i], change[i+1])
	}
	return f
}

func codeFlow(t *testing.T, w *world) {
	for _, secret := range []string{password, w.pat} {
		status, m := w.post("/v1/token", codeForm(w.signIn(secret)))
		if c := w.given(status, m); c.Subject != w.owner.Name || c.Type != tarn.PrincipalUser || c.Client != DatabricksClient {
			t.Errorf("claims %+v", c)
		}
		if who, err := w.api(m["access_token"]); err != nil || !who.Admin {
			t.Errorf("at the API: %v %v", who, err)
		}
		if m["refresh_token"] == nil || m["scope"] != "all-apis offline_access" {
			t.Errorf("%v", m)
		}
	}
	for what, change := range map[string][]string{
		"verifier": {"code_verifier", verifier + "x"}, "no verifier": {"code_verifier", ""},
		"redirect": {"redirect_uri", "http://localhost:8021"}, "client": {"client_id", TarnClient}, "code": {"code", "x"},
	} {
		code := w.signIn(password)
		status, m := w.post("/v1/token", codeForm(code, change...))
		t.Log(what)
		w.refused(status, m, 400, "invalid_grant")
	}
	b := w.browser()
	id := w.open(b, authorizeForm())
	if status, q := w.submit(b, form("request", id, "answer", "deny")); status != 303 || q.Get("error") != "access_denied" || q.Get("state") != "xyz" {
		t.Errorf("refusing ended with %d %v", status, q)
	}
}

func codeOnce(t *testing.T, w *world) {
	code := w.signIn(password)
	status, first := w.post("/v1/token", codeForm(code))
	w.given(status, first)
	status, m := w.post("/v1/token", codeForm(code))
	w.refused(status, m, 400, "invalid_grant")
	// What the first use gave is over: one of the two was a thief.
	if _, err := w.api(first["access_token"]); tarn.KindOf(err) != tarn.KindDenied {
		t.Errorf("the first access token: %v", err)
	}
	status, m = w.post("/v1/token", form("grant_type", "refresh_token", "client_id", DatabricksClient, "refresh_token", first["refresh_token"].(string)))
	w.refused(status, m, 400, "invalid_grant")
}

func boundToBrowser(t *testing.T, w *world) {
	b := w.browser()
	id := w.open(b, authorizeForm())
	right := form("request", id, "name", w.owner.Name, "password", password, "answer", "allow")
	if status, _ := w.submit(w.browser(), right); status != 400 {
		t.Errorf("another browser: %d", status)
	}
	if status, _ := w.submit(b, right, "Origin", "https://evil.example.com"); status != 400 {
		t.Errorf("another page's form: %d", status)
	}
	if status, _ := w.submit(b, form("request", id, "name", w.owner.Name, "password", "wrong", "answer", "allow")); status != 401 {
		t.Errorf("wrong password: %d", status)
	}
	if status, q := w.submit(b, right, "Origin", w.url); status != 303 || q.Get("code") == "" {
		t.Errorf("the right one: %d", status)
	}
	if status, _ := w.submit(b, right); status != 400 {
		t.Errorf("the same sign-in again: %d", status)
	}
}

func authorizeRefuses(t *testing.T, w *world) {
	for what, change := range map[string][]string{
		"unknown client": {"client_id", "other"}, "foreign redirect": {"redirect_uri", "https://evil.example.com/"},
		"loopback look-alike": {"redirect_uri", "http://localhost.evil.example.com:8020"}, "no redirect": {"redirect_uri", ""},
		"no challenge": {"code_challenge", ""}, "plain challenge": {"code_challenge_method", "plain"},
		"implicit": {"response_type", "id_token token"}, "scope": {"scope", "openid"},
	} {
		res, err := w.browser().Get(w.url + Prefix + "/v1/authorize?" + authorizeForm(change...).Encode())
		ok(t, err)
		res.Body.Close()
		if res.StatusCode != 400 {
			t.Errorf("%s: %d", what, res.StatusCode)
		}
	}
	for _, uri := range []string{"http://localhost:8021", "http://127.0.0.1:9999", "http://localhost:8020/", "http://localhost:8020/callback"} {
		w.open(w.browser(), authorizeForm("redirect_uri", uri))
	}
}

func refreshForm(m map[string]any, change ...string) url.Values {
	f := form("grant_type", "refresh_token", "client_id", DatabricksClient, "refresh_token", m["refresh_token"].(string))
	for i := 0; i < len(change); i += 2 {
		f.Set(change[i], change[i+1])
	}
	return f
}

func refreshRotates(t *testing.T, w *world) {
	status, first := w.post("/v1/token", codeForm(w.signIn(password)))
	w.given(status, first)
	status, m := w.post("/v1/token", refreshForm(first, "client_id", TarnClient))
	w.refused(status, m, 400, "invalid_grant") // another client's is nobody's, and stays good
	status, second := w.post("/v1/token", refreshForm(first))
	w.given(status, second)
	if second["refresh_token"] == first["refresh_token"] {
		t.Fatal("the refresh token did not change")
	}
	status, third := w.post("/v1/token", refreshForm(second, "scope", "all-apis"))
	w.given(status, third)
	// The second is used up: whoever shows it copied it.
	status, m = w.post("/v1/token", refreshForm(second))
	w.refused(status, m, 400, "invalid_grant")
	if m["error_description"] != "Refresh token is invalid" {
		t.Errorf("the SDKs look for another text: %v", m)
	}
	status, m = w.post("/v1/token", refreshForm(third))
	w.refused(status, m, 400, "invalid_grant")
	for _, old := range []map[string]any{first, second, third} {
		if _, err := w.api(old["access_token"]); tarn.KindOf(err) != tarn.KindDenied {
			t.Errorf("an access token of the ended sign-in: %v", err)
		}
	}
}

func disabled(t *testing.T, w *world) {
	bob, err := w.ctl.Identity.CreatePrincipal(t.Context(), tarn.Principal{Name: "bob@example.com", Type: tarn.PrincipalUser})
	ok(t, err)
	ok(t, w.ctl.Identity.SetPassword(t.Context(), bob.ID, password))
	in := *w
	in.owner = bob
	status, m := in.post("/v1/token", codeForm(in.signIn(password)))
	w.given(status, m)
	_, err = w.ctl.Identity.UpdatePrincipal(t.Context(), bob.ID, func(p *tarn.Principal) error { p.Disabled = true; return nil })
	ok(t, err)
	if _, err := w.api(m["access_token"]); tarn.KindOf(err) != tarn.KindDenied {
		t.Errorf("at the API: %v", err)
	}
	if _, err := w.ctl.Identity.Verify(t.Context(), m["access_token"].(string)); tarn.KindOf(err) != tarn.KindDenied {
		t.Errorf("at the gateway: %v", err)
	}
	status, m = w.post("/v1/token", refreshForm(m))
	w.refused(status, m, 400, "invalid_grant")
	b := w.browser()
	if status, _ := w.submit(b, form("request", w.open(b, authorizeForm()), "name", bob.Name, "password", password)); status != 401 {
		t.Errorf("sign-in page: %d", status)
	}
	ok(t, w.ctl.Identity.DeletePrincipal(t.Context(), bob.ID))
}

func deviceFlow(t *testing.T, w *world) {
	begin := func() (poll url.Values, userCode string) {
		status, m := w.post("/v1/device", form("client_id", TarnClient, "scope", "all-apis offline_access"))
		if status != 200 || m["user_code"] == nil || m["verification_uri"] != w.url+"/oidc/device" {
			t.Fatalf("%d %v", status, m)
		}
		return form("grant_type", string(oidc.GrantTypeDeviceCode), "client_id", TarnClient, "device_code", m["device_code"].(string)), m["user_code"].(string)
	}
	answerIt := func(b *http.Client, code, said string) int {
		res, err := b.Get(w.url + Prefix + "/device")
		ok(t, err)
		page, err := io.ReadAll(res.Body)
		ok(t, err)
		res.Body.Close()
		id := requestField.FindSubmatch(page)
		res, err = b.PostForm(w.url+Prefix+"/device", form("request", string(id[1]), "user_code", code, "name", w.owner.Name, "password", password, "answer", said))
		ok(t, err)
		res.Body.Close()
		return res.StatusCode
	}
	poll, code := begin()
	status, m := w.post("/v1/token", poll)
	w.refused(status, m, 400, "authorization_pending")
	status, m = w.post("/v1/token", poll)
	w.refused(status, m, 400, "slow_down")
	if status := answerIt(w.browser(), "XXXX-XXXX", "allow"); status != 400 {
		t.Errorf("wrong code: %d", status)
	}
	if status := answerIt(w.browser(), strings.ToLower(strings.ReplaceAll(code, "-", " ")), "allow"); status != 200 {
		t.Errorf("right code: %d", status)
	}
	status, m = w.post("/v1/token", poll)
	if c := w.given(status, m); c.Subject != w.owner.Name || c.Client != TarnClient {
		t.Errorf("claims %+v", c)
	}
	status, m = w.post("/v1/token", poll)
	w.refused(status, m, 400, "invalid_grant")

	poll, code = begin()
	if status := answerIt(w.browser(), code, "deny"); status != 200 {
		t.Errorf("deny: %d", status)
	}
	status, m = w.post("/v1/token", poll)
	w.refused(status, m, 400, "access_denied")
	// A form without the page's cookie is another page's.
	res, err := http.PostForm(w.url+Prefix+"/device", form("user_code", code, "name", w.owner.Name, "password", password))
	ok(t, err)
	res.Body.Close()
	if res.StatusCode != 400 {
		t.Errorf("without the cookie: %d", res.StatusCode)
	}
}

// idp is another issuer.
type idp struct {
	url string
	key *ecdsa.PrivateKey
	kid string
}

func (w *world) idp() *idp {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(w.t, err)
	i := &idp{key: key, kid: "one"}
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			_ = json.NewEncoder(rw).Encode(map[string]string{"issuer": i.url, "jwks_uri": i.url + "/keys"})
		case "/keys":
			_ = json.NewEncoder(rw).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &i.key.PublicKey, KeyID: i.kid, Algorithm: "ES256", Use: "sig"}}})
		}
	}))
	w.t.Cleanup(srv.Close)
	i.url = srv.URL
	return i
}

func (i *idp) token(t *testing.T, subject, audience string, change func(map[string]any)) string {
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: i.key, KeyID: i.kid}}, nil)
	ok(t, err)
	c := map[string]any{"iss": i.url, "sub": subject, "aud": audience, "exp": time.Now().Add(time.Minute).Unix(), "iat": time.Now().Unix()}
	if change != nil {
		change(c)
	}
	raw, err := jwt.Signed(s).Claims(c).Serialize()
	ok(t, err)
	return raw
}

func exchangeForm(raw string, more ...string) url.Values {
	f := form("grant_type", string(oidc.GrantTypeTokenExchange), "subject_token", raw, "subject_token_type", string(oidc.JWTTokenType), "scope", "all-apis")
	for i := 0; i < len(more); i += 2 {
		f.Set(more[i], more[i+1])
	}
	return f
}

func exchanges(t *testing.T, w *world) {
	i, stranger := w.idp(), w.idp()
	p, _ := w.service()
	const repo = "repo:acme/shop:ref:refs/heads/main"
	_, err := w.ctl.Identity.CreatePolicy(t.Context(), tarn.FederationPolicy{Principal: p.ID, Issuer: i.url, Audiences: []string{"tarn"}, Subject: repo})
	ok(t, err)
	if c := w.given(w.post("/v1/token", exchangeForm(i.token(t, repo, "tarn", nil), "client_id", p.Name))); c.Subject != p.Name || c.Type != tarn.PrincipalService {
		t.Errorf("claims %+v", c)
	}
	stranger.kid = "two"
	forged := *stranger
	forged.url = i.url
	for what, f := range map[string]url.Values{
		"no client":      exchangeForm(i.token(t, repo, "tarn", nil)),
		"other client":   exchangeForm(i.token(t, repo, "tarn", nil), "client_id", "nobody"),
		"other subject":  exchangeForm(i.token(t, repo+"x", "tarn", nil), "client_id", p.Name),
		"other audience": exchangeForm(i.token(t, repo, "other", nil), "client_id", p.Name),
		"other issuer":   exchangeForm(stranger.token(t, repo, "tarn", nil), "client_id", p.Name),
		"forged":         exchangeForm(forged.token(t, repo, "tarn", nil), "client_id", p.Name),
		"expired":        exchangeForm(i.token(t, repo, "tarn", func(c map[string]any) { c["exp"] = time.Now().Add(-time.Minute).Unix() }), "client_id", p.Name),
		"without expiry": exchangeForm(i.token(t, repo, "tarn", func(c map[string]any) { delete(c, "exp") }), "client_id", p.Name),
		"not yet":        exchangeForm(i.token(t, repo, "tarn", func(c map[string]any) { c["nbf"] = time.Now().Add(time.Hour).Unix() }), "client_id", p.Name),
		"junk":           exchangeForm("a.b.c", "client_id", p.Name),
	} {
		fresh := *w // wrong guesses of one client must not hide behind each other
		fresh.fresh()
		status, m := fresh.post("/v1/token", f)
		if status != 400 || m["error"] != "invalid_grant" {
			t.Errorf("%s: %d %v", what, status, m)
		}
	}
	// For everybody: the token says by a claim who it is.
	_, err = w.ctl.Identity.CreatePolicy(t.Context(), tarn.FederationPolicy{Issuer: stranger.url, SubjectClaim: "email"})
	ok(t, err)
	as := func(name string) string {
		return stranger.token(t, "opaque", "acc", func(c map[string]any) { c["email"] = name })
	}
	if c := w.given(w.post("/v1/token", exchangeForm(as(w.owner.Name)))); c.Subject != w.owner.Name || c.Type != tarn.PrincipalUser {
		t.Errorf("claims %+v", c)
	}
	for _, name := range []string{"stranger@example.com", tarn.AdminsGroup} {
		status, m := w.post("/v1/token", exchangeForm(as(name)))
		w.refused(status, m, 400, "invalid_grant")
	}
}

// fresh gives the world a server without memory of wrong guesses.
func (w *world) fresh() {
	srv := httptest.NewServer(New(Config{DB: w.db, Identity: w.ctl.Identity, Signer: w.signer, PublicURL: w.url, AccountID: "acc"}))
	w.t.Cleanup(srv.Close)
	w.url = srv.URL
}

func revokes(t *testing.T, w *world) {
	status, m := w.post("/v1/token", codeForm(w.signIn(password)))
	w.given(status, m)
	access := m["access_token"].(string)
	p, secret := w.service()
	status, own := w.post("/v1/token", form("grant_type", "client_credentials"), p.Name, secret)
	w.given(status, own)
	look := func(raw string) map[string]any {
		status, m := w.post("/v1/introspect", form("token", raw), p.Name, secret)
		if status != 200 {
			t.Fatalf("introspect: %d %v", status, m)
		}
		return m
	}
	if m := look(own["access_token"].(string)); m["active"] != true || m["sub"] != p.Name || m["scope"] != "all-apis" {
		t.Errorf("own token: %v", m)
	}
	if m := look(access); m["active"] != false { // somebody else's
		t.Errorf("another's token: %v", m)
	}
	if status, _ := w.post("/v1/introspect", form("token", access, "client_id", TarnClient)); status != 400 {
		t.Errorf("a public client introspects: %d", status)
	}
	for _, raw := range []string{access, "junk"} { // another client's token stays; the answer tells nothing
		if status, _ := w.post("/v1/revoke", form("token", raw, "client_id", TarnClient)); status != 200 {
			t.Errorf("revoke: %d", status)
		}
	}
	if _, err := w.api(access); err != nil {
		t.Fatal(err)
	}
	if status, _ := w.post("/v1/revoke", form("token", access, "client_id", DatabricksClient)); status != 200 {
		t.Errorf("revoke: %d", status)
	}
	if _, err := w.api(access); tarn.KindOf(err) != tarn.KindDenied {
		t.Errorf("a revoked token: %v", err)
	}
	status, next := w.post("/v1/token", refreshForm(m)) // the sign-in goes on
	w.given(status, next)
	if status, _ := w.post("/v1/revoke", form("token", next["refresh_token"].(string), "client_id", DatabricksClient)); status != 200 {
		t.Errorf("revoke: %d", status)
	}
	if _, err := w.api(next["access_token"]); tarn.KindOf(err) != tarn.KindDenied {
		t.Errorf("a token of a revoked sign-in: %v", err)
	}
	status, m = w.post("/v1/token", refreshForm(next))
	w.refused(status, m, 400, "invalid_grant")
}

func guessing(t *testing.T, w *world) {
	in := *w
	in.fresh()
	p, secret := w.service()
	f := form("grant_type", "client_credentials")
	for range 5 {
		status, m := in.post("/v1/token", f, p.Name, "wrong")
		w.refused(status, m, 401, "invalid_client")
	}
	status, m := in.post("/v1/token", f, p.Name, secret) // even the right one waits
	w.refused(status, m, 429, "slow_down")
	other, theirs := w.service()
	w.given(in.post("/v1/token", f, other.Name, theirs)) // others do not
}

// rows is everything in the control database as text.
func (w *world) rows() string {
	ctx := w.t.Context()
	c, err := pgx.Connect(ctx, w.conn)
	ok(w.t, err)
	defer c.Close(context.WithoutCancel(ctx))
	named, err := c.Query(ctx, `SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`)
	ok(w.t, err)
	tables, err := pgx.CollectRows(named, pgx.RowTo[string])
	ok(w.t, err)
	var all strings.Builder
	for _, t := range tables {
		var text string
		ok(w.t, c.QueryRow(ctx, `SELECT coalesce(string_agg(r::text, ' '), '') FROM `+pgx.Identifier{t}.Sanitize()+` r`).Scan(&text))
		all.WriteString(text)
	}
	if !strings.Contains(all.String(), w.owner.Name) {
		w.t.Fatal("the rows were not read")
	}
	return all.String()
}

// hashed looks for every secret of this test in every row.
func hashed(t *testing.T, w *world) {
	code := w.signIn(password)
	status, m := w.post("/v1/token", codeForm(w.signIn(password)))
	w.given(status, m)
	_, secret := w.service()
	_, dev := w.post("/v1/device", form("client_id", TarnClient, "scope", "all-apis"))
	rows := w.rows()
	for what, s := range map[string]string{
		"code": code, "refresh token": m["refresh_token"].(string), "access token": m["access_token"].(string),
		"secret": secret, "password": password, "personal token": w.pat, "device code": dev["device_code"].(string),
	} {
		if strings.Contains(rows, s) || strings.Contains(rows, strings.TrimPrefix(s, "dose")) {
			t.Errorf("the control database holds the %s in clear", what)
		}
	}
}

// auditedOnce: a token that is given is one row, refusals are bounded, and a poll of
// a device is neither.
func auditedOnce(t *testing.T, w *world) {
	events := func() (out []catalog.Event) {
		t.Helper()
		rows, err := controldb.ClaimSystemRows(t.Context(), w.db, "access.audit", int64(len(w.rows())), 100_000)
		ok(t, err)
		for _, r := range rows {
			var e catalog.Event
			ok(t, json.Unmarshal(r, &e))
			out = append(out, e)
		}
		return out
	}
	actions := map[string]int{}
	for _, e := range events() {
		actions[e.Service+"."+e.Action+" "+strings.Fields(e.Error + " -")[0]]++
		if strings.Contains(e.Error, "authorization_pending") || e.SourceIP == "" || e.Object == "" {
			t.Errorf("%+v", e)
		}
	}
	for _, want := range []string{"oauth.grantToken -", "oauth.grantToken invalid_client:", "oauth.revokeToken -", "oauth.signIn -"} {
		if actions[want] == 0 {
			t.Errorf("no %q in %v", want, actions)
		}
	}
	p, secret := w.service()
	w.given(w.post("/v1/token", form("grant_type", "client_credentials"), p.Name, secret))
	if got := events(); len(got) != 1 || got[0].Principal != p.Name || got[0].Status != 200 || got[0].Detail != "grant_type=client_credentials client="+p.Name {
		t.Errorf("%+v", got)
	}
}
