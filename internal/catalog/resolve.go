package catalog

import (
	"context"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/controldb"
)

// Kind says what a table is.
type Kind string

// The kinds. The first three are Delta tables, at Table.Location.
const (
	Managed  Kind = "MANAGED"  // in a folder of its catalog
	External Kind = "EXTERNAL" // where it was said to lie
	Feed     Kind = "FEED"     // managed, and written by a feed
	Postgres Kind = "POSTGRES" // of a registered database
	Synced   Kind = "SYNCED"   // in Postgres, kept equal to a Delta table
)

// Delta says whether the table's rows are in Delta files.
func (k Kind) Delta() bool { return k == Managed || k == External || k == Feed }

// Entry is a table that a name resolved to.
type Entry struct {
	Kind  Kind
	Table tarn.CatalogTable // Location "" unless Kind.Delta
	Feed  string            // UID of the feed that writes it; Kind Feed
	// Of Kinds Postgres and Synced: where the rows are. Object has the columns
	// as last seen, of Kind Postgres only.
	Branch   tarn.BranchName
	Database string
	Object   tarn.CatalogObject
	Source   tarn.TableName // the Delta table it is kept equal to; Kind Synced
}

// Table resolves a name. KindDenied when the principal lacks USE CATALOG or USE
// SCHEMA, or may not see the table; KindNotFound when there is none of that
// name. It does not check SELECT: Check that for what is done with the table.
func (r *Rights) Table(ctx context.Context, n tarn.TableName) (Entry, error) {
	on := n.Securable()
	e, err := lookup(ctx, r.db, n)
	if tarn.KindOf(err) == tarn.KindNotFound {
		// Only who could see it is told that it is not there.
		if denied := r.checkInside(ctx, on.Parent()); denied != nil {
			return Entry{}, denied
		}
	}
	if err != nil {
		return Entry{}, err
	}
	return e, r.CheckVisible(ctx, on)
}

// checkInside refuses whoever may not use a schema that is there.
func (r *Rights) checkInside(ctx context.Context, schema tarn.Securable) error {
	if r.who.Admin {
		return nil
	}
	if ok, err := controldb.CatalogExists(ctx, r.db, schema.Catalog); err != nil || !ok {
		return err
	}
	h, err := r.holdings(ctx, schema)
	if err != nil {
		return err
	}
	if m, missing := h.unused(schema); missing {
		return r.denied(ctx, seeing, schema, m)
	}
	return nil
}

// lookup finds a table of any kind.
func lookup(ctx context.Context, db *controldb.DB, n tarn.TableName) (Entry, error) {
	t, err := controldb.GetTable(ctx, db, n)
	switch {
	case err == nil:
		e := Entry{Kind: External, Table: t}
		if t.Managed {
			e.Kind = Managed
		}
		uid, err := controldb.FeedOfTable(ctx, db, n)
		if err == nil {
			e.Kind, e.Feed = Feed, uid
		} else if tarn.KindOf(err) != tarn.KindNotFound {
			return Entry{}, err
		}
		return e, nil
	case tarn.KindOf(err) != tarn.KindNotFound:
		return Entry{}, err
	}
	absent := err
	s, err := controldb.GetSyncedTable(ctx, db, n)
	switch {
	case err == nil:
		return syncedEntry(s), nil
	case tarn.KindOf(err) != tarn.KindNotFound:
		return Entry{}, err
	}
	r, err := controldb.GetRegisteredCatalog(ctx, db, n.Catalog)
	if err != nil {
		if tarn.KindOf(err) == tarn.KindNotFound {
			err = absent
		}
		return Entry{}, err
	}
	for _, o := range r.Objects {
		if o.Schema == n.Schema && o.Name == n.Table {
			return Entry{
				Kind: Postgres, Branch: r.Branch, Database: r.Database, Object: o,
				Table: tarn.CatalogTable{Name: n, Comment: o.Comment},
			}, nil
		}
	}
	return Entry{}, tarn.NotFound("database %s of %s had no table %s.%s when it was last awake", r.Database, r.Branch, n.Schema, n.Table)
}

// Synced gives the synced tables that a catalog and schema show, "" = any. They
// are in whatever catalog their name says, which need not be there.
func (c *Catalog) Synced(ctx context.Context, catalog, schema string) ([]Entry, error) {
	all, err := controldb.ListSyncedTables(ctx, c.db, "")
	var out []Entry
	for _, s := range all {
		if (catalog == "" || s.Name.Catalog == catalog) && (schema == "" || s.Name.Schema == schema) {
			out = append(out, syncedEntry(s))
		}
	}
	return out, err
}

func syncedEntry(s tarn.SyncedTable) Entry {
	return Entry{
		Kind: Synced, Branch: s.Branch, Database: s.Database, Source: s.Source,
		Table:  tarn.CatalogTable{Name: s.Name, ID: s.UID, CreateTime: s.CreateTime, UpdateTime: s.UpdateTime},
		Object: tarn.CatalogObject{Schema: s.Name.Schema, Name: s.Name.Table},
	}
}
