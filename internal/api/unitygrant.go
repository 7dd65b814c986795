package api

import (
	"context"
	"slices"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/catalog"
)

// securable reads what grants are asked about from the path.
func securable(q *query) (tarn.Securable, error) {
	on, err := tarn.ParseSecurable(tarn.SecurableType(strings.ToUpper(q.r.PathValue("type"))), q.r.PathValue("name"))
	if err != nil {
		return on, badField("securable", "%s", err)
	}
	return on, nil
}

// askedGrants finds whose grants who asks may see: who manages the object, all;
// anybody else what it has itself or by its groups.
func (d *unityDoor) askedGrants(ctx context.Context, q *query) (on tarn.Securable, principal string, mine []string, err error) {
	if on, err = securable(q); err != nil {
		return on, "", nil, err
	}
	principal = q.text("principal")
	mine, err = d.rights(q).SeenGrants(ctx, on, principal)
	return on, principal, mine, err
}

func (d *unityDoor) grants(ctx context.Context, q *query) (any, error) {
	on, principal, mine, err := d.askedGrants(ctx, q)
	if err != nil {
		return nil, err
	}
	gs, err := d.catalog.Grants().On(ctx, on, principal)
	if err != nil {
		return nil, err
	}
	return grantsOf(gs, mine), nil
}

func grantsOf(gs []tarn.Grant, mine []string) wire.Grants {
	out := wire.Grants{PrivilegeAssignments: []wire.PrivilegeAssignment{}}
	for _, g := range gs {
		if mine != nil && !slices.Contains(mine, g.Principal) {
			continue
		}
		a := wire.PrivilegeAssignment{Principal: g.Principal}
		for _, p := range g.Privileges {
			a.Privileges = append(a.Privileges, string(p))
		}
		out.PrivilegeAssignments = append(out.PrivilegeAssignments, a)
	}
	return out
}

func (d *unityDoor) effectiveGrants(ctx context.Context, q *query) (any, error) {
	on, principal, mine, err := d.askedGrants(ctx, q)
	if err != nil {
		return nil, err
	}
	gs, err := d.catalog.Grants().Effective(ctx, on, principal)
	if err != nil {
		return nil, err
	}
	out := wire.EffectiveGrants{PrivilegeAssignments: []wire.EffectiveAssignment{}}
	at := map[string]int{}
	for _, g := range gs {
		if mine != nil && !slices.Contains(mine, g.Principal) {
			continue
		}
		i, ok := at[g.Principal]
		if !ok {
			i = len(out.PrivilegeAssignments)
			at[g.Principal] = i
			out.PrivilegeAssignments = append(out.PrivilegeAssignments, wire.EffectiveAssignment{Principal: g.Principal})
		}
		for _, p := range g.Privileges {
			e := wire.EffectivePrivilege{Privilege: string(p)}
			if g.On != on {
				e.InheritedFromType, e.InheritedFromName = string(g.On.Type()), g.On.FullName()
			}
			out.PrivilegeAssignments[i].Privileges = append(out.PrivilegeAssignments[i].Privileges, e)
		}
	}
	return out, nil
}

func (d *unityDoor) changeGrants(ctx context.Context, q *query) (any, error) {
	on, err := securable(q)
	if err != nil {
		return nil, err
	}
	var in wire.GrantChanges
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	var changes []catalog.GrantChange
	for _, c := range in.Changes {
		ch := catalog.GrantChange{Principal: c.Principal}
		if c.Principal == "" {
			return nil, badField("changes.principal", "is missing")
		}
		if ch.Add, err = readPrivileges("changes.add", c.Add); err != nil {
			return nil, err
		}
		if ch.Remove, err = readPrivileges("changes.remove", c.Remove); err != nil {
			return nil, err
		}
		changes = append(changes, ch)
		q.detail += ch.String()
	}
	if err := d.rights(q).ChangeGrants(ctx, on, changes); err != nil {
		return nil, err
	}
	gs, err := d.catalog.Grants().On(ctx, on, "")
	return grantsOf(gs, nil), err
}

func readPrivileges(field string, names []string) ([]tarn.Privilege, error) {
	var out []tarn.Privilege
	for _, n := range names {
		p, err := tarn.ParsePrivilege(n)
		if err != nil {
			return nil, badField(field, "%s", err)
		}
		out = append(out, p)
	}
	return out, nil
}
