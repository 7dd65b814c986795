package api

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/catalog"
)

const unityPath = "/api/2.1/unity-catalog/"

// catalogDoors are the ways in that catalog objects have, each with what lets
// one through beside USE CATALOG and USE SCHEMA: any of these privileges, on the
// object named or on what holds it.
func catalogDoors() []struct {
	request string // method, path, body
	on      tarn.Securable
	any     []tarn.Privilege
} {
	const (
		sel, mod, man = tarn.PrivilegeSelect, tarn.PrivilegeModify, tarn.PrivilegeManage
		tab, sch, cat = tarn.PrivilegeCreateTable, tarn.PrivilegeCreateSchema, tarn.PrivilegeCreateCatalog
	)
	var (
		meta   = tarn.Securable{}
		c      = tarn.CatalogSecurable("deep")
		s      = tarn.SchemaSecurable("deep", "gold")
		t      = tarn.TableName{Catalog: "deep", Schema: "gold", Table: "t"}.Securable()
		see    = []tarn.Privilege{sel, mod, man}
		always = tarn.Privileges()
	)
	return []struct {
		request string
		on      tarn.Securable
		any     []tarn.Privilege
	}{
		{"POST " + unityPath + `catalogs {"name":"new"}`, meta, []tarn.Privilege{cat}},
		{"GET " + unityPath + "catalogs/deep", c, always},
		{"PATCH " + unityPath + `catalogs/deep {"comment":"x"}`, c, []tarn.Privilege{man}},
		{"DELETE " + unityPath + "catalogs/deep", c, []tarn.Privilege{man}}, // refused then: it is not empty
		{"GET " + unityPath + "schemas?catalog_name=deep", c, always},
		{"POST " + unityPath + `schemas {"name":"new","catalog_name":"deep"}`, c, []tarn.Privilege{sch}},
		{"GET " + unityPath + "schemas/deep.gold", s, always},
		{"PATCH " + unityPath + `schemas/deep.gold {"comment":"x"}`, s, []tarn.Privilege{man}},
		{"DELETE " + unityPath + "schemas/deep.gold", s, []tarn.Privilege{man}},
		{"GET " + unityPath + "tables?catalog_name=deep&schema_name=gold", c, always},
		{"POST " + unityPath + `tables {"name":"new","catalog_name":"deep","schema_name":"gold","table_type":"MANAGED","data_source_format":"DELTA"}`, s, []tarn.Privilege{tab}},
		{"POST " + unityPath + `tables {"name":"new","catalog_name":"deep","schema_name":"fresh","table_type":"MANAGED","data_source_format":"DELTA"}`, c, []tarn.Privilege{sch}},
		{"GET " + unityPath + "tables/deep.gold.t", t, see},
		{"GET " + unityPath + "tables/deep.gold.t/exists", t, see},
		{"PATCH " + unityPath + `tables/deep.gold.t {"comment":"x"}`, t, []tarn.Privilege{man}},
		{"DELETE " + unityPath + "tables/deep.gold.t", t, []tarn.Privilege{man}},
		{"GET " + unityPath + "permissions/table/deep.gold.t?principal=admin@example.com", t, []tarn.Privilege{man}},
		{"GET " + unityPath + "effective-permissions/TABLE/deep.gold.t?principal=admin@example.com", t, []tarn.Privilege{man}},
		{"PATCH " + unityPath + `permissions/schema/deep.gold {"changes":[]}`, s, []tarn.Privilege{man}},
		{"PATCH " + unityPath + `permissions/catalog/deep {"changes":[]}`, c, []tarn.Privilege{man}},
		{"PATCH " + unityPath + `permissions/table/deep.gold.t {"changes":[]}`, t, []tarn.Privilege{man}},
		{"PATCH " + unityPath + `permissions/metastore/x {"changes":[]}`, meta, nil},
		{"GET /api/2.0/tarn/tables/deep.gold.t/head", t, []tarn.Privilege{sel}},
		{"GET /api/2.0/tarn/tables/deep.gold.t/count", t, []tarn.Privilege{sel}},
		{"GET /api/2.0/tarn/tables/deep.gold.t/history", t, []tarn.Privilege{sel}},
	}
}

