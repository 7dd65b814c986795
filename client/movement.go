package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

// SyncedTables are Postgres tables kept equal to Delta tables.
type SyncedTables struct{ c *Client }

// SyncedTables speaks of synced tables.
func (c *Client) SyncedTables() *SyncedTables { return &SyncedTables{c} }

// Create records a synced table, which then begins to load; Get shows how far
// it is.
func (s *SyncedTables) Create(ctx context.Context, n tarn.TableName, spec SyncedSpec) (SyncedTable, error) {
	var op Operation
	err := s.c.do(ctx, http.MethodPost, pg+"synced_tables", query("synced_table_id", n.String()), SyncedTable{Spec: &spec}, &op)
	if err != nil {
		return SyncedTable{}, err
	}
	var t SyncedTable
	err = s.c.WaitOperation(ctx, op, &t)
	return t, err
}

// Get reads one synced table.
func (s *SyncedTables) Get(ctx context.Context, n tarn.TableName) (SyncedTable, error) {
	var t SyncedTable
	err := s.c.get(ctx, pg+"synced_tables/"+url.PathEscape(n.String()), nil, &t)
	return t, err
}

// List lists the synced tables of a project; "" = all.
func (s *SyncedTables) List(ctx context.Context, project string) ([]SyncedTable, error) {
	var all []SyncedTable
	err := everyPage(func(token string) (string, error) {
		var page wire.ListPostgresSyncedTables
		err := s.c.get(ctx, mine+"synced_tables", query("project", project, "page_token", token), &page)
		all = append(all, page.SyncedTables...)
		return page.NextPageToken, err
	})
	return all, err
}

// Refresh starts an update of a synced table through its pipeline and gives the
// update's id.
func (s *SyncedTables) Refresh(ctx context.Context, t SyncedTable) (string, error) {
	return s.refresh(ctx, t, false)
}

// Resync starts an update that loads the whole table, with whatever columns its
// source has now.
func (s *SyncedTables) Resync(ctx context.Context, t SyncedTable) (string, error) {
	return s.refresh(ctx, t, true)
}

func (s *SyncedTables) refresh(ctx context.Context, t SyncedTable, full bool) (string, error) {
	if t.Status == nil || t.Status.PipelineID == "" {
		return "", tarn.Conflict("synced table %s has no pipeline yet", t.SyncedTableID)
	}
	return s.Pipelines().Start(ctx, t.Status.PipelineID, full)
}

// Leftover says what happens to what a mover has written when it is deleted, and
// to the data of a deleted project or branch: kept data is there for a week.
type Leftover int

// The two fates of what was written.
const (
	Keep  Leftover = iota
	Purge          // deleted too
)

// Delete ends a synced table; leftover is about its Postgres table.
func (s *SyncedTables) Delete(ctx context.Context, n tarn.TableName, leftover Leftover) error {
	q := query()
	if leftover == Purge {
		q = query("purge_data", "true")
	}
	return s.c.do(ctx, http.MethodDelete, db+"synced_tables/"+url.PathEscape(n.String()), q, nil, nil)
}

// Feeds are Postgres schemas followed into the catalog as Delta tables.
type Feeds struct {
	c    *Client
	path string // …/branches/{b}/databases/{d}/cdf-configs
}

// Feeds speaks of the feeds of one database of a branch; database "" = the one
// every project begins with.
func (c *Client) Feeds(b tarn.BranchName, database string) *Feeds {
	if database == "" || database == tarn.DefaultDatabase {
		database = strings.ReplaceAll(tarn.DefaultDatabase, "_", "-") // its id
	}
	return &Feeds{c: c, path: b.String() + "/databases/" + url.PathEscape(database) + "/cdf-configs"}
}

// Create begins a feed; id "" = the Postgres schema's name.
func (f *Feeds) Create(ctx context.Context, id string, spec Feed) (Feed, error) {
	var op Operation
	if err := f.c.do(ctx, http.MethodPost, pg+f.path, query("cdf_config_id", id), spec, &op); err != nil {
		return Feed{}, err
	}
	var out Feed
	err := f.c.WaitOperation(ctx, op, &out)
	return out, err
}

// Get reads one feed.
func (f *Feeds) Get(ctx context.Context, id string) (Feed, error) {
	var out Feed
	err := f.c.get(ctx, pg+f.path+"/"+url.PathEscape(id), nil, &out)
	return out, err
}

// List lists the feeds.
func (f *Feeds) List(ctx context.Context) ([]Feed, error) {
	var all []Feed
	err := everyPage(func(token string) (string, error) {
		var page wire.ListCdfConfigs
		err := f.c.get(ctx, pg+f.path, query("page_token", token), &page)
		all = append(all, page.CdfConfigs...)
		return page.NextPageToken, err
	})
	return all, err
}

// Update changes the settings that are given; others stay.
func (f *Feeds) Update(ctx context.Context, id string, s FeedSettings) (Feed, error) {
	var out Feed
	err := f.c.do(ctx, http.MethodPatch, mine+f.path+"/"+url.PathEscape(id), nil, s, &out)
	return out, err
}

