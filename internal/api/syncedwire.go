package api

import (
	"time"

	"github.com/tarndb/tarn"
	"github.com/tarndb/tarn/internal/api/wire"
)

// unityActive is the state of a catalog entry that is simply there.
const unityActive = "ACTIVE"

func syncedName(n tarn.TableName) string { return "synced_tables/" + n.String() }

func specOf(t tarn.SyncedTable) *wire.SyncedTableSpec {
	s := &wire.SyncedTableSpec{
		SourceTableFullName: t.Source.String(),
		PrimaryKeyColumns:   t.PrimaryKey,
		SchedulingPolicy:    string(policyOf(t.Policy)),
	}
	s.TimeseriesKey, s.Settings = t.TimeseriesKey, syncSettingsOf(t.SyncSettings)
	for _, o := range t.TypeOverrides {
		s.TypeOverrides = append(s.TypeOverrides, wire.TypeOverride{ColumnName: o.Column, PgType: o.Type, Size: o.Size})
	}
	np := wire.NewPipelineSpec{StorageCatalog: t.NewPipelineCatalog, StorageSchema: t.NewPipelineSchema, BudgetPolicyID: t.Asked.BudgetPolicy, PipelineChannel: t.Asked.Channel}
	if np != (wire.NewPipelineSpec{}) {
		s.NewPipelineSpec = &np
	}
	s.AcceleratedSync, s.CreateDatabaseObjectsIfMissing = t.Asked.Accelerated, t.Asked.MakeObjects
	return s
}

// syncSettingsOf is nil when they say nothing.
func syncSettingsOf(s tarn.SyncSettings) *wire.SyncSettings {
	if s == (tarn.SyncSettings{}) {
		return nil
	}
	return &wire.SyncSettings{
		IntervalSeconds: s.Interval.Seconds(), Cron: s.Schedule.Cron, TimeZone: s.Schedule.Zone, OnReject: string(s.OnReject),
		AlertWebhook: s.Alerts.Webhook, AlertLagSeconds: s.Alerts.Lag.Seconds(), AlertDeadLetters: s.Alerts.DeadLetters,
	}
}

func policyOf(p tarn.SyncPolicy) tarn.SyncPolicy {
	if p == "" {
		return tarn.SyncSnapshot
	}
	return p
}

func databaseOf(t tarn.SyncedTable) string {
	if t.Database == "" {
		return tarn.DefaultDatabase
	}
	return t.Database
}

// progressOf is nil when nothing is known yet.
func progressOf(t tarn.SyncedTable) *wire.SyncedTableProgress {
	if t.RowsSynced == 0 && t.RowsTotal == 0 {
		return nil
	}
	p := &wire.SyncedTableProgress{SyncedRowCount: t.RowsSynced, TotalRowCount: t.RowsTotal}
	if t.RowsTotal > 0 {
		p.SyncProgressCompletion = min(1, float64(t.RowsSynced)/float64(t.RowsTotal))
	}
	if t.State.Due() && !t.Newest.Time.IsZero() {
		p.LatestVersionCurrentlyProcessing = &t.Newest.Version
	}
	// What is left takes as long, by row, as what is done.
	if spent := t.UpdateTime.Sub(t.CreateTime); t.State == tarn.SyncInitialSnapshot && t.RowsSynced > 0 && t.RowsTotal > t.RowsSynced {
		p.EstimatedCompletionTimeSeconds = spent.Seconds() * float64(t.RowsTotal-t.RowsSynced) / float64(t.RowsSynced)
	}
	return p
}

// applied is the Delta version now readable in Postgres; nil = none.
func applied(t tarn.SyncedTable) *int64 {
	if t.Version < 0 || t.SyncEnd.IsZero() {
		return nil
	}
	return &t.Version
}

