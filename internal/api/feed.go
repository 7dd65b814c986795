package api

import (
	"context"
	"slices"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/control"
	"github.com/tarndb/tarn/internal/feed"
)

// feedDoor answers …/databases/{database}/cdf-configs: the published name of a
// feed is a change-data-feed configuration.
type feedDoor struct {
	control *control.Control
	keeper  *feed.Keeper
	catalog *catalog.Catalog
	ops     *operationDoor
}

// defaultDatabaseID is the id of the database every project begins with. Ids
// hold no underscore; those of other databases are their Postgres names here.
const defaultDatabaseID = "databricks-postgres"

func databaseName(id string) string {
	if id == defaultDatabaseID {
		return tarn.DefaultDatabase
	}
	return id
}

func databaseID(name string) string {
	if name == "" || name == tarn.DefaultDatabase {
		return defaultDatabaseID
	}
	return name
}

func (d *feedDoor) create(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	var in wire.CdfConfig
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	for _, f := range []struct{ name, value string }{
		{"catalog", in.Catalog}, {"schema", in.Schema}, {"postgres_schema", in.PostgresSchema},
	} {
		if f.value == "" {
			return nil, badField(f.name, "is missing")
		}
	}
	if _, err := d.control.GetBranch(ctx, b); err != nil {
		return nil, err
	}
	s := tarn.FeedSpec{
		ID: q.text("cdf_config_id"), Branch: b, Database: databaseName(q.r.PathValue("database")),
		PostgresSchema: in.PostgresSchema, Catalog: in.Catalog, Schema: in.Schema,
	}
	if s.FeedSettings, err = feedSettings(tarn.FeedSettings{}, in.FeedSettings); err != nil {
		return nil, err
	}
	if err := d.catalog.For(q.who).CheckCreateTable(ctx, s.Catalog, s.Schema); err != nil {
		return nil, err
	}
	f, err := d.keeper.Create(ctx, q.who, s)
	if err != nil {
		return nil, existing(err, alreadyExists, func() error { return d.taken(ctx, s) })
	}
	return d.ops.done(configName(f), verbCreate, f.UID, configOf(f))
}

// taken is nil when a feed has the id or follows the schema already.
func (d *feedDoor) taken(ctx context.Context, s tarn.FeedSpec) error {
	id := s.ID
	if id == "" {
		id = s.PostgresSchema
	}
	fs, err := d.keeper.List(ctx, s.Branch)
	if err != nil {
		return err
	}
	for _, f := range fs {
		if f.ID == id || databaseID(f.Database) == databaseID(s.Database) && f.PostgresSchema == s.PostgresSchema {
			return nil
		}
	}
	return tarn.NotFound("no feed %s", id)
}

// read finds the feed a path names; it must be in the path's database.
func (d *feedDoor) read(ctx context.Context, q *query) (tarn.Feed, error) {
	b, err := q.branch()
	if err != nil {
		return tarn.Feed{}, err
	}
	f, err := d.keeper.Get(ctx, b, q.r.PathValue("config"))
	if err == nil && databaseID(f.Database) != databaseID(databaseName(q.r.PathValue("database"))) {
		err = tarn.NotFound("database %s has no feed %s; it is in database %s", q.r.PathValue("database"), f.ID, databaseID(f.Database))
	}
	return f, err
}

func (d *feedDoor) get(ctx context.Context, q *query) (any, error) {
	f, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	return configOf(f), nil
}

func (d *feedDoor) list(ctx context.Context, q *query) (any, error) {
	b, err := q.branch()
	if err != nil {
		return nil, err
	}
	pg, err := q.page("page_size")
	if err != nil {
		return nil, err
	}
	if _, err := d.control.GetBranch(ctx, b); err != nil {
		return nil, err
	}
	fs, err := d.keeper.List(ctx, b)
	if err != nil {
		return nil, err
	}
	id := databaseID(databaseName(q.r.PathValue("database")))
	fs = slices.DeleteFunc(fs, func(f tarn.Feed) bool { return databaseID(f.Database) != id })
	fs, next, err := pageOf(fs, func(f tarn.Feed) string { return f.ID }, pg)
	if err != nil {
		return nil, err
	}
	out := wire.ListCdfConfigs{CdfConfigs: []wire.CdfConfig{}, NextPageToken: next}
	for _, f := range fs {
		out.CdfConfigs = append(out.CdfConfigs, configOf(f))
	}
	return out, nil
}

func (d *feedDoor) delete(ctx context.Context, q *query) (any, error) {
	force, err := q.flag("force")
	if err != nil {
		return nil, err
	}
	f, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	keep := feed.KeepTables
	if force != nil && *force {
		keep = feed.PurgeTables
	}
	if err := d.keeper.Delete(ctx, f.Branch, f.ID, keep); err != nil {
		return nil, err
	}
	return d.ops.done(configName(f), verbDelete, f.UID, nil)
}

