package wire

import "encoding/json"

// SyncedTableSpec is what is asked of a synced table; Branch and
// PostgresDatabase exist only in the postgres API.
type SyncedTableSpec struct {
	SourceTableFullName            string           `json:"source_table_full_name,omitempty"`
	PrimaryKeyColumns              []string         `json:"primary_key_columns,omitempty"`
	SchedulingPolicy               string           `json:"scheduling_policy,omitempty" enum:"SNAPSHOT TRIGGERED CONTINUOUS"`
	TimeseriesKey                  string           `json:"timeseries_key,omitempty"`
	NewPipelineSpec                *NewPipelineSpec `json:"new_pipeline_spec,omitempty"`
	AcceleratedSync                *bool            `json:"accelerated_sync,omitempty"`
	ExistingPipelineID             string           `json:"existing_pipeline_id,omitempty"`
	CreateDatabaseObjectsIfMissing *bool            `json:"create_database_objects_if_missing,omitempty"`
	TypeOverrides                  []TypeOverride   `json:"type_overrides,omitempty"`
	// Of these Tarn only needs to know whether they were asked for.
	ExtraColumns []json.RawMessage `json:"extra_columns,omitempty"`
	// Tarn's own; left out when it says nothing.
	Settings *SyncSettings `json:"tarn_settings,omitempty"`

	Branch           string `json:"branch,omitempty"`
	PostgresDatabase string `json:"postgres_database,omitempty"`
}

// TypeOverride gives a column another Postgres type.
type TypeOverride struct {
	ColumnName string `json:"column_name"`
	PgType     string `json:"pg_type" enum:"PG_SPECIFIC_TYPE_VARCHAR PG_SPECIFIC_TYPE_VECTOR PG_SPECIFIC_TYPE_HALFVEC"`
	Size       int    `json:"size,omitempty"`
}

// SyncSettings are what Tarn has beside the published spec.
type SyncSettings struct {
	IntervalSeconds  float64 `json:"interval_seconds,omitempty"`               // of CONTINUOUS
	Cron             string  `json:"cron,omitempty"`                           // of SNAPSHOT and TRIGGERED
	TimeZone         string  `json:"time_zone,omitempty"`                      // of cron; "" = UTC
	OnReject         string  `json:"on_reject,omitempty" enum:"CONTINUE STOP"` // CONTINUE or STOP
	AlertWebhook     string  `json:"alert_webhook,omitempty"`
	AlertLagSeconds  float64 `json:"alert_lag_seconds,omitempty"`
	AlertDeadLetters int64   `json:"alert_dead_letters,omitempty"`
}

// SyncedTableChange is a change of a synced table in place: what is left out
// stays.
type SyncedTableChange struct {
	SchedulingPolicy *string       `json:"scheduling_policy,omitempty" enum:"SNAPSHOT TRIGGERED CONTINUOUS"`
	Settings         *SyncSettings `json:"settings,omitempty"`
}

// DeadLetter is a row of a source that Postgres cannot store.
type DeadLetter struct {
	ID      int64           `json:"id"`
	Version int64           `json:"version"`
	Reason  string          `json:"reason"`
	Row     json.RawMessage `json:"row"`
	Lossy   bool            `json:"lossy,omitempty"` // U+FFFD stands for what JSON or Postgres has no form for
	Tries   int             `json:"tries,omitempty"`
	Time    string          `json:"time"`
}

// ListDeadLetters is one page of dead letters.
type ListDeadLetters struct {
	DeadLetters   []DeadLetter `json:"dead_letters"`
	NextPageToken string       `json:"next_page_token,omitempty"`
}

// Replay asks for dead letters to be stored again.
type Replay struct {
	ReplaceText bool `json:"replace_text,omitempty"` // U+FFFD may stand for what Postgres has no form for
}

// Replayed is what became of them.
type Replayed struct {
	Stored int64 `json:"stored"`
	Left   int64 `json:"left"`
}

