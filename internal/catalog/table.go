package catalog

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/google/uuid"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Table resolves a name, or fails with tarn.KindNotFound.
func (c *Catalog) Table(ctx context.Context, n tarn.TableName) (tarn.CatalogTable, error) {
	return controldb.GetTable(ctx, c.db, n)
}

// CreateTable registers a table; location "" gives it a folder under its
// catalog's root. Its catalog must exist; its schema is made, of p, when missing.
// KindConflict when the name is taken.
func (c *Catalog) CreateTable(ctx context.Context, p tarn.Principal, n tarn.TableName, location, comment string) (tarn.CatalogTable, error) {
	t, err := c.entry(ctx, p, n, comment)
	if err != nil {
		return t, err
	}
	if location != "" {
		u, err := parseLocation(location)
		if err != nil {
			return tarn.CatalogTable{}, fmt.Errorf("create table %s: %w", n, err)
		}
		t.Location, t.Managed = u.String(), false
	}
	return c.RegisterTable(ctx, t)
}

func (c *Catalog) entry(ctx context.Context, p tarn.Principal, n tarn.TableName, comment string) (tarn.CatalogTable, error) {
	err := checkParts(n.Catalog, n.Schema, n.Table)
	if err == nil {
		err = c.mustHave(ctx, n.Catalog)
	}
	if err != nil {
		return tarn.CatalogTable{}, fmt.Errorf("create table %s: %w", n, err)
	}
	return tarn.CatalogTable{Name: n, ID: uuid.NewString(), Owner: p.Name, Comment: comment, Managed: true, CreatedBy: p.Name}, nil
}

// DraftTable gives the entry that a managed table would have, in a folder that is its
// own whatever becomes of it. Nobody sees the table before RegisterTable.
func (c *Catalog) DraftTable(ctx context.Context, p tarn.Principal, n tarn.TableName, comment string) (tarn.CatalogTable, error) {
	t, err := c.entry(ctx, p, n, comment)
	if err == nil {
		err = checkText(tarn.ObjectEntry{Comment: comment})
	}
	if err == nil {
		t.Location, err = ownFolder(ctx, c.db, t)
	}
	if err == nil && !strings.HasSuffix(t.Location, "-"+t.ID[:8]) {
		t.Location += "-" + t.ID[:8]
	}
	return t, err
}

// RegisterTable records a table, which gets a folder when it has none yet. Its schema
// is made, of the table's owner, when missing. KindConflict when the name is
// taken.
func (c *Catalog) RegisterTable(ctx context.Context, t tarn.CatalogTable) (tarn.CatalogTable, error) {
	location := t.Location
	err := c.db.InTx(ctx, func(tx *controldb.Tx) (err error) {
		t.Location = location
		if location == "" {
			if t.Location, err = ownFolder(ctx, tx, t); err != nil {
				return err
			}
		}
		if err := controldb.EnsureSchema(ctx, tx, t.Name.Catalog, t.Name.Schema, t.Owner); err != nil {
			return err
		}
		if err := controldb.LockSchema(ctx, tx, t.Name.Catalog, t.Name.Schema); err != nil {
			return err
		}
		t, err = controldb.InsertTable(ctx, tx, t)
		return err
	})
	return t, err
}

// ownFolder chooses <root>/<schema>/<table>, and when a table has or had that
// folder, as a dropped one of the same name does, one that nobody had.
func ownFolder(ctx context.Context, c controldb.Conn, t tarn.CatalogTable) (string, error) {
	cat, err := controldb.GetCatalog(ctx, c, t.Name.Catalog)
	if err != nil {
		return "", err
	}
	root, err := parseLocation(cat.Root)
	if err != nil {
		return "", err
	}
	folder := root.JoinPath(url.PathEscape(t.Name.Schema), url.PathEscape(t.Name.Table)).String()
	used, err := controldb.LocationUsed(ctx, c, folder)
	if used {
		folder += "-" + t.ID[:8]
	}
	return folder, err
}

// DropTable removes the entry, not the files.
func (c *Catalog) DropTable(ctx context.Context, p tarn.Principal, n tarn.TableName) error {
	return controldb.DropTable(ctx, c.db, n)
}

// Tables lists a schema's tables; schema "" = the whole catalog; catalog "" =
// all. KindNotFound when a catalog is named that is not there.
func (c *Catalog) Tables(ctx context.Context, catalog, schema string) ([]tarn.CatalogTable, error) {
	if catalog != "" {
		if err := c.mustHave(ctx, catalog); err != nil {
			return nil, err
		}
	}
	return controldb.ListTables(ctx, c.db, catalog, schema)
}
