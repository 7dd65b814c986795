package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/delta"
)

// unityDoor answers /api/2.1/unity-catalog: catalogs, schemas and tables, and
// what is granted on them.
type unityDoor struct {
	catalog   *catalog.Catalog
	open      func(ctx context.Context, location string) (*delta.Table, error)
	workspace string // decimal id; also the metastore's
	log       *slog.Logger
}

func (d *unityDoor) listTables(ctx context.Context, q *query) (any, error) {
	pg, err := q.page("max_results")
	if err != nil {
		return nil, err
	}
	// Unity Catalog wants both names; Tarn also lists a catalog or everything.
	in, schema := q.text("catalog_name"), q.text("schema_name")
	all, err := d.tablesOf(ctx, q, in, schema)
	if err != nil {
		return nil, err
	}
	all, err = visible(ctx, d.rights(q), in, all, func(t wire.TableInfo) tarn.Securable {
		return tarn.Securable{Catalog: t.CatalogName, Schema: t.SchemaName, Table: t.Name}
	})
	if err != nil {
		return nil, err
	}
	page, next, err := pageOf(all, func(t wire.TableInfo) string { return t.FullName }, pg)
	return wire.ListTables{Tables: append([]wire.TableInfo{}, page...), NextPageToken: next}, err
}

// tablesOf gives all tables of a catalog, "" = of all that hold Delta tables.
func (d *unityDoor) tablesOf(ctx context.Context, q *query, in, schema string) ([]wire.TableInfo, error) {
	var all []wire.TableInfo
	r, registered, err := d.registeredNamed(ctx, q, in)
	switch {
	case err != nil:
		return nil, err
	case registered:
		for _, o := range r.Objects {
			if schema == "" || o.Schema == schema {
				all = append(all, objectOf(r, o))
			}
		}
	default:
		if in != "" {
			if _, err := d.catalog.Objects().CatalogEntry(ctx, in); err != nil {
				return nil, err
			}
			if err := d.rights(q).CheckVisible(ctx, tarn.CatalogSecurable(in)); err != nil {
				return nil, err
			}
		}
		ts, err := d.catalog.Tables(ctx, in, schema)
		if err != nil {
			return nil, err
		}
		for _, t := range ts {
			all = append(all, tableOf(t))
		}
	}
	known := map[string]bool{}
	for _, t := range all {
		known[t.FullName] = true
	}
	synced, err := d.catalog.Synced(ctx, in, schema)
	for _, e := range synced {
		if t := entryOf(e); !known[t.FullName] {
			all = append(all, t)
		}
	}
	return all, err
}

func (d *unityDoor) getTable(ctx context.Context, q *query) (any, error) {
	n, err := q.table()
	if err != nil {
		return nil, err
	}
	e, err := d.rights(q).Table(ctx, n)
	if err != nil {
		return nil, err
	}
	out := entryOf(e)
	if !e.Kind.Delta() {
		return out, nil
	}
	if cols, err := d.columns(ctx, e.Table.Location); err != nil {
		// The entry is true even while its bytes cannot be read.
		d.log.WarnContext(ctx, "columns are not readable", "table", n.String(), "err", err)
	} else {
		out.Columns = cols
	}
	return out, nil
}

// manage finds the path's Delta table for one who may change its entry.
func (d *unityDoor) manage(ctx context.Context, q *query) (tarn.TableName, error) {
	n, err := q.table()
	if err != nil {
		return n, err
	}
	r := d.rights(q)
	e, err := r.Table(ctx, n)
	if err == nil {
		err = r.Check(ctx, tarn.PrivilegeManage, n.Securable())
	}
	if err == nil && !e.Kind.Delta() {
		err = tarn.Invalid("table %s is in a Postgres database, which is its record", n)
	}
	return n, err
}

func (d *unityDoor) updateTable(ctx context.Context, q *query) (any, error) {
	n, err := d.manage(ctx, q)
	if err != nil {
		return nil, err
	}
	ch, err := changeOf(q, n.Table)
	if err != nil {
		return nil, err
	}
	t, err := d.catalog.Objects().ChangeTable(ctx, q.who, n, ch)
	if err != nil {
		return nil, err
	}
	return tableOf(t), nil
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
	if _, ok, err := d.registeredNamed(ctx, q, n.Catalog); ok || err != nil {
		if err == nil {
			err = tarn.Invalid("catalog %s shows a Postgres database: make its tables there", n.Catalog)
		}
		return nil, err
	}
	if err := d.rights(q).CheckCreateTable(ctx, n.Catalog, n.Schema); err != nil {
		return nil, err
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
	n, err := d.manage(ctx, q)
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
		_, err = d.rights(q).Table(ctx, n)
	}
	if err != nil && tarn.KindOf(err) != tarn.KindNotFound {
		return nil, err
	}
	return wire.TableExists{TableExists: err == nil}, nil
}

func tableOf(t tarn.CatalogTable) wire.TableInfo {
	kind := catalog.External
	if t.Managed {
		kind = catalog.Managed
	}
	return entryOf(catalog.Entry{Kind: kind, Table: t})
}

// entryOf writes a table of any kind, without the columns of a Delta table.
func entryOf(e catalog.Entry) wire.TableInfo {
	if e.Kind == catalog.Postgres {
		return objectOf(tarn.RegisteredCatalog{Name: e.Table.Name.Catalog}, e.Object)
	}
	t := e.Table
	out := wire.TableInfo{
		Name: t.Name.Table, CatalogName: t.Name.Catalog, SchemaName: t.Name.Schema, FullName: t.Name.String(),
		TableID: t.ID, TableType: "MANAGED", DataSourceFormat: "DELTA", StorageLocation: t.Location,
		Owner: t.Owner, Comment: t.Comment, Properties: t.Properties,
		CreatedAt: millis(t.CreateTime), CreatedBy: t.CreatedBy, UpdatedAt: millis(t.UpdateTime), UpdatedBy: t.UpdatedBy,
	}
	switch e.Kind {
	case catalog.External:
		out.TableType = "EXTERNAL"
	case catalog.Synced:
		out.TableType, out.DataSourceFormat = "FOREIGN", "POSTGRESQL_FORMAT"
	}
	return out
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
