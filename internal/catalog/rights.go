package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Rights is what one principal may do with catalog objects. It keeps nothing
// between calls: a grant that was taken back is not honoured by the next.
//
// A privilege on an object is had by a grant on it or on what holds it, to the
// principal or to a group it is in; by ALL PRIVILEGES, which is all but MANAGE;
// and by owning it or what holds it, which is all. Admins of the workspace have
// all everywhere. Beside the privilege, USE CATALOG and USE SCHEMA are needed on
// what holds the object; to make something, also on what it is made in.
//
// On the catalog of a registered database, and on a synced table, whose owners
// are those of their project, levels of the project count too: CAN_MANAGE is
// owning it; CAN_USE is CREATE TABLE, and to see everything; CAN_CREATE is to
// see everything.
type Rights struct {
	db  *controldb.DB
	who tarn.Principal
}

// For gives the rights of a principal as the identity room has it: its ID counts,
// and Admin.
func (c *Catalog) For(p tarn.Principal) *Rights { return &Rights{c.db, p} }

// Check refuses, as KindDenied, a principal that may not do what the privilege
// says; the error names the missing grant and the object it is missing on, and
// its hint the command that gives it. Whether the object is there is not said:
// resolve it with Rights.Table, or look for it after the check.
func (c *Catalog) Check(ctx context.Context, p tarn.Principal, want tarn.Privilege, on tarn.Securable) error {
	return c.For(p).Check(ctx, want, on)
}

// Check is Catalog.Check for the principal.
func (r *Rights) Check(ctx context.Context, want tarn.Privilege, on tarn.Securable) error {
	if r.who.Admin {
		return nil
	}
	h, err := r.holdings(ctx, on)
	if err != nil {
		return err
	}
	if m, missing := h.missing(want, on); missing {
		return r.denied(ctx, want, on, m)
	}
	return nil
}

// CheckCreateTable refuses whoever may not make a table in a schema: CREATE TABLE
// is needed on one that is there, and CREATE SCHEMA on the catalog of one that is
// not. In a catalog that is not there, as that of a synced table may be, nothing
// is needed beside what its project wants.
func (r *Rights) CheckCreateTable(ctx context.Context, catalog, schema string) error {
	if r.who.Admin {
		return nil
	}
	if ok, err := controldb.CatalogExists(ctx, r.db, catalog); err != nil || !ok {
		return err
	}
	_, err := controldb.GetSchema(ctx, r.db, catalog, schema)
	if tarn.KindOf(err) == tarn.KindNotFound {
		_, err = controldb.GetCatalog(ctx, r.db, catalog)
		if err == nil {
			return r.Check(ctx, tarn.PrivilegeCreateSchema, tarn.CatalogSecurable(catalog))
		}
		if tarn.KindOf(err) == tarn.KindNotFound { // registered: its schemas are the database's
			err = nil
		}
	}
	if err != nil {
		return err
	}
	return r.Check(ctx, tarn.PrivilegeCreateTable, tarn.SchemaSecurable(catalog, schema))
}

// CheckVisible refuses whoever may not see that the object is there.
func (r *Rights) CheckVisible(ctx context.Context, on tarn.Securable) error {
	if r.who.Admin {
		return nil
	}
	h, err := r.holdings(ctx, on)
	if err != nil {
		return err
	}
	if m, missing := h.unseen(on); missing {
		return r.denied(ctx, seeing, on, m)
	}
	return nil
}

// Visible tells which objects in a catalog, "" = in any, the principal may see.
// The answer is of one moment.
func (r *Rights) Visible(ctx context.Context, catalog string) (func(tarn.Securable) bool, error) {
	if r.who.Admin {
		return func(tarn.Securable) bool { return true }, nil
	}
	h, err := r.holdings(ctx, tarn.CatalogSecurable(catalog))
	return func(on tarn.Securable) bool {
		_, missing := h.unseen(on)
		return !missing
	}, err
}

// Effective gives the privileges the principal has on an object, and on what
// each was given.
func (r *Rights) Effective(ctx context.Context, on tarn.Securable) (map[tarn.Privilege]tarn.Securable, error) {
	h, err := r.holdings(ctx, on)
	if err != nil {
		return nil, err
	}
	out := map[tarn.Privilege]tarn.Securable{}
	for _, p := range tarn.Privileges() {
		if from, ok := h.from(p, on); ok && p != tarn.PrivilegeAll {
			out[p] = from
		}
	}
	return out, nil
}

