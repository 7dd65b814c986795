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

// EnsureDefault makes catalog lake at root unless there is one. An older root
// stays: its tables are there.
func (c *Catalog) EnsureDefault(ctx context.Context, root string) error {
	err := c.CreateCatalog(ctx, Default, root)
	if tarn.KindOf(err) == tarn.KindConflict {
		return nil
	}
	return err
}

// CreateCatalog registers a catalog whose tables get their folders under the
// URL root. Registering it again at the same root changes nothing; at another
// it is KindConflict.
func (c *Catalog) CreateCatalog(ctx context.Context, name, root string) error {
	if err := checkParts(name); err != nil {
		return fmt.Errorf("create catalog: %w", err)
	}
	u, err := parseLocation(root)
	if err != nil {
		return fmt.Errorf("create catalog %s: %w", name, err)
	}
	root = u.String()
	_, err = controldb.InsertCatalog(ctx, c.db, name, root)
	if tarn.KindOf(err) != tarn.KindConflict {
		return err
	}
	old, getErr := controldb.GetCatalog(ctx, c.db, name)
	if getErr != nil {
		return getErr
	}
	if old.Root != root {
		return tarn.Conflict("catalog %q already exists at %s", name, old.Root)
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
	return controldb.ListSchemas(ctx, c.db, catalog)
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
