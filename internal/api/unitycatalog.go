package api

import (
	"context"
	"slices"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/catalog"
)

// rights are those of who asks.
func (d *unityDoor) rights(q *query) *catalog.Rights { return d.catalog.For(q.who) }

// visible keeps what who asks may see.
func visible[T any](ctx context.Context, r *catalog.Rights, in string, all []T, on func(T) tarn.Securable) ([]T, error) {
	sees, err := r.Visible(ctx, in)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(v T) bool { return !sees(on(v)) }), nil
}

func (d *unityDoor) listCatalogs(ctx context.Context, q *query) (any, error) {
	pg, err := q.page("max_results")
	if err != nil {
		return nil, err
	}
	entries, err := d.catalog.Objects().CatalogEntries(ctx)
	if err != nil {
		return nil, err
	}
	registered, err := d.catalog.AllRegistered(ctx)
	if err != nil {
		return nil, err
	}
	var all []wire.CatalogInfo
	for _, e := range entries {
		all = append(all, d.catalogOf(e))
	}
	for _, r := range registered {
		all = append(all, registeredCatalogOf(r))
	}
	all, err = visible(ctx, d.rights(q), "", all, func(c wire.CatalogInfo) tarn.Securable { return tarn.CatalogSecurable(c.Name) })
	if err != nil {
		return nil, err
	}
	page, next, err := pageOf(all, func(c wire.CatalogInfo) string { return c.Name }, pg)
	return wire.ListCatalogs{Catalogs: append([]wire.CatalogInfo{}, page...), NextPageToken: next}, err
}

func (d *unityDoor) getCatalog(ctx context.Context, q *query) (any, error) {
	name := q.r.PathValue("catalog")
	r, registered, err := d.registeredNamed(ctx, q, name)
	if err != nil {
		return nil, err
	}
	if registered {
		return registeredCatalogOf(r), nil
	}
	e, err := d.catalog.Objects().CatalogEntry(ctx, name)
	if err == nil {
		err = d.rights(q).CheckVisible(ctx, tarn.CatalogSecurable(name))
	}
	if err != nil {
		return nil, err
	}
	return d.catalogOf(e), nil
}

// createCatalog makes a catalog. Where its tables lie only an admin may say: the
// server writes there with its own rights.
func (d *unityDoor) createCatalog(ctx context.Context, q *query) (any, error) {
	var in wire.CatalogInfo
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	if in.Name == "" {
		return nil, badField("name", "is missing")
	}
	if err := d.rights(q).Check(ctx, tarn.PrivilegeCreateCatalog, tarn.Securable{}); err != nil {
		return nil, err
	}
	if in.StorageRoot != "" && !q.who.Admin {
		return nil, tarn.Denied("create catalog %s: only an admin may name a storage_root", in.Name)
	}
	e, err := d.catalog.CreateCatalog(ctx, q.who, tarn.CatalogEntry{
		ObjectEntry: tarn.ObjectEntry{Name: in.Name, Comment: in.Comment, Properties: in.Properties}, Root: in.StorageRoot,
	})
	if err != nil {
		return nil, existing(err, "CATALOG_ALREADY_EXISTS", func() error { return nil })
	}
	return d.catalogOf(e), nil
}

// changeOf reads what is asked to change of an object called name.
func changeOf(q *query, name string) (tarn.ObjectChange, error) {
	var in wire.ChangeObject
	if err := q.decode(&in); err != nil {
		return tarn.ObjectChange{}, err
	}
	if in.NewName != "" && in.NewName != name {
		return tarn.ObjectChange{}, unbuilt("new_name: catalog objects keep their names")
	}
	return tarn.ObjectChange{Owner: in.Owner, Comment: in.Comment, Properties: in.Properties}, nil
}

func (d *unityDoor) updateCatalog(ctx context.Context, q *query) (any, error) {
	name := q.r.PathValue("catalog")
	ch, err := changeOf(q, name)
	if err == nil {
		_, err = d.catalog.Objects().CatalogEntry(ctx, name)
	}
	if err == nil {
		err = d.rights(q).Check(ctx, tarn.PrivilegeManage, tarn.CatalogSecurable(name))
	}
	if err != nil {
		return nil, err
	}
	e, err := d.catalog.Objects().ChangeCatalog(ctx, q.who, name, ch)
	if err != nil {
		return nil, err
	}
	return d.catalogOf(e), nil
}

