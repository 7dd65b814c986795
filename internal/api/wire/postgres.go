package wire

import "encoding/json"

// Operation is a long-running request.
type Operation struct {
	Name     string          `json:"name"`
	Done     bool            `json:"done"`
	Metadata json.RawMessage `json:"metadata,omitempty"`
	Response json.RawMessage `json:"response,omitempty"` // the resource, or {} after a delete
	Error    *Error          `json:"error,omitempty"`
}

// Project holds branches. Spec goes in, Status comes out.
type Project struct {
	Name                string               `json:"name,omitempty"`
	ProjectID           string               `json:"project_id,omitempty"`
	UID                 string               `json:"uid,omitempty"`
	CreateTime          string               `json:"create_time,omitempty"`
	UpdateTime          string               `json:"update_time,omitempty"`
	Spec                *ProjectSpec         `json:"spec,omitempty"`
	Status              *ProjectStatus       `json:"status,omitempty"`
	InitialBranchSpec   *InitialBranchSpec   `json:"initial_branch_spec,omitempty"`
	InitialEndpointSpec *InitialEndpointSpec `json:"initial_endpoint_spec,omitempty"`
	DeleteTime          string               `json:"delete_time,omitempty"` // of one that can be brought back
	PurgeTime           string               `json:"purge_time,omitempty"`  // until when
}

// ProjectSpec is what is asked of a project.
type ProjectSpec struct {
	BudgetPolicyID           string            `json:"budget_policy_id,omitempty"`
	CustomTags               []CustomTag       `json:"custom_tags,omitempty"`
	DefaultBranch            string            `json:"default_branch,omitempty"`
	DefaultEndpointSettings  *EndpointSettings `json:"default_endpoint_settings,omitempty"`
	DisplayName              string            `json:"display_name,omitempty"`
	EnablePgNativeLogin      *bool             `json:"enable_pg_native_login,omitempty"`
	HistoryRetentionDuration string            `json:"history_retention_duration,omitempty" format:"duration"`
	PgVersion                *int              `json:"pg_version,omitempty"`
	AllowedIPs               *[]string         `json:"allowed_ips,omitempty"` // ours: networks of clients; empty = all
}

// ProjectStatus is a project as observed.
type ProjectStatus struct {
	BudgetPolicyID           string            `json:"budget_policy_id,omitempty"`
	ComputeLastActiveTime    string            `json:"compute_last_active_time,omitempty"`
	CustomTags               []CustomTag       `json:"custom_tags,omitempty"`
	DefaultBranch            string            `json:"default_branch,omitempty"`
	DefaultEndpointSettings  *EndpointSettings `json:"default_endpoint_settings,omitempty"`
	DisplayName              string            `json:"display_name,omitempty"`
	EnablePgNativeLogin      bool              `json:"enable_pg_native_login"`
	HistoryRetentionDuration string            `json:"history_retention_duration,omitempty"`
	Owner                    string            `json:"owner,omitempty"`
	PgVersion                int               `json:"pg_version,omitempty"`
	ProjectID                string            `json:"project_id,omitempty"`
	AllowedIPs               []string          `json:"allowed_ips,omitempty"` // ours
}

// EndpointSettings are the limits new endpoints of a project get.
type EndpointSettings struct {
	AutoscalingLimitMaxCU  *float64          `json:"autoscaling_limit_max_cu,omitempty"`
	AutoscalingLimitMinCU  *float64          `json:"autoscaling_limit_min_cu,omitempty"`
	NoSuspension           *bool             `json:"no_suspension,omitempty"`
	SuspendTimeoutDuration string            `json:"suspend_timeout_duration,omitempty" format:"duration"`
	PgSettings             map[string]string `json:"pg_settings,omitempty"`
}

// InitialBranchSpec is asked of branch production when its project is created.
type InitialBranchSpec struct {
	IsProtected *bool `json:"is_protected,omitempty"`
}