func (d *feedDoor) listStatuses(ctx context.Context, q *query) (any, error) {
	pg, err := q.page("page_size")
	if err != nil {
		return nil, err
	}
	f, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	ts, next, err := pageOf(f.Tables, func(t tarn.FeedTable) string { return t.PostgresTable }, pg)
	if err != nil {
		return nil, err
	}
	out := wire.ListCdfStatuses{CdfStatuses: []wire.CdfStatus{}, NextPageToken: next}
	for _, t := range ts {
		out.CdfStatuses = append(out.CdfStatuses, statusOfTable(f, t))
	}
	return out, nil
}

func (d *feedDoor) getStatus(ctx context.Context, q *query) (any, error) {
	f, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	table := q.r.PathValue("status")
	i := slices.IndexFunc(f.Tables, func(t tarn.FeedTable) bool { return t.PostgresTable == table })
	if i < 0 {
		return nil, tarn.NotFound("feed %s follows no table %q", f.ID, table)
	}
	return statusOfTable(f, f.Tables[i]), nil
}

// feedSettings applies what the body gives to what is.
func feedSettings(have tarn.FeedSettings, in wire.FeedSettings) (tarn.FeedSettings, error) {
	if in.Include != nil {
		have.Include = *in.Include
	}
	if in.Exclude != nil {
		have.Exclude = *in.Exclude
	}
	if in.Flush != "" {
		v, err := time.ParseDuration(in.Flush)
		if err != nil {
			return have, badField("flush_interval", "got %q, want a duration such as \"5s\"", in.Flush)
		}
		have.Flush = v
	}
	if in.MaxWAL != nil {
		have.MaxWAL = *in.MaxWAL
	}
	if in.Paused != nil {
		have.Paused = *in.Paused
	}
	if in.Derived != nil {
		have.Derived = tarn.FeedDerived(*in.Derived)
	}
	return have, nil
}

// update does PATCH of Tarn's own settings: those the body gives change.
func (d *feedDoor) update(ctx context.Context, q *query) (any, error) {
	f, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	var in wire.FeedSettings
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	s, err := feedSettings(f.FeedSettings, in)
	if err != nil {
		return nil, err
	}
	if f, err = d.keeper.Update(ctx, f.Branch, f.ID, s); err != nil {
		return nil, err
	}
	return configOf(f), nil
}

// resync does POST …/cdf-configs/{config}/resync.
func (d *feedDoor) resync(ctx context.Context, q *query) (any, error) {
	f, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	var in wire.ResyncFeed
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	if f, err = d.keeper.Resync(ctx, f.Branch, f.ID, in.Tables); err != nil {
		return nil, err
	}
	return configOf(f), nil
}

// verify does POST …/cdf-configs/{config}/verify; it answers when it knows.
func (d *feedDoor) verify(ctx context.Context, q *query) (any, error) {
	f, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	var in wire.VerifyFeed
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	if in.Table == "" {
		return nil, badField("table", "is missing")
	}
	v, err := d.keeper.Verify(ctx, f.Branch, f.ID, in.Table)
	if err != nil {
		return nil, err
	}
	return wire.FeedVerdict{Table: v.Table, Equal: v.Equal, LSN: v.Point.String(), PostgresRows: v.PostgresRows, HistoryRows: v.HistoryRows}, nil
}

func settingsOf(s tarn.FeedSettings) wire.FeedSettings {
	var out wire.FeedSettings
	if s.Include != nil {
		out.Include = &s.Include
	}
	if s.Exclude != nil {
		out.Exclude = &s.Exclude
	}
	if s.Flush != 0 {
		out.Flush = s.Flush.String()
	}
	if s.MaxWAL != 0 {
		out.MaxWAL = &s.MaxWAL
	}
	if s.Paused {
		out.Paused = &s.Paused
	}
	if s.Derived != "" {
		out.Derived = (*string)(&s.Derived)
	}
	return out
}

func configName(f tarn.Feed) string {
	return f.Branch.String() + "/databases/" + databaseID(f.Database) + "/cdf-configs/" + f.ID
}

func configOf(f tarn.Feed) wire.CdfConfig {
	return wire.CdfConfig{
		Name: configName(f), CdfConfigID: f.ID, Catalog: f.Catalog, Schema: f.Schema,
		PostgresSchema: f.PostgresSchema, CreateTime: wire.Time(f.CreateTime), StatusDetail: f.Message,
		FeedSettings: settingsOf(f.FeedSettings), PipelineID: f.PipelineID, WALHeld: f.WALHeld,
	}
}

// statusOfTable writes one table's status; what holds up the whole feed holds
// up each of its tables.
func statusOfTable(f tarn.Feed, t tarn.FeedTable) wire.CdfStatus {
	s := wire.CdfStatus{
		Name: configName(f) + "/cdf-statuses/" + t.PostgresTable, PostgresTable: t.PostgresTable,
		UCTable: t.Target.String(), State: string(t.State),
		LastSyncTime: wire.Time(t.LastSync), StatusDetail: t.Detail, CreateTime: wire.Time(f.CreateTime),
		Rows: t.Rows, DeadLetters: t.DeadLetters, Copied: t.Copied, CopyRows: t.CopyRows,
	}
	if s.StatusDetail == "" {
		s.StatusDetail = f.Message
	}
	if t.CommittedLSN != 0 {
		s.CommittedLSN = t.CommittedLSN.String()
	}
	return s
}
