package tarn

import "time"

// SyncPolicy is the published scheduling policy of a synced table.
type SyncPolicy string

// The scheduling policies.
const (
	SyncSnapshot   SyncPolicy = "SNAPSHOT"
	SyncTriggered  SyncPolicy = "TRIGGERED"
	SyncContinuous SyncPolicy = "CONTINUOUS"
)

// SyncState is the published state of a synced table without its
// SYNCED_TABLE_ prefix, which the two API services spell differently.
//
//	PROVISIONING ──▶ PROVISIONING_INITIAL_SNAPSHOT ──▶ ONLINE_NO_PENDING_UPDATE
//	                        │                               │    ▲
//	                        ▼                               ▼    │
//	                 OFFLINE_FAILED              ONLINE_TRIGGERED_UPDATE
//	                                                        │
//	                                                        ▼
//	                                              ONLINE_PIPELINE_FAILED
type SyncState string

// The states this issue of Tarn passes through.
const (
	SyncProvisioning    SyncState = "PROVISIONING"
	SyncInitialSnapshot SyncState = "PROVISIONING_INITIAL_SNAPSHOT"
	SyncOnline          SyncState = "ONLINE_NO_PENDING_UPDATE"
	SyncUpdating        SyncState = "ONLINE_TRIGGERED_UPDATE"
	SyncPipelineFailed  SyncState = "ONLINE_PIPELINE_FAILED"
	SyncOfflineFailed   SyncState = "OFFLINE_FAILED"
)

// SyncedTableSpec is what is asked of a synced table.
type SyncedTableSpec struct {
	Name       TableName  // catalog entry; its schema and table name the Postgres table
	Source     TableName  // Delta table
	PrimaryKey []string   // columns; at least one
	Policy     SyncPolicy // "" = SNAPSHOT
	Branch     BranchName // where it is written
	Database   string     // Postgres database; "" = DefaultDatabase
	// NewPipeline names where a pipeline keeps its state; stored and returned.
	NewPipelineCatalog, NewPipelineSchema string
}

// SyncedTable is a synced table as observed.
type SyncedTable struct {
	SyncedTableSpec
	UID        string
	PipelineID string
	State      SyncState
	Message    string
	Version    int64 // Delta version last applied; -1 = none
	VersionTS  time.Time
	RowsSynced int64
	RowsTotal  int64
	SyncStart  time.Time // of the last good sync
	SyncEnd    time.Time
	CreateTime time.Time
	UpdateTime time.Time
}
