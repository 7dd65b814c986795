package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Databases are the Postgres databases of branches. Postgres itself is their
// record: a branch has those of its source, and a restored one those of its
// time. Every call wakes the branch's compute.
type Databases struct{ c *Control }

// An id that cannot be told from the name is a setting of the database, which
// goes where the database goes.
const (
	listDatabasesSQL = `SELECT d.datname, r.rolname, coalesce(shobj_description(r.oid, 'pg_authid'), ''), coalesce((SELECT substr(c, length('tarn.database_id=') + 1)
	FROM pg_catalog.pg_db_role_setting s, unnest(s.setconfig) c
	WHERE s.setdatabase = d.oid AND s.setrole = 0 AND c LIKE 'tarn.database\_id=%'), '')
FROM pg_catalog.pg_database d JOIN pg_catalog.pg_roles r ON r.oid = d.datdba
WHERE NOT d.datistemplate AND d.datname <> 'postgres' ORDER BY d.oid`

	databaseIDSetting = `tarn.database_id`
)

// List gives the databases of a branch, by id.
func (d *Databases) List(ctx context.Context, b tarn.BranchName) ([]tarn.Database, error) {
	var all []tarn.Database
	err := d.on(ctx, b, func(conn *pgx.Conn) (err error) {
		all, err = listDatabases(ctx, conn, b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list databases of %s: %w", b, err)
	}
	return all, nil
}

// Get reads one; KindNotFound.
func (d *Databases) Get(ctx context.Context, b tarn.BranchName, id string) (tarn.Database, error) {
	all, err := d.List(ctx, b)
	if err != nil {
		return tarn.Database{}, err
	}
	return findDatabase(all, b, id)
}

func findDatabase(all []tarn.Database, b tarn.BranchName, id string) (tarn.Database, error) {
	i := slices.IndexFunc(all, func(db tarn.Database) bool { return db.ID == id })
	if i < 0 {
		return tarn.Database{}, tarn.NotFound("%s has no database %q", b, id)
	}
	return all[i], nil
}

func listDatabases(ctx context.Context, conn *pgx.Conn, b tarn.BranchName) ([]tarn.Database, error) {
	rows, err := conn.Query(ctx, listDatabasesSQL)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (tarn.Database, error) {
		db := tarn.Database{DatabaseSpec: tarn.DatabaseSpec{Branch: b}}
		var comment string
		err := r.Scan(&db.Name, &db.Owner, &comment, &db.ID)
		if db.ID == "" {
			db.ID = postgresID(db.Name)
		}
		db.OwnerID = postgresID(db.Owner)
		if id, ok := strings.CutPrefix(comment, roleComment); ok {
			db.OwnerID = id
		}
		return db, err
	})
	slices.SortFunc(all, func(x, y tarn.Database) int { return strings.Compare(x.ID, y.ID) })
	return all, err
}

// Create makes a database owned by a role that exists. KindInvalid,
// KindNotFound (branch, role), KindConflict.
//
//  1. CREATE DATABASE           a crash leaves one with an id made from its name
//  2. its id, when it has another
func (d *Databases) Create(ctx context.Context, s tarn.DatabaseSpec) (tarn.Database, error) {
	var db tarn.Database
	err := d.on(ctx, s.Branch, func(conn *pgx.Conn) (err error) {
		db, err = createDatabase(ctx, conn, s)
		return err
	})
	if err != nil {
		return tarn.Database{}, fmt.Errorf("create database %s: %w", s.Name, err)
	}
	return db, nil
}

func createDatabase(ctx context.Context, conn *pgx.Conn, s tarn.DatabaseSpec) (tarn.Database, error) {
	if err := checkDatabaseName(s.Name); err != nil {
		return tarn.Database{}, err
	}
	all, err := listDatabases(ctx, conn, s.Branch)
	if err != nil {
		return tarn.Database{}, err
	}
	for _, o := range all {
		if o.ID == s.ID || o.Name == s.Name {
			return tarn.Database{}, tarn.Conflict("%s already exists; its Postgres name is %q", o.ResourceName(), o.Name)
		}
	}
	name := pgx.Identifier{s.Name}.Sanitize()
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name+" OWNER "+pgx.Identifier{s.Owner}.Sanitize()); err != nil {
		return tarn.Database{}, databaseFault(err, s.Owner)
	}
	if _, err := conn.Exec(ctx, "GRANT ALL ON DATABASE "+name+" TO "+tarn.SuperuserRole); err != nil {
		return tarn.Database{}, err
	}
	if s.ID != "" && s.ID != postgresID(s.Name) {
		// The id has letters, digits and hyphens only.
		if _, err := conn.Exec(ctx, "ALTER DATABASE "+name+" SET "+databaseIDSetting+" = '"+s.ID+"'"); err != nil {
			return tarn.Database{}, err
		}
	}
	if all, err = listDatabases(ctx, conn, s.Branch); err != nil {
		return tarn.Database{}, err
	}
	i := slices.IndexFunc(all, func(o tarn.Database) bool { return o.Name == s.Name })
	if i < 0 {
		return tarn.Database{}, tarn.Conflict("it was dropped at once")
	}
	return all[i], nil
}

func checkDatabaseName(name string) error {
	switch {
	case name == "" || len(name) > 63:
		return tarn.Invalid("database name %q: want 1 to 63 bytes", name)
	case name == "postgres" || name == "template0" || name == "template1":
		return tarn.Invalid("database name %q belongs to the system", name)
	}
	return nil
}

