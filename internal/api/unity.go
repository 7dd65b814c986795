package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/control"
	"github.com/tarndb/tarn/internal/delta"
)

// unityDoor answers /api/2.1/unity-catalog: names are read, and tables
// registered and dropped.
type unityDoor struct {
	catalog *catalog.Catalog
	open    func(ctx context.Context, location string) (*delta.Table, error)
	log     *slog.Logger
}

// self is the key of a listing of names.
func self(s string) string { return s }

func (d *unityDoor) listCatalogs(ctx context.Context, q *query) (any, error) {
	pg, err := q.page("max_results")
	if err != nil {
		return nil, err
	}
	names, err := d.catalog.Catalogs(ctx)
	if err != nil {
		return nil, err
	}
	var all []wire.CatalogInfo
	for _, n := range names {
		all = append(all, catalogOf(n))
	}
	registered, err := d.registered(ctx, q)
	if err != nil {
		return nil, err
	}
	for _, r := range registered {
		all = append(all, registeredCatalogOf(r))
	}
	byName := func(c wire.CatalogInfo) string { return c.Name }
	slices.SortFunc(all, func(a, b wire.CatalogInfo) int { return strings.Compare(a.Name, b.Name) })
	page, next, err := pageOf(all, byName, pg)
	return wire.ListCatalogs{Catalogs: append([]wire.CatalogInfo{}, page...), NextPageToken: next}, err
}

func (d *unityDoor) getCatalog(ctx context.Context, q *query) (any, error) {
	name := q.r.PathValue("catalog")
	if r, ok, err := d.registeredNamed(ctx, q, name); ok || err != nil {
		return registeredCatalogOf(r), err
	}
	if err := d.need(ctx, name); err != nil {
		return nil, err
	}
	return catalogOf(name), nil
}

// need fails unless the catalog exists.
func (d *unityDoor) need(ctx context.Context, name string) error {
	all, err := d.catalog.Catalogs(ctx)
	if err == nil && !slices.Contains(all, name) {
		err = tarn.NotFound("no catalog is called %q", name)
	}
	return err
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
	page, next, err := pageOf(all, self, pg)
	out := wire.ListSchemas{Schemas: []wire.SchemaInfo{}, NextPageToken: next}
	for _, s := range page {
		out.Schemas = append(out.Schemas, schemaOf(in, s))
	}
	return out, err
}

func (d *unityDoor) getSchema(ctx context.Context, q *query) (any, error) {
	full := q.r.PathValue("schema")
	in, name, ok := strings.Cut(full, ".")
	if !ok {
		return nil, tarn.NotFound("no schema is called %q: want catalog.schema", full)
	}
	all, err := d.schemas(ctx, q, in)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(all, name) {
		return nil, tarn.NotFound("catalog %s has no schema %q", in, name)
	}
	return schemaOf(in, name), nil
}

func (d *unityDoor) listTables(ctx context.Context, q *query) (any, error) {
	pg, err := q.page("max_results")
	if err != nil {
		return nil, err
	}
	// Unity Catalog wants both names; Tarn also lists a catalog or everything.
	in := q.text("catalog_name")
	if r, ok, err := d.registeredNamed(ctx, q, in); ok || err != nil {
		if err != nil {
			return nil, err
		}
		return registeredPage(r, q.text("schema_name"), pg)
	}
	if in != "" {
		if err := d.need(ctx, in); err != nil {
			return nil, err
		}
	}
	all, err := d.catalog.Tables(ctx, in, q.text("schema_name"))
	if err != nil {
		return nil, err
	}
	page, next, err := tablePage(all, pg)
	out := wire.ListTables{Tables: []wire.TableInfo{}, NextPageToken: next}
	for _, t := range page {
		out.Tables = append(out.Tables, tableOf(t))
	}
	return out, err
}

func tablePage(all []tarn.CatalogTable, pg control.Page) ([]tarn.CatalogTable, string, error) {
	return pageOf(all, func(t tarn.CatalogTable) string { return t.Name.String() }, pg)
}

func (d *unityDoor) getTable(ctx context.Context, q *query) (any, error) {
	n, err := q.table()
	if err != nil {
		return nil, err
	}
	if r, ok, err := d.registeredNamed(ctx, q, n.Catalog); ok || err != nil {
		return registeredTable(r, n, err)
	}
	t, err := d.catalog.Table(ctx, n)
	if err != nil {
		return nil, err
	}
	out := tableOf(t)
	if cols, err := d.columns(ctx, t.Location); err != nil {
		// The entry is true even while its bytes cannot be read.
		d.log.WarnContext(ctx, "columns are not readable", "table", n.String(), "err", err)
	} else {
		out.Columns = cols
	}
	return out, nil
}

