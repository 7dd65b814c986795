package wire

// DatabaseInstance is the Provisioned API's name for a project with its
// production branch and primary endpoint.
type DatabaseInstance struct {
	Name string `json:"name"`
	UID  string `json:"uid,omitempty"`

	Capacity                  string               `json:"capacity,omitempty" enum:"CU_1 CU_2 CU_4 CU_8"`
	CustomTags                []CustomTag          `json:"custom_tags,omitempty"`
	EnablePgNativeLogin       *bool                `json:"enable_pg_native_login,omitempty"`
	EnableReadableSecondaries *bool                `json:"enable_readable_secondaries,omitempty"`
	NodeCount                 *int                 `json:"node_count,omitempty"`
	ParentInstanceRef         *DatabaseInstanceRef `json:"parent_instance_ref,omitempty"`
	RetentionWindowInDays     *int                 `json:"retention_window_in_days,omitempty"`
	Stopped                   *bool                `json:"stopped,omitempty"`
	UsagePolicyID             string               `json:"usage_policy_id,omitempty"`

	DatabaseInstanceStatus
}

// DatabaseInstanceStatus is the part of an instance only the server writes.
type DatabaseInstanceStatus struct {
	CreationTime string `json:"creation_time,omitempty"`
	Creator      string `json:"creator,omitempty"`
	PgVersion    string `json:"pg_version,omitempty"`
	ReadOnlyDNS  string `json:"read_only_dns,omitempty"` // with readable secondaries only
	ReadWriteDNS string `json:"read_write_dns,omitempty"`
	State        string `json:"state,omitempty"`

	ChildInstanceRefs []DatabaseInstanceRef `json:"child_instance_refs,omitempty"`

	EffectiveCapacity                  string      `json:"effective_capacity,omitempty"`
	EffectiveCustomTags                []CustomTag `json:"effective_custom_tags,omitempty"`
	EffectiveEnablePgNativeLogin       *bool       `json:"effective_enable_pg_native_login,omitempty"`
	EffectiveEnableReadableSecondaries *bool       `json:"effective_enable_readable_secondaries,omitempty"`
	EffectiveNodeCount                 *int        `json:"effective_node_count,omitempty"`
	EffectiveRetentionWindowInDays     *int        `json:"effective_retention_window_in_days,omitempty"`
	EffectiveStopped                   *bool       `json:"effective_stopped,omitempty"`
	EffectiveUsagePolicyID             string      `json:"effective_usage_policy_id,omitempty"`
}

// The states of an instance.
const (
	InstanceAvailable = "AVAILABLE"
	InstanceStarting  = "STARTING"
	InstanceStopped   = "STOPPED"
	InstanceUpdating  = "UPDATING"
	InstanceDeleting  = "DELETING"
)

// DatabaseInstanceRef names the instance a child was branched from.
type DatabaseInstanceRef struct {
	Name         string `json:"name,omitempty"`
	UID          string `json:"uid,omitempty"`
	BranchTime   string `json:"branch_time,omitempty" format:"date-time"`
	LSN          string `json:"lsn,omitempty"`
	EffectiveLSN string `json:"effective_lsn,omitempty"`
}

// ListDatabaseInstances is one page of instances.
type ListDatabaseInstances struct {
	DatabaseInstances []DatabaseInstance `json:"database_instances"`
	NextPageToken     string             `json:"next_page_token,omitempty"`
}

// RequestedClaims asks for a credential restricted to some tables.
type RequestedClaims struct {
	PermissionSet string              `json:"permission_set,omitempty" enum:"READ_ONLY"`
	Resources     []RequestedResource `json:"resources,omitempty"`
}

// RequestedResource is one table of RequestedClaims.
type RequestedResource struct {
	TableName string `json:"table_name,omitempty"`
}

// GenerateInstanceCredential asks the database API for a Postgres password.
type GenerateInstanceCredential struct {
	InstanceNames []string          `json:"instance_names,omitempty"`
	RequestID     string            `json:"request_id,omitempty"`
	Claims        []RequestedClaims `json:"claims,omitempty"`
}

