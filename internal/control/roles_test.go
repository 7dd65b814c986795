package control

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// server reaches one Postgres, whatever branch is asked for.
type server struct{ st tarn.ComputeStatus }

func (s server) Connect(ctx context.Context, _ tarn.BranchName, database string, cfg func(*pgx.ConnConfig)) (*pgx.Conn, error) {
	return dial(ctx, s.st, database, cfg)
}

func TestRoles(t *testing.T) {
	_, controlConn := pgtest.Start(t, pgtest.Newest(t))
	db, err := controldb.Open(t.Context(), controlConn)
	ok(t, err)
	t.Cleanup(db.Close)
	_, err = New(Config{DB: db, Owner: ann.Name}).Bootstrap(t.Context())
	ok(t, err)
	for _, in := range pgtest.Installs(t) {
		t.Run(strconv.Itoa(in.Major), func(t *testing.T) {
			_, conn := pgtest.Start(t, in)
			roles(t, db, conn, in.Major)
		})
	}
}

func roles(t *testing.T, db *controldb.DB, conn string, major int) {
	ctx := t.Context()
	admin, err := pgx.Connect(ctx, conn)
	ok(t, err)
	defer admin.Close(context.Background())
	a := admin.Config()
	st := tarn.ComputeStatus{Endpoint: "ep-1", State: tarn.ComputeActive, SocketDir: a.Host, Port: int(a.Port)}
	for _, sql := range []string{`CREATE ROLE databricks_superuser NOLOGIN`, `CREATE ROLE tarn_oauth NOLOGIN`, `CREATE DATABASE databricks_postgres`} {
		_, err := admin.Exec(ctx, sql)
		ok(t, err)
	}
	ok(t, ownDatabase(ctx, st, ann.Name))
	c := New(Config{DB: db})
	bob, err := c.Identity.CreatePrincipal(ctx, tarn.Principal{Name: "bob" + strconv.Itoa(major) + "@example.com", Type: tarn.PrincipalUser})
	ok(t, err)
	project := tarn.ProjectName{Project: "roles-" + strconv.Itoa(major)}
	_, err = controldb.InsertProject(ctx, db, tarn.Project{ProjectSpec: tarn.ProjectSpec{Name: project, PGVersion: major}, UID: project.Project, Owner: ann.Name})
	ok(t, err)
	b := project.Branch(tarn.DefaultBranch)
	r := &Roles{cfg: Config{DB: db}, computes: server{st}}

	made, err := r.Create(ctx, b, tarn.RoleSpec{Name: bob.Name, Identity: tarn.PrincipalUser, Superuser: true}, false)
	ok(t, err)
	if made.Auth != tarn.RoleOAuth || made.Identity != tarn.PrincipalUser || !made.Superuser || made.CreateRole || made.OID == 0 || !strings.HasPrefix(made.ID, "bob"+strconv.Itoa(major)+"-example-com-") {
		t.Errorf("made %+v", made)
	}
	app, err := r.Create(ctx, b, tarn.RoleSpec{Name: "App_1", ID: "the-app", CreateDB: true, BypassRLS: true}, false)
	ok(t, err)
	if app.ID != "the-app" || app.Auth != tarn.RoleSCRAM || !app.CreateDB || !app.BypassRLS {
		t.Errorf("made %+v", app)
	}
	_, err = r.Create(ctx, b, tarn.RoleSpec{Name: "app_reader", Auth: tarn.RoleNoLogin}, false)
	ok(t, err)
	for _, bad := range []struct {
		s tarn.RoleSpec
		k tarn.Kind
	}{
		{tarn.RoleSpec{Name: bob.Name, Identity: tarn.PrincipalUser}, tarn.KindConflict},
		{tarn.RoleSpec{Name: "another", ID: "the-app"}, tarn.KindConflict},
		{tarn.RoleSpec{Name: "nobody@example.com", Identity: tarn.PrincipalUser}, tarn.KindInvalid},
		{tarn.RoleSpec{Name: tarn.AdminsGroup, Identity: tarn.PrincipalUser}, tarn.KindInvalid},
		{tarn.RoleSpec{Name: "x", Auth: tarn.RoleOAuth}, tarn.KindInvalid},
		{tarn.RoleSpec{Name: "x", Auth: "MD5"}, tarn.KindInvalid},
		{tarn.RoleSpec{Name: "pg_x"}, tarn.KindInvalid},
		{tarn.RoleSpec{Name: "x", ID: "x"}, tarn.KindInvalid},
	} {
		if _, err := r.Create(ctx, b, bad.s, false); tarn.KindOf(err) != bad.k {
			t.Errorf("%+v: %v, want %s", bad.s, err, bad.k)
		}
	}
	_, err = r.Create(ctx, b, tarn.RoleSpec{Name: ann.Name, Identity: tarn.PrincipalUser}, true)
	kind(t, err, tarn.KindConflict) // the owner's stays

	all, err := r.List(ctx, b)
	ok(t, err)
	var names []string
	for _, v := range all {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	if want := []string{"App_1", ann.Name, "app_reader", bob.Name}; !slices.Equal(names, slices.Sorted(slices.Values(want))) {
		t.Errorf("listed %v, want %v", names, want)
	}
	now, err := r.Update(ctx, b, ByID("the-app"), "the-app", func(s *tarn.RoleSpec) error { s.CreateDB, s.Auth = false, tarn.RoleNoLogin; return nil })
	ok(t, err)
	if now.CreateDB || now.Auth != tarn.RoleNoLogin || !now.BypassRLS || now.ID != "the-app" || now.OID != app.OID {
		t.Errorf("updated %+v", now)
	}
	// A full replacement takes away what it does not say.
	now, err = r.Create(ctx, b, tarn.RoleSpec{Name: bob.Name, Identity: tarn.PrincipalUser}, true)
	ok(t, err)
	if now.Superuser || now.OID != made.OID {
		t.Errorf("replaced %+v", now)
	}

	// The owner can let others be what was made for it.
	owner, err := dial(ctx, st, "", func(c *pgx.ConnConfig) { c.User = ann.Name })
	ok(t, err)
	defer owner.Close(context.Background())
	_, err = owner.Exec(ctx, `GRANT "App_1" TO app_reader`)
	ok(t, err)

	bobs, err := dial(ctx, st, "", func(c *pgx.ConnConfig) { c.User = bob.Name })
	ok(t, err)
	defer bobs.Close(context.Background())
	_, err = owner.Exec(ctx, `CREATE SCHEMA shop; GRANT ALL ON SCHEMA shop TO "`+bob.Name+`"`)
	ok(t, err)
	_, err = bobs.Exec(ctx, `CREATE TABLE shop.items (id int)`)
	ok(t, err)
	kind(t, r.Delete(ctx, b, bob.Name, ""), tarn.KindConflict) // it owns a table
	kind(t, r.Delete(ctx, b, ann.Name, "app_reader"), tarn.KindConflict)
	ok(t, r.Delete(ctx, b, bob.Name, ann.Name))
	kind(t, r.Delete(ctx, b, bob.Name, ""), tarn.KindNotFound)
	_, err = owner.Exec(ctx, `INSERT INTO shop.items VALUES (1)`)
	ok(t, err) // the heir has it
}
