package api

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
	"github.com/tarndb/tarn/internal/catalog"
	"github.com/tarndb/tarn/internal/control"
	"github.com/tarndb/tarn/internal/syncedtable"
)

// syncedDoor answers for synced tables in both services' spellings, and for
// the pipelines that move them.
type syncedDoor struct {
	control *control.Control
	keeper  *syncedtable.Keeper
	catalog *catalog.Catalog
	ops     *operationDoor
}

func (d *syncedDoor) createInInstance(ctx context.Context, q *query) (any, error) {
	var in wire.SyncedDatabaseTable
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	s, err := readSyncedSpec("name", in.Name, in.Spec)
	if err != nil {
		return nil, err
	}
	if in.DatabaseInstanceName != "" {
		if s.Branch, err = branchOfInstance(ctx, d.control, in.DatabaseInstanceName); err != nil {
			return nil, err
		}
	}
	s.Database = in.LogicalDatabaseName
	t, err := d.make(ctx, q.who, s, resourceAlreadyExists)
	if err != nil {
		return nil, err
	}
	return syncedDatabaseOf(t), nil
}

func (d *syncedDoor) create(ctx context.Context, q *query) (any, error) {
	var in wire.SyncedTable
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	s, err := readSyncedSpec("synced_table_id", q.text("synced_table_id"), in.Spec)
	if err != nil {
		return nil, err
	}
	if in.Spec.Branch != "" {
		if s.Branch, err = tarn.ParseBranchName(in.Spec.Branch); err != nil {
			return nil, badField("spec.branch", "%s", err)
		}
	}
	s.Database = in.Spec.PostgresDatabase
	t, err := d.make(ctx, q.who, s, alreadyExists)
	if err != nil {
		return nil, err
	}
	return d.ops.done(syncedName(t.Name), verbCreate, t.UID, syncedOf(t))
}

func (d *syncedDoor) make(ctx context.Context, who tarn.Principal, s tarn.SyncedTableSpec, taken string) (tarn.SyncedTable, error) {
	var err error
	if s.Branch == (tarn.BranchName{}) {
		if s.Branch, err = d.infer(ctx, s.Name.Catalog); err != nil {
			return tarn.SyncedTable{}, err
		}
	}
	if _, err := d.control.GetBranch(ctx, s.Branch); err != nil {
		return tarn.SyncedTable{}, err
	}
	if err := d.control.Access.Need(ctx, who, s.Branch.Parent(), tarn.CanUse); err != nil {
		return tarn.SyncedTable{}, err
	}
	if err := d.mayMove(ctx, who, s); err != nil {
		return tarn.SyncedTable{}, err
	}
	t, err := d.keeper.Create(ctx, who, s)
	return t, existing(err, taken, func() error {
		_, err := d.keeper.Get(ctx, s.Name)
		return err
	})
}

// mayMove refuses whoever may not read the source or make the table where the
// catalog shows it.
func (d *syncedDoor) mayMove(ctx context.Context, who tarn.Principal, s tarn.SyncedTableSpec) error {
	r := d.catalog.For(who)
	if _, err := r.Table(ctx, s.Source); err != nil {
		if tarn.KindOf(err) == tarn.KindNotFound {
			return nil // the keeper says so, in its words
		}
		return err
	}
	if err := r.Check(ctx, tarn.PrivilegeSelect, s.Source.Securable()); err != nil {
		return err
	}
	return r.CheckCreateTable(ctx, s.Name.Catalog, s.Name.Schema)
}

// infer finds the branch of a table whose request names none: the project
// called like the catalog, else the only project there is.
func (d *syncedDoor) infer(ctx context.Context, catalog string) (tarn.BranchName, error) {
	id, err := tarn.ParseID("project", strings.ReplaceAll(catalog, "_", "-"))
	if err == nil {
		n := tarn.ProjectName{Project: id}
		_, err := d.control.GetProject(ctx, n)
		if err == nil {
			return n.Branch(tarn.DefaultBranch), nil
		}
		if tarn.KindOf(err) != tarn.KindNotFound {
			return tarn.BranchName{}, err
		}
	}
	ps, _, err := d.control.ListProjects(ctx, control.Page{Size: 2})
	if err != nil {
		return tarn.BranchName{}, err
	}
	if len(ps) != 1 {
		return tarn.BranchName{}, tarn.Invalid("the request names no database and no project is called like catalog %q", catalog).
			WithHint("give database_instance_name (database API) or spec.branch (postgres API)")
	}
	return ps[0].Name.Branch(tarn.DefaultBranch), nil
}

