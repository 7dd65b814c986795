package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/control"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/feed"
	"github.com/tarndb/tarn/internal/node"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
	"github.com/tarndb/tarn/internal/syncedtable"
	"github.com/tarndb/tarn/internal/token"
)

// people are who the matrix asks as, and their bearer tokens.
type people struct {
	ctl     *control.Control
	db      *controldb.DB
	config  Config
	bearers map[string]string
}

// private is the project that all of it is about; its name stands nowhere else.
const private = "quiet-harbour"

func newPeople(t *testing.T) *people {
	t.Helper()
	ctx := t.Context()
	_, conn := pgtest.Start(t, pgtest.Newest(t))
	db, err := controldb.Open(ctx, conn)
	must(t, err)
	t.Cleanup(db.Close)
	signer := token.NewSigner(db, "http://h/oidc", "tarn", token.Options{})
	dead := node.Dial(filepath.Join(t.TempDir(), "no.sock")) // a node that does not answer
	t.Cleanup(dead.Close)
	ctl := control.New(control.Config{DB: db, Node: dead, Signer: signer, Verifier: signer, Owner: "admin@example.com"})
	b, err := ctl.Bootstrap(ctx)
	must(t, err)
	p := &people{ctl: ctl, db: db, bearers: map[string]string{"admin": b.Token.Reveal(), "anonymous": ""}}
	made := map[string]tarn.Principal{}
	for _, name := range []string{"owner", "creator", "user", "manager", "member", "grandchild", "other"} {
		made[name], err = ctl.Identity.CreatePrincipal(ctx, tarn.Principal{Name: name + "@example.com", Type: tarn.PrincipalUser})
		must(t, err)
		_, secret, err := ctl.CreateToken(ctx, made[name], "", time.Hour)
		must(t, err)
		p.bearers[name] = secret.Reveal()
	}
	robot, err := ctl.Identity.CreatePrincipal(ctx, tarn.Principal{Type: tarn.PrincipalService})
	must(t, err)
	raw, err := signer.Sign(ctx, token.Claims{Subject: robot.Name, Type: robot.Type, Scopes: []string{token.ScopeAll}})
	must(t, err)
	p.bearers["robot"] = raw.Reveal()
	team, err := ctl.Identity.CreatePrincipal(ctx, tarn.Principal{Name: "team", Type: tarn.PrincipalGroup})
	must(t, err)
	inner, err := ctl.Identity.CreatePrincipal(ctx, tarn.Principal{Name: "inner", Type: tarn.PrincipalGroup})
	must(t, err)
	must(t, ctl.Identity.ChangeMembers(ctx, team.ID, control.Membership{Add: []string{made["member"].ID, inner.ID}}))
	must(t, ctl.Identity.ChangeMembers(ctx, inner.ID, control.Membership{Add: []string{made["grandchild"].ID}}))

	_, err = controldb.InsertProject(ctx, db, tarn.Project{ProjectSpec: tarn.ProjectSpec{Name: tarn.ProjectName{Project: private}, DisplayName: "x", PGVersion: 18}, UID: "uid-of-it", Owner: made["owner"].Name})
	must(t, err)
	must(t, ctl.Access.SetPermissions(ctx, made["owner"], tarn.ProjectName{Project: private}, []control.Grant{
		{Name: made["creator"].Name, Type: tarn.PrincipalUser, Level: tarn.CanCreate},
		{Name: made["user"].Name, Type: tarn.PrincipalUser, Level: tarn.CanUse},
		{Name: robot.Name, Type: tarn.PrincipalService, Level: tarn.CanUse},
		{Name: made["manager"].Name, Type: tarn.PrincipalUser, Level: tarn.CanManage},
		{Name: "team", Type: tarn.PrincipalGroup, Level: tarn.CanUse},
	}, true))
	cat := catalog.New(db)
	must(t, cat.EnsureDefault(ctx, "file://"+t.TempDir()))
	p.config = Config{
		Control: ctl, Catalog: cat, Workspace: ctl.Workspace(),
		Feeds: feed.New(feed.Config{DB: db, Catalog: cat, Computes: ctl}), SyncedTables: syncedtable.New(syncedtable.Config{DB: db, Catalog: cat, Computes: ctl}),
	}
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// levelOf is what each of the people may do with the project.
var levelOf = map[string]tarn.Level{
	"admin": tarn.CanManage, "owner": tarn.CanManage, "manager": tarn.CanManage, "creator": tarn.CanCreate,
	"user": tarn.CanUse, "robot": tarn.CanUse, "member": tarn.CanUse, "grandchild": tarn.CanUse, "other": "", "anonymous": "",
}

var wildcard = regexp.MustCompile(`\{([a-z]+(\.\.\.)?|\$)\}`)

// target is a request that meets a route.
func target(rt route) (method, path string) {
	method, path, ok := strings.Cut(rt.pattern, " ")
	if !ok {
		method, path = http.MethodGet, rt.pattern
	}
	return method, wildcard.ReplaceAllStringFunc(path, func(w string) string {
		switch w {
		case "{project}", "{object}":
			return private
		case "{$}":
			return ""
		case "{operation...}":
			return "projects/" + private + "/operations/none"
		}
		return "x"
	})
}

func TestAccess(t *testing.T) {
	p := newPeople(t)
	t.Run("WhoMayUseEveryRoute", func(t *testing.T) { whoMayUseEveryRoute(t, p) })
	t.Run("ListsTellOnlyWhatOneMaySee", func(t *testing.T) { listsTellOnlyWhatOneMaySee(t, p) })
	t.Run("EveryPrivilegeAtEveryDoor", func(t *testing.T) { everyPrivilegeAtEveryDoor(t, p) })
	t.Run("CatalogObjects", func(t *testing.T) { catalogObjects(t, p) })
	t.Run("PipelineOfFeed", func(t *testing.T) { pipelineOfFeed(t, p) })
	t.Run("AuditsWhatIsDone", func(t *testing.T) { auditsWhatIsDone(t, p) })
	t.Run("PermissionsAndSCIM", func(t *testing.T) { permissionsAndSCIM(t, p) })
}

// The whole table of routes against everybody. Only who may ask is asked:
// what a route then does is its own tests'.
func whoMayUseEveryRoute(t *testing.T, p *people) {
	d := &door{
		authenticate: p.ctl.Authenticate, access: p.ctl.Access,
		projectOf: func(context.Context, access, *query) (tarn.ProjectName, error) {
			return tarn.ProjectName{Project: private}, nil
		},
	}
	mux, rows := http.NewServeMux(), routes(p.config)
	for _, rt := range rows {
		mux.HandleFunc(rt.pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Route", rt.pattern)
			q := &query{r: r, access: d.access}
			err := d.identify(rt.access, q)
			if err == nil {
				err = d.authorize(r.Context(), rt, q)
			}
			if err != nil {
				w.WriteHeader(failureOf(err).status)
			}
		})
	}
	closed := 0
	for _, rt := range rows {
		method, path := target(rt)
		for who, bearer := range p.bearers {
			r := httptest.NewRequest(method, path, nil)
			if bearer != "" {
				r.Header.Set("Authorization", "Bearer "+bearer)
			}
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, r)
			if got := w.Header().Get("Route"); got != rt.pattern {
				t.Fatalf("%s %s met route %q, want %q", method, path, got, rt.pattern)
			}
			want := http.StatusOK
			switch {
			case rt.access == public:
			case who == "anonymous":
				want = http.StatusUnauthorized
			case rt.access == adminOnly && who != "admin", rt.level() != "" && !levelOf[who].Covers(rt.level()):
				want = http.StatusForbidden
				closed++
			}
			if w.Code != want {
				t.Errorf("%s as %s: %d, want %d", rt.pattern, who, w.Code, want)
			}
		}
	}
	if closed < 100 {
		t.Errorf("only %d of the requests were forbidden: the matrix does not see the routes", closed)
	}
}

