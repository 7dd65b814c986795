package api

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

// roleDoor answers for Postgres roles in both services' spellings. A role is
// made within its call, so its operation is born done.
//
// Whoever may use a project may make roles that have nothing; what gives a role
// rights over others' data wants CAN_MANAGE.
type roleDoor struct {
	control *control.Control
	ops     *operationDoor
}

func roleName(b tarn.BranchName, id string) string { return b.String() + "/roles/" + id }

func roleOf(b tarn.BranchName, r tarn.Role) wire.Role {
	st := &wire.RoleStatus{PostgresRole: r.Name, RoleID: r.ID, IdentityType: string(r.Identity), AuthMethod: string(r.Auth), Attributes: attributesOf(r)}
	if r.Superuser {
		st.MembershipRoles = []string{wire.MembershipSuperuser}
	}
	return wire.Role{Name: roleName(b, r.ID), RoleID: r.ID, Parent: b.String(), Status: st}
}

func attributesOf(r tarn.Role) *wire.RoleAttributes {
	return &wire.RoleAttributes{CreateDB: r.CreateDB, CreateRole: r.CreateRole, BypassRLS: r.BypassRLS}
}

// roleSpecFields are what an update may name.
var roleSpecFields = [...]string{"spec.attributes", "spec.auth_method", "spec.membership_roles", "spec.identity_type", "spec.postgres_role"}

func readRoleSpec(in *wire.RoleSpec, s *tarn.RoleSpec) error {
	if in == nil {
		return badField("spec", "is missing")
	}
	s.Name, s.Identity, s.Auth = in.PostgresRole, tarn.PrincipalType(in.IdentityType), tarn.RoleAuth(in.AuthMethod)
	if err := readMembership(in.MembershipRoles, s); err != nil {
		return err
	}
	readAttributes(in.Attributes, s)
	switch s.Identity {
	case "", tarn.PrincipalUser, tarn.PrincipalService, tarn.PrincipalGroup:
		return nil
	}
	return badField("spec.identity_type", "got %q, want USER, SERVICE_PRINCIPAL or GROUP; leave it out for a plain role", in.IdentityType)
}

func readMembership(ms []string, s *tarn.RoleSpec) error {
	s.Superuser = false
	for _, m := range ms {
		if m != wire.MembershipSuperuser {
			return badField("spec.membership_roles", "got %q, want %s", m, wire.MembershipSuperuser)
		}
		s.Superuser = true
	}
	return nil
}

func readAttributes(a *wire.RoleAttributes, s *tarn.RoleSpec) {
	s.CreateDB, s.CreateRole, s.BypassRLS = a != nil && a.CreateDB, a != nil && a.CreateRole, a != nil && a.BypassRLS
}

// make makes a role, if who asks may make such a one.
func (d *roleDoor) make(ctx context.Context, q *query, b tarn.BranchName, s tarn.RoleSpec, replace bool, taken string) (tarn.Role, error) {
	if replace || !s.Plain() {
		if err := q.need(ctx, b.Parent(), tarn.CanManage); err != nil {
			return tarn.Role{}, err
		}
	}
	if _, err := d.control.GetBranch(ctx, b); err != nil {
		return tarn.Role{}, err
	}
	r, err := d.control.Roles.Create(ctx, b, s, replace)
	return r, existing(err, taken, func() error {
		if strings.Contains(err.Error(), "already exists") {
			return nil
		}
		return err
	})
}

func (d *roleDoor) create(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	var in wire.Role
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	replace, err := q.flag("replace_existing")
	if err != nil {
		return nil, err
	}
	s := tarn.RoleSpec{ID: q.text("role_id")}
	if err := readRoleSpec(in.Spec, &s); err != nil {
		return nil, err
	}
	if s.Name == "" {
		return nil, badField("spec.postgres_role", "is missing")
	}
	r, err := d.make(ctx, q, b, s, replace != nil && *replace, alreadyExists)
	if err != nil {
		return nil, err
	}
	return d.ops.done(roleName(b, r.ID), verbCreate, strconv.FormatUint(uint64(r.OID), 10), roleOf(b, r))
}

func (d *roleDoor) list(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	pg, err := q.page("page_size")
	if err != nil {
		return nil, err
	}
	all, err := d.control.Roles.List(ctx, b)
	if err != nil {
		return nil, err
	}
	page, next, err := pageOf(all, func(r tarn.Role) string { return r.ID }, pg)
	if err != nil {
		return nil, err
	}
	out := wire.ListRoles{Roles: []wire.Role{}, NextPageToken: next}
	for _, r := range page {
		out.Roles = append(out.Roles, roleOf(b, r))
	}
	return out, nil
}

// find reads the role of the path by its id.
func (d *roleDoor) find(ctx context.Context, q *query) (tarn.BranchName, tarn.Role, error) {
	b, err := q.branch()
	if err != nil {
		return b, tarn.Role{}, err
	}
	all, err := d.control.Roles.List(ctx, b)
	if err != nil {
		return b, tarn.Role{}, err
	}
	r, err := control.Find(all, control.ByID(q.r.PathValue("role")), q.r.PathValue("role"))
	return b, r, err
}