// readSyncedSpec reads what both services say alike. What this Tarn would not
// do it refuses: a table synced otherwise than asked is worse than none.
func readSyncedSpec(field, name string, in *wire.SyncedTableSpec) (tarn.SyncedTableSpec, error) {
	var s tarn.SyncedTableSpec
	var err error
	if s.Name, err = tarn.ParseTableName(name); err != nil {
		return s, badField(field, "%s", err)
	}
	switch {
	case in == nil:
		return s, badField("spec", "is missing")
	case len(in.PrimaryKeyColumns) == 0:
		return s, badField("spec.primary_key_columns", "is missing: name the columns of the primary key")
	case len(in.ExtraColumns) > 0:
		return s, unbuilt("spec.extra_columns are not there yet")
	case in.ExistingPipelineID != "":
		return s, unbuilt("spec.existing_pipeline_id: every synced table has its own pipeline here; leave it out")
	}
	if s.Source, err = tarn.ParseTableName(in.SourceTableFullName); err != nil {
		return s, badField("spec.source_table_full_name", "%s", err)
	}
	s.PrimaryKey, s.TimeseriesKey = in.PrimaryKeyColumns, in.TimeseriesKey
	for _, o := range in.TypeOverrides {
		if o.PgType == "" {
			return s, badField("spec.type_overrides", "column %q names no pg_type", o.ColumnName)
		}
		s.TypeOverrides = append(s.TypeOverrides, tarn.TypeOverride{Column: o.ColumnName, Type: o.PgType, Size: o.Size})
	}
	if in.Settings != nil {
		s.SyncSettings = readSyncSettings(*in.Settings)
	}
	s.Policy = tarn.SyncPolicy(in.SchedulingPolicy)
	if known := []tarn.SyncPolicy{"", tarn.SyncSnapshot, tarn.SyncTriggered, tarn.SyncContinuous}; !slices.Contains(known, s.Policy) {
		return s, badField("spec.scheduling_policy", "got %q, want SNAPSHOT, TRIGGERED or CONTINUOUS", in.SchedulingPolicy)
	}
	if np := in.NewPipelineSpec; np != nil {
		s.NewPipelineCatalog, s.NewPipelineSchema = np.StorageCatalog, np.StorageSchema
		s.Asked.BudgetPolicy, s.Asked.Channel = np.BudgetPolicyID, np.PipelineChannel
	}
	s.Asked.Accelerated, s.Asked.MakeObjects = in.AcceleratedSync, in.CreateDatabaseObjectsIfMissing
	return s, nil
}

