package api

import (
	"context"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

// permissionDoor answers /api/2.0/permissions/{database-instances,
// database-projects}/{id}: an instance is a project, so both say the same.
type permissionDoor struct {
	control *control.Control
	kind    string // the path's word for the type
}

func (d *permissionDoor) get(ctx context.Context, q *query) (any, error) {
	n, err := q.project()
	if err != nil {
		return nil, err
	}
	p, all, err := d.control.Access.Permissions(ctx, n)
	if err != nil {
		return nil, err
	}
	out := wire.ObjectPermissions{ObjectID: "/" + d.kind + "/" + n.Project, ObjectType: d.kind}
	owner, err := d.control.Identity.Named(ctx, p.Owner)
	if err == nil {
		out.List = append(out.List, accessOf(owner, tarn.CanManage))
	}
	for _, m := range all {
		if m.Principal.Name != p.Owner {
			out.List = append(out.List, accessOf(m.Principal, m.Level))
		}
	}
	out.List = append(out.List, wire.AccessControl{GroupName: tarn.AdminsGroup, AllPermissions: []wire.Permission{
		{PermissionLevel: string(tarn.CanManage), Inherited: true, InheritedFrom: []string{"/" + d.kind + "/"}},
	}})
	return out, nil
}

func accessOf(p tarn.Principal, l tarn.Level) wire.AccessControl {
	out := wire.AccessControl{AllPermissions: []wire.Permission{{PermissionLevel: string(l)}}}
	switch p.Type {
	case tarn.PrincipalUser:
		out.UserName, out.DisplayName = p.Name, scimOf(p).DisplayName
	case tarn.PrincipalService:
		out.ServiceName, out.DisplayName = p.Name, scimOf(p).DisplayName
	case tarn.PrincipalGroup:
		out.GroupName = p.Name
	}
	return out
}

func (d *permissionDoor) set(ctx context.Context, q *query) (any, error) { return d.give(ctx, q, true) }

func (d *permissionDoor) update(ctx context.Context, q *query) (any, error) {
	return d.give(ctx, q, false)
}

func (d *permissionDoor) give(ctx context.Context, q *query, replace bool) (any, error) {
	n, err := q.project()
	if err != nil {
		return nil, err
	}
	var in wire.SetPermissions
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	var gs []control.Grant
	for _, a := range in.List {
		g := control.Grant{Level: tarn.Level(a.PermissionLevel)}
		switch {
		case a.UserName != "" && a.GroupName == "" && a.ServiceName == "":
			g.Name, g.Type = a.UserName, tarn.PrincipalUser
		case a.GroupName != "" && a.UserName == "" && a.ServiceName == "":
			g.Name, g.Type = a.GroupName, tarn.PrincipalGroup
		case a.ServiceName != "" && a.UserName == "" && a.GroupName == "":
			g.Name, g.Type = a.ServiceName, tarn.PrincipalService
		default:
			return nil, badField("access_control_list", "each entry names one of user_name, group_name and service_principal_name")
		}
		if !g.Level.Covers(tarn.CanCreate) {
			return nil, badField("access_control_list.permission_level", "got %q, want CAN_CREATE, CAN_USE or CAN_MANAGE", a.PermissionLevel)
		}
		gs = append(gs, g)
	}
	if err := d.control.Access.SetPermissions(ctx, q.who, n, gs, replace); err != nil {
		return nil, err
	}
	return d.get(ctx, q)
}

func (d *permissionDoor) levels(context.Context, *query) (any, error) {
	return wire.PermissionLevels{Levels: []wire.PermissionLevel{
		{PermissionLevel: string(tarn.CanCreate), Description: "Can see it"},
		{PermissionLevel: string(tarn.CanUse), Description: "Can get credentials, wake it, and create roles and databases"},
		{PermissionLevel: string(tarn.CanManage), Description: "Can change and delete it, and say who else may"},
	}}, nil
}