// InitialEndpointSpec is asked of endpoint primary when its project is created.
type InitialEndpointSpec struct {
	AutoscalingLimitMaxCU  *float64       `json:"autoscaling_limit_max_cu,omitempty"`
	AutoscalingLimitMinCU  *float64       `json:"autoscaling_limit_min_cu,omitempty"`
	Group                  *EndpointGroup `json:"group,omitempty"`
	NoSuspension           *bool          `json:"no_suspension,omitempty"`
	SuspendTimeoutDuration string         `json:"suspend_timeout_duration,omitempty" format:"duration"`
}

// ListProjects is one page of projects.
type ListProjects struct {
	Projects      []Project `json:"projects"`
	NextPageToken string    `json:"next_page_token,omitempty"`
}

// Branch is a writable line of a project's data.
type Branch struct {
	Name       string        `json:"name,omitempty"`
	BranchID   string        `json:"branch_id,omitempty"`
	UID        string        `json:"uid,omitempty"`
	Parent     string        `json:"parent,omitempty"`
	CreateTime string        `json:"create_time,omitempty"`
	UpdateTime string        `json:"update_time,omitempty"`
	Spec       *BranchSpec   `json:"spec,omitempty"`
	Status     *BranchStatus `json:"status,omitempty"`
}

// BranchSpec is what is asked of a branch.
type BranchSpec struct {
	ExpireTime       string `json:"expire_time,omitempty" format:"date-time"`
	TTL              string `json:"ttl,omitempty" format:"duration"`
	NoExpiry         *bool  `json:"no_expiry,omitempty"`
	IsProtected      *bool  `json:"is_protected,omitempty"`
	SourceBranch     string `json:"source_branch,omitempty"`
	SourceBranchLSN  string `json:"source_branch_lsn,omitempty"`
	SourceBranchTime string `json:"source_branch_time,omitempty" format:"date-time"`
	SourceSnapshot   string `json:"source_snapshot,omitempty"` // projects/p/snapshots/s
}

// BranchStatus is a branch as observed.
type BranchStatus struct {
	BranchID         string `json:"branch_id,omitempty"`
	CurrentState     string `json:"current_state,omitempty"`
	PendingState     string `json:"pending_state,omitempty"`
	Default          bool   `json:"default"`
	ExpireTime       string `json:"expire_time,omitempty"`
	IsProtected      bool   `json:"is_protected"`
	LogicalSizeBytes *int64 `json:"logical_size_bytes,omitempty"`
	SourceBranch     string `json:"source_branch,omitempty"`
	SourceBranchLSN  string `json:"source_branch_lsn,omitempty"`
	SourceBranchTime string `json:"source_branch_time,omitempty"`
	SourceSnapshot   string `json:"source_snapshot,omitempty"`
	StateChangeTime  string `json:"state_change_time,omitempty"`
	StatusDetail     string `json:"status_detail,omitempty"` // why it stands where it stands; ours
	DeleteTime       string `json:"delete_time,omitempty"`   // of one that can be brought back
	PurgeTime        string `json:"purge_time,omitempty"`    // until when
}

// ListBranches is one page of a project's branches.
type ListBranches struct {
	Branches      []Branch `json:"branches"`
	NextPageToken string   `json:"next_page_token,omitempty"`
}

// Snapshot is a point of a branch that is kept.
type Snapshot struct {
	Name       string          `json:"name,omitempty"`
	SnapshotID string          `json:"snapshot_id,omitempty"`
	UID        string          `json:"uid,omitempty"`
	CreateTime string          `json:"create_time,omitempty"`
	Spec       *SnapshotSpec   `json:"spec,omitempty"`
	Status     *SnapshotStatus `json:"status,omitempty"`
}

// SnapshotSpec is what is asked of a snapshot.
type SnapshotSpec struct {
	SourceBranch     string `json:"source_branch,omitempty"`
	SourceBranchLSN  string `json:"source_branch_lsn,omitempty"`
	SourceBranchTime string `json:"source_branch_time,omitempty" format:"date-time"`
	ExpireTime       string `json:"expire_time,omitempty" format:"date-time"`
	TTL              string `json:"ttl,omitempty" format:"duration"`
	NoExpiry         *bool  `json:"no_expiry,omitempty"`
}