// Resync asks for a new copy of tables; none = of all. What the histories have stays.
func (f *Feeds) Resync(ctx context.Context, id string, tables ...string) (Feed, error) {
	var out Feed
	err := f.c.do(ctx, http.MethodPost, mine+f.path+"/"+url.PathEscape(id)+"/resync", nil, wire.ResyncFeed{Tables: tables}, &out)
	return out, err
}

// Verify compares a table with its history; it returns when it knows.
func (f *Feeds) Verify(ctx context.Context, id, table string) (FeedVerdict, error) {
	var out FeedVerdict
	err := f.c.do(ctx, http.MethodPost, mine+f.path+"/"+url.PathEscape(id)+"/verify", nil, wire.VerifyFeed{Table: table}, &out)
	return out, err
}

// Tables lists the tables a feed follows.
func (f *Feeds) Tables(ctx context.Context, id string) ([]FeedTable, error) {
	var all []FeedTable
	err := everyPage(func(token string) (string, error) {
		var page wire.ListCdfStatuses
		err := f.c.get(ctx, pg+f.path+"/"+url.PathEscape(id)+"/cdf-statuses", query("page_token", token), &page)
		all = append(all, page.CdfStatuses...)
		return page.NextPageToken, err
	})
	return all, err
}

// Delete ends a feed; leftover is about its Delta tables.
func (f *Feeds) Delete(ctx context.Context, id string, leftover Leftover) error {
	q := query()
	if leftover == Purge {
		q = query("force", "true")
	}
	var op Operation
	if err := f.c.do(ctx, http.MethodDelete, pg+f.path+"/"+url.PathEscape(id), q, nil, &op); err != nil {
		return err
	}
	return f.c.WaitOperation(ctx, op, nil)
}

// Tables are the Delta tables of the catalog.
type Tables struct{ c *Client }

// Tables speaks of the catalog's tables.
func (c *Client) Tables() *Tables { return &Tables{c} }

// List lists the tables of a catalog's schema; empty names widen the listing.
func (t *Tables) List(ctx context.Context, catalog, schema string) ([]CatalogTable, error) {
	var all []CatalogTable
	err := everyPage(func(token string) (string, error) {
		var page wire.ListTables
		err := t.c.get(ctx, uc+"tables", query("catalog_name", catalog, "schema_name", schema, "page_token", token), &page)
		all = append(all, page.Tables...)
		return page.NextPageToken, err
	})
	return all, err
}

// Get reads one table's entry and columns.
func (t *Tables) Get(ctx context.Context, n tarn.TableName) (CatalogTable, error) {
	var out CatalogTable
	err := t.c.get(ctx, entryPath(n), nil, &out)
	return out, err
}

// Register makes a catalog entry for the Delta table at location, a URL like
// file:///srv/lake/users that the server can read.
func (t *Tables) Register(ctx context.Context, n tarn.TableName, location string) (CatalogTable, error) {
	in := CatalogTable{
		Name: n.Table, CatalogName: n.Catalog, SchemaName: n.Schema,
		TableType: "EXTERNAL", DataSourceFormat: "DELTA", StorageLocation: location,
	}
	var out CatalogTable
	err := t.c.do(ctx, http.MethodPost, uc+"tables", nil, in, &out)
	return out, err
}

// CreateManaged makes a catalog entry whose folder the server chooses; who gets it
// writes the Delta table.
func (t *Tables) CreateManaged(ctx context.Context, n tarn.TableName) (CatalogTable, error) {
	in := CatalogTable{Name: n.Table, CatalogName: n.Catalog, SchemaName: n.Schema, TableType: "MANAGED", DataSourceFormat: "DELTA"}
	var out CatalogTable
	err := t.c.do(ctx, http.MethodPost, uc+"tables", nil, in, &out)
	return out, err
}

// Drop removes a table's entry; its files stay.
func (t *Tables) Drop(ctx context.Context, n tarn.TableName) error {
	return t.c.do(ctx, http.MethodDelete, entryPath(n), nil, nil, nil)
}

func entryPath(n tarn.TableName) string { return uc + "tables/" + url.PathEscape(n.String()) }

// Latest asks for the newest version of a table.
const Latest int64 = -1

// Head reads the first rows of a table; limit 0 = the server's default.
func (t *Tables) Head(ctx context.Context, n tarn.TableName, version, limit int64) (TableRows, error) {
	var out TableRows
	err := t.c.get(ctx, tablePath(n, "head"), at(version, "limit", number(limit)), &out)
	return out, err
}

// Count counts the rows of a table.
func (t *Tables) Count(ctx context.Context, n tarn.TableName, version int64) (TableCount, error) {
	var out TableCount
	err := t.c.get(ctx, tablePath(n, "count"), at(version), &out)
	return out, err
}

// History lists at most limit commits, newest first; 0 = all.
func (t *Tables) History(ctx context.Context, n tarn.TableName, limit int64) (TableHistory, error) {
	var out TableHistory
	err := t.c.get(ctx, tablePath(n, "history"), query("limit", number(limit)), &out)
	return out, err
}

func tablePath(n tarn.TableName, what string) string {
	return mine + "tables/" + url.PathEscape(n.String()) + "/" + what
}

func at(version int64, pairs ...string) url.Values {
	q := query(pairs...)
	if version >= 0 {
		q.Set("version", strconv.FormatInt(version, 10))
	}
	return q
}
