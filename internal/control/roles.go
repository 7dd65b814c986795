package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Roles makes, finds and changes the Postgres roles of a branch. They are kept
// in the branch alone, so a branch made of it has them too; reading them wakes
// its compute. What a role is called in resource names stands in its comment.
type Roles struct {
	cfg      Config
	computes interface {
		Connect(ctx context.Context, b tarn.BranchName, database string, cfg func(*pgx.ConnConfig)) (*pgx.Conn, error)
	}
}

const listRoles = `
SELECT r.oid, r.rolname::text, r.rolcanlogin, r.rolcreatedb, r.rolcreaterole, r.rolbypassrls,
	EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid AND m.roleid = (SELECT oid FROM pg_roles WHERE rolname = $1::text)),
	EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid AND m.roleid = (SELECT oid FROM pg_roles WHERE rolname = $2::text)),
	coalesce(shobj_description(r.oid, 'pg_authid'), '')
FROM pg_roles r
WHERE NOT r.rolsuper AND r.rolname NOT LIKE 'pg\_%' AND r.rolname <> ALL (ARRAY[$1::text, $2::text])
ORDER BY r.rolname`

// roleComment begins the comment that holds a role's id.
const roleComment = "tarn role "

// List gives a branch's roles, by name: those people make, not Tarn's own.
func (r *Roles) List(ctx context.Context, b tarn.BranchName) ([]tarn.Role, error) {
	conn, err := r.computes.Connect(ctx, b, "", nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return r.list(ctx, conn)
}

func (r *Roles) list(ctx context.Context, conn *pgx.Conn) ([]tarn.Role, error) {
	ps, err := controldb.ListPrincipals(ctx, r.cfg.DB)
	if err != nil {
		return nil, err
	}
	types := make(map[string]tarn.PrincipalType, len(ps))
	for _, p := range ps {
		types[p.Name] = p.Type
	}
	rows, err := conn.Query(ctx, listRoles, tarn.OAuthMarkerRole, tarn.SuperuserRole)
	if err != nil {
		return nil, fmt.Errorf("list roles: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (v tarn.Role, err error) {
		var login, oauth bool
		var comment string
		err = row.Scan(&v.OID, &v.Name, &login, &v.CreateDB, &v.CreateRole, &v.BypassRLS, &oauth, &v.Superuser, &comment)
		v.ID = postgresID(v.Name)
		if id, ok := strings.CutPrefix(comment, roleComment); ok {
			v.ID = id
		}
		switch {
		case !login:
			v.Auth = tarn.RoleNoLogin
		case oauth:
			v.Auth = tarn.RoleOAuth
		default:
			v.Auth = tarn.RoleSCRAM
		}
		if oauth {
			v.Identity = types[v.Name]
		}
		return v, err
	})
	if err != nil {
		return nil, fmt.Errorf("list roles: %w", err)
	}
	return all, nil
}

// postgresID is what a role or a database is called in resource names when nobody said: its name
// where that fits, else what of it fits and a hash.
func postgresID(name string) string {
	id := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			return c
		case c >= 'A' && c <= 'Z':
			return c - 'A' + 'a'
		}
		return '-'
	}, name)
	id = strings.Trim(id, "-")
	if strings.ReplaceAll(name, "_", "-") == id && len(id) >= minRoleID {
		return id
	}
	sum := sha256.Sum256([]byte(name))
	if len(id) > 50 {
		id = strings.TrimRight(id[:50], "-")
	}
	return strings.TrimLeft(id+"-"+hex.EncodeToString(sum[:4]), "-")
}

const minRoleID, maxRoleID = 4, 63

func checkRoleID(id string) error {
	if len(id) < minRoleID || len(id) > maxRoleID || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || id[0] == '-' || id[len(id)-1] == '-' {
		return tarn.Invalid("role id %q: want %d to %d lower-case letters, digits and -", id, minRoleID, maxRoleID)
	}
	return nil
}

// Find picks a role out of a listing; what names it in the error.
func Find(all []tarn.Role, is func(tarn.Role) bool, what string) (tarn.Role, error) {
	if i := slices.IndexFunc(all, is); i >= 0 {
		return all[i], nil
	}
	return tarn.Role{}, tarn.NotFound("role %q does not exist", what)
}

// ByID picks a role by what it is called in resource names.
func ByID(id string) func(tarn.Role) bool { return func(r tarn.Role) bool { return r.ID == id } }

// ByName picks a role by its name in Postgres.
func ByName(name string) func(tarn.Role) bool {
	return func(r tarn.Role) bool { return r.Name == name }
}