// syncedDatabaseOf writes t as the database service spells it: the progress
// stands under the state it belongs to.
func syncedDatabaseOf(t tarn.SyncedTable) wire.SyncedDatabaseTable {
	st := &wire.SyncedDatabaseTableStatus{
		DetailedState: "SYNCED_TABLE_" + string(t.State),
		Message:       t.Message, PipelineID: t.PipelineID,
	}
	at := wire.SyncedDatabaseApplyStatus{LastProcessedCommitVersion: applied(t), Timestamp: wire.Time(t.SyncEnd)}
	switch t.State {
	case tarn.SyncProvisioning, tarn.SyncProvisioningRes:
		st.ProvisioningStatus = &wire.SyncedProvisioningStatus{}
	case tarn.SyncInitialSnapshot:
		st.ProvisioningStatus = &wire.SyncedProvisioningStatus{InitialPipelineSyncProgress: progressOf(t)}
		if p := st.ProvisioningStatus.InitialPipelineSyncProgress; p != nil {
			p.ProvisioningPhase = provisioningPhase(t)
		}
	case tarn.SyncContinuing, tarn.SyncUpdatingResources:
		st.ContinuousStatus = &wire.SyncedContinuousStatus{SyncedDatabaseApplyStatus: at}
	case tarn.SyncUpdating:
		st.TriggeredUpdateStatus = &wire.SyncedTriggeredStatus{SyncedDatabaseApplyStatus: at, TriggeredUpdateProgress: progressOf(t)}
	case tarn.SyncOnline, tarn.SyncStopped:
		st.TriggeredUpdateStatus = &wire.SyncedTriggeredStatus{SyncedDatabaseApplyStatus: at}
	case tarn.SyncPipelineFailed, tarn.SyncOfflineFailed:
		st.FailedStatus = &at
	}
	if v := applied(t); v != nil {
		st.LastSync = &wire.SyncedDatabasePosition{
			DeltaTableSyncInfo: &wire.DeltaTableSyncTimestamp{DeltaCommitVersion: *v, DeltaCommitTimestamp: wire.Time(t.VersionTS)},
			SyncStartTimestamp: wire.Time(t.SyncStart), SyncEndTimestamp: wire.Time(t.SyncEnd),
		}
	}
	return wire.SyncedDatabaseTable{
		Name: t.Name.String(), Spec: specOf(t),
		DatabaseInstanceName: t.Branch.Project, EffectiveDatabaseInstanceName: t.Branch.Project,
		LogicalDatabaseName: databaseOf(t), EffectiveLogicalDatabaseName: databaseOf(t),
		DataSynchronizationStatus: st, UnityCatalogProvisioningState: unityActive,
	}
}

// provisioningPhase tells rows on their way from the indexes behind them.
func provisioningPhase(t tarn.SyncedTable) string {
	if t.RowsTotal > 0 && t.RowsSynced >= t.RowsTotal {
		return "PROVISIONING_PHASE_INDEX_SORT"
	}
	return "PROVISIONING_PHASE_MAIN"
}

// syncedOf writes t as the postgres service spells it: everything flat.
func syncedOf(t tarn.SyncedTable) wire.SyncedTable {
	spec := specOf(t)
	spec.Branch, spec.PostgresDatabase = t.Branch.String(), databaseOf(t)
	st := &wire.SyncedTableStatus{
		DetailedState: "SYNCED_TABLE_" + string(t.State),
		Message:       t.Message, PipelineID: t.PipelineID, Project: t.Branch.Parent().String(),
		LastProcessedCommitVersion: applied(t), LastSyncTime: wire.Time(t.SyncEnd),
		UnityCatalogProvisioningState: unityActive,
	}
	if t.State.Due() {
		st.OngoingSyncProgress = progressOf(t)
	}
	if t.State == tarn.SyncInitialSnapshot {
		st.ProvisioningPhase = provisioningPhase(t)
	}
	st.RejectedRows, st.LagSeconds = t.Rejected, t.Lag(time.Now()).Seconds()
	if !t.Newest.Time.IsZero() {
		st.SourceVersion = &t.Newest.Version
	}
	if v := applied(t); v != nil {
		st.LastSync = &wire.SyncedTablePosition{
			DeltaTableSyncInfo: &wire.DeltaTableSyncTime{DeltaCommitVersion: *v, DeltaCommitTime: wire.Time(t.VersionTS)},
			SyncStartTime:      wire.Time(t.SyncStart), SyncEndTime: wire.Time(t.SyncEnd),
		}
	}
	return wire.SyncedTable{
		Name: syncedName(t.Name), SyncedTableID: t.Name.String(), UID: t.UID,
		CreateTime: wire.Time(t.CreateTime), Spec: spec, Status: st,
	}
}