// Verification is a comparison of both sides of a synced table.
type Verification struct {
	Equal      bool            `json:"equal"`
	Version    int64           `json:"version"`
	SourceRows int64           `json:"source_rows"`
	TargetRows int64           `json:"target_rows"`
	Rejected   int64           `json:"rejected"`
	Older      int64           `json:"older,omitempty"`
	Buckets    int             `json:"buckets"`
	Different  int             `json:"different_buckets"`
	Keys       []KeyDifference `json:"keys,omitempty"`
}

// KeyDifference names a key whose rows differ.
type KeyDifference struct {
	Key  string `json:"key"`
	What string `json:"what"`
}

// NewPipelineSpec names where a pipeline keeps its state.
type NewPipelineSpec struct {
	BudgetPolicyID  string `json:"budget_policy_id,omitempty"`
	PipelineChannel string `json:"pipeline_channel,omitempty" enum:"CURRENT PREVIEW"`
	StorageCatalog  string `json:"storage_catalog,omitempty"`
	StorageSchema   string `json:"storage_schema,omitempty"`
}

// SyncedTableProgress says how far a load has come.
type SyncedTableProgress struct {
	SyncedRowCount         int64   `json:"synced_row_count"`
	TotalRowCount          int64   `json:"total_row_count"`
	SyncProgressCompletion float64 `json:"sync_progress_completion"`

	LatestVersionCurrentlyProcessing *int64  `json:"latest_version_currently_processing,omitempty"`
	EstimatedCompletionTimeSeconds   float64 `json:"estimated_completion_time_seconds,omitempty"`
	ProvisioningPhase                string  `json:"provisioning_phase,omitempty"` // database API only
}

// SyncedTable is a synced table as the postgres API spells it.
type SyncedTable struct {
	Name          string             `json:"name,omitempty"`
	SyncedTableID string             `json:"synced_table_id,omitempty"`
	UID           string             `json:"uid,omitempty"`
	CreateTime    string             `json:"create_time,omitempty"`
	Spec          *SyncedTableSpec   `json:"spec,omitempty"`
	Status        *SyncedTableStatus `json:"status,omitempty"`
}

// SyncedTableStatus is flat in the postgres API.
type SyncedTableStatus struct {
	DetailedState                 string               `json:"detailed_state,omitempty"`
	Message                       string               `json:"message,omitempty"`
	PipelineID                    string               `json:"pipeline_id,omitempty"`
	Project                       string               `json:"project,omitempty"`
	LastProcessedCommitVersion    *int64               `json:"last_processed_commit_version,omitempty"`
	LastSync                      *SyncedTablePosition `json:"last_sync,omitempty"`
	LastSyncTime                  string               `json:"last_sync_time,omitempty"`
	OngoingSyncProgress           *SyncedTableProgress `json:"ongoing_sync_progress,omitempty"`
	UnityCatalogProvisioningState string               `json:"unity_catalog_provisioning_state,omitempty"`
	ProvisioningPhase             string               `json:"provisioning_phase,omitempty"`

	// Tarn's own.
	RejectedRows  int64   `json:"tarn_rejected_rows,omitempty"`
	SourceVersion *int64  `json:"tarn_source_version,omitempty"`
	LagSeconds    float64 `json:"tarn_lag_seconds,omitempty"`
}

// SyncedTablePosition is where the last good sync stood.
type SyncedTablePosition struct {
	DeltaTableSyncInfo *DeltaTableSyncTime `json:"delta_table_sync_info,omitempty"`
	SyncStartTime      string              `json:"sync_start_time,omitempty"`
	SyncEndTime        string              `json:"sync_end_time,omitempty"`
}

// DeltaTableSyncTime names the Delta version a sync applied.
type DeltaTableSyncTime struct {
	DeltaCommitTime    string `json:"delta_commit_time,omitempty"`
	DeltaCommitVersion int64  `json:"delta_commit_version"`
}