// Every privilege, on every object it fits, at every door: with USE CATALOG and
// USE SCHEMA it lets through where it should and nowhere else; without them,
// nothing does.
func everyPrivilegeAtEveryDoor(t *testing.T, p *people) {
	ctx, h, cat := t.Context(), New(p.config), p.config.Catalog
	admin, who := tarn.Principal{Name: "admin@example.com", Admin: true}, "robot"
	robot, err := p.ctl.Authenticate(ctx, p.bearers[who])
	must(t, err)
	table := tarn.TableName{Catalog: "deep", Schema: "gold", Table: "t"}
	_, err = cat.CreateCatalog(ctx, admin, tarn.CatalogEntry{ObjectEntry: tarn.ObjectEntry{Name: "deep"}})
	must(t, err)
	ensure := func() { // what a door that let through took away or made
		_ = cat.Objects().DeleteCatalog(ctx, "new", catalog.WithEverything)
		_ = cat.Objects().DeleteSchema(ctx, "deep", "new", catalog.WithEverything)
		_ = cat.Objects().DeleteSchema(ctx, "deep", "fresh", catalog.WithEverything)
		_ = cat.DropTable(ctx, admin, tarn.TableName{Catalog: "deep", Schema: "gold", Table: "new"})
		_, _ = cat.CreateTable(ctx, admin, table, "", "")
	}
	ensure()
	grant := func(on tarn.Securable, add []tarn.Privilege, remove []tarn.Privilege) {
		t.Helper()
		must(t, cat.Grants().Change(ctx, admin, on, []catalog.GrantChange{{Principal: robot.Name, Add: add, Remove: remove}}))
	}
	ask := func(what string) (int, string) {
		parts := strings.SplitN(what, " ", 3)
		parts = append(parts, "")
		w := request(h, parts[0], parts[1], parts[2], p.bearers[who])
		return w.Code, w.Body.String()
	}
	uses := []tarn.Privilege{tarn.PrivilegeUseCatalog, tarn.PrivilegeUseSchema}
	levels := []tarn.Securable{{}, tarn.CatalogSecurable("deep"), tarn.SchemaSecurable("deep", "gold"), table.Securable()}
	through, refused := 0, 0
	for _, door := range catalogDoors() {
		if code, body := ask(door.request); code != http.StatusForbidden {
			t.Errorf("%s without any grant: %d %s", door.request, code, body)
		}
		for depth, level := range levels {
			for _, priv := range tarn.Privileges() {
				if !priv.On(level.Type()) || slices.Contains(uses, priv) {
					continue
				}
				reaches := depth <= slices.Index(levels, door.on) // it is on the object, or on what holds it
				lets := reaches && (slices.Contains(door.any, priv) || priv == tarn.PrivilegeAll && slices.ContainsFunc(door.any, func(a tarn.Privilege) bool {
					return a != tarn.PrivilegeManage && a != tarn.PrivilegeCreateCatalog
				}))
				lets = lets || len(door.any) == len(tarn.Privileges()) // to see a catalog or schema, USE is enough
				grant(level, []tarn.Privilege{priv}, nil)
				// What needs no USE: the metastore's doors, seeing and managing a
				// catalog; and ALL PRIVILEGES on the catalog have it.
				needsUse := door.on.Type() != tarn.SecurableMetastore && (door.on.Type() != tarn.SecurableCatalog || priv == tarn.PrivilegeCreateSchema) &&
					(priv != tarn.PrivilegeAll || level.Type() != tarn.SecurableCatalog)
				if lets && needsUse {
					code, body := ask(door.request)
					if code != http.StatusForbidden || !strings.Contains(body, "lacks USE CATALOG on catalog deep") || !strings.Contains(body, "tarn grant use_catalog deep") {
						t.Errorf("%s with %s on %s and no USE: %d %s", door.request, priv, level, code, body)
					}
				}
				grant(levels[1], uses, nil)
				code, body := ask(door.request)
				if got := code != http.StatusForbidden; got != lets {
					t.Errorf("%s with %s on %s: %d, want let through = %v: %s", door.request, priv, level, code, lets, body)
				}
				if lets {
					through++
					ensure()
				} else {
					refused++
				}
				grant(levels[1], nil, uses)
				grant(level, nil, []tarn.Privilege{priv})
			}
		}
	}
	if through < 100 || refused < 200 {
		t.Errorf("%d let through and %d refused: the matrix does not see the doors", through, refused)
	}
	must(t, cat.Objects().DeleteCatalog(ctx, "deep", catalog.WithEverything))
}

