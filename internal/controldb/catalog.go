package controldb

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// InsertCatalog records a catalog and returns it with its id and times; its
// owner is whoever made it. KindConflict when a catalog of either kind has the
// name.
func InsertCatalog(ctx context.Context, c Conn, e tarn.CatalogEntry) (tarn.CatalogEntry, error) {
	out, err := scanCatalog(c.querier().QueryRow(ctx, insertCatalog, e.Name, e.Root, e.Owner, e.Comment, object(e.Properties), e.CreatedBy))
	if errors.Is(err, pgx.ErrNoRows) {
		return out, tarn.Conflict("catalog %q already exists", e.Name)
	}
	return out, fault(err, "catalog %q", e.Name)
}

const insertCatalog = `
INSERT INTO catalogs (name, root, owner, comment, properties, created_by, updated_by)
SELECT $1, $2, (SELECT name FROM principals WHERE name = $3), $4, $5, $6, $6 WHERE NOT EXISTS (SELECT FROM registered_catalogs WHERE name = $1)
RETURNING ` + catalogColumns

const (
	objectColumns  = `name, id, owner, comment, properties, created, created_by, updated, updated_by`
	catalogColumns = objectColumns + `, root`
	schemaColumns  = objectColumns + `, catalog`
)

func objectFields(e *tarn.ObjectEntry) []any {
	return []any{&e.Name, &e.ID, (*word)(&e.Owner), &e.Comment, &e.Properties, (*stamp)(&e.CreateTime), &e.CreatedBy, (*stamp)(&e.UpdateTime), &e.UpdatedBy}
}

func scanCatalog(r pgx.Row) (c tarn.CatalogEntry, err error) {
	err = r.Scan(append(objectFields(&c.ObjectEntry), &c.Root)...)
	c.Properties = noEmpty(c.Properties)
	return c, err
}

func scanSchema(r pgx.Row) (s tarn.SchemaEntry, err error) {
	err = r.Scan(append(objectFields(&s.ObjectEntry), &s.Catalog)...)
	s.Properties = noEmpty(s.Properties)
	return s, err
}

// GetCatalog reads a catalog.
func GetCatalog(ctx context.Context, c Conn, name string) (tarn.CatalogEntry, error) {
	v, err := scanCatalog(c.querier().QueryRow(ctx, getCatalog, name))
	return v, fault(err, "catalog %q", name)
}

const getCatalog = `SELECT ` + catalogColumns + ` FROM catalogs WHERE name = $1`

// ListCatalogs gives every catalog, by name.
func ListCatalogs(ctx context.Context, c Conn) ([]tarn.CatalogEntry, error) {
	v, err := list(ctx, c, scanCatalog, listCatalogs)
	return v, fault(err, "catalogs")
}

const listCatalogs = `SELECT ` + catalogColumns + ` FROM catalogs ORDER BY name`

// SetCatalog records what may change of a catalog.
func SetCatalog(ctx context.Context, c Conn, e tarn.CatalogEntry) error {
	return fault(exec(ctx, c, setCatalog, e.Name, word(e.Owner), e.Comment, object(e.Properties), e.UpdatedBy), "catalog %q", e.Name)
}

const setCatalog = `UPDATE catalogs SET owner = $2, comment = $3, properties = $4, updated_by = $5, updated = now() WHERE name = $1`

// DeleteCatalog forgets a catalog and what was granted on it; KindConflict while
// it has schemas.
func DeleteCatalog(ctx context.Context, c Conn, name string) error {
	return fault(exec(ctx, c, deleteCatalog, name), "catalog %q", name)
}

const deleteCatalog = `DELETE FROM catalogs WHERE name = $1`

// CatalogExists says whether a catalog of either kind has the name.
func CatalogExists(ctx context.Context, c Conn, name string) (ok bool, err error) {
	err = c.querier().QueryRow(ctx, catalogExists, name).Scan(&ok)
	return ok, fault(err, "catalog %q", name)
}

const catalogExists = `SELECT EXISTS (SELECT FROM catalogs WHERE name = $1) OR EXISTS (SELECT FROM registered_catalogs WHERE name = $1)`

// EnsureSchema records a schema of owner unless it is there; its catalog must be.
func EnsureSchema(ctx context.Context, c Conn, catalog, name, owner string) error {
	_, err := c.querier().Exec(ctx, ensureSchema, catalog, name, owner)
	return fault(err, "schema %s.%s", catalog, name)
}

