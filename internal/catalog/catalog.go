// Package catalog says which catalogs, schemas and tables exist, where a
// table's bytes are, and resolves names for a principal. It knows nothing of
// what is in a table.
package catalog

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Default is the catalog every workspace begins with.
const Default = "lake"

// Catalog is the one catalog service of a workspace. It is safe for concurrent
// use.
type Catalog struct{ db *controldb.DB }

// New builds a catalog service on the control plane's rows.
func New(db *controldb.DB) *Catalog { return &Catalog{db} }

// EnsureDefault makes catalog lake at root, and system beside it, unless they are
// there. An older root stays: its tables are there.
func (c *Catalog) EnsureDefault(ctx context.Context, root string) error {
	if err := c.ensure(ctx, Default, root, ""); err != nil {
		return err
	}
	return c.ensure(ctx, System, "", "what Tarn writes about itself")
}

// Root is where the tables of a catalog lie that have no place of their own.
func (c *Catalog) Root(ctx context.Context, name string) (string, error) {
	e, err := controldb.GetCatalog(ctx, c.db, name)
	return e.Root, err
}

func (c *Catalog) ensure(ctx context.Context, name, root, comment string) error {
	_, err := controldb.GetCatalog(ctx, c.db, name)
	if tarn.KindOf(err) == tarn.KindNotFound {
		_, err = c.CreateCatalog(ctx, tarn.Principal{}, tarn.CatalogEntry{ObjectEntry: tarn.ObjectEntry{Name: name, Comment: comment}, Root: root})
		if tarn.KindOf(err) == tarn.KindConflict {
			return nil // somebody was faster
		}
	}
	return err
}

// CreateCatalog records a catalog whose tables get their folders under
// e.Root; "" = beside those of catalog lake. It is owned by p. KindInvalid (the
// name, the root), KindConflict (a catalog of either kind has the name).
func (c *Catalog) CreateCatalog(ctx context.Context, p tarn.Principal, e tarn.CatalogEntry) (tarn.CatalogEntry, error) {
	if err := c.createCatalog(ctx, p, &e); err != nil {
		return e, fmt.Errorf("create catalog %s: %w", e.Name, err)
	}
	return e, nil
}

func (c *Catalog) createCatalog(ctx context.Context, p tarn.Principal, e *tarn.CatalogEntry) (err error) {
	if err := checkParts(e.Name); err != nil {
		return err
	}
	if e.Name == (tarn.Securable{}).FullName() {
		return tarn.Invalid("the name %q is taken by what holds all catalogs", e.Name)
	}
	if err := checkText(e.ObjectEntry); err != nil {
		return err
	}
	if e.Root == "" {
		if e.Root, err = c.besideDefault(ctx, e.Name); err != nil {
			return err
		}
	}
	u, err := parseLocation(e.Root)
	if err != nil {
		return err
	}
	e.Root, e.Owner, e.CreatedBy = u.String(), p.Name, p.Name
	*e, err = controldb.InsertCatalog(ctx, c.db, *e)
	return err
}

// besideDefault gives a root in the folder that has catalog lake's.
func (c *Catalog) besideDefault(ctx context.Context, name string) (string, error) {
	lake, err := controldb.GetCatalog(ctx, c.db, Default)
	if err != nil {
		return "", tarn.Invalid("there is no catalog %s to lie beside: say where the catalog's tables lie", Default)
	}
	u, err := parseLocation(lake.Root)
	if err != nil {
		return "", err
	}
	return u.JoinPath("..", "catalogs", url.PathEscape(name)).String(), nil
}

// The most that is kept of a comment, and of properties, in bytes.
const (
	maxComment    = 64 << 10
	maxProperties = 256 << 10
)

// checkText bounds what people write about an object.
func checkText(e tarn.ObjectEntry) error {
	n := 0
	for k, v := range e.Properties {
		if k == "" {
			return tarn.Invalid("a property has no name")
		}
		if strings.Contains(k+v, "\x00") {
			return tarn.Invalid("property %q holds a zero byte", k)
		}
		n += len(k) + len(v)
	}
	switch {
	case n > maxProperties:
		return tarn.Invalid("properties of %d bytes: at most %d are kept", n, maxProperties)
	case len(e.Comment) > maxComment:
		return tarn.Invalid("a comment of %d bytes: at most %d are kept", len(e.Comment), maxComment)
	case strings.Contains(e.Comment, "\x00"):
		return tarn.Invalid("the comment holds a zero byte")
	}
	return nil
}

// Catalogs lists the names of the catalogs.
func (c *Catalog) Catalogs(ctx context.Context) ([]string, error) {
	rows, err := controldb.ListCatalogs(ctx, c.db)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(rows))
	for _, r := range rows {
		names = append(names, r.Name)
	}
	return names, nil
}

// Schemas lists the names of one catalog's schemas; KindNotFound without the
// catalog.
func (c *Catalog) Schemas(ctx context.Context, catalog string) ([]string, error) {
	if err := c.mustHave(ctx, catalog); err != nil {
		return nil, err
	}
	rows, err := controldb.ListSchemas(ctx, c.db, catalog)
	names := make([]string, 0, len(rows))
	for _, r := range rows {
		names = append(names, r.Name)
	}
	return names, err
}

func (c *Catalog) mustHave(ctx context.Context, catalog string) error {
	_, err := controldb.GetCatalog(ctx, c.db, catalog)
	if tarn.KindOf(err) != tarn.KindNotFound {
		return err
	}
	names, listErr := c.Catalogs(ctx)
	if listErr != nil {
		return listErr
	}
	return tarn.NotFound("catalog %q does not exist", catalog).WithHint("There are these catalogs: " + strings.Join(names, ", ") + ".")
}

// parseLocation reads an absolute URL of a folder and drops a slash at its end.
func parseLocation(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Path == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, tarn.Invalid("location %q: want the URL of a folder, like file:///data/lake or s3://bucket/lake", s)
	}
	if u.Path != "/" {
		u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), strings.TrimRight(u.RawPath, "/")
	}
	return u, nil
}

// checkParts holds parts of names that were not read by tarn.ParseTableName to
// the same rules: they become folders and Postgres identifiers.
func checkParts(parts ...string) error {
	for _, p := range parts {
		if p == "" || len(p) > 255 || p == "." || p == ".." || strings.ContainsAny(p, "/\\`\x00") {
			return tarn.Invalid("name %q is empty, too long or holds a character that is not allowed", p)
		}
	}
	return nil
}
