package catalog

import (
	"context"
	"fmt"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Force says whether what an object holds goes with it.
type Force bool

// The two.
const (
	OnlyEmpty      Force = false
	WithEverything Force = true
)

// Objects are catalogs, schemas and the entries of tables as things that are
// made, changed and deleted.
type Objects struct{ db *controldb.DB }

// Objects gives those of the workspace.
func (c *Catalog) Objects() *Objects { return &Objects{c.db} }

// CatalogEntries gives every catalog of Delta tables, by name.
func (c *Objects) CatalogEntries(ctx context.Context) ([]tarn.CatalogEntry, error) {
	return controldb.ListCatalogs(ctx, c.db)
}

// CatalogEntry gives one; KindNotFound.
func (c *Objects) CatalogEntry(ctx context.Context, name string) (tarn.CatalogEntry, error) {
	return controldb.GetCatalog(ctx, c.db, name)
}

// SchemaEntries gives the schemas of a catalog, by name; KindNotFound without it.
func (c *Objects) SchemaEntries(ctx context.Context, catalog string) ([]tarn.SchemaEntry, error) {
	if _, err := controldb.GetCatalog(ctx, c.db, catalog); err != nil {
		return nil, err
	}
	return controldb.ListSchemas(ctx, c.db, catalog)
}

// SchemaEntry gives one; KindNotFound.
func (c *Objects) SchemaEntry(ctx context.Context, catalog, name string) (tarn.SchemaEntry, error) {
	return controldb.GetSchema(ctx, c.db, catalog, name)
}

// CreateSchema records a schema, owned by p. KindInvalid (the name), KindNotFound
// (the catalog), KindConflict (the name is taken).
func (c *Objects) CreateSchema(ctx context.Context, p tarn.Principal, e tarn.SchemaEntry) (tarn.SchemaEntry, error) {
	err := checkParts(e.Name)
	if err == nil {
		err = checkText(e.ObjectEntry)
	}
	if err == nil {
		_, err = controldb.GetCatalog(ctx, c.db, e.Catalog)
	}
	if err == nil {
		e.Owner, e.CreatedBy = p.Name, p.Name
		e, err = controldb.InsertSchema(ctx, c.db, e)
	}
	if err != nil {
		return e, fmt.Errorf("create schema %s.%s: %w", e.Catalog, e.Name, err)
	}
	return e, nil
}

// change applies what is asked to an entry whose owner, comment and properties
// these are.
func change(ctx context.Context, tx *controldb.Tx, e *tarn.ObjectEntry, by tarn.Principal, ch tarn.ObjectChange) error {
	if ch.Owner != nil && *ch.Owner != "" {
		if _, err := controldb.GetPrincipal(ctx, tx, *ch.Owner); err != nil {
			return err
		}
	}
	if ch.Owner != nil {
		e.Owner = *ch.Owner
	}
	if ch.Comment != nil {
		e.Comment = *ch.Comment
	}
	if ch.Properties != nil {
		e.Properties = ch.Properties
	}
	e.UpdatedBy = by.Name
	return checkText(*e)
}

// ChangeCatalog changes owner, comment or properties of a catalog.
func (c *Objects) ChangeCatalog(ctx context.Context, by tarn.Principal, name string, ch tarn.ObjectChange) (tarn.CatalogEntry, error) {
	err := c.db.InTx(ctx, func(tx *controldb.Tx) error {
		e, err := controldb.GetCatalog(ctx, tx, name)
		if err == nil {
			err = change(ctx, tx, &e.ObjectEntry, by, ch)
		}
		if err == nil {
			err = controldb.SetCatalog(ctx, tx, e)
		}
		return err
	})
	if err != nil {
		return tarn.CatalogEntry{}, fmt.Errorf("change catalog %s: %w", name, err)
	}
	return controldb.GetCatalog(ctx, c.db, name)
}

// ChangeSchema changes owner, comment or properties of a schema.
func (c *Objects) ChangeSchema(ctx context.Context, by tarn.Principal, catalog, name string, ch tarn.ObjectChange) (tarn.SchemaEntry, error) {
	err := c.db.InTx(ctx, func(tx *controldb.Tx) error {
		e, err := controldb.GetSchema(ctx, tx, catalog, name)
		if err == nil {
			err = change(ctx, tx, &e.ObjectEntry, by, ch)
		}
		if err == nil {
			err = controldb.SetSchema(ctx, tx, e)
		}
		return err
	})
	if err != nil {
		return tarn.SchemaEntry{}, fmt.Errorf("change schema %s.%s: %w", catalog, name, err)
	}
	return controldb.GetSchema(ctx, c.db, catalog, name)
}

// ChangeTable changes owner, comment or properties of a Delta table's entry.
func (c *Objects) ChangeTable(ctx context.Context, by tarn.Principal, n tarn.TableName, ch tarn.ObjectChange) (tarn.CatalogTable, error) {
	err := c.db.InTx(ctx, func(tx *controldb.Tx) error {
		t, err := controldb.GetTable(ctx, tx, n)
		if err != nil {
			return err
		}
		e := tarn.ObjectEntry{Owner: t.Owner, Comment: t.Comment, Properties: t.Properties}
		if err := change(ctx, tx, &e, by, ch); err != nil {
			return err
		}
		t.Owner, t.Comment, t.Properties, t.UpdatedBy = e.Owner, e.Comment, e.Properties, e.UpdatedBy
		return controldb.SetTable(ctx, tx, t)
	})
	if err != nil {
		return tarn.CatalogTable{}, fmt.Errorf("change table %s: %w", n, err)
	}
	return controldb.GetTable(ctx, c.db, n)
}

// DeleteSchema forgets a schema and what was granted on it. The files of its
// tables stay. KindConflict when it holds tables and force does not take them, and
// always while a feed or a synced table works with it.
func (c *Objects) DeleteSchema(ctx context.Context, catalog, name string, force Force) error {
	err := c.db.InTx(ctx, func(tx *controldb.Tx) error { return deleteSchema(ctx, tx, catalog, name, force) })
	if err != nil {
		return fmt.Errorf("delete schema %s.%s: %w", catalog, name, err)
	}
	return nil
}

func deleteSchema(ctx context.Context, tx *controldb.Tx, catalog, name string, force Force) error {
	// The row goes first, so that who makes a table in it waits; what follows
	// may still refuse and bring it back.
	if err := controldb.DeleteSchema(ctx, tx, catalog, name); err != nil {
		return err
	}
	by, err := controldb.UsedBy(ctx, tx, catalog, name)
	if err != nil {
		return err
	}
	if by != "" {
		return tarn.Conflict("%s works with it", by).WithHint("delete that first")
	}
	tables, err := controldb.ListTables(ctx, tx, catalog, name)
	if err != nil {
		return err
	}
	if len(tables) > 0 && !force {
		return tarn.Conflict("it is not empty: table %s is in it", tables[0].Name.Table).WithHint("drop its tables first, or use --force (CASCADE in SQL); their files stay")
	}
	for _, t := range tables {
		if err := controldb.DropTable(ctx, tx, t.Name); err != nil {
			return err
		}
	}
	return nil
}

// DeleteCatalog forgets a catalog and what was granted on it, by the rules of
// DeleteSchema. Catalogs lake and system stay.
func (c *Objects) DeleteCatalog(ctx context.Context, name string, force Force) error {
	if name == Default || name == System {
		return tarn.Invalid("catalog %s belongs to every workspace and cannot be deleted", name)
	}
	err := c.db.InTx(ctx, func(tx *controldb.Tx) error {
		schemas, err := controldb.ListSchemas(ctx, tx, name)
		if err != nil {
			return err
		}
		if len(schemas) > 0 && !force {
			return tarn.Conflict("it is not empty: schema %s is in it", schemas[0].Name).WithHint("delete its schemas first, or use --force; files stay")
		}
		for _, s := range schemas {
			if err := deleteSchema(ctx, tx, name, s.Name, force); err != nil {
				return err
			}
		}
		by, err := controldb.UsedBy(ctx, tx, name, "")
		if err != nil {
			return err
		}
		if by != "" {
			return tarn.Conflict("%s works with it", by).WithHint("delete that first")
		}
		return controldb.DeleteCatalog(ctx, tx, name)
	})
	if err != nil {
		return fmt.Errorf("delete catalog %s: %w", name, err)
	}
	return nil
}

// System is the catalog of what Tarn writes about itself.
const System = "system"