func (d *roleDoor) get(ctx context.Context, q *query) (any, error) {
	b, r, err := d.find(ctx, q)
	if err != nil {
		return nil, err
	}
	return roleOf(b, r), nil
}

func (d *roleDoor) update(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	var in wire.Role
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	m := parseMask(q.text("update_mask"))
	if err := m.check(roleSpecFields[:]...); err != nil {
		return nil, err
	}
	if in.Spec == nil {
		in.Spec = &wire.RoleSpec{}
	}
	id := q.r.PathValue("role")
	r, err := d.control.Roles.Update(ctx, b, control.ByID(id), id, func(s *tarn.RoleSpec) error { return changeRole(s, m, *in.Spec) })
	if err != nil {
		return nil, err
	}
	return d.ops.done(roleName(b, r.ID), verbCreate, strconv.FormatUint(uint64(r.OID), 10), roleOf(b, r))
}

// changeRole applies an update to a role.
func changeRole(s *tarn.RoleSpec, m mask, in wire.RoleSpec) error {
	if v := choose(m, given(in.PostgresRole), s.Name, "spec.postgres_role"); v != nil && *v != s.Name {
		return badField("spec.postgres_role", "the name of a role cannot be changed")
	}
	if v := choose(m, given(in.IdentityType), string(s.Identity), "spec.identity_type"); v != nil && *v != string(s.Identity) {
		return badField("spec.identity_type", "the identity of a role cannot be changed")
	}
	if v := choose(m, given(in.AuthMethod), "", "spec.auth_method"); v != nil {
		s.Auth = tarn.RoleAuth(*v)
	}
	var members *[]string
	if in.MembershipRoles != nil {
		members = &in.MembershipRoles
	}
	if v := choose(m, members, nil, "spec.membership_roles"); v != nil {
		if err := readMembership(*v, s); err != nil {
			return err
		}
	}
	if v := choose(m, in.Attributes, wire.RoleAttributes{}, "spec.attributes"); v != nil {
		readAttributes(v, s)
	}
	return nil
}

func (d *roleDoor) delete(ctx context.Context, q *query) (any, error) {
	b, r, err := d.find(ctx, q)
	if err != nil {
		return nil, err
	}
	heir := q.text("reassign_owned_to")
	if id, ok := strings.CutPrefix(heir, roleName(b, "")); ok {
		all, err := d.control.Roles.List(ctx, b)
		if err != nil {
			return nil, err
		}
		to, err := control.Find(all, control.ByID(id), id)
		if err != nil {
			return nil, badField("reassign_owned_to", "%s", err)
		}
		heir = to.Name
	}
	if err := d.control.Roles.Delete(ctx, b, r.Name, heir); err != nil {
		return nil, err
	}
	return d.ops.done(roleName(b, r.ID), verbDelete, strconv.FormatUint(uint64(r.OID), 10), nil)
}

// operation reads back an operation of a role.
func (d *roleDoor) operation(ctx context.Context, name, branch, id, op string) (any, error) {
	b, err := tarn.ParseBranchName(branch)
	if err != nil {
		return nil, nothing(err)
	}
	return bornDone(name, op, func() (string, any, error) {
		all, err := d.control.Roles.List(ctx, b)
		if err != nil {
			return "", nil, err
		}
		r, err := control.Find(all, control.ByID(id), id)
		return strconv.FormatUint(uint64(r.OID), 10), roleOf(b, r), err
	})
}

// The Provisioned API: roles by name, on the instance's branch.

func instanceRoleOf(project string, r tarn.Role) wire.InstanceRole {
	out := wire.InstanceRole{Name: r.Name, InstanceName: project, IdentityType: string(r.Identity), Attributes: attributesOf(r), EffectiveAttributes: attributesOf(r)}
	if r.Identity == "" {
		out.IdentityType = wire.IdentityPGOnly
	}
	if r.Superuser {
		out.MembershipRole = wire.MembershipSuperuser
	}
	return out
}

func (d *roleDoor) createOfInstance(ctx context.Context, q *query) (any, error) {
	b, err := q.instance()
	if err != nil {
		return nil, err
	}
	var in wire.InstanceRole
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	s, err := instanceRoleSpec(in)
	if err != nil {
		return nil, err
	}
	r, err := d.make(ctx, q, b, s, false, resourceAlreadyExists)
	if err != nil {
		return nil, err
	}
	return instanceRoleOf(b.Project, r), nil
}