const ensureSchema = `INSERT INTO schemas (catalog, name, owner) VALUES ($1, $2, (SELECT name FROM principals WHERE name = $3)) ON CONFLICT DO NOTHING`

// InsertSchema records a schema and returns it with its id and times.
func InsertSchema(ctx context.Context, c Conn, e tarn.SchemaEntry) (tarn.SchemaEntry, error) {
	out, err := scanSchema(c.querier().QueryRow(ctx, insertSchema, e.Catalog, e.Name, e.Owner, e.Comment, object(e.Properties), e.CreatedBy))
	return out, fault(err, "schema %s.%s", e.Catalog, e.Name)
}

const insertSchema = `
INSERT INTO schemas (catalog, name, owner, comment, properties, created_by, updated_by)
VALUES ($1, $2, (SELECT name FROM principals WHERE name = $3), $4, $5, $6, $6) RETURNING ` + schemaColumns

// GetSchema reads a schema.
func GetSchema(ctx context.Context, c Conn, catalog, name string) (tarn.SchemaEntry, error) {
	v, err := scanSchema(c.querier().QueryRow(ctx, getSchema, catalog, name))
	return v, fault(err, "schema %s.%s", catalog, name)
}

const getSchema = `SELECT ` + schemaColumns + ` FROM schemas WHERE catalog = $1 AND name = $2`

// LockSchema keeps a schema from being deleted until the transaction ends.
func LockSchema(ctx context.Context, tx *Tx, catalog, name string) error {
	_, err := scanText(tx.tx.QueryRow(ctx, lockSchema, catalog, name))
	return fault(err, "schema %s.%s", catalog, name)
}

const lockSchema = `SELECT name FROM schemas WHERE catalog = $1 AND name = $2 FOR SHARE`

// ListSchemas gives a catalog's schemas, by name; catalog "" = all.
func ListSchemas(ctx context.Context, c Conn, catalog string) ([]tarn.SchemaEntry, error) {
	v, err := list(ctx, c, scanSchema, listSchemas, catalog)
	return v, fault(err, "schemas of catalog %q", catalog)
}

const listSchemas = `SELECT ` + schemaColumns + ` FROM schemas WHERE $1 = '' OR catalog = $1 ORDER BY catalog, name`

// SetSchema records what may change of a schema.
func SetSchema(ctx context.Context, c Conn, e tarn.SchemaEntry) error {
	return fault(exec(ctx, c, setSchema, e.Catalog, e.Name, word(e.Owner), e.Comment, object(e.Properties), e.UpdatedBy), "schema %s.%s", e.Catalog, e.Name)
}

const setSchema = `UPDATE schemas SET owner = $3, comment = $4, properties = $5, updated_by = $6, updated = now() WHERE catalog = $1 AND name = $2`

// DeleteSchema forgets a schema and what was granted on it.
func DeleteSchema(ctx context.Context, c Conn, catalog, name string) error {
	return fault(exec(ctx, c, deleteSchema, catalog, name), "schema %s.%s", catalog, name)
}

const deleteSchema = `DELETE FROM schemas WHERE catalog = $1 AND name = $2`

// UsedBy names a feed or a synced table that writes into or reads from a schema,
// "" = any of the catalog; "" = none does.
func UsedBy(ctx context.Context, c Conn, catalog, schema string) (string, error) {
	s, err := scanText(c.querier().QueryRow(ctx, usedBy, catalog, schema))
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return s, fault(err, "schema %s.%s", catalog, schema)
}

const usedBy = `
SELECT 'feed ' || id FROM feeds WHERE catalog = $1 AND ($2 = '' OR schema = $2)
UNION ALL SELECT 'synced table ' || catalog || '.' || schema || '.' || name FROM synced_tables
	WHERE catalog = $1 AND ($2 = '' OR schema = $2) OR source_catalog = $1 AND ($2 = '' OR source_schema = $2) LIMIT 1`

// SetTable records what may change of a table.
func SetTable(ctx context.Context, c Conn, t tarn.CatalogTable) error {
	return fault(exec(ctx, c, setTable, t.ID, word(t.Owner), t.Comment, object(t.Properties), t.UpdatedBy), "table %s", t.Name)
}

const setTable = `UPDATE tables SET owner = $2, comment = $3, properties = $4, updated_by = $5, updated = now() WHERE id = $1 AND dropped IS NULL`

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