// forced reads whether what an object holds goes with it.
func forced(q *query) (catalog.Force, error) {
	f, err := q.flag("force")
	return catalog.Force(f != nil && *f), err
}

func (d *unityDoor) deleteCatalog(ctx context.Context, q *query) (any, error) {
	name := q.r.PathValue("catalog")
	force, err := forced(q)
	if err == nil {
		_, err = d.catalog.Objects().CatalogEntry(ctx, name)
	}
	if err == nil {
		err = d.rights(q).Check(ctx, tarn.PrivilegeManage, tarn.CatalogSecurable(name))
	}
	if err != nil {
		return nil, err
	}
	return nil, d.catalog.Objects().DeleteCatalog(ctx, name, force)
}

func (d *unityDoor) listSchemas(ctx context.Context, q *query) (any, error) {
	pg, err := q.page("max_results")
	if err != nil {
		return nil, err
	}
	in := q.text("catalog_name")
	if in == "" {
		return nil, badField("catalog_name", "is missing")
	}
	all, err := d.schemas(ctx, q, in)
	if err != nil {
		return nil, err
	}
	all, err = visible(ctx, d.rights(q), in, all, func(s wire.SchemaInfo) tarn.Securable { return tarn.SchemaSecurable(in, s.Name) })
	if err != nil {
		return nil, err
	}
	page, next, err := pageOf(all, func(s wire.SchemaInfo) string { return s.Name }, pg)
	return wire.ListSchemas{Schemas: append([]wire.SchemaInfo{}, page...), NextPageToken: next}, err
}

// schemas gives all schemas of a catalog of either kind that who asks may see.
func (d *unityDoor) schemas(ctx context.Context, q *query, in string) ([]wire.SchemaInfo, error) {
	r, registered, err := d.registeredNamed(ctx, q, in)
	if err != nil {
		return nil, err
	}
	var all []wire.SchemaInfo
	if registered {
		for _, s := range catalog.SchemasOf(r) {
			all = append(all, schemaOf(tarn.SchemaEntry{Catalog: in, ObjectEntry: tarn.ObjectEntry{Name: s}}))
		}
		return all, nil
	}
	es, err := d.catalog.Objects().SchemaEntries(ctx, in)
	if err == nil {
		err = d.rights(q).CheckVisible(ctx, tarn.CatalogSecurable(in))
	}
	for _, e := range es {
		all = append(all, schemaOf(e))
	}
	return all, err
}

// schemaName reads the path's catalog.schema.
func schemaName(q *query) (tarn.Securable, error) {
	s, err := tarn.ParseSecurable(tarn.SecurableSchema, q.r.PathValue("schema"))
	if err != nil {
		return s, nothing(err)
	}
	return s, nil
}

func (d *unityDoor) getSchema(ctx context.Context, q *query) (any, error) {
	on, err := schemaName(q)
	if err != nil {
		return nil, err
	}
	all, err := d.schemas(ctx, q, on.Catalog)
	if err == nil {
		err = d.rights(q).CheckVisible(ctx, on)
	}
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.Name == on.Schema {
			return s, nil
		}
	}
	return nil, tarn.NotFound("catalog %s has no schema %q", on.Catalog, on.Schema)
}

func (d *unityDoor) createSchema(ctx context.Context, q *query) (any, error) {
	var in wire.SchemaInfo
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	for _, f := range []struct{ name, value string }{{"name", in.Name}, {"catalog_name", in.CatalogName}} {
		if f.value == "" {
			return nil, badField(f.name, "is missing")
		}
	}
	if in.StorageRoot != "" {
		return nil, unbuilt("storage_root: the tables of a schema lie under its catalog's")
	}
	if _, ok, err := d.registeredNamed(ctx, q, in.CatalogName); ok || err != nil {
		if err == nil {
			err = tarn.Invalid("catalog %s shows a Postgres database: make its schemas there", in.CatalogName)
		}
		return nil, err
	}
	if _, err := d.catalog.Objects().CatalogEntry(ctx, in.CatalogName); err != nil {
		return nil, err
	}
	if err := d.rights(q).Check(ctx, tarn.PrivilegeCreateSchema, tarn.CatalogSecurable(in.CatalogName)); err != nil {
		return nil, err
	}
	e, err := d.catalog.Objects().CreateSchema(ctx, q.who, tarn.SchemaEntry{
		ObjectEntry: tarn.ObjectEntry{Name: in.Name, Comment: in.Comment, Properties: in.Properties}, Catalog: in.CatalogName,
	})
	if err != nil {
		return nil, existing(err, "SCHEMA_ALREADY_EXISTS", func() error { return nil })
	}
	return schemaOf(e), nil
}

