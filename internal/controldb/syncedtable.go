package controldb

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/tarndb/tarn"
)

// InsertSyncedTable records a synced table with its pipeline and returns it as recorded, with
// its times and, where they were empty, its UID and pipeline id. It is
// KindConflict when the name, or the Postgres table, is taken, and
// KindNotFound when the branch is not there or on its way out.
func InsertSyncedTable(ctx context.Context, c Conn, creator string, t tarn.SyncedTable) (tarn.SyncedTable, error) {
	if t.UID == "" {
		t.UID = uuid.NewString()
	}
	if t.PipelineID == "" {
		t.PipelineID = uuid.NewString()
	}
	if t.Database == "" {
		t.Database = tarn.DefaultDatabase
	}
	if t.Policy == "" {
		t.Policy = tarn.SyncSnapshot
	}
	out, err := within(ctx, c, func(c Conn) (tarn.SyncedTable, error) {
		if err := holdLiveBranch(ctx, c, t.Branch); err != nil {
			return tarn.SyncedTable{}, err
		}
		if _, err := SetPipeline(ctx, c, tarn.Pipeline{ID: t.PipelineID, Kind: tarn.PipelineSyncedTable,
			Name: t.Name.String(), Owner: t.UID, Project: t.Branch.Project, Creator: creator}); err != nil {
			return tarn.SyncedTable{}, err
		}
		return insertSyncedTableRow(ctx, c, t)
	})
	switch {
	case tarn.KindOf(err) != tarn.KindInternal:
		return tarn.SyncedTable{}, err
	case constraint(err) == "synced_tables_project_branch_database_schema_name_key":
		return tarn.SyncedTable{}, tarn.Conflict("Postgres table %s.%s in database %s of %s is already written by another synced table",
			t.Name.Schema, t.Name.Table, t.Database, t.Branch)
	}
	return out, fault(err, "synced table %s", t.Name)
}

func insertSyncedTableRow(ctx context.Context, c Conn, t tarn.SyncedTable) (tarn.SyncedTable, error) {
	return scanSyncedTable(c.querier().QueryRow(ctx, insertSyncedTable,
		t.UID, t.Name.Catalog, t.Name.Schema, t.Name.Table, t.Source.Catalog, t.Source.Schema, t.Source.Table,
		t.PrimaryKey, t.Policy, t.Branch.Project, t.Branch.Branch, t.Database, t.NewPipelineCatalog, t.NewPipelineSchema,
		t.PipelineID, t.State, t.Message, t.Version, stamp(t.VersionTS), t.RowsSynced, t.RowsTotal, stamp(t.SyncStart), stamp(t.SyncEnd),
		t.TimeseriesKey, overrides(t.TypeOverrides), t.Interval, t.Schedule.Cron, t.Schedule.Zone, t.OnReject, t.Alerts, t.Asked))
}

const insertSyncedTable = `
INSERT INTO synced_tables (uid, catalog, schema, name, source_catalog, source_schema, source_table,
	primary_key, policy, project, branch, database, new_pipeline_catalog, new_pipeline_schema,
	pipeline_id, state, message, version, version_ts, rows_synced, rows_total, sync_start, sync_end,
	timeseries_key, type_overrides, pace, cron, cron_zone, on_reject, alerts, asked)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
	$24, $25, $26, $27, $28, $29, $30, $31)
RETURNING ` + syncedTableColumns

const syncedTableColumns = `uid, catalog, schema, name, source_catalog, source_schema, source_table,
	primary_key, policy, project, branch, database, new_pipeline_catalog, new_pipeline_schema,
	pipeline_id, state, message, version, version_ts, rows_synced, rows_total, sync_start, sync_end, created, updated,
	timeseries_key, type_overrides, pace, cron, cron_zone, on_reject, alerts, asked,
	update_id, refresh, rejected, newest_version, newest_time`

func scanSyncedTable(r pgx.Row) (t tarn.SyncedTable, err error) {
	err = r.Scan(&t.UID, &t.Name.Catalog, &t.Name.Schema, &t.Name.Table, &t.Source.Catalog, &t.Source.Schema, &t.Source.Table,
		&t.PrimaryKey, &t.Policy, &t.Branch.Project, &t.Branch.Branch, &t.Database, &t.NewPipelineCatalog, &t.NewPipelineSchema,
		&t.PipelineID, &t.State, &t.Message, &t.Version, (*stamp)(&t.VersionTS), &t.RowsSynced, &t.RowsTotal,
		(*stamp)(&t.SyncStart), (*stamp)(&t.SyncEnd), (*stamp)(&t.CreateTime), (*stamp)(&t.UpdateTime),
		&t.TimeseriesKey, &t.TypeOverrides, &t.Interval, &t.Schedule.Cron, &t.Schedule.Zone, &t.OnReject, &t.Alerts, &t.Asked,
		&t.UpdateID, &t.Refresh, &t.Rejected, &t.Newest.Version, (*stamp)(&t.Newest.Time))
	if len(t.TypeOverrides) == 0 {
		t.TypeOverrides = nil
	}
	return t, err
}

