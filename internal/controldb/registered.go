package controldb

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// InsertRegisteredCatalog records a registered database; KindConflict when the
// name is taken, by a catalog of either kind, or the database has a catalog.
func InsertRegisteredCatalog(ctx context.Context, tx *Tx, r tarn.RegisteredCatalog) error {
	var taken bool
	if err := tx.tx.QueryRow(ctx, catalogTaken, r.Name).Scan(&taken); err != nil {
		return fault(err, "catalog %q", r.Name)
	}
	if taken {
		return tarn.Conflict("catalog %q already exists", r.Name)
	}
	_, err := tx.tx.Exec(ctx, insertRegistered, r.Name, r.UID, r.Branch.Project, r.Branch.Branch, r.Database)
	return fault(err, "catalog %q", r.Name)
}

const (
	catalogTaken     = `SELECT EXISTS (SELECT FROM catalogs WHERE name = $1)`
	insertRegistered = `INSERT INTO registered_catalogs (name, uid, project, branch, database) VALUES ($1, $2, $3, $4, $5)`
)

// SetRegisteredObjects records what a registered database holds.
func SetRegisteredObjects(ctx context.Context, c Conn, name string, objects []tarn.CatalogObject) error {
	b, err := json.Marshal(objects)
	if err != nil {
		return fmt.Errorf("record objects of catalog %s: %w", name, err)
	}
	_, err = c.querier().Exec(ctx, setObjects, name, b)
	return fault(err, "catalog %q", name)
}

const setObjects = `UPDATE registered_catalogs SET objects = $2, updated = now() WHERE name = $1 AND objects IS DISTINCT FROM $2`

// GetRegisteredCatalog reads one; KindNotFound.
func GetRegisteredCatalog(ctx context.Context, c Conn, name string) (tarn.RegisteredCatalog, error) {
	r, err := scanRegistered(c.querier().QueryRow(ctx, getRegistered, name))
	return r, fault(err, "catalog %q", name)
}

// ListRegisteredCatalogs gives all of them, by name.
func ListRegisteredCatalogs(ctx context.Context, c Conn) ([]tarn.RegisteredCatalog, error) {
	v, err := list(ctx, c, scanRegistered, listRegistered)
	return v, fault(err, "registered catalogs")
}

// DeleteRegisteredCatalog forgets one; KindNotFound.
func DeleteRegisteredCatalog(ctx context.Context, c Conn, name string) error {
	tag, err := c.querier().Exec(ctx, deleteRegistered, name)
	if err == nil && tag.RowsAffected() == 0 {
		err = pgx.ErrNoRows
	}
	return fault(err, "catalog %q", name)
}

const (
	registeredColumns = `SELECT name, uid, project, branch, database, objects, created, updated FROM registered_catalogs`
	getRegistered     = registeredColumns + ` WHERE name = $1`
	listRegistered    = registeredColumns + ` ORDER BY name`
	deleteRegistered  = `DELETE FROM registered_catalogs WHERE name = $1`
)

func scanRegistered(row pgx.Row) (r tarn.RegisteredCatalog, err error) {
	var objects []byte
	if err = row.Scan(&r.Name, &r.UID, &r.Branch.Project, &r.Branch.Branch, &r.Database, &objects, (*stamp)(&r.CreateTime), (*stamp)(&r.UpdateTime)); err != nil {
		return r, err
	}
	if err = json.Unmarshal(objects, &r.Objects); err != nil {
		err = fmt.Errorf("read objects of catalog %s: %w", r.Name, err)
	}
	return r, err
}
