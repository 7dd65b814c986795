package api

import (
	"strconv"

	"github.com/tarndb/tarn/internal/api/wire"
)

// unityRoutes are the rows of the table for catalog objects and grants on them.
// Who may ask is decided by grants, behind them.
func unityRoutes(c Config) []route {
	d := &unityDoor{catalog: c.Catalog, open: c.OpenTable, workspace: strconv.FormatInt(c.Workspace.ID, 10), log: c.Log}
	lake := &lakeDoor{catalog: c.Catalog, open: c.OpenTable}
	const (
		uc   = "/api/2.1/unity-catalog/"
		mine = "/api/2.0/tarn/"
	)
	return []route{
		{"GET " + uc + "metastore_summary", signedIn, d.metastore, says[none, wire.MetastoreSummary]("catalog.metastoreSummary", "")},
		{"GET " + uc + "catalogs", signedIn, d.listCatalogs, says[none, wire.ListCatalogs]("catalog.listCatalogs", "max_results page_token")},
		{"POST " + uc + "catalogs", signedIn, d.createCatalog, says[wire.CatalogInfo, wire.CatalogInfo]("catalog.createCatalog", "")},
		{"GET " + uc + "catalogs/{catalog}", signedIn, d.getCatalog, says[none, wire.CatalogInfo]("catalog.getCatalog", "")},
		{"PATCH " + uc + "catalogs/{catalog}", signedIn, d.updateCatalog, says[wire.ChangeObject, wire.CatalogInfo]("catalog.updateCatalog", "")},
		{"DELETE " + uc + "catalogs/{catalog}", signedIn, d.deleteCatalog, says[none, wire.Empty]("catalog.deleteCatalog", "force")},
		{"GET " + uc + "schemas", signedIn, d.listSchemas, says[none, wire.ListSchemas]("catalog.listSchemas", "catalog_name max_results page_token")},
		{"POST " + uc + "schemas", signedIn, d.createSchema, says[wire.SchemaInfo, wire.SchemaInfo]("catalog.createSchema", "")},
		{"GET " + uc + "schemas/{schema}", signedIn, d.getSchema, says[none, wire.SchemaInfo]("catalog.getSchema", "")},
		{"PATCH " + uc + "schemas/{schema}", signedIn, d.updateSchema, says[wire.ChangeObject, wire.SchemaInfo]("catalog.updateSchema", "")},
		{"DELETE " + uc + "schemas/{schema}", signedIn, d.deleteSchema, says[none, wire.Empty]("catalog.deleteSchema", "force")},
		{"GET " + uc + "tables", signedIn, d.listTables, says[none, wire.ListTables]("catalog.listTables", "catalog_name schema_name max_results page_token")},
		{"POST " + uc + "tables", signedIn, d.createTable, says[wire.TableInfo, wire.TableInfo]("catalog.createTable", "")},
		{"GET " + uc + "tables/{table}", signedIn, d.getTable, says[none, wire.TableInfo]("catalog.getTable", "")},
		{"PATCH " + uc + "tables/{table}", signedIn, d.updateTable, says[wire.ChangeObject, wire.TableInfo]("catalog.updateTable", "")},
		{"DELETE " + uc + "tables/{table}", signedIn, d.dropTable, says[none, wire.Empty]("catalog.deleteTable", "")},
		{"GET " + uc + "tables/{table}/exists", signedIn, d.tableExists, says[none, wire.TableExists]("catalog.tableExists", "")},
		{"GET " + uc + "permissions/{type}/{name}", signedIn, d.grants, says[none, wire.Grants]("catalog.getGrants", "principal")},
		{"PATCH " + uc + "permissions/{type}/{name}", signedIn, d.changeGrants, says[wire.GrantChanges, wire.Grants]("catalog.updateGrants", "")},
		{"GET " + uc + "effective-permissions/{type}/{name}", signedIn, d.effectiveGrants, says[none, wire.EffectiveGrants]("catalog.getEffectiveGrants", "principal")},

		{"GET " + mine + "tables/{table}/head", signedIn, lake.head, says[none, wire.TableRows]("tarn.tableHead", "limit version")},
		{"GET " + mine + "tables/{table}/count", signedIn, lake.count, says[none, wire.TableCount]("tarn.tableCount", "version")},
		{"GET " + mine + "tables/{table}/history", signedIn, lake.history, says[none, wire.TableHistory]("tarn.tableHistory", "limit")},
	}
}