func instanceRoleSpec(in wire.InstanceRole) (tarn.RoleSpec, error) {
	s := tarn.RoleSpec{Name: in.Name}
	if in.Name == "" {
		return s, badField("name", "is missing")
	}
	types := []string{"", wire.IdentityPGOnly, string(tarn.PrincipalUser), string(tarn.PrincipalService), string(tarn.PrincipalGroup)}
	switch i := slices.Index(types, in.IdentityType); {
	case i < 0:
		return s, badField("identity_type", "got %q, want PG_ONLY, USER, SERVICE_PRINCIPAL or GROUP", in.IdentityType)
	case i > 1:
		s.Identity = tarn.PrincipalType(in.IdentityType)
	}
	if in.MembershipRole != "" {
		if err := readMembership([]string{in.MembershipRole}, &s); err != nil {
			return s, err
		}
	}
	readAttributes(in.Attributes, &s)
	return s, nil
}

func (d *roleDoor) listOfInstance(ctx context.Context, q *query) (any, error) {
	b, err := q.instance()
	if err != nil {
		return nil, err
	}
	pg, err := q.page("page_size")
	if err != nil {
		return nil, err
	}
	all, err := d.control.Roles.List(ctx, b)
	if err != nil {
		return nil, err
	}
	page, next, err := pageOf(all, func(r tarn.Role) string { return r.Name }, pg)
	if err != nil {
		return nil, err
	}
	out := wire.ListInstanceRoles{Roles: []wire.InstanceRole{}, NextPageToken: next}
	for _, r := range page {
		out.Roles = append(out.Roles, instanceRoleOf(b.Project, r))
	}
	return out, nil
}

func (d *roleDoor) getOfInstance(ctx context.Context, q *query) (any, error) {
	b, err := q.instance()
	if err != nil {
		return nil, err
	}
	all, err := d.control.Roles.List(ctx, b)
	if err != nil {
		return nil, err
	}
	r, err := control.Find(all, control.ByName(q.r.PathValue("role")), q.r.PathValue("role"))
	if err != nil {
		return nil, err
	}
	return instanceRoleOf(b.Project, r), nil
}

func (d *roleDoor) updateOfInstance(ctx context.Context, q *query) (any, error) {
	b, err := q.instance()
	if err != nil {
		return nil, err
	}
	var in wire.InstanceRole
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	name := q.r.PathValue("role")
	r, err := d.control.Roles.Update(ctx, b, control.ByName(name), name, func(s *tarn.RoleSpec) error {
		if in.Attributes != nil {
			readAttributes(in.Attributes, s)
		}
		if in.MembershipRole != "" {
			return readMembership([]string{in.MembershipRole}, s)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return instanceRoleOf(b.Project, r), nil
}

func (d *roleDoor) deleteOfInstance(ctx context.Context, q *query) (any, error) {
	b, err := q.instance()
	if err != nil {
		return nil, err
	}
	missing, err := q.flag("allow_missing")
	if err != nil {
		return nil, err
	}
	err = d.control.Roles.Delete(ctx, b, q.r.PathValue("role"), q.text("reassign_owned_to"))
	if tarn.KindOf(err) == tarn.KindNotFound && missing != nil && *missing {
		err = nil
	}
	return nil, err
}

// roleRoutes are the rows of the table for roles.
func roleRoutes(d *roleDoor) []route {
	const (
		branch   = " /api/2.0/postgres/projects/{project}/branches/{branch}/roles"
		instance = " /api/2.0/database/instances/{project}/roles"
	)
	return []route{
		{"POST" + branch, mayUse, d.create, says[wire.Role, wire.Operation]("postgres.createRole", "role_id replace_existing")},
		{"GET" + branch, signedIn, d.list, says[none, wire.ListRoles]("postgres.listRoles", "page_size page_token")},
		{"GET" + branch + "/{role}", signedIn, d.get, says[none, wire.Role]("postgres.getRole", "")},
		{"PATCH" + branch + "/{role}", signedIn, d.update, says[wire.Role, wire.Operation]("postgres.updateRole", "update_mask")},
		{"DELETE" + branch + "/{role}", signedIn, d.delete, says[none, wire.Operation]("postgres.deleteRole", "reassign_owned_to")},
		{"POST" + instance, mayUse, d.createOfInstance, says[wire.InstanceRole, wire.InstanceRole]("database.createDatabaseInstanceRole", "database_instance_name")},
		{"GET" + instance, signedIn, d.listOfInstance, says[none, wire.ListInstanceRoles]("database.listDatabaseInstanceRoles", "page_size page_token")},
		{"GET" + instance + "/{role}", signedIn, d.getOfInstance, says[none, wire.InstanceRole]("database.getDatabaseInstanceRole", "")},
		{"PATCH" + instance + "/{role}", signedIn, d.updateOfInstance, says[wire.InstanceRole, wire.InstanceRole]("database.updateDatabaseInstanceRole", "database_instance_name")},
		{"DELETE" + instance + "/{role}", signedIn, d.deleteOfInstance, says[none, wire.Empty]("database.deleteDatabaseInstanceRole", "allow_missing reassign_owned_to")},
	}
}
