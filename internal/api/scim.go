package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/control"
)

// scimPrefix is where SCIM's paths begin; errors below it are spelled its way.
const scimPrefix = "/api/2.0/preview/scim/v2/"

// scimDoor answers for principals of one type.
type scimDoor struct {
	identity *control.Identity
	kind     tarn.PrincipalType
}

// me is SCIM's answer to "who am I"; userName is also the Postgres role.
func (d *scimDoor) me(ctx context.Context, q *query) (any, error) {
	p, err := d.identity.Named(ctx, q.who.Name)
	if err != nil {
		return nil, err
	}
	u, err := d.resource(ctx, p)
	if err != nil {
		return nil, err
	}
	return shown(q, u)
}

// resource writes one principal.
func (d *scimDoor) resource(ctx context.Context, p tarn.Principal) (wire.User, error) {
	groups, err := d.identity.DirectGroups(ctx, p.ID)
	if err != nil {
		return wire.User{}, err
	}
	u := scimOf(p)
	u.Groups = scimGroups(groups)
	if p.Type != tarn.PrincipalGroup {
		return u, nil
	}
	members, err := d.identity.Members(ctx, p.ID)
	u.Members = scimMembers(members)
	return u, err
}

func scimOf(p tarn.Principal) wire.User {
	u := wire.User{ID: p.ID, DisplayName: p.DisplayName, ExternalID: p.ExternalID}
	for _, e := range p.Entitlements {
		u.Entitlements = append(u.Entitlements, wire.ScimValue{Value: e})
	}
	active := !p.Disabled
	switch p.Type {
	case tarn.PrincipalUser:
		u.Schemas, u.UserName, u.Active = []string{wire.ScimUserSchema}, p.Name, &active
		u.Emails = []wire.ScimValue{{Type: "work", Value: p.Name, Primary: true}}
	case tarn.PrincipalService:
		u.Schemas, u.ApplicationID, u.Active = []string{wire.ScimServiceSchema}, p.Name, &active
	case tarn.PrincipalGroup:
		u.Schemas, u.DisplayName = []string{wire.ScimGroupSchema}, p.Name
		u.Meta = &wire.ScimMeta{ResourceType: "WorkspaceGroup"}
	}
	if u.DisplayName == "" {
		u.DisplayName = p.Name
	}
	return u
}

func scimGroups(ps []tarn.Principal) (out []wire.ScimValue) {
	for _, p := range ps {
		out = append(out, wire.ScimValue{Value: p.ID, Display: p.Name, Type: "direct", Ref: "Groups/" + p.ID})
	}
	return out
}

func scimMembers(ps []tarn.Principal) (out []wire.ScimValue) {
	for _, p := range ps {
		v := wire.ScimValue{Value: p.ID, Display: scimOf(p).DisplayName}
		switch p.Type {
		case tarn.PrincipalUser:
			v.Ref = "Users/" + p.ID
		case tarn.PrincipalService:
			v.Ref = "ServicePrincipals/" + p.ID
		case tarn.PrincipalGroup:
			v.Ref = "Groups/" + p.ID
		}
		out = append(out, v)
	}
	return out
}