// SnapshotStatus is a snapshot as observed. From SourceBranchTime on the fields
// are ours.
type SnapshotStatus struct {
	SourceBranch     string `json:"source_branch,omitempty"`
	ExpireTime       string `json:"expire_time,omitempty"`
	NoExpiry         bool   `json:"no_expiry,omitempty"`
	SourceBranchTime string `json:"source_branch_time,omitempty"` // of what it holds
	SourceBranchLSN  string `json:"source_branch_lsn,omitempty"`
	CurrentState     string `json:"current_state,omitempty"` // INIT, AVAILABLE, DELETED
	StatusDetail     string `json:"status_detail,omitempty"`
}

// ListSnapshots is one page of a project's snapshots.
type ListSnapshots struct {
	Snapshots     []Snapshot `json:"snapshots"`
	NextPageToken string     `json:"next_page_token,omitempty"`
}

// Endpoint is the address and limits through which a branch is reached.
type Endpoint struct {
	Name       string          `json:"name,omitempty"`
	EndpointID string          `json:"endpoint_id,omitempty"`
	UID        string          `json:"uid,omitempty"`
	Parent     string          `json:"parent,omitempty"`
	CreateTime string          `json:"create_time,omitempty"`
	UpdateTime string          `json:"update_time,omitempty"`
	Spec       *EndpointSpec   `json:"spec,omitempty"`
	Status     *EndpointStatus `json:"status,omitempty"`
}

// EndpointSpec is what is asked of an endpoint.
type EndpointSpec struct {
	AutoscalingLimitMaxCU  *float64       `json:"autoscaling_limit_max_cu,omitempty"`
	AutoscalingLimitMinCU  *float64       `json:"autoscaling_limit_min_cu,omitempty"`
	Disabled               *bool          `json:"disabled,omitempty"`
	EndpointType           string         `json:"endpoint_type,omitempty" enum:"ENDPOINT_TYPE_READ_WRITE ENDPOINT_TYPE_READ_ONLY"`
	Group                  *EndpointGroup `json:"group,omitempty"`
	NoSuspension           *bool          `json:"no_suspension,omitempty"`
	Settings               *PgSettings    `json:"settings,omitempty"`
	SuspendTimeoutDuration string         `json:"suspend_timeout_duration,omitempty" format:"duration"`
	// TarnFreezeTimeoutDuration is ours: the first of two depths of suspend;
	// "0s" = never.
	TarnFreezeTimeoutDuration string `json:"tarn_freeze_timeout_duration,omitempty" format:"duration"`
}

// EndpointGroup is the number of computes behind one endpoint.
type EndpointGroup struct {
	Min                       int   `json:"min"`
	Max                       int   `json:"max"`
	EnableReadableSecondaries *bool `json:"enable_readable_secondaries,omitempty"`
}

// PgSettings are raw Postgres settings of an endpoint.
type PgSettings struct {
	PgSettings map[string]string `json:"pg_settings,omitempty"`
}

// EndpointStatus is an endpoint as observed.
type EndpointStatus struct {
	AutoscalingLimitMaxCU  float64        `json:"autoscaling_limit_max_cu"`
	AutoscalingLimitMinCU  float64        `json:"autoscaling_limit_min_cu"`
	CurrentState           string         `json:"current_state,omitempty"`
	PendingState           string         `json:"pending_state,omitempty"`
	Disabled               bool           `json:"disabled"`
	EndpointID             string         `json:"endpoint_id,omitempty"`
	EndpointType           string         `json:"endpoint_type,omitempty"`
	Group                  *EndpointGroup `json:"group,omitempty"`
	Hosts                  *EndpointHosts `json:"hosts,omitempty"`
	LastActiveTime         string         `json:"last_active_time,omitempty"`
	Settings               *PgSettings    `json:"settings,omitempty"`
	SuspendTimeoutDuration string         `json:"suspend_timeout_duration,omitempty"`

	TarnFreezeTimeoutDuration string `json:"tarn_freeze_timeout_duration,omitempty"` // "" = never
}

// EndpointHosts are the names clients connect to.
type EndpointHosts struct {
	Host                string `json:"host,omitempty"`
	ReadOnlyHost        string `json:"read_only_host,omitempty"`
	ReadOnlyPooledHost  string `json:"read_only_pooled_host,omitempty"`
	ReadWritePooledHost string `json:"read_write_pooled_host,omitempty"`
}

