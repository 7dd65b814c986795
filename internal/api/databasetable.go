package api

import (
	"context"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/control"
)

// tableDoor gives Postgres tables names of the catalog, in the words of both
// services. The table itself is neither made nor dropped.
type tableDoor struct {
	control *control.Control
	catalog *catalog.Catalog
}

func (d *tableDoor) make(ctx context.Context, q *query, t tarn.DatabaseTable, taken string) error {
	if err := q.need(ctx, t.Branch.Parent(), tarn.CanUse); err != nil {
		return err
	}
	return existing(d.control.Published.CreateTable(ctx, t), taken, func() error {
		_, err := d.control.Published.Table(ctx, t.Name)
		return err
	})
}

func (d *tableDoor) createOfInstance(ctx context.Context, q *query) (any, error) {
	var in wire.DatabaseTable
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	n, err := tarn.ParseTableName(in.Name)
	if err != nil {
		return nil, badField("name", "%s", err)
	}
	t := tarn.DatabaseTable{Name: n, Database: in.LogicalDatabaseName}
	if in.DatabaseInstanceName != "" {
		if t.Branch, err = branchOfInstance(ctx, d.control, in.DatabaseInstanceName); err != nil {
			return nil, err
		}
	}
	r, err := d.catalog.Registered(ctx, n.Catalog)
	switch {
	case err == nil && (in.DatabaseInstanceName != "" && t.Branch != r.Branch || t.Database != "" && t.Database != r.Database):
		return nil, badField("name", "catalog %s is database %s of %s, not the one that is named", n.Catalog, r.Database, r.Branch)
	case err == nil:
		t.Branch, t.Database = r.Branch, r.Database
	case tarn.KindOf(err) != tarn.KindNotFound:
		return nil, err
	case in.DatabaseInstanceName == "":
		return nil, badField("database_instance_name", "is missing: catalog %s is no registered database", n.Catalog)
	case t.Database == "":
		return nil, badField("logical_database_name", "is missing: catalog %s is no registered database", n.Catalog)
	}
	if err := d.make(ctx, q, t, resourceAlreadyExists); err != nil {
		return nil, err
	}
	return d.ofInstance(ctx, t)
}

func (d *tableDoor) create(ctx context.Context, q *query) (any, error) {
	var in wire.PostgresTable
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	n, err := tarn.ParseTableName(in.Name)
	if err != nil {
		return nil, badField("name", "%s", err)
	}
	branch, id, ok := strings.Cut(in.Database, "/databases/")
	b, err := tarn.ParseBranchName(branch)
	if err != nil || !ok {
		return nil, badField("database", "got %q, want projects/{project}/branches/{branch}/databases/{database}", in.Database)
	}
	if err := q.need(ctx, b.Parent(), tarn.CanUse); err != nil {
		return nil, err
	}
	db, err := d.control.Databases.Get(ctx, b, id)
	if err != nil {
		return nil, err
	}
	t := tarn.DatabaseTable{Name: n, Branch: b, Database: db.Name}
	if err := d.make(ctx, q, t, alreadyExists); err != nil {
		return nil, err
	}
	return postgresTableOf(t), nil
}

// read finds the table that a path names, for who may have level l on its project.
func (d *tableDoor) read(ctx context.Context, q *query, l tarn.Level) (tarn.DatabaseTable, error) {
	n, err := q.table()
	if err != nil {
		return tarn.DatabaseTable{}, err
	}
	t, err := d.control.Published.Table(ctx, n)
	if err == nil {
		err = q.need(ctx, t.Branch.Parent(), l)
	}
	return t, err
}

func (d *tableDoor) getOfInstance(ctx context.Context, q *query) (any, error) {
	t, err := d.read(ctx, q, tarn.CanCreate)
	if err != nil {
		return nil, err
	}
	return d.ofInstance(ctx, t)
}

func (d *tableDoor) get(ctx context.Context, q *query) (any, error) {
	t, err := d.read(ctx, q, tarn.CanCreate)
	if err != nil {
		return nil, err
	}
	return postgresTableOf(t), nil
}

func (d *tableDoor) delete(ctx context.Context, q *query) (any, error) {
	t, err := d.read(ctx, q, tarn.CanUse)
	if err != nil {
		return nil, err
	}
	return nil, d.control.Published.DeleteTable(ctx, t.Name)
}

// ofInstance names the instance that the table's branch is; a branch that is
// none is named by its project.
func (d *tableDoor) ofInstance(ctx context.Context, t tarn.DatabaseTable) (any, error) {
	out := wire.DatabaseTable{Name: t.Name.String(), DatabaseInstanceName: t.Branch.Project, LogicalDatabaseName: t.Database}
	children, err := d.control.Published.Children(ctx, t.Branch.Parent())
	for _, c := range children {
		if c.Branch == t.Branch {
			out.DatabaseInstanceName = c.Name
		}
	}
	return out, err
}

func postgresTableOf(t tarn.DatabaseTable) wire.PostgresTable {
	return wire.PostgresTable{Name: t.Name.String(), Branch: t.Branch.String(), Project: t.Branch.Parent().String(), Database: t.Branch.String() + "/databases/" + databaseID(t.Database)}
}
