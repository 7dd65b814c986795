package api

import (
	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/delta"
)

// objectOf writes a table or view of a registered database.
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