// shown leaves out of v what the request does not want to see.
func shown(q *query, v any) (any, error) {
	only, without := scimNames(q.text("attributes")), scimNames(q.text("excludedAttributes"))
	if len(only) == 0 && len(without) == 0 {
		return v, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	for name := range m {
		low := strings.ToLower(name)
		if low != "id" && low != "schemas" && (len(only) > 0 && !slices.Contains(only, low) || slices.Contains(without, low)) {
			delete(m, name)
		}
	}
	return m, nil
}

func scimNames(s string) (out []string) {
	for n := range strings.SplitSeq(s, ",") {
		if n, _, _ = strings.Cut(strings.TrimSpace(n), "."); n != "" {
			out = append(out, strings.ToLower(n))
		}
	}
	return out
}

// find reads the principal of the path; one of another type is not there.
func (d *scimDoor) find(ctx context.Context, q *query) (tarn.Principal, error) {
	id := q.r.PathValue("id")
	p, err := d.identity.Principal(ctx, id)
	if err == nil && p.Type != d.kind {
		return p, tarn.NotFound("no %s has id %q", kindWord(d.kind), id)
	}
	return p, err
}

func kindWord(t tarn.PrincipalType) string {
	return strings.ToLower(strings.ReplaceAll(string(t), "_", " "))
}

func (d *scimDoor) get(ctx context.Context, q *query) (any, error) {
	p, err := d.find(ctx, q)
	if err != nil {
		return nil, err
	}
	u, err := d.resource(ctx, p)
	if err != nil {
		return nil, err
	}
	return shown(q, u)
}

const maxScimPage = 10000

func (d *scimDoor) list(ctx context.Context, q *query) (any, error) {
	f, err := parseScimFilter(q.text("filter"))
	if err != nil {
		return nil, err
	}
	start, err := q.number("startIndex")
	if err != nil {
		return nil, err
	}
	start = max(start, 1)
	count, err := q.number("count")
	if err != nil {
		return nil, err
	}
	if q.text("count") == "" || count > maxScimPage {
		count = maxScimPage
	}
	ps, err := d.identity.Principals(ctx, d.kind)
	if err != nil {
		return nil, err
	}
	found := make([]wire.User, 0, len(ps))
	byID := make(map[string]tarn.Principal, len(ps))
	for _, p := range ps {
		if u := scimOf(p); f.takes(u) {
			found, byID[p.ID] = append(found, u), p
		}
	}
	if err := scimSort(found, q.text("sortBy"), q.text("sortOrder")); err != nil {
		return nil, err
	}
	out := wire.ScimList[any]{Schemas: []string{wire.ScimListSchema}, TotalResults: len(found), StartIndex: start, Resources: []any{}}
	found = found[min(start-1, len(found)):]
	for _, u := range found[:min(count, len(found))] {
		full, err := d.resource(ctx, byID[u.ID])
		if err != nil {
			return nil, err
		}
		v, err := shown(q, full)
		if err != nil {
			return nil, err
		}
		out.Resources = append(out.Resources, v)
	}
	out.ItemsPerPage = len(out.Resources)
	return out, nil
}

// scimSort sorts by an attribute; "" = by id.
func scimSort(us []wire.User, by, order string) error {
	by = strings.ToLower(by)
	if by != "" && !slices.Contains(scimAttributes, by) {
		return badField("sortBy", "cannot sort by %q", by)
	}
	slices.SortStableFunc(us, func(a, b wire.User) int {
		if by == "" || by == "id" {
			x, _ := strconv.Atoi(a.ID)
			y, _ := strconv.Atoi(b.ID)
			return x - y
		}
		return strings.Compare(strings.Join(scimValues(a, by), " "), strings.Join(scimValues(b, by), " "))
	})
	if strings.EqualFold(order, "descending") {
		slices.Reverse(us)
	}
	return nil
}

func (d *scimDoor) create(ctx context.Context, q *query) (any, error) {
	var in wire.User
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	p := tarn.Principal{Type: d.kind}
	switch d.kind {
	case tarn.PrincipalUser:
		if p.Name = strings.TrimSpace(in.UserName); p.Name == "" {
			return nil, badField("userName", "is missing")
		}
	case tarn.PrincipalService:
		p.Name = in.ApplicationID
	case tarn.PrincipalGroup:
		if p.Name = strings.TrimSpace(in.DisplayName); p.Name == "" {
			return nil, badField("displayName", "is missing")
		}
	}
	scimInto(in, &p)
	p, err := d.identity.CreatePrincipal(ctx, p)
	if err != nil {
		return nil, existing(err, alreadyExists, func() error { return nil })
	}
	if d.kind == tarn.PrincipalGroup && len(in.Members) > 0 {
		if err := d.identity.ChangeMembers(ctx, p.ID, control.Membership{Add: scimIDs(in.Members)}); err != nil {
			return nil, err
		}
	}
	if in.Password != "" {
		if err := d.identity.SetPassword(ctx, p.ID, tarn.Secret(in.Password)); err != nil {
			return nil, err
		}
	}
	return d.resource(ctx, p)
}

// scimInto writes what a resource says into p, its name excepted.
func scimInto(in wire.User, p *tarn.Principal) {
	if p.Type != tarn.PrincipalGroup {
		p.DisplayName = in.DisplayName
		if p.DisplayName == "" && in.Name != nil {
			p.DisplayName = strings.TrimSpace(in.Name.GivenName + " " + in.Name.FamilyName)
		}
		p.Disabled = in.Active != nil && !*in.Active
	}
	p.ExternalID, p.Entitlements = in.ExternalID, scimIDs(in.Entitlements)
}

func scimIDs(vs []wire.ScimValue) (out []string) {
	for _, v := range vs {
		if v.Value != "" {
			out = append(out, v.Value)
		}
	}
	return out
}

func (d *scimDoor) replace(ctx context.Context, q *query) (any, error) {
	p, err := d.find(ctx, q)
	if err != nil {
		return nil, err
	}
	var in wire.User
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	if p, err = d.write(ctx, p, in); err != nil {
		return nil, err
	}
	if d.kind == tarn.PrincipalGroup && p.Name != tarn.UsersGroup {
		if err := d.identity.ChangeMembers(ctx, p.ID, control.Membership{Replace: true, Add: scimIDs(in.Members)}); err != nil {
			return nil, err
		}
	}
	return d.resource(ctx, p)
}

// write makes a principal what in says.
func (d *scimDoor) write(ctx context.Context, p tarn.Principal, in wire.User) (tarn.Principal, error) {
	now, err := d.identity.UpdatePrincipal(ctx, p.ID, func(p *tarn.Principal) error {
		scimInto(in, p)
		switch {
		case d.kind == tarn.PrincipalUser && in.UserName != "":
			p.Name = in.UserName
		case d.kind == tarn.PrincipalService && in.ApplicationID != "":
			p.Name = in.ApplicationID
		case d.kind == tarn.PrincipalGroup && in.DisplayName != "":
			p.Name = in.DisplayName
		}
		return nil
	})
	if err != nil {
		return p, existing(err, alreadyExists, func() error {
			if tarn.HintOf(err) != "" { // refused for another reason
				return err
			}
			return nil
		})
	}
	if in.Password != "" {
		err = d.identity.SetPassword(ctx, p.ID, tarn.Secret(in.Password))
	}
	return now, err
}

func (d *scimDoor) delete(ctx context.Context, q *query) (any, error) {
	p, err := d.find(ctx, q)
	if err != nil {
		return nil, err
	}
	if p.ID == q.who.ID {
		return nil, tarn.Conflict("delete principal: %s cannot delete itself", p.Name)
	}
	return nil, d.identity.DeletePrincipal(ctx, p.ID)
}

func (d *scimDoor) patch(ctx context.Context, q *query) (any, error) {
	p, err := d.find(ctx, q)
	if err != nil {
		return nil, err
	}
	var in wire.ScimPatch
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	was := scimOf(p)
	now, members, err := patched(was, in.Operations)
	if err != nil {
		return nil, err
	}
	if len(members.Add)+len(members.Remove) > 0 || members.Replace {
		if d.kind != tarn.PrincipalGroup {
			return nil, badField("Operations", "only groups have members")
		}
		if err := d.identity.ChangeMembers(ctx, p.ID, members); err != nil {
			return nil, err
		}
	}
	a, errA := json.Marshal(was)
	b, errB := json.Marshal(now)
	if errA == nil && errB == nil && string(a) != string(b) {
		if p, err = d.write(ctx, p, now); err != nil {
			return nil, err
		}
	}
	return d.resource(ctx, p)
}

// scimError is an error in both forms.
type scimError struct {
	wire.Error
	Schemas []string `json:"schemas"`
	Detail  string   `json:"detail"`
	Status  string   `json:"status"`
	Type    string   `json:"scimType,omitempty"`
}

// scimBody adds to an error what SCIM's clients look for.
func scimBody(f *failure, e wire.Error) any {
	kind := ""
	switch {
	case len(f.fields) > 0 && f.fields[0].Field == "filter":
		kind = "invalidFilter"
	case f.status == http.StatusConflict:
		kind = "uniqueness"
	case f.status == http.StatusBadRequest:
		kind = "invalidValue"
	}
	return scimError{e, []string{wire.ScimErrorSchema}, e.Message, strconv.Itoa(f.status), kind}
}