// overrides is a list for a jsonb column, where nil must be [] and not null.
func overrides(v []tarn.TypeOverride) []tarn.TypeOverride {
	if v == nil {
		return []tarn.TypeOverride{}
	}
	return v
}

// GetSyncedTable reads one by its name.
func GetSyncedTable(ctx context.Context, c Conn, n tarn.TableName) (tarn.SyncedTable, error) {
	t, err := scanSyncedTable(c.querier().QueryRow(ctx, getSyncedTable, n.Catalog, n.Schema, n.Table))
	return t, fault(err, "synced table %s", n)
}

const getSyncedTable = `SELECT ` + syncedTableColumns + ` FROM synced_tables WHERE catalog = $1 AND schema = $2 AND name = $3`

// ListSyncedTables gives those of one project, "" = all, by name.
func ListSyncedTables(ctx context.Context, c Conn, project string) ([]tarn.SyncedTable, error) {
	v, err := list(ctx, c, scanSyncedTable, listSyncedTables, project)
	return v, fault(err, "synced tables of project %q", project)
}

const listSyncedTables = `SELECT ` + syncedTableColumns + ` FROM synced_tables
WHERE $1 = '' OR project = $1 ORDER BY catalog, schema, name`

// UpdateSyncedTable records the status of the synced table with t's UID: its
// state, message, version, rows, dead letters, times and the newest version of
// its source. KindNotFound when it is gone.
func UpdateSyncedTable(ctx context.Context, c Conn, t tarn.SyncedTable) error {
	return fault(exec(ctx, c, updateSyncedTable, t.UID, t.State, t.Message, t.Version, stamp(t.VersionTS),
		t.RowsSynced, t.RowsTotal, stamp(t.SyncStart), stamp(t.SyncEnd), t.Rejected, t.Newest.Version, stamp(t.Newest.Time)), "synced table %s", t.Name)
}

const updateSyncedTable = `
UPDATE synced_tables SET state = $2, message = $3, version = $4, version_ts = $5,
	rows_synced = $6, rows_total = $7, sync_start = $8, sync_end = $9, updated = now(),
	rejected = $10, newest_version = $11, newest_time = $12
WHERE uid = $1`

// AskSyncedTable records the update that a synced table is to make, with the
// state and the message it has meanwhile, when its state is still the one that
// t had as it was read; KindConflict otherwise.
func AskSyncedTable(ctx context.Context, c Conn, t tarn.SyncedTable, was tarn.SyncState) error {
	tag, err := c.querier().Exec(ctx, askSyncedTable, t.UID, t.State, t.Message, t.UpdateID, t.Refresh, was)
	if err == nil && tag.RowsAffected() == 0 {
		return tarn.Conflict("synced table %s changed meanwhile", t.Name)
	}
	return fault(err, "synced table %s", t.Name)
}

const askSyncedTable = `UPDATE synced_tables SET state = $2, message = $3, update_id = $4, refresh = $5, updated = now()
WHERE uid = $1 AND state = $6`

// AnswerSyncedTable takes back what was asked of a synced table, unless another
// update was asked for since.
func AnswerSyncedTable(ctx context.Context, c Conn, uid, update string) error {
	_, err := c.querier().Exec(ctx, answerSyncedTable, uid, update)
	return fault(err, "synced table with uid %s", uid)
}

const answerSyncedTable = `UPDATE synced_tables SET refresh = '' WHERE uid = $1 AND update_id = $2`

// SetSyncSettings records a synced table's policy and settings. KindNotFound.
func SetSyncSettings(ctx context.Context, c Conn, uid string, p tarn.SyncPolicy, s tarn.SyncSettings) error {
	return fault(exec(ctx, c, setSyncSettings, uid, p, s.Interval, s.Schedule.Cron, s.Schedule.Zone, s.OnReject, s.Alerts), "synced table with uid %s", uid)
}

const setSyncSettings = `UPDATE synced_tables SET policy = $2, pace = $3, cron = $4, cron_zone = $5, on_reject = $6, alerts = $7, updated = now()
WHERE uid = $1`

// DeleteSyncedTable removes the row and its pipeline. KindNotFound when it is
// gone.
func DeleteSyncedTable(ctx context.Context, c Conn, uid string) error {
	return fault(exec(ctx, c, deleteSyncedTable, uid), "synced table with uid %s", uid)
}

const deleteSyncedTable = `WITH gone AS (DELETE FROM pipelines WHERE owner = $1)
DELETE FROM synced_tables WHERE uid = $1`

// ReportSyncedTable records how far an update is, and leaves the state alone:
// whoever asked for another meanwhile is not overruled.
func ReportSyncedTable(ctx context.Context, c Conn, t tarn.SyncedTable) error {
	return fault(exec(ctx, c, reportSyncedTable, t.UID, t.Message, t.RowsSynced, t.RowsTotal, t.Newest.Version, stamp(t.Newest.Time)), "synced table %s", t.Name)
}

const reportSyncedTable = `
UPDATE synced_tables SET message = $2, rows_synced = $3, rows_total = $4, newest_version = $5, newest_time = $6, updated = now()
WHERE uid = $1`
