package client

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

// Secret is a service principal's secret, and ObjectPermissions who may do what
// with an object, as the API sends them.
type (
	Secret            = wire.Secret
	ObjectPermissions = wire.ObjectPermissions
)

const scim = "/api/2.0/preview/scim/v2/"

// scimFolder is where SCIM keeps principals of a type.
func scimFolder(t tarn.PrincipalType) string {
	switch t {
	case tarn.PrincipalService:
		return scim + "ServicePrincipals"
	case tarn.PrincipalGroup:
		return scim + "Groups"
	}
	return scim + "Users"
}

// Principals are users, service principals and groups.
type Principals struct{ c *Client }

// PrincipalsOf speaks of who there is at a server.
func PrincipalsOf(c *Client) *Principals { return &Principals{c} }

// TypeOf tells what kind of principal u is.
func TypeOf(u User) tarn.PrincipalType {
	switch {
	case u.UserName != "":
		return tarn.PrincipalUser
	case u.ApplicationID != "":
		return tarn.PrincipalService
	}
	return tarn.PrincipalGroup
}

// NameOf is the name a principal goes by, which is also its Postgres role's.
func NameOf(u User) string {
	switch TypeOf(u) {
	case tarn.PrincipalUser:
		return u.UserName
	case tarn.PrincipalService:
		return u.ApplicationID
	}
	return u.DisplayName
}

// List lists the principals of one type that filter takes; "" = all.
func (p *Principals) List(ctx context.Context, t tarn.PrincipalType, filter string) ([]User, error) {
	var all []User
	for start := 1; ; {
		var page wire.ScimList[User]
		err := p.c.get(ctx, scimFolder(t), query("filter", filter, "startIndex", strconv.Itoa(start), "count", "500"), &page)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Resources...)
		start += len(page.Resources)
		if len(page.Resources) == 0 || start > page.TotalResults {
			return all, nil
		}
	}
}

// Find finds a principal by its name; a service principal also by its display
// name, when only one has it.
func (p *Principals) Find(ctx context.Context, name string) (User, error) {
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name)
	for _, try := range []struct {
		t         tarn.PrincipalType
		attribute string
	}{
		{tarn.PrincipalUser, "userName"}, {tarn.PrincipalGroup, "displayName"}, {tarn.PrincipalService, "applicationId"}, {tarn.PrincipalService, "displayName"},
	} {
		found, err := p.List(ctx, try.t, fmt.Sprintf(`%s eq "%s"`, try.attribute, quoted))
		switch {
		case err != nil:
			return User{}, err
		case len(found) == 1:
			return found[0], nil
		case len(found) > 1:
			return User{}, tarn.Invalid("%d service principals are called %q", len(found), name).WithHint("name the one you mean by its application id: tarn principal list")
		}
	}
	return User{}, tarn.NotFound("no principal is called %q", name).WithHint("list them with: tarn principal list")
}

// Create makes a principal.
func (p *Principals) Create(ctx context.Context, t tarn.PrincipalType, u User) (User, error) {
	var out User
	err := p.c.do(ctx, http.MethodPost, scimFolder(t), nil, u, &out)
	return out, err
}

// Change is one change of a principal: "add", "replace" or "remove" at a path.
type Change = wire.ScimOperation

// Change changes a principal.
func (p *Principals) Change(ctx context.Context, u User, changes ...Change) (User, error) {
	var out User
	err := p.c.do(ctx, http.MethodPatch, scimFolder(TypeOf(u))+"/"+u.ID, nil, wire.ScimPatch{Operations: changes}, &out)
	return out, err
}

// Delete deletes a principal.
func (p *Principals) Delete(ctx context.Context, u User) error {
	return p.c.do(ctx, http.MethodDelete, scimFolder(TypeOf(u))+"/"+u.ID, nil, nil, nil)
}

// SetPassword gives a user a password for the sign-in page; name "" = who asks.
func (p *Principals) SetPassword(ctx context.Context, name string, password tarn.Secret) error {
	return p.c.do(ctx, http.MethodPost, mine+"password", nil, wire.SetPassword{UserName: name, Password: password.Reveal()}, nil)
}

func secretsOf(u User) string {
	return "/api/2.0/accounts/servicePrincipals/" + u.ID + "/credentials/secrets"
}

// CreateSecret makes a secret of a service principal that lives for life; 0 =
// until deleted. The answer is the only place its value is ever shown.
func (p *Principals) CreateSecret(ctx context.Context, u User, life time.Duration) (Secret, error) {
	var in wire.CreateSecret
	if life > 0 {
		in.Lifetime = wire.Duration(life)
	}
	var out Secret
	err := p.c.do(ctx, http.MethodPost, secretsOf(u), nil, in, &out)
	return out, err
}

// Secrets lists a service principal's secrets without their values.
func (p *Principals) Secrets(ctx context.Context, u User) ([]Secret, error) {
	var out wire.ListSecrets
	err := p.c.get(ctx, secretsOf(u), nil, &out)
	return out.Secrets, err
}

// DeleteSecret ends a secret.
func (p *Principals) DeleteSecret(ctx context.Context, u User, id string) error {
	return p.c.do(ctx, http.MethodDelete, secretsOf(u)+"/"+id, nil, nil, nil)
}

func permissionsOf(n tarn.ProjectName) string {
	return "/api/2.0/permissions/database-projects/" + n.Project
}

// Permissions tells who may do what with a project.
func (p *Principals) Permissions(ctx context.Context, n tarn.ProjectName) (ObjectPermissions, error) {
	var out ObjectPermissions
	err := p.c.get(ctx, permissionsOf(n), nil, &out)
	return out, err
}

// Grant gives a principal a level on a project.
func (p *Principals) Grant(ctx context.Context, n tarn.ProjectName, u User, l tarn.Level) (ObjectPermissions, error) {
	a := accessOf(u)
	a.PermissionLevel = string(l)
	var out ObjectPermissions
	err := p.c.do(ctx, http.MethodPatch, permissionsOf(n), nil, wire.SetPermissions{List: []wire.AccessControl{a}}, &out)
	return out, err
}

func accessOf(u User) (a wire.AccessControl) {
	switch TypeOf(u) {
	case tarn.PrincipalUser:
		a.UserName = u.UserName
	case tarn.PrincipalService:
		a.ServiceName = u.ApplicationID
	default:
		a.GroupName = u.DisplayName
	}
	return a
}

// Ungrant takes a principal's level on a project away. The published API can
// only replace all levels, so one that is given at the same time may be lost.
func (p *Principals) Ungrant(ctx context.Context, n tarn.ProjectName, u User) (ObjectPermissions, error) {
	now, err := p.Permissions(ctx, n)
	if err != nil {
		return now, err
	}
	gone, had := accessOf(u), false
	in := wire.SetPermissions{List: []wire.AccessControl{}}
	for _, a := range now.List {
		if a.UserName == gone.UserName && a.GroupName == gone.GroupName && a.ServiceName == gone.ServiceName {
			had = true
			continue
		}
		for _, l := range a.AllPermissions {
			if !l.Inherited {
				in.List = append(in.List, wire.AccessControl{UserName: a.UserName, GroupName: a.GroupName, ServiceName: a.ServiceName, PermissionLevel: l.PermissionLevel})
			}
		}
	}
	if !had {
		return now, tarn.NotFound("%s has no permission on project %s", NameOf(u), n.Project)
	}
	var out ObjectPermissions
	err = p.c.do(ctx, http.MethodPut, permissionsOf(n), nil, in, &out)
	return out, err
}
