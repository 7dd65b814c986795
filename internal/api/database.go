package api

import (
	"context"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

// databaseDoor answers …/branches/{branch}/databases. What it is asked is done
// when it answers, so that its operations are born done.
type databaseDoor struct {
	control *control.Control
	ops     *operationDoor
}

func (d *databaseDoor) create(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	var in wire.PostgresDatabase
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	if in.Spec == nil || in.Spec.PostgresDatabase == "" {
		return nil, badField("spec.postgres_database", "is missing")
	}
	replace, err := q.flag("replace_existing")
	if err != nil {
		return nil, err
	}
	s := tarn.DatabaseSpec{Branch: b, ID: q.text("database_id"), Name: in.Spec.PostgresDatabase, Owner: q.who.Name}
	if s.ID != "" {
		if _, err := tarn.ParseID("database", s.ID); err != nil || len(s.ID) < 4 {
			return nil, badField("database_id", "%q: want 4 to 63 lower-case letters, digits or hyphens, a letter first", s.ID)
		}
	}
	if in.Spec.Role != "" {
		if s.Owner, err = d.owner(ctx, b, in.Spec.Role); err != nil {
			return nil, err
		}
	}
	db, err := d.control.Databases.Create(ctx, s)
	if tarn.KindOf(err) == tarn.KindConflict && replace != nil && *replace {
		db, err = d.control.Databases.Replace(ctx, s)
	}
	if err != nil {
		return nil, existing(err, alreadyExists, func() error { return nil })
	}
	return d.ops.done(db.ResourceName(), verbCreate, db.ID, postgresDatabaseOf(db))
}

// owner finds the Postgres role that a resource name …/roles/{r} means.
func (d *databaseDoor) owner(ctx context.Context, b tarn.BranchName, name string) (string, error) {
	id, ok := strings.CutPrefix(name, b.String()+"/roles/")
	if !ok || id == "" || strings.Contains(id, "/") {
		return "", badField("spec.role", "got %q, want %s/roles/{role}", name, b)
	}
	all, err := d.control.Roles.List(ctx, b)
	if err != nil {
		return "", err
	}
	r, err := control.Find(all, control.ByID(id), id)
	return r.Name, err
}

func (d *databaseDoor) list(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	pg, err := q.page("page_size")
	if err != nil {
		return nil, err
	}
	all, err := d.control.Databases.List(ctx, b)
	if err != nil {
		return nil, err
	}
	page, next, err := pageOf(all, func(db tarn.Database) string { return db.ID }, pg)
	out := wire.ListPostgresDatabases{Databases: []wire.PostgresDatabase{}, NextPageToken: next}
	for _, db := range page {
		out.Databases = append(out.Databases, postgresDatabaseOf(db))
	}
	return out, err
}

func (d *databaseDoor) get(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	db, err := d.control.Databases.Get(ctx, b, q.r.PathValue("database"))
	if err != nil {
		return nil, err
	}
	return postgresDatabaseOf(db), nil
}

func (d *databaseDoor) update(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	var in wire.PostgresDatabase
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	m := parseMask(q.text("update_mask"))
	if err := m.check("spec.postgres_database", "spec.role"); err != nil {
		return nil, err
	}
	if in.Spec == nil {
		in.Spec = &wire.PostgresDatabaseSpec{}
	}
	name, role := choose(m, given(in.Spec.PostgresDatabase), "", "spec.postgres_database"), choose(m, given(in.Spec.Role), "", "spec.role")
	owner := ""
	if role != nil && *role != "" {
		if owner, err = d.owner(ctx, b, *role); err != nil {
			return nil, err
		}
	}
	db, err := d.control.Databases.Update(ctx, b, q.r.PathValue("database"), func(s *tarn.DatabaseSpec) error {
		if name != nil && *name != "" {
			s.Name = *name
		}
		if owner != "" {
			s.Owner = owner
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return d.ops.done(db.ResourceName(), verbCreate, db.ID, postgresDatabaseOf(db))
}

func (d *databaseDoor) delete(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	db, err := d.control.Databases.Delete(ctx, b, q.r.PathValue("database"))
	if err != nil {
		return nil, err
	}
	return d.ops.done(db.ResourceName(), verbDelete, db.ID, nil)
}

func postgresDatabaseOf(db tarn.Database) wire.PostgresDatabase {
	return wire.PostgresDatabase{
		Name: db.ResourceName(), DatabaseID: db.ID, Parent: db.Branch.String(),
		Status: &wire.PostgresDatabaseStatus{
			DatabaseID: db.ID, PostgresDatabase: db.Name, Role: db.Branch.String() + "/roles/" + db.OwnerID,
		},
	}
}