func (r *Rights) denied(ctx context.Context, want tarn.Privilege, on tarn.Securable, m lack) error {
	owner, err := controldb.SecurableOwner(ctx, r.db, m.on)
	if err != nil && tarn.KindOf(err) != tarn.KindNotFound {
		return err
	}
	by := "An admin can grant it"
	if owner != "" {
		by = "Its owner " + owner + " or an admin can grant it"
	}
	doing := want.Words() + " on " + on.String()
	if want == seeing {
		doing = "see " + on.String()
	}
	return tarn.Denied("%s may not %s: it lacks %s on %s", r.who.Name, doing, m.what.Words(), m.on).
		WithHint(fmt.Sprintf("%s: tarn grant %s %s %s", by, strings.ToLower(string(m.what)), m.on.FullName(), r.who.Name))
}

func (r *Rights) holdings(ctx context.Context, on tarn.Securable) (holdings, error) {
	rows, err := controldb.Holdings(ctx, r.db, r.who.ID, on)
	h := holdings{}
	for _, row := range rows {
		switch tarn.Level(row.What) {
		case tarn.CanManage:
			h.add(row.On, controldb.Ownership, seeing)
		case tarn.CanUse:
			h.add(row.On, tarn.PrivilegeUseCatalog, tarn.PrivilegeUseSchema, tarn.PrivilegeCreateTable, seeing)
		case tarn.CanCreate:
			h.add(row.On, tarn.PrivilegeUseCatalog, tarn.PrivilegeUseSchema, seeing)
		default:
			h.add(row.On, tarn.Privilege(row.What))
		}
	}
	return h, err
}

// seeing is a right that is given by a project only: to know of an object
// without reading it.
const seeing tarn.Privilege = "see"

// holdings are what one principal has, by object.
type holdings map[tarn.Securable][]tarn.Privilege

func (h holdings) add(on tarn.Securable, ps ...tarn.Privilege) { h[on] = append(h[on], ps...) }

// lack is a grant that is missing.
type lack struct {
	what tarn.Privilege
	on   tarn.Securable
}

// from says on what a privilege on an object was given.
func (h holdings) from(p tarn.Privilege, on tarn.Securable) (tarn.Securable, bool) {
	for at := on; ; at = at.Parent() {
		for _, have := range h[at] {
			if have == p || have == controldb.Ownership || have == tarn.PrivilegeAll && p != tarn.PrivilegeManage {
				return at, true
			}
		}
		if at.Type() == tarn.SecurableMetastore {
			return at, false
		}
	}
}

func (h holdings) has(p tarn.Privilege, on tarn.Securable) bool {
	_, ok := h.from(p, on)
	return ok
}

// missing finds the outermost grant without which want on an object is refused.
func (h holdings) missing(want tarn.Privilege, on tarn.Securable) (lack, bool) {
	inside := on.Parent()
	if want == tarn.PrivilegeCreateTable || want == tarn.PrivilegeCreateSchema {
		inside = on
	}
	if m, missing := h.unused(inside); missing && !h.project(on) {
		return m, true
	}
	if !h.has(want, on) {
		return lack{want, on}, true
	}
	return lack{}, false
}

// unused finds the USE privilege that is missing to get at what is in an object.
func (h holdings) unused(in tarn.Securable) (lack, bool) {
	if c := tarn.CatalogSecurable(in.Catalog); in.Catalog != "" && !h.has(tarn.PrivilegeUseCatalog, c) {
		return lack{tarn.PrivilegeUseCatalog, c}, true
	}
	if s := tarn.SchemaSecurable(in.Catalog, in.Schema); in.Schema != "" && !h.has(tarn.PrivilegeUseSchema, s) {
		return lack{tarn.PrivilegeUseSchema, s}, true
	}
	return lack{}, false
}

// project says whether a project gives sight of the table itself: a synced
// table is found by those of its project whatever catalog shows it.
func (h holdings) project(on tarn.Securable) bool {
	return on.Table != "" && slices.Contains(h[on], seeing)
}

// unseen finds the grant that is missing to see that an object is there: the USE
// privilege of catalogs and schemas, or to own or manage them; any privilege on
// a table.
func (h holdings) unseen(on tarn.Securable) (lack, bool) {
	if m, missing := h.unused(on.Parent()); missing && !h.project(on) {
		return m, true
	}
	var any []tarn.Privilege
	switch on.Type() {
	case tarn.SecurableMetastore:
		return lack{}, false
	case tarn.SecurableCatalog:
		any = []tarn.Privilege{tarn.PrivilegeUseCatalog, tarn.PrivilegeManage}
	case tarn.SecurableSchema:
		any = []tarn.Privilege{tarn.PrivilegeUseSchema, tarn.PrivilegeManage}
	case tarn.SecurableTable:
		any = []tarn.Privilege{tarn.PrivilegeSelect, tarn.PrivilegeModify, tarn.PrivilegeManage, seeing}
	}
	if slices.ContainsFunc(any, func(p tarn.Privilege) bool { return h.has(p, on) }) {
		return lack{}, false
	}
	return lack{any[0], on}, true
}