// Replace gives the database that has s's id or name that name and owner.
func (d *Databases) Replace(ctx context.Context, s tarn.DatabaseSpec) (tarn.Database, error) {
	all, err := d.List(ctx, s.Branch)
	if err != nil {
		return tarn.Database{}, err
	}
	i := slices.IndexFunc(all, func(o tarn.Database) bool { return o.ID == s.ID || s.ID == "" && o.Name == s.Name })
	if i < 0 {
		return tarn.Database{}, tarn.Conflict("replace database %s: another database has its name", s.Name)
	}
	return d.Update(ctx, s.Branch, all[i].ID, func(now *tarn.DatabaseSpec) error {
		now.Name, now.Owner = s.Name, s.Owner
		return nil
	})
}

// Update renames a database or gives it to another role. The default database
// keeps its name, and so does one that a mover or a catalog uses.
func (d *Databases) Update(ctx context.Context, b tarn.BranchName, id string, change func(*tarn.DatabaseSpec) error) (tarn.Database, error) {
	var out tarn.Database
	err := d.on(ctx, b, func(conn *pgx.Conn) error {
		all, err := listDatabases(ctx, conn, b)
		if err != nil {
			return err
		}
		old, err := findDatabase(all, b, id)
		if err != nil {
			return err
		}
		out = old
		if err := change(&out.DatabaseSpec); err != nil {
			return err
		}
		if err := d.change(ctx, conn, old, out); err != nil {
			return err
		}
		if all, err = listDatabases(ctx, conn, b); err != nil {
			return err
		}
		out, err = findDatabase(all, b, id)
		return err
	})
	if err != nil {
		return tarn.Database{}, fmt.Errorf("update database %s of %s: %w", id, b, err)
	}
	return out, nil
}

func (d *Databases) change(ctx context.Context, conn *pgx.Conn, old, now tarn.Database) error {
	if now.Name != old.Name {
		if err := checkDatabaseName(now.Name); err != nil {
			return err
		}
		if err := d.free(ctx, old); err != nil {
			return err
		}
	}
	name := pgx.Identifier{old.Name}.Sanitize()
	if now.Owner != old.Owner {
		if _, err := conn.Exec(ctx, "ALTER DATABASE "+name+" OWNER TO "+pgx.Identifier{now.Owner}.Sanitize()); err != nil {
			return databaseFault(err, now.Owner)
		}
	}
	if now.Name == old.Name {
		return nil
	}
	if _, err := conn.Exec(ctx, "ALTER DATABASE "+name+" SET "+databaseIDSetting+" = '"+old.ID+"'"); err != nil {
		return err
	}
	_, err := conn.Exec(ctx, "ALTER DATABASE "+name+" RENAME TO "+pgx.Identifier{now.Name}.Sanitize())
	return databaseFault(err, now.Owner)
}

// Delete drops a database and cuts its sessions. The default one, and one that
// a mover or a catalog uses, are kept: KindConflict.
func (d *Databases) Delete(ctx context.Context, b tarn.BranchName, id string) (tarn.Database, error) {
	var old tarn.Database
	err := d.on(ctx, b, func(conn *pgx.Conn) error {
		all, err := listDatabases(ctx, conn, b)
		if err != nil {
			return err
		}
		if old, err = findDatabase(all, b, id); err != nil {
			return err
		}
		if err := d.free(ctx, old); err != nil {
			return err
		}
		_, err = conn.Exec(ctx, "DROP DATABASE "+pgx.Identifier{old.Name}.Sanitize()+" WITH (FORCE)")
		return databaseFault(err, "")
	})
	if err != nil {
		return old, fmt.Errorf("delete database %s of %s: %w", id, b, err)
	}
	return old, nil
}

// free refuses a database that something else is bound to by its name.
func (d *Databases) free(ctx context.Context, db tarn.Database) error {
	if db.Name == tarn.DefaultDatabase {
		return tarn.Conflict("%s is the database every branch has", db.Name)
	}
	feeds, err := controldb.ListFeeds(ctx, d.c.cfg.DB, db.Branch)
	if err != nil {
		return err
	}
	for _, f := range feeds {
		if f.Database == db.Name {
			return tarn.Conflict("feed %s follows it", f.ID).WithHint("tarn feed delete " + f.ID)
		}
	}
	synced, err := controldb.ListSyncedTables(ctx, d.c.cfg.DB, db.Branch.Project)
	if err != nil {
		return err
	}
	for _, s := range synced {
		if s.Branch == db.Branch && s.Database == db.Name {
			return tarn.Conflict("synced table %s is in it", s.Name).WithHint("tarn sync delete " + s.Name.String())
		}
	}
	catalogs, err := controldb.ListRegisteredCatalogs(ctx, d.c.cfg.DB)
	if err != nil {
		return err
	}
	for _, r := range catalogs {
		if r.Branch == db.Branch && r.Database == db.Name {
			return tarn.Conflict("it is registered as catalog %s", r.Name)
		}
	}
	return nil
}

// on works on a branch's Postgres, outside of its users' databases.
func (d *Databases) on(ctx context.Context, b tarn.BranchName, work func(conn *pgx.Conn) error) error {
	conn, err := d.c.Connect(ctx, b, "postgres", nil)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return work(conn)
}

// databaseFault gives Postgres's refusals their kind.
func databaseFault(err error, owner string) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err
	}
	switch pg.Code {
	case "42704":
		return tarn.NotFound("there is no role %q", owner)
	case "42P04":
		return tarn.Conflict("%s", pg.Message)
	case "55006":
		return tarn.Conflict("%s: %s", pg.Message, pg.Detail).WithHint("end the sessions on it first")
	}
	return err
}