// createTable registers a table. An EXTERNAL one lies where the request says,
// which only the workspace's admin may choose: the server reads it with its own
// rights. A MANAGED one gets a folder of its catalog.
func (d *unityDoor) createTable(ctx context.Context, q *query) (any, error) {
	var in wire.TableInfo
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	n, err := readTableEntry(in)
	if err != nil {
		return nil, err
	}
	if in.StorageLocation != "" && !q.who.Admin {
		return nil, tarn.Denied("register table %s: only an admin may name a storage_location", n)
	}
	t, err := d.catalog.CreateTable(ctx, q.who, n, in.StorageLocation, in.Comment)
	if err != nil {
		return nil, existing(err, "TABLE_ALREADY_EXISTS", func() error {
			_, err := d.catalog.Table(ctx, n)
			return err
		})
	}
	return tableOf(t), nil
}

// readTableEntry checks what is asked of a new entry.
func readTableEntry(in wire.TableInfo) (tarn.TableName, error) {
	n, err := tarn.ParseTableName(in.CatalogName + "." + in.SchemaName + "." + in.Name)
	switch {
	case err != nil:
		return n, badField("name", "%s", err)
	case in.DataSourceFormat != "DELTA":
		return n, badField("data_source_format", "got %q, want DELTA", in.DataSourceFormat)
	case in.TableType == "EXTERNAL" && in.StorageLocation == "":
		return n, badField("storage_location", "is missing: say where the external table lies")
	case in.TableType == "MANAGED" && in.StorageLocation != "":
		return n, badField("storage_location", "a managed table gets its own folder; leave it out or say EXTERNAL")
	case in.TableType != "EXTERNAL" && in.TableType != "MANAGED":
		return n, badField("table_type", "got %q, want EXTERNAL or MANAGED", in.TableType)
	}
	return n, nil
}

// dropTable removes the entry; the files stay.
func (d *unityDoor) dropTable(ctx context.Context, q *query) (any, error) {
	n, err := q.table()
	if err != nil {
		return nil, err
	}
	return nil, d.catalog.DropTable(ctx, q.who, n)
}

func (d *unityDoor) columns(ctx context.Context, location string) ([]wire.ColumnInfo, error) {
	if d.open == nil {
		return nil, nil
	}
	t, err := d.open(ctx, location)
	if err != nil {
		return nil, err
	}
	s, err := t.Latest(ctx)
	if err != nil {
		return nil, err
	}
	var cols []wire.ColumnInfo
	for i, f := range s.Schema().Fields {
		cols = append(cols, columnOf(i, f))
	}
	return cols, nil
}

func (d *unityDoor) tableExists(ctx context.Context, q *query) (any, error) {
	n, err := q.table()
	if err == nil {
		var ok bool
		var r tarn.RegisteredCatalog
		if r, ok, err = d.registeredNamed(ctx, q, n.Catalog); ok {
			_, err = registeredTable(r, n, err)
		} else if err == nil {
			_, err = d.catalog.Table(ctx, n)
		}
	}
	if err != nil && tarn.KindOf(err) != tarn.KindNotFound {
		return nil, err
	}
	return wire.TableExists{TableExists: err == nil}, nil
}

func catalogOf(name string) wire.CatalogInfo {
	return wire.CatalogInfo{Name: name, FullName: name, CatalogType: "MANAGED_CATALOG"}
}

func schemaOf(catalog, name string) wire.SchemaInfo {
	return wire.SchemaInfo{Name: name, CatalogName: catalog, FullName: catalog + "." + name}
}

func tableOf(t tarn.CatalogTable) wire.TableInfo {
	ms := func(t time.Time) int64 {
		if t.IsZero() {
			return 0
		}
		return t.UnixMilli()
	}
	return wire.TableInfo{
		Name: t.Name.Table, CatalogName: t.Name.Catalog, SchemaName: t.Name.Schema, FullName: t.Name.String(),
		TableID: t.ID, TableType: "EXTERNAL", DataSourceFormat: "DELTA", StorageLocation: t.Location,
		Owner: t.Owner, Comment: t.Comment, CreatedAt: ms(t.CreateTime), UpdatedAt: ms(t.UpdateTime),
	}
}

// columnOf writes a Delta column in Unity Catalog's words.
func columnOf(position int, f delta.Field) wire.ColumnInfo {
	c := wire.ColumnInfo{Name: f.Name, Position: position, Nullable: f.Nullable, TypeText: f.Type}
	base, _, _ := strings.Cut(f.Type, "(")
	switch base {
	case "long":
		c.TypeName, c.TypeText = "LONG", "bigint"
	case "integer":
		c.TypeName, c.TypeText = "INT", "int"
	case "short":
		c.TypeName, c.TypeText = "SHORT", "smallint"
	case "byte":
		c.TypeName, c.TypeText = "BYTE", "tinyint"
	case "string", "double", "float", "boolean", "date", "timestamp", "timestamp_ntz", "binary", "decimal", "variant":
		c.TypeName = strings.ToUpper(base)
	default: // nested: the type is JSON text
		var nested struct{ Type string }
		if json.Unmarshal([]byte(f.Type), &nested) == nil {
			c.TypeName = strings.ToUpper(nested.Type)
		}
	}
	return c
}