// InstanceCredential is the database API's answer.
type InstanceCredential struct {
	Token          string `json:"token"`
	ExpirationTime string `json:"expiration_time"`
}

// SyncedDatabaseTable is a synced table as the database API spells it.
type SyncedDatabaseTable struct {
	Name                 string           `json:"name"`
	DatabaseInstanceName string           `json:"database_instance_name,omitempty"`
	LogicalDatabaseName  string           `json:"logical_database_name,omitempty"`
	Spec                 *SyncedTableSpec `json:"spec,omitempty"`

	DataSynchronizationStatus     *SyncedDatabaseTableStatus `json:"data_synchronization_status,omitempty"`
	EffectiveDatabaseInstanceName string                     `json:"effective_database_instance_name,omitempty"`
	EffectiveLogicalDatabaseName  string                     `json:"effective_logical_database_name,omitempty"`
	UnityCatalogProvisioningState string                     `json:"unity_catalog_provisioning_state,omitempty"`
}

// SyncedDatabaseTableStatus nests the progress under the state it belongs to.
type SyncedDatabaseTableStatus struct {
	DetailedState         string                     `json:"detailed_state,omitempty"`
	Message               string                     `json:"message,omitempty"`
	PipelineID            string                     `json:"pipeline_id,omitempty"`
	LastSync              *SyncedDatabasePosition    `json:"last_sync,omitempty"`
	ProvisioningStatus    *SyncedProvisioningStatus  `json:"provisioning_status,omitempty"`
	TriggeredUpdateStatus *SyncedTriggeredStatus     `json:"triggered_update_status,omitempty"`
	FailedStatus          *SyncedDatabaseApplyStatus `json:"failed_status,omitempty"`
	ContinuousStatus      *SyncedContinuousStatus    `json:"continuous_update_status,omitempty"`
}

// SyncedDatabasePosition is where the last good sync stood.
type SyncedDatabasePosition struct {
	DeltaTableSyncInfo *DeltaTableSyncTimestamp `json:"delta_table_sync_info,omitempty"`
	SyncStartTimestamp string                   `json:"sync_start_timestamp,omitempty"`
	SyncEndTimestamp   string                   `json:"sync_end_timestamp,omitempty"`
}

// DeltaTableSyncTimestamp names the Delta version a sync applied.
type DeltaTableSyncTimestamp struct {
	DeltaCommitTimestamp string `json:"delta_commit_timestamp,omitempty"`
	DeltaCommitVersion   int64  `json:"delta_commit_version"`
}

// SyncedProvisioningStatus is shown until the first snapshot is loaded.
type SyncedProvisioningStatus struct {
	InitialPipelineSyncProgress *SyncedTableProgress `json:"initial_pipeline_sync_progress,omitempty"`
}

// SyncedTriggeredStatus is shown while a table waits for or applies an update.
type SyncedTriggeredStatus struct {
	SyncedDatabaseApplyStatus
	TriggeredUpdateProgress *SyncedTableProgress `json:"triggered_update_progress,omitempty"`
}

// SyncedContinuousStatus is shown while a table follows its source.
type SyncedContinuousStatus struct {
	SyncedDatabaseApplyStatus
	InitialPipelineSyncProgress *SyncedTableProgress `json:"initial_pipeline_sync_progress,omitempty"`
}

// SyncedDatabaseApplyStatus says which Delta version was applied last.
type SyncedDatabaseApplyStatus struct {
	LastProcessedCommitVersion *int64 `json:"last_processed_commit_version,omitempty"`
	Timestamp                  string `json:"timestamp,omitempty"`
}

// ListSyncedDatabaseTables is one page of an instance's synced tables.
type ListSyncedDatabaseTables struct {
	SyncedTables  []SyncedDatabaseTable `json:"synced_tables"`
	NextPageToken string                `json:"next_page_token,omitempty"`
}
