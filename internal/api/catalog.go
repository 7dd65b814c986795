package api

import (
	"context"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/control"
)

// catalogDoor registers databases as catalogs, in the words of both services.
// Who registers one needs CAN_MANAGE on its project, and who reads one CAN_CREATE.
type catalogDoor struct {
	control *control.Control
	catalog *catalog.Catalog
	ops     *operationDoor
}

// registration is what either service asks for.
type registration struct {
	name     string
	branch   tarn.BranchName
	database string
	missing  missingDatabase
}

// missingDatabase says what to do when there is no such database.
type missingDatabase int

const (
	refuseMissing missingDatabase = iota
	createMissing
)

func missingOf(create *bool) missingDatabase {
	if create != nil && *create {
		return createMissing
	}
	return refuseMissing
}

func (d *catalogDoor) register(ctx context.Context, q *query, in registration) (tarn.RegisteredCatalog, error) {
	if err := q.need(ctx, in.branch.Parent(), tarn.CanManage); err != nil {
		return tarn.RegisteredCatalog{}, err
	}
	all, err := d.control.Databases.List(ctx, in.branch)
	if err != nil {
		return tarn.RegisteredCatalog{}, err
	}
	found := false
	for _, db := range all {
		found = found || db.Name == in.database
	}
	switch {
	case found:
	case in.missing == createMissing:
		if _, err := d.control.Databases.Create(ctx, tarn.DatabaseSpec{Branch: in.branch, Name: in.database, Owner: q.who.Name}); err != nil {
			return tarn.RegisteredCatalog{}, err
		}
	default:
		return tarn.RegisteredCatalog{}, tarn.NotFound("%s has no database %q", in.branch, in.database)
	}
	return d.catalog.Register(ctx, d.control, in.name, in.branch, in.database)
}

// read finds a catalog that who asks may use at level l.
func (d *catalogDoor) read(ctx context.Context, q *query, l tarn.Level) (tarn.RegisteredCatalog, error) {
	r, err := d.catalog.Registered(ctx, q.r.PathValue("catalog"))
	if err == nil {
		err = q.need(ctx, r.Branch.Parent(), l)
	}
	return r, err
}

func (d *catalogDoor) create(ctx context.Context, q *query) (any, error) {
	var in wire.PostgresCatalog
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	name := q.text("catalog_id")
	if name == "" {
		return nil, badField("catalog_id", "is missing")
	}
	if in.Spec == nil || in.Spec.PostgresDatabase == "" {
		return nil, badField("spec.postgres_database", "is missing")
	}
	b, err := tarn.ParseBranchName(in.Spec.Branch)
	if err != nil {
		return nil, badField("spec.branch", "%s", err)
	}
	r, err := d.register(ctx, q, registration{name, b, in.Spec.PostgresDatabase, missingOf(in.Spec.CreateDatabaseIfMissing)})
	if err != nil {
		return nil, existing(err, alreadyExists, func() error { return nil })
	}
	return d.ops.done("catalogs/"+r.Name, verbCreate, r.UID, registeredOf(r))
}

func (d *catalogDoor) get(ctx context.Context, q *query) (any, error) {
	r, err := d.read(ctx, q, tarn.CanCreate)
	if err != nil {
		return nil, err
	}
	return registeredOf(r), nil
}

func (d *catalogDoor) delete(ctx context.Context, q *query) (any, error) {
	r, err := d.read(ctx, q, tarn.CanManage)
	if err == nil {
		err = d.catalog.Unregister(ctx, r.Name)
	}
	if err != nil {
		return nil, err
	}
	return d.ops.done("catalogs/"+r.Name, verbDelete, r.UID, nil)
}

func registeredOf(r tarn.RegisteredCatalog) wire.PostgresCatalog {
	return wire.PostgresCatalog{
		Name: "catalogs/" + r.Name, CatalogID: r.Name, UID: r.UID, CreateTime: wire.Time(r.CreateTime), UpdateTime: wire.Time(r.UpdateTime),
		Status: &wire.PostgresCatalogStatus{Branch: r.Branch.String(), PostgresDatabase: r.Database, Project: r.Branch.Parent().String()},
	}
}

// ---- the database service: an instance is a project's default branch --------

func (d *catalogDoor) createOfInstance(ctx context.Context, q *query) (any, error) {
	var in wire.DatabaseCatalog
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	for _, f := range []struct{ name, value string }{
		{"name", in.Name}, {"database_instance_name", in.DatabaseInstanceName}, {"database_name", in.DatabaseName},
	} {
		if f.value == "" {
			return nil, badField(f.name, "is missing")
		}
	}
	b, err := branchOfInstance(ctx, d.control, in.DatabaseInstanceName)
	if err != nil {
		return nil, err
	}
	r, err := d.register(ctx, q, registration{in.Name, b, in.DatabaseName, missingOf(in.CreateDatabaseIfNotExists)})
	if err != nil {
		return nil, existing(err, resourceAlreadyExists, func() error { return nil })
	}
	out := instanceCatalogOf(r)
	out.CreateDatabaseIfNotExists = in.CreateDatabaseIfNotExists
	return out, nil
}

func (d *catalogDoor) getOfInstance(ctx context.Context, q *query) (any, error) {
	r, err := d.read(ctx, q, tarn.CanCreate)
	if err != nil {
		return nil, err
	}
	return instanceCatalogOf(r), nil
}

// updateOfInstance changes nothing, as documented, but is asked by Terraform: it
// answers when what it is asked is what there is.
func (d *catalogDoor) updateOfInstance(ctx context.Context, q *query) (any, error) {
	var in wire.DatabaseCatalog
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	r, err := d.read(ctx, q, tarn.CanManage)
	if err != nil {
		return nil, err
	}
	have := instanceCatalogOf(r)
	if in.DatabaseInstanceName != "" && in.DatabaseInstanceName != have.DatabaseInstanceName || in.DatabaseName != "" && in.DatabaseName != have.DatabaseName {
		return nil, badField("database_catalog", "a catalog stays with its database (%s of instance %s): delete it and make another", have.DatabaseName, have.DatabaseInstanceName)
	}
	return have, nil
}

func (d *catalogDoor) deleteOfInstance(ctx context.Context, q *query) (any, error) {
	r, err := d.read(ctx, q, tarn.CanManage)
	if err != nil {
		return nil, err
	}
	return nil, d.catalog.Unregister(ctx, r.Name)
}

func (d *catalogDoor) listOfInstance(ctx context.Context, q *query) (any, error) {
	p, err := q.project()
	if err != nil {
		return nil, err
	}
	pg, err := q.page("page_size")
	if err != nil {
		return nil, err
	}
	if _, err := d.control.GetProject(ctx, p); err != nil {
		return nil, err
	}
	all, err := d.catalog.AllRegistered(ctx)
	if err != nil {
		return nil, err
	}
	var mine []tarn.RegisteredCatalog
	for _, r := range all {
		if r.Branch.Parent() == p {
			mine = append(mine, r)
		}
	}
	page, next, err := pageOf(mine, func(r tarn.RegisteredCatalog) string { return r.Name }, pg)
	out := wire.ListDatabaseCatalogs{DatabaseCatalogs: []wire.DatabaseCatalog{}, NextPageToken: next}
	for _, r := range page {
		out.DatabaseCatalogs = append(out.DatabaseCatalogs, instanceCatalogOf(r))
	}
	return out, err
}

func instanceCatalogOf(r tarn.RegisteredCatalog) wire.DatabaseCatalog {
	return wire.DatabaseCatalog{Name: r.Name, DatabaseInstanceName: r.Branch.Project, DatabaseName: r.Database, UID: r.UID}
}
