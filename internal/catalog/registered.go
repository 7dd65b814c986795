package catalog

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/pgvalue"
)

// Computes is what following registered databases needs of the computes.
type Computes interface {
	// Connect opens a superuser connection to a database of a branch, waking
	// its compute when it sleeps.
	Connect(ctx context.Context, b tarn.BranchName, database string, cfg func(*pgx.ConnConfig)) (*pgx.Conn, error)
	// ComputeOf reports the branch's read-write compute without waking it.
	ComputeOf(ctx context.Context, b tarn.BranchName) (tarn.ComputeStatus, error)
}

// Register makes a database of a branch appear as a catalog, and looks at what it
// holds. KindInvalid (the name), KindNotFound (the database), KindConflict (the
// name is taken, or the database has a catalog).
func (c *Catalog) Register(ctx context.Context, computes Computes, name string, b tarn.BranchName, database string) (tarn.RegisteredCatalog, error) {
	r := tarn.RegisteredCatalog{Name: name, UID: uuid.NewString(), Branch: b, Database: database}
	if err := c.register(ctx, computes, &r); err != nil {
		return r, fmt.Errorf("register database %s of %s as catalog %s: %w", database, b, name, err)
	}
	return r, nil
}

func (c *Catalog) register(ctx context.Context, computes Computes, r *tarn.RegisteredCatalog) (err error) {
	if err := checkParts(r.Name); err != nil {
		return err
	}
	if r.Objects, err = look(ctx, computes, *r); err != nil {
		return err
	}
	return c.db.InTx(ctx, func(tx *controldb.Tx) error {
		if err := controldb.InsertRegisteredCatalog(ctx, tx, *r); err != nil {
			return err
		}
		return controldb.SetRegisteredObjects(ctx, tx, r.Name, r.Objects)
	})
}

// Unregister forgets the catalog of a database, which stays. KindNotFound.
func (c *Catalog) Unregister(ctx context.Context, name string) error {
	return controldb.DeleteRegisteredCatalog(ctx, c.db, name)
}

// Registered gives one registered catalog; KindNotFound.
func (c *Catalog) Registered(ctx context.Context, name string) (tarn.RegisteredCatalog, error) {
	return controldb.GetRegisteredCatalog(ctx, c.db, name)
}

// AllRegistered gives all of them, by name.
func (c *Catalog) AllRegistered(ctx context.Context) ([]tarn.RegisteredCatalog, error) {
	return controldb.ListRegisteredCatalogs(ctx, c.db)
}

// Follow keeps what is known of registered databases true while their computes
// are awake. It wakes none, and its looking does not keep one awake.
func (c *Catalog) Follow(ctx context.Context, computes Computes, every time.Duration, log *slog.Logger) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		all, err := c.AllRegistered(ctx)
		if err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "list registered catalogs", "err", err)
		}
		for _, r := range all {
			if err := c.follow(ctx, computes, r); err != nil && ctx.Err() == nil {
				log.WarnContext(ctx, "look at a registered database", "branch", r.Branch, "path", r.Database, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (c *Catalog) follow(ctx context.Context, computes Computes, r tarn.RegisteredCatalog) error {
	st, err := computes.ComputeOf(ctx, r.Branch)
	if err != nil || st.State != tarn.ComputeActive {
		return err
	}
	objects, err := look(ctx, computes, r)
	if err != nil {
		return err
	}
	return controldb.SetRegisteredObjects(ctx, c.db, r.Name, objects)
}

const objectsSQL = `SELECT n.nspname, c.relname, c.relkind IN ('v', 'm'), coalesce(obj_description(c.oid, 'pg_class'), ''),
	a.attname, a.atttypid, a.atttypmod, NOT a.attnotnull, coalesce(col_description(c.oid, a.attnum), '')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'databricks_auth')
AND n.nspname NOT LIKE 'pg\_%' AND n.nspname NOT LIKE 'tarn\_%' ORDER BY 1, 2, a.attnum`

// look reads the tables and views of a database.
func look(ctx context.Context, computes Computes, r tarn.RegisteredCatalog) ([]tarn.CatalogObject, error) {
	conn, err := computes.Connect(ctx, r.Branch, r.Database, func(c *pgx.ConnConfig) { c.RuntimeParams["application_name"] = "tarn catalog" })
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	type found struct {
		object tarn.CatalogObject
		column tarn.ObjectColumn
		oid    uint32
		mod    int32
	}
	rows, err := conn.Query(ctx, objectsSQL)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (f found, err error) {
		o, c := &f.object, &f.column
		return f, r.Scan(&o.Schema, &o.Name, &o.View, &o.Comment, &c.Name, &f.oid, &f.mod, &c.Nullable, &c.Comment)
	})
	if err != nil {
		return nil, err
	}
	types := pgvalue.NewTypes(conn)
	objects := []tarn.CatalogObject{}
	for _, f := range all {
		t, err := types.Resolve(ctx, f.oid, f.mod)
		if err != nil {
			return nil, err
		}
		f.column.Type, f.column.Postgres = t.Delta, t.Name
		if n := len(objects); n == 0 || objects[n-1].Schema != f.object.Schema || objects[n-1].Name != f.object.Name {
			objects = append(objects, f.object)
		}
		last := &objects[len(objects)-1]
		last.Columns = append(last.Columns, f.column)
	}
	return objects, nil
}

// SchemasOf lists the schemas of a registered catalog.
func SchemasOf(r tarn.RegisteredCatalog) []string {
	var names []string
	for _, o := range r.Objects {
		names = append(names, o.Schema)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
