package control

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
	"github.com/tarndb/tarn/internal/postgres/pgtest"
)

// The extension databricks_auth on every Postgres here, with the directory that
// control tells a compute.
func TestDatabricksAuth(t *testing.T) {
	_, controlConn := pgtest.Start(t, pgtest.Newest(t))
	db, err := controldb.Open(t.Context(), controlConn)
	ok(t, err)
	t.Cleanup(db.Close)
	_, err = New(Config{DB: db, Owner: ann.Name}).Bootstrap(t.Context())
	ok(t, err)
	for _, in := range pgtest.Installs(t) {
		t.Run(strconv.Itoa(in.Major), func(t *testing.T) {
			_, conn := pgtest.Start(t, in)
			databricksAuth(t, db, conn, in.Major)
		})
	}
}

func databricksAuth(t *testing.T, db *controldb.DB, conn string, major int) {
	ctx := t.Context()
	admin, err := pgx.Connect(ctx, conn)
	ok(t, err)
	defer admin.Close(context.Background())
	a := admin.Config()
	st := tarn.ComputeStatus{Endpoint: "ep-1", State: tarn.ComputeActive, SocketDir: a.Host, Port: int(a.Port), StartTime: time.Now()}
	exec := func(c *pgx.Conn, sql string) error {
		_, err := c.Exec(ctx, sql)
		return err
	}
	for _, sql := range []string{
		`CREATE ROLE databricks_superuser NOLOGIN`, `CREATE ROLE tarn_oauth NOLOGIN`, `CREATE DATABASE databricks_postgres`,
		`CREATE ROLE plain LOGIN CREATEROLE`, `CREATE ROLE weak LOGIN IN ROLE tarn_oauth`,
	} {
		ok(t, exec(admin, sql))
	}
	ok(t, ownDatabase(ctx, st, "owner@example.com"))
	as := func(user string) *pgx.Conn {
		cfg := a.Copy()
		cfg.User, cfg.Database = user, tarn.DefaultDatabase
		c, err := pgx.ConnectConfig(ctx, cfg)
		ok(t, err)
		t.Cleanup(func() { c.Close(context.Background()) })
		return c
	}
	owner := as("owner@example.com")
	refused := func(c *pgx.Conn, code, sql string) {
		t.Helper()
		var e *pgconn.PgError
		if err := exec(c, sql); !errors.As(err, &e) || e.Code != code {
			t.Errorf("%s: %v, want %s", sql, err, code)
		}
	}
	refused(owner, "42883", `SELECT databricks_create_role('bob@example.com', 'USER')`)
	if err := exec(owner, `CREATE EXTENSION IF NOT EXISTS databricks_auth`); err != nil {
		t.Fatalf("%v (make setup-test installs the extension)", err)
	}
	ok(t, exec(owner, `CREATE EXTENSION IF NOT EXISTS databricks_auth`))

	// Before the compute was told anything every name is taken; login checks.
	ok(t, exec(owner, `SELECT databricks_create_role('early@example.com', 'USER')`))
	c := New(Config{DB: db, Node: &scripted{computes: []tarn.ComputeStatus{st}}})
	suffix := strconv.Itoa(major)
	for _, p := range []tarn.Principal{
		{Name: "bob" + suffix + "@example.com", Type: tarn.PrincipalUser}, {Name: "it's \"odd\" " + suffix, Type: tarn.PrincipalGroup},
	} {
		_, err := c.Identity.CreatePrincipal(ctx, p)
		ok(t, err)
	}
	robot, err := c.Identity.CreatePrincipal(ctx, tarn.Principal{Type: tarn.PrincipalService})
	ok(t, err)
	for _, sql := range []string{
		`SELECT databricks_create_role('bob` + suffix + `@example.com', 'user')`,
		`SELECT databricks_create_role('` + robot.Name + `', 'Service_Principal')`,
		`SELECT databricks_create_role('it''s "odd" ` + suffix + `', 'GROUP')`,
	} {
		if err := exec(owner, sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	refused(owner, "42710", `SELECT databricks_create_role('bob`+suffix+`@example.com', 'USER')`)
	refused(owner, "TN001", `SELECT databricks_create_role('nobody@example.com', 'USER')`)
	refused(owner, "22023", `SELECT databricks_create_role('`+robot.Name+`x', 'ROBOT')`)
	refused(owner, "22023", `SELECT databricks_create_role('', 'USER')`)
	refused(owner, "22023", `SELECT databricks_create_role('admins', 'USER')`) // it is a group
	refused(owner, "42622", `SELECT databricks_create_role('`+strings.Repeat("x", 64)+`', 'USER')`)
	refused(owner, "42939", `SELECT databricks_create_role('tarn_admin', 'USER')`)
	refused(as("weak"), "42501", `SELECT databricks_create_role('admins', 'GROUP')`)
	refused(as("plain"), "42501", `SELECT databricks_create_role('admins', 'GROUP')`) // a password's session
	refused(owner, "42501", `SELECT databricks_auth_knows('x', 'USER')`)
	refused(owner, "42501", `COMMENT ON ROLE tarn_admin IS 'tarn directory 1'`)

	// What was made is an OAuth role with no rights, and the caller's to give.
	var right bool
	ok(t, admin.QueryRow(ctx, `
SELECT rolcanlogin AND NOT rolsuper AND NOT rolcreaterole AND NOT rolcreatedb AND NOT rolreplication AND NOT rolbypassrls
	AND EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid AND m.roleid = 'tarn_oauth'::regrole AND NOT m.admin_option)
	AND EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = r.oid AND m.member = '"owner@example.com"'::regrole AND m.admin_option)
FROM pg_roles r WHERE rolname = $1`, robot.Name).Scan(&right))
	if !right {
		t.Error("the new role is not as it should be")
	}
	ok(t, exec(owner, `CREATE ROLE team`))
	ok(t, exec(owner, `GRANT "`+robot.Name+`" TO team`))
	ok(t, exec(owner, `GRANT databricks_superuser TO "`+robot.Name+`"`))
	ok(t, exec(owner, `ALTER ROLE "`+robot.Name+`" SET work_mem = '8MB'`))
	var listed int
	ok(t, as(robot.Name).QueryRow(ctx, `SELECT count(*) FROM databricks_list_roles() WHERE role_name IN ($1, 'owner@example.com')`, robot.Name).Scan(&listed))
	if listed != 2 {
		t.Errorf("%d of 2 roles listed", listed)
	}
	refused(as(robot.Name), "42501", `SELECT databricks_create_role('admins', 'GROUP')`)

	// Who goes is forgotten.
	gone, err := c.Identity.Named(ctx, "bob"+suffix+"@example.com")
	ok(t, err)
	ok(t, exec(owner, `DROP ROLE "`+gone.Name+`"`))
	ok(t, c.Identity.DeletePrincipal(ctx, gone.ID))
	refused(owner, "TN001", `SELECT databricks_create_role('`+gone.Name+`', 'USER')`)
}
