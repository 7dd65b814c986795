package controldb

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// Catalog is a catalog as recorded.
type Catalog struct {
	Name       string
	Root       string // URL under which its tables get their folders
	CreateTime time.Time
}

// InsertCatalog records a catalog; KindConflict when the name is taken.
func InsertCatalog(ctx context.Context, c Conn, name, root string) (Catalog, error) {
	out, err := scanCatalog(c.querier().QueryRow(ctx, insertCatalog, name, root))
	return out, fault(err, "catalog %q", name)
}

const insertCatalog = `INSERT INTO catalogs (name, root) VALUES ($1, $2) RETURNING name, root, created`

func scanCatalog(r pgx.Row) (c Catalog, err error) {
	err = r.Scan(&c.Name, &c.Root, (*stamp)(&c.CreateTime))
	return c, err
}

// GetCatalog reads a catalog.
func GetCatalog(ctx context.Context, c Conn, name string) (Catalog, error) {
	v, err := scanCatalog(c.querier().QueryRow(ctx, getCatalog, name))
	return v, fault(err, "catalog %q", name)
}

const getCatalog = `SELECT name, root, created FROM catalogs WHERE name = $1`

// ListCatalogs gives every catalog, by name.
func ListCatalogs(ctx context.Context, c Conn) ([]Catalog, error) {
	v, err := list(ctx, c, scanCatalog, listCatalogs)
	return v, fault(err, "catalogs")
}

const listCatalogs = `SELECT name, root, created FROM catalogs ORDER BY name`

// CatalogExists says whether a catalog of either kind has the name.
func CatalogExists(ctx context.Context, c Conn, name string) (ok bool, err error) {
	err = c.querier().QueryRow(ctx, catalogExists, name).Scan(&ok)
	return ok, fault(err, "catalog %q", name)
}

const catalogExists = `SELECT EXISTS (SELECT FROM catalogs WHERE name = $1) OR EXISTS (SELECT FROM registered_catalogs WHERE name = $1)`

// EnsureSchema records a schema unless it is there; its catalog must be.
func EnsureSchema(ctx context.Context, c Conn, catalog, name string) error {
	_, err := c.querier().Exec(ctx, ensureSchema, catalog, name)
	return fault(err, "schema %s.%s", catalog, name)
}

const ensureSchema = `INSERT INTO schemas (catalog, name) VALUES ($1, $2) ON CONFLICT DO NOTHING`

// ListSchemas gives the names of a catalog's schemas.
func ListSchemas(ctx context.Context, c Conn, catalog string) ([]string, error) {
	v, err := list(ctx, c, scanText, listSchemas, catalog)
	return v, fault(err, "schemas of catalog %q", catalog)
}

const listSchemas = `SELECT name FROM schemas WHERE catalog = $1 ORDER BY name`

// InsertTable records a table and returns it with its times; its schema must
// be there.
func InsertTable(ctx context.Context, c Conn, t tarn.CatalogTable) (tarn.CatalogTable, error) {
	out, err := scanTable(c.querier().QueryRow(ctx, insertTable, t.ID, t.Name.Catalog, t.Name.Schema, t.Name.Table,
		t.Location, t.Owner, t.Comment, t.Managed, object(t.Properties), t.CreatedBy))
	return out, fault(err, "table %s", t.Name)
}

const insertTable = `
INSERT INTO tables (id, catalog, schema, name, location, owner, comment, managed, properties, created_by, updated_by)
VALUES ($1, $2, $3, $4, $5, (SELECT name FROM principals WHERE name = $6), $7, $8, $9, $10, $10)
RETURNING ` + tableColumns

const tableColumns = `id, catalog, schema, name, location, owner, comment, managed, properties, created, created_by, updated, updated_by`

func scanTable(r pgx.Row) (t tarn.CatalogTable, err error) {
	err = r.Scan(&t.ID, &t.Name.Catalog, &t.Name.Schema, &t.Name.Table, &t.Location, (*word)(&t.Owner), &t.Comment,
		&t.Managed, &t.Properties, (*stamp)(&t.CreateTime), &t.CreatedBy, (*stamp)(&t.UpdateTime), &t.UpdatedBy)
	t.Properties = noEmpty(t.Properties)
	return t, err
}

// GetTable reads a table by its name.
func GetTable(ctx context.Context, c Conn, n tarn.TableName) (tarn.CatalogTable, error) {
	t, err := scanTable(c.querier().QueryRow(ctx, getTable, n.Catalog, n.Schema, n.Table))
	return t, fault(err, "table %s", n)
}

const getTable = `SELECT ` + tableColumns + ` FROM tables
WHERE catalog = $1 AND schema = $2 AND name = $3 AND dropped IS NULL`

// ListTables gives the tables of a schema; schema "" = the whole catalog;
// catalog "" = all.
func ListTables(ctx context.Context, c Conn, catalog, schema string) ([]tarn.CatalogTable, error) {
	v, err := list(ctx, c, scanTable, listTables, catalog, schema)
	return v, fault(err, "tables of %s.%s", catalog, schema)
}

const listTables = `SELECT ` + tableColumns + ` FROM tables
WHERE ($1 = '' OR catalog = $1) AND ($2 = '' OR schema = $2) AND dropped IS NULL
ORDER BY catalog, schema, name`

// LocationUsed says whether a table has or had that location.
func LocationUsed(ctx context.Context, c Conn, location string) (bool, error) {
	var one int
	err := c.querier().QueryRow(ctx, locationUsed, location).Scan(&one)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	return err == nil, fault(err, "location %s", location)
}

const locationUsed = `SELECT 1 FROM tables WHERE location = $1 LIMIT 1`

// DropTable forgets a table's name; the row goes on saying whose its location
// was.
func DropTable(ctx context.Context, c Conn, n tarn.TableName) error {
	return fault(exec(ctx, c, dropTable, n.Catalog, n.Schema, n.Table), "table %s", n)
}

const dropTable = `UPDATE tables SET dropped = now(), updated = now()
WHERE catalog = $1 AND schema = $2 AND name = $3 AND dropped IS NULL`