// What no path names, an answer must keep to itself: routes that only want a
// token tell nothing of a project that who asks may not see.
func listsTellOnlyWhatOneMaySee(t *testing.T, p *people) {
	h := New(p.config)
	listed := 0
	for _, rt := range routes(p.config) {
		if rt.access != signedIn || rt.level() != "" || !strings.HasPrefix(rt.pattern, "GET ") {
			continue
		}
		_, path := target(rt)
		for _, who := range []string{"other", "creator"} {
			w := request(h, "GET", strings.ReplaceAll(path, private, "x"), "", p.bearers[who])
			told := strings.Contains(w.Body.String(), private)
			if told && !levelOf[who].Covers(tarn.CanCreate) {
				t.Errorf("%s tells %s of the project:\n%s", rt.pattern, who, w.Body)
			}
			if told {
				listed++
			}
		}
	}
	if listed < 2 {
		t.Errorf("only %d answers named the project: the test does not see the lists", listed)
	}
	for who, level := range levelOf { // by what stands in a query or in a body
		if who == "anonymous" {
			continue
		}
		for _, c := range []struct {
			method, path, body string
			want               tarn.Level
		}{
			{"GET", "/api/2.0/database/instances:findByUid?uid=uid-of-it", "", tarn.CanCreate},
			{"GET", "/api/2.0/postgres/projects/" + private + "/operations/none", "", tarn.CanCreate},
		} {
			w := request(h, c.method, c.path, c.body, p.bearers[who])
			if denied := w.Code == http.StatusForbidden; denied == level.Covers(c.want) {
				t.Errorf("%s %s as %s: %d", c.method, c.path, who, w.Code)
			}
		}
	}
}