func (d *unityDoor) updateSchema(ctx context.Context, q *query) (any, error) {
	on, err := schemaName(q)
	if err != nil {
		return nil, err
	}
	ch, err := changeOf(q, on.Schema)
	if err == nil {
		err = d.rights(q).Check(ctx, tarn.PrivilegeManage, on)
	}
	if err != nil {
		return nil, err
	}
	e, err := d.catalog.Objects().ChangeSchema(ctx, q.who, on.Catalog, on.Schema, ch)
	if err != nil {
		return nil, err
	}
	return schemaOf(e), nil
}

func (d *unityDoor) deleteSchema(ctx context.Context, q *query) (any, error) {
	on, err := schemaName(q)
	if err != nil {
		return nil, err
	}
	force, err := forced(q)
	if err == nil {
		err = d.rights(q).Check(ctx, tarn.PrivilegeManage, on)
	}
	if err != nil {
		return nil, err
	}
	return nil, d.catalog.Objects().DeleteSchema(ctx, on.Catalog, on.Schema, force)
}

func (d *unityDoor) metastore(context.Context, *query) (any, error) {
	return wire.MetastoreSummary{MetastoreID: d.workspace, Name: "tarn"}, nil
}

func (d *unityDoor) catalogOf(e tarn.CatalogEntry) wire.CatalogInfo {
	kind := "MANAGED_CATALOG"
	if e.Name == catalog.System {
		kind = "SYSTEM_CATALOG"
	}
	return wire.CatalogInfo{
		Name: e.Name, FullName: e.Name, ID: e.ID, CatalogType: kind, Owner: e.Owner, Comment: e.Comment,
		Properties: e.Properties, StorageRoot: e.Root, MetastoreID: d.workspace, SecurableType: string(tarn.SecurableCatalog), IsolationMode: "OPEN",
		CreatedAt: millis(e.CreateTime), CreatedBy: e.CreatedBy, UpdatedAt: millis(e.UpdateTime), UpdatedBy: e.UpdatedBy,
	}
}

func schemaOf(e tarn.SchemaEntry) wire.SchemaInfo {
	return wire.SchemaInfo{
		Name: e.Name, CatalogName: e.Catalog, FullName: e.Catalog + "." + e.Name, SchemaID: e.ID, Owner: e.Owner, Comment: e.Comment,
		Properties: e.Properties, CreatedAt: millis(e.CreateTime), CreatedBy: e.CreatedBy, UpdatedAt: millis(e.UpdateTime), UpdatedBy: e.UpdatedBy,
	}
}

// millis is a published time; 0 = none.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// registeredNamed finds a registered catalog that who asks may see; ok is false
// when there is none of the name.
func (d *unityDoor) registeredNamed(ctx context.Context, q *query, name string) (r tarn.RegisteredCatalog, ok bool, err error) {
	if name == "" {
		return r, false, nil
	}
	r, err = d.catalog.Registered(ctx, name)
	switch {
	case tarn.KindOf(err) == tarn.KindNotFound:
		return r, false, nil
	case err == nil:
		err = d.rights(q).CheckVisible(ctx, tarn.CatalogSecurable(name))
	}
	return r, err == nil, err
}

// registeredCatalogOf writes a registered database as Unity Catalog's catalog.
func registeredCatalogOf(r tarn.RegisteredCatalog) wire.CatalogInfo {
	return wire.CatalogInfo{Name: r.Name, FullName: r.Name, ID: r.UID, CatalogType: "MANAGED_ONLINE_CATALOG", SecurableType: string(tarn.SecurableCatalog)}
}