// One life of catalog objects, with groups, ownership, pages and refusals.
func catalogObjects(t *testing.T, p *people) {
	h := New(p.config)
	call := func(who, method, path, body string, status int) map[string]any {
		t.Helper()
		w := request(h, method, unityPath+path, body, p.bearers[who])
		if w.Code != status {
			t.Fatalf("%s %s %s as %s: %d, want %d: %s", method, path, body, who, w.Code, status, w.Body)
		}
		var m map[string]any
		must(t, json.Unmarshal(w.Body.Bytes(), &m))
		return m
	}
	names := func(m map[string]any, list string) string {
		var out []string
		for _, v := range m[list].([]any) {
			out = append(out, v.(map[string]any)["name"].(string))
		}
		return strings.Join(out, " ")
	}
	call("member", "POST", "catalogs", `{"name":"team"}`, 403)
	call("admin", "PATCH", "permissions/metastore/tarn", `{"changes":[{"principal":"team","add":["CREATE CATALOG"]}]}`, 200)
	call("grandchild", "POST", "catalogs", `{"name":"../x"}`, 400)
	call("grandchild", "POST", "catalogs", `{"name":"notes","storage_root":"file:///etc"}`, 403)
	made := call("grandchild", "POST", "catalogs", `{"name":"notes","comment":"of the team","properties":{"k":"v"}}`, 200)
	if made["owner"] != "grandchild@example.com" || made["comment"] != "of the team" || made["id"] == nil || made["created_at"] == nil {
		t.Errorf("made %v", made)
	}
	call("member", "POST", "catalogs", `{"name":"notes"}`, 409)
	call("other", "GET", "catalogs/notes", "", 403)
	if l := call("other", "GET", "catalogs", "", 200); len(l["catalogs"].([]any)) != 0 {
		t.Errorf("other sees %v", l)
	}
	if l := call("grandchild", "GET", "catalogs", "", 200); names(l, "catalogs") != "notes" {
		t.Errorf("the owner sees %v", l)
	}
	call("grandchild", "POST", "schemas", `{"name":"a","catalog_name":"notes"}`, 200)
	call("grandchild", "POST", "schemas", `{"name":"b","catalog_name":"notes","comment":"two"}`, 200)
	call("grandchild", "POST", "schemas", `{"name":"b","catalog_name":"notes"}`, 409)
	call("grandchild", "POST", "schemas", `{"name":"b","catalog_name":"nowhere"}`, 404)
	call("grandchild", "POST", "tables", `{"name":"t","catalog_name":"notes","schema_name":"b","table_type":"MANAGED","data_source_format":"DELTA"}`, 200)
	page := call("grandchild", "GET", "schemas?catalog_name=notes&max_results=1", "", 200)
	if names(page, "schemas") != "a" || page["next_page_token"] == nil {
		t.Errorf("page %v", page)
	}
	if page = call("grandchild", "GET", "schemas?catalog_name=notes&max_results=1&page_token="+page["next_page_token"].(string), "", 200); names(page, "schemas") != "b" || page["next_page_token"] != nil {
		t.Errorf("page %v", page)
	}
	// A member of a group of the group, over a grant on the schema.
	call("grandchild", "PATCH", "permissions/catalog/notes", `{"changes":[{"principal":"users","add":["USE_CATALOG"]}]}`, 200)
	call("grandchild", "PATCH", "permissions/schema/notes.b", `{"changes":[{"principal":"inner","add":["USE_SCHEMA","SELECT"]}]}`, 200)
	call("other", "GET", "schemas/notes.b", "", 403)
	if l := call("other", "GET", "schemas?catalog_name=notes", "", 200); len(l["schemas"].([]any)) != 0 {
		t.Errorf("other sees %v", l)
	}
	call("grandchild", "PATCH", "permissions/schema/notes.b", `{"changes":[{"principal":"inner","add":["CREATE_CATALOG"]}]}`, 400)
	call("grandchild", "PATCH", "permissions/schema/notes.b", `{"changes":[{"principal":"nobody","add":["SELECT"]}]}`, 404)
	call("grandchild", "PATCH", "permissions/schema/notes.b", `{"changes":[{"principal":"inner","add":["FLY"]}]}`, 400)
	call("grandchild", "PATCH", "permissions/volume/notes.b", `{"changes":[]}`, 400)
	eff := call("grandchild", "GET", "effective-permissions/table/notes.b.t", "", 200)
	text, err := json.Marshal(eff)
	must(t, err)
	for _, want := range []string{
		`{"principal":"users","privileges":[{"inherited_from_name":"notes","inherited_from_type":"CATALOG","privilege":"USE_CATALOG"}]}`,
		`{"inherited_from_name":"notes.b","inherited_from_type":"SCHEMA","privilege":"SELECT"}`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("effective permissions lack %s: %s", want, text)
		}
	}
	// Ownership goes to a group; whoever is in it then manages.
	call("member", "DELETE", "schemas/notes.a", "", 403)
	call("grandchild", "PATCH", "schemas/notes.a", `{"owner":"team"}`, 200)
	call("grandchild", "PATCH", "schemas/notes.a", `{"owner":"nobody"}`, 404)
	call("grandchild", "PATCH", "schemas/notes.a", `{"new_name":"z"}`, 501)
	call("member", "DELETE", "schemas/notes.a", "", 200)
	call("grandchild", "DELETE", "catalogs/notes", "", 400)
	call("grandchild", "DELETE", "schemas/notes.b", "", 400)
	call("admin", "DELETE", "catalogs/lake?force=true", "", 400)
	call("grandchild", "DELETE", "catalogs/notes?force=true", "", 200)
	call("grandchild", "GET", "catalogs/notes", "", 404)
	// What was granted on the deleted one is not had on its successor.
	call("grandchild", "POST", "catalogs", `{"name":"notes"}`, 200)
	call("other", "GET", "catalogs/notes", "", 403)
	call("admin", "DELETE", "catalogs/notes", "", 200)
	call("admin", "PATCH", "permissions/metastore/tarn", `{"changes":[{"principal":"team","remove":["CREATE_CATALOG"]}]}`, 200)
}
