package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// GrantChange is what is given to and taken from one principal.
type GrantChange struct {
	Principal string
	Add       []tarn.Privilege
	Remove    []tarn.Privilege
}

// String is what an audit says of the change.
func (c GrantChange) String() string {
	names := func(ps []tarn.Privilege) string {
		out := make([]string, len(ps))
		for i, p := range ps {
			out[i] = string(p)
		}
		return strings.Join(out, ",")
	}
	return "grant " + names(c.Add) + " revoke " + names(c.Remove) + " principal " + c.Principal + "; "
}

// ChangeGrants is Grants.Change by a principal that manages the object; on the
// metastore only admins of the workspace do.
func (r *Rights) ChangeGrants(ctx context.Context, on tarn.Securable, changes []GrantChange) error {
	if on.Type() == tarn.SecurableMetastore && !r.who.Admin {
		return tarn.Denied("%s may not grant on the metastore: only admins of the workspace may", r.who.Name)
	}
	if err := r.Check(ctx, tarn.PrivilegeManage, on); err != nil {
		return err
	}
	return (&Grants{r.db}).Change(ctx, r.who, on, changes)
}

// SeenGrants says whose grants on an object the principal may see: nil =
// everybody's, of who manages it; else its own and those of its groups. KindDenied
// when of, "" = whoever has some, is none of them.
func (r *Rights) SeenGrants(ctx context.Context, on tarn.Securable, of string) (mine []string, err error) {
	denied := r.Check(ctx, tarn.PrivilegeManage, on)
	if tarn.KindOf(denied) != tarn.KindDenied {
		return nil, denied
	}
	mine = append([]string{r.who.Name}, r.who.Groups...)
	if of != "" && !slices.Contains(mine, of) {
		return mine, denied
	}
	return mine, r.CheckVisible(ctx, on)
}

// Grants are those on the objects of the workspace.
type Grants struct{ db *controldb.DB }

// Grants gives them.
func (c *Catalog) Grants() *Grants { return &Grants{c.db} }

// On gives what was granted on an object itself, by principal; principal ""
// = to anybody. KindNotFound when the object is not there.
func (c *Grants) On(ctx context.Context, on tarn.Securable, principal string) ([]tarn.Grant, error) {
	if err := c.exists(ctx, on); err != nil {
		return nil, err
	}
	return c.of(ctx, on, principal)
}

func (c *Grants) of(ctx context.Context, on tarn.Securable, principal string) ([]tarn.Grant, error) {
	rows, err := controldb.GrantsOn(ctx, c.db, on)
	if err != nil {
		return nil, err
	}
	var out []tarn.Grant
	for _, r := range rows {
		if principal != "" && r.Principal != principal {
			continue
		}
		if n := len(out); n == 0 || out[n-1].Principal != r.Principal {
			out = append(out, tarn.Grant{On: on, Principal: r.Principal})
		}
		last := &out[len(out)-1]
		last.Privileges = append(last.Privileges, r.Privilege)
	}
	return out, nil
}

// Effective gives what was granted on an object and on what holds it, the
// outermost first. Ownership is not among it.
func (c *Grants) Effective(ctx context.Context, on tarn.Securable, principal string) ([]tarn.Grant, error) {
	if err := c.exists(ctx, on); err != nil {
		return nil, err
	}
	var all []tarn.Grant
	for at := on; ; at = at.Parent() {
		gs, err := c.of(ctx, at, principal)
		if err != nil {
			return nil, err
		}
		all = append(gs, all...)
		if at.Type() == tarn.SecurableMetastore {
			return all, nil
		}
	}
}

// Change grants and revokes on one object, all or nothing. What is given
// that was given already, and taken that was not there, changes nothing.
// KindInvalid (a privilege that does not fit the object), KindNotFound (the
// object, a principal).
func (c *Grants) Change(ctx context.Context, by tarn.Principal, on tarn.Securable, changes []GrantChange) error {
	if err := c.exists(ctx, on); err != nil {
		return fmt.Errorf("grant on %s: %w", on, err)
	}
	err := c.db.InTx(ctx, func(tx *controldb.Tx) error {
		for _, ch := range changes {
			to, err := controldb.GetPrincipal(ctx, tx, ch.Principal)
			if err != nil {
				return err
			}
			for _, p := range ch.Add {
				if !p.On(on.Type()) {
					return tarn.Invalid("%s is no privilege of %s", p.Words(), on)
				}
				if slices.Contains(ch.Remove, p) {
					return tarn.Invalid("%s is both given to and taken from %s", p.Words(), to.Name)
				}
				if err := controldb.InsertGrant(ctx, tx, on, to.ID, p, by.Name); err != nil {
					return err
				}
			}
			for _, p := range ch.Remove {
				if err := controldb.DeleteGrant(ctx, tx, on, to.ID, p); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("grant on %s: %w", on, err)
	}
	return nil
}

// exists fails with KindNotFound unless the object is there.
func (c *Grants) exists(ctx context.Context, on tarn.Securable) error {
	switch on.Type() {
	case tarn.SecurableMetastore:
		return nil
	case tarn.SecurableTable:
		_, err := lookup(ctx, c.db, tarn.TableName(on))
		return err
	}
	ok, err := controldb.CatalogExists(ctx, c.db, on.Catalog)
	if err == nil && !ok {
		err = tarn.NotFound("catalog %q does not exist", on.Catalog)
	}
	if err != nil || on.Type() == tarn.SecurableCatalog {
		return err
	}
	r, err := controldb.GetRegisteredCatalog(ctx, c.db, on.Catalog)
	if tarn.KindOf(err) == tarn.KindNotFound {
		_, err = controldb.GetSchema(ctx, c.db, on.Catalog, on.Schema)
		return err
	}
	if err == nil && !slices.Contains(SchemasOf(r), on.Schema) {
		err = tarn.NotFound("database %s of %s had no schema %s when it was last awake", r.Database, r.Branch, on.Schema)
	}
	return err
}