func request(h http.Handler, method, path, body, bearer string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func permissionsAndSCIM(t *testing.T, p *people) {
	h := New(p.config)
	call := func(who, method, path, body string, status int) map[string]any {
		t.Helper()
		w := request(h, method, path, body, p.bearers[who])
		var m map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil || w.Code != status {
			t.Fatalf("%s %s as %s: %d %s, want %d", method, path, who, w.Code, w.Body, status)
		}
		return m
	}
	at := "/api/2.0/permissions/database-projects/" + private
	// Whoever asks keeps what it needs to undo it.
	m := call("manager", "PUT", at, `{"access_control_list":[{"user_name":"other@example.com","permission_level":"CAN_USE"}]}`, 200)
	text := fmt.Sprint(m)
	for _, want := range []string{"other@example.com", "manager@example.com", "owner@example.com", "admins", "/database-projects/" + private} {
		if !strings.Contains(text, want) {
			t.Errorf("permissions lack %s: %s", want, text)
		}
	}
	if strings.Contains(text, "team") {
		t.Errorf("a replaced permission is still there: %s", text)
	}
	call("member", "GET", at, "", 403)
	call("manager", "PATCH", "/api/2.0/permissions/database-instances/"+private, `{"access_control_list":[{"group_name":"users","permission_level":"CAN_USE"}]}`, 200)
	call("member", "GET", at, "", 200) // everybody is in group users
	for _, bad := range []string{`{"access_control_list":[{"user_name":"other@example.com","permission_level":"CAN_RUN"}]}`,
		`{"access_control_list":[{"permission_level":"CAN_USE"}]}`, `{"access_control_list":[{"user_name":"team","permission_level":"CAN_USE"}]}`} {
		call("manager", "PATCH", at, bad, 400)
	}
	call("manager", "PATCH", at, `{"access_control_list":[{"user_name":"nobody@example.com","permission_level":"CAN_USE"}]}`, 404)

	const users, groups = scimPrefix + "Users", scimPrefix + "Groups"
	u := call("admin", "POST", users, `{"userName":"new@example.com","displayName":"New","entitlements":[{"value":"workspace-access"}]}`, 200)
	id := u["id"].(string)
	if e := call("admin", "POST", users, `{"userName":"new@example.com"}`, 409); e["scimType"] != "uniqueness" || e["detail"] == "" || e["status"] != "409" {
		t.Errorf("error %v", e)
	}
	if l := call("other", "GET", users+`?filter=userName+eq+%22new@example.com%22+and+active+eq+true&attributes=id,userName`, "", 200); l["totalResults"] != 1.0 || strings.Contains(fmt.Sprint(l), "New") {
		t.Errorf("filtered %v", l)
	}
	if e := call("other", "GET", users+"?filter=age+gt+3", "", 400); e["scimType"] != "invalidFilter" {
		t.Errorf("error %v", e)
	}
	if l := call("other", "GET", users+"?startIndex=3&count=2&sortBy=userName&sortOrder=descending", "", 200); l["itemsPerPage"] != 2.0 || l["startIndex"] != 3.0 || l["totalResults"] != 9.0 {
		t.Errorf("page %v", l)
	}
	g := call("admin", "POST", groups, `{"displayName":"analysts","members":[{"value":"`+id+`"}]}`, 200)
	gid := g["id"].(string)
	if me := call("admin", "GET", users+"/"+id, "", 200); !strings.Contains(fmt.Sprint(me["groups"]), "analysts") {
		t.Errorf("groups of a member: %v", me)
	}
	patch := func(path, ops string) map[string]any {
		return call("admin", "PATCH", path, `{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":`+ops+`}`, 200)
	}
	if m := patch(groups+"/"+gid, `[{"op":"remove","path":"members[value eq \"`+id+`\"]"}]`); m["members"] != nil {
		t.Errorf("after removal: %v", m)
	}
	if m := patch(groups+"/"+gid, `[{"op":"add","value":{"members":[{"value":"`+id+`"}]}}]`); !strings.Contains(fmt.Sprint(m["members"]), "New") {
		t.Errorf("after addition: %v", m)
	}
	if m := patch(users+"/"+id, `[{"op":"replace","path":"active","value":"False"},{"op":"add","path":"entitlements","value":[{"value":"allow-cluster-create"}]},{"op":"replace","value":{"displayName":"Newer"}}]`); m["active"] != false || m["displayName"] != "Newer" || len(m["entitlements"].([]any)) != 2 {
		t.Errorf("after changes: %v", m)
	}
	call("admin", "PATCH", users+"/"+id, `{"Operations":[{"op":"replace","path":"userName","value":"else@example.com"}]}`, 400)
	call("admin", "PATCH", groups+"/1", `{"Operations":[{"op":"replace","path":"members","value":[]}]}`, 400) // no admin would be left
	call("other", "PATCH", users+"/"+id, `{"Operations":[{"op":"replace","path":"active","value":true}]}`, 403)
	call("admin", "DELETE", users+"/"+id, "", 200)
	call("admin", "GET", users+"/"+id, "", 404)
	call("admin", "DELETE", users+"/"+fmt.Sprint(1), "", 404) // a group is no user
	if me := call("robot", "GET", scimPrefix+"Me", "", 200); me["applicationId"] == nil {
		t.Errorf("a service principal is %v", me)
	}
	sp := call("admin", "POST", scimPrefix+"ServicePrincipals", `{"displayName":"nightly"}`, 200)
	secrets := "/api/2.0/accounts/servicePrincipals/" + sp["id"].(string) + "/credentials/secrets"
	s := call("admin", "POST", secrets, `{"lifetime":"3600s"}`, 200)
	if s["secret"] == nil || s["expire_time"] == nil {
		t.Errorf("secret %v", s)
	}
	if l := call("admin", "GET", secrets, "", 200); len(l["secrets"].([]any)) != 1 || strings.Contains(fmt.Sprint(l), s["secret"].(string)) {
		t.Errorf("secrets %v", l)
	}
	call("admin", "DELETE", secrets+"/"+s["id"].(string), "", 200)
	policies := "/api/2.0/accounts/any/servicePrincipals/" + sp["id"].(string) + "/federationPolicies"
	call("admin", "POST", policies+"?policy_id=ci", `{"oidc_policy":{"issuer":"https://token.actions.example.com","audiences":["a"],"subject":"repo:x"}}`, 200)
	call("admin", "POST", policies, `{"oidc_policy":{"issuer":"http://token.actions.example.com","subject":"repo:x"}}`, 400)
	if m := call("admin", "GET", policies+"/ci", "", 200); m["policy_id"] != "ci" {
		t.Errorf("policy %v", m)
	}
}