// ListEndpoints is one page of a branch's endpoints.
type ListEndpoints struct {
	Endpoints     []Endpoint `json:"endpoints"`
	NextPageToken string     `json:"next_page_token,omitempty"`
}

// GenerateCredential asks the postgres API for a Postgres password.
type GenerateCredential struct {
	Endpoint   string            `json:"endpoint"`
	TTL        string            `json:"ttl,omitempty" format:"duration"`
	ExpireTime string            `json:"expire_time,omitempty" format:"date-time"`
	Claims     []RequestedClaims `json:"claims,omitempty"`
}

// Credential is the postgres API's answer.
type Credential struct {
	Token      string `json:"token"`
	ExpireTime string `json:"expire_time"`
}

// CdfConfig is a feed.
type CdfConfig struct {
	Name           string `json:"name,omitempty"`
	CdfConfigID    string `json:"cdf_config_id,omitempty"`
	Catalog        string `json:"catalog"`
	Schema         string `json:"schema"`
	PostgresSchema string `json:"postgres_schema"`
	CreateTime     string `json:"create_time,omitempty"`
	StatusDetail   string `json:"status_detail,omitempty"` // why the whole feed stands still; ours
	FeedSettings
	PipelineID string `json:"pipeline_id,omitempty"`    // ours
	WALHeld    int64  `json:"wal_held_bytes,omitempty"` // what its slot holds back; ours
}

// FeedSettings are what Tarn lets be chosen of a feed beyond the published fields;
// in an update a field that is left out stays as it is.
type FeedSettings struct {
	Include *[]string `json:"include_tables,omitempty"`
	Exclude *[]string `json:"exclude_tables,omitempty"`
	Flush   string    `json:"flush_interval,omitempty"` // "1s" to "60s"
	MaxWAL  *int64    `json:"max_wal_bytes,omitempty"`
	Paused  *bool     `json:"paused,omitempty"`
	Derived *string   `json:"derived_tables,omitempty"` // current, intervals or current,intervals
}

// VerifyFeed asks to compare one table with its history.
type VerifyFeed struct {
	Table string `json:"table"`
}

// FeedVerdict is the answer.
type FeedVerdict struct {
	Table        string `json:"table"`
	Equal        bool   `json:"equal"`
	LSN          string `json:"lsn"` // both were compared as they were here
	PostgresRows int64  `json:"postgres_rows"`
	HistoryRows  int64  `json:"history_rows"` // that the history adds up to
}

// ResyncFeed asks for a new copy of tables; none named = of all.
type ResyncFeed struct {
	Tables []string `json:"tables,omitempty"`
}

// ListCdfConfigs is one page of a database's feeds.
type ListCdfConfigs struct {
	CdfConfigs    []CdfConfig `json:"cdf_configs"`
	NextPageToken string      `json:"next_page_token,omitempty"`
}

// CdfStatus is one followed table of a feed.
type CdfStatus struct {
	Name          string `json:"name,omitempty"`
	PostgresTable string `json:"postgres_table,omitempty"`
	UCTable       string `json:"uc_table,omitempty"`
	State         string `json:"state,omitempty"`
	CommittedLSN  string `json:"committed_lsn,omitempty"`
	LastSyncTime  string `json:"last_sync_time,omitempty"`
	StatusDetail  string `json:"status_detail,omitempty"`
	CreateTime    string `json:"create_time,omitempty"`
	// Ours:
	Rows        int64 `json:"rows,omitempty"`         // history rows written
	DeadLetters int64 `json:"dead_letters,omitempty"` // values kept in lb_dead_letters
	Copied      int64 `json:"copied_rows,omitempty"`  // of the last or running copy
	CopyRows    int64 `json:"copy_rows,omitempty"`    // estimate of the running copy's rows
}

// ListCdfStatuses is one page of a feed's tables.
type ListCdfStatuses struct {
	CdfStatuses   []CdfStatus `json:"cdf_statuses"`
	NextPageToken string      `json:"next_page_token,omitempty"`
}