func (r *Roles) check(ctx context.Context, s *tarn.RoleSpec) error {
	if err := checkRoleName(s.Name); err != nil {
		return err
	}
	if s.ID == "" {
		s.ID = postgresID(s.Name)
	} else if err := checkRoleID(s.ID); err != nil {
		return err
	}
	if s.Identity != "" {
		p, err := controldb.GetPrincipal(ctx, r.cfg.DB, s.Name)
		switch {
		case tarn.KindOf(err) == tarn.KindNotFound:
			return tarn.Invalid("identity %q does not exist in the workspace", s.Name).WithHint("List them with: tarn principal list")
		case err != nil:
			return err
		case p.Type != s.Identity:
			return tarn.Invalid("identity %q is a %s, not a %s", s.Name, p.Type, s.Identity)
		}
	}
	if s.Auth == "" {
		s.Auth = tarn.RoleSCRAM
		if s.Identity != "" {
			s.Auth = tarn.RoleOAuth
		}
	}
	switch {
	case s.Auth != tarn.RoleOAuth && s.Auth != tarn.RoleSCRAM && s.Auth != tarn.RoleNoLogin:
		return tarn.Invalid("authentication method %q: want %s, %s or %s", s.Auth, tarn.RoleOAuth, tarn.RoleSCRAM, tarn.RoleNoLogin)
	case s.Auth == tarn.RoleOAuth && s.Identity == "":
		return tarn.Invalid("a role that logs in with a token needs an identity type")
	}
	return nil
}

// Create makes a role, or with replace makes an existing one what s says.
// KindConflict when there is one.
func (r *Roles) Create(ctx context.Context, b tarn.BranchName, s tarn.RoleSpec, replace bool) (tarn.Role, error) {
	out, err := r.change(ctx, b, func(tx pgx.Tx, all []tarn.Role, owner string) (string, error) {
		if err := r.check(ctx, &s); err != nil {
			return "", err
		}
		have, err := Find(all, ByName(s.Name), s.Name)
		there := err == nil
		if there && !replace {
			return "", tarn.Conflict("role %q already exists", s.Name)
		}
		if taken, err := Find(all, ByID(s.ID), s.ID); err == nil && taken.Name != s.Name {
			return "", tarn.Conflict("role id %q already exists: it is %q", s.ID, taken.Name)
		}
		if there && s.Name == owner {
			return "", tarn.Conflict("role %q is the project owner's and stays as it is", s.Name)
		}
		name := pgx.Identifier{s.Name}.Sanitize()
		var sql []string
		if !there {
			sql = append(sql, `CREATE ROLE `+name, grantAdmin(tx, name, owner))
		}
		return s.Name, runAll(ctx, tx, append(sql, shape(tx, have.RoleSpec, s)...))
	})
	if err != nil {
		return tarn.Role{}, fmt.Errorf("create role %s: %w", s.Name, err)
	}
	return out, nil
}

// Update changes what change changes of a role.
func (r *Roles) Update(ctx context.Context, b tarn.BranchName, is func(tarn.Role) bool, what string, change func(*tarn.RoleSpec) error) (tarn.Role, error) {
	out, err := r.change(ctx, b, func(tx pgx.Tx, all []tarn.Role, owner string) (string, error) {
		have, err := Find(all, is, what)
		if err != nil {
			return "", err
		}
		s := have.RoleSpec
		if err := change(&s); err != nil {
			return "", err
		}
		s.ID, s.Name = have.ID, have.Name
		if err := r.check(ctx, &s); err != nil {
			return "", err
		}
		if s.Name == owner {
			return "", tarn.Conflict("role %q is the project owner's and stays as it is", s.Name)
		}
		return s.Name, runAll(ctx, tx, shape(tx, have.RoleSpec, s))
	})
	if err != nil {
		return tarn.Role{}, fmt.Errorf("update role %s: %w", what, err)
	}
	return out, nil
}

// change runs f in one transaction and reads the role it names.
func (r *Roles) change(ctx context.Context, b tarn.BranchName, f func(tx pgx.Tx, all []tarn.Role, owner string) (string, error)) (tarn.Role, error) {
	p, err := controldb.GetProject(ctx, r.cfg.DB, b.Parent())
	if err != nil {
		return tarn.Role{}, err
	}
	conn, err := r.computes.Connect(ctx, b, "", nil)
	if err != nil {
		return tarn.Role{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var name string
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		// Two that make one role at once must not both find that it is not there.
		if _, err := tx.Exec(ctx, lockRoles); err != nil {
			return err
		}
		all, err := r.list(ctx, tx.Conn())
		if err != nil {
			return err
		}
		name, err = f(tx, all, p.Owner)
		return err
	})
	if err != nil {
		return tarn.Role{}, ofPostgres(err)
	}
	all, err := r.list(ctx, conn)
	if err != nil {
		return tarn.Role{}, err
	}
	return Find(all, ByName(name), name)
}

const lockRoles = `SELECT pg_advisory_xact_lock(7022891455140)`

// grantAdmin lets the project's owner administer a role that was made for it.
func grantAdmin(tx pgx.Tx, role, owner string) string {
	to := pgx.Identifier{owner}.Sanitize()
	if withOptions(tx) {
		return `GRANT ` + role + ` TO ` + to + ` WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`
	}
	return `GRANT ` + role + ` TO ` + to + ` WITH ADMIN OPTION`
}

