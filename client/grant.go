package client

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

// Catalog, Schema and what is granted on them, as the API sends them.
type (
	Catalog         = wire.CatalogInfo
	Schema          = wire.SchemaInfo
	Grants          = wire.Grants
	EffectiveGrants = wire.EffectiveGrants
	Registered      = wire.PostgresCatalog
	RegisteredSpec  = wire.PostgresCatalogSpec
)

// Governance makes catalogs and schemas and grants on what is in them.
type Governance struct{ c *Client }

// GovernanceOf speaks of the catalogs of a server.
func GovernanceOf(c *Client) *Governance { return &Governance{c} }

// Catalogs lists the catalogs one may see.
func (g *Governance) Catalogs(ctx context.Context) ([]Catalog, error) {
	all := []Catalog{}
	for token := ""; ; {
		var page wire.ListCatalogs
		if err := g.c.get(ctx, uc+"catalogs", query("page_token", token), &page); err != nil {
			return nil, err
		}
		all = append(all, page.Catalogs...)
		if token = page.NextPageToken; token == "" {
			return all, nil
		}
	}
}

// Catalog reads one catalog.
func (g *Governance) Catalog(ctx context.Context, name string) (Catalog, error) {
	var out Catalog
	err := g.c.get(ctx, uc+"catalogs/"+url.PathEscape(name), nil, &out)
	return out, err
}

// CreateCatalog makes a catalog.
func (g *Governance) CreateCatalog(ctx context.Context, in Catalog) (Catalog, error) {
	var out Catalog
	err := g.c.do(ctx, http.MethodPost, uc+"catalogs", nil, in, &out)
	return out, err
}

// Register shows a database of a branch as a catalog.
func (g *Governance) Register(ctx context.Context, name string, spec RegisteredSpec) (Operation, error) {
	var out Operation
	err := g.c.do(ctx, http.MethodPost, pg+"catalogs", query("catalog_id", name), Registered{Spec: &spec}, &out)
	return out, err
}

// Schemas lists the schemas of a catalog that one may see.
func (g *Governance) Schemas(ctx context.Context, catalog string) ([]Schema, error) {
	all := []Schema{}
	for token := ""; ; {
		var page wire.ListSchemas
		if err := g.c.get(ctx, uc+"schemas", query("catalog_name", catalog, "page_token", token), &page); err != nil {
			return nil, err
		}
		all = append(all, page.Schemas...)
		if token = page.NextPageToken; token == "" {
			return all, nil
		}
	}
}

// Schema reads one schema by its full name.
func (g *Governance) Schema(ctx context.Context, on tarn.Securable) (Schema, error) {
	var out Schema
	err := g.c.get(ctx, objectPath(on), nil, &out)
	return out, err
}

// CreateSchema makes a schema.
func (g *Governance) CreateSchema(ctx context.Context, in Schema) (Schema, error) {
	var out Schema
	err := g.c.do(ctx, http.MethodPost, uc+"schemas", nil, in, &out)
	return out, err
}

// Delete forgets a catalog or schema; with force also what it holds.
func (g *Governance) Delete(ctx context.Context, on tarn.Securable, force bool) error {
	q := url.Values{}
	if force {
		q.Set("force", "true")
	}
	return g.c.do(ctx, http.MethodDelete, objectPath(on), q, nil, nil)
}

func objectPath(on tarn.Securable) string {
	return uc + strings.ToLower(string(on.Type())) + "s/" + url.PathEscape(on.FullName())
}

// Grants gives what was granted on an object itself.
func (g *Governance) Grants(ctx context.Context, on tarn.Securable) (Grants, error) {
	var out Grants
	err := g.c.get(ctx, grantPath("permissions", on), nil, &out)
	return out, err
}

// EffectiveGrants gives what was granted on an object and on what holds it.
func (g *Governance) EffectiveGrants(ctx context.Context, on tarn.Securable) (EffectiveGrants, error) {
	var out EffectiveGrants
	err := g.c.get(ctx, grantPath("effective-permissions", on), nil, &out)
	return out, err
}

// Change grants to and revokes from one principal.
func (g *Governance) Change(ctx context.Context, on tarn.Securable, principal string, add, remove []string) (Grants, error) {
	in := wire.GrantChanges{Changes: []wire.GrantChange{{Principal: principal, Add: add, Remove: remove}}}
	var out Grants
	err := g.c.do(ctx, http.MethodPatch, grantPath("permissions", on), nil, in, &out)
	return out, err
}

func grantPath(what string, on tarn.Securable) string {
	return uc + what + "/" + strings.ToLower(string(on.Type())) + "/" + url.PathEscape(on.FullName())
}
