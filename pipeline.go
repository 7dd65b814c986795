package tarn

import "time"

// PipelineKind says what a pipeline moves.
type PipelineKind string

// What pipelines move.
const (
	PipelineSyncedTable PipelineKind = "SYNCED_TABLE"
	PipelineFeed        PipelineKind = "FEED"
)

// Pipeline is what moves the rows of one synced table or feed. Its keeper
// records its updates and events; the API only reads them.
type Pipeline struct {
	ID         string
	Kind       PipelineKind
	Name       string // of what it moves, e.g. shop.public.users
	Owner      string // UID of the synced table or feed
	Project    string
	Creator    string // principal
	CreateTime time.Time
}

// UpdateState is the published state of an update.
//
//	QUEUED ──▶ INITIALIZING ──▶ RUNNING ──▶ COMPLETED
//	   │            │              ├──▶ FAILED
//	   └────────────┴──────────────┴──▶ CANCELED
type UpdateState string

// The states of an update that Tarn passes through.
const (
	UpdateQueued       UpdateState = "QUEUED"
	UpdateInitializing UpdateState = "INITIALIZING"
	UpdateRunning      UpdateState = "RUNNING"
	UpdateCompleted    UpdateState = "COMPLETED"
	UpdateFailed       UpdateState = "FAILED"
	UpdateCanceled     UpdateState = "CANCELED"
)

// Ended tells that nothing more happens to an update.
func (s UpdateState) Ended() bool {
	return s == UpdateCompleted || s == UpdateFailed || s == UpdateCanceled
}

// UpdateCause is the published reason of an update.
type UpdateCause string

// Why an update began.
const (
	CauseAsked    UpdateCause = "API_CALL"
	CauseCreated  UpdateCause = "USER_ACTION"
	CauseSchedule UpdateCause = "JOB_TASK"
	CauseRetry    UpdateCause = "RETRY_ON_FAILURE"
	CauseSchema   UpdateCause = "SCHEMA_CHANGE"
	CauseBranch   UpdateCause = "INFRASTRUCTURE_MAINTENANCE" // the branch was restored or reset
)

// Refresh says how much an update reads again.
type Refresh string

// The two kinds of refresh.
const (
	RefreshNew  Refresh = "NEW"  // what changed since the position
	RefreshFull Refresh = "FULL" // everything
)

// PipelineUpdate is one run of a pipeline.
type PipelineUpdate struct {
	ID         string
	PipelineID string
	State      UpdateState
	Cause      UpdateCause
	Refresh    Refresh
	Message    string
	Rows       int64 // moved
	CreateTime time.Time
	UpdateTime time.Time // of the last change of state
}

// EventLevel is the published weight of an event.
type EventLevel string

// The levels of events.
const (
	EventInfo    EventLevel = "INFO"
	EventWarn    EventLevel = "WARN"
	EventError   EventLevel = "ERROR"
	EventMetrics EventLevel = "METRICS"
)

// EventType is the published kind of an event.
type EventType string

// The types of events that Tarn records.
const (
	EventCreateUpdate   EventType = "create_update"
	EventUpdateProgress EventType = "update_progress"
	EventFlowProgress   EventType = "flow_progress"
	EventFlowDefinition EventType = "flow_definition" // the schema changed
	EventUserAction     EventType = "user_action"
	EventDeadLetters    EventType = "dead_letters" // Tarn's own
	EventAlert          EventType = "alert"        // Tarn's own
)

// PipelineEvent is something that happened in a pipeline.
type PipelineEvent struct {
	ID         string
	Sequence   int64 // grows within the workspace
	PipelineID string
	UpdateID   string // "" = outside of an update
	Time       time.Time
	Level      EventLevel
	Type       EventType
	Message    string
	Error      string // SQLSTATE or kind with text; "" = none
}