// withOptions says whether membership can be had without its rights: since
// Postgres 16.
func withOptions(tx pgx.Tx) bool {
	v := tx.Conn().PgConn().ParameterStatus("server_version")
	return !strings.HasPrefix(v, "15")
}

// shape is the statements that make a role of had into one of want.
func shape(tx pgx.Tx, had, want tarn.RoleSpec) []string {
	name := pgx.Identifier{want.Name}.Sanitize()
	flag := func(on bool, word string) string {
		if on {
			return " " + word
		}
		return " NO" + word
	}
	attributes := `ALTER ROLE ` + name + flag(want.Auth != tarn.RoleNoLogin, "LOGIN") + flag(want.CreateDB, "CREATEDB") +
		flag(want.CreateRole, "CREATEROLE") + flag(want.BypassRLS, "BYPASSRLS") + " NOSUPERUSER"
	switch {
	case want.Auth == tarn.RoleOAuth || want.Auth == tarn.RoleNoLogin:
		attributes += " PASSWORD NULL"
	case had.Auth != tarn.RoleSCRAM:
		// The published API has no field to give it in: whoever administers the
		// role sets another, with \password or ALTER ROLE.
		attributes += " PASSWORD '" + rand.Text() + "'"
	}
	sql := []string{attributes, `COMMENT ON ROLE ` + name + ` IS '` + roleComment + want.ID + `'`}
	marker := pgx.Identifier{tarn.OAuthMarkerRole}.Sanitize()
	switch oauth := want.Auth == tarn.RoleOAuth; {
	case oauth && withOptions(tx):
		sql = append(sql, `GRANT `+marker+` TO `+name+` WITH ADMIN FALSE, INHERIT FALSE, SET FALSE`)
	case oauth:
		sql = append(sql, `GRANT `+marker+` TO `+name)
	case had.Auth == tarn.RoleOAuth:
		sql = append(sql, `REVOKE `+marker+` FROM `+name)
	}
	super := pgx.Identifier{tarn.SuperuserRole}.Sanitize()
	switch {
	case want.Superuser && !had.Superuser:
		sql = append(sql, `GRANT `+super+` TO `+name)
	case !want.Superuser && had.Superuser:
		sql = append(sql, `REVOKE `+super+` FROM `+name)
	}
	return sql
}

func runAll(ctx context.Context, tx pgx.Tx, sql []string) error {
	for _, s := range sql {
		if _, err := tx.Exec(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// Delete drops a role. heir, a role's name, takes over what it owns; without one
// a role that owns something stays, as KindConflict.
func (r *Roles) Delete(ctx context.Context, b tarn.BranchName, name, heir string) error {
	if err := r.drop(ctx, b, name, heir); err != nil {
		return fmt.Errorf("delete role %s: %w", name, ofPostgres(err))
	}
	return nil
}

const databases = `SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname`

// drop:
//
//  1. In each database, what the role owns goes to its heir, and what was
//     granted to it goes. A crash leaves the role, with less; doing it again
//     does the rest.
//  2. The role goes.
func (r *Roles) drop(ctx context.Context, b tarn.BranchName, name, heir string) error {
	p, err := controldb.GetProject(ctx, r.cfg.DB, b.Parent())
	if err != nil {
		return err
	}
	if name == p.Owner {
		return tarn.Conflict("role %q is the project owner's", name)
	}
	conn, err := r.computes.Connect(ctx, b, "", nil)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	all, err := r.list(ctx, conn)
	if err != nil {
		return err
	}
	if _, err := Find(all, ByName(name), name); err != nil {
		return err
	}
	role := pgx.Identifier{name}.Sanitize()
	if heir != "" {
		if _, err := Find(all, ByName(heir), heir); err != nil {
			return err
		}
		rows, err := conn.Query(ctx, databases)
		if err != nil {
			return err
		}
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		for _, database := range names {
			if err := r.reassign(ctx, b, database, role, pgx.Identifier{heir}.Sanitize()); err != nil {
				return err
			}
		}
	}
	_, err = conn.Exec(ctx, `DROP ROLE `+role)
	return err
}

func (r *Roles) reassign(ctx context.Context, b tarn.BranchName, database, role, heir string) error {
	conn, err := r.computes.Connect(ctx, b, database, nil)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		return runAll(ctx, tx, []string{`REASSIGN OWNED BY ` + role + ` TO ` + heir, `DROP OWNED BY ` + role})
	})
}

// ofPostgres gives what Postgres refuses on purpose its kind.
func ofPostgres(err error) error {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case "42710":
		return tarn.Conflict("%s", e.Message)
	case "2BP01":
		return tarn.Conflict("%s: %s", e.Message, e.Detail).WithHint("Say who takes over what it owns: reassign_owned_to.")
	case "42704":
		return tarn.NotFound("%s", e.Message)
	}
	return err
}