func readSyncSettings(in wire.SyncSettings) tarn.SyncSettings {
	return tarn.SyncSettings{
		Interval: seconds(in.IntervalSeconds), Schedule: tarn.Schedule{Cron: in.Cron, Zone: in.TimeZone}, OnReject: tarn.RejectPolicy(in.OnReject),
		Alerts: tarn.Alerts{Webhook: in.AlertWebhook, Lag: seconds(in.AlertLagSeconds), DeadLetters: in.AlertDeadLetters},
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func (d *syncedDoor) read(ctx context.Context, q *query) (tarn.SyncedTable, error) {
	n, err := q.table()
	if err != nil {
		return tarn.SyncedTable{}, err
	}
	return d.keeper.Get(ctx, n)
}

func (d *syncedDoor) getOfInstance(ctx context.Context, q *query) (any, error) {
	t, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	return syncedDatabaseOf(t), nil
}

func (d *syncedDoor) get(ctx context.Context, q *query) (any, error) {
	t, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	return syncedOf(t), nil
}

func (d *syncedDoor) page(ctx context.Context, q *query, project string) ([]tarn.SyncedTable, string, error) {
	pg, err := q.page("page_size")
	if err != nil {
		return nil, "", err
	}
	ts, err := d.keeper.List(ctx, project)
	if err != nil {
		return nil, "", err
	}
	return pageOf(ts, func(t tarn.SyncedTable) string { return t.Name.String() }, pg)
}

func (d *syncedDoor) listOfInstance(ctx context.Context, q *query) (any, error) {
	n, err := q.project()
	if err != nil {
		return nil, err
	}
	if _, err := d.control.GetProject(ctx, n); err != nil {
		return nil, err
	}
	ts, next, err := d.page(ctx, q, n.Project)
	if err != nil {
		return nil, err
	}
	out := wire.ListSyncedDatabaseTables{SyncedTables: []wire.SyncedDatabaseTable{}, NextPageToken: next}
	for _, t := range ts {
		out.SyncedTables = append(out.SyncedTables, syncedDatabaseOf(t))
	}
	return out, nil
}

// list is Tarn's own: the postgres service has no such call.
func (d *syncedDoor) list(ctx context.Context, q *query) (any, error) {
	ts, next, err := d.page(ctx, q, q.text("project"))
	if err != nil {
		return nil, err
	}
	if ts, err = d.seen(ctx, q, ts); err != nil {
		return nil, err
	}
	out := wire.ListPostgresSyncedTables{SyncedTables: []wire.SyncedTable{}, NextPageToken: next}
	for _, t := range ts {
		out.SyncedTables = append(out.SyncedTables, syncedOf(t))
	}
	return out, nil
}

// seen keeps of tables those in projects that who asks may see.
func (d *syncedDoor) seen(ctx context.Context, q *query, ts []tarn.SyncedTable) ([]tarn.SyncedTable, error) {
	sees, err := q.sees(ctx)
	if err != nil {
		return nil, err
	}
	var out []tarn.SyncedTable
	for _, t := range ts {
		p, err := d.control.GetProject(ctx, t.Branch.Parent())
		if err != nil {
			return nil, err
		}
		if sees(p) {
			out = append(out, t)
		}
	}
	return out, nil
}

func (d *syncedDoor) deleteOfInstance(ctx context.Context, q *query) (any, error) {
	n, err := q.table()
	if err != nil {
		return nil, err
	}
	purge, err := q.flag("purge_data")
	if err != nil {
		return nil, err
	}
	keep := syncedtable.KeepData
	if purge != nil && *purge {
		keep = syncedtable.PurgeData
	}
	return nil, d.keeper.Delete(ctx, n, keep)
}

func (d *syncedDoor) delete(ctx context.Context, q *query) (any, error) {
	t, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	if err := d.keeper.Delete(ctx, t.Name, syncedtable.KeepData); err != nil {
		return nil, err
	}
	return d.ops.done(syncedName(t.Name), verbDelete, t.UID, nil)
}

// projectOf is the project of the synced table that a request's path names, by
// the table or by its pipeline.
func (d *syncedDoor) projectOf(ctx context.Context, a access, q *query) (tarn.ProjectName, error) {
	if a == ofPipeline {
		p, err := d.keeper.Pipelines().Get(ctx, q.r.PathValue("pipeline"))
		return tarn.ProjectName{Project: p.Project}, err
	}
	t, err := d.read(ctx, q)
	return t.Branch.Parent(), err
}

// updateOfInstance changes nothing, as documented, but is asked by Terraform: it
// answers when what it is asked is what there is.
func (d *syncedDoor) updateOfInstance(ctx context.Context, q *query) (any, error) {
	t, err := d.read(ctx, q)
	if err != nil {
		return nil, err
	}
	var in wire.SyncedDatabaseTable
	if err := q.decode(&in); err != nil {
		return nil, err
	}
	have := syncedDatabaseOf(t)
	switch {
	case in.DatabaseInstanceName != "" && in.DatabaseInstanceName != have.EffectiveDatabaseInstanceName,
		in.LogicalDatabaseName != "" && in.LogicalDatabaseName != have.EffectiveLogicalDatabaseName:
		return nil, badField("synced_table", "a synced table stays in its database (%s of instance %s): delete it and make another", have.EffectiveLogicalDatabaseName, have.EffectiveDatabaseInstanceName)
	case in.Spec == nil:
		return have, nil
	}
	s, err := readSyncedSpec("name", t.Name.String(), in.Spec)
	if err != nil {
		return nil, err
	}
	if s.Source != t.Source || !slices.Equal(s.PrimaryKey, t.PrimaryKey) || policyOf(s.Policy) != policyOf(t.Policy) || s.TimeseriesKey != t.TimeseriesKey {
		return nil, badField("synced_table.spec", "a synced table stays as it was made: delete it and make another").
			because("tarn sync update changes its policy and pace")
	}
	return have, nil
}
