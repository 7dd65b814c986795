package api

import (
	"context"
	"slices"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/control"
	"github.com/tarndb/tarn/internal/delta"
)

// registered lists the registered databases of projects that who asks may see.
func (d *unityDoor) registered(ctx context.Context, q *query) ([]tarn.RegisteredCatalog, error) {
	all, err := d.catalog.AllRegistered(ctx)
	if err != nil {
		return nil, err
	}
	var seen []tarn.RegisteredCatalog
	for _, r := range all {
		err := q.need(ctx, r.Branch.Parent(), tarn.CanCreate)
		switch {
		case err == nil:
			seen = append(seen, r)
		case tarn.KindOf(err) != tarn.KindDenied:
			return nil, err
		}
	}
	return seen, nil
}

// registeredNamed finds a registered catalog; ok is false when there is none of
// the name. One of a project that who asks may not see is an error.
func (d *unityDoor) registeredNamed(ctx context.Context, q *query, name string) (r tarn.RegisteredCatalog, ok bool, err error) {
	if name == "" {
		return r, false, nil
	}
	r, err = d.catalog.Registered(ctx, name)
	switch {
	case tarn.KindOf(err) == tarn.KindNotFound:
		return r, false, nil
	case err == nil:
		err = q.need(ctx, r.Branch.Parent(), tarn.CanCreate)
	}
	return r, err == nil, err
}

// schemas lists the schemas of a catalog of either kind.
func (d *unityDoor) schemas(ctx context.Context, q *query, name string) ([]string, error) {
	if r, ok, err := d.registeredNamed(ctx, q, name); ok || err != nil {
		return catalog.SchemasOf(r), err
	}
	if err := d.need(ctx, name); err != nil {
		return nil, err
	}
	return d.catalog.Schemas(ctx, name)
}

// registeredCatalogOf writes a registered database as Unity Catalog's catalog.
func registeredCatalogOf(r tarn.RegisteredCatalog) wire.CatalogInfo {
	return wire.CatalogInfo{Name: r.Name, FullName: r.Name, CatalogType: "MANAGED_ONLINE_CATALOG"}
}

func registeredPage(r tarn.RegisteredCatalog, schema string, pg control.Page) (any, error) {
	objects := slices.DeleteFunc(slices.Clone(r.Objects), func(o tarn.CatalogObject) bool { return schema != "" && o.Schema != schema })
	page, next, err := pageOf(objects, func(o tarn.CatalogObject) string { return o.Schema + "." + o.Name }, pg)
	out := wire.ListTables{Tables: []wire.TableInfo{}, NextPageToken: next}
	for _, o := range page {
		out.Tables = append(out.Tables, objectOf(r, o))
	}
	return out, err
}

// registeredTable finds a table of a registered catalog, unless err.
func registeredTable(r tarn.RegisteredCatalog, n tarn.TableName, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	for _, o := range r.Objects {
		if o.Schema == n.Schema && o.Name == n.Table {
			return objectOf(r, o), nil
		}
	}
	return nil, tarn.NotFound("database %s of %s had no table %s.%s when it was last awake", r.Database, r.Branch, n.Schema, n.Table)
}

func objectOf(r tarn.RegisteredCatalog, o tarn.CatalogObject) wire.TableInfo {
	t := wire.TableInfo{
		Name: o.Name, CatalogName: r.Name, SchemaName: o.Schema, FullName: tarn.TableName{Catalog: r.Name, Schema: o.Schema, Table: o.Name}.String(),
		TableType: "FOREIGN", DataSourceFormat: "POSTGRESQL_FORMAT", Comment: o.Comment,
	}
	if o.View {
		t.TableType = "VIEW"
	}
	for i, c := range o.Columns {
		t.Columns = append(t.Columns, columnOf(i, delta.Field{Name: c.Name, Type: c.Type, Nullable: c.Nullable}))
	}
	return t
}
