package wire

import "encoding/json"

// SyncedTableSpec is what is asked of a synced table; Branch and
// PostgresDatabase exist only in the postgres API.
type SyncedTableSpec struct {
	SourceTableFullName            string           `json:"source_table_full_name,omitempty"`
	PrimaryKeyColumns              []string         `json:"primary_key_columns,omitempty"`
	SchedulingPolicy               string           `json:"scheduling_policy,omitempty"`
	TimeseriesKey                  string           `json:"timeseries_key,omitempty"`
	NewPipelineSpec                *NewPipelineSpec `json:"new_pipeline_spec,omitempty"`
	ExistingPipelineID             string           `json:"existing_pipeline_id,omitempty"`
	CreateDatabaseObjectsIfMissing *bool            `json:"create_database_objects_if_missing,omitempty"`
	// Of these Tarn only needs to know whether they were asked for.
	TypeOverrides []json.RawMessage `json:"type_overrides,omitempty"`
	ExtraColumns  []json.RawMessage `json:"extra_columns,omitempty"`

	Branch           string `json:"branch,omitempty"`
	PostgresDatabase string `json:"postgres_database,omitempty"`
}

// NewPipelineSpec names where a pipeline keeps its state.
type NewPipelineSpec struct {
	StorageCatalog string `json:"storage_catalog,omitempty"`
	StorageSchema  string `json:"storage_schema,omitempty"`
}

// SyncedTableProgress says how far a load has come.
type SyncedTableProgress struct {
	SyncedRowCount         int64   `json:"synced_row_count"`
	TotalRowCount          int64   `json:"total_row_count"`
	SyncProgressCompletion float64 `json:"sync_progress_completion"`
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

// StartUpdate asks a pipeline for a run.
type StartUpdate struct {
	FullRefresh *bool `json:"full_refresh,omitempty"`
}

// StartUpdateResponse names the run.
type StartUpdateResponse struct {
	UpdateID string `json:"update_id"`
}

// Pipeline is what moves one synced table.
type Pipeline struct {
	PipelineID string `json:"pipeline_id"`
	Name       string `json:"name"`
	State      string `json:"state"` // IDLE, RUNNING or FAILED
	Cause      string `json:"cause,omitempty"`
}
