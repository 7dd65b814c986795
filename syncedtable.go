package tarn

import "time"

// SyncPolicy is the published scheduling policy of a synced table.
type SyncPolicy string

// The scheduling policies.
const (
	SyncSnapshot   SyncPolicy = "SNAPSHOT"   // the whole table at each refresh
	SyncTriggered  SyncPolicy = "TRIGGERED"  // the changes, at each refresh
	SyncContinuous SyncPolicy = "CONTINUOUS" // the changes, as they come
)

// Follows tells a policy that applies changes, for which the source needs its
// change data feed.
func (p SyncPolicy) Follows() bool { return p == SyncTriggered || p == SyncContinuous }

// SyncState is the published state of a synced table without its
// SYNCED_TABLE_ prefix, which the two API services spell differently.
//
//	PROVISIONING ──▶ PROVISIONING_INITIAL_SNAPSHOT ──▶ rest ◀──▶ ONLINE_TRIGGERED_UPDATE
//	                        │                           │
//	                        ▼                           ▼
//	                 OFFLINE_FAILED              ONLINE_PIPELINE_FAILED
//
// A table rests in ONLINE_NO_PENDING_UPDATE, or in ONLINE_CONTINUOUS_UPDATE
// when its policy is CONTINUOUS, or in ONLINE when its pipeline was stopped;
// one that was stopped before it could be read is OFFLINE. A change of policy
// shows ONLINE_UPDATING_PIPELINE_RESOURCES until the keeper has taken it up.
type SyncState string

// The published states.
const (
	SyncOffline           SyncState = "OFFLINE"
	SyncOfflineFailed     SyncState = "OFFLINE_FAILED"
	SyncStopped           SyncState = "ONLINE"
	SyncOnline            SyncState = "ONLINE_NO_PENDING_UPDATE"
	SyncContinuing        SyncState = "ONLINE_CONTINUOUS_UPDATE"
	SyncUpdating          SyncState = "ONLINE_TRIGGERED_UPDATE"
	SyncUpdatingResources SyncState = "ONLINE_UPDATING_PIPELINE_RESOURCES"
	SyncPipelineFailed    SyncState = "ONLINE_PIPELINE_FAILED"
	SyncProvisioning      SyncState = "PROVISIONING"
	SyncProvisioningRes   SyncState = "PROVISIONING_PIPELINE_RESOURCES"
	SyncInitialSnapshot   SyncState = "PROVISIONING_INITIAL_SNAPSHOT"
)

// Due tells a state that is not at rest: a keeper has work to do.
func (s SyncState) Due() bool {
	switch s {
	case SyncProvisioning, SyncProvisioningRes, SyncInitialSnapshot, SyncUpdating, SyncUpdatingResources:
		return true
	}
	return false
}

// Failed tells a state that only the asker can end.
func (s SyncState) Failed() bool { return s == SyncOfflineFailed || s == SyncPipelineFailed }

// RejectPolicy says what rows do that Postgres cannot store.
type RejectPolicy string

// The policies for such rows.
const (
	RejectContinue RejectPolicy = "CONTINUE" // they become dead letters and the sync goes on
	RejectStop     RejectPolicy = "STOP"     // the sync fails
)

// TypeOverride gives a column another Postgres type than its own.
type TypeOverride struct {
	Column string
	Type   string // PG_SPECIFIC_TYPE_VARCHAR, _VECTOR or _HALFVEC
	Size   int    // length or dimension
}

// The types a column can be overridden with.
const (
	TypeVarchar = "PG_SPECIFIC_TYPE_VARCHAR"
	TypeVector  = "PG_SPECIFIC_TYPE_VECTOR"
	TypeHalfvec = "PG_SPECIFIC_TYPE_HALFVEC"
)

// The pace of CONTINUOUS.
const (
	MinSyncInterval     = time.Second
	DefaultSyncInterval = 15 * time.Second
)

// SyncedTableSpec is what is asked of a synced table.
type SyncedTableSpec struct {
	Name          TableName // catalog entry; its schema and table name the Postgres table
	Source        TableName // Delta table
	PrimaryKey    []string  // columns; at least one
	TimeseriesKey string    // column: of rows of equal key the greatest stays; "" = none
	TypeOverrides []TypeOverride
	Policy        SyncPolicy // "" = SNAPSHOT
	Branch        BranchName // where it is written
	Database      string     // Postgres database; "" = DefaultDatabase
	// NewPipeline names where a pipeline keeps its state; stored and returned.
	NewPipelineCatalog, NewPipelineSchema string
	Asked                                 SyncedTableAsked
	SyncSettings
}

// SyncedTableAsked are parts of the published spec that are given back as they
// came. Only MakeObjects changes what happens.
type SyncedTableAsked struct {
	BudgetPolicy string `json:"budget_policy,omitempty"` // of the pipeline
	Channel      string `json:"channel,omitempty"`       // of the pipeline: CURRENT or PREVIEW
	Accelerated  *bool  `json:"accelerated,omitempty"`
	MakeObjects  *bool  `json:"make_objects,omitempty"` // false = the Postgres schema must be there
}

// SyncSettings can be changed while a synced table lives, as its policy can.
type SyncSettings struct {
	Interval time.Duration // of CONTINUOUS; 0 = DefaultSyncInterval
	Schedule Schedule      // refreshes of SNAPSHOT and TRIGGERED; zero = on demand
	OnReject RejectPolicy  // "" = CONTINUE
	Alerts   Alerts
}

// Alerts say who is told of what; the zero value tells nobody.
type Alerts struct {
	Webhook     string        `json:"webhook,omitempty"`      // URL that gets a JSON object by POST
	Lag         time.Duration `json:"lag,omitempty"`          // ns; tell when the table is further behind; 0 = never
	DeadLetters int64         `json:"dead_letters,omitempty"` // tell when an update adds that many; 0 = 1
}

// SyncedTable is a synced table as observed.
type SyncedTable struct {
	SyncedTableSpec
	UID        string
	PipelineID string
	UpdateID   string  // update that runs or ran last
	Refresh    Refresh // what that update is to read; "" = as it sees fit
	State      SyncState
	Message    string
	Version    int64 // Delta version last applied; -1 = none
	VersionTS  time.Time
	RowsSynced int64
	RowsTotal  int64
	Rejected   int64 // dead letters there are
	Newest     SourcePosition
	SyncStart  time.Time // of the last good sync
	SyncEnd    time.Time
	CreateTime time.Time
	UpdateTime time.Time
}

// SourcePosition is the newest version of a source that was seen.
type SourcePosition struct {
	Version int64 // 0 with a zero Time = none seen
	Time    time.Time
}

// Lag is how long the newest version of the source has been waiting at now: 0
// when it is applied.
func (t SyncedTable) Lag(now time.Time) time.Duration {
	if t.Newest.Time.IsZero() || t.Version >= t.Newest.Version && t.Version >= 0 {
		return 0
	}
	return max(0, now.Sub(t.Newest.Time))
}
